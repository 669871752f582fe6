//! The kernel's terminal.
//!
//! There is one, which everybody who looks shares: the pseudo terminal API through the agent
//! ([`Terminal::attach`]) and the web terminal. It begins when somebody first looks and ends
//! with its shell; the next look begins another. Agents and managers come and go meanwhile:
//! what is printed is kept, so that whoever comes back misses and repeats nothing.
//!
//! - Any viewer may type, and the last one to say a size sets it.
//! - Programs wait for the fastest viewer, as on any terminal, but not for long if it has
//!   stopped to look, and never for a slower one. One that falls behind more than is kept
//!   loses its stream, and may come again.

mod life;
mod ring;
mod viewer;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use backendai_rpc::runner::terminal::{TerminalCodec, TerminalInput};
use backendai_rpc::runner::{FrameError, StreamError};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::codec::Decoder;
use tokio_util::task::TaskTracker;

use self::life::Life;
pub use self::viewer::{Output, Viewer};
use crate::process::{Size, Spawner};

/// What terminals have been since they were made of paper.
const DEFAULT_SIZE: Size = Size { rows: 24, cols: 80 };

/// The kernel's terminal, whether its shell runs or not.
pub struct Terminal {
    spawner: Rc<Spawner>,
    tasks: TaskTracker,
    /// The life that is, or the last one.
    life: RefCell<Option<Rc<Life>>>,
    size: Cell<Size>,
}

impl Terminal {
    /// Nothing is started yet.
    pub fn new(spawner: Rc<Spawner>) -> Self {
        Self {
            spawner,
            tasks: TaskTracker::new(),
            life: RefCell::default(),
            size: Cell::new(DEFAULT_SIZE),
        }
    }

    /// Looks at the terminal: at all that is kept, or to go on at the byte with the number
    /// `from`. Without `from` a shell is started if none runs, with the size said last.
    ///
    /// # Errors
    /// [`StreamError::Ended`] if what printed the byte before `from` prints nothing more;
    /// [`StreamError::Failed`] if no shell can be started.
    pub fn view(&self, from: Option<u64>) -> Result<Viewer, StreamError> {
        let last = self.life.borrow().clone();
        let Some(from) = from else {
            let life = match last {
                Some(life) if !life.has_ended() => life,
                last => self.start(last.as_deref()).map_err(StreamError::Failed)?,
            };
            return Ok(Viewer::new(life, None));
        };
        let life = last.ok_or(StreamError::Ended)?;
        let (first, end) = (life.ring().first(), life.ring().end());
        if from < first || (from >= end && life.has_ended()) {
            return Err(StreamError::Ended);
        }
        Ok(Viewer::new(life, Some(from)))
    }

    /// Numbers are never used again, and one is left out between two lives: so one that a
    /// viewer has kept cannot mean a byte of another life.
    fn start(&self, last: Option<&Life>) -> Result<Rc<Life>, String> {
        let first = last.map_or(0, |life| life.ring().end() + 1);
        let (life, exit) = Life::start(&self.spawner, first, self.size.get())?;
        let life = Rc::new(life);
        self.life.replace(Some(Rc::clone(&life)));
        let running = Rc::clone(&life);
        self.tasks.spawn_local(async move { running.run(exit).await });
        Ok(life)
    }

    /// Changes the size, of a terminal that is yet to start too.
    pub fn resize(&self, size: Size) {
        self.size.set(size);
        if let Some(life) = &*self.life.borrow() {
            life.resize(size);
        }
    }

    /// Ends the shell if one runs.
    pub fn hang_up(&self) {
        if let Some(life) = &*self.life.borrow() {
            life.hang_up(self.spawner.reaper());
        }
    }

    /// Serves one stream in the language of [`backendai_rpc::runner::terminal`] to its end:
    /// that of the shell, of the peer, or of what is kept for a slow one.
    pub async fn attach(&self, stream: UnixStream, viewer: Viewer) {
        // Its end says everything that the peer can do something about.
        let _ = self.serve(stream, viewer).await;
    }

    async fn serve(&self, mut stream: UnixStream, viewer: Viewer) -> Result<(), FrameError> {
        let (mut reader, mut writer) = stream.split();
        let output = async {
            writer.write_u64(viewer.position()).await?;
            while let Output::Piece(piece) = viewer.output().await {
                writer.write_all(&piece).await?;
            }
            Ok(())
        };
        let input = async {
            let mut buffer = BytesMut::new();
            while reader.read_buf(&mut buffer).await? > 0 {
                while let Some(input) = TerminalCodec.decode(&mut buffer)? {
                    match input {
                        TerminalInput::Input(bytes) => viewer.input(&bytes).await,
                        TerminalInput::Resize { rows, cols } => self.resize(Size { rows, cols }),
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            result = output => result,
            result = input => result,
        }
    }
}
