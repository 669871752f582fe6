//! Files of a session: in and out of its main kernel, through streams.
//!
//! Bytes pass by piece after piece, at the pace of the slower side. What comes from a kernel
//! comes from a process of the user, so that nothing of it is believed unchecked.

use std::time::Duration;

use backendai_rpc::agent_api::StreamTarget;
use backendai_rpc::call::{CallError, ErrorKind, RemoteError};
use backendai_rpc::runner::FrameError;
use backendai_rpc::runner::files::{
    FileEntry, FilesCodec, FilesError, FilesErrorKind, FilesMessage, FilesRequest, MAX_DATA,
    MAX_ENTRIES, display_name,
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use super::execute::{self, RunningKernel, failed};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Files in one upload.
const MAX_UPLOADS: usize = 20;
/// An uploaded file is smaller than this, in bytes.
const MAX_UPLOAD_BYTES: u64 = 1 << 20;
/// Files in one download.
const MAX_DOWNLOADS: usize = 5;
/// Bytes of a downloaded archive or file, at most.
const MAX_DOWNLOAD_BYTES: u64 = 1 << 20;
/// Permissions of uploaded files.
const UPLOAD_MODE: u32 = 0o644;
/// A kernel that neither takes nor gives a byte for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The files of one upload.
pub struct Uploads {
    kernel: RunningKernel,
    begun: usize,
}

/// Begins an upload into the caller's session.
///
/// # Errors
/// No such session, or it does not run.
pub async fn upload(app: &SharedApp, context: &RequestContext, reference: &str) -> Result<Uploads> {
    Ok(Uploads { kernel: execute::open(app, context, reference).await?, begun: 0 })
}

impl Uploads {
    /// Begins the next file. Its folders are made; a file of that name is replaced once the
    /// new one is whole.
    ///
    /// # Errors
    /// There are too many, or the agent failed.
    pub async fn begin(&mut self, path: Vec<u8>) -> Result<Upload> {
        if self.begun == MAX_UPLOADS {
            return Err(Error::invalid(format!("Too many files: at most {MAX_UPLOADS} at once.")));
        }
        self.begun += 1;
        let name = display_name(&path);
        let request = FilesRequest::Upload { path, mode: UPLOAD_MODE };
        Ok(Upload { operation: Operation::begin(&self.kernel, request).await?, name, length: 0 })
    }
}

/// A file on its way in. Dropped before [`Upload::finish`], it leaves nothing behind.
pub struct Upload {
    operation: Operation,
    name: String,
    length: u64,
}

impl Upload {
    /// Sends the next bytes.
    ///
    /// # Errors
    /// The file is too large, or the agent failed.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.length += bytes.len() as u64;
        if self.length >= MAX_UPLOAD_BYTES {
            return Err(Error::invalid(format!(
                "Too large file: {} is not smaller than {MAX_UPLOAD_BYTES} bytes.",
                self.name
            )));
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_DATA));
            self.operation.send(FilesMessage::Data(piece)).await?;
        }
        Ok(())
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// No such file can be written, or the agent failed.
    pub async fn finish(mut self) -> Result<()> {
        self.operation.send(FilesMessage::End).await?;
        match self.operation.receive().await? {
            FilesMessage::End => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Bytes on their way out.
pub struct Download {
    /// How many.
    pub length: u64,
    left: u64,
    operation: Operation,
}

/// Downloads files and folders of the caller's session, each as a tar archive.
///
/// # Errors
/// No such session, it does not run, there are too many or too large files, something is
/// not there, or the agent failed.
pub async fn download(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    paths: Vec<String>,
) -> Result<Vec<Download>> {
    if paths.is_empty() {
        return Err(Error::invalid("No file is named."));
    }
    if paths.len() > MAX_DOWNLOADS {
        return Err(Error::invalid(format!("Too many files: at most {MAX_DOWNLOADS} at once.")));
    }
    let kernel = execute::open(app, context, reference).await?;
    let begin = |path: String| {
        let path = path.into_bytes();
        let request = FilesRequest::Download { path, max_bytes: MAX_DOWNLOAD_BYTES };
        Download::begin(&kernel, request)
    };
    futures::future::try_join_all(paths.into_iter().map(begin)).await
}

/// Downloads the content of one file of the caller's session.
///
/// # Errors
/// As [`download`].
pub async fn read(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    path: String,
) -> Result<Download> {
    let kernel = execute::open(app, context, reference).await?;
    let path = path.into_bytes();
    Download::begin(&kernel, FilesRequest::Read { path, max_bytes: MAX_DOWNLOAD_BYTES }).await
}

impl Download {
    async fn begin(kernel: &RunningKernel, request: FilesRequest) -> Result<Self> {
        let mut operation = Operation::begin(kernel, request).await?;
        match operation.receive().await? {
            FilesMessage::Begin(length) if length <= MAX_DOWNLOAD_BYTES => {
                Ok(Self { length, left: length, operation })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The next bytes; `None` once all have come.
    ///
    /// # Errors
    /// The file cannot be read to its end, or the agent failed.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.operation.receive().await? {
            FilesMessage::Data(bytes) if bytes.len() as u64 <= self.left => {
                self.left -= bytes.len() as u64;
                Ok(Some(bytes))
            }
            FilesMessage::End if self.left == 0 => Ok(None),
            other => Err(unexpected(&other)),
        }
    }
}

/// The entries of a folder, as they come.
pub struct Listing {
    operation: Operation,
    /// What came with the news that there is such a folder.
    first: Option<FilesMessage>,
    left: u64,
}

/// Lists a folder of the caller's session.
///
/// # Errors
/// No such session, it does not run, there is no such folder, or the agent failed.
pub async fn list(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
    path: String,
) -> Result<Listing> {
    let kernel = execute::open(app, context, reference).await?;
    let request = FilesRequest::List { path: path.into_bytes() };
    let mut operation = Operation::begin(&kernel, request).await?;
    let first = Some(operation.receive().await?);
    Ok(Listing { operation, first, left: MAX_ENTRIES })
}

impl Listing {
    /// The next entries, in no order; `None` at the end.
    ///
    /// # Errors
    /// The folder cannot be read to its end, or the agent failed.
    pub async fn next(&mut self) -> Result<Option<Vec<FileEntry>>> {
        let message = match self.first.take() {
            Some(first) => first,
            None => self.operation.receive().await?,
        };
        match message {
            FilesMessage::Entries(entries) if entries.len() as u64 <= self.left => {
                self.left -= entries.len() as u64;
                Ok(Some(entries))
            }
            FilesMessage::End => Ok(None),
            other => Err(unexpected(&other)),
        }
    }
}

/// One operation of the kernel.
struct Operation {
    frames: Framed<TcpStream, FilesCodec>,
}

impl Operation {
    async fn begin(kernel: &RunningKernel, request: FilesRequest) -> Result<Self> {
        let stream = kernel.open_stream(StreamTarget::Files).await?;
        let mut operation = Self { frames: Framed::new(stream, FilesCodec) };
        operation.send(FilesMessage::Request(request)).await?;
        Ok(operation)
    }

    async fn send(&mut self, message: FilesMessage) -> Result<()> {
        let sent = tokio::time::timeout(PATIENCE, self.frames.send(message));
        sent.await.map_err(|_| late())?.map_err(broken)
    }

    /// What the kernel says, unless it is that it cannot do it.
    async fn receive(&mut self) -> Result<FilesMessage> {
        let received = tokio::time::timeout(PATIENCE, self.frames.next());
        match received.await.map_err(|_| late())? {
            Some(Ok(FilesMessage::Failed(error))) => Err(refusal(error)),
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(broken(error)),
            None => Err(failed(CallError::Closed)),
        }
    }
}

/// What a kernel's refusal is to the caller.
fn refusal(error: FilesError) -> Error {
    let message = error.to_string();
    match error.kind {
        FilesErrorKind::NotFound => {
            Error::invalid(format!("The file is not found: {}", error.path))
        }
        FilesErrorKind::TooLarge { limit } => {
            Error::invalid(format!("Too large: {} has more than {limit}.", error.path))
        }
        FilesErrorKind::Permission => Error::Forbidden(message),
        FilesErrorKind::NotAFolder
        | FilesErrorKind::NotAFile
        | FilesErrorKind::Outside
        | FilesErrorKind::InvalidPath(_) => Error::invalid(message),
        FilesErrorKind::Failed(_) => failed(RemoteError::new(ErrorKind::Internal, message).into()),
    }
}

fn unexpected(message: &FilesMessage) -> Error {
    let what = match message {
        FilesMessage::Request(_) => "a request",
        FilesMessage::Begin(_) => "a length",
        FilesMessage::Data(_) => "data",
        FilesMessage::Entries(_) => "entries",
        FilesMessage::End => "an end",
        FilesMessage::Failed(_) => "a failure",
    };
    failed(CallError::Malformed(format!("{what} where the kernel should not send it")))
}

fn late() -> Error {
    failed(CallError::Timeout { method: "files", after: PATIENCE })
}

fn broken(error: FrameError) -> Error {
    failed(match error {
        FrameError::Io(_) => CallError::Closed,
        other => CallError::Malformed(other.to_string()),
    })
}
