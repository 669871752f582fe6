//! How busy nodes and kernels are: live figures in Redis, as they may vanish at any time, and
//! the shape in which clients see them.
//!
//! Figures lie there as their agents packed them, under a key each, and vanish by themselves
//! when the agent falls silent. The last ones of a kernel come with the news of its end and
//! are kept in PostgreSQL, so Redis loses nothing that anybody would miss in five seconds.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use backendai_datastore::kernel::LocatedKernel;
use backendai_rpc::agent_api::KernelCall;
use backendai_rpc::statistics::{Metric, Metrics, NodeMetrics, Packed, Statistics};
use backendai_service::redis::Redis;
use backendai_types::{AgentId, KernelId};

use super::SharedApp;

/// Keys of nodes' figures: the agent's id follows.
const NODE: &str = "stat:agent";
/// Keys of kernels' figures: the kernel's id follows.
const KERNEL: &str = "stat:kernel";
/// An agent does not wait longer for a Redis that hangs: the next figures follow.
const PATIENCE: Duration = Duration::from_millis(500);

/// Keeps what an agent measured, for as long as it says. A failure only makes figures old.
pub async fn store(redis: &Redis, statistics: &Statistics) {
    let mut pipe = redis::pipe();
    let mut set = |key: String, figures: &[u8]| {
        pipe.cmd("SET").arg(key).arg(figures).arg("EX").arg(statistics.valid_s.max(1)).ignore();
    };
    set(key(redis, NODE, &statistics.agent_id), statistics.node.as_bytes());
    for (kernel, figures) in &statistics.kernels {
        set(key(redis, KERNEL, kernel), figures.as_bytes());
    }
    let mut connection = redis.connection();
    let stored = pipe.query_async::<()>(&mut connection);
    match tokio::time::timeout(PATIENCE, stored).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an agent's figures are not kept"),
        Err(_) => tracing::debug!("an agent's figures are not kept: Redis hangs"),
    }
}

/// The figures of nodes, where known.
pub async fn nodes(redis: &Redis, agents: &[AgentId]) -> HashMap<AgentId, NodeMetrics> {
    read(redis, NODE, agents).await
}

/// The figures of kernels, where known.
pub async fn kernels(redis: &Redis, kernels: &[KernelId]) -> HashMap<KernelId, Metrics> {
    read(redis, KERNEL, kernels).await
}

/// A kernel's figures of this moment as its agent tells them, or else the last known ones.
pub async fn kernel_now(app: &SharedApp, kernel: &LocatedKernel) -> Option<Metrics> {
    if kernel.agent_alive {
        let call = KernelCall { kernel_id: kernel.id };
        match app.agents.client(&kernel.agent, None).kernel_metrics(&call).await {
            Ok(packed) => return packed?.unpack(),
            Err(error) => tracing::debug!(kernel.id = %kernel.id, %error, "ask for its figures"),
        }
    }
    kernels(&app.redis, &[kernel.id]).await.remove(&kernel.id)
}

async fn read<Id, T>(redis: &Redis, kind: &str, ids: &[Id]) -> HashMap<Id, T>
where
    Id: Clone + Display + Eq + Hash,
    T: Serialize + DeserializeOwned,
{
    if ids.is_empty() {
        return HashMap::new();
    }
    let mut command = redis::cmd("MGET");
    for id in ids {
        command.arg(key(redis, kind, id));
    }
    let mut connection = redis.connection();
    let found: redis::RedisResult<Vec<Option<Vec<u8>>>> =
        command.query_async(&mut connection).await;
    let found = found.unwrap_or_else(|error| {
        tracing::debug!(%error, "live figures are not known");
        Vec::new()
    });
    let figures = ids.iter().zip(found);
    figures.filter_map(|(id, bytes)| Some((id.clone(), unpack(bytes?)?))).collect()
}

fn unpack<T: Serialize + DeserializeOwned>(bytes: Vec<u8>) -> Option<T> {
    Packed::from_bytes(bytes).unpack()
}

fn key(redis: &Redis, kind: &str, id: &impl Display) -> String {
    redis.key(&format!("{kind}:{id}"))
}

/// A kernel's figures in the product's shape: `{metric: {current, capacity, pct, unit_hint,
/// stats.*}}`, all numbers as text.
pub fn kernel_view(metrics: &Metrics) -> Value {
    metrics.iter().map(|(name, metric)| (name.clone(), metric_view(metric))).collect()
}

/// A node's figures in the product's shape: `{node: {metric: …}, devices: {metric: {device: …}}}`.
pub fn node_view(metrics: &NodeMetrics) -> Value {
    let devices: Map<String, Value> = metrics
        .devices
        .iter()
        .map(|(name, devices)| (name.clone(), kernel_view(devices)))
        .collect();
    json!({ "node": kernel_view(&metrics.node), "devices": devices })
}

fn metric_view(metric: &Metric) -> Value {
    let mut view = json!({
        "current": number(metric.current),
        "capacity": metric.capacity.map(number),
        "pct": format!("{:.2}", metric.percent()),
        "unit_hint": metric.unit.hint(),
    });
    for (name, value) in
        [("stats.avg", metric.avg), ("stats.max", metric.max), ("stats.rate", metric.rate)]
    {
        if let Some(value) = value {
            view[name] = number(value).into();
        }
    }
    view
}

/// Three decimals at most, and no exponent.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use backendai_rpc::statistics::Unit;

    use super::*;

    #[test]
    fn metrics_are_shown_as_clients_expect_them() {
        let cpu = Metric {
            avg: Some(100.0),
            max: Some(1999.98765),
            ..Metric::new(Unit::MillisecondsPerSecond, 250.0).of(1000.0)
        };
        assert_eq!(
            metric_view(&cpu).to_string(),
            r#"{"current":"250","capacity":"1000","pct":"25.00","unit_hint":"percent","stats.avg":"100","stats.max":"1999.988"}"#
        );
        let io = Metric { rate: Some(0.5), ..Metric::new(Unit::Bytes, 9007199254740992.0) };
        assert_eq!(
            metric_view(&io).to_string(),
            r#"{"current":"9007199254740992","capacity":null,"pct":"0.00","unit_hint":"bytes","stats.rate":"0.5"}"#
        );
    }

    #[test]
    fn numbers_have_no_exponent_and_three_decimals() {
        let shown = [0.0, 0.0004, 100.0, 1e21, 1.5, 2.0009].map(number);
        assert_eq!(shown, ["0", "0", "100", "1000000000000000000000", "1.5", "2.001"]);
    }
}
