//! Starting programs in the background and stopping exactly those, never a stranger that got
//! the same process id.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::wait::{POLL, wait_until};

/// A process as it can be recognised later: ids are reused, start times within one boot are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    started: u64,
    /// The boot it belongs to.
    boot: String,
}

impl ProcessId {
    /// The identity of a running process; `None` if there is none or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may contain anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        // Field 22 of proc(5); the state, just taken, is field 3.
        let started = fields.nth(18)?.parse().ok()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { pid, started, boot: boot.trim().to_owned() })
    }

    /// True while this very process runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends a signal if the process still runs; nothing otherwise.
    ///
    /// # Errors
    /// It belongs to somebody else.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("process id 0")?;
        match rustix::process::kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signal process {}", self.pid)),
        }
    }
}

/// How long a started program lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody stops it: it survives the program that started it.
    Detached,
    /// No longer than the thread that started it, even if that is killed.
    Caller,
}

/// A program to be run in the background.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Name for messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables on top of the inherited environment.
    pub env: Vec<(String, String)>,
    /// Account to run as, if another than ours.
    pub user: Option<String>,
    /// File that its output is appended to.
    pub log: PathBuf,
}

impl Launch {
    /// A program with its arguments, logging to `log`.
    pub fn new(name: &str, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            log: log.into(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it. The helpers of util-linux replace themselves by the program, so the
    /// process id is the program's.
    ///
    /// # Errors
    /// It cannot be started, or ended at once.
    pub fn start(&self, lifetime: Lifetime) -> Result<Background> {
        let mut words: Vec<OsString> = Vec::new();
        let mut setpriv: Vec<OsString> = Vec::new();
        if let Some(user) = &self.user {
            setpriv.extend([
                format!("--reuid={user}").into(),
                format!("--regid={user}").into(),
                "--init-groups".into(),
            ]);
        }
        match lifetime {
            Lifetime::Detached => words.push("setsid".into()),
            Lifetime::Caller => setpriv.extend(["--pdeathsig".into(), "KILL".into()]),
        }
        if !setpriv.is_empty() {
            words.push("setpriv".into());
            words.append(&mut setpriv);
        }
        words.push(self.program.clone().into());
        words.extend(self.args.iter().cloned());

        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env.iter().cloned()).current_dir("/");
        command.stdin(Stdio::null());
        let log = open_log(&self.log)?;
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("start {} ({})", self.name, self.program.display()))?;
        let pid = i32::try_from(child.id()).context("process id")?;
        let id = ProcessId::of(pid);
        let mut background =
            Background { name: self.name.clone(), log: self.log.clone(), id, child: Some(child) };
        if background.id.is_none() {
            background.ensure_alive()?;
        }
        Ok(background)
    }
}

/// A program in the background: started here, or found again by its recorded identity.
#[derive(Debug)]
pub struct Background {
    name: String,
    log: PathBuf,
    id: Option<ProcessId>,
    child: Option<Child>,
}

impl Background {
    /// A program that an earlier run started.
    pub fn adopt(name: &str, log: &Path, id: ProcessId) -> Self {
        Self { name: name.to_owned(), log: log.to_owned(), id: Some(id), child: None }
    }

    /// Its identity; `None` once it ended before that could be read.
    pub fn id(&self) -> Option<&ProcessId> {
        self.id.as_ref()
    }

    /// True while it runs. Reaps it when it ended.
    pub fn is_alive(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        self.id.as_ref().is_some_and(ProcessId::is_alive)
    }

    /// # Errors
    /// It has ended; the message holds the end of its log.
    pub fn ensure_alive(&mut self) -> Result<()> {
        if self.is_alive() {
            return Ok(());
        }
        let status = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
        anyhow::bail!(
            "{} ended{}; the end of {}:\n{}",
            self.name,
            status.map(|s| format!(" ({s})")).unwrap_or_default(),
            self.log.display(),
            tail(&self.log, 20)
        )
    }

    /// Sends a signal; nothing if it ended.
    ///
    /// # Errors
    /// Not permitted.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        self.id.as_ref().map_or(Ok(()), |id| id.signal(signal))
    }

    /// Waits for its end and returns the exit code; `None` after a signal, or if it is not
    /// our child.
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let name = self.name.clone();
        wait_until(limit, &format!("{name} to end"), async || Ok(!self.is_alive())).await?;
        let status = self.child.as_mut().and_then(|c| c.try_wait().ok().flatten());
        Ok(status.and_then(|s| s.code()))
    }

    /// Asks it to end by `signal` and kills it when it does not within `grace`.
    ///
    /// # Errors
    /// Not permitted, or not even a kill ends it.
    pub async fn stop(&mut self, signal: Signal, grace: Duration) -> Result<Option<i32>> {
        self.signal(signal)?;
        // A stopped process takes signals only once it goes on.
        self.signal(Signal::CONT)?;
        if let Ok(code) = self.wait(grace).await {
            return Ok(code);
        }
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10)).await
    }

    /// Kills it now, without waiting for a runtime: for `Drop`.
    pub fn kill_now(&mut self) {
        if self.signal(Signal::KILL).is_ok()
            && let Some(child) = &mut self.child
            && let Err(error) = child.wait()
        {
            eprintln!("{}: {error}", self.name);
        }
    }
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// The last lines of a log; empty if it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    let text = text.unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or fails: the message holds its standard error.
pub async fn run(command: &mut tokio::process::Command) -> Result<String> {
    let words = format!("{:?}", command.as_std());
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("start {words}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{words} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program lies, looked up in `PATH` and then in `extra` folders.
pub fn find_program(names: &[&str], extra: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra.iter().cloned())
        .chain(sbin)
        .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
        .find(|candidate| candidate.is_file())
}

/// True when this program runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Takes an exclusive lock on a file, waiting for whoever holds it. The lock ends with the
/// returned handle.
///
/// # Errors
/// The file cannot be made or locked.
pub async fn lock(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_another_start_is_a_stranger() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessId::of(pid).unwrap();
        assert!(me.is_alive());
        let stranger = ProcessId { started: me.started + 1, ..me };
        assert!(!stranger.is_alive());
        // Would end this test if it were sent.
        stranger.signal(Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_program_is_stopped_and_its_exit_code_known() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let launch = Launch::new("shell", "/bin/sh", &log).args(["-c", script]);
        let mut shell = launch.start(Lifetime::Caller).unwrap();
        let limit = Duration::from_secs(20);
        wait_until(limit, "the trap", async || Ok(tail(&log, 1) == "ready")).await.unwrap();
        assert!(shell.is_alive());
        assert_eq!(shell.stop(Signal::TERM, limit).await.unwrap(), Some(7));
        assert!(shell.ensure_alive().is_err());
    }
}
