//! How busy agents are right now. Kept in Redis, as it may vanish at any time.

use std::collections::HashMap;
use std::time::Duration;

use backendai_rpc::manager_api::NodeLoad;
use backendai_service::redis::Redis;
use backendai_types::AgentId;

/// Redis hash of loads by agent.
const KEY: &str = "agent_load";
/// A heartbeat does not wait longer for a Redis that hangs: the next one is a second away.
const PATIENCE: Duration = Duration::from_millis(100);

/// Keeps an agent's load. A failure only makes the figure old.
pub async fn note(redis: &Redis, agent: &AgentId, load: NodeLoad) {
    let Ok(text) = serde_json::to_string(&load) else { return };
    let mut connection = redis.connection();
    let mut command = redis::cmd("HSET");
    command.arg(redis.key(KEY)).arg(agent.as_str()).arg(text);
    let noted = command.query_async::<()>(&mut connection);
    match tokio::time::timeout(PATIENCE, noted).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an agent's load is not kept"),
        Err(_) => tracing::debug!("an agent's load is not kept: Redis hangs"),
    }
}

/// The loads of agents, where known.
pub async fn read(redis: &Redis, agents: &[AgentId]) -> HashMap<AgentId, NodeLoad> {
    if agents.is_empty() {
        return HashMap::new();
    }
    let mut command = redis::cmd("HMGET");
    command.arg(redis.key(KEY));
    for agent in agents {
        command.arg(agent.as_str());
    }
    let mut connection = redis.connection();
    let texts: redis::RedisResult<Vec<Option<String>>> = command.query_async(&mut connection).await;
    match texts {
        Ok(texts) => agents
            .iter()
            .zip(texts)
            .filter_map(|(agent, text)| Some((agent.clone(), serde_json::from_str(&text?).ok()?)))
            .collect(),
        Err(error) => {
            tracing::debug!(%error, "agents' loads are not known");
            HashMap::new()
        }
    }
}
