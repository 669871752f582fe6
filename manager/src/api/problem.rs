//! The one place that knows HTTP statuses: failures as `application/problem+json`.
//!
//! Business rules fail with [`app::Error`]; `From` below maps each of its
//! variants, and the match has no catch-all, so that a new variant stops the build here.
//! What only the API layer can find wrong (signatures, routes, limits) has a constructor.
//! Key order on the wire is `type`, `title`, `msg`, `data`, `agent-details`.

use backendai_rpc::call::{CallError, ErrorKind};
use backendai_service::telemetry::chain;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use warp::http::StatusCode;

use crate::app::error::AgentOperation;
use crate::app::{self};

/// Prefix of every problem type.
const BASE: &str = "https://api.backend.ai/probs/";

/// A failed request, as the client will see it. Boxed: errors are rare, results are not.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    /// Stands for the kind's title where it names an object.
    title: Option<String>,
    msg: Option<String>,
    data: Option<Value>,
    agent_details: Option<Value>,
    allow: Option<String>,
    cause: Option<String>,
}

/// A type of problem: its status, the last part of its URI, and its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    status: StatusCode,
    suffix: &'static str,
    title: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $status:ident, $suffix:literal, $title:literal;)+) => {
        $(const $name: Kind =
            Kind { status: StatusCode::$status, suffix: $suffix, title: $title };)+
        /// Every kind, for the golden file.
        #[cfg(test)]
        const ALL_KINDS: &[Kind] = &[$($name),+];
    };
}

kinds! {
    URL_NOT_FOUND = NOT_FOUND, "url-not-found", "Unknown URL path.";
    OBJECT_NOT_FOUND = NOT_FOUND, "object-not-found", "No such object.";
    BAD_REQUEST = BAD_REQUEST, "generic-bad-request", "Bad request.";
    FORBIDDEN = FORBIDDEN, "generic-forbidden", "Forbidden operation.";
    INSUFFICIENT_PRIVILEGE = FORBIDDEN, "insufficient-privilege", "Insufficient privilege.";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED, "method-not-allowed", "HTTP Method Not Allowed.";
    INTERNAL = INTERNAL_SERVER_ERROR, "internal-server-error", "Internal server error.";
    MISCONFIGURED = INTERNAL_SERVER_ERROR, "server-misconfigured", "Service misconfigured.";
    // The product spells it this way, and clients show it.
    UNAVAILABLE = SERVICE_UNAVAILABLE, "service-unavailable", "Serivce unavailable.";
    INVALID_AUTH = BAD_REQUEST, "invalid-auth-params", "Missing or invalid authorization parameters.";
    AUTH_FAILED = UNAUTHORIZED, "auth-failed", "Credential/signature mismatch.";
    PASSWORD_EXPIRED = UNAUTHORIZED, "password-expired", "Password has expired.";
    INVALID_PARAMS = BAD_REQUEST, "invalid-api-params", "Missing or invalid API parameters.";
    GRAPHQL = BAD_REQUEST, "graphql-error", "GraphQL-generated error.";
    TOO_MANY_SESSIONS = NOT_FOUND, "too-many-sessions-matched", "Too many sessions matched.";
    SESSION_EXISTS = BAD_REQUEST, "session-already-exists",
        "The session already exists but you requested not to reuse existing one.";
    DOTFILE_EXISTS = BAD_REQUEST, "generic-bad-request", "Dotfile already exists.";
    DOTFILE_REFUSED = BAD_REQUEST, "generic-bad-request", "Dotfile creation has failed.";
    VFOLDER_EXISTS = BAD_REQUEST, "vfolder-already-exists",
        "The virtual folder already exists with the same name.";
    TOO_MANY_VFOLDERS = NOT_FOUND, "too-many-vfolders", "There are two or more matching vfolders.";
    VFOLDER_CREATION = BAD_REQUEST, "vfolder-creation-failed", "Virtual folder creation has failed.";
    VFOLDER_OPERATION = BAD_REQUEST, "vfolder-operation-failed", "Virtual folder operation has failed.";
    VFOLDER_STATUS = BAD_REQUEST, "vfolder-filter-status-failed",
        "Virtual folder status filtering has failed.";
    NO_UPLOAD = NOT_FOUND, "storage/no-such-upload-session", "No such upload session";
    NO_FILE = NOT_FOUND, "storage/file-not-found", "File not found";
    TRANSFER = BAD_REQUEST, "storage/invalid-api-params", "Invalid API parameters";
    UPLOAD_CONFLICT = CONFLICT, "storage/upload-conflict", "The upload goes on elsewhere";
    HOST_IN_USE = CONFLICT, "vfolder-host-in-use", "The vfolder host is in use.";
    QUOTA_EXCEEDED = PRECONDITION_FAILED, "quota-exceeded", "You have reached your resource limit.";
    RATE_LIMITED = TOO_MANY_REQUESTS, "rate-limit-exceeded", "You have reached your API query rate limit.";
    FROZEN = SERVICE_UNAVAILABLE, "server-frozen",
        "The server is frozen due to maintenance. Please try again later.";
    KERNEL_CREATION = INTERNAL_SERVER_ERROR, "kernel-creation-failed", "Kernel creation has failed.";
    KERNEL_DESTRUCTION = INTERNAL_SERVER_ERROR, "kernel-destruction-failed", "Kernel destruction has failed.";
    KERNEL_RESTART = INTERNAL_SERVER_ERROR, "kernel-restart-failed", "Kernel restart has failed.";
    KERNEL_EXECUTION = INTERNAL_SERVER_ERROR, "kernel-execution-failed",
        "Executing user code in the kernel has failed.";
}

impl Problem {
    fn of(kind: Kind) -> Self {
        Self(Box::new(Inner {
            kind,
            title: None,
            msg: None,
            data: None,
            agent_details: None,
            allow: None,
            cause: None,
        }))
    }

    fn msg(mut self, msg: impl Into<String>) -> Self {
        self.0.msg = Some(msg.into());
        self
    }

    fn data(mut self, data: Value) -> Self {
        self.0.data = Some(data);
        self
    }

    /// No route has this path.
    pub fn url_not_found(path: &str) -> Self {
        Self::of(URL_NOT_FOUND).data(Value::from(path))
    }

    /// The path has routes, but none of this method; `allow` lists those it has.
    pub fn method_not_allowed(allow: String) -> Self {
        let mut problem = Self::of(METHOD_NOT_ALLOWED);
        problem.0.allow = Some(allow);
        problem
    }

    /// A request that HTTP or the product's framework would refuse, without details.
    pub fn bad_request() -> Self {
        Self::of(BAD_REQUEST)
    }

    /// The request names an API version we do not know.
    pub fn unsupported_version() -> Self {
        Self::of(BAD_REQUEST).msg("Unsupported API version.")
    }

    /// Headers that should prove who asks are missing or unreadable.
    pub fn invalid_auth(msg: impl Into<String>) -> Self {
        Self::of(INVALID_AUTH).msg(msg)
    }

    /// The proof is wrong, or what it proves is not enough.
    pub fn auth_failed(msg: impl Into<String>) -> Self {
        Self::of(AUTH_FAILED).msg(msg)
    }

    /// The password is right, and older than the site allows.
    pub fn password_expired() -> Self {
        Self::of(PASSWORD_EXPIRED)
    }

    /// The route needs a (higher) caller.
    pub fn unauthorized() -> Self {
        Self::auth_failed("Unauthorized access")
    }

    /// A value is wrong, in words.
    pub fn invalid_params(msg: impl Into<String>) -> Self {
        Self::of(INVALID_PARAMS).msg(msg)
    }

    /// Values are wrong, per field.
    pub fn invalid_fields(data: Value) -> Self {
        Self::of(INVALID_PARAMS).msg("Input validation error").data(data)
    }

    /// The keypair has used up its calls.
    pub fn rate_limited() -> Self {
        Self::of(RATE_LIMITED)
    }

    /// The legacy GraphQL endpoint's errors.
    pub fn graphql(errors: Value) -> Self {
        Self::of(GRAPHQL).data(errors)
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.kind.status
    }

    /// The methods to name in `Allow`.
    pub fn allow(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// The chain of causes, for the log only.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    fn title(&self) -> &str {
        self.0.title.as_deref().unwrap_or(self.0.kind.title)
    }

    /// In one line, as GraphQL reports it: the title and, in parentheses, the message.
    pub fn summary(&self) -> String {
        match &self.0.msg {
            Some(msg) => format!("{} ({msg})", self.title()),
            None => self.title().to_owned(),
        }
    }

    /// For websockets: what was wrong, without the title.
    pub fn detail(&self) -> &str {
        self.0.msg.as_deref().unwrap_or_else(|| self.title())
    }

    /// True when the caller sent something wrong.
    pub fn is_invalid_params(&self) -> bool {
        self.0.kind == INVALID_PARAMS
    }

    /// The body.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem has only string keys, so it always encodes")
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let inner = &*self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("{BASE}{}", inner.kind.suffix))?;
        map.serialize_entry("title", self.title())?;
        if let Some(msg) = &inner.msg {
            map.serialize_entry("msg", msg)?;
        }
        if let Some(data) = &inner.data {
            map.serialize_entry("data", data)?;
        }
        if let Some(details) = &inner.agent_details {
            map.serialize_entry("agent-details", details)?;
        }
        map.end()
    }
}

impl From<app::Error> for Problem {
    fn from(error: app::Error) -> Self {
        use app::Error;
        match error {
            Error::NotFound { object, message } => {
                let mut problem = Self::of(OBJECT_NOT_FOUND);
                problem.0.title = Some(format!("No such {object}."));
                problem.0.msg = message;
                problem
            }
            Error::InvalidParams { message, data } => {
                let mut problem = Self::of(INVALID_PARAMS).msg(message);
                problem.0.data = data;
                problem
            }
            Error::BadRequest(message) => Self::of(BAD_REQUEST).msg(message),
            Error::SessionExists { existing } => {
                Self::of(SESSION_EXISTS).data(json!({ "existingSessionId": existing }))
            }
            Error::Vfolder(error) => vfolder(error),
            Error::DotfileExists => Self::of(DOTFILE_EXISTS),
            Error::DotfileRefused(message) => Self::of(DOTFILE_REFUSED).msg(message),
            Error::TooManySessions { matches } => {
                Self::of(TOO_MANY_SESSIONS).data(json!({ "matches": matches }))
            }
            Error::Forbidden(message) => Self::of(FORBIDDEN).msg(message),
            Error::InsufficientPrivilege(message) => Self::of(INSUFFICIENT_PRIVILEGE).msg(message),
            Error::QuotaExceeded(message) => Self::of(QUOTA_EXCEEDED).msg(message),
            Error::Frozen => Self::of(FROZEN),
            Error::NotReady => Self::of(UNAVAILABLE),
            Error::ProxyMisconfigured { address, source } => {
                let mut problem = Self::of(MISCONFIGURED);
                problem.0.cause =
                    Some(format!("ask the app proxy at {address}: {}", chain(&*source)));
                problem
            }
            Error::Unavailable { service, source } => {
                let mut problem = Self::of(UNAVAILABLE).msg(format!("{service} is not available."));
                problem.0.cause = Some(format!("{service} is not available: {}", chain(&*source)));
                problem
            }
            Error::Agent { operation, source } => {
                let kind = match operation {
                    AgentOperation::Create => KERNEL_CREATION,
                    AgentOperation::Destroy => KERNEL_DESTRUCTION,
                    AgentOperation::Restart => KERNEL_RESTART,
                    AgentOperation::Execute => KERNEL_EXECUTION,
                };
                let mut problem = Self::of(kind);
                problem.0.cause = Some(format!("{operation}: {}", chain(&source)));
                problem.0.agent_details = Some(agent_details(&source));
                problem
            }
            Error::ServiceFailed { reason } => {
                Self::of(INTERNAL).msg("Failed to launch the app service").data(Value::from(reason))
            }
            Error::NoCoordinator => {
                Self::of(UNAVAILABLE).msg("No coordinator configured for this resource group")
            }
            Error::Internal { context, source } => {
                let mut problem = Self::of(INTERNAL);
                problem.0.cause = Some(format!("{context}: {}", chain(&*source)));
                problem
            }
        }
    }
}

impl From<backendai_datastore::DatastoreError> for Problem {
    fn from(error: backendai_datastore::DatastoreError) -> Self {
        app::Error::from(error).into()
    }
}

fn vfolder(error: app::error::VfolderError) -> Problem {
    use app::error::VfolderError;
    match error {
        VfolderError::NotFound(name) => {
            let mut problem = Problem::of(OBJECT_NOT_FOUND).data(Value::from(name));
            problem.0.title = Some("No such virtual folder.".into());
            problem
        }
        VfolderError::Exists(name) => Problem::of(VFOLDER_EXISTS).data(Value::from(name)),
        VfolderError::Several => Problem::of(TOO_MANY_VFOLDERS),
        VfolderError::CreationFailed(message) => Problem::of(VFOLDER_CREATION).msg(message),
        VfolderError::OperationFailed(message) => Problem::of(VFOLDER_OPERATION).msg(message),
        VfolderError::Status(message) => Problem::of(VFOLDER_STATUS).msg(message),
        VfolderError::NoUpload => Problem::of(NO_UPLOAD),
        VfolderError::NoFile => Problem::of(NO_FILE),
        VfolderError::Transfer(message) => Problem::of(TRANSFER).msg(message),
        VfolderError::UploadConflict(message) => Problem::of(UPLOAD_CONFLICT).msg(message),
        VfolderError::Unsupported(message) => {
            let kind = format!("{BASE}storage/unsupported-operation");
            Problem::of(INVALID_PARAMS).msg(message).data(json!({ "type": kind }))
        }
        error @ VfolderError::HostInUse { .. } => Problem::of(HOST_IN_USE).msg(error.to_string()),
    }
}

fn agent_details(error: &CallError) -> Value {
    let details = |suffix: &str, title: &str, exception: String| json!({ "type": format!("{BASE}{suffix}"), "title": title, "exception": exception });
    match error {
        CallError::Timeout { .. } => {
            json!({ "type": format!("{BASE}agent-timeout"), "title": null })
        }
        CallError::Remote(remote) => {
            let suffix = match remote.kind {
                ErrorKind::InvalidInput => "agent-invalid-input",
                _ => "agent-failure",
            };
            let exception = format!("{}({:?})", remote.kind, remote.message);
            details(suffix, "Agent-side exception occurred.", exception)
        }
        CallError::Closed | CallError::Malformed(_) => {
            // The product spells it this way.
            details("agent-failure", "Unexpected exception ocurred.", error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_rpc::call::RemoteError;
    use std::time::Duration;

    fn text(problem: impl Into<Problem>) -> String {
        String::from_utf8(problem.into().to_bytes()).unwrap()
    }

    /// Status, type and title of every kind are a contract: clients dispatch on the type and
    /// print the title.
    #[test]
    fn kinds_are_those_of_the_contract() {
        let table: Vec<String> = ALL_KINDS
            .iter()
            .map(|k| format!("{} {} | {}", k.status.as_u16(), k.suffix, k.title))
            .collect();
        super::super::golden::compare("problem_kinds.txt", &table.join("\n"));
    }

    #[test]
    fn keys_come_in_the_order_clients_print() {
        assert_eq!(
            text(Problem::invalid_fields(json!({"image": "is required"}))),
            r#"{"type":"https://api.backend.ai/probs/invalid-api-params","title":"Missing or invalid API parameters.","msg":"Input validation error","data":{"image":"is required"}}"#
        );
        assert_eq!(
            text(Problem::url_not_found("/nope")),
            r#"{"type":"https://api.backend.ai/probs/url-not-found","title":"Unknown URL path.","data":"/nope"}"#
        );
    }

    #[test]
    fn domain_errors_become_the_products_problems() {
        let id: backendai_types::SessionId =
            "6f4f0499-5c42-484a-be48-1f36123e2c71".parse().unwrap();
        for (error, status, body) in [
            (
                app::Error::session_not_found("nosuch"),
                404,
                r#"{"type":"https://api.backend.ai/probs/object-not-found","title":"No such session.","msg":"Session (id=nosuch) does not exist."}"#,
            ),
            (
                app::Error::SessionExists { existing: id },
                400,
                r#"{"type":"https://api.backend.ai/probs/session-already-exists","title":"The session already exists but you requested not to reuse existing one.","data":{"existingSessionId":"6f4f0499-5c42-484a-be48-1f36123e2c71"}}"#,
            ),
            (
                app::Error::TooManySessions { matches: vec![] },
                404,
                r#"{"type":"https://api.backend.ai/probs/too-many-sessions-matched","title":"Too many sessions matched.","data":{"matches":[]}}"#,
            ),
            (
                app::Error::Unavailable { service: "PostgreSQL", source: "refused".into() },
                503,
                r#"{"type":"https://api.backend.ai/probs/service-unavailable","title":"Serivce unavailable.","msg":"PostgreSQL is not available."}"#,
            ),
            (
                app::Error::internal("look up", "secret detail"),
                500,
                r#"{"type":"https://api.backend.ai/probs/internal-server-error","title":"Internal server error."}"#,
            ),
            (
                app::Error::Agent {
                    operation: AgentOperation::Execute,
                    source: CallError::Timeout {
                        method: "execute",
                        after: Duration::from_secs(30),
                    },
                },
                500,
                r#"{"type":"https://api.backend.ai/probs/kernel-execution-failed","title":"Executing user code in the kernel has failed.","agent-details":{"type":"https://api.backend.ai/probs/agent-timeout","title":null}}"#,
            ),
            (
                app::Error::Agent {
                    operation: AgentOperation::Create,
                    source: RemoteError::new(ErrorKind::Internal, "boom").into(),
                },
                500,
                r#"{"type":"https://api.backend.ai/probs/kernel-creation-failed","title":"Kernel creation has failed.","agent-details":{"type":"https://api.backend.ai/probs/agent-failure","title":"Agent-side exception occurred.","exception":"AgentError(\"boom\")"}}"#,
            ),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status().as_u16(), status);
            assert_eq!(text(problem), body);
        }
    }
}
