//! One session of a connection: a shell, a command or a transfer of files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::discriminant;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::forward::{feed, pass_on};
use super::input::{self, Feeder, Input};
use super::programs::{Programs, Start};
use super::terminal::Request as TerminalRequest;
use crate::command::NOT_STARTED;
use crate::process::{CHUNK, Pty, Size, detach};

/// Variables that a client may set.
const MAX_VARIABLES: usize = 256;
/// How long a terminal must be still after the shell's end for all to have been read. What
/// is printed passes through a queue of the system's.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// More than a terminal holds: what comes after this is not the shell's.
const LAST_BYTES: usize = 128 << 10;
/// The data type of standard error.
const STDERR: u32 = 1;

/// A session, from the opening of its channel to its close.
pub struct Session {
    feeder: Feeder,
    /// Both ends of the client, until a program has them.
    ends: Option<(Input, ChannelWriteHalf<Msg>)>,
    variables: Vec<(OsString, OsString)>,
    wanted: Option<TerminalRequest>,
    running: Option<Running>,
}

struct Running {
    terminal: Option<Arc<Pty>>,
    signals: mpsc::UnboundedSender<Signal>,
    /// Dropped with the session: a terminal hangs up, pipes close, the program may go on.
    _task: JoinSet<()>,
}

impl Session {
    /// A session without a program yet.
    pub fn new(channel: Channel<Msg>) -> Self {
        let (feeder, input) = input::channel();
        let (_, output) = channel.split();
        Self {
            feeder,
            ends: Some((input, output)),
            variables: Vec::new(),
            wanted: None,
            running: None,
        }
    }

    /// Takes what the client sends.
    pub fn feeder(&self) -> &Feeder {
        &self.feeder
    }

    /// Sets a variable for the program. False if there are too many.
    pub fn set_variable(&mut self, name: &str, value: &str) -> bool {
        let room = self.variables.len() < MAX_VARIABLES;
        if room {
            self.variables.push((name.into(), value.into()));
        }
        room
    }

    /// The program shall have a terminal. False if it is too late for that.
    pub fn want_terminal(&mut self, request: TerminalRequest) -> bool {
        let early = self.running.is_none();
        if early {
            self.wanted = Some(request);
        }
        early
    }

    /// Changes the terminal's size. False if there is none.
    pub fn resize(&mut self, size: Size) -> bool {
        match (&mut self.wanted, &self.running) {
            (_, Some(Running { terminal: Some(terminal), .. })) => terminal.resize(size),
            (Some(wanted), None) => wanted.size = size,
            _ => return false,
        }
        true
    }

    /// Signals the program, with all that it started in its process group.
    pub fn signal(&self, signal: &Sig) {
        if let (Some(running), Some(signal)) = (&self.running, number(signal)) {
            // It fails if the program has ended.
            let _ = running.signals.send(signal);
        }
    }

    /// Starts the program. False if the session has one already, or the system refuses; what
    /// the image lacks is said to the client as a program would.
    pub fn start(
        &mut self,
        channel: ChannelId,
        start: Start<'_>,
        programs: &Programs,
        agent: Option<&Path>,
        client: Handle,
    ) -> bool {
        let Some((input, output)) = self.ends.take() else { return false };
        let wanted = self.wanted.take().filter(|_| !matches!(start, Start::Sftp));
        let (signals, wanted_signals) = mpsc::unbounded_channel();
        let end = End { channel, client, output };
        let mut task = JoinSet::new();
        let terminal = match programs.command(start) {
            Err((message, code)) => {
                task.spawn(end.refuse(message, code));
                None
            }
            Ok(mut command) => {
                self.prepare(&mut command, programs, wanted.as_ref(), agent);
                let terminal = match wanted.map(|wanted| wanted.open()).transpose() {
                    Ok(terminal) => terminal,
                    Err(error) => {
                        crate::log::line(format_args!("open a terminal: {error}"));
                        return false;
                    }
                };
                match spawn(command, terminal) {
                    Ok((child, terminal)) => {
                        let program = Program { child, signals: wanted_signals };
                        task.spawn(program.run(input, terminal.clone(), end));
                        terminal
                    }
                    Err(error) => {
                        task.spawn(end.refuse(error.to_string(), NOT_STARTED));
                        None
                    }
                }
            }
        };
        self.running = Some(Running { terminal, signals, _task: task });
        true
    }

    fn prepare(
        &self,
        command: &mut Command,
        programs: &Programs,
        wanted: Option<&TerminalRequest>,
        agent: Option<&Path>,
    ) {
        let mut environ = programs.environ().clone();
        for (name, value) in &self.variables {
            environ.set(name, value);
        }
        if let Some(wanted) = wanted {
            environ.set("TERM", &wanted.term);
        }
        if let Some(agent) = agent {
            environ.set("SSH_AUTH_SOCK", agent);
        }
        command.env_clear().envs(environ.iter());
        let work = programs.work();
        command.current_dir(if work.is_dir() { work } else { Path::new("/") });
    }
}

/// Starts a program in a session of its own, on a terminal if there is one.
fn spawn(
    mut command: Command,
    terminal: Option<(Pty, std::os::fd::OwnedFd)>,
) -> io::Result<(Child, Option<Arc<Pty>>)> {
    let pty = match terminal {
        Some((pty, theirs)) => {
            if let Ok(name) = rustix::termios::ttyname(&theirs, Vec::new()) {
                command.env("SSH_TTY", OsStr::from_bytes(name.as_bytes()));
            }
            command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
            Some(Arc::new(pty))
        }
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            None
        }
    };
    detach(command.as_std_mut(), &[], pty.is_some());
    Ok((command.spawn()?, pty))
}

/// A program that runs.
struct Program {
    child: Child,
    signals: mpsc::UnboundedReceiver<Signal>,
}

impl Program {
    /// Lives until the program has ended and all that it printed is sent.
    async fn run(mut self, input: Input, terminal: Option<Arc<Pty>>, end: End) {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let typing = async {
            match (&terminal, stdin) {
                (Some(terminal), _) => type_all(&input, terminal).await,
                (None, Some(stdin)) => feed(input, stdin).await,
                (None, None) => {}
            }
        };
        let (writer, error_writer) =
            (end.output.make_writer(), end.output.make_writer_ext(Some(STDERR)));
        let (over, ended) = oneshot::channel();
        let printing = async {
            // It fails when the client has left.
            let _ = match (&terminal, stdout) {
                (Some(terminal), _) => show_all(terminal, writer, ended).await,
                (None, Some(stdout)) => pass_on(stdout, writer).await,
                (None, None) => Ok(()),
            };
        };
        let complaining = async {
            if let Some(stderr) = stderr {
                let _ = pass_on(stderr, error_writer).await;
            }
        };
        let (mut child, mut signals) = (self.child, self.signals);
        let living = async {
            loop {
                tokio::select! {
                    status = child.wait() => {
                        // Nobody listens where there is no terminal.
                        let _ = over.send(());
                        return status;
                    }
                    Some(signal) = signals.recv() => {
                        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
                        if let Some(pid) = pid {
                            let _ = rustix::process::kill_process_group(pid, signal);
                        }
                    }
                }
            }
        };
        let outcome = async { tokio::join!(living, printing, complaining).0 };
        let status = tokio::select! {
            status = outcome => status,
            never = async { typing.await; std::future::pending().await } => never,
        };
        end.tell(status).await;
    }
}

/// Types what the client sends.
async fn type_all(input: &Input, terminal: &Pty) {
    while let Some(piece) = input.next().await {
        if terminal.write(&piece).await.is_err() {
            return;
        }
    }
}

/// Sends what is shown on a terminal until its programs have left it, or the shell has ended
/// and what it printed is sent: programs it left in the background keep the terminal open.
async fn show_all(
    terminal: &Pty,
    mut writer: impl tokio::io::AsyncWrite + Unpin,
    mut ended: oneshot::Receiver<()>,
) -> io::Result<()> {
    let (mut more, mut is_last, mut left) = (true, false, LAST_BYTES);
    let mut buffer = Vec::with_capacity(CHUNK);
    while more && left > 0 {
        if is_last {
            let read = tokio::time::timeout(LAST_WORDS, terminal.read(&mut buffer)).await;
            more = read.unwrap_or(false);
            left = left.saturating_sub(buffer.len());
        } else {
            tokio::select! {
                read = terminal.read(&mut buffer) => more = read,
                _ = &mut ended => is_last = true,
            }
        }
        if !buffer.is_empty() {
            writer.write_all(&buffer).await?;
            buffer.clear();
        }
    }
    Ok(())
}

/// The client's end of a session.
struct End {
    channel: ChannelId,
    client: Handle,
    output: ChannelWriteHalf<Msg>,
}

impl End {
    /// Says why there is no program, as a shell would.
    async fn refuse(self, message: String, code: i32) {
        let text = format!("kernel-runner: {message}\r\n");
        let _ = self.output.make_writer_ext(Some(STDERR)).write_all(text.as_bytes()).await;
        self.tell(Ok(ExitStatus::from_raw(code << 8))).await;
    }

    /// Says how the program ended. Sending fails only if the client has left.
    async fn tell(self, status: io::Result<ExitStatus>) {
        match status.map(|status| (status.code(), status.signal(), status.core_dumped())) {
            Ok((Some(code), _, _)) => {
                let _ = self.output.exit_status(code.cast_unsigned()).await;
            }
            Ok((None, Some(signal), core_dumped)) => {
                let (message, language) = (String::new(), String::new());
                let name = name(signal);
                let _ = self
                    .client
                    .exit_signal_request(self.channel, name, core_dumped, message, language)
                    .await;
            }
            Ok((None, None, _)) | Err(_) => {}
        }
        let _ = self.output.eof().await;
        let _ = self.output.close().await;
    }
}

/// Names of the protocol (RFC 4254, section 6.10) and their signals.
const SIGNALS: [(Sig, Signal); 12] = [
    (Sig::ABRT, Signal::ABORT),
    (Sig::ALRM, Signal::ALARM),
    (Sig::FPE, Signal::FPE),
    (Sig::HUP, Signal::HUP),
    (Sig::ILL, Signal::ILL),
    (Sig::INT, Signal::INT),
    (Sig::KILL, Signal::KILL),
    (Sig::PIPE, Signal::PIPE),
    (Sig::QUIT, Signal::QUIT),
    (Sig::SEGV, Signal::SEGV),
    (Sig::TERM, Signal::TERM),
    (Sig::USR1, Signal::USR1),
];
/// The one that the library has no name for.
const USR2: &str = "USR2";

fn number(name: &Sig) -> Option<Signal> {
    match name {
        Sig::Custom(name) => (name == USR2).then_some(Signal::USR2),
        name => {
            let is_named = |known: &Sig| discriminant(known) == discriminant(name);
            SIGNALS.iter().find(|(known, _)| is_named(known)).map(|(_, signal)| *signal)
        }
    }
}

fn name(number: i32) -> Sig {
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number);
    match known {
        Some((name, _)) => name.clone(),
        None if number == Signal::USR2.as_raw() => Sig::Custom(USR2.to_owned()),
        // The protocol's form for names of one's own.
        None => Sig::Custom(format!("{number}@backend.ai")),
    }
}
