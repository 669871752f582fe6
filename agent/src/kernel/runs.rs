//! Running code: the API's steps on top of the runner's stream of records.
//!
//! A step gathers output until the run stops somewhere (a phase ends, it waits for input,
//! it is over), enough has gathered, or the caller's patience ends. The run itself goes on
//! regardless; the caller comes back with `Continue`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use rustix::fd::OwnedFd;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use backendai_rpc::agent_api::{
    Complete, Execute, ExecuteMode, ExecuteReply, RunStatus, StartService, StopService,
};
use backendai_rpc::call::{ErrorKind, RemoteError};
use backendai_rpc::runner::{
    AppInfo, FromRunner, Job, RunRecord, ServiceStart, StreamError, StreamOpened, StreamTarget,
    ToRunner,
};

use super::questions::{Answer, Questions};
use super::run_log::{RunLog, Taken};
use crate::runner_link::{Hello, Outbox, RunnerListener};

/// Messages to a runner that may wait for its connection: a user's clicks, not a stream.
const OUTBOX: usize = 16;
/// A run that nobody asks for while another waits behind it is ended after this time.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);
/// Longest time a step gathers output: below the caller's patience for the whole call.
const MAX_FLUSH: Duration = Duration::from_secs(25);
/// How long a run to continue may wait for its runner to call a restarted agent.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a runner that has just called may take to send again what it has.
const RESEND_TIME: Duration = Duration::from_millis(300);
/// The public API's limit for completions.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(9);
/// How long a service may take to listen, and its preparations: longer than the runner's
/// own limit, which gives the better error.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a stream may take to be opened.
const STREAM_TIMEOUT: Duration = Duration::from_secs(8);

/// The agent's side of one kernel's runner.
pub struct Runner {
    kernel_id: String,
    messages: mpsc::Sender<ToRunner>,
    taken: watch::Sender<u64>,
    status: watch::Sender<RunnerStatus>,
    log: Mutex<RunLog>,
    /// Some run should be looked at.
    wake: Notify,
    questions: Questions,
    /// Cancelled when the kernel is gone.
    closed: CancellationToken,
}

/// What is known of a runner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RunnerStatus {
    is_connected: bool,
    /// When it first accepted runs in this process of the agent.
    ready_since: Option<Instant>,
    startup_exit_code: Option<i32>,
    /// Services it has.
    apps: Vec<AppInfo>,
    /// Why what connected was turned away.
    refused: Option<String>,
}

impl Runner {
    /// A runner that has not called yet, and what [`runner_link::serve`](crate::runner_link::serve)
    /// is to send.
    pub fn new(kernel_id: String) -> (Arc<Self>, Outbox) {
        let (messages, outgoing) = mpsc::channel(OUTBOX);
        let (taken, taken_seen) = watch::channel(0);
        let runner = Self {
            kernel_id,
            messages,
            taken,
            status: watch::Sender::default(),
            log: Mutex::default(),
            wake: Notify::new(),
            questions: Questions::default(),
            closed: CancellationToken::new(),
        };
        (Arc::new(runner), Outbox { messages: outgoing, taken: taken_seen })
    }

    /// Resolves when the runner accepts runs. Cancel-safe.
    ///
    /// # Errors
    /// Something else connected in its place; what it was.
    pub async fn ready(&self) -> Result<(), String> {
        self.status_until(|status| match (status.ready_since, &status.refused) {
            (Some(_), _) => Some(Ok(())),
            (None, Some(why)) => Some(Err(why.clone())),
            (None, None) => None,
        })
        .await
    }

    /// The services the runner has; none before it is ready.
    pub fn apps(&self) -> Vec<AppInfo> {
        self.status.borrow().apps.clone()
    }

    /// Resolves with its exit code when the startup command has ended. Cancel-safe.
    pub async fn startup_exit_code(&self) -> i32 {
        self.status_until(|status| status.startup_exit_code).await
    }

    async fn status_until<T>(&self, pick: impl Fn(&RunnerStatus) -> Option<T>) -> T {
        let mut status = self.status.subscribe();
        loop {
            if let Some(found) = pick(&status.borrow_and_update()) {
                return found;
            }
            if status.changed().await.is_err() {
                // The sender is a field of the runner, so it outlives this borrow.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Asks the runner to end everything in the container. False if it is not connected.
    pub fn shut_down(&self, grace: Duration) -> bool {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.status.borrow().is_connected
            && self.messages.try_send(ToRunner::Shutdown { grace_ms }).is_ok()
    }

    /// Ends all waiting: the kernel is gone.
    pub fn close(&self) {
        self.closed.cancel();
        self.questions.close();
    }

    /// Carries out one step of a run.
    ///
    /// # Errors
    /// The run is not known (or known already), or the kernel went away.
    pub async fn execute(&self, request: Execute) -> Result<ExecuteReply, RemoteError> {
        let flush = Duration::from_millis(request.flush_ms).min(MAX_FLUSH);
        let run_id = match request.mode {
            ExecuteMode::Query { code } => self.begin(request.run_id, Job::Query { code }).await?,
            ExecuteMode::Batch { clean, build, exec } => {
                self.begin(request.run_id, Job::Batch { clean, build, exec }).await?
            }
            ExecuteMode::Continue => self.known_run(request.run_id).await?,
            ExecuteMode::Input { text } => {
                let run_id = self.known_run(request.run_id).await?;
                self.log.lock().answered(&run_id);
                self.send(ToRunner::Input { run_id: run_id.clone(), text }).await?;
                run_id
            }
        };
        let taken = self.step(&run_id, request.received, flush).await?;
        Ok(reply(run_id, taken))
    }

    /// Interrupts what runs, as Ctrl-C would.
    ///
    /// # Errors
    /// The kernel went away.
    pub async fn interrupt(&self) -> Result<(), RemoteError> {
        self.send(ToRunner::Interrupt).await
    }

    /// Completes code. Empty if the runtime cannot or takes too long.
    ///
    /// # Errors
    /// The kernel went away.
    pub async fn complete(&self, request: Complete) -> Result<Vec<String>, RemoteError> {
        let Complete { code, cursor, .. } = request;
        let answer =
            self.ask(|id| ToRunner::Complete { id, code, cursor }, COMPLETE_TIMEOUT).await?;
        Ok(match answer {
            Some(Answer::Completions(matches)) => matches,
            _ => Vec::new(),
        })
    }

    /// Starts a service and waits until it listens.
    ///
    /// # Errors
    /// The kernel went away.
    pub async fn start_service(&self, request: StartService) -> Result<ServiceStart, RemoteError> {
        let StartService { name, arguments, envs, .. } = request;
        let what = name.clone();
        let question = |id| ToRunner::StartService { id, name, arguments, envs };
        Ok(match self.ask(question, SERVICE_TIMEOUT).await? {
            Some(Answer::Service(result)) => result,
            _ => ServiceStart::Failed(format!("starting the service timed out: {what}")),
        })
    }

    /// Ends a service.
    ///
    /// # Errors
    /// The kernel went away.
    pub async fn stop_service(&self, request: StopService) -> Result<(), RemoteError> {
        self.send(ToRunner::StopService { name: request.name }).await
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// The kernel went away, or the runner does not answer.
    pub async fn open_stream(
        &self,
        target: StreamTarget,
    ) -> Result<Result<OwnedFd, StreamError>, RemoteError> {
        match self.ask(|id| ToRunner::OpenStream { id, target }, STREAM_TIMEOUT).await? {
            Some(Answer::Stream(result)) => Ok(result),
            _ => Ok(Err(StreamError::Failed("the kernel runner does not answer".to_owned()))),
        }
    }

    /// Asks the runner something; `None` if it takes too long.
    async fn ask(
        &self,
        message: impl FnOnce(u64) -> ToRunner,
        patience: Duration,
    ) -> Result<Option<Answer>, RemoteError> {
        let deadline = Instant::now() + patience;
        let mut question = self.questions.ask();
        match tokio::time::timeout_at(deadline, self.send(message(question.id))).await {
            Ok(sent) => sent?,
            Err(_) => return Ok(None),
        }
        match tokio::time::timeout_at(deadline, question.answer()).await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(self.gone()),
            Err(_) => Ok(None),
        }
    }

    async fn begin(&self, run_id: Option<String>, job: Job) -> Result<String, RemoteError> {
        let run_id = run_id.unwrap_or_else(|| hex::encode(rand::rng().random::<[u8; 16]>()));
        if !self.log.lock().begin(&run_id, Instant::now()) {
            return Err(RemoteError::new(
                ErrorKind::InvalidInput,
                format!("kernel {} has a run {run_id} already", self.kernel_id),
            ));
        }
        let sent = self.send(ToRunner::Run { run_id: run_id.clone(), job }).await;
        if sent.is_err() {
            self.log.lock().drop_run(&run_id);
        }
        sent.map(|()| run_id)
    }

    async fn known_run(&self, run_id: Option<String>) -> Result<String, RemoteError> {
        let run_id = run_id.ok_or_else(|| {
            RemoteError::new(ErrorKind::InvalidInput, "the run to continue must be named")
        })?;
        if self.is_run_known(&run_id).await { Ok(run_id) } else { Err(self.no_run(&run_id)) }
    }

    /// After a restart of the agent only the runner knows what runs: it calls, says which
    /// runs it has, and sends what was not acknowledged, perhaps of a run that has ended.
    async fn is_run_known(&self, run_id: &str) -> bool {
        let patience = Instant::now() + CALL_TIMEOUT;
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.log.lock().knows(run_id) {
                return true;
            }
            let ready_since = self.status.borrow().ready_since;
            let limit = ready_since.map_or(patience, |since| since + RESEND_TIME);
            tokio::select! {
                () = woken => {}
                () = until(Some(limit)) => return false,
                () = self.closed.cancelled() => return false,
            }
        }
    }

    async fn step(
        &self,
        run_id: &str,
        received: u64,
        flush: Duration,
    ) -> Result<Taken, RemoteError> {
        let deadline = Instant::now() + flush;
        let _poll = Poll::begin(self, run_id);
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let blocker = {
                let log = self.log.lock();
                if log.is_due(run_id) {
                    break;
                }
                if !log.knows(run_id) {
                    return Err(self.no_run(run_id));
                }
                log.blocker(run_id)
            };
            let impatient = blocker.as_ref().map(|(_, last_poll)| *last_poll + ABANDONED_AFTER);
            tokio::select! {
                () = &mut woken => {}
                () = tokio::time::sleep_until(deadline) => break,
                () = until(impatient) => {
                    if let Some((abandoned, _)) = blocker {
                        self.cancel(abandoned).await?;
                    }
                }
                () = self.closed.cancelled() => {
                    // What it said before it went is handed out first.
                    let taken = self.log.lock().take(run_id, received, Instant::now());
                    let is_empty = taken.console.is_empty() && taken.control.is_none();
                    return if is_empty { Err(self.gone()) } else { Ok(taken) };
                }
            }
        }
        let taken = self.log.lock().take(run_id, received, Instant::now());
        self.acknowledge(taken.acknowledge);
        Ok(taken)
    }

    async fn cancel(&self, run_id: String) -> Result<(), RemoteError> {
        tracing::info!(
            kernel.id = self.kernel_id,
            run_id,
            "ending a run that nobody has asked for while others wait",
        );
        let acknowledge = self.log.lock().drop_run(&run_id);
        self.acknowledge(acknowledge);
        self.wake.notify_waiters();
        self.send(ToRunner::Cancel { run_id }).await
    }

    fn acknowledge(&self, seq: Option<u64>) {
        if let Some(seq) = seq {
            self.taken.send_replace(seq);
        }
    }

    async fn send(&self, message: ToRunner) -> Result<(), RemoteError> {
        tokio::select! {
            sent = self.messages.send(message) => sent.map_err(|_| self.gone()),
            () = self.closed.cancelled() => Err(self.gone()),
        }
    }

    fn gone(&self) -> RemoteError {
        let message = format!("kernel {} has ended", self.kernel_id);
        RemoteError::new(ErrorKind::KernelNotFound, message)
    }

    fn no_run(&self, run_id: &str) -> RemoteError {
        let message = format!("kernel {} has no run {run_id}", self.kernel_id);
        RemoteError::new(ErrorKind::InvalidInput, message)
    }
}

impl RunnerListener for Runner {
    fn hello(&self, hello: Hello) {
        self.log.lock().adopt(&hello.runs, hello.waiting_input, Instant::now());
        self.wake.notify_waiters();
        self.status.send_modify(|status| {
            status.is_connected = true;
            status.startup_exit_code = status.startup_exit_code.or(hello.startup_exit_code);
        });
    }

    fn message(&self, message: FromRunner) {
        match message {
            FromRunner::Ready { apps } => {
                self.status.send_modify(|status| {
                    status.apps = apps;
                    status.ready_since.get_or_insert_with(Instant::now);
                });
                self.wake.notify_waiters();
            }
            FromRunner::Record { seq, run_id, record } => {
                if self.log.lock().record(seq, &run_id, record, Instant::now()) {
                    self.wake.notify_waiters();
                }
            }
            FromRunner::Completions { id, matches } => {
                self.questions.answer(id, Answer::Completions(matches));
            }
            FromRunner::ServiceStarted { id, result } => {
                self.questions.answer(id, Answer::Service(result));
            }
            FromRunner::StartupFinished { exit_code } => {
                self.status.send_modify(|status| status.startup_exit_code = Some(exit_code));
            }
            FromRunner::Hello { .. } | FromRunner::StreamOpened(_) => {
                tracing::warn!(kernel.id = self.kernel_id, "the kernel runner greeted twice");
            }
        }
    }

    fn stream(&self, opened: StreamOpened, socket: Option<OwnedFd>) {
        let result = match (opened.result, socket) {
            (Ok(()), Some(socket)) => Ok(socket),
            (Ok(()), None) => Err(StreamError::Failed("no socket came with the stream".into())),
            (Err(error), _) => Err(error),
        };
        self.questions.answer(opened.id, Answer::Stream(result));
    }

    fn disconnected(&self) {
        self.status.send_modify(|status| status.is_connected = false);
    }

    fn refused(&self, why: String) {
        tracing::warn!(kernel.id = self.kernel_id, "{why}");
        self.status.send_modify(|status| status.refused = Some(why));
    }
}

/// Marks a run as asked for while it lives.
struct Poll<'a> {
    runner: &'a Runner,
    run_id: &'a str,
}

impl<'a> Poll<'a> {
    fn begin(runner: &'a Runner, run_id: &'a str) -> Self {
        runner.log.lock().poll_begins(run_id);
        Self { runner, run_id }
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.runner.log.lock().poll_ends(self.run_id, Instant::now());
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn reply(run_id: String, taken: Taken) -> ExecuteReply {
    let (status, exit_code, is_password) = match taken.control {
        None | Some(RunRecord::Console(_)) => (RunStatus::Continued, None, None),
        Some(RunRecord::WaitingInput { is_password }) => {
            (RunStatus::WaitingInput, None, Some(is_password))
        }
        Some(RunRecord::CleanFinished { exit_code }) => {
            (RunStatus::CleanFinished, Some(exit_code), None)
        }
        Some(RunRecord::BuildFinished { exit_code }) => {
            (RunStatus::BuildFinished, Some(exit_code), None)
        }
        Some(RunRecord::Finished { exit_code }) => (RunStatus::Finished, Some(exit_code), None),
    };
    let (console, last_record) = (taken.console, taken.last);
    ExecuteReply { run_id, status, exit_code, is_password, console, last_record }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn query(run_id: &str, flush_ms: u64) -> Execute {
        let mode = ExecuteMode::Query { code: "x".into() };
        let (kernel_id, run_id) = (Uuid::nil().into(), Some(run_id.into()));
        Execute { kernel_id, run_id, mode, received: 0, flush_ms }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_run_is_ended_when_another_waits_behind_it() {
        let (runner, mut outbox) = Runner::new("k".into());
        runner.hello(Hello { runs: Vec::new(), waiting_input: None, startup_exit_code: None });
        runner.message(FromRunner::Ready { apps: Vec::new() });
        runner.execute(query("left", 0)).await.unwrap();
        runner.execute(query("next", 25_000)).await.unwrap();
        let sent = |outbox: &mut Outbox| outbox.messages.try_recv().unwrap();
        for expected in ["left", "next"] {
            assert!(
                matches!(sent(&mut outbox), ToRunner::Run { run_id, .. } if run_id == expected)
            );
        }
        let mode = ExecuteMode::Continue;
        runner.execute(Execute { mode, ..query("next", 10_000) }).await.unwrap();
        assert_eq!(sent(&mut outbox), ToRunner::Cancel { run_id: "left".into() });
        let mode = ExecuteMode::Continue;
        let error = runner.execute(Execute { mode, ..query("left", 0) }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
    }
}
