//! Groups (projects), as administrators make and change them.

use backendai_types::{GroupId, UserId};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::Belongings;
use crate::error::Result;
use crate::policy::Caps;
use crate::tx::Transaction;

/// A group to be made.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Its name, unique in its domain.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: bool,
    /// Its domain.
    pub domain_name: String,
    /// Caps on all its kernels together.
    pub total_resource_slots: Caps,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Value,
    /// Id in another system.
    pub integration_id: Option<String>,
    /// Name of its resource policy.
    pub resource_policy: String,
}

/// What of a group is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Its name.
    pub name: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: Option<bool>,
    /// Its domain.
    pub domain_name: Option<String>,
    /// Caps on all its kernels together.
    pub total_resource_slots: Option<Caps>,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Option<Value>,
    /// Id in another system.
    pub integration_id: Option<String>,
    /// Name of its resource policy.
    pub resource_policy: Option<String>,
}

impl Transaction {
    /// Makes a group and returns its id.
    ///
    /// # Errors
    /// Its domain has one of this name, or its domain or policy does not exist.
    pub async fn group_insert(&self, new: &NewGroup) -> Result<GroupId> {
        let row = self
            .query_one(
                "-- group_insert
                INSERT INTO groups (name, description, is_active, domain_name,
                    total_resource_slots, allowed_vfolder_hosts, integration_id, resource_policy)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
                &[
                    &new.name,
                    &new.description,
                    &new.is_active,
                    &new.domain_name,
                    &new.total_resource_slots.0,
                    &new.allowed_vfolder_hosts,
                    &new.integration_id,
                    &new.resource_policy,
                ],
            )
            .await?;
        Ok(GroupId(row.try_get(0)?))
    }

    /// The domain of a group.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_domain(&self, id: GroupId) -> Result<Option<String>> {
        let sql = "-- group_domain
                   SELECT domain_name FROM groups WHERE id = $1";
        self.query_opt(sql, &[&id.0]).await?.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// The group of this name in a domain.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_named(&self, domain: &str, name: &str) -> Result<Option<GroupId>> {
        let sql = "-- group_named
                   SELECT id FROM groups WHERE domain_name = $1 AND name = $2";
        let row = self.query_opt(sql, &[&domain, &name]).await?;
        row.map(|row| Ok(GroupId(row.try_get(0)?))).transpose()
    }

    /// Changes a group; false if there is none.
    ///
    /// # Errors
    /// Its new name is taken, or its new domain or policy does not exist.
    pub async fn group_update(&self, id: GroupId, change: &GroupChange) -> Result<bool> {
        let rows = self
            .execute(
                "-- group_update
                UPDATE groups SET
                    name = coalesce($2, name), description = coalesce($3, description),
                    is_active = coalesce($4, is_active), domain_name = coalesce($5, domain_name),
                    total_resource_slots = coalesce($6, total_resource_slots),
                    allowed_vfolder_hosts = coalesce($7, allowed_vfolder_hosts),
                    integration_id = coalesce($8, integration_id),
                    resource_policy = coalesce($9, resource_policy), modified_at = now()
                WHERE id = $1",
                &[
                    &id.0,
                    &change.name,
                    &change.description,
                    &change.is_active,
                    &change.domain_name,
                    &change.total_resource_slots.as_ref().map(|caps| &caps.0),
                    &change.allowed_vfolder_hosts,
                    &change.integration_id,
                    &change.resource_policy,
                ],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Puts users into a group. Those of other domains and those who do not exist are left out.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_add_users(&self, id: GroupId, users: &[UserId]) -> Result<u64> {
        let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
        self.execute(
            "-- group_add_users
            INSERT INTO association_groups_users (user_id, group_id)
            SELECT u.uuid, g.id FROM users u JOIN groups g ON g.domain_name = u.domain_name
            WHERE g.id = $1 AND u.uuid = ANY($2 /* users */)
            ON CONFLICT DO NOTHING",
            &[&id.0, &users],
        )
        .await
    }

    /// Takes users out of a group.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_remove_users(&self, id: GroupId, users: &[UserId]) -> Result<u64> {
        let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
        self.execute(
            "-- group_remove_users
            DELETE FROM association_groups_users WHERE group_id = $1 AND user_id = ANY($2)",
            &[&id.0, &users],
        )
        .await
    }

    /// Makes a group unusable and cuts its tie to another system; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_deactivate(&self, id: GroupId) -> Result<bool> {
        let rows = self
            .execute(
                "-- group_deactivate
                UPDATE groups SET is_active = false, integration_id = NULL, modified_at = now()
                WHERE id = $1",
                &[&id.0],
            )
            .await?;
        Ok(rows == 1)
    }

    /// What a group still has.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn group_belongings(&self, id: GroupId) -> Result<Belongings> {
        let row = self
            .query_one(
                "-- group_belongings
                SELECT count(*) FROM sessions
                WHERE group_id = $1 AND status NOT IN ('TERMINATED', 'CANCELLED')",
                &[&id.0],
            )
            .await?;
        Ok(Belongings { live_sessions: row.try_get(0)?, ..Belongings::default() })
    }

    /// Removes a group with what is left of its ended sessions; false if there is none.
    ///
    /// # Errors
    /// Something still refers to it.
    pub async fn group_delete(&self, id: GroupId) -> Result<bool> {
        self.execute(
            "-- group_delete_sessions
            DELETE FROM sessions WHERE group_id = $1",
            &[&id.0],
        )
        .await?;
        let rows = self
            .execute(
                "-- group_delete
                DELETE FROM groups WHERE id = $1",
                &[&id.0],
            )
            .await?;
        Ok(rows == 1)
    }
}
