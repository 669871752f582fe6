//! File systems mounted directly below the cluster's mount prefix, and nowhere else.

pub mod fstab;

use std::path::{Component, Path, PathBuf};
use std::process::Output;

use tokio::process::Command;

/// The prefix where etcd has no `volumes/_mount`.
pub const DEFAULT_PREFIX: &str = "/mnt";
/// Options that would put the host's own folders below the prefix, or change other mounts.
const FORBIDDEN_OPTIONS: [&str; 5] = ["bind", "rbind", "move", "remount", "loop"];

/// A file system to mount.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct MountRequest {
    /// Its folder's name below the prefix.
    pub name: String,
    /// `nfs`, `ceph`, `xfs`, …
    pub fs_type: String,
    /// The device or server path.
    pub fs_location: String,
    /// As of `mount -o`.
    #[serde(default)]
    pub options: Option<String>,
}

/// A mount could not be made, ended or read.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The request leaves what is allowed.
    #[error("{0}")]
    Invalid(String),
    /// A file or folder could not be handled.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// `mount` or `umount` failed; its own words.
    #[error("{0}")]
    Program(String),
}

impl MountError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn invalid<T>(text: impl Into<String>) -> Result<T, MountError> {
    Err(MountError::Invalid(text.into()))
}

/// The folder below which everything happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(PathBuf);

impl Prefix {
    /// Takes an absolute path without `..` that is not the root.
    ///
    /// # Errors
    /// Another path.
    pub fn new(path: &str) -> Result<Self, MountError> {
        let path = Path::new(path);
        let is_plain = path.is_absolute()
            && path.components().count() > 1
            && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if !is_plain {
            return invalid(format!(
                "the mount prefix {} (volumes/_mount in etcd) must be an absolute path below /",
                path.display()
            ));
        }
        Ok(Self(path.components().collect()))
    }

    /// The folder of a mount. Its name is one plain component, so that it cannot lead elsewhere.
    ///
    /// # Errors
    /// The name is empty, hidden, an option, or more than one component.
    pub fn folder(&self, name: &str) -> Result<PathBuf, MountError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(is_plain) {
            return invalid(format!(
                "the mount name {name:?} must be letters, digits, '.', '_' and '-', and not begin \
                 with '.' or '-': it names a folder directly below {}",
                self.0.display()
            ));
        }
        Ok(self.0.join(name))
    }

    /// What is mounted directly below, in order.
    ///
    /// # Errors
    /// The kernel's list cannot be read.
    pub fn mounted(&self) -> Result<Vec<PathBuf>, MountError> {
        let list = Path::new("/proc/self/mountinfo");
        let text = std::fs::read_to_string(list).map_err(MountError::io("read", list))?;
        let mut points: Vec<PathBuf> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(|point| PathBuf::from(fstab::unescape(point)))
            .filter(|point| point.parent() == Some(&self.0))
            .collect();
        points.sort();
        points.dedup();
        Ok(points)
    }

    /// Mounts a file system and returns what `mount` printed.
    ///
    /// # Errors
    /// The request is not allowed, or `mount` fails.
    pub async fn mount(&self, request: &MountRequest) -> Result<String, MountError> {
        let folder = self.check(request)?;
        if self.mounted()?.contains(&folder) {
            return invalid(format!("{} is mounted already", folder.display()));
        }
        std::fs::create_dir_all(&self.0).map_err(MountError::io("make", &self.0))?;
        match std::fs::create_dir(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(&folder)
                    .map_err(MountError::io("look at", &folder))?;
                if !found.is_dir() {
                    return invalid(format!("{} is there and not a folder", folder.display()));
                }
            }
            Err(error) => return Err(MountError::io("make", &folder)(error)),
        }
        let mut command = Command::new("mount");
        command.args(["-t", &request.fs_type]);
        if let Some(options) = request.options.as_deref().filter(|options| !options.is_empty()) {
            command.args(["-o", options]);
        }
        let result = run(command.arg("--").arg(&request.fs_location).arg(&folder)).await;
        if result.is_err() {
            remove_if_empty(&folder);
        }
        result
    }

    /// Ends a mount, removes its folder if that is empty, and returns what `umount` printed.
    ///
    /// # Errors
    /// The name is not allowed, nothing is mounted, or `umount` fails.
    pub async fn unmount(&self, name: &str) -> Result<String, MountError> {
        let folder = self.folder(name)?;
        if !self.mounted()?.contains(&folder) {
            return invalid(format!("nothing is mounted at {}", folder.display()));
        }
        let printed = run(Command::new("umount").arg("--").arg(&folder)).await?;
        remove_if_empty(&folder);
        Ok(printed)
    }

    /// Checks everything of a request that reaches a command line or the mount table, and
    /// returns its folder.
    ///
    /// # Errors
    /// Something is not allowed.
    pub fn check(&self, request: &MountRequest) -> Result<PathBuf, MountError> {
        let folder = self.folder(&request.name)?;
        let is_type = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !request.fs_type.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !request.fs_type.chars().all(is_type)
        {
            return invalid(format!("fs_type {:?} is not a file system type", request.fs_type));
        }
        let location = &request.fs_location;
        if location.is_empty() || location.starts_with('-') || location.contains(char::is_control) {
            return invalid(format!("fs_location {location:?} is not a device or server path"));
        }
        let options = request.options.as_deref().unwrap_or_default();
        if options.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return invalid("options must be separated by commas, without blanks");
        }
        for option in options.split(',') {
            let name = option.split('=').next().unwrap_or_default();
            if FORBIDDEN_OPTIONS.contains(&name) || name.starts_with("x-") || name == "helper" {
                return invalid(format!("the mount option {name:?} is not allowed here"));
            }
        }
        Ok(folder)
    }
}

fn remove_if_empty(folder: &Path) {
    if let Err(error) = std::fs::remove_dir(folder) {
        // Files that the mount had hidden stay.
        tracing::debug!(%error, folder = %folder.display(), "the folder is kept");
    }
}

async fn run(command: &mut Command) -> Result<String, MountError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| MountError::Program(format!("{program} cannot be run: {error}")))?;
    if !status.success() || !stderr.is_empty() {
        let words = String::from_utf8_lossy(&stderr).trim().to_owned();
        let words = if words.is_empty() { format!("{program} failed ({status})") } else { words };
        return Err(MountError::Program(words));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, location: &str, options: &str) -> MountRequest {
        MountRequest {
            name: name.into(),
            fs_type: "nfs4".into(),
            fs_location: location.into(),
            options: Some(options.into()),
        }
    }

    #[test]
    fn nothing_leads_out_of_the_prefix() {
        let prefix = Prefix::new("/mnt/").unwrap();
        assert_eq!(prefix.folder("data-1.x").unwrap(), Path::new("/mnt/data-1.x"));
        for name in ["", ".", "..", "../etc", "a/b", "/etc", "-x", ".hidden", "a b", "a\nb"] {
            assert!(prefix.folder(name).is_err(), "{name:?}");
        }
        for path in ["", "/", "mnt", "/mnt/../etc", "./mnt"] {
            assert!(Prefix::new(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn requests_that_would_become_options_or_binds_are_refused() {
        let prefix = Prefix::new("/mnt").unwrap();
        assert!(prefix.check(&request("a", "server:/x", "ro,vers=4.2")).is_ok());
        assert!(prefix.check(&request("a", "-oexec", "ro")).is_err());
        assert!(prefix.check(&request("a", "/", "ro,bind")).is_err());
        assert!(prefix.check(&request("a", "server:/x", "ro rw")).is_err());
        assert!(prefix.check(&request("a", "server:/x\n/ / ext4", "")).is_err());
    }
}
