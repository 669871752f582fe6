//! Calls to the watchers: the small servers beside agents that start and stop them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Error, Result, SharedApp};
use backendai_service::etcd::quote;
use backendai_types::AgentId;

/// Where a watcher listens unless its node says otherwise.
const PORT: &str = "6009";
/// Carries the secret that managers and watchers share.
const TOKEN_HEADER: &str = "X-BackendAI-Watcher-Token";
/// What stands for the secret where none is configured.
const NO_TOKEN: &str = "insecure";
/// Key of the secret below `config/`.
const TOKEN: &str = "watcher/token";
/// Largest answer that is read: a file system table, a list of mounts.
const MAX_BODY: usize = 1 << 20;

/// A watcher's answer, to be passed on.
#[derive(Clone, Debug)]
pub struct WatcherReply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Vec<u8>,
}

/// Asks the watcher of an agent.
///
/// # Errors
/// There is no such agent, or its watcher does not answer in time.
pub async fn call(
    app: &SharedApp,
    agent: &AgentId,
    method: Method,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<WatcherReply> {
    let url = format!("http://{}{path}", address(app, agent).await?);
    let token = app.shared.config_value(TOKEN).await?;
    let client = reqwest::Client::builder().no_proxy().timeout(limit).build();
    let client = client.map_err(|error| Error::internal("prepare a call to a watcher", error))?;
    let mut request =
        client.request(method, url).header(TOKEN_HEADER, token.as_deref().unwrap_or(NO_TOKEN));
    if let Some(body) = body {
        request = request.json(body);
    }
    let away = |error: reqwest::Error| Error::Unavailable {
        service: "The watcher of the agent",
        source: Box::new(error),
    };
    let mut reply = request.send().await.map_err(away)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(away)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BODY {
            let message = format!("its answer has more than {MAX_BODY} bytes");
            return Err(Error::Unavailable {
                service: "The watcher of the agent",
                source: message.into(),
            });
        }
    }
    Ok(WatcherReply { status: reply.status(), body: bytes })
}

/// Where the watcher beside an agent listens: where the node says, or else on the usual
/// port of the address the agent answers at.
async fn address(app: &SharedApp, agent: &AgentId) -> Result<String> {
    let known = app.datastore.autocommit().await?.agent_addr(agent).await?;
    let Some(known) = known else {
        return Err(Error::NotFound { object: "agent instance", message: Some(agent.0.clone()) });
    };
    let node = format!("nodes/agents/{}", quote(agent.as_str()));
    let ip = app.etcd.get(&format!("{node}/ip")).await?;
    let port = app.etcd.get(&format!("{node}/watcher_port")).await?;
    let host = ip.unwrap_or_else(|| host_of(&known.addr));
    let host =
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Ok(format!("{host}:{}", port.as_deref().unwrap_or(PORT)))
}

/// The host of `tcp://host:port`.
fn host_of(addr: &str) -> String {
    let rest = addr.split_once("://").map_or(addr, |(_, rest)| rest);
    rest.rsplit_once(':').map_or(rest, |(host, _)| host).to_owned()
}
