//! libzmq's contexts, shared by all sockets of the process.
//!
//! A context has an I/O thread and a reaper thread, and room for 1023 sockets. Sharing lets
//! many simulated agents live in one process; when one is full, another is made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::zap::{self, ZapHandler};
use crate::transport::{PeerDirectory, TransportError};

static CURRENT: Mutex<Weak<SharedContext>> = Mutex::new(Weak::new());
static NEXT_DOMAIN: AtomicU64 = AtomicU64::new(1);

/// Servers of a context that check keys, by ZAP domain.
pub(super) type Directories = Arc<Mutex<HashMap<String, Arc<dyn PeerDirectory>>>>;

/// A context with its ZAP handler. Its last owner must be a thread of ours, for
/// ending it waits until libzmq's threads have closed every socket.
pub(super) struct SharedContext {
    directories: Directories,
    /// Made for the first server with keys. Ends before the context does.
    zap: Mutex<Option<ZapHandler>>,
    context: zmq::Context,
}

impl SharedContext {
    fn new() -> Self {
        Self {
            directories: Directories::default(),
            zap: Mutex::new(None),
            context: zmq::Context::new(),
        }
    }

    /// Lets `directory` decide who may connect to the sockets of a new ZAP domain.
    pub fn add_directory(
        self: &Arc<Self>,
        directory: Arc<dyn PeerDirectory>,
    ) -> Result<DomainGuard, TransportError> {
        let mut zap = self.zap.lock();
        if zap.is_none() {
            *zap = Some(zap::start(&self.context, Arc::clone(&self.directories))?);
        }
        let domain = format!("rpc-{}", NEXT_DOMAIN.fetch_add(1, Ordering::Relaxed));
        self.directories.lock().insert(domain.clone(), directory);
        Ok(DomainGuard { domain, directories: Arc::clone(&self.directories) })
    }
}

/// A ZAP domain; ends with its owner.
pub(super) struct DomainGuard {
    pub domain: String,
    directories: Directories,
}

impl Drop for DomainGuard {
    fn drop(&mut self) {
        self.directories.lock().remove(&self.domain);
    }
}

/// Makes a socket in the shared context, or in a new one when that is full.
pub(super) fn socket(
    kind: zmq::SocketType,
) -> Result<(Arc<SharedContext>, zmq::Socket), TransportError> {
    let mut current = CURRENT.lock();
    let shared = current.upgrade();
    let source = match &shared {
        None => zmq::Error::EMFILE,
        Some(shared) => match shared.context.socket(kind) {
            Ok(socket) => return Ok((Arc::clone(shared), socket)),
            Err(error) => error,
        },
    };
    if source != zmq::Error::EMFILE {
        return Err(TransportError::Zmq { doing: "make an RPC socket", source });
    }
    let fresh = Arc::new(SharedContext::new());
    *current = Arc::downgrade(&fresh);
    drop(current);
    let socket = fresh
        .context
        .socket(kind)
        .map_err(|source| TransportError::Zmq { doing: "make an RPC socket", source })?;
    Ok((fresh, socket))
}
