//! The one error of the business rules. It says what is wrong in the product's terms;
//! `api/problem.rs` alone decides what that means in HTTP.

use backendai_datastore::{AsDatastoreError, DatastoreError};
use backendai_rpc::call::CallError;
use backendai_storage::StorageError;
use serde_json::Value;

/// Result of a business rule.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A rule was broken or something needed is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or the caller may not know of it.
    #[error("no such {object}{}", suffix(message))]
    NotFound {
        /// The thing, as the API names it: `session`, `environment image`…
        object: &'static str,
        /// More, for the caller.
        message: Option<String>,
    },
    /// The request has a wrong value.
    #[error("invalid parameters: {message}")]
    InvalidParams {
        /// What is wrong, for the caller.
        message: String,
        /// Per field, where the whole body was checked.
        data: Option<Value>,
    },
    /// The request makes no sense as a whole.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// A live session of this name exists and may not be reused.
    #[error("session {existing} exists already")]
    SessionExists {
        /// That session.
        existing: backendai_types::SessionId,
    },
    /// There is a dotfile of this path.
    #[error("the dotfile exists already")]
    DotfileExists,
    /// A limit on dotfiles or scripts is reached.
    #[error("dotfile refused: {0}")]
    DotfileRefused(String),
    /// Something about folders.
    #[error(transparent)]
    Vfolder(#[from] VfolderError),
    /// Several sessions match.
    #[error("several sessions match")]
    TooManySessions {
        /// At most ten of them, as the API shows them.
        matches: Vec<Value>,
    },
    /// The caller may not do this.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// Only a higher role may do this.
    #[error("insufficient privilege: {0}")]
    InsufficientPrivilege(String),
    /// A limit of a policy is reached.
    #[error("quota exceeded: {0}")]
    QuotaExceeded(String),
    /// The manager accepts no changes now.
    #[error("the manager is frozen")]
    Frozen,
    /// The managers start or stop.
    #[error("the manager is not ready")]
    NotReady,
    /// A scaling group's app proxy is not what it should be.
    #[error("ask the app proxy at {address}")]
    ProxyMisconfigured {
        /// Where it should be.
        address: String,
        /// Why it is not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server the manager needs does not answer.
    #[error("{service} is not available")]
    Unavailable {
        /// Which: `PostgreSQL`, `etcd`…
        service: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An agent failed or did not answer.
    #[error("{operation}")]
    Agent {
        /// What was asked of it.
        operation: AgentOperation,
        /// What came of it.
        #[source]
        source: CallError,
    },
    /// A service of a session did not start.
    #[error("the service did not start: {reason}")]
    ServiceFailed {
        /// Why, in the kernel's words.
        reason: String,
    },
    /// The session's scaling group has no app proxy beside the manager.
    #[error("no coordinator is configured for the scaling group")]
    NoCoordinator,
    /// A bug or a broken machine.
    #[error("{context}")]
    Internal {
        /// What was being done.
        context: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What can be wrong with folders.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VfolderError {
    /// There is no folder of this name that the caller may use like this.
    #[error("no such virtual folder: {0}")]
    NotFound(String),
    /// There is one of this name.
    #[error("the folder {0} exists already")]
    Exists(String),
    /// More than one has this name.
    #[error("several folders match")]
    Several,
    /// It could not be made.
    #[error("the folder cannot be made: {0}")]
    CreationFailed(String),
    /// Something could not be done with it.
    #[error("{0}")]
    OperationFailed(String),
    /// Its status does not admit it.
    #[error("{0}")]
    Status(String),
    /// There is no such upload, or not any more.
    #[error("no such upload")]
    NoUpload,
    /// There is no such file to download.
    #[error("no such file")]
    NoFile,
    /// A transfer makes no sense, or its token is not good.
    #[error("{0}")]
    Transfer(String),
    /// An upload goes on elsewhere than the client believes.
    #[error("{0}")]
    UploadConflict(String),
    /// The kind of volume cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// Sessions have folders of a host mounted.
    #[error("{sessions} sessions use folders on {host}")]
    HostInUse {
        /// The host.
        host: String,
        /// How many.
        sessions: i64,
    },
}

/// What was asked of an agent; the API has a problem type for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentOperation {
    /// Creating kernels.
    Create,
    /// Destroying kernels.
    Destroy,
    /// Restarting kernels.
    Restart,
    /// Everything else.
    Execute,
}

impl std::fmt::Display for AgentOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create kernels on the agent",
            Self::Destroy => "destroy kernels on the agent",
            Self::Restart => "restart kernels on the agent",
            Self::Execute => "use the kernel on its agent",
        })
    }
}

fn suffix(message: &Option<String>) -> String {
    message.as_ref().map(|m| format!(": {m}")).unwrap_or_default()
}

impl Error {
    /// No such session.
    pub fn session_not_found(reference: &str) -> Self {
        Self::NotFound {
            object: "session",
            message: Some(format!("Session (id={reference}) does not exist.")),
        }
    }

    /// A wrong value, in words.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidParams { message: message.into(), data: None }
    }

    /// A failure that should not happen.
    pub fn internal(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Internal { context: context.into(), source: source.into() }
    }
}

impl From<DatastoreError> for Error {
    fn from(error: DatastoreError) -> Self {
        if error.is_unavailable() {
            Self::Unavailable { service: "PostgreSQL", source: Box::new(error) }
        } else {
            Self::internal("use the database", error)
        }
    }
}

impl From<backendai_service::etcd::EtcdError> for Error {
    fn from(error: backendai_service::etcd::EtcdError) -> Self {
        Self::Unavailable { service: "etcd", source: Box::new(error) }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::System { ref path, errno } => Self::InvalidParams {
                message: backendai_storage::message(errno),
                data: Some(serde_json::json!({ "errno": errno, "paths": [path] })),
            },
            StorageError::Unsupported { .. } => VfolderError::Unsupported(error.to_string()).into(),
            StorageError::Broken(_) => Self::internal("use a volume", error),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl AsDatastoreError for Error {
    fn as_datastore_error(&self) -> Option<&DatastoreError> {
        match self {
            Self::Internal { source, .. } | Self::Unavailable { source, .. } => {
                source.downcast_ref()
            }
            _ => None,
        }
    }
}
