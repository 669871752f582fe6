//! One process of the Python driver.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::rc::Rc;

use backendai_rpc::runner::{ConsoleItem, FromRunner, RunRecord};
use rustix::process::{Pid, Signal};
use tokio::sync::{mpsc, oneshot};

use super::frame::{Answer, Channel, Command, Event, Garbage, Numbered, Shown};
use crate::command::{Commands, NOT_STARTED, Sinks};
use crate::outbox::{Outbox, RunOutput};
use crate::process::{Capture, Exit, Program, Reaper, Started};

/// Reads [`SOURCE`] from its socket, so that the list of processes stays readable.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
const SOURCE: &str = include_str!("driver.py");

/// An interpreter that runs code. Dropping it does not end it.
pub struct Driver {
    pid: Pid,
    shared: Rc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
}

/// What the task that serves the process shares with the [`Driver`].
#[derive(Default)]
struct Shared {
    /// The interpreter has shown that it can run our code.
    ready: Cell<bool>,
    /// Code runs; an interrupt reaches it.
    started: Cell<bool>,
    /// An interrupt waits for `started`.
    interrupted: Cell<bool>,
    /// How the process ended.
    ended: Cell<Option<Exit>>,
    /// There is a run, begun or not.
    busy: Cell<bool>,
    /// The code waits for a line; true for a password.
    asking: Cell<Option<bool>>,
}

enum Request {
    Run { code: String, output: RunOutput, done: oneshot::Sender<i32> },
    Input { text: String },
    Complete { id: u64, code: String, cursor: Option<(u32, u32)> },
}

impl Driver {
    /// Starts an interpreter.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(
        interpreter: &Path,
        commands: &Rc<Commands>,
        outbox: Rc<Outbox>,
    ) -> io::Result<Self> {
        let (command_channel, command_fd) = Channel::pair()?;
        let (output_channel, output_fd) = Channel::pair()?;
        let numbers = [&command_fd, &output_fd].map(|fd| fd.as_raw_fd().to_string().into());
        let mut args = vec!["-c".into(), BOOTSTRAP.into()];
        args.extend(numbers);
        let started = commands.spawner.start(&Program {
            path: interpreter,
            args,
            variables: Vec::new(),
            inherit: vec![command_fd.as_fd(), output_fd.as_fd()],
        })?;
        let (requests, receiver) = mpsc::unbounded_channel();
        let shared = Rc::new(Shared::default());
        let pid = started.pid;
        let server = Server {
            commands: command_channel,
            output: output_channel,
            shared: Rc::clone(&shared),
            requests: receiver,
            outbox,
            active: None,
            broken: false,
            pid,
            helpers: Rc::clone(commands),
        };
        commands.tasks.spawn_local(server.serve(started));
        Ok(Self { pid, shared, requests })
    }

    /// Runs a piece of code to its end and returns the exit code: 0 whatever the code did,
    /// unless the interpreter ended.
    pub async fn run(&self, code: String, output: RunOutput) -> i32 {
        let (done, receiver) = oneshot::channel();
        self.shared.busy.set(true);
        let _ = self.requests.send(Request::Run { code, output, done });
        let exit_code = receiver.await.unwrap_or(NOT_STARTED);
        self.shared.busy.set(false);
        self.shared.started.set(false);
        self.shared.interrupted.set(false);
        self.shared.asking.set(None);
        exit_code
    }

    /// Answers a question of the running code; false if it asks nothing.
    pub fn input(&self, text: &str) -> bool {
        self.shared.asking.take().is_some()
            && self.requests.send(Request::Input { text: text.to_owned() }).is_ok()
    }

    /// Whether the running code waits for a line, and if so, for a password.
    pub fn asking(&self) -> Option<bool> {
        self.shared.asking.get()
    }

    /// Asks for completions; false if there is nobody to answer now.
    pub fn complete(&self, id: u64, code: String, cursor: Option<(u32, u32)>) -> bool {
        !self.shared.busy.get()
            && self.requests.send(Request::Complete { id, code, cursor }).is_ok()
    }

    /// Interrupts the code that runs; before it runs, as soon as it does.
    pub fn interrupt(&self, reaper: &Reaper) {
        if self.shared.started.get() {
            reaper.signal_group(self.pid, Signal::INT);
        } else {
            self.shared.interrupted.set(true);
        }
    }

    /// Ends the interpreter.
    pub fn kill(&self, reaper: &Reaper) {
        reaper.signal_group(self.pid, Signal::KILL);
    }

    /// True after its end.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.get().is_some()
    }

    /// True if it ever took code.
    pub fn was_ready(&self) -> bool {
        self.shared.ready.get()
    }
}

/// Serves one process for as long as it lives.
struct Server {
    commands: Channel,
    output: Channel,
    shared: Rc<Shared>,
    requests: mpsc::UnboundedReceiver<Request>,
    outbox: Rc<Outbox>,
    active: Option<Active>,
    /// The user's code disturbed the sockets.
    broken: bool,
    pid: Pid,
    helpers: Rc<Commands>,
}

struct Active {
    sinks: Sinks,
    output: RunOutput,
    done: oneshot::Sender<i32>,
}

impl Active {
    fn new(output: RunOutput, done: oneshot::Sender<i32>) -> Self {
        let sinks = Sinks { run: Some(output.clone()), ..Sinks::default() };
        Self { sinks, output, done }
    }
}

impl Server {
    async fn serve(mut self, started: Started) {
        let Started { mut exit, mut stdout, mut stderr, .. } = started;
        // If it fails the process has ended, which is seen below.
        let _ = self.commands.send_bytes(SOURCE.as_bytes()).await;
        let ended = loop {
            let run = self.active.as_ref().map(|active| active.output.clone());
            tokio::select! {
                piece = stdout.next(run.as_ref()) => self.sinks().take(&mut stdout, &piece).await,
                piece = stderr.next(run.as_ref()) => self.sinks().take(&mut stderr, &piece).await,
                message = self.output.receive::<Numbered>(), if !self.broken => match message {
                    Ok(message) => {
                        self.drain(&mut stdout, &mut stderr).await;
                        self.show(message).await;
                    }
                    Err(Garbage) => self.break_off(),
                },
                event = self.commands.receive::<Event>(), if !self.broken => match event {
                    Err(Garbage) => self.break_off(),
                    Ok(Event::Ready) => self.shared.ready.set(true),
                    Ok(Event::Started) => self.code_started(),
                    Ok(Event::Done) => {
                        self.drain(&mut stdout, &mut stderr).await;
                        self.finish(&mut stdout, &mut stderr, 0);
                    }
                    Ok(Event::Completions { id, matches }) => {
                        self.outbox.send(FromRunner::Completions { id, matches });
                    }
                },
                Some(request) = self.requests.recv() => self.request(request).await,
                // Not the code itself, but a program that it started.
                is_password = self.helpers.input.next(), if self.active.is_some() => {
                    self.sinks().ask(is_password, &mut stdout, &mut stderr).await;
                }
                ended = &mut exit => break ended.unwrap_or(Exit::Code(NOT_STARTED)),
            }
        };
        self.shared.ended.set(Some(ended));
        // A run that came at the last moment is one in which the interpreter ended.
        while let Ok(request) = self.requests.try_recv() {
            if let Request::Run { code: _, output, done } = request {
                self.active = Some(Active::new(output, done));
            }
        }
        self.drain(&mut stdout, &mut stderr).await;
        if let Some(active) = &self.active {
            let (message, code) = self.epitaph(ended);
            active.output.stderr(format!("kernel-runner: {message}\n"));
            self.finish(&mut stdout, &mut stderr, code);
        }
        self.helpers.adopt(stdout);
        self.helpers.adopt(stderr);
    }

    /// What is printed while no code runs, by threads of earlier code, goes to the console.
    fn sinks(&self) -> Sinks {
        match &self.active {
            Some(active) => active.sinks.clone(),
            None => Sinks { console: Some(Rc::clone(&self.helpers.console)), ..Sinks::default() },
        }
    }

    async fn drain(&self, stdout: &mut Capture, stderr: &mut Capture) {
        let sinks = self.sinks();
        sinks.drain(stdout).await;
        sinks.drain(stderr).await;
    }

    fn finish(&mut self, stdout: &mut Capture, stderr: &mut Capture, exit_code: i32) {
        let sinks = self.sinks();
        sinks.finish(stdout);
        sinks.finish(stderr);
        if let Some(active) = self.active.take() {
            // Whoever started the run may be gone.
            let _ = active.done.send(exit_code);
        }
    }

    /// An interpreter that cannot be spoken to is of no use.
    fn break_off(&mut self) {
        self.broken = true;
        self.helpers.spawner.reaper().signal_group(self.pid, Signal::KILL);
    }

    fn code_started(&self) {
        self.shared.started.set(true);
        if self.shared.interrupted.take() {
            self.helpers.spawner.reaper().signal_group(self.pid, Signal::INT);
        }
    }

    async fn show(&mut self, Numbered { number, shown }: Numbered) {
        if let Some(Active { output, .. }) = &self.active {
            let item = match shown {
                Shown::Sync => None,
                Shown::Stderr { text } => Some(RunRecord::Console(ConsoleItem::Stderr(text))),
                Shown::Html { text } => Some(RunRecord::Console(ConsoleItem::Html(text))),
                Shown::Media { mime, data } => {
                    Some(RunRecord::Console(ConsoleItem::Media { mime, data }))
                }
                Shown::Input { is_password } => {
                    self.shared.asking.set(Some(is_password));
                    Some(RunRecord::WaitingInput { is_password })
                }
            };
            if let Some(record) = item {
                output.room(record.size()).await;
                output.push(record);
            }
        }
        // If it fails the process has ended.
        let _ = self.output.send(&Answer { number }).await;
    }

    async fn request(&mut self, request: Request) {
        // Where sending fails the process has ended, which ends the run.
        let _ = match request {
            Request::Run { code, output, done } => {
                self.active = Some(Active::new(output, done));
                self.commands.send(&Command::Run { code: &code }).await
            }
            Request::Input { text } => self.commands.send(&Command::Input { text: &text }).await,
            Request::Complete { id, code, cursor } => {
                let (row, column) = cursor.unzip();
                self.commands.send(&Command::Complete { id, code: &code, row, column }).await
            }
        };
    }

    /// What to say about an interpreter that ended in a run, and the run's exit code.
    fn epitaph(&self, ended: Exit) -> (String, i32) {
        match ended {
            Exit::Code(code) if !self.shared.ready.get() => {
                (format!("the interpreter did not start: exit code {code}"), NOT_STARTED)
            }
            // The run did not succeed, whatever the code says.
            Exit::Code(code) => (format!("the interpreter ended: exit code {code}"), code.max(1)),
            Exit::Signal(signal) => {
                (format!("the interpreter ended: signal {signal}"), ended.code())
            }
        }
    }
}
