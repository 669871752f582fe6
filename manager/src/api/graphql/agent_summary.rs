//! `AgentSummary`: an agent as users see it.

use async_graphql::{ID, Object};
use backendai_datastore::agent_list_view::AgentView;
use backendai_datastore::list_view::Page;

use super::scalars::JsonString;

/// An agent as users see it.
pub struct AgentSummary(pub AgentView);

/// A page of agents as users see them.
pub struct AgentSummaryList(pub Page<AgentView>);

/// A page of agents as users see them.
#[Object(rename_fields = "snake_case")]
impl AgentSummaryList {
    async fn items(&self) -> Vec<Option<AgentSummary>> {
        self.0.items.iter().cloned().map(AgentSummary).map(Some).collect()
    }

    async fn total_count(&self) -> i32 {
        i32::try_from(self.0.total).unwrap_or(i32::MAX)
    }
}

/// An agent as users see it.
#[Object(rename_fields = "snake_case")]
impl AgentSummary {
    async fn id(&self) -> Option<ID> {
        Some(self.0.id.0.clone().into())
    }

    async fn status(&self) -> Option<&str> {
        Some(&self.0.status)
    }

    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.0.scaling_group)
    }

    async fn schedulable(&self) -> Option<bool> {
        Some(self.0.schedulable)
    }

    async fn available_slots(&self) -> Option<JsonString> {
        Some(JsonString::slots(&self.0.available_slots))
    }

    async fn occupied_slots(&self) -> Option<JsonString> {
        Some(JsonString::slots(&self.0.occupied_slots))
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.0.architecture)
    }
}
