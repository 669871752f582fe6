//! Agents, as superadmins change them.

use backendai_types::AgentId;

use super::{Error, Result, SharedApp};
use crate::wake::Task;

/// Says whether new sessions are placed on an agent, and to which scaling group it belongs;
/// `None` leaves it. Sessions that run on it stay.
///
/// # Errors
/// There is no such agent or scaling group.
pub async fn modify(
    app: &SharedApp,
    id: &AgentId,
    schedulable: Option<bool>,
    scaling_group: Option<&str>,
) -> Result<()> {
    let db = app.datastore.autocommit().await?;
    if !db.agent_modify(id, schedulable, scaling_group).await? {
        return Err(Error::NotFound { object: "agent", message: None });
    }
    app.wake.task(Task::ScheduleSessions);
    Ok(())
}
