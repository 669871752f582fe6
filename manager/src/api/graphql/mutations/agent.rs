//! Mutations of agents.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_types::AgentId;

use super::door::{self, payloads};
use crate::app::agent;

/// Mutations of agents.
#[derive(Default)]
pub struct AgentMutations;

payloads! {
    /// An agent was changed, or not.
    ModifyAgent;
}

/// What of an agent is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyAgentInput {
    /// False places no new sessions on it.
    schedulable: Option<bool>,
    /// Holds until the agent is configured to join another one.
    scaling_group: Option<String>,
}

/// Mutations of agents.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AgentMutations {
    async fn modify_agent(
        &self,
        ctx: &Context<'_>,
        id: String,
        props: ModifyAgentInput,
    ) -> Result<Option<ModifyAgent>> {
        let id = AgentId(id);
        let done = door::pass(ctx, &id, async |asker| {
            let ModifyAgentInput { schedulable, scaling_group } = props;
            agent::modify(&asker.app, &id, schedulable, scaling_group.as_deref()).await
        });
        Ok(Some(done.await?.into()))
    }
}
