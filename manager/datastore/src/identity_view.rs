//! Domains, groups and users in lists.

use backendai_types::{GroupId, UserId};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::row;
use crate::tx::Transaction;

/// A domain as administrators see it.
#[derive(Clone, Debug)]
pub struct DomainView {
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub modified_at: DateTime<Utc>,
    /// Caps by slot.
    pub total_resource_slots: Value,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Value,
    /// Registries whose images may be used.
    pub allowed_docker_registries: Vec<String>,
    /// Id in another system.
    pub integration_id: Option<String>,
    /// Scaling groups it may use.
    pub scaling_groups: Vec<String>,
}

/// A group as its members and administrators see it.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub modified_at: DateTime<Utc>,
    /// Its domain.
    pub domain_name: String,
    /// Caps by slot.
    pub total_resource_slots: Value,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Value,
    /// Id in another system.
    pub integration_id: Option<String>,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// Scaling groups it may use.
    pub scaling_groups: Vec<String>,
}

/// Which groups.
#[derive(Clone, Debug, Default)]
pub struct GroupScope {
    /// Only this one.
    pub id: Option<GroupId>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only of this domain.
    pub domain_name: Option<String>,
    /// Only those with this member.
    pub member: Option<UserId>,
    /// Only active or inactive ones.
    pub is_active: Option<bool>,
}

/// A user as administrators see it.
#[derive(Clone, Debug)]
pub struct UserView {
    /// Its id.
    pub id: UserId,
    /// Short name.
    pub username: Option<String>,
    /// E-mail address.
    pub email: String,
    /// Whether the password must be changed at the next login.
    pub need_password_change: bool,
    /// Name.
    pub full_name: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// `active`…
    pub status: String,
    /// Why.
    pub status_info: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub modified_at: DateTime<Utc>,
    /// Its domain.
    pub domain_name: Option<String>,
    /// `user`…
    pub role: String,
    /// Name of its resource policy.
    pub resource_policy: String,
    /// Networks it may call from; `None` is anywhere.
    pub allowed_client_ip: Option<Vec<String>>,
    /// Whether it logs in with a second factor.
    pub totp_activated: bool,
    /// Since when.
    pub totp_activated_at: Option<DateTime<Utc>>,
    /// Whether it may become root in sessions.
    pub sudo_session_enabled: bool,
    /// The keypair that password login hands out.
    pub main_access_key: Option<String>,
    /// Groups it belongs to.
    pub groups: Vec<GroupName>,
}

/// A group a user belongs to.
#[derive(Clone, Debug, Deserialize)]
pub struct GroupName {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
}

/// Which users.
#[derive(Clone, Debug, Default)]
pub struct UserScope {
    /// Only this one.
    pub id: Option<UserId>,
    /// Only with this address.
    pub email: Option<String>,
    /// Only of this domain.
    pub domain_name: Option<String>,
    /// Only members of this group.
    pub group_id: Option<GroupId>,
    /// Only active ones, or only others.
    pub is_active: Option<bool>,
    /// Only with this status.
    pub status: Option<String>,
}

const STATUS_NAMES: &[(&str, &str)] = &[
    ("ACTIVE", "active"),
    ("INACTIVE", "inactive"),
    ("DELETED", "deleted"),
    ("BEFORE_VERIFICATION", "before-verification"),
];
const ROLE_NAMES: &[(&str, &str)] =
    &[("SUPERADMIN", "superadmin"), ("ADMIN", "admin"), ("USER", "user"), ("MONITOR", "monitor")];

/// What users can be filtered and ordered by.
pub static USER_FIELDS: &[Field] = &[
    Field::new("uuid", "u.uuid", Kind::Uuid),
    Field::new("username", "u.username", Kind::Text),
    Field::new("email", "u.email", Kind::Text),
    Field::new("need_password_change", "u.need_password_change", Kind::Bool),
    Field::new("full_name", "u.full_name", Kind::Text),
    Field::new("description", "u.description", Kind::Text).filter_only(),
    Field::new("status", "u.status", Kind::Enum(STATUS_NAMES)),
    Field::new("status_info", "u.status_info", Kind::Text),
    Field::new("created_at", "u.created_at", Kind::Date),
    Field::new("modified_at", "u.modified_at", Kind::Date),
    Field::new("domain_name", "u.domain_name", Kind::Text),
    Field::new("role", "u.role", Kind::Enum(ROLE_NAMES)),
    Field::new("resource_policy", "u.resource_policy", Kind::Text),
    Field::new("allowed_client_ip", "u.allowed_client_ip", Kind::Text).array().filter_only(),
    Field::new("totp_activated", "u.totp_activated", Kind::Bool),
    Field::new("totp_activated_at", "u.totp_activated_at", Kind::Date),
    Field::new("sudo_session_enabled", "u.sudo_session_enabled", Kind::Bool),
    Field::new("main_access_key", "u.main_access_key", Kind::Text),
];

const SELECT_USER: &str = "SELECT u.uuid, u.username, u.email, u.need_password_change, \
    u.full_name, u.description, u.status, u.status_info, u.created_at, u.modified_at, \
    u.domain_name, u.role, u.resource_policy, u.allowed_client_ip, u.totp_activated, \
    u.totp_activated_at, u.sudo_session_enabled, u.main_access_key, \
    (SELECT coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'name', g.name) ORDER BY g.name), '[]') \
        FROM association_groups_users m JOIN groups g ON g.id = m.group_id \
        WHERE m.user_id = u.uuid) AS groups \
    FROM users u";

impl Transaction {
    /// Domains by name; only the one of this name, only active or inactive ones, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn domain_views(
        &self,
        name: Option<&str>,
        is_active: Option<bool>,
    ) -> Result<Vec<DomainView>> {
        let rows = self
            .query(
                "-- domain_views
                SELECT d.name, d.description, d.is_active, d.created_at, d.modified_at,
                       d.total_resource_slots, d.allowed_vfolder_hosts,
                       d.allowed_docker_registries, d.integration_id,
                       ARRAY(SELECT s.scaling_group FROM sgroups_for_domains s
                             WHERE s.domain = d.name ORDER BY 1)::text[] AS scaling_groups
                FROM domains d
                WHERE ($1::text IS NULL OR d.name = $1) AND ($2::bool IS NULL OR d.is_active = $2)
                ORDER BY d.name",
                &[&name, &is_active],
            )
            .await?;
        rows.iter().map(DomainView::from_row).collect()
    }

    /// Groups by name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_views(&self, scope: &GroupScope) -> Result<Vec<GroupView>> {
        let rows = self
            .query(
                "-- group_views
                SELECT g.id, g.name, g.description, g.is_active, g.created_at, g.modified_at,
                       g.domain_name, g.total_resource_slots, g.allowed_vfolder_hosts,
                       g.integration_id, g.resource_policy,
                       ARRAY(SELECT s.scaling_group FROM sgroups_for_groups s
                             WHERE s.\"group\" = g.id ORDER BY 1)::text[] AS scaling_groups
                FROM groups g
                WHERE ($1::uuid IS NULL OR g.id = $1) AND ($2::text IS NULL OR g.name = $2)
                  AND ($3::text IS NULL OR g.domain_name = $3)
                  AND ($4::uuid IS NULL OR EXISTS (SELECT FROM association_groups_users m
                           WHERE m.group_id = g.id AND m.user_id = $4))
                  AND ($5::bool IS NULL OR g.is_active = $5)
                ORDER BY g.name, g.domain_name",
                &[
                    &scope.id.map(|id| id.0),
                    &scope.name,
                    &scope.domain_name,
                    &scope.member.map(|id| id.0),
                    &scope.is_active,
                ],
            )
            .await?;
        rows.iter().map(GroupView::from_row).collect()
    }

    /// A page of users, the newest first unless asked otherwise.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_page(&self, scope: &UserScope, slice: &Slice) -> Result<Page<UserView>> {
        let mut sql = Sql::new("-- user_page\n");
        sql.push(SELECT_USER);
        restrict(&mut sql, scope, slice);
        sql.slice(slice, "u.created_at DESC, u.uuid", "u.uuid");
        let items = self
            .query_built(&sql, slice.is_custom())
            .await?
            .iter()
            .map(UserView::from_row)
            .collect::<Result<Vec<_>>>()?;
        if let Some(total) = slice.total_if_last(items.len()) {
            return Ok(Page { items, total });
        }
        let mut sql = Sql::new("-- user_count\nSELECT count(*) FROM users u");
        restrict(&mut sql, scope, slice);
        let total = self.count_built(&sql, slice.is_custom()).await?;
        Ok(Page { items, total })
    }
}

fn restrict(sql: &mut Sql, scope: &UserScope, slice: &Slice) {
    sql.push(" WHERE true");
    if let Some(id) = scope.id {
        sql.push(" AND u.uuid = ").bind(id.0, Type::UUID);
    }
    if let Some(email) = &scope.email {
        sql.push(" AND u.email = ").bind(email.clone(), Type::TEXT);
    }
    if let Some(domain) = &scope.domain_name {
        sql.push(" AND u.domain_name = ").bind(domain.clone(), Type::TEXT);
    }
    if let Some(group) = scope.group_id {
        sql.push(
            " AND u.uuid IN (SELECT m.user_id FROM association_groups_users m WHERE m.group_id = ",
        )
        .bind(group.0, Type::UUID)
        .push(")");
    }
    if let Some(is_active) = scope.is_active {
        sql.push(if is_active { " AND u.status = 'active'" } else { " AND u.status <> 'active'" });
    }
    if let Some(status) = &scope.status {
        sql.push(" AND u.status = ").bind(status.clone(), Type::TEXT);
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}

impl DomainView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            is_active: row.try_get("is_active")?,
            created_at: row.try_get("created_at")?,
            modified_at: row.try_get("modified_at")?,
            total_resource_slots: row.try_get("total_resource_slots")?,
            allowed_vfolder_hosts: row.try_get("allowed_vfolder_hosts")?,
            allowed_docker_registries: row.try_get("allowed_docker_registries")?,
            integration_id: row.try_get("integration_id")?,
            scaling_groups: row.try_get("scaling_groups")?,
        })
    }
}

impl GroupView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: GroupId(row.try_get("id")?),
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            is_active: row.try_get("is_active")?,
            created_at: row.try_get("created_at")?,
            modified_at: row.try_get("modified_at")?,
            domain_name: row.try_get("domain_name")?,
            total_resource_slots: row.try_get("total_resource_slots")?,
            allowed_vfolder_hosts: row.try_get("allowed_vfolder_hosts")?,
            integration_id: row.try_get("integration_id")?,
            resource_policy: row.try_get("resource_policy")?,
            scaling_groups: row.try_get("scaling_groups")?,
        })
    }
}

impl UserView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: UserId(row.try_get("uuid")?),
            username: row.try_get("username")?,
            email: row.try_get("email")?,
            need_password_change: row.try_get("need_password_change")?,
            full_name: row.try_get("full_name")?,
            description: row.try_get("description")?,
            status: row.try_get("status")?,
            status_info: row.try_get("status_info")?,
            created_at: row.try_get("created_at")?,
            modified_at: row.try_get("modified_at")?,
            domain_name: row.try_get("domain_name")?,
            role: row.try_get("role")?,
            resource_policy: row.try_get("resource_policy")?,
            allowed_client_ip: row.try_get("allowed_client_ip")?,
            totp_activated: row.try_get("totp_activated")?,
            totp_activated_at: row.try_get("totp_activated_at")?,
            sudo_session_enabled: row.try_get("sudo_session_enabled")?,
            main_access_key: row.try_get("main_access_key")?,
            groups: row::json(row, "groups")?,
        })
    }
}
