//! What this manager is and how it does, for operators.

use super::{Result, SharedApp};
use crate::shared_config::ManagerStatus;

/// A manager's own view of itself.
#[derive(Clone, Debug)]
pub struct ManagerReport {
    /// This manager's id.
    pub manager_id: String,
    /// Where its API listens, as configured.
    pub service_addr: String,
    /// An agent that was silent this long is LOST; seconds.
    pub heartbeat_timeout_s: f64,
    /// What managers may do now.
    pub status: ManagerStatus,
    /// Sessions that occupy something.
    pub active_sessions: i64,
}

/// Reports on this manager.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn report(app: &SharedApp) -> Result<ManagerReport> {
    let section = &app.config.manager;
    Ok(ManagerReport {
        manager_id: app.config.manager_id(),
        service_addr: section.service_addr.to_string(),
        heartbeat_timeout_s: section.heartbeat_timeout,
        status: app.shared.manager_status().await?,
        active_sessions: app.datastore.autocommit().await?.active_session_count().await?,
    })
}
