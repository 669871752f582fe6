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

use backendai_rpc::runner::FrameError;
use backendai_rpc::runner::terminal::{TerminalCodec, TerminalInput};
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
    life: RefCell<Option<Rc<Life>>>,
    size: Cell<Size>,
    /// Number of the first byte of the next life: numbers are never used again, so one that
    /// a viewer has kept cannot mean another byte.
    next: Cell<u64>,
}

impl Terminal {
    /// Nothing is started yet.
    pub fn new(spawner: Rc<Spawner>) -> Self {
        Self {
            spawner,
            tasks: TaskTracker::new(),
            life: RefCell::default(),
            size: Cell::new(DEFAULT_SIZE),
            next: Cell::new(0),
        }
    }

    /// Looks at the terminal from the byte with the number `from` on, without one from the
    /// oldest that is kept. Starts a shell if none runs, with the size said last.
    ///
    /// # Errors
    /// A message for the user, if no shell can be started.
    pub fn view(self: &Rc<Self>, from: Option<u64>) -> Result<Viewer, String> {
        if let Some(life) = &*self.life.borrow() {
            return Ok(Viewer::new(Rc::clone(life), from));
        }
        let (life, exit) = Life::start(&self.spawner, self.next.get(), self.size.get())?;
        let life = Rc::new(life);
        self.life.replace(Some(Rc::clone(&life)));
        let terminal = Rc::clone(self);
        let viewer = Viewer::new(Rc::clone(&life), from);
        self.tasks.spawn_local(async move {
            life.run(exit).await;
            terminal.life.replace(None);
            terminal.next.set(life.ring().end());
        });
        Ok(viewer)
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
    /// that of the shell, of the peer, or of its patience. Where there is no shell, the
    /// output is the reason.
    pub async fn attach(self: &Rc<Self>, stream: UnixStream, from: Option<u64>) {
        // Its end says everything that the peer can do something about.
        let _ = self.serve(stream, from).await;
    }

    async fn serve(
        self: &Rc<Self>,
        mut stream: UnixStream,
        from: Option<u64>,
    ) -> Result<(), FrameError> {
        let (mut reader, mut writer) = stream.split();
        let viewer = match self.view(from) {
            Ok(viewer) => viewer,
            Err(message) => {
                writer.write_u64(self.next.get()).await?;
                return Ok(writer.write_all(format!("{message}\r\n").as_bytes()).await?);
            }
        };
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
