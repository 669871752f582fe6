//! Folders of users in containers: only what lies beneath the one directory that this host
//! has for them.

use std::path::{Component, Path, PathBuf};

use backendai_rpc::agent_api::MountSpec;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::backend::ContainerMount;

/// A folder that cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("mount the folder {name}: {why}")]
pub struct MountError {
    name: String,
    why: String,
}

/// The mounts that the container engine is told of: each a directory beneath `root`, reached
/// without any link.
///
/// # Errors
/// One is something else, or this host has no directory for folders.
pub fn resolve(
    root: Option<&Path>,
    mounts: &[MountSpec],
) -> Result<Vec<ContainerMount>, MountError> {
    mounts
        .iter()
        .map(|mount| {
            let failed = |why: String| MountError { name: mount.name.clone(), why };
            let root = root.ok_or_else(|| {
                failed("set agent.mount-path or volumes/_mount to the directory of folders".into())
            })?;
            let source = directory(root, &mount.host_path).map_err(failed)?;
            let (target, read_only) = (mount.kernel_path.clone(), mount.read_only);
            Ok(ContainerMount { source, target, read_only })
        })
        .collect()
}

fn directory(root: &Path, path: &str) -> Result<PathBuf, String> {
    let path = Path::new(path);
    let inner = match path.is_absolute() {
        true => path.strip_prefix(root).map_err(|_| format!("not beneath {}", root.display()))?,
        false => path,
    };
    let is_plain = inner.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || inner.as_os_str().is_empty() {
        return Err(format!("not beneath {}", root.display()));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(&folder, inner, flags, Mode::empty(), resolve)
        .map_err(|error| format!("{}: {error}", inner.display()))?;
    Ok(root.join(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_beneath_the_root_are_mounted() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("local/folders/1");
        std::fs::create_dir_all(inner.join("sub")).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", inner.join("out")).unwrap();
        std::os::unix::fs::symlink("sub", inner.join("link")).unwrap();
        let at = |path: &str| directory(root.path(), path);
        assert_eq!(at("local/folders/1/sub"), Ok(inner.join("sub")));
        assert_eq!(at(inner.to_str().unwrap()), Ok(inner.clone()));
        for bad in [
            "",
            "/etc",
            "../etc",
            "local/../../etc",
            "local/folders/1/out",
            "local/folders/1/link",
            "local/folders/1/file",
            "local/folders/2",
            root.path().to_str().unwrap(),
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
