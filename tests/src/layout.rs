//! Where things lie: the repository, the state of a stack, what outlives both, our binaries.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders everything else is found from.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The repository.
    pub root: PathBuf,
    /// State of this clone's stack: `$HALFSTACK_DIR`, or `.halfstack` in the repository.
    pub state: PathBuf,
    /// What costs minutes to make and does not depend on the clone: the client's virtual
    /// environment, kernel images. `$BACKENDAI_CACHE_DIR`, `/var/tmp/backendai` or
    /// `~/.cache/backendai`, whichever is first and writable.
    pub cache: PathBuf,
    /// Where cargo put `backendai-manager` and `backendai-agent`.
    pub bin: PathBuf,
}

impl Layout {
    /// Looks around from the environment and the running program.
    ///
    /// # Errors
    /// No folder for the cache is writable.
    pub fn discover() -> Result<Self> {
        // The compiled-in path is not enough: clones may share one target folder, and the
        // binary in it was built from whichever was last.
        let root = std::env::var_os("HALFSTACK_ROOT").map(PathBuf::from).unwrap_or_else(|| {
            let package = std::env::var_os("CARGO_MANIFEST_DIR")
                .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
            package.parent().unwrap_or(&package).to_owned()
        });
        let state = match std::env::var_os("HALFSTACK_DIR") {
            Some(dir) => std::path::absolute(dir)?,
            None => root.join(".halfstack"),
        };
        let exe = std::env::current_exe().context("the path of this program")?;
        let dir = exe.parent().unwrap_or(Path::new("/"));
        let bin = if dir.ends_with("deps") {
            programs_beside(dir.parent().unwrap_or(dir))
        } else {
            dir.to_owned()
        };
        Ok(Self { root, state, cache: cache_dir()?, bin })
    }

    /// One of our programs.
    ///
    /// # Errors
    /// It has not been built; the message says how.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin.join(name);
        anyhow::ensure!(
            path.exists(),
            "{} is not built: run `cargo build --workspace`",
            path.display()
        );
        Ok(path)
    }

    /// Where a test leaves something for people to look at: `test-artefacts` in cargo's target
    /// folder.
    pub fn artefact(&self, name: &str) -> PathBuf {
        self.bin.parent().unwrap_or(&self.bin).join("test-artefacts").join(name)
    }

    /// A folder for `PATH` in which `backend.ai` is our launcher.
    ///
    /// # Errors
    /// The launcher has not been built, or the folder cannot be written.
    pub fn launcher(&self) -> Result<PathBuf> {
        let program = self.program("backendai")?;
        let dir = self.state.join("bin");
        let link = dir.join("backend.ai");
        if std::fs::read_link(&link).ok().as_ref() != Some(&program) {
            std::fs::create_dir_all(&dir)?;
            match std::fs::remove_file(&link) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
                _ => std::os::unix::fs::symlink(&program, &link)?,
            }
        }
        Ok(dir)
    }

    /// A sample configuration file of the repository.
    pub fn sample(&self, name: &str) -> PathBuf {
        self.root.join("sample-configs").join(name)
    }
}

/// Test binaries lie in `deps`, one below the programs, unless cargo was told to build in
/// another folder than it leaves its programs in.
fn programs_beside(profile_dir: &Path) -> PathBuf {
    match (std::env::var_os("CARGO_TARGET_DIR"), profile_dir.file_name()) {
        (Some(target), Some(profile)) => Path::new(&target).join(profile),
        _ => profile_dir.to_owned(),
    }
}

fn cache_dir() -> Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(std::env::var_os("BACKENDAI_CACHE_DIR").map(PathBuf::from));
    candidates.push("/var/tmp/backendai".into());
    candidates.extend(std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache/backendai")));
    for dir in &candidates {
        if std::fs::create_dir_all(dir).is_ok()
            && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
        {
            return Ok(dir.clone());
        }
    }
    anyhow::bail!("none of {candidates:?} is writable: set BACKENDAI_CACHE_DIR to a folder that is")
}

/// True when every user may pass through a folder and its parents: PostgreSQL runs as
/// another user than root and must reach its data.
pub fn is_reachable_by_all(dir: &Path) -> bool {
    dir.ancestors()
        .filter_map(|part| part.metadata().ok())
        .all(|meta| meta.permissions().mode() & 0o001 != 0)
}
