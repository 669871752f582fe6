//! Questions of programs: whoever connects to one of two sockets asks the user for a line.
//!
//! A program connects, reads to the end, and has the answer without a newline; it says nothing
//! itself. The second socket, with [`PASSWORD_SUFFIX`], is for lines that must not be shown.
//! Where nobody can be asked, because no run is carried out, the answer is [`UNAVAILABLE`].
//!
//! One question is asked after the other, and always by the run that is carried out: it first
//! passes on what the program has printed, so that the prompt comes before the question.

use std::cell::{Cell, RefCell};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot};

use crate::log::log;

/// Names the first socket to programs that may ask.
pub const VARIABLE: &str = "_BACKEND_USER_INPUT";
/// What the name of the second socket adds to that of the first.
const PASSWORD_SUFFIX: &str = ".password";
/// The answer where nobody can be asked.
const UNAVAILABLE: &str = "<user-input-unavailable>";

/// The question that is open, if any.
#[derive(Default)]
pub struct UserInput {
    question: RefCell<Question>,
    /// A run is carried out.
    is_open: Cell<bool>,
    arrived: Notify,
}

#[derive(Default)]
enum Question {
    #[default]
    None,
    /// A program has connected, and the run does not know yet.
    Arrived(Asked),
    /// The run has asked the user.
    Asked(Asked),
}

struct Asked {
    is_password: bool,
    answer: oneshot::Sender<String>,
}

impl UserInput {
    /// Serves the sockets, for ever.
    pub async fn serve(self: Rc<Self>, path: PathBuf) {
        let mut password_path = path.clone().into_os_string();
        password_path.push(PASSWORD_SUFFIX);
        let (lines, passwords) = match (bind(&path), bind(password_path.as_ref())) {
            (Ok(lines), Ok(passwords)) => (lines, passwords),
            (Err(error), _) | (_, Err(error)) => {
                log!("programs cannot ask for input: {}: {error}", path.display());
                return std::future::pending().await;
            }
        };
        loop {
            let (accepted, is_password) = tokio::select! {
                accepted = lines.accept() => (accepted, false),
                accepted = passwords.accept() => (accepted, true),
            };
            match accepted {
                Ok((stream, _)) => self.serve_one(stream, is_password).await,
                Err(error) => {
                    log!("a program cannot ask for input: {error}");
                    // Descriptors have run out; some are given back soon.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_one(&self, stream: UnixStream, is_password: bool) {
        let mut answer = UNAVAILABLE.to_owned();
        if self.is_open.get() {
            let (sender, receiver) = oneshot::channel();
            self.question.replace(Question::Arrived(Asked { is_password, answer: sender }));
            self.arrived.notify_one();
            tokio::select! {
                // Without an answer the run has ended.
                answered = receiver => answer = answered.unwrap_or(answer),
                () = closed(&stream) => drop(self.question.take()),
            }
        }
        // A program that has gone meanwhile needs no answer.
        let _ = write(stream, answer.as_bytes()).await;
    }

    /// A run begins: programs may ask.
    pub fn open(&self) {
        self.is_open.set(true);
    }

    /// The run has ended, and its question with it.
    pub fn close(&self) {
        self.is_open.set(false);
        self.question.take();
    }

    /// The next question, which the caller must ask of the user: whether it is for a password.
    /// Cancel-safe.
    pub async fn next(&self) -> bool {
        loop {
            match self.question.take() {
                Question::Arrived(asked) => {
                    let is_password = asked.is_password;
                    self.question.replace(Question::Asked(asked));
                    return is_password;
                }
                other => drop(self.question.replace(other)),
            }
            self.arrived.notified().await;
        }
    }

    /// Answers the question; false if there is none.
    pub fn answer(&self, text: &str) -> bool {
        match self.question.take() {
            Question::Asked(asked) => asked.answer.send(text.to_owned()).is_ok(),
            other => {
                self.question.replace(other);
                false
            }
        }
    }

    /// Whether the user is being asked, and if so, for a password.
    pub fn asking(&self) -> Option<bool> {
        match &*self.question.borrow() {
            Question::Asked(asked) => Some(asked.is_password),
            _ => None,
        }
    }
}

/// How long to wait where connections cannot be taken.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Listens for everybody in the container, replacing what an earlier life left.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder)?;
        // As `/tmp` is everywhere; an image of a single program has none.
        std::fs::set_permissions(folder, Permissions::from_mode(0o1777))?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Writes the answer. The socket is registered anew, because [`closed`] made it forget that it
/// is writable.
async fn write(stream: UnixStream, answer: &[u8]) -> io::Result<()> {
    UnixStream::from_std(stream.into_std()?)?.write_all(answer).await
}

/// Resolves when a program has closed its end altogether. One that has only said that it will
/// say nothing more still waits.
async fn closed(stream: &UnixStream) {
    while let Ok(ready) = stream.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        // Being writable is nothing new: forgets it, so that the next change is waited for.
        let _ =
            stream.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}
