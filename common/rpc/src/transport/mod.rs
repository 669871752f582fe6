//! Ways for calls to travel.
//!
//! [`zmq`] carries them between processes, encrypted with CURVE; [`memory`] inside one
//! process, for simulated agents and tests. Both move the same two frames per message: a
//! small MessagePack header (call id, kind, method, epoch, request id, timeout) and the
//! body, which only the API's own types understand. [`curve`] has the keys.
//!
//! Both carriers keep the same promises: any number of calls in flight on one connection,
//! answered in the order in which they finish; a caller that goes away or times out stops
//! the work on the far side; and the name of the calling peer comes from its proven key.

pub mod curve;
mod header;
pub mod memory;
pub mod zmq;

pub use self::curve::{CertificateError, CurveKeypair, PeerDirectory, has_curve};
pub use self::memory::MemoryConnection;
pub use self::zmq::{RpcConnector, RpcServer, RpcServerOptions};

use crate::call::{ErrorKind, RemoteError};

/// No request or reply is larger, in bytes. Logs reach 10 MiB, files come in pieces of 1 MiB.
pub const MAX_BODY: usize = 32 << 20;

/// Why a server or connector could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address makes no sense.
    #[error("the RPC address {address} is not usable: {reason}")]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A server without keys was to be reachable from other hosts.
    #[error(
        "{address} is reachable from other hosts, where RPC must be encrypted: configure a CURVE \
         key pair, or bind a loopback address"
    )]
    PlainNotLoopback {
        /// The address as given.
        address: String,
    },
    /// The address is taken, or is not this host's.
    #[error("bind {address}")]
    Bind {
        /// The address as given.
        address: String,
        /// libzmq's reason.
        source: ::zmq::Error,
    },
    /// The libzmq at hand was built without encryption.
    #[error("the installed libzmq has no CURVE support; use one built with libsodium")]
    NoCurve,
    /// A server was made outside of a tokio runtime.
    #[error("an RPC server needs a running tokio runtime")]
    NoRuntime,
    /// libzmq refused something else.
    #[error("{doing}")]
    Zmq {
        /// What was being done.
        doing: &'static str,
        /// libzmq's reason.
        source: ::zmq::Error,
    },
    /// The system refused a thread or a descriptor.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The answer in place of a result larger than [`MAX_BODY`].
fn reply_too_large(method: &str, bytes: usize) -> RemoteError {
    RemoteError::new(
        ErrorKind::Internal,
        format!("the answer to {method} has {bytes} bytes, more than the {MAX_BODY} allowed"),
    )
}

/// The refusal of a request larger than [`MAX_BODY`], made before anything is sent.
fn request_too_large(method: &str, bytes: usize) -> RemoteError {
    RemoteError::new(
        ErrorKind::InvalidInput,
        format!("the request {method} has {bytes} bytes, more than the {MAX_BODY} allowed"),
    )
}
