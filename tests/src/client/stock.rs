//! The stock client as a person runs it: a command line, an environment, an exit code.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{PtyClient, Venv};
use crate::site::Identity;

/// No command of the client takes longer unless something hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// What a command printed.
#[derive(Clone, Debug)]
pub struct ClientOutput {
    /// The command, for messages.
    pub command: String,
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl ClientOutput {
    /// The output of a command that must have succeeded.
    ///
    /// # Panics
    /// Its exit code is not 0; the message holds all it printed.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The output of a command that must have failed.
    ///
    /// # Panics
    /// Its exit code is 0.
    #[track_caller]
    pub fn failure(self) -> Self {
        assert_ne!(self.code, Some(0), "{self}");
        self
    }

    /// Standard output and standard error together.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for ClientOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "`{command}` ended with {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The stock client acting for one identity.
#[derive(Debug)]
pub struct StockClient {
    venv: Venv,
    env: Vec<(String, String)>,
    /// The client keeps settings and cookies in its home.
    home: TempDir,
}

impl StockClient {
    /// A client of the API at `endpoint` (`http://host:port`) acting for `identity`.
    ///
    /// # Errors
    /// Its home folder cannot be made.
    pub fn new(venv: &Venv, endpoint: &str, identity: &Identity) -> Result<Self> {
        let env = environment(endpoint, identity);
        Ok(Self { venv: venv.clone(), env, home: tempfile::tempdir()? })
    }

    /// The same client with one variable set differently.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder commands run in: a place for files to upload.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs `backend.ai` with these arguments.
    ///
    /// # Errors
    /// It cannot be started, or does not end within two minutes.
    pub async fn run(&self, args: &[&str]) -> Result<ClientOutput> {
        self.run_with(args, "", LIMIT).await
    }

    /// Runs `backend.ai` with standard input and a time limit.
    ///
    /// # Errors
    /// It cannot be started, or does not end within `limit`.
    pub async fn run_with(
        &self,
        args: &[&str],
        input: &str,
        limit: Duration,
    ) -> Result<ClientOutput> {
        self.carry_out(&self.venv.program(), args, input, limit).await
    }

    /// Runs a Python program that uses the client's SDK.
    ///
    /// # Errors
    /// It cannot be started, or does not end within two minutes.
    pub async fn python(&self, source: &str) -> Result<ClientOutput> {
        self.carry_out(&self.venv.bin().join("python"), &["-"], source, LIMIT).await
    }

    async fn carry_out(
        &self,
        program: &Path,
        args: &[&str],
        input: &str,
        limit: Duration,
    ) -> Result<ClientOutput> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let command = format!("{name} {}", args.join(" "));
        let mut child = Command::new(program)
            .args(args)
            .envs(self.variables())
            .current_dir(self.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start `{command}`"))?;
        let mut stdin = child.stdin.take().context("the client's standard input")?;
        let feed = async move {
            // A client that does not read its input closes it; that is not our failure.
            let _ = stdin.write_all(input.as_bytes()).await;
        };
        let (_, output) =
            tokio::time::timeout(limit, async { tokio::join!(feed, child.wait_with_output()) })
                .await
                .with_context(|| format!("`{command}` did not end within {limit:?}"))?;
        let output = output?;
        Ok(ClientOutput {
            command,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `backend.ai` on a terminal of its own, for `input()` and Ctrl-C.
    ///
    /// # Errors
    /// No terminal is to be had, or the client cannot be started.
    pub fn pty(&self, args: &[&str]) -> Result<PtyClient> {
        PtyClient::start(&self.venv.program(), args, &self.variables(), self.home())
    }

    fn variables(&self) -> Vec<(String, String)> {
        let home = self.home().display().to_string();
        let mut all: Vec<(String, String)> = ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"]
            .map(|name| (name.to_owned(), home.clone()))
            .to_vec();
        // Only in a wide terminal does the client not cut its tables.
        all.push(("COLUMNS".into(), "250".into()));
        all.extend(self.env.iter().cloned());
        all
    }
}

/// What the client needs to know to act for `identity`.
pub(crate) fn environment(endpoint: &str, identity: &Identity) -> Vec<(String, String)> {
    [
        ("BACKEND_ENDPOINT", endpoint),
        ("BACKEND_ENDPOINT_TYPE", "api"),
        ("BACKEND_ACCESS_KEY", &identity.access_key),
        ("BACKEND_SECRET_KEY", &identity.secret_key),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
