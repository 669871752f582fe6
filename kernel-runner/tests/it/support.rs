//! An agent for tests, with a runner that is an ordinary process.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backendai_rpc::runner::{
    ConsoleItem, FrameCodec, FromRunner, Job, RunRecord, RunnerConfig, SOCKET_NAME, StreamError,
    StreamTarget, ToRunner, handover,
};
use bytes::BytesMut;
use tempfile::TempDir;
use tokio_util::codec::{Decoder, Encoder};

/// A runner that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How to start a runner.
pub struct Setup {
    pub config: RunnerConfig,
    pub folder: TempDir,
    /// `docker run` and its arguments, instead of a process of this machine.
    pub container: Option<Command>,
    /// Of the container; removed with the rest.
    pub image: Option<Image>,
}

/// The name of an image that is removed in the end.
pub struct Image(pub String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

impl Setup {
    /// A kernel of this runtime, with a Python that has no packages.
    pub fn new(runtime_type: &str) -> Self {
        let config = RunnerConfig {
            kernel_id: "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            runtime_type: runtime_type.into(),
            runtime_path: None,
            environ: [("FROM_CONFIG".to_owned(), "yes".to_owned())].into(),
            bootstrap_script: None,
            startup_command: None,
            service_ports: Vec::new(),
            cluster_hosts: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        for name in ["work", "ipc", "etc", "cgroup"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { config, folder, container: None, image: None }
    }

    pub fn python() -> Self {
        let mut setup = Self::new("python");
        let venv = setup.folder.path().join("venv");
        let interpreter = std::env::var("TEST_PYTHON").unwrap_or("python3".into());
        let made = Command::new(interpreter)
            .args(["-m", "venv", "--without-pip"])
            .arg(&venv)
            .status()
            .unwrap();
        assert!(made.success());
        setup.config.runtime_path = Some(venv.join("bin/python").to_str().unwrap().into());
        setup
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Listens, starts the runner and reads its greeting.
    pub fn start(self) -> Agent {
        let mut agent = self.start_unheard();
        agent.accept();
        agent
    }

    /// Listens and starts the runner.
    pub fn start_unheard(mut self) -> Agent {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let runner = self.spawn();
        Agent { setup: self, runner, listener: Some(listener), connection: None }
    }

    /// Starts the runner with nobody listening.
    pub fn start_alone(mut self) -> Agent {
        let runner = self.spawn();
        Agent { setup: self, runner, listener: None, connection: None }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("ipc").join(SOCKET_NAME)
    }

    fn spawn(&mut self) -> Child {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("runner.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
        let log = |name: &str| std::fs::File::create(path(name)).unwrap();
        let mut command = self.container.take().unwrap_or_else(|| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_backendai-kernel-runner"));
            command
                .env("BACKENDAI_RUNNER_CONFIG", path("runner.json"))
                .env("BACKENDAI_RUNNER_IPC", path("ipc"))
                .env("BACKENDAI_RUNNER_WORK", path("work"))
                .env("BACKENDAI_RUNNER_ETC", path("etc"))
                .env("BACKENDAI_RUNNER_LIBRARY", path("library"))
                .env("BACKENDAI_RUNNER_INPUT", path("input.sock"))
                .env("BACKENDAI_RUNNER_CGROUP", path("cgroup"));
            command
        });
        command.stdin(Stdio::null()).stdout(log("stdout")).stderr(log("stderr"));
        command.spawn().unwrap()
    }
}

/// The agent's side of one kernel.
pub struct Agent {
    pub setup: Setup,
    pub runner: Child,
    listener: Option<UnixListener>,
    connection: Option<Connection>,
}

struct Connection {
    stream: UnixStream,
    buffer: BytesMut,
}

/// All that a run gave.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    /// What is neither.
    pub items: Vec<ConsoleItem>,
    /// Exit codes of the steps, the last one of the run.
    pub exit_codes: Vec<i32>,
    /// The order of everything but text.
    pub records: Vec<RunRecord>,
}

impl Outcome {
    pub fn exit_code(&self) -> i32 {
        *self.exit_codes.last().unwrap()
    }

    /// The output with adjacent text joined, as clients see it.
    pub fn console(&self) -> Vec<ConsoleItem> {
        let mut joined: Vec<ConsoleItem> = Vec::new();
        for record in &self.records {
            let RunRecord::Console(item) = record else { continue };
            match (joined.last_mut(), item) {
                (Some(ConsoleItem::Stdout(last)), ConsoleItem::Stdout(text))
                | (Some(ConsoleItem::Stderr(last)), ConsoleItem::Stderr(text)) => {
                    last.push_str(text);
                }
                _ => joined.push(item.clone()),
            }
        }
        joined
    }

    pub fn add(&mut self, record: RunRecord) {
        match &record {
            RunRecord::Console(ConsoleItem::Stdout(text)) => self.stdout.push_str(text),
            RunRecord::Console(ConsoleItem::Stderr(text)) => self.stderr.push_str(text),
            RunRecord::Console(item) => self.items.push(item.clone()),
            RunRecord::WaitingInput { .. } => {}
            RunRecord::CleanFinished { exit_code }
            | RunRecord::BuildFinished { exit_code }
            | RunRecord::Finished { exit_code } => self.exit_codes.push(*exit_code),
        }
        self.records.push(record);
    }
}

impl Agent {
    /// Takes the next connection and reads up to `Ready`. Returns the greeting.
    pub fn accept(&mut self) -> FromRunner {
        let greeting = self.accept_unready();
        assert!(matches!(self.receive(), FromRunner::Ready { .. }));
        greeting
    }

    /// Takes the next connection and returns its greeting.
    pub fn accept_unready(&mut self) -> FromRunner {
        let (stream, _) = self.listener.as_ref().unwrap().accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.connection = Some(Connection { stream, buffer: BytesMut::new() });
        let greeting = self.receive();
        assert!(matches!(greeting, FromRunner::Hello { .. }), "{greeting:?}");
        greeting
    }

    /// Has a stream opened.
    pub fn try_open(&mut self, target: StreamTarget) -> Result<UnixStream, StreamError> {
        self.send(ToRunner::OpenStream { id: 5, target });
        let (stream, _) = self.listener.as_ref().unwrap().accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = tokio.block_on(async {
            handover::receive(&tokio::net::UnixStream::from_std(stream).unwrap()).await.unwrap()
        });
        let FromRunner::StreamOpened(opened) = first.message else { panic!("{first:?}") };
        assert_eq!((opened.id, opened.kernel_id), (5, self.setup.config.kernel_id.clone()));
        opened.result?;
        let stream = UnixStream::from(first.socket.unwrap());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(stream)
    }

    /// Has a stream opened that can be.
    pub fn open(&mut self, target: StreamTarget) -> UnixStream {
        self.try_open(target).unwrap()
    }

    /// The agent goes away.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.listener = None;
        std::fs::remove_file(self.setup.socket()).unwrap();
    }

    /// The agent comes back.
    pub fn listen(&mut self) {
        self.listener = Some(UnixListener::bind(self.setup.socket()).unwrap());
    }

    pub fn send(&mut self, message: ToRunner) {
        let mut buffer = BytesMut::new();
        FrameCodec::<FromRunner>::default().encode(message, &mut buffer).unwrap();
        self.connection.as_mut().unwrap().stream.write_all(&buffer).unwrap();
    }

    pub fn receive(&mut self) -> FromRunner {
        self.try_receive().expect("the runner hung up")
    }

    /// `None` when the runner has hung up.
    pub fn try_receive(&mut self) -> Option<FromRunner> {
        let Connection { stream, buffer } = self.connection.as_mut().unwrap();
        loop {
            if let Some(message) = FrameCodec::<FromRunner>::default().decode(buffer).unwrap() {
                return Some(message);
            }
            let mut piece = [0; 1 << 16];
            let length = match stream.read(&mut piece) {
                Ok(length) => length,
                Err(error) => panic!("nothing from the runner: {error}; {}", self.logs()),
            };
            if length == 0 {
                return None;
            }
            buffer.extend_from_slice(&piece[..length]);
        }
    }

    /// The next record, acknowledged.
    pub fn record(&mut self) -> (u64, String, RunRecord) {
        let message = self.receive();
        let FromRunner::Record { seq, run_id, record } = message else {
            panic!("no record: {message:?}")
        };
        self.send(ToRunner::Ack { seq });
        (seq, run_id, record)
    }

    /// Collects the records of a run until one that is not text, included.
    pub fn until_event(&mut self, run: &str, outcome: &mut Outcome) -> RunRecord {
        loop {
            let (_, run_id, record) = self.record();
            assert_eq!(run_id, run);
            outcome.add(record.clone());
            if !matches!(record, RunRecord::Console(_)) {
                return record;
            }
        }
    }

    /// Collects the records of a run until its output contains `text`.
    pub fn until_text(&mut self, run: &str, text: &str, outcome: &mut Outcome) {
        while !outcome.stdout.contains(text) {
            let (_, run_id, record) = self.record();
            assert_eq!(run_id, run);
            assert!(!matches!(record, RunRecord::Finished { .. }), "{outcome:?}");
            outcome.add(record);
        }
    }

    /// Collects the records of a run until its end.
    pub fn until_end(&mut self, run: &str, outcome: &mut Outcome) {
        while !matches!(self.until_event(run, outcome), RunRecord::Finished { .. }) {}
    }

    /// Like [`Self::until_end`], past what is left of runs that were cancelled.
    pub fn until_end_past_cancelled(&mut self, run: &str) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let (_, run_id, record) = self.record();
            let end = matches!(record, RunRecord::Finished { .. });
            if run_id != run {
                assert!(!end, "a cancelled run ended: {run_id}");
                continue;
            }
            outcome.add(record);
            if end {
                return outcome;
            }
        }
    }

    pub fn query(&mut self, run: &str, code: &str) {
        self.send(ToRunner::Run { run_id: run.into(), job: Job::Query { code: code.into() } });
    }

    /// Runs code to its end.
    pub fn run(&mut self, code: &str) -> Outcome {
        let mut outcome = Outcome::default();
        self.query("run", code);
        self.until_end("run", &mut outcome);
        outcome
    }

    pub fn batch(&mut self, run: &str, clean: &str, build: &str, exec: &str) {
        let step = |command: &str| (!command.is_empty()).then(|| command.to_owned());
        let job = Job::Batch { clean: step(clean), build: step(build), exec: step(exec) };
        self.send(ToRunner::Run { run_id: run.into(), job });
    }

    /// Runs commands to their end.
    pub fn run_batch(&mut self, clean: &str, build: &str, exec: &str) -> Outcome {
        let mut outcome = Outcome::default();
        self.batch("batch", clean, build, exec);
        self.until_end("batch", &mut outcome);
        outcome
    }

    pub fn input(&mut self, run: &str, text: &str) {
        self.send(ToRunner::Input { run_id: run.into(), text: text.into() });
    }

    pub fn complete(&mut self, code: &str, cursor: Option<(u32, u32)>) -> Vec<String> {
        self.send(ToRunner::Complete { id: 7, code: code.into(), cursor });
        match self.receive() {
            FromRunner::Completions { id: 7, matches } => matches,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the kernel; returns the runner's exit code.
    pub fn shutdown(mut self, grace_ms: u64) -> i32 {
        self.send(ToRunner::Shutdown { grace_ms });
        while self.try_receive().is_some() {}
        self.runner.wait().unwrap().code().unwrap()
    }

    /// The container's console: standard output and error.
    pub fn console(&self) -> (String, String) {
        let read =
            |name: &str| std::fs::read_to_string(self.setup.folder.path().join(name)).unwrap();
        (read("stdout"), read("stderr"))
    }

    fn logs(&self) -> String {
        format!("{:?}", self.console())
    }

    pub fn work(&self) -> PathBuf {
        self.setup.work()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(None) = self.runner.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.runner);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.runner.wait();
        }
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        pause();
    }
    panic!("never happened: {what}");
}

#[expect(clippy::disallowed_methods, reason = "between two looks at a condition")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Memory of a process in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new(&format!("/proc/{pid}/status"))).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
