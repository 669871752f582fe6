//! The virtual environment with the unmodified client from PyPI.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::layout::Layout;
use crate::process::{lock, run};
use crate::progress::Progress;
use crate::servers::remove_dir;

/// Newer releases of yarl and aiohttp break the client's signing.
const PINS: [&str; 3] = ["backend.ai-client==23.9.10", "yarl==1.9.4", "aiohttp==3.8.6"];
/// The client's metadata allows no other Python.
const PYTHON: &str = "3.11";

/// A virtual environment that has `backend.ai`.
#[derive(Clone, Debug)]
pub struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// Finds it, or makes it, which takes about a minute and needs PyPI.
    ///
    /// # Errors
    /// No Python 3.11, or pip fails; the message holds the end of its log.
    pub async fn ensure(layout: &Layout, progress: &Progress) -> Result<Self> {
        let key = hex::encode(&Sha256::digest(PINS.join("\n"))[..4]);
        let dir = layout.cache.join(format!("client-venv-{key}"));
        let complete = dir.join("complete");
        let found = Self { dir: dir.clone() };
        if complete.exists() {
            return Ok(found);
        }
        let mut step = progress.step("stock client");
        let _lock = lock(&dir.with_extension("lock")).await?;
        if complete.exists() {
            step.done("made meanwhile");
            return Ok(found);
        }
        let python = find_python().await?;
        remove_dir(&dir)?;
        let log = layout.cache.join(format!("client-venv-{key}.log"));
        step.note("python -m venv");
        step.run(Command::new(&python).args(["-m", "venv"]).arg(&dir), &log)
            .await
            .context("make a virtual environment (Debian: apt install python3-venv)")?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(PINS);
        step.run(&mut pip, &log).await.context("install the stock client")?;
        run(Command::new(dir.join("bin/backend.ai")).arg("--help")).await?;
        std::fs::write(&complete, PINS.join("\n"))?;
        step.done(PINS[0]);
        Ok(found)
    }

    /// The folder for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The client program.
    pub fn program(&self) -> PathBuf {
        self.bin().join("backend.ai")
    }
}

async fn find_python() -> Result<PathBuf> {
    let mut seen = Vec::new();
    for name in ["python3.11", "/usr/bin/python3", "python3"] {
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        match run(Command::new(name).args(["-c", script])).await {
            Ok(version) if version.trim() == PYTHON => return Ok(Path::new(name).to_owned()),
            Ok(version) => seen.push(format!("{name} is {}", version.trim())),
            Err(_) => seen.push(format!("no {name}")),
        }
    }
    anyhow::bail!(
        "the stock client needs Python {PYTHON} ({}): install python{PYTHON} and its venv module",
        seen.join(", ")
    )
}
