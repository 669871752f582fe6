//! The envelope of one call, its errors, and the macro that makes client and server of an API.
//!
//! A call is idempotent or says so in its documentation: a reply may be lost, and the
//! caller then calls again. Every call carries the caller's leader epoch, the request id
//! of the API call it serves (for logs), and how long the caller waits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What accompanies every call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallContext {
    /// The leader epoch the caller believes in; grows with every change of leader. Zero
    /// from callers that have seen none (and from agents).
    pub epoch: u64,
    /// Id of the API request this call serves, for the logs of both sides.
    pub request_id: Option<String>,
    /// Who calls, as proven by its CURVE key: an agent id or a manager id. `None` without
    /// CURVE. Set by the receiving transport; never taken from the wire.
    #[serde(skip)]
    pub peer: Option<String>,
}

/// Why the far side refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct RemoteError {
    /// What the caller can decide on.
    pub kind: ErrorKind,
    /// For people; complete sentences with the names of the things concerned.
    pub message: String,
}

/// Kinds of failure that some caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The call came from a leader that has been replaced.
    StaleEpoch,
    /// No such kernel here.
    KernelNotFound,
    /// The kernel exists but cannot do this now (not started yet, terminating).
    KernelNotReady,
    /// The image cannot be had.
    ImageNotAvailable,
    /// Not enough of some resource.
    InsufficientResource,
    /// The request makes no sense.
    InvalidInput,
    /// No such method: the peers differ in version.
    UnknownMethod,
    /// Nothing in the container listens where it should.
    ConnectionRefused,
    /// What the call would go on with has come to its end.
    Ended,
    /// This agent's engine has no means for it.
    NotSupported,
    /// The container engine does not answer.
    EngineUnavailable,
    /// Anything else.
    Internal,
}

impl std::fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Self::StaleEpoch => "StaleEpoch",
            Self::KernelNotFound => "KernelNotFound",
            Self::KernelNotReady => "KernelNotReady",
            Self::ImageNotAvailable => "ImageNotAvailable",
            Self::InsufficientResource => "InsufficientResource",
            Self::InvalidInput => "InvalidInput",
            Self::UnknownMethod => "UnknownMethod",
            Self::ConnectionRefused => "ConnectionRefused",
            Self::Ended => "Ended",
            Self::NotSupported => "NotSupported",
            Self::EngineUnavailable => "EngineUnavailable",
            Self::Internal => "AgentError",
        };
        f.write_str(text)
    }
}

impl RemoteError {
    /// An error of a kind with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The far side answered with an error.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// No answer in time; the call may or may not have been carried out.
    #[error("no answer to {method} within {after:?}")]
    Timeout {
        /// The method called.
        method: &'static str,
        /// How long the caller waited.
        after: Duration,
    },
    /// The transport is closed.
    #[error("connection closed")]
    Closed,
    /// The answer cannot be read: the peers differ in version.
    #[error("malformed message: {0}")]
    Malformed(String),
}

impl CallError {
    /// True when calling again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Closed => true,
            Self::Remote(error) => error.kind == ErrorKind::EngineUnavailable,
            Self::Malformed(_) => false,
        }
    }
}

/// Carries encoded calls to one peer. Cheap to clone behind an [`Arc`].
#[async_trait]
pub trait Connection: Send + Sync {
    /// Sends one call and waits for its answer.
    async fn call(
        &self,
        context: &CallContext,
        method: &'static str,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError>;
}

/// Answers encoded calls.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Carries out one call. Concurrent calls are carried out concurrently.
    async fn serve(
        &self,
        context: CallContext,
        method: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, RemoteError>;
}

/// MessagePack with field names, so that a field can be added without breaking the older peer.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("messages are plain data, which always encodes")
}

/// The reverse of [`encode`].
///
/// # Errors
/// The bytes are not such a message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// A typed client over any connection. The generated `impl`s give it one method per call.
#[derive(Clone)]
pub struct Client {
    connection: Arc<dyn Connection>,
    context: CallContext,
}

impl Client {
    /// A client that calls over `connection`.
    pub fn new(connection: Arc<dyn Connection>) -> Self {
        Self { connection, context: CallContext::default() }
    }

    /// The same connection, calling in another context.
    pub fn with_context(&self, context: CallContext) -> Self {
        Self { connection: Arc::clone(&self.connection), context }
    }

    /// One typed call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<Q: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &'static str,
        request: &Q,
        timeout: Duration,
    ) -> Result<R, CallError> {
        let body = self.connection.call(&self.context, method, encode(request), timeout).await?;
        decode(&body).map_err(CallError::Malformed)
    }
}

/// Declares an API once: the trait that a server implements, the [`Service`] that decodes
/// calls for it, and the client's methods with their timeouts.
#[macro_export]
macro_rules! rpc_api {
    (
        $(#[$doc:meta])*
        trait $api:ident, service $service:ident, client $client:ident {
            $( $(#[$mdoc:meta])* fn $method:ident($request:ty) -> $reply:ty, timeout $timeout:expr; )+
        }
    ) => {
        $(#[$doc])*
        #[async_trait::async_trait]
        pub trait $api: Send + Sync + 'static {
            $( $(#[$mdoc])* async fn $method(
                &self,
                context: $crate::call::CallContext,
                request: $request,
            ) -> Result<$reply, $crate::call::RemoteError>; )+
        }

        /// Decodes calls and hands them to an implementation of the API.
        pub struct $service<T: $api>(pub std::sync::Arc<T>);

        #[async_trait::async_trait]
        impl<T: $api> $crate::call::Service for $service<T> {
            async fn serve(
                &self,
                context: $crate::call::CallContext,
                method: &str,
                body: &[u8],
            ) -> Result<Vec<u8>, $crate::call::RemoteError> {
                use $crate::call::{ErrorKind, RemoteError, decode, encode};
                match method {
                    $( stringify!($method) => {
                        let request: $request = decode(body)
                            .map_err(|error| RemoteError::new(ErrorKind::InvalidInput, error))?;
                        self.0.$method(context, request).await.map(|reply: $reply| encode(&reply))
                    } )+
                    other => Err(RemoteError::new(
                        ErrorKind::UnknownMethod,
                        format!("there is no method {other} here"),
                    )),
                }
            }
        }

        /// The client's side of the API.
        #[derive(Clone)]
        pub struct $client(pub $crate::call::Client);

        impl $client {
            $( $(#[$mdoc])*
            ///
            /// # Errors
            /// See [`CallError`]($crate::call::CallError).
            pub async fn $method(&self, request: &$request) -> Result<$reply, $crate::call::CallError> {
                self.0.call(stringify!($method), request, $timeout).await
            } )+

            /// The same connection, calling in another context.
            pub fn with_context(&self, context: $crate::call::CallContext) -> Self {
                Self(self.0.with_context(context))
            }
        }
    };
}
