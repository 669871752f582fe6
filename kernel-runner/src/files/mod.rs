//! Operations on the files of the work folder, in the language of
//! [`backendai_rpc::runner::files`].
//!
//! Each is a process of its own that runs as the user, inside the container's mounts. So it
//! may do what the user may and sees the folders the user sees, and what waits for a slow
//! disk or a slow client is not PID 1.
//!
//! - [`Files`] is PID 1's part: it starts these processes.
//! - `channel` reads and writes frames; `work` is the one way to a path, which never leads
//!   out of the work folder; `upload`, `archive`, `content` and `listing` are the operations.

mod archive;
mod channel;
mod content;
mod listing;
mod upload;
mod work;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use backendai_rpc::runner::files::{FilesError, FilesMessage, FilesRequest, MAX_ENTRIES};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::sync::Semaphore;

use self::channel::Channel;
use self::work::Work;
use crate::log::log;
use crate::process::{OURSELVES, Program, Spawner};

/// The runner's argument that makes it the process of one operation; the next one is the
/// work folder.
pub const MODE: &str = "files";
/// Operations at once. Each is a process of a few megabytes.
const MAX_OPERATIONS: usize = 64;

/// Starts operations.
pub struct Files {
    spawner: Rc<Spawner>,
    free: Arc<Semaphore>,
}

impl Files {
    /// Operations on the spawner's work folder, as its user.
    pub fn new(spawner: Rc<Spawner>) -> Self {
        Self { spawner, free: Arc::new(Semaphore::new(MAX_OPERATIONS)) }
    }

    /// Begins an operation and returns the asking end.
    ///
    /// # Errors
    /// There are too many already, or the system has no room for a process.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            return Err(io::Error::other("too many operations on files at once"));
        };
        let (stream, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, theirs) = rustix::net::socketpair(stream, kind, SocketFlags::CLOEXEC, None)?;
        let program = Program {
            path: Path::new(OURSELVES),
            args: vec![MODE.into(), self.spawner.work().into()],
            variables: Vec::new(),
            inherit: Vec::new(),
        };
        let ended = self.spawner.start_connected(&program, theirs.try_clone()?, theirs)?;
        tokio::task::spawn_local(async move {
            // Its exit code says nothing that the stream does not.
            let _ = ended.await;
            drop(permit);
        });
        Ok(ours)
    }
}

/// Why an operation ended early.
enum Stop {
    /// It cannot be done; the other side is told.
    Failed(FilesError),
    /// The other side has gone or speaks another language.
    Gone(io::Error),
}

impl From<FilesError> for Stop {
    fn from(error: FilesError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// Carries out the one operation that is asked for on standard input, beneath `folder`, and
/// returns the exit code of the process.
pub fn main(folder: &Path) -> i32 {
    match serve(folder) {
        Ok(()) => 0,
        // Who asked may leave at any time.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            log!("an operation on files: {error}");
            1
        }
    }
}

fn serve(folder: &Path) -> io::Result<()> {
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let request = match channel.receive()? {
        Some(FilesMessage::Request(request)) => request,
        Some(_) => return Err(io::Error::other("the stream does not begin with a request")),
        None => return Ok(()),
    };
    let done = match Work::open(folder) {
        Ok(work) => carry_out(&work, request, &mut channel),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => channel.send(FilesMessage::End),
        Err(Stop::Failed(error)) => channel.send(FilesMessage::Failed(error)),
        Err(Stop::Gone(error)) => Err(error),
    }
}

fn carry_out(work: &Work, request: FilesRequest, channel: &mut Channel) -> Result<(), Stop> {
    match request {
        FilesRequest::Upload { path, mode } => upload::upload(work, &path, mode, channel),
        FilesRequest::Download { path, max_bytes } => {
            archive::download(work, &path, max_bytes, channel)
        }
        FilesRequest::Read { path, max_bytes } => content::read(work, &path, max_bytes, channel),
        FilesRequest::List { path } => listing::list(work, &path, MAX_ENTRIES, channel),
    }
}
