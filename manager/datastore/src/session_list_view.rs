//! Sessions in lists, with what their owners are called.

use std::collections::HashMap;

use backendai_types::{
    AccessKey, GroupId, KernelId, ResourceSlots, SessionId, SessionStatus, UserId,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::error::Result;
use crate::kernel::Kernel;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::row;
use crate::tx::Transaction;

/// A session in a list.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// Its main kernel.
    pub main_kernel_id: Option<KernelId>,
    /// Registry of the main kernel's image.
    pub registry: Option<String>,
    /// Its name.
    pub name: String,
    /// Free text for the user.
    pub tag: Option<String>,
    /// `INTERACTIVE`…
    pub session_type: String,
    /// `single-node`…
    pub cluster_mode: String,
    /// Number of kernels.
    pub cluster_size: i32,
    /// Canonical name of the image.
    pub image: String,
    /// The image's architecture.
    pub architecture: String,
    /// The owner's domain.
    pub domain_name: String,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// The group's name.
    pub group_name: String,
    /// The owner.
    pub user_id: UserId,
    /// The owner's e-mail address.
    pub user_email: String,
    /// The owner's name.
    pub full_name: Option<String>,
    /// The owner's keypair.
    pub access_key: AccessKey,
    /// Where it is scheduled.
    pub scaling_group: String,
    /// Its status.
    pub status: SessionStatus,
    /// Since when.
    pub status_changed: DateTime<Utc>,
    /// Why, in a kebab-case word.
    pub status_info: Option<String>,
    /// Why, in detail.
    pub status_data: Value,
    /// `UNDEFINED`…
    pub result: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub terminated_at: Option<DateTime<Utc>>,
    /// When a batch session may start.
    pub starts_at: Option<DateTime<Utc>>,
    /// Command of a batch session.
    pub startup_command: Option<String>,
    /// Mounted folders.
    pub vfolder_mounts: Value,
    /// Pieces of code executed in it.
    pub num_queries: i64,
}

/// Whose sessions, and which.
#[derive(Clone, Debug, Default)]
pub struct SessionScope {
    /// Only of this domain.
    pub domain_name: Option<String>,
    /// Only of this group.
    pub group_id: Option<GroupId>,
    /// Only of this keypair.
    pub access_key: Option<AccessKey>,
    /// Only in one of these statuses; empty is any.
    pub statuses: Vec<SessionStatus>,
}

const STATUS_NAMES: &[(&str, &str)] = &[
    ("PENDING", "PENDING"),
    ("SCHEDULED", "SCHEDULED"),
    ("PULLING", "PULLING"),
    ("PREPARING", "PREPARING"),
    ("RUNNING", "RUNNING"),
    ("RESTARTING", "RESTARTING"),
    ("RUNNING_DEGRADED", "RUNNING_DEGRADED"),
    ("TERMINATING", "TERMINATING"),
    ("TERMINATED", "TERMINATED"),
    ("ERROR", "ERROR"),
    ("CANCELLED", "CANCELLED"),
];
const TYPE_NAMES: &[(&str, &str)] =
    &[("INTERACTIVE", "INTERACTIVE"), ("BATCH", "BATCH"), ("INFERENCE", "INFERENCE")];
const RESULT_NAMES: &[(&str, &str)] =
    &[("UNDEFINED", "UNDEFINED"), ("SUCCESS", "SUCCESS"), ("FAILURE", "FAILURE")];
const MODE_NAMES: &[(&str, &str)] = &[("SINGLE_NODE", "single-node"), ("MULTI_NODE", "multi-node")];

const IMAGES: &str =
    "ARRAY(SELECT k.image FROM kernels k WHERE k.session_id = s.id ORDER BY k.local_rank)";
const AGENTS: &str = "ARRAY(SELECT DISTINCT k.agent FROM kernels k WHERE k.session_id = s.id AND k.agent IS NOT NULL ORDER BY 1)";
const SCHEDULED_AT: &str = "(SELECT min(t.at) FROM transitions t WHERE t.session_id = s.id AND t.kernel_id IS NULL AND t.to_status = 'SCHEDULED')";

/// What sessions can be filtered and ordered by.
pub static SESSION_FIELDS: &[Field] = &[
    Field::new("id", "s.id", Kind::Uuid),
    Field::new("type", "s.session_type", Kind::Enum(TYPE_NAMES)),
    Field::new("name", "s.name", Kind::Text),
    Field::new("image", IMAGES, Kind::Text).array(),
    Field::new("agent_ids", AGENTS, Kind::Text).array(),
    Field::new("agent_id", AGENTS, Kind::Text).array(),
    Field::new("agents", AGENTS, Kind::Text).array(),
    Field::new("domain_name", "s.domain_name", Kind::Text),
    Field::new("group_name", "g.name", Kind::Text),
    Field::new("user_email", "u.email", Kind::Text),
    Field::new("full_name", "u.full_name", Kind::Text),
    Field::new("access_key", "s.access_key", Kind::Text),
    Field::new("scaling_group", "s.scaling_group", Kind::Text),
    Field::new("cluster_mode", "s.cluster_mode", Kind::Enum(MODE_NAMES)),
    Field::new("cluster_size", "s.cluster_size", Kind::Int),
    Field::new("status", "s.status", Kind::Enum(STATUS_NAMES)),
    Field::new("status_info", "s.status_info", Kind::Text),
    Field::new("result", "s.result", Kind::Enum(RESULT_NAMES)),
    Field::new("created_at", "s.created_at", Kind::Date),
    Field::new("terminated_at", "s.terminated_at", Kind::Date),
    Field::new("starts_at", "s.starts_at", Kind::Date),
    Field::new("scheduled_at", SCHEDULED_AT, Kind::Date),
    Field::new("startup_command", "s.startup_command", Kind::Text).filter_only(),
];

// The main kernel is looked up by subqueries: unlike a join's, their rows are fetched after
// LIMIT has chosen.
const SELECT: &str = "SELECT s.id, s.name, s.tag, \
    (SELECT m.id FROM kernels m WHERE m.session_id = s.id AND m.cluster_hostname = 'main1') \
        AS main_kernel_id, \
    (SELECT m.registry FROM kernels m WHERE m.session_id = s.id AND m.cluster_hostname = 'main1') \
        AS registry, \
    s.session_type, s.cluster_mode, s.cluster_size, s.image, s.architecture, s.domain_name, \
    s.group_id, g.name AS group_name, s.user_uuid, u.email, u.full_name, s.access_key, \
    s.scaling_group, s.status, s.status_changed, s.status_info, s.status_data, s.result, \
    s.created_at, s.terminated_at, s.starts_at, s.startup_command, s.vfolder_mounts, \
    s.num_queries";
const OWNERS: &str = " FROM sessions s JOIN groups g ON g.id = s.group_id \
    JOIN users u ON u.uuid = s.user_uuid";
/// Latest beginning or end first; served by the indexes `sessions_recent…`.
const RECENT: &str = "greatest(s.created_at, s.terminated_at) DESC, s.id";

impl Transaction {
    /// A page of the sessions in a scope. With a total: counting all is spared where the
    /// page shows that there are no more.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_page(
        &self,
        scope: &SessionScope,
        slice: &Slice,
    ) -> Result<Page<SessionView>> {
        let mut sql = Sql::new("-- session_page\n");
        sql.push(SELECT).push(OWNERS);
        restrict(&mut sql, scope, slice);
        sql.slice(slice, RECENT, "s.id");
        let items = self
            .query_built(&sql, slice.is_custom())
            .await?
            .iter()
            .map(SessionView::from_row)
            .collect::<Result<Vec<_>>>()?;
        let total = match slice.total_if_last(items.len()) {
            Some(total) => total,
            None => self.session_count(scope, slice).await?,
        };
        Ok(Page { items, total })
    }

    async fn session_count(&self, scope: &SessionScope, slice: &Slice) -> Result<i64> {
        let mut sql = Sql::new("-- session_count\nSELECT count(*)");
        // Owners are joined one to one by keys that cannot be missing: they change no count.
        sql.push(if slice.filter.is_some() { OWNERS } else { " FROM sessions s" });
        restrict(&mut sql, scope, slice);
        self.count_built(&sql, slice.is_custom()).await
    }

    /// Sessions by their ids, in any order.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_views(&self, ids: &[SessionId]) -> Result<Vec<SessionView>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let sql = format!("-- session_views\n{SELECT}{OWNERS} WHERE s.id = ANY($1 /* sessions */)");
        self.query(&sql, &[&ids]).await?.iter().map(SessionView::from_row).collect()
    }

    /// The kernels of several sessions, main ones first.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernels_of_sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<HashMap<SessionId, Vec<Kernel>>> {
        let ids: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let sql = format!(
            "-- kernels_of_sessions
            SELECT {} FROM kernels k WHERE k.session_id = ANY($1 /* sessions */)
            ORDER BY k.session_id, k.local_rank",
            Kernel::COLUMNS
        );
        let mut kernels: HashMap<_, Vec<Kernel>> = HashMap::new();
        for row in self.query(&sql, &[&ids]).await? {
            let kernel = Kernel::from_row(&row)?;
            kernels.entry(kernel.session_id).or_default().push(kernel);
        }
        Ok(kernels)
    }

    /// What the kernels of several sessions occupy.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_usage_of_sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<HashMap<KernelId, ResourceSlots>> {
        let ids: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- kernel_usage_of_sessions
                SELECT a.kernel_id, jsonb_object_agg(a.slot, a.amount::text) AS slots
                FROM kernels k JOIN allocations a ON a.kernel_id = k.id
                WHERE k.session_id = ANY($1 /* sessions */) GROUP BY 1",
                &[&ids],
            )
            .await?;
        rows.iter()
            .map(|row| Ok((KernelId(row.try_get("kernel_id")?), row::slots(row, "slots")?)))
            .collect()
    }

    /// When each of several sessions first came to each of its statuses, in order of time.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_histories(
        &self,
        sessions: &[SessionId],
    ) -> Result<HashMap<SessionId, Vec<(String, DateTime<Utc>)>>> {
        let ids: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- session_histories
                SELECT session_id, to_status, min(at) AS at FROM transitions
                WHERE session_id = ANY($1 /* sessions */) AND kernel_id IS NULL
                  AND to_status IS NOT NULL
                GROUP BY session_id, to_status ORDER BY session_id, min(at), min(seq)",
                &[&ids],
            )
            .await?;
        let mut histories: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            histories
                .entry(SessionId(row.try_get("session_id")?))
                .or_default()
                .push((row.try_get("to_status")?, row.try_get("at")?));
        }
        Ok(histories)
    }

    /// What several sessions depend on.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn session_dependencies_of(
        &self,
        sessions: &[SessionId],
    ) -> Result<HashMap<SessionId, Vec<SessionId>>> {
        let ids: Vec<Uuid> = sessions.iter().map(|id| id.0).collect();
        let rows = self
            .query(
                "-- session_dependencies_of
                SELECT session_id, depends_on FROM session_dependencies
                WHERE session_id = ANY($1 /* sessions */) ORDER BY session_id, depends_on",
                &[&ids],
            )
            .await?;
        let mut dependencies: HashMap<_, Vec<_>> = HashMap::new();
        for row in rows {
            dependencies
                .entry(SessionId(row.try_get("session_id")?))
                .or_default()
                .push(SessionId(row.try_get("depends_on")?));
        }
        Ok(dependencies)
    }
}

fn restrict(sql: &mut Sql, scope: &SessionScope, slice: &Slice) {
    sql.push(" WHERE true");
    if let Some(domain) = &scope.domain_name {
        sql.push(" AND s.domain_name = ").bind(domain.clone(), Type::TEXT);
    }
    if let Some(group) = scope.group_id {
        sql.push(" AND s.group_id = ").bind(group.0, Type::UUID);
    }
    if let Some(key) = &scope.access_key {
        sql.push(" AND s.access_key = ").bind(key.0.clone(), Type::TEXT);
    }
    if !scope.statuses.is_empty() {
        let names: Vec<String> = scope.statuses.iter().map(|s| s.as_str().to_owned()).collect();
        sql.push(" AND s.status = ANY(").bind(names, Type::TEXT_ARRAY).push(")");
        if !scope.statuses.iter().any(|status| status.is_terminal()) {
            // Says what the parameter cannot: that the partial index of live sessions serves.
            sql.push(" AND s.status NOT IN ('TERMINATED', 'CANCELLED')");
        }
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}

impl SessionView {
    fn from_row(row: &Row) -> Result<Self> {
        Ok(Self {
            id: SessionId(row.try_get("id")?),
            main_kernel_id: row.try_get::<_, Option<Uuid>>("main_kernel_id")?.map(KernelId),
            registry: row.try_get("registry")?,
            name: row.try_get("name")?,
            tag: row.try_get("tag")?,
            session_type: row.try_get("session_type")?,
            cluster_mode: row.try_get("cluster_mode")?,
            cluster_size: row.try_get("cluster_size")?,
            image: row.try_get("image")?,
            architecture: row.try_get("architecture")?,
            domain_name: row.try_get("domain_name")?,
            group_id: GroupId(row.try_get("group_id")?),
            group_name: row.try_get("group_name")?,
            user_id: UserId(row.try_get("user_uuid")?),
            user_email: row.try_get("email")?,
            full_name: row.try_get("full_name")?,
            access_key: AccessKey(row.try_get("access_key")?),
            scaling_group: row.try_get("scaling_group")?,
            status: row::parsed(row, "status")?,
            status_changed: row.try_get("status_changed")?,
            status_info: row.try_get("status_info")?,
            status_data: row.try_get("status_data")?,
            result: row.try_get("result")?,
            created_at: row.try_get("created_at")?,
            terminated_at: row.try_get("terminated_at")?,
            starts_at: row.try_get("starts_at")?,
            startup_command: row.try_get("startup_command")?,
            vfolder_mounts: row.try_get("vfolder_mounts")?,
            num_queries: row.try_get("num_queries")?,
        })
    }
}
