//! Folders of users in containers: only what lies beneath the one directory that this host
//! has for them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use backendai_rpc::agent_api::MountSpec;
use backendai_types::KernelId;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::backend::ContainerMount;
use crate::scratch::volume::run;

/// A folder that cannot be mounted.
#[derive(Debug, thiserror::Error)]
#[error("mount the folder {name}: {why}")]
pub struct MountError {
    name: String,
    why: String,
}

/// Ends the name of a place in the scratch root where a folder is mounted for the engine.
const PLACE: &str = ".folder";
/// The mount point in such a place.
const POINT: &str = "folder";

/// Folders as the container engine is told of them.
///
/// Users write where folders lie and may put a link in a directory's place at any moment, so
/// that a path that was good when it was looked at is worth nothing when the engine mounts it.
/// The directories that were looked at are mounted in the scratch root, where only this
/// process writes, and the engine is told of that. Once the container runs, with mounts of its
/// own, these are taken down again. Only root mounts: without it the engine gets the paths.
#[derive(Default)]
pub struct Folders {
    /// The mounts; good while this value lives.
    pub mounts: Vec<ContainerMount>,
    places: Vec<PathBuf>,
}

impl Drop for Folders {
    fn drop(&mut self) {
        for place in &self.places {
            if let Err(error) = take_down(place) {
                tracing::warn!(place = %place.display(), %error, "a folder stays mounted for now");
            }
        }
    }
}

/// The mounts that the container engine is told of: each a directory beneath `root`, reached
/// without any link. Blocks.
///
/// # Errors
/// One is something else, this host has no directory for folders, or one cannot be mounted.
pub fn resolve(
    root: Option<&Path>,
    scratch_root: &Path,
    kernel: KernelId,
    wanted: &[MountSpec],
) -> Result<Folders, MountError> {
    let mut folders = Folders::default();
    for (index, mount) in wanted.iter().enumerate() {
        let failed = |why: String| MountError { name: mount.name.clone(), why };
        let root = root.ok_or_else(|| {
            failed("set agent.mount-path or volumes/_mount to the directory of folders".into())
        })?;
        let (held, path) = directory(root, &mount.host_path).map_err(failed)?;
        let mut source = path;
        if rustix::process::geteuid().is_root() {
            let place = scratch_root.join(format!("{kernel}-{index}{PLACE}"));
            // Before it is mounted: whatever becomes of that, it is taken down.
            folders.places.push(place.clone());
            source = put_up(&held, &place).map_err(|error| failed(error.to_string()))?;
        }
        let (target, read_only) = (mount.kernel_path.clone(), mount.read_only);
        folders.mounts.push(ContainerMount { source, target, read_only });
    }
    Ok(folders)
}

/// Takes down what an agent left that died while it made containers. Blocks.
///
/// # Errors
/// The scratch root cannot be read, or something cannot be taken down.
pub fn sweep(scratch_root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(scratch_root)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(PLACE) {
            take_down(&path)?;
        }
    }
    Ok(())
}

/// Mounts the very directory that is held, wherever its path leads by now; where.
///
/// The mount point lies in a file system of its own: an engine that does not see the mounts
/// of this process finds no such path and says so, where it would mount an empty directory.
fn put_up(held: &OwnedFd, place: &Path) -> io::Result<PathBuf> {
    fs::create_dir(place)?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=700", "none"]).arg(place))?;
    let point = place.join(POINT);
    fs::create_dir(&point)?;
    let source = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    run(Command::new("mount").args(["--no-canonicalize", "--bind", &source]).arg(&point))?;
    let (wanted, mounted) = (rustix::fs::fstat(held)?, fs::metadata(&point)?);
    if (mounted.dev(), mounted.ino()) != (wanted.st_dev, wanted.st_ino) {
        return Err(io::Error::other("another directory was mounted"));
    }
    Ok(point)
}

/// Never removes anything but an empty directory: a user's folder may be mounted there. What
/// is mounted within a place goes with it.
fn take_down(place: &Path) -> io::Result<()> {
    loop {
        match fs::remove_dir(place) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                run(Command::new("umount").args(["--lazy", "--no-canonicalize"]).arg(place))?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A directory beneath the root, held open, and its path.
fn directory(root: &Path, path: &str) -> Result<(OwnedFd, PathBuf), String> {
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
    let held = rustix::fs::openat2(&folder, inner, flags, Mode::empty(), resolve)
        .map_err(|error| format!("{}: {error}", inner.display()))?;
    Ok((held, root.join(inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &str) -> MountSpec {
        MountSpec {
            name: "folder".into(),
            host_path: path.into(),
            kernel_path: "/home/work/folder".into(),
            read_only: false,
        }
    }

    #[test]
    fn only_directories_beneath_the_root_are_mounted() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("local/folders/1");
        fs::create_dir_all(inner.join("sub")).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", inner.join("out")).unwrap();
        std::os::unix::fs::symlink("sub", inner.join("link")).unwrap();
        let at = |path: &str| directory(root.path(), path).map(|(_, path)| path);
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
        let kernel = KernelId::random();
        assert!(resolve(None, root.path(), kernel, &[spec("local/folders/1")]).is_err());
    }

    /// A link takes the directory's place between our look and the engine's.
    #[test]
    fn what_is_mounted_is_what_was_looked_at() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root mounts: skipped");
            return;
        }
        let [root, scratch, outside] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let inside = root.path().join("1/sub");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("mine"), "").unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let kernel = KernelId::random();
        let get = || resolve(Some(root.path()), scratch.path(), kernel, &[spec("1/sub")]).unwrap();
        let folders = get();
        fs::rename(&inside, root.path().join("1/moved")).unwrap();
        std::os::unix::fs::symlink(outside.path(), &inside).unwrap();
        let source = folders.mounts[0].source.clone();
        assert!(source.join("mine").exists() && !source.join("secret").exists());
        drop(folders);
        assert!(!source.exists());

        // As an agent leaves it that dies just then; nothing of the folder goes with it.
        fs::remove_file(&inside).unwrap();
        fs::rename(root.path().join("1/moved"), &inside).unwrap();
        std::mem::forget(get());
        assert!(source.join("mine").exists());
        sweep(scratch.path()).unwrap();
        assert!(!source.exists() && inside.join("mine").exists());
    }
}
