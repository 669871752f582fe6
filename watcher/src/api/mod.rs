//! The watcher's HTTP interface: who may ask, what can be asked, and how failures look.

mod problem;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Value, json};

use backendai_service::http::header::{CONTENT_TYPE, HeaderValue, SERVER};
use backendai_service::http::{Incoming, Method, Request, Response, StatusCode, read_body};

use crate::mounts::{MountRequest, fstab};
use crate::server::Watcher;
use crate::units::Job;
use crate::{hardware, health};
use problem::Problem;

/// Holds the token.
const TOKEN_HEADER: &str = "x-backendai-watcher-token";
/// How the original names itself.
const SERVER_NAME: &str = "BackendAI-AgentWatcher";
/// Bytes of the longest request that makes sense.
const BODY_LIMIT: usize = 64 << 10;

/// Answers one request.
pub async fn answer(
    watcher: Arc<Watcher>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<String> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match respond(&watcher, request).await {
        Ok(Answer::Json(value)) => make(StatusCode::OK, "application/json", value.to_string()),
        Ok(Answer::Text(text)) => make(StatusCode::OK, "text/plain; charset=utf-8", text),
        Err(problem) => {
            let status = problem.status();
            tracing::warn!(%peer, %method, path, %status, "refused: {problem}");
            make(status, "application/problem+json", problem.body().to_string())
        }
    };
    response.headers_mut().insert(SERVER, HeaderValue::from_static(SERVER_NAME));
    response
}

fn make(status: StatusCode, content_type: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

enum Answer {
    Json(Value),
    Text(String),
}

/// What `POST` and `DELETE` of mounts say about the mount table.
#[derive(Deserialize)]
struct TableChoice {
    #[serde(default)]
    edit_fstab: bool,
    #[serde(default)]
    fstab_path: Option<String>,
}

#[derive(Deserialize)]
struct Unmount {
    name: String,
}

async fn respond(watcher: &Watcher, request: Request<Incoming>) -> Result<Answer, Problem> {
    // Before anything else: strangers learn nothing, not even which paths there are.
    let given = request.headers().get(TOKEN_HEADER).ok_or(Problem::Forbidden)?.as_bytes().to_vec();
    if !watcher.token().await?.is(&given) {
        return Err(Problem::Forbidden);
    }
    let done = |()| Answer::Json(json!({"result": "ok"}));
    let units = &watcher.units;
    let path = request.uri().path().to_owned();
    let query = query(request.uri().query().unwrap_or_default());
    match (request.method(), path.as_str()) {
        (&Method::GET, "/") => {
            let state = units.state().await?;
            let known = state.load != "not-found";
            let status = if known { state.active.as_str() } else { "unknown" };
            Ok(Answer::Json(json!({"agent-status": status, "watcher-status": "active"})))
        }
        (&Method::GET, "/agent/health") => {
            let health = health::look(units, &watcher.etcd, &watcher.config.agent).await?;
            Ok(Answer::Json(json!(health)))
        }
        (&Method::GET, "/hardware") => {
            Ok(Answer::Json(json!(hardware::look(&watcher.config.container.scratch_root))))
        }
        (&Method::POST, "/agent/start") => Ok(done(units.run(Job::Start).await?)),
        (&Method::POST, "/agent/stop") => Ok(done(units.run(Job::Stop).await?)),
        (&Method::POST, "/agent/restart") => Ok(done(units.run(Job::Restart).await?)),
        (&Method::POST, "/soft-reset") if watcher.config.watcher.soft_reset_available => {
            Ok(done(units.run(Job::Reload).await?))
        }
        (&Method::POST, "/hard-reset") => Ok(done(units.hard_reset().await?)),
        (&Method::POST, "/shutdown") => Ok(done(units.shut_down().await?)),
        (&Method::GET, "/fstab") => {
            let table = table(watcher, query.get("fstab_path").map(String::as_str))?;
            Ok(Answer::Text(fstab::read(table)?))
        }
        (&Method::GET, "/mounts") => {
            Ok(Answer::Json(json!(watcher.mount_prefix().await?.mounted()?)))
        }
        (&Method::POST, "/mounts") => mount(watcher, &body(request).await?).await,
        (&Method::DELETE, "/mounts") => unmount(watcher, &body(request).await?).await,
        (
            _,
            "/" | "/agent/health" | "/hardware" | "/agent/start" | "/agent/stop" | "/agent/restart"
            | "/hard-reset" | "/shutdown" | "/fstab" | "/mounts",
        ) => Err(Problem::MethodNotAllowed),
        _ => Err(Problem::NotFound),
    }
}

async fn mount(watcher: &Watcher, body: &Value) -> Result<Answer, Problem> {
    let request: MountRequest = decode(body)?;
    let choice: TableChoice = decode(body)?;
    let prefix = watcher.mount_prefix().await?;
    let table = table(watcher, choice.fstab_path.as_deref())?;
    let folder = prefix.check(&request)?;
    if choice.edit_fstab {
        // A mount that cannot be kept as asked is not made.
        fstab::check_editable(table)?;
    }
    let printed = prefix.mount(&request).await?;
    tracing::info!(folder = %folder.display(), from = request.fs_location, "mounted");
    if choice.edit_fstab {
        fstab::add(table, &request, &folder)?;
    }
    Ok(Answer::Text(printed))
}

async fn unmount(watcher: &Watcher, body: &Value) -> Result<Answer, Problem> {
    let Unmount { name } = decode(body)?;
    let choice: TableChoice = decode(body)?;
    let prefix = watcher.mount_prefix().await?;
    let table = table(watcher, choice.fstab_path.as_deref())?;
    let folder = prefix.folder(&name)?;
    if choice.edit_fstab {
        fstab::check_editable(table)?;
    }
    let printed = prefix.unmount(&name).await?;
    tracing::info!(folder = %folder.display(), "unmounted");
    if choice.edit_fstab {
        fstab::remove(table, &folder)?;
    }
    Ok(Answer::Text(printed))
}

/// The configured mount table: the one and only, whatever a request names.
fn table<'a>(watcher: &'a Watcher, named: Option<&str>) -> Result<&'a std::path::Path, Problem> {
    let table = watcher.config.watcher.fstab_path.as_path();
    match named.filter(|named| !named.is_empty()) {
        Some(named) if std::path::Path::new(named) != table => Err(Problem::BadRequest(format!(
            "fstab_path: only {} is open here (watcher.fstab-path)",
            table.display()
        ))),
        _ => Ok(table),
    }
}

async fn body(request: Request<Incoming>) -> Result<Value, Problem> {
    let bytes = read_body(request.into_body(), BODY_LIMIT)
        .await
        .map_err(|error| Problem::BadRequest(error.to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::BadRequest(format!("the body is not JSON: {error}")))
}

fn decode<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, Problem> {
    T::deserialize(body).map_err(|error| Problem::BadRequest(error.to_string()))
}

fn query(text: &str) -> HashMap<String, String> {
    let decode =
        |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}
