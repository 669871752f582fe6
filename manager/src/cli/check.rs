//! `redis ping` and `agent ping`: whether servers answer.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;

use backendai_rpc::agent_api::Hello;
use backendai_rpc::transport::RpcConnector;
use backendai_service::redis::Redis;
use backendai_types::AgentId;

use super::Site;
use super::output::{OutputFormat, print_json, print_table, say};
use crate::agents::AgentPool;
use crate::server;
use crate::shared_config::{NoRedisAddress, SharedConfig};

#[derive(Debug, Subcommand)]
pub(super) enum RedisCommand {
    /// Ask Redis whether it is there.
    Ping,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Ask an agent for the state of its devices, over the way the manager asks.
    Ping {
        /// The agent's id.
        agent_id: String,
        /// Seconds to wait for the answer.
        #[arg(short, long, default_value_t = 10.0)]
        timeout: f64,
    },
}

pub(super) async fn redis(site: &Site, command: RedisCommand) -> Result<()> {
    let RedisCommand::Ping = command;
    let shared = SharedConfig::new(site.etcd().await?);
    let address = shared.redis_address().await?.ok_or(NoRedisAddress)?;
    let place = format!("{}:{} (config/redis/* in etcd)", address.host, address.port);
    let redis = Redis::connect(&address, "").await.with_context(|| format!("Redis at {place}"))?;
    let mut connection = redis.connection();
    let reply: redis::RedisResult<String> = redis::cmd("PING").query_async(&mut connection).await;
    reply.with_context(|| format!("is Redis running at {place}?"))?;
    if site.output == OutputFormat::Json {
        return print_json(&json!({"healthy": true, "addr": place}));
    }
    say(format_args!("Redis is healthy"));
    Ok(())
}

pub(super) async fn agent(site: &Site, command: AgentCommand) -> Result<()> {
    let AgentCommand::Ping { agent_id, timeout } = command;
    let config = site.config()?.value;
    let datastore = site.current_datastore().await?;
    let limit = Duration::try_from_secs_f64(timeout).context("--timeout")?;
    let id = AgentId(agent_id);
    let addr = datastore.autocommit().await?.agent_addr(&id).await?;
    let addr = addr.with_context(|| format!("there is no agent {id}"))?;
    let connector = RpcConnector::new(server::keypair(&config)?).context("prepare the call")?;
    let client = AgentPool::new(connector).client(&addr, None);
    let hello = Hello {};
    let asked = tokio::time::timeout(limit, client.hardware(&hello)).await;
    let devices: BTreeMap<_, _> = asked
        .with_context(|| format!("agent {id} at {} did not answer in {timeout} s", addr.addr))?
        .with_context(|| format!("ask agent {id} at {}", addr.addr))?;
    if site.output == OutputFormat::Json {
        return print_json(&json!({"agent": id, "addr": addr.addr, "devices": devices}));
    }
    say(format_args!("{id} at {} answers.", addr.addr));
    let rows = devices.into_iter().map(|(name, health)| {
        vec![name, serde_json::to_value(health).unwrap_or_default().to_string()]
    });
    print_table(&["device", "state"], rows);
    Ok(())
}
