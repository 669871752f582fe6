//! Kernels in lists.

use backendai_types::{KernelId, SessionId};
use tokio_postgres::types::Type;

use crate::error::Result;
use crate::kernel::Kernel;
use crate::list_view::{Field, Kind, Page, Slice, Sql};
use crate::tx::Transaction;

/// Which kernels.
#[derive(Clone, Debug, Default)]
pub struct KernelScope {
    /// Only this one.
    pub id: Option<KernelId>,
    /// Only of this session.
    pub session_id: Option<SessionId>,
    /// Only of this role in its cluster: `main` or `sub`.
    pub cluster_role: Option<String>,
    /// Only of sessions of this domain.
    pub domain_name: Option<String>,
    /// Only of sessions made with this keypair.
    pub access_key: Option<String>,
}

const STATUS_NAMES: &[(&str, &str)] = &[
    ("PENDING", "PENDING"),
    ("SCHEDULED", "SCHEDULED"),
    ("PREPARING", "PREPARING"),
    ("PULLING", "PULLING"),
    ("RUNNING", "RUNNING"),
    ("RESTARTING", "RESTARTING"),
    ("TERMINATING", "TERMINATING"),
    ("TERMINATED", "TERMINATED"),
    ("ERROR", "ERROR"),
    ("CANCELLED", "CANCELLED"),
];

const AGENT_ADDR: &str = "(SELECT a.addr FROM agents a WHERE a.id = k.agent)";
const SCHEDULED_AT: &str =
    "(SELECT min(t.at) FROM transitions t WHERE t.kernel_id = k.id AND t.to_status = 'SCHEDULED')";

/// What kernels can be filtered and ordered by.
pub static KERNEL_FIELDS: &[Field] = &[
    Field::new("image", "k.image", Kind::Text),
    Field::new("architecture", "k.architecture", Kind::Text),
    Field::new("agent", "k.agent", Kind::Text),
    Field::new("agent_addr", AGENT_ADDR, Kind::Text),
    Field::new("cluster_idx", "k.cluster_idx", Kind::Int),
    Field::new("local_rank", "k.local_rank", Kind::Int),
    Field::new("cluster_role", "k.cluster_role", Kind::Text),
    Field::new("cluster_hostname", "k.cluster_hostname", Kind::Text),
    Field::new("session", "k.session_id", Kind::Uuid),
    Field::new("status", "k.status", Kind::Enum(STATUS_NAMES)),
    Field::new("status_info", "k.status_info", Kind::Text),
    Field::new("created_at", "k.created_at", Kind::Date),
    Field::new("status_changed", "k.status_changed", Kind::Date),
    Field::new("terminated_at", "k.terminated_at", Kind::Date),
    Field::new("scheduled_at", SCHEDULED_AT, Kind::Date),
];

/// What changed last comes first.
const RECENT: &str = "greatest(k.created_at, k.terminated_at, k.status_changed) DESC, k.id";

impl Transaction {
    /// A page of kernels.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn kernel_page(&self, scope: &KernelScope, slice: &Slice) -> Result<Page<Kernel>> {
        let mut sql = Sql::new("-- kernel_page\nSELECT ");
        sql.push(Kernel::COLUMNS).push(" FROM kernels k");
        restrict(&mut sql, scope, slice);
        sql.slice(slice, RECENT, "k.id");
        let items = self
            .query_built(&sql, slice.is_custom())
            .await?
            .iter()
            .map(Kernel::from_row)
            .collect::<Result<Vec<_>>>()?;
        if let Some(total) = slice.total_if_last(items.len()) {
            return Ok(Page { items, total });
        }
        let mut sql = Sql::new("-- kernel_count\nSELECT count(*) FROM kernels k");
        restrict(&mut sql, scope, slice);
        let total = self.count_built(&sql, slice.is_custom()).await?;
        Ok(Page { items, total })
    }
}

fn restrict(sql: &mut Sql, scope: &KernelScope, slice: &Slice) {
    sql.push(" JOIN sessions s ON s.id = k.session_id WHERE true");
    if let Some(id) = scope.id {
        sql.push(" AND k.id = ").bind(id.0, Type::UUID);
    }
    if let Some(id) = scope.session_id {
        sql.push(" AND k.session_id = ").bind(id.0, Type::UUID);
    }
    if let Some(role) = &scope.cluster_role {
        sql.push(" AND k.cluster_role = ").bind(role.clone(), Type::TEXT);
    }
    if let Some(domain) = &scope.domain_name {
        sql.push(" AND s.domain_name = ").bind(domain.clone(), Type::TEXT);
    }
    if let Some(key) = &scope.access_key {
        sql.push(" AND s.access_key = ").bind(key.clone(), Type::TEXT);
    }
    if let Some(condition) = &slice.filter {
        sql.push(" AND ");
        sql.condition(condition);
    }
}
