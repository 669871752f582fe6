//! The environment of everything that is started in the container.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::setup::VARIABLE_PREFIX;

/// Where programs are if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Folders put in front of `PATH`, each before those above it, if they exist.
const PROMOTED: [&str; 3] =
    ["/usr/local/cuda/bin", "/usr/local/nvidia/bin", "/home/linuxbrew/.linuxbrew/bin"];

/// Shells to name in `SHELL`, best first.
const SHELLS: [&str; 3] = ["/bin/ash", "/bin/bash", "/bin/sh"];

/// Variables with their values.
#[derive(Clone, Debug, Default)]
pub struct Environ(BTreeMap<OsString, OsString>);

impl Environ {
    /// The image's variables (`image`: the runner's own environment), the defaults, and
    /// then what the agent configured, which wins. `work` is the home.
    pub fn new(
        image: impl IntoIterator<Item = (OsString, OsString)>,
        configured: &BTreeMap<String, String>,
        work: &Path,
    ) -> Self {
        let mut environ = Self(image.into_iter().collect());
        environ.0.retain(|name, _| !name.as_bytes().starts_with(VARIABLE_PREFIX.as_bytes()));
        // The engine sets HOME for root, so these replace what is there.
        environ.set("LANG", "C.UTF-8");
        environ.set("HOME", work);
        environ.set("TERM", "xterm");
        for (name, value) in configured {
            environ.set(name, value);
        }
        environ.set_default("PATH", DEFAULT_PATH);
        let shell = SHELLS.iter().find(|shell| Path::new(shell).exists());
        environ.set_default("SHELL", shell.copied().unwrap_or("/bin/sh"));
        for folder in PROMOTED.iter().filter(|folder| Path::new(folder).is_dir()) {
            environ.promote(Path::new(folder));
        }
        environ.promote(&work.join(".local/bin"));
        environ
    }

    /// This process's own, in one that the runner started with an [`Environ`].
    pub fn inherited() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Sets a variable. One that the kernel would refuse is left out.
    pub fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let valid = !name.is_empty()
            && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0))
            && !value.as_bytes().contains(&0);
        if valid {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Sets a variable that has no value yet.
    pub fn set_default(&mut self, name: &str, value: &str) {
        if self.get(name).is_none_or(OsStr::is_empty) {
            self.set(name, value);
        }
    }

    /// Puts a folder in front of `PATH`, unless it is in it.
    pub fn promote(&mut self, folder: &Path) {
        let path = self.get("PATH").unwrap_or_default().to_owned();
        if std::env::split_paths(&path).any(|known| known == folder) {
            return;
        }
        let mut promoted = folder.as_os_str().to_owned();
        if !path.is_empty() {
            promoted.push(":");
            promoted.push(path);
        }
        self.set("PATH", promoted);
    }

    /// The file a command names: itself if it has a slash, else the first of that name in
    /// `PATH`.
    ///
    /// # Errors
    /// Says whether there is no such file, or one that cannot be executed.
    pub fn find_program(&self, name: &str, cwd: &Path) -> Result<PathBuf, ProgramError> {
        if name.contains('/') {
            let path = cwd.join(name);
            return match executable(&path) {
                Some(true) => Ok(path),
                Some(false) => Err(ProgramError::NotExecutable(name.into())),
                None => Err(ProgramError::NotFound(name.into())),
            };
        }
        let mut found = None;
        for folder in std::env::split_paths(self.get("PATH").unwrap_or_default()) {
            let path = cwd.join(folder).join(name);
            match executable(&path) {
                Some(true) => return Ok(path),
                Some(false) => found = Some(name),
                None => {}
            }
        }
        match found {
            Some(name) if !name.is_empty() => Err(ProgramError::NotExecutable(name.into())),
            _ => Err(ProgramError::NotFound(name.into())),
        }
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}

/// True for a file that somebody may execute.
pub fn is_executable(path: &Path) -> bool {
    executable(path) == Some(true)
}

/// `None` if there is no such file, else whether somebody may execute it.
fn executable(path: &Path) -> Option<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A command that names no program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No such file.
    #[error("{0}: not found")]
    NotFound(String),
    /// A file, but no program.
    #[error("{0}: not executable")]
    NotExecutable(String),
}

impl ProgramError {
    /// What a shell would exit with.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotExecutable(_) => 126,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environ(image: &[(&str, &str)], configured: &[(&str, &str)]) -> Environ {
        let configured = configured.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let image = image.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
        Environ::new(image, &configured, Path::new("/home/work"))
    }

    #[test]
    fn configured_values_win_over_defaults_and_those_over_the_image() {
        let made = environ(
            &[("HOME", "/root"), ("LANG", "ko"), ("KEPT", "1"), ("BACKENDAI_RUNNER_WORK", "/x")],
            &[("TERM", "vt100"), ("bad=name", "x"), ("", "y")],
        );
        assert_eq!(made.get("HOME").unwrap(), "/home/work");
        assert_eq!(made.get("LANG").unwrap(), "C.UTF-8");
        assert_eq!(made.get("TERM").unwrap(), "vt100");
        assert_eq!(made.get("KEPT").unwrap(), "1");
        assert!(made.get("SHELL").is_some());
        assert!(made.iter().all(|(n, _)| n != "BACKENDAI_RUNNER_WORK" && n != "bad=name"));
    }

    #[test]
    fn the_users_own_programs_come_first_once() {
        let made = environ(&[("PATH", "/usr/bin")], &[]);
        let path = made.get("PATH").unwrap().to_str().unwrap().to_owned();
        assert!(path.starts_with("/home/work/.local/bin:") && path.ends_with("/usr/bin"), "{path}");
        let mut again = made.clone();
        again.promote(Path::new("/home/work/.local/bin"));
        assert_eq!(again.get("PATH"), made.get("PATH"));
    }

    #[test]
    fn a_missing_program_is_told_from_one_that_may_not_run() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), "x").unwrap();
        let mut made = environ(&[], &[]);
        made.set("PATH", folder.path());
        let find = |name: &str| made.find_program(name, folder.path()).unwrap_err();
        assert_eq!(find("nothing"), ProgramError::NotFound("nothing".into()));
        assert_eq!(find("data").exit_code(), 126);
        assert_eq!(find("./data").exit_code(), 126);
        assert_eq!(find("./nothing").exit_code(), 127);
    }
}
