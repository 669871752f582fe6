//! The steps every request takes, whatever its route.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use hyper::upgrade::OnUpgrade;
use tracing::Instrument;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::reply::Response;

use super::ApiState;
use super::audit::Watched;
use super::auth::{self, RequestHead};
use super::call::{BodyStream, Call, Caller, Handshake};
use super::problem::Problem;
use super::ratelimit::{self, Verdict};
use super::rest::vfolder_transfer;
use super::routes::{Body, Guard, Level, Lookup, Route};
use super::serve::Peer;
use super::version::{self, ApiVersion};
use crate::app::manager_status::{self, Work};
use crate::context::{RequestContext, Role};
use crate::metrics;

/// Largest body that is read into memory.
const MAX_BODY: usize = 1 << 20;
/// How long a client may take to send it.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What anonymous callers are told about their rate limit, which they do not have.
const ANONYMOUS_LIMIT: u64 = 1000;

/// A request, taken apart.
struct Incoming {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    peer: Option<Peer>,
    body: BodyStream,
    upgrade: Option<Handshake>,
}

/// One filter for all requests; it rejects none.
pub fn filter(state: Arc<ApiState>) -> BoxedFilter<(Response,)> {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    let upgrade = warp::ext::get::<OnUpgrade>()
        .and(warp::ws())
        .map(|switched, ws| Some(Handshake { ws, switched }))
        .or(warp::any().map(|| None))
        .unify();
    let body = warp::body::stream().map(|stream| -> BodyStream { Box::pin(chunks(stream)) });
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::optional::<Peer>())
        .and(body)
        .and(upgrade)
        .then(move |method, path: warp::path::FullPath, query, headers, peer, body, upgrade| {
            let path = path.as_str().to_owned();
            let request = Incoming { method, path, query, headers, peer, body, upgrade };
            respond(Arc::clone(&state), request)
        })
        .boxed()
}

fn chunks<B: Buf>(
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> impl Stream<Item = Result<Bytes, warp::Error>> {
    stream.map(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining())))
}

/// Answers a request: logs it, and turns failures into problem documents.
async fn respond(state: Arc<ApiState>, request: Incoming) -> Response {
    let started = Instant::now();
    let request_id = next_request_id();
    let span = tracing::info_span!("api", request.id = %request_id);
    async move {
        let method = request.method.clone();
        let path = request.path.clone();
        let wants_cors = request.headers.contains_key(header::ORIGIN);
        let mut route = None;
        let answered = Box::pin(steps(state, request, request_id.clone(), &mut route)).await;
        let mut response = match answered {
            Ok(response) => response,
            Err(problem) => {
                log_problem(&problem);
                problem_response(&problem)
            }
        };
        finish(&mut response, &request_id, wants_cors);
        let (status, took) = (response.status().as_u16(), started.elapsed());
        metrics::request(method.as_str(), route, status, took);
        tracing::debug!(
            %method,
            path,
            status,
            took_us = took.as_micros() as u64,
            "answered"
        );
        response
    }
    .instrument(span)
    .await
}

async fn steps(
    state: Arc<ApiState>,
    request: Incoming,
    request_id: String,
    found: &mut Option<&'static str>,
) -> Result<Response, Problem> {
    if vfolder_transfer::is_upload_preflight(&request.method, &request.path) {
        return Ok(vfolder_transfer::tus(Response::default(), None));
    }
    if request.method == Method::OPTIONS {
        return preflight(&state, &request);
    }
    let (route, path) = find_route(&state, &request)?;
    *found = Some(route.name);
    let version = version::negotiate(&request.headers)?;
    let caller = match route.level {
        Level::Public => None,
        _ => identify(&state, &request, version, &request_id).await?,
    };
    let mut watched = Watched::new(route, request.method.as_str(), &path);
    let (app, peer) = (Arc::clone(&state.app), request.peer.map(|peer| peer.0.ip()));
    let context = caller.as_ref().map(|caller| Arc::clone(&caller.context));
    let answered = {
        let request_id = request_id.clone();
        carry_out(state, route, request, request_id, caller, path, &mut watched).await
    };
    if let Some(watched) = watched {
        watched.record(&app, &request_id, context.as_deref(), peer, &answered).await;
    }
    answered
}

/// What follows once the route and the caller are known.
async fn carry_out(
    state: Arc<ApiState>,
    route: &'static Route,
    request: Incoming,
    request_id: String,
    caller: Option<Caller>,
    path: Vec<String>,
    watched: &mut Option<Watched>,
) -> Result<Response, Problem> {
    let remaining = count(&state, caller.as_ref()).await?;
    check_status(&state, route.guard).await?;
    check_level(route.level, caller.as_ref())?;
    let (body, stream) = match route.body {
        Body::Whole => {
            let read = read_body(&request.headers, request.body);
            let read = tokio::time::timeout(BODY_TIMEOUT, read).await;
            (read.map_err(|_| Problem::bad_request())??, None)
        }
        Body::Streamed => (Bytes::new(), Some(request.body)),
    };
    if let Some(watched) = watched {
        watched.note_body(&body);
    }
    let limit = caller.as_ref().map_or(ANONYMOUS_LIMIT, |caller| caller.credential.rate_limit);
    let call = Call {
        app: Arc::clone(&state.app),
        state,
        request_id,
        caller,
        path,
        query: request.query,
        headers: request.headers,
        body,
        stream,
        upgrade: request.upgrade,
        peer: request.peer.map(|peer| peer.0.ip()),
    };
    let mut response = (route.handler)(call).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        rate_headers(response.headers_mut(), limit, remaining);
    }
    Ok(response)
}

fn find_route(
    state: &ApiState,
    request: &Incoming,
) -> Result<(&'static Route, Vec<String>), Problem> {
    let overridden = request.headers.get("x-method-override").and_then(|v| v.to_str().ok());
    let method = overridden.unwrap_or(request.method.as_str()).to_ascii_uppercase();
    match state.table.find(&method, &request.path) {
        Lookup::Found(route, values) => Ok((route, values)),
        Lookup::WrongMethod(methods) => Err(Problem::method_not_allowed(methods.join(","))),
        Lookup::NoPath => Err(Problem::url_not_found(&request.path)),
    }
}

async fn identify(
    state: &ApiState,
    request: &Incoming,
    version: ApiVersion,
    request_id: &str,
) -> Result<Option<Caller>, Problem> {
    let mut target = request.path.clone();
    if let Some(query) = &request.query {
        let _ = write!(target, "?{query}");
    }
    let head = RequestHead {
        method: request.method.as_str(),
        target: &target,
        headers: &request.headers,
        peer: request.peer.map(|peer| peer.0.ip()),
    };
    let credential = auth::authenticate(&state.credentials, &head, chrono::Utc::now()).await?;
    Ok(credential.map(|credential| Caller {
        context: Arc::new(RequestContext {
            request_id: request_id.to_owned(),
            access_key: credential.access_key.clone(),
            is_admin_key: credential.is_admin,
            user_id: credential.user_id,
            email: credential.email.clone(),
            role: credential.role,
            domain_name: credential.domain_name.clone(),
            api_version: (version.major, version.date.to_owned()),
        }),
        credential,
    }))
}

async fn count(state: &ApiState, caller: Option<&Caller>) -> Result<u64, Problem> {
    let Some(caller) = caller else { return Ok(ANONYMOUS_LIMIT) };
    let credential = &caller.credential;
    match state.limiter.count(credential.access_key.as_str(), credential.rate_limit).await {
        Verdict::Pass { remaining } => Ok(remaining),
        Verdict::Refuse => Err(Problem::rate_limited()),
    }
}

async fn check_status(state: &ApiState, guard: Guard) -> Result<(), Problem> {
    let work = match guard {
        Guard::Any => return Ok(()),
        Guard::All => Work::Change,
        Guard::Read => Work::Read,
    };
    Ok(manager_status::admit(&state.app, work).await?)
}

fn check_level(level: Level, caller: Option<&Caller>) -> Result<(), Problem> {
    let sufficient = match (level, caller) {
        (Level::Public, _) | (Level::User, Some(_)) => true,
        (Level::Admin, Some(caller)) => caller.context.is_admin_key,
        (Level::Superadmin, Some(caller)) => caller.context.role == Role::Superadmin,
        (_, None) => false,
    };
    if sufficient { Ok(()) } else { Err(Problem::unauthorized()) }
}

/// Reads a body of any method, whether its length is announced or not.
async fn read_body(headers: &HeaderMap, mut stream: BodyStream) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if announced == Some(0)
        || (announced.is_none() && !headers.contains_key(header::TRANSFER_ENCODING))
    {
        return Ok(Bytes::new());
    }
    if announced.is_some_and(|length| length > MAX_BODY) {
        return Err(Problem::bad_request());
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request())?;
        if whole.len() + chunk.len() > MAX_BODY {
            return Err(Problem::bad_request());
        }
        if announced == Some(chunk.len()) {
            return Ok(chunk);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// Tells browsers that they may call a path from any page, with any header.
fn preflight(state: &ApiState, request: &Incoming) -> Result<Response, Problem> {
    let mut methods = state.table.methods(&request.path);
    if methods.is_empty() {
        return Err(Problem::url_not_found(&request.path));
    }
    methods.push("OPTIONS");
    let allow = methods.join(",");
    let mut response = Response::default();
    let headers = response.headers_mut();
    insert(headers, header::ALLOW, &allow);
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &allow);
    insert(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    // A wildcard does not cover `Authorization`, so what is asked for is repeated.
    let asked = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let asked = asked.unwrap_or(HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
    Ok(response)
}

fn problem_response(problem: &Problem) -> Response {
    let mut response = Response::new(problem.to_bytes().into());
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    insert(headers, header::CONTENT_TYPE, "application/problem+json; charset=utf-8");
    if let Some(allow) = problem.allow() {
        insert(headers, header::ALLOW, allow);
    }
    response
}

/// The one place where a failure is logged. What the client did wrong is in the access line.
fn log_problem(problem: &Problem) {
    let Some(cause) = problem.cause() else { return };
    if problem.status() == StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!("a request was turned away: {cause}");
    } else {
        tracing::error!("a request failed: {cause}");
    }
}

fn rate_headers(headers: &mut HeaderMap, limit: u64, remaining: u64) {
    headers.insert(HeaderName::from_static("x-ratelimit-limit"), limit.into());
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), remaining.into());
    headers.insert(HeaderName::from_static("x-ratelimit-window"), ratelimit::WINDOW_SECONDS.into());
}

fn finish(response: &mut Response, request_id: &str, wants_cors: bool) {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("BackendAI"));
    insert(headers, HeaderName::from_static("x-request-id"), request_id);
    if wants_cors {
        insert(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, "*");
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Unique among all managers: a random part for the process, and a counter.
fn next_request_id() -> String {
    static PROCESS: std::sync::LazyLock<u32> = std::sync::LazyLock::new(rand::random);
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{:08x}-{:06x}", *PROCESS, COUNTER.fetch_add(1, Ordering::Relaxed))
}
