//! The stock client on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use tokio::process::{Child, Command};

use crate::wait::wait_until;

/// How long a person waits before pressing Ctrl-C once more.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client that runs on a terminal. It is killed when dropped.
#[derive(Debug)]
pub struct PtyClient {
    command: String,
    terminal: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl PtyClient {
    pub(super) fn start(
        program: &Path,
        args: &[&str],
        env: &[(String, String)],
        dir: &Path,
    ) -> Result<Self> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
        let size = rustix::termios::Winsize { ws_row: 50, ws_col: 250, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size)?;
        let slave = File::from(slave);
        // `setsid --ctty` makes the terminal the client's own, so that Ctrl-C reaches it, and
        // then replaces itself by it.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program)
            .args(args)
            .envs(env.iter().cloned())
            .env("TERM", "dumb")
            .current_dir(dir)
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .kill_on_drop(true)
            .spawn()
            .context("start the client on a terminal")?;
        let terminal = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (terminal.try_clone()?, Arc::clone(&seen));
        // Ends with an error of the terminal once the client has gone.
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..n]);
            }
        });
        Ok(Self { command: format!("backend.ai {}", args.join(" ")), terminal, child, seen })
    }

    /// All that the terminal showed so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
            .into_owned()
    }

    /// Waits until the terminal has shown `text`.
    ///
    /// # Errors
    /// It has not within `limit`; the message holds what it showed instead.
    pub async fn expect(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("`{}` to show {text:?}", self.command);
        let shown = wait_until(limit, &what, async || Ok(self.screen().contains(text))).await;
        shown.with_context(|| format!("the terminal shows:\n{}", self.screen()))
    }

    /// Types a line.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn type_line(&mut self, text: &str) -> Result<()> {
        Ok(self.terminal.write_all(format!("{text}\n").as_bytes())?)
    }

    /// Presses Ctrl-C.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn interrupt(&mut self) -> Result<()> {
        Ok(self.terminal.write_all(b"\x03")?)
    }

    /// Waits for the end of a client whose work is done, and presses Ctrl-C if it does not
    /// come: the one that copies files may miss the end of its own local proxy.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn end(mut self, limit: Duration) -> Result<()> {
        if self.wait(PATIENCE).await.is_ok() {
            return Ok(());
        }
        self.stop(limit).await
    }

    /// Presses Ctrl-C until the client ends: it may miss one while it handles another's end.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn stop(mut self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.interrupt()?;
            let ended = self.wait(PATIENCE).await;
            if ended.is_ok() || begun.elapsed() > limit {
                return ended.map(drop);
            }
        }
    }

    /// Waits for the client's end and returns its exit code; `None` after a signal.
    ///
    /// # Errors
    /// It still runs after `limit`; the message holds what the terminal showed.
    pub async fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let status =
            tokio::time::timeout(limit, self.child.wait()).await.with_context(|| {
                format!("`{}` did not end within {limit:?}:\n{}", self.command, self.screen())
            })??;
        Ok(status.code())
    }
}
