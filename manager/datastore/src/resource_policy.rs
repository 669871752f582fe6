//! Resource policies of keypairs, users and projects, as administrators make and change them.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use backendai_types::UserId;

use crate::error::Result;
use crate::policy::Caps;
use crate::tx::Transaction;

/// Columns of a policy of keypairs. For a change, `None` leaves a column as it is; for a new
/// policy it takes the table's default.
#[derive(Clone, Debug, Default)]
pub struct KeypairPolicyChange {
    /// `LIMITED` or `UNLIMITED`.
    pub default_for_unspecified: Option<String>,
    /// Caps by slot.
    pub total_resource_slots: Option<Caps>,
    /// Seconds; 0 is unlimited.
    pub max_session_lifetime: Option<i32>,
    /// Sessions at once; 0 or less is unlimited.
    pub max_concurrent_sessions: Option<i32>,
    /// Private (sftp) sessions at once.
    pub max_concurrent_sftp_sessions: Option<i32>,
    /// Kernels in one session.
    pub max_containers_per_session: Option<i32>,
    /// Seconds; 0 is never.
    pub idle_timeout: Option<i64>,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Option<Value>,
    /// Folders of a keypair.
    pub max_vfolder_count: Option<i32>,
    /// Bytes in all folders.
    pub max_vfolder_size: Option<i64>,
}

/// Columns of a policy of users; see [`KeypairPolicyChange`].
#[derive(Clone, Copy, Debug, Default)]
pub struct UserPolicyChange {
    /// Bytes in all folders of a user; -1 is unlimited.
    pub max_vfolder_size: Option<i64>,
    /// Sessions of one model service.
    pub max_session_count_per_model_session: Option<i32>,
}

/// A policy of users or, without a count of sessions, of projects.
#[derive(Clone, Debug)]
pub struct FolderPolicyView {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Bytes in all folders; -1 is unlimited.
    pub max_vfolder_size: i64,
    /// Sessions of one model service; `None` for projects.
    pub max_session_count_per_model_session: Option<i32>,
}

impl Transaction {
    /// Makes a policy of keypairs.
    ///
    /// # Errors
    /// There is one of this name, or a column without a default is missing.
    pub async fn keypair_policy_insert(&self, name: &str, new: &KeypairPolicyChange) -> Result<()> {
        self.execute_one(
            "resource policy",
            "-- keypair_policy_insert
            INSERT INTO keypair_resource_policies (name, default_for_unspecified,
                total_resource_slots, max_session_lifetime, max_concurrent_sessions,
                max_concurrent_sftp_sessions, max_containers_per_session, idle_timeout,
                allowed_vfolder_hosts, max_vfolder_count, max_vfolder_size)
            VALUES ($1, coalesce($2, 'UNLIMITED'), coalesce($3, '{}'::jsonb), coalesce($4, 0), $5,
                coalesce($6, 1), $7, coalesce($8::bigint, 0), coalesce($9, '{}'::jsonb), coalesce($10, 0),
                coalesce($11::bigint, 0))",
            &keypair_params(&name, new, &new.total_resource_slots.as_ref().map(|caps| &caps.0)),
        )
        .await
    }

    /// Changes a policy of keypairs; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_policy_update(
        &self,
        name: &str,
        change: &KeypairPolicyChange,
    ) -> Result<bool> {
        let rows = self
            .execute(
                "-- keypair_policy_update
                UPDATE keypair_resource_policies SET
                    default_for_unspecified = coalesce($2, default_for_unspecified),
                    total_resource_slots = coalesce($3, total_resource_slots),
                    max_session_lifetime = coalesce($4, max_session_lifetime),
                    max_concurrent_sessions = coalesce($5, max_concurrent_sessions),
                    max_concurrent_sftp_sessions = coalesce($6, max_concurrent_sftp_sessions),
                    max_containers_per_session = coalesce($7, max_containers_per_session),
                    idle_timeout = coalesce($8, idle_timeout),
                    allowed_vfolder_hosts = coalesce($9, allowed_vfolder_hosts),
                    max_vfolder_count = coalesce($10, max_vfolder_count),
                    max_vfolder_size = coalesce($11, max_vfolder_size)
                WHERE name = $1",
                &keypair_params(
                    &name,
                    change,
                    &change.total_resource_slots.as_ref().map(|caps| &caps.0),
                ),
            )
            .await?;
        Ok(rows == 1)
    }

    /// Removes a policy of keypairs; false if there is none.
    ///
    /// # Errors
    /// Keypairs have it.
    pub async fn keypair_policy_delete(&self, name: &str) -> Result<bool> {
        let sql = "-- keypair_policy_delete
                   DELETE FROM keypair_resource_policies WHERE name = $1";
        Ok(self.execute(sql, &[&name]).await? == 1)
    }

    /// Policies of users by name: the one of this name, or that of one user, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_policy_views(
        &self,
        name: Option<&str>,
        user: Option<UserId>,
    ) -> Result<Vec<FolderPolicyView>> {
        let rows = self
            .query(
                "-- user_policy_views
                SELECT p.name, p.created_at, p.max_vfolder_size,
                       p.max_session_count_per_model_session
                FROM user_resource_policies p
                WHERE ($1::text IS NULL OR p.name = $1)
                  AND ($2::uuid IS NULL OR EXISTS (SELECT FROM users u
                           WHERE u.resource_policy = p.name AND u.uuid = $2))
                ORDER BY p.name",
                &[&name, &user.map(|id| id.0)],
            )
            .await?;
        rows.iter().map(FolderPolicyView::from_row).collect()
    }

    /// Makes a policy of users.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn user_policy_insert(&self, name: &str, new: &UserPolicyChange) -> Result<()> {
        self.execute_one(
            "resource policy",
            "-- user_policy_insert
            INSERT INTO user_resource_policies (name, max_vfolder_size,
                max_session_count_per_model_session)
            VALUES ($1, coalesce($2::bigint, -1), coalesce($3, 10))",
            &[&name, &new.max_vfolder_size, &new.max_session_count_per_model_session],
        )
        .await
    }

    /// Changes a policy of users; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn user_policy_update(&self, name: &str, change: &UserPolicyChange) -> Result<bool> {
        let rows = self
            .execute(
                "-- user_policy_update
                UPDATE user_resource_policies SET
                    max_vfolder_size = coalesce($2, max_vfolder_size),
                    max_session_count_per_model_session =
                        coalesce($3, max_session_count_per_model_session)
                WHERE name = $1",
                &[&name, &change.max_vfolder_size, &change.max_session_count_per_model_session],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Removes a policy of users; false if there is none.
    ///
    /// # Errors
    /// Users have it.
    pub async fn user_policy_delete(&self, name: &str) -> Result<bool> {
        let sql = "-- user_policy_delete
                   DELETE FROM user_resource_policies WHERE name = $1";
        Ok(self.execute(sql, &[&name]).await? == 1)
    }

    /// Policies of projects by name: the one of this name, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn project_policy_views(&self, name: Option<&str>) -> Result<Vec<FolderPolicyView>> {
        let rows = self
            .query(
                "-- project_policy_views
                SELECT p.name, p.created_at, p.max_vfolder_size,
                       NULL::int AS max_session_count_per_model_session
                FROM project_resource_policies p
                WHERE ($1::text IS NULL OR p.name = $1) ORDER BY p.name",
                &[&name],
            )
            .await?;
        rows.iter().map(FolderPolicyView::from_row).collect()
    }

    /// Makes a policy of projects.
    ///
    /// # Errors
    /// There is one of this name.
    pub async fn project_policy_insert(&self, name: &str, max_size: Option<i64>) -> Result<()> {
        self.execute_one(
            "resource policy",
            "-- project_policy_insert
            INSERT INTO project_resource_policies (name, max_vfolder_size)
            VALUES ($1, coalesce($2::bigint, -1))",
            &[&name, &max_size],
        )
        .await
    }

    /// Changes a policy of projects; false if there is none.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn project_policy_update(&self, name: &str, max_size: Option<i64>) -> Result<bool> {
        let sql = "-- project_policy_update
                   UPDATE project_resource_policies
                   SET max_vfolder_size = coalesce($2, max_vfolder_size) WHERE name = $1";
        Ok(self.execute(sql, &[&name, &max_size]).await? == 1)
    }

    /// Removes a policy of projects; false if there is none.
    ///
    /// # Errors
    /// Groups have it.
    pub async fn project_policy_delete(&self, name: &str) -> Result<bool> {
        let sql = "-- project_policy_delete
                   DELETE FROM project_resource_policies WHERE name = $1";
        Ok(self.execute(sql, &[&name]).await? == 1)
    }
}

/// The parameters of both statements about policies of keypairs.
fn keypair_params<'a>(
    name: &'a &'a str,
    columns: &'a KeypairPolicyChange,
    slots: &'a Option<&'a Value>,
) -> [&'a (dyn ToSql + Sync); 11] {
    [
        name,
        &columns.default_for_unspecified,
        slots,
        &columns.max_session_lifetime,
        &columns.max_concurrent_sessions,
        &columns.max_concurrent_sftp_sessions,
        &columns.max_containers_per_session,
        &columns.idle_timeout,
        &columns.allowed_vfolder_hosts,
        &columns.max_vfolder_count,
        &columns.max_vfolder_size,
    ]
}

impl FolderPolicyView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            created_at: row.try_get("created_at")?,
            max_vfolder_size: row.try_get("max_vfolder_size")?,
            max_session_count_per_model_session: row
                .try_get("max_session_count_per_model_session")?,
        })
    }
}
