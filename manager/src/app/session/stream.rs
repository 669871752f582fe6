//! Streams into kernels: terminals, the ports of apps, files.

use std::io;
use std::time::Duration;

use backendai_rpc::agent_api::{OpenStream, StreamTarget, StreamTicket};
use backendai_rpc::call::{CallError, ErrorKind, RemoteError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::execute::{RunningKernel, failed};
use crate::app::Result;

/// How long an agent's stream port may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl RunningKernel {
    /// Opens a stream into the kernel.
    ///
    /// # Errors
    /// The agent failed or did not answer, or there is nothing at the target:
    /// [`is_refused`], [`is_ended`] and [`is_gone`] tell.
    pub async fn open_stream(&self, target: StreamTarget) -> Result<TcpStream> {
        let request = OpenStream { kernel_id: self.kernel_id, target };
        let ticket = self.client.open_stream(&request).await.map_err(failed)?;
        self.fetch(ticket).await.map_err(|error| {
            let host = self.agent_host();
            let message = format!("fetch a stream of the agent at {host}: {error}");
            failed(RemoteError::new(ErrorKind::EngineUnavailable, message).into())
        })
    }

    async fn fetch(&self, ticket: StreamTicket) -> io::Result<TcpStream> {
        let connect = TcpStream::connect((self.agent_host(), ticket.port));
        let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await??;
        stream.set_nodelay(true)?;
        stream.write_all(&ticket.token).await?;
        Ok(stream)
    }

    /// The host of the agent's RPC address, where its stream port is as well.
    fn agent_host(&self) -> &str {
        let addr = self.agent_addr.trim_start_matches("tcp://");
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// True when nothing listens at the target (yet).
pub fn is_refused(error: &crate::app::Error) -> bool {
    has_kind(error, ErrorKind::ConnectionRefused)
}

/// True when what the stream would go on with has ended.
pub fn is_ended(error: &crate::app::Error) -> bool {
    has_kind(error, ErrorKind::Ended)
}

/// True when the kernel is not there (any more).
pub fn is_gone(error: &crate::app::Error) -> bool {
    has_kind(error, ErrorKind::KernelNotFound)
}

fn has_kind(error: &crate::app::Error, kind: ErrorKind) -> bool {
    matches!(
        error,
        crate::app::Error::Agent { source: CallError::Remote(remote), .. } if remote.kind == kind
    )
}
