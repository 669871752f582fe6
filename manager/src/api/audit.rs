//! Which requests of REST are written down in the audit log, and what of them.

use std::net::IpAddr;

use backendai_datastore::audit::AuditOutcome;
use serde_json::Value;
use warp::reply::Response;

use super::problem::Problem;
use super::routes::Route;
use crate::app::SharedApp;
use crate::app::audit::{self, Deed};
use crate::context::RequestContext;

/// Handlers of requests that are not `GET` and are not written down either.
const UNAUDITED: &[(&str, &str)] = &[
    ("auth::test", "it changes nothing"),
    ("graphql::query", "each mutation in it is written down"),
    ("graphql::legacy_query", "each mutation in it is written down"),
    ("resource::check_presets", "it changes nothing"),
    ("config::get", "it changes nothing"),
    ("session::execute", "code is run many times a second; the session's creation counts"),
    ("session::interrupt", "it is part of running code"),
    ("session::complete", "it changes nothing"),
    ("error_log::report", "it is a log itself"),
    ("session_relations::sync_agent_registry", "it changes nothing"),
];
/// Values of a body that name what a request is about. Nothing else of it is written down.
const NAMES: [&str; 8] =
    ["domain", "group", "username", "email", "name", "path", "key", "session_name"];

/// What a request does, as the audit log will say it.
pub struct Watched {
    operation: String,
    target: Vec<String>,
}

impl Watched {
    /// What there is to write down; `None` for requests that change nothing.
    pub fn new(route: &Route, method: &str, path: &[String]) -> Option<Self> {
        let reads = method == "GET" || method == "HEAD";
        if reads || UNAUDITED.iter().any(|(name, _)| *name == route.name) {
            return None;
        }
        Some(Self { operation: format!("{method} {}", route.path), target: path.to_vec() })
    }

    /// Notes what the body names.
    pub fn note_body(&mut self, body: &[u8]) {
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return };
        for name in NAMES {
            if let Some(Value::String(text)) = body.get(name) {
                self.target.push(format!("{name}={text}"));
            }
        }
    }

    /// Writes down what came of it.
    pub async fn record(
        self,
        app: &SharedApp,
        request_id: &str,
        context: Option<&RequestContext>,
        client: Option<IpAddr>,
        answered: &Result<Response, Problem>,
    ) {
        let status = match answered {
            Ok(response) => response.status(),
            Err(problem) => problem.status(),
        };
        let outcome = match status.as_u16() {
            0..400 => AuditOutcome::Success,
            400..500 => AuditOutcome::Refused,
            _ => AuditOutcome::Failed,
        };
        let message = match answered {
            Err(problem) => problem.summary(),
            Ok(_) => String::new(),
        };
        let target = self.target.join(" ");
        let deed = Deed {
            request_id,
            context,
            client,
            operation: &self.operation,
            target: &target,
            outcome,
            message: &message,
        };
        audit::record(app, deed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::ROUTES;
    use super::*;

    #[test]
    fn every_exception_names_a_route() {
        for (name, why) in UNAUDITED {
            assert!(ROUTES.iter().any(|route| route.name == *name), "{name} ({why}) is no handler");
        }
    }

    #[test]
    fn bodies_give_names_and_no_secrets() {
        let route = ROUTES.iter().find(|route| route.path == "/auth/authorize").expect("login");
        let mut watched = Watched::new(route, "POST", &[]).expect("logins are written down");
        watched.note_body(br#"{"username": "a@b", "password": "s3cret", "domain": "default"}"#);
        assert_eq!(watched.target, ["domain=default", "username=a@b"]);
        assert_eq!(watched.operation, "POST /auth/authorize");
        let reading = ROUTES.iter().find(|route| route.path == "/auth/role").expect("role");
        assert!(Watched::new(reading, "GET", &[]).is_none());
    }
}
