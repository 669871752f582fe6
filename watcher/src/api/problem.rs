//! Failures as `application/problem+json`, each mapped here and nowhere else.

use serde_json::{Value, json};

use backendai_service::etcd::EtcdError;
use backendai_service::http::StatusCode;
use backendai_service::telemetry::chain;

use crate::health::HealthError;
use crate::mounts::MountError;
use crate::server::PrefixError;
use crate::token::TokenError;
use crate::units::UnitError;

/// Prefix of every problem type.
const BASE: &str = "https://api.backend.ai/probs/";

/// A request that is not done.
#[derive(Debug)]
pub(super) enum Problem {
    /// No token, or another.
    Forbidden,
    /// The cluster's token is gone or became guessable; nobody is let in.
    Token(TokenError),
    NotFound,
    MethodNotAllowed,
    /// The request makes no sense or asks for too much; what and why.
    BadRequest(String),
    Unit(UnitError),
    Etcd(EtcdError),
    Mount(MountError),
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Forbidden | Self::Token(_) | Self::Unit(UnitError::Foreign(_)) => {
                StatusCode::FORBIDDEN
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest(_) | Self::Mount(MountError::Invalid(_)) => StatusCode::BAD_REQUEST,
            Self::Unit(UnitError::NoSystemd(_)) | Self::Etcd(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unit(UnitError::Slow { .. }) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unit(_) | Self::Mount(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn body(&self) -> Value {
        let problem = |suffix: &str, title: &str| json!({"type": format!("{BASE}{suffix}"), "title": title, "msg": self.to_string()});
        match self {
            // Who has no token learns nothing more.
            Self::Forbidden | Self::Token(_) => json!({
                "type": format!("{BASE}generic-forbidden"), "title": "Forbidden operation.",
            }),
            Self::NotFound => problem("url-not-found", "Unknown URL path."),
            Self::MethodNotAllowed => problem("method-not-allowed", "HTTP Method Not Allowed."),
            Self::BadRequest(_) | Self::Mount(MountError::Invalid(_)) => {
                problem("generic-bad-request", "Bad request.")
            }
            Self::Unit(UnitError::Foreign(_)) => {
                problem("generic-forbidden", "Forbidden operation.")
            }
            Self::Unit(error @ UnitError::NoSystemd(_)) => {
                let mut body = problem("watcher-no-systemd", "This host is not run by systemd.");
                // What clients of the original look for.
                body["message"] = json!(error.to_string());
                body
            }
            Self::Etcd(_) => problem("service-unavailable", "etcd cannot be reached."),
            Self::Unit(_) => problem("watcher-unit-failed", "The unit did not do as asked."),
            Self::Mount(_) => problem("watcher-mount-failed", "The mount did not succeed."),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden => f.write_str("the token is missing or wrong"),
            Self::Token(error) => error.fmt(f),
            Self::NotFound => f.write_str("there is nothing at this path"),
            Self::MethodNotAllowed => f.write_str("this path has other methods"),
            Self::BadRequest(why) => f.write_str(why),
            Self::Unit(error @ UnitError::Foreign(_)) => {
                write!(f, "{error}: set watcher.host-control to allow it")
            }
            Self::Unit(error) => f.write_str(&chain(error)),
            Self::Etcd(error) => f.write_str(&chain(error)),
            Self::Mount(error) => f.write_str(&chain(error)),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<UnitError> for Problem {
    fn from(error: UnitError) -> Self {
        Self::Unit(error)
    }
}

impl From<MountError> for Problem {
    fn from(error: MountError) -> Self {
        Self::Mount(error)
    }
}

impl From<PrefixError> for Problem {
    fn from(error: PrefixError) -> Self {
        match error {
            PrefixError::Etcd(error) => Self::Etcd(error),
            PrefixError::Invalid(error) => Self::Mount(error),
        }
    }
}

impl From<HealthError> for Problem {
    fn from(error: HealthError) -> Self {
        match error {
            HealthError::Unit(error) => Self::Unit(error),
            HealthError::Etcd(error) => Self::Etcd(error),
        }
    }
}
