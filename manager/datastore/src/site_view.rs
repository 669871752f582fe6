//! Scaling groups and resource policies in lists.

use backendai_types::UserId;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;

use crate::error::Result;
use crate::tx::Transaction;

/// A scaling group as administrators see it.
#[derive(Clone, Debug)]
pub struct ScalingGroupView {
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Whether it may be used.
    pub is_active: bool,
    /// False for groups that only system sessions may use.
    pub is_public: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Address of its app proxy.
    pub wsproxy_addr: Option<String>,
    /// The proxy's token.
    pub wsproxy_api_token: Option<String>,
    /// `static`…
    pub driver: String,
    /// The driver's options.
    pub driver_opts: Value,
    /// `fifo`…
    pub scheduler: String,
    /// The scheduler's options.
    pub scheduler_opts: Value,
    /// Whether containers use the host's network.
    pub use_host_network: bool,
}

/// Which scaling groups.
#[derive(Clone, Debug, Default)]
pub struct ScalingGroupScope {
    /// Only this one.
    pub name: Option<String>,
    /// Only active or inactive ones.
    pub is_active: Option<bool>,
    /// Only those of this domain.
    pub domain: Option<String>,
    /// Only those of this group.
    pub group: Option<uuid::Uuid>,
    /// Only those of this keypair.
    pub access_key: Option<String>,
}

/// A resource policy of keypairs.
#[derive(Clone, Debug)]
pub struct KeypairPolicyView {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// `LIMITED` or `UNLIMITED`.
    pub default_for_unspecified: String,
    /// Caps by slot.
    pub total_resource_slots: Value,
    /// Seconds; 0 is unlimited.
    pub max_session_lifetime: i32,
    /// Sessions at once.
    pub max_concurrent_sessions: i32,
    /// Kernels in one session.
    pub max_containers_per_session: i32,
    /// Seconds; 0 is never.
    pub idle_timeout: i64,
    /// Permissions by host.
    pub allowed_vfolder_hosts: Value,
    /// Folders of a keypair.
    pub max_vfolder_count: i32,
    /// Bytes in all folders.
    pub max_vfolder_size: i64,
}

impl Transaction {
    /// Scaling groups by name.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn scaling_group_views(
        &self,
        scope: &ScalingGroupScope,
    ) -> Result<Vec<ScalingGroupView>> {
        let rows = self
            .query(
                "-- scaling_group_views
                SELECT s.name, s.description, s.is_active, s.is_public, s.created_at,
                       s.wsproxy_addr, s.wsproxy_api_token, s.driver, s.driver_opts, s.scheduler,
                       s.scheduler_opts, s.use_host_network
                FROM scaling_groups s
                WHERE ($1::text IS NULL OR s.name = $1) AND ($2::bool IS NULL OR s.is_active = $2)
                  AND ($3::text IS NULL OR EXISTS (SELECT FROM sgroups_for_domains d
                           WHERE d.scaling_group = s.name AND d.domain = $3))
                  AND ($4::uuid IS NULL OR EXISTS (SELECT FROM sgroups_for_groups g
                           WHERE g.scaling_group = s.name AND g.\"group\" = $4))
                  AND ($5::text IS NULL OR EXISTS (SELECT FROM sgroups_for_keypairs k
                           WHERE k.scaling_group = s.name AND k.access_key = $5))
                ORDER BY s.name",
                &[&scope.name, &scope.is_active, &scope.domain, &scope.group, &scope.access_key],
            )
            .await?;
        rows.iter().map(ScalingGroupView::from_row).collect()
    }

    /// Resource policies of keypairs by name: the one of this name, or those of one user's
    /// keypairs, if given.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn keypair_policy_views(
        &self,
        name: Option<&str>,
        user: Option<UserId>,
    ) -> Result<Vec<KeypairPolicyView>> {
        let rows = self
            .query(
                "-- keypair_policy_views
                SELECT p.name, p.created_at, p.default_for_unspecified, p.total_resource_slots,
                       p.max_session_lifetime, p.max_concurrent_sessions,
                       p.max_containers_per_session, p.idle_timeout, p.allowed_vfolder_hosts,
                       p.max_vfolder_count, p.max_vfolder_size
                FROM keypair_resource_policies p
                WHERE ($1::text IS NULL OR p.name = $1)
                  AND ($2::uuid IS NULL OR EXISTS (SELECT FROM keypairs k
                           WHERE k.resource_policy = p.name AND k.\"user\" = $2))
                ORDER BY p.name",
                &[&name, &user.map(|id| id.0)],
            )
            .await?;
        rows.iter().map(KeypairPolicyView::from_row).collect()
    }
}

impl ScalingGroupView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            description: row.try_get("description")?,
            is_active: row.try_get("is_active")?,
            is_public: row.try_get("is_public")?,
            created_at: row.try_get("created_at")?,
            wsproxy_addr: row.try_get("wsproxy_addr")?,
            wsproxy_api_token: row.try_get("wsproxy_api_token")?,
            driver: row.try_get("driver")?,
            driver_opts: row.try_get("driver_opts")?,
            scheduler: row.try_get("scheduler")?,
            scheduler_opts: row.try_get("scheduler_opts")?,
            use_host_network: row.try_get("use_host_network")?,
        })
    }
}

impl KeypairPolicyView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            name: row.try_get("name")?,
            created_at: row.try_get("created_at")?,
            default_for_unspecified: row.try_get("default_for_unspecified")?,
            total_resource_slots: row.try_get("total_resource_slots")?,
            max_session_lifetime: row.try_get("max_session_lifetime")?,
            max_concurrent_sessions: row.try_get("max_concurrent_sessions")?,
            max_containers_per_session: row.try_get("max_containers_per_session")?,
            idle_timeout: row.try_get("idle_timeout")?,
            allowed_vfolder_hosts: row.try_get("allowed_vfolder_hosts")?,
            max_vfolder_count: row.try_get("max_vfolder_count")?,
            max_vfolder_size: row.try_get("max_vfolder_size")?,
        })
    }
}
