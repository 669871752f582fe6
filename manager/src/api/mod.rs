//! The public API: the only place that knows HTTP and warp.
//!
//! [`serve`](serve::serve) accepts connections and gives each request to [`router`], one warp
//! filter that takes a request apart. `dispatch` then walks it through the same steps
//! whatever the route: find the route in [`routes`], negotiate the version, check the
//! signature, count against the rate limit, check status and role, read the body, call
//! the handler. A handler decodes, calls one rule of [`app`](crate::app), and encodes.
//!
//! Failures become problem documents in [`problem`], and nowhere else.

mod audit;
pub mod auth;
pub mod call;
mod dispatch;
mod events;
#[cfg(test)]
mod golden;
pub mod graphql;
mod multipart;
pub mod openapi;
mod params;
pub mod problem;
mod ratelimit;
mod rest;
pub mod routes;
mod run;
pub mod serve;
mod stream;
mod version;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use self::auth::credential::Credentials;
use self::ratelimit::RateLimiter;
use self::routes::Table;
use crate::app::SharedApp;

pub use serve::serve;

/// What the API keeps between requests.
pub struct ApiState {
    app: SharedApp,
    table: Table,
    credentials: Credentials,
    limiter: RateLimiter,
    graphql: graphql::Schema,
    /// Websockets and event streams outlive their request: what is open, so that shutdown waits.
    sockets: TaskTracker,
    /// Cancelled when the process begins to stop.
    stopping: CancellationToken,
}

impl ApiState {
    /// State without memory of any request.
    pub fn new(app: SharedApp, stopping: CancellationToken) -> Self {
        Self {
            table: Table::prepare(),
            credentials: Credentials::new(app.datastore.clone()),
            limiter: RateLimiter::new(app.redis.clone()),
            graphql: graphql::schema(),
            sockets: TaskTracker::new(),
            stopping,
            app,
        }
    }
}

/// The whole API as one filter. It answers every request, with a problem if need be.
pub fn router(app: SharedApp) -> BoxedFilter<(Response,)> {
    dispatch::filter(Arc::new(ApiState::new(app, CancellationToken::new())))
}
