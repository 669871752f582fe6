//! Our daemons as programs: configuration, start, health, and every way to end them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::deployment::AgentPlan;
use crate::layout::Layout;
use crate::process::{Background, Launch, Lifetime, ProcessId, run, tail};
use crate::servers::write_private;
use crate::wait::wait_for;

/// A debug build on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Daemons promise to end within ten seconds; one that does not is a failure worth seeing.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// A program of ours with a pid file.
#[derive(Debug)]
pub struct Daemon {
    launch: Launch,
    pid_file: PathBuf,
    lifetime: Lifetime,
    background: Option<Background>,
}

impl Daemon {
    pub(crate) fn open(launch: Launch, pid_file: PathBuf, lifetime: Lifetime) -> Result<Self> {
        let recorded: Option<ProcessId> = match std::fs::read(&pid_file) {
            Ok(text) => Some(
                serde_json::from_slice(&text)
                    .with_context(|| format!("read {}", pid_file.display()))?,
            ),
            Err(_) => None,
        };
        let background = recorded
            .filter(ProcessId::is_alive)
            .map(|id| Background::adopt(&launch.name, &launch.log, id));
        Ok(Self { launch, pid_file, lifetime, background })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// True when it runs a program that has since been built anew.
    pub fn is_outdated(&mut self) -> bool {
        self.pid().is_some_and(|pid| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.to_string_lossy().ends_with(" (deleted)"))
        })
    }

    /// Adds an environment variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.env.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it unless it runs. Returns false if it ran.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<bool> {
        if self.is_alive() {
            return Ok(false);
        }
        let background = self.launch.start(self.lifetime)?;
        if let Some(id) = background.id() {
            write_private(&self.pid_file, &serde_json::to_vec(id)?)?;
        }
        self.background = Some(background);
        Ok(true)
    }

    /// True while it runs.
    pub fn is_alive(&mut self) -> bool {
        self.background.as_mut().is_some_and(Background::is_alive)
    }

    /// Its process id while it runs.
    pub fn pid(&mut self) -> Option<i32> {
        if !self.is_alive() {
            return None;
        }
        self.background.as_ref()?.id().map(|id| id.pid)
    }

    /// # Errors
    /// It does not run; the message holds the end of its log.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match &mut self.background {
            Some(background) => background.ensure_alive(),
            None => anyhow::bail!("{} does not run", self.launch.name),
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It survives.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut background) = self.background.take() {
            background.signal(Signal::KILL)?;
            background.wait(STOP_GRACE).await?;
        }
        Ok(())
    }

    /// Sends a signal and nothing more.
    ///
    /// # Errors
    /// Not permitted.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.background.as_mut().map_or(Ok(()), |background| background.signal(signal))
    }

    /// Asks it to end (SIGTERM) and returns its exit code; `None` if it did not run, had to be
    /// killed, or was not our child.
    ///
    /// # Errors
    /// Not even a kill ends it.
    pub async fn terminate(&mut self) -> Result<Option<i32>> {
        let Some(mut background) = self.background.take() else { return Ok(None) };
        let code = background.stop(Signal::TERM, STOP_GRACE).await?;
        if self.pid_file.exists() {
            std::fs::remove_file(&self.pid_file)?;
        }
        Ok(code)
    }

    /// Waits for it to end by itself and returns its exit code.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        match &mut self.background {
            Some(background) => background.wait(limit).await,
            None => Ok(None),
        }
    }

    /// Its log file, of all its starts.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    /// All it has logged.
    pub fn log_text(&self) -> String {
        tail(self.log(), usize::MAX)
    }

    /// Kills it without waiting for a runtime.
    pub(crate) fn kill_now(&mut self) {
        if let Some(background) = &mut self.background {
            background.kill_now();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Caller {
            self.kill_now();
        }
    }
}

/// The manager.
#[derive(Debug)]
pub struct ManagerProcess {
    /// The program.
    pub process: Daemon,
    pub(crate) endpoint: String,
}

impl ManagerProcess {
    /// Starts it unless it runs, and waits until it answers. Returns false if it ran.
    ///
    /// # Errors
    /// It ends, or does not answer in time; the message holds the end of its log.
    pub async fn start(&mut self) -> Result<bool> {
        let started = self.process.start()?;
        self.wait_healthy(START_LIMIT).await?;
        Ok(started)
    }

    /// Waits until `GET /` is answered.
    ///
    /// # Errors
    /// It ends, or does not answer within `limit`; the message holds the end of its log.
    pub async fn wait_healthy(&mut self, limit: Duration) -> Result<()> {
        let url = format!("{}/", self.endpoint);
        let http = crate::http();
        let answered = wait_for(limit, "the manager to answer", async || {
            if let Err(error) = self.process.ensure_alive() {
                return Ok(Some(Err(error)));
            }
            http.get(&url).send().await?.error_for_status()?;
            Ok(Some(Ok(())))
        })
        .await;
        match answered {
            Ok(result) => result,
            Err(error) => Err(error.context(tail(self.process.log(), 20))),
        }
    }

    /// Where its API answers.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// An agent.
#[derive(Debug)]
pub struct AgentProcess {
    /// The program.
    pub process: Daemon,
    pub(crate) plan: AgentPlan,
    /// URL of the database in which the manager notes its heartbeats.
    pub(crate) database: String,
}

impl AgentProcess {
    /// Starts it unless it runs, and waits until the manager knows it. Returns false if it ran.
    ///
    /// # Errors
    /// It ends, or the manager does not hear of it in time; the message holds the end of its log.
    pub async fn start(&mut self) -> Result<bool> {
        let before = self.incarnation().await.unwrap_or(None);
        let started = self.process.start()?;
        let known = wait_for(START_LIMIT, "the agent to be alive", async || {
            if let Err(error) = self.process.ensure_alive() {
                return Ok(Some(Err(error)));
            }
            let now = self.incarnation().await?;
            Ok((now.is_some() && (!started || now != before)).then_some(Ok(())))
        })
        .await;
        match known {
            Ok(result) => result.map(|()| started),
            Err(error) => Err(error.context(tail(self.process.log(), 20))),
        }
    }

    /// The start of the agent that the manager last heard of; `None` if it is not ALIVE.
    async fn incarnation(&self) -> Result<Option<i64>> {
        let database = crate::servers::connect(&self.database).await?;
        let query = "SELECT incarnation FROM agents WHERE id = $1 AND status = 'ALIVE'";
        let row = database.query_opt(query, &[&self.plan.id]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.plan.id
    }
}

/// The path of the static kernel runner: `$HALFSTACK_KERNEL_RUNNER`, or built now, which is
/// quick when it is there.
///
/// # Errors
/// It cannot be built.
pub async fn kernel_runner(layout: &Layout) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HALFSTACK_KERNEL_RUNNER") {
        return Ok(path.into());
    }
    let script = layout.root.join("kernel-runner/build.sh");
    let target = layout.bin.parent().unwrap_or(&layout.bin);
    let printed = run(tokio::process::Command::new(script).env("CARGO_TARGET_DIR", target)).await?;
    Ok(printed.trim().into())
}
