//! Templates of sessions and clusters as rows.

use backendai_types::{GroupId, UserId};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::tx::Transaction;

/// What a template makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateKind {
    /// A session.
    Task,
    /// A session of several kernels.
    Cluster,
}

impl TemplateKind {
    /// The spelling in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "TASK",
            Self::Cluster => "CLUSTER",
        }
    }
}

/// A template that has not been deleted.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its id.
    pub id: Uuid,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The domain its sessions belong to.
    pub domain_name: String,
    /// The group its sessions belong to.
    pub group_id: Option<GroupId>,
    /// That group's name.
    pub group_name: Option<String>,
    /// Its owner.
    pub user_id: UserId,
    /// The owner's e-mail address.
    pub user_email: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub template: Value,
}

/// A template to insert.
#[derive(Clone, Debug)]
pub struct NewTemplate {
    /// See [`Template`].
    pub id: Uuid,
    /// See [`Template`].
    pub domain_name: String,
    /// See [`Template`].
    pub group_id: GroupId,
    /// See [`Template`].
    pub user_id: UserId,
    /// See [`Template`].
    pub name: String,
    /// See [`Template`].
    pub template: Value,
}

/// Which templates somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateScope {
    /// All there are.
    Everything,
    /// Those of a domain.
    Domain(String),
    /// A user's own and those of the user's groups.
    User(UserId),
}

impl Transaction {
    /// Inserts templates.
    ///
    /// # Errors
    /// `Reference` when a user or group has vanished.
    pub async fn templates_insert(&self, kind: TemplateKind, new: &[NewTemplate]) -> Result<()> {
        for template in new {
            self.execute(
                "-- templates_insert
                INSERT INTO session_templates
                    (id, type, domain_name, group_id, user_uuid, name, template)
                VALUES ($1, $2, $3, $4, $5, $6, $7)",
                &[
                    &template.id,
                    &kind.as_str(),
                    &template.domain_name,
                    &template.group_id.0,
                    &template.user_id.0,
                    &template.name,
                    &template.template,
                ],
            )
            .await?;
        }
        Ok(())
    }

    /// The templates that `scope` shows, the oldest first: all, or the one of an id.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn templates(
        &self,
        kind: TemplateKind,
        scope: &TemplateScope,
        id: Option<Uuid>,
    ) -> Result<Vec<Template>> {
        let (domain, user) = match scope {
            TemplateScope::Everything => (None, None),
            TemplateScope::Domain(domain) => (Some(domain), None),
            TemplateScope::User(user) => (None, Some(user.0)),
        };
        let rows = self
            .query(
                "-- templates
                SELECT t.id, t.created_at, t.domain_name, t.group_id, g.name AS group_name,
                       t.user_uuid, u.email, t.name, t.template
                FROM session_templates t
                JOIN users u ON u.uuid = t.user_uuid
                LEFT JOIN groups g ON g.id = t.group_id
                WHERE t.is_active AND t.type = $1
                  AND ($2::uuid IS NULL OR t.id = $2)
                  AND ($3::text IS NULL OR t.domain_name = $3)
                  AND ($4::uuid IS NULL OR t.user_uuid = $4 OR EXISTS (
                      SELECT FROM association_groups_users m
                      WHERE m.group_id = t.group_id AND m.user_id = $4))
                ORDER BY t.created_at, t.id",
                &[&kind.as_str(), &id, &domain, &user],
            )
            .await?;
        rows.iter().map(Template::from_row).collect()
    }

    /// Gives a template another name and content. False if there is none of this id.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn template_update(
        &self,
        kind: TemplateKind,
        id: Uuid,
        name: &str,
        template: &Value,
    ) -> Result<bool> {
        let rows = self
            .execute(
                "-- template_update
                UPDATE session_templates SET name = $3, template = $4
                WHERE id = $2 AND type = $1 AND is_active",
                &[&kind.as_str(), &id, &name, template],
            )
            .await?;
        Ok(rows > 0)
    }

    /// Deletes a template. False if there is none of this id.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn template_deactivate(&self, kind: TemplateKind, id: Uuid) -> Result<bool> {
        let rows = self
            .execute(
                "-- template_deactivate
                UPDATE session_templates SET is_active = false
                WHERE id = $2 AND type = $1 AND is_active",
                &[&kind.as_str(), &id],
            )
            .await?;
        Ok(rows > 0)
    }
}

impl Template {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: row.try_get("id")?,
            created_at: row.try_get("created_at")?,
            domain_name: row.try_get("domain_name")?,
            group_id: row.try_get::<_, Option<Uuid>>("group_id")?.map(GroupId),
            group_name: row.try_get("group_name")?,
            user_id: UserId(row.try_get("user_uuid")?),
            user_email: row.try_get("email")?,
            name: row.try_get("name")?,
            template: row.try_get("template")?,
        })
    }
}
