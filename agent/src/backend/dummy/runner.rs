//! A kernel runner without a kernel: it echoes.
//!
//! Code is answered with itself as output, but for a few words: `input` asks for a line and
//! echoes it, `wait` runs until it is interrupted, `exit N` ends the container, `flood N`
//! writes N bytes. Streams echo, too. Startup commands end at once, `exit N` with that code.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rustix::fd::OwnedFd;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_util::codec::Framed;

use backendai_rpc::runner::{
    ConsoleItem, FrameCodec, FromRunner, Job, MAX_TEXT_RECORD, OUTPUT_WINDOW, PROTOCOL_VERSION,
    RunRecord, RunnerConfig, ServiceStart, StreamOpened, ToRunner, handover,
};

use crate::runner_link;

/// Between attempts to reach an agent that is not there; then doubling.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(500);
/// Exit code of a run that was interrupted: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Serves the agent until the container ends; the exit code.
pub async fn run(ipc_dir: &Path, config_file: &Path, stubborn: bool) -> i32 {
    let config: RunnerConfig = match std::fs::read(config_file).map(|b| serde_json::from_slice(&b))
    {
        Ok(Ok(config)) => config,
        _ => return 1,
    };
    let mut runner = Runner::new(config, stubborn);
    let mut retry = FIRST_RETRY;
    loop {
        if let Ok(stream) = runner_link::connect(ipc_dir).await {
            retry = FIRST_RETRY;
            if let Some(code) = runner.serve(ipc_dir, stream).await {
                return code;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

type Link = Framed<UnixStream, FrameCodec<ToRunner>>;

struct Runner {
    config: RunnerConfig,
    stubborn: bool,
    startup_exit: Option<i32>,
    queue: VecDeque<(String, Job)>,
    /// The run that waits for input or an interrupt.
    open: Option<(String, Job)>,
    /// Output that the window does not admit yet.
    waiting: VecDeque<(String, RunRecord)>,
    unacknowledged: VecDeque<(u64, String, RunRecord)>,
    /// Answers that are no records.
    replies: VecDeque<FromRunner>,
    /// Streams to be opened; each echoes.
    streams: Vec<u64>,
    echoes: JoinSet<()>,
    last_seq: u64,
    end: Option<i32>,
}

impl Runner {
    fn new(config: RunnerConfig, stubborn: bool) -> Self {
        Self {
            config,
            stubborn,
            startup_exit: None,
            queue: VecDeque::new(),
            open: None,
            waiting: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            replies: VecDeque::new(),
            streams: Vec::new(),
            echoes: JoinSet::new(),
            last_seq: 0,
            end: None,
        }
    }

    /// One connection; the exit code if the container ended with it.
    async fn serve(&mut self, ipc_dir: &Path, stream: UnixStream) -> Option<i32> {
        let mut link = Link::new(stream, FrameCodec::default());
        if self.greet(&mut link).await.is_err() {
            return self.end;
        }
        while let Some(Ok(message)) = link.next().await {
            self.receive(message);
            self.open_streams(ipc_dir).await;
            if self.end.is_some() {
                break;
            }
            if self.answer(&mut link).await.is_err() {
                break;
            }
        }
        self.end
    }

    async fn open_streams(&mut self, ipc_dir: &Path) {
        for id in std::mem::take(&mut self.streams) {
            let Ok(socket) = self.echo() else { continue };
            let kernel_id = self.config.kernel_id.clone();
            let opened = FromRunner::StreamOpened(StreamOpened { id, kernel_id, result: Ok(()) });
            if let Ok(agent) = runner_link::connect(ipc_dir).await {
                // Without an agent nobody waits for the stream.
                let _gone = handover::send(&agent, opened, Some(socket)).await;
            }
        }
    }

    fn echo(&mut self) -> std::io::Result<OwnedFd> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut near = UnixStream::from_std(near)?;
        self.echoes.spawn(async move {
            let (mut read, mut write) = near.split();
            // It ends with whoever uses it.
            let _ended = tokio::io::copy(&mut read, &mut write).await;
        });
        Ok(far.into())
    }

    async fn greet(&mut self, link: &mut Link) -> Result<(), Gone> {
        let hello = FromRunner::Hello {
            protocol: PROTOCOL_VERSION,
            kernel_id: self.config.kernel_id.clone(),
            running: self.open.as_ref().map(|(run, _)| run.clone()),
            queued: self.queue.iter().map(|(run, _)| run.clone()).collect(),
            waiting_input: self.asking().filter(|run| !self.has_question_of(run)).map(|_| false),
            startup_exit_code: self.startup_exit,
        };
        send(link, hello).await?;
        send(link, FromRunner::Ready { apps: Vec::new() }).await?;
        for (seq, run_id, record) in self.unacknowledged.clone() {
            send(link, FromRunner::Record { seq, run_id, record }).await?;
        }
        if let (Some(command), None) = (&self.config.startup_command, self.startup_exit) {
            let exit_code = number_after(command, "exit").unwrap_or(0);
            self.startup_exit = Some(exit_code);
            send(link, FromRunner::StartupFinished { exit_code }).await?;
        }
        self.answer(link).await
    }

    /// The run that waits for input.
    fn asking(&self) -> Option<&str> {
        let (run_id, job) = self.open.as_ref()?;
        matches!(job, Job::Query { code } if code == "input").then_some(run_id)
    }

    fn has_question_of(&self, run: &str) -> bool {
        let is_question = |record: &RunRecord| matches!(record, RunRecord::WaitingInput { .. });
        self.unacknowledged.iter().any(|(_, of, record)| of == run && is_question(record))
            || self.waiting.iter().any(|(of, record)| of == run && is_question(record))
    }

    fn receive(&mut self, message: ToRunner) {
        match message {
            ToRunner::Run { run_id, job } => self.queue.push_back((run_id, job)),
            ToRunner::Input { run_id, text } => {
                if self.open.as_ref().is_some_and(|(open, _)| *open == run_id) {
                    self.open = None;
                    self.stdout(&run_id, format!("{text}\n"));
                    self.waiting.push_back((run_id, RunRecord::Finished { exit_code: 0 }));
                }
            }
            ToRunner::Interrupt => {
                if let Some((run_id, _)) = self.open.take() {
                    let exit_code = INTERRUPTED;
                    self.waiting.push_back((run_id, RunRecord::Finished { exit_code }));
                }
            }
            ToRunner::Cancel { run_id } => {
                self.queue.retain(|(queued, _)| *queued != run_id);
                self.open.take_if(|(open, _)| *open == run_id);
                self.waiting.retain(|(run, _)| *run != run_id);
                self.unacknowledged.retain(|(_, run, _)| *run != run_id);
            }
            ToRunner::Ack { seq } => self.unacknowledged.retain(|(sent, ..)| *sent > seq),
            ToRunner::Complete { id, code, .. } => {
                let matches = vec![format!("{code}_")];
                self.replies.push_back(FromRunner::Completions { id, matches });
            }
            ToRunner::OpenStream { id, .. } => self.streams.push(id),
            ToRunner::StartService { id, .. } => {
                let result = ServiceStart::Started;
                self.replies.push_back(FromRunner::ServiceStarted { id, result });
            }
            ToRunner::StopService { .. } => {}
            ToRunner::Shutdown { .. } if self.stubborn => {}
            ToRunner::Shutdown { .. } => self.end = Some(0),
        }
    }

    async fn answer(&mut self, link: &mut Link) -> Result<(), Gone> {
        loop {
            while let Some(reply) = self.replies.pop_front() {
                send(link, reply).await?;
            }
            while self.outstanding() < OUTPUT_WINDOW {
                let Some((run_id, record)) = self.waiting.pop_front() else { break };
                self.last_seq += 1;
                let seq = self.last_seq;
                self.unacknowledged.push_back((seq, run_id.clone(), record.clone()));
                send(link, FromRunner::Record { seq, run_id, record }).await?;
            }
            if !self.waiting.is_empty() || self.open.is_some() {
                return Ok(());
            }
            let Some((run_id, job)) = self.queue.pop_front() else { return Ok(()) };
            self.begin(run_id, job);
            if self.end.is_some() {
                return Err(Gone);
            }
        }
    }

    fn begin(&mut self, run_id: String, job: Job) {
        let code = match &job {
            Job::Query { code } => code.clone(),
            Job::Batch { clean, build, exec } => {
                let steps = [
                    (clean, RunRecord::CleanFinished { exit_code: 0 }),
                    (build, RunRecord::BuildFinished { exit_code: 0 }),
                    (exec, RunRecord::Finished { exit_code: 0 }),
                ];
                for (command, record) in steps {
                    if let Some(command) = command {
                        self.stdout(&run_id, format!("{command}\n"));
                    }
                    self.waiting.push_back((run_id.clone(), record));
                }
                return;
            }
        };
        match code.trim() {
            "input" => {
                self.stdout(&run_id, "? ".to_owned());
                let record = RunRecord::WaitingInput { is_password: false };
                self.waiting.push_back((run_id.clone(), record));
                self.open = Some((run_id, job));
            }
            "wait" => self.open = Some((run_id, job)),
            code => {
                if let Some(exit_code) = number_after(code, "exit") {
                    self.end = Some(exit_code);
                    return;
                }
                match number_after(code, "flood") {
                    Some(bytes) => self.flood(&run_id, bytes.max(0) as usize),
                    None => self.stdout(&run_id, format!("{code}\n")),
                }
                self.waiting.push_back((run_id, RunRecord::Finished { exit_code: 0 }));
            }
        }
    }

    fn flood(&mut self, run_id: &str, mut bytes: usize) {
        while bytes > 0 {
            let piece = bytes.min(MAX_TEXT_RECORD);
            self.stdout(run_id, "x".repeat(piece));
            bytes -= piece;
        }
    }

    fn stdout(&mut self, run_id: &str, text: String) {
        let record = RunRecord::Console(ConsoleItem::Stdout(text));
        self.waiting.push_back((run_id.to_owned(), record));
    }

    fn outstanding(&self) -> usize {
        self.unacknowledged.iter().map(|(.., record)| record.size()).sum()
    }
}

/// The agent does not listen any more.
struct Gone;

async fn send(link: &mut Link, message: FromRunner) -> Result<(), Gone> {
    link.send(message).await.map_err(|_| Gone)
}

fn number_after(text: &str, word: &str) -> Option<i32> {
    text.strip_prefix(word)?.trim().parse().ok()
}
