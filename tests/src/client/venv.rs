//! Virtual environments: with the unmodified client from PyPI, and with tools that test the API.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::layout::Layout;
use crate::process::{lock, run};
use crate::progress::Progress;
use crate::servers::remove_dir;

/// What an environment is made of.
struct Recipe {
    /// Begins the names of its files in the cache.
    name: &'static str,
    pins: &'static [&'static str],
    /// Versions of what these depend on, in the form of pip; may be empty.
    constraints: &'static str,
    /// The program it is made for.
    program: &'static str,
}

/// Newer releases of yarl and aiohttp break the client's signing.
const CLIENT: Recipe = Recipe {
    name: "client-venv",
    pins: &["backend.ai-client==23.9.10", "yarl==1.9.4", "aiohttp==3.8.6"],
    constraints: "",
    program: "backend.ai",
};
/// Makes requests up from an OpenAPI document.
const SCHEMATHESIS: Recipe = Recipe {
    name: "schemathesis-venv",
    pins: &["schemathesis==4.32.5"],
    constraints: "",
    program: "schemathesis",
};
/// Serves the web pages.
const WEBSERVER: Recipe = Recipe {
    name: "webserver-venv",
    pins: &["backend.ai-webserver==23.9.10"],
    constraints: include_str!("webserver-constraints.txt"),
    program: "backend.ai",
};
/// The client's metadata allows no other Python.
const PYTHON: &str = "3.11";

/// A virtual environment and the program it is for.
#[derive(Clone, Debug)]
pub struct Venv {
    dir: PathBuf,
    program: &'static str,
}

impl Venv {
    /// Finds that of the stock client, or makes it, which takes about a minute and needs PyPI.
    ///
    /// # Errors
    /// No Python 3.11, or pip fails; the message holds the end of its log.
    pub async fn ensure(layout: &Layout, progress: &Progress) -> Result<Self> {
        Self::make(&CLIENT, layout, progress).await
    }

    /// The same for `schemathesis`.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure).
    pub async fn schemathesis(layout: &Layout, progress: &Progress) -> Result<Self> {
        Self::make(&SCHEMATHESIS, layout, progress).await
    }

    /// The same for the stock web server.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure).
    pub async fn webserver(layout: &Layout, progress: &Progress) -> Result<Self> {
        Self::make(&WEBSERVER, layout, progress).await
    }

    async fn make(recipe: &Recipe, layout: &Layout, progress: &Progress) -> Result<Self> {
        let Recipe { name, pins, constraints, .. } = recipe;
        let ingredients = format!("{}{constraints}", pins.join("\n"));
        let key = hex::encode(&Sha256::digest(&ingredients)[..4]);
        let dir = layout.cache.join(format!("{name}-{key}"));
        let complete = dir.join("complete");
        let found = Self { dir: dir.clone(), program: recipe.program };
        if complete.exists() {
            return Ok(found);
        }
        let mut step = progress.step(pins[0]);
        let _lock = lock(&dir.with_extension("lock")).await?;
        if complete.exists() {
            step.done("made meanwhile");
            return Ok(found);
        }
        let python = find_python().await?;
        remove_dir(&dir)?;
        let log = layout.cache.join(format!("{name}-{key}.log"));
        step.note("python -m venv");
        step.run(Command::new(&python).args(["-m", "venv"]).arg(&dir), &log)
            .await
            .context("make a virtual environment (Debian: apt install python3-venv)")?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(*pins);
        if !constraints.is_empty() {
            let file = dir.join("constraints.txt");
            std::fs::write(&file, constraints)?;
            pip.arg("-c").arg(file);
        }
        step.run(&mut pip, &log).await.with_context(|| format!("install {}", pins[0]))?;
        run(Command::new(found.program()).arg("--help")).await?;
        std::fs::write(&complete, ingredients)?;
        step.done("made");
        Ok(found)
    }

    /// The folder for `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The program.
    pub fn program(&self) -> PathBuf {
        self.bin().join(self.program)
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
