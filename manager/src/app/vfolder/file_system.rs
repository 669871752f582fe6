//! File systems on the hosts of agents: their watchers mount them, each directly beneath
//! `volumes/_mount`, where a mounted one is a host of folders.

use std::collections::BTreeMap;
use std::time::Duration;

use backendai_service::telemetry::chain;
use backendai_types::AgentId;
use futures::StreamExt;
use futures::stream;
use reqwest::Method;
use serde_json::{Value, json};

use super::{VfolderError, host};
use crate::app::watcher::{self, WatcherReply};
use crate::app::{Result, SharedApp};
use crate::context::RequestContext;

/// How long a watcher may take over files and mounts.
const LIMIT: Duration = Duration::from_secs(10);
/// Watchers asked at once.
const AT_ONCE: usize = 16;

/// What the watcher of each agent said: its answer, or why there is none.
pub type Answers = BTreeMap<String, Result<String, String>>;

/// A file system to mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The directory beneath `volumes/_mount`.
    pub name: String,
    /// What to mount there.
    pub location: String,
    /// `nfs`…
    pub kind: String,
    /// Options, as `mount(8)` takes them.
    pub options: Option<String>,
}

/// Whether and where a table of mounts is changed, too.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Whether it is.
    pub edit: bool,
    /// Its path.
    pub path: Option<String>,
}

/// The table of mounts on an agent's host.
///
/// # Errors
/// There is no such agent, or its watcher does not answer or refuses.
pub async fn table(app: &SharedApp, agent: &str, path: Option<&str>) -> Result<String> {
    let query: String = match path {
        Some(path) => {
            let path =
                percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
            format!("/fstab?fstab_path={path}")
        }
        None => "/fstab".to_owned(),
    };
    let agent = AgentId(agent.to_owned());
    let reply = watcher::call(app, &agent, Method::GET, &query, None, LIMIT).await?;
    text(reply).map_err(|why| VfolderError::OperationFailed(why).into())
}

/// What is mounted beneath `volumes/_mount` on the hosts of all agents, as JSON lists.
///
/// # Errors
/// PostgreSQL failed.
pub async fn mounts(app: &SharedApp) -> Result<Answers> {
    ask(app, None, Method::GET, None).await
}

/// Mounts a file system on the hosts of all agents, or of a scaling group's.
///
/// # Errors
/// The name cannot be a host's, or PostgreSQL failed.
pub async fn mount(
    app: &SharedApp,
    context: &RequestContext,
    mount: &Mount,
    table: &Table,
    scaling_group: Option<&str>,
) -> Result<Answers> {
    host::check_name(&mount.name)?;
    let mut body = described(&mount.name, table);
    body["fs_location"] = mount.location.as_str().into();
    body["fs_type"] = mount.kind.as_str().into();
    if let Some(options) = &mount.options {
        body["options"] = options.as_str().into();
    }
    let (name, location) = (&mount.name, &mount.location);
    tracing::info!(request.id = context.request_id, name, location, "mounting on agents");
    ask(app, scaling_group, Method::POST, Some(&body)).await
}

/// Takes a file system down on the hosts of all agents, or of a scaling group's.
///
/// # Errors
/// Sessions have folders of it mounted, the name cannot be a host's, or PostgreSQL failed.
pub async fn unmount(
    app: &SharedApp,
    context: &RequestContext,
    name: &str,
    table: &Table,
    scaling_group: Option<&str>,
) -> Result<Answers> {
    host::check_name(name)?;
    let sessions = app.datastore.autocommit().await?.vfolder_host_mounted_by(name).await?;
    if sessions > 0 {
        return Err(VfolderError::HostInUse { host: name.to_owned(), sessions }.into());
    }
    tracing::info!(request.id = context.request_id, name, "unmounting on agents");
    ask(app, scaling_group, Method::DELETE, Some(&described(name, table))).await
}

fn described(name: &str, table: &Table) -> Value {
    let mut body = json!({ "name": name, "edit_fstab": table.edit });
    if let Some(path) = &table.path {
        body["fstab_path"] = path.as_str().into();
    }
    body
}

async fn ask(
    app: &SharedApp,
    scaling_group: Option<&str>,
    method: Method,
    body: Option<&Value>,
) -> Result<Answers> {
    let agents = app.datastore.autocommit().await?.agents_alive(scaling_group).await?;
    let one = |agent: AgentId| {
        let method = method.clone();
        async move {
            let reply = watcher::call(app, &agent, method, "/mounts", body, LIMIT).await;
            let answer = reply.map_err(|error| chain(&error)).and_then(text);
            (agent.0, answer)
        }
    };
    Ok(stream::iter(agents).map(one).buffer_unordered(AT_ONCE).collect().await)
}

/// The answer of a watcher that did what was asked, or why it did not.
fn text(reply: WatcherReply) -> Result<String, String> {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    if reply.status.is_success() {
        return Ok(text);
    }
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let why = problem["msg"].as_str().or(problem["title"].as_str()).unwrap_or(&text);
    Err(format!("the watcher answers {}: {why}", reply.status.as_u16()))
}
