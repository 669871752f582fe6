//! What a kernel's folder lies on, and so how much fits in.
//!
//! ```text
//! {scratch-root}/{kernel}       the folder, or where the volume is mounted
//! {scratch-root}/{kernel}.img   the image of one in a file
//! ```
//! Mounts outlive the agent, as containers do: one that is there is used as it is, and a
//! folder is taken down whatever it was put on.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ends the name of an image.
const IMAGE_EXTENSION: &str = "img";

/// What a kernel's folder lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// The file system of the scratch root, up to its end.
    Folder,
    /// A file system (ext4) of so many bytes in a file that grows as it fills.
    Image(u64),
    /// So many bytes of main memory.
    Memory(u64),
}

impl Volume {
    /// True where a kernel cannot take more than its share.
    pub fn is_limited(self) -> bool {
        self != Self::Folder
    }

    /// Its size in bytes; 0 without a limit.
    pub fn size(self) -> u64 {
        match self {
            Self::Folder => 0,
            Self::Image(size) | Self::Memory(size) => size,
        }
    }

    /// Makes the folder. Blocks. A volume that is mounted there stays as it is.
    ///
    /// # Errors
    /// It cannot be made; what was is removed by [`remove`].
    pub fn make(self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        if !self.is_limited() || is_mounted(folder)? {
            return Ok(());
        }
        match self {
            Self::Folder => Ok(()),
            Self::Image(size) => {
                let image = image_of(folder);
                // A draft of an earlier attempt is worth nothing.
                File::create(&image)?.set_len(size)?;
                // Without a journal: no image is used after a crash of the host.
                let plain = ["-q", "-F", "-m", "0", "-O", "^has_journal"];
                run(Command::new("mkfs.ext4").args(plain).arg(&image))?;
                run(Command::new("mount").args(["-o", "loop,nodev,nosuid"]).arg(&image).arg(folder))
            }
            Self::Memory(size) => {
                let options = format!("size={size},mode=0755,nodev,nosuid");
                let kind = ["-t", "tmpfs", "-o", &options, "backendai-scratch"];
                run(Command::new("mount").args(kind).arg(folder))
            }
        }
    }
}

/// Removes a kernel's folder, with the volume that may be mounted there. Blocks. What does
/// not exist is no error.
///
/// # Errors
/// Something cannot be unmounted or removed.
pub fn remove(folder: &Path) -> io::Result<()> {
    while is_mounted(folder)? {
        // At once, though a process may still look at it; the kernel ends it with the last.
        run(Command::new("umount").args(["--lazy", "--no-canonicalize"]).arg(folder))?;
    }
    ignore_missing(fs::remove_dir_all(folder))?;
    ignore_missing(fs::remove_file(image_of(folder)))
}

/// The kernel's name of an entry of the scratch root, be it a folder or an image.
pub fn kernel_name(entry: &Path) -> Option<&str> {
    let is_image = entry.extension().is_some_and(|extension| extension == IMAGE_EXTENSION);
    let name = if is_image { entry.file_stem() } else { entry.file_name() };
    name?.to_str()
}

fn image_of(folder: &Path) -> PathBuf {
    folder.with_extension(IMAGE_EXTENSION)
}

fn is_mounted(folder: &Path) -> io::Result<bool> {
    let Some(parent) = folder.parent() else { return Ok(false) };
    match fs::symlink_metadata(folder) {
        Ok(found) => Ok(found.dev() != fs::metadata(parent)?.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be run, or fails; with what it says.
pub fn run(command: &mut Command) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("run {program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} failed: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_images_name_their_kernel() {
        assert_eq!(kernel_name(Path::new("/s/0f1e")), Some("0f1e"));
        assert_eq!(kernel_name(Path::new("/s/0f1e.img")), Some("0f1e"));
        assert_eq!(kernel_name(Path::new("/s/0f1e.txt")), Some("0f1e.txt"));
    }

    #[test]
    fn volumes_hold_their_size_are_kept_and_are_removed_whole() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root mounts: skipped");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        for volume in [Volume::Image(8 << 20), Volume::Memory(8 << 20), Volume::Folder] {
            let folder = root.path().join("kernel");
            volume.make(&folder).unwrap();
            fs::write(folder.join("kept"), "here").unwrap();
            let large = fs::write(folder.join("large"), vec![1; 16 << 20]);
            assert_eq!(large.is_err(), volume.is_limited(), "{volume:?}");
            // As after a restart of the agent.
            volume.make(&folder).unwrap();
            assert_eq!(fs::read_to_string(folder.join("kept")).unwrap(), "here");
            remove(&folder).unwrap();
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "{volume:?}");
            remove(&folder).unwrap();
        }
    }
}
