//! The image's own preparation, `/opt/container/bootstrap.sh`: run once as root, when the user
//! has a name and a home and before anything else.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::environ::Environ;
use crate::log::log;

/// Where images have it.
const HOOK: &str = "/opt/container/bootstrap.sh";
/// What is mounted where, in this process's view.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Runs the hook to its end, if the image has one. A failure is only logged.
pub fn run(environ: &Environ, uid: u32, gid: u32) {
    if !crate::environ::is_executable(Path::new(HOOK)) {
        return;
    }
    match is_of_the_image(Path::new(HOOK)) {
        Ok(true) => {}
        Ok(false) => return log!("{HOOK} is not the image's, and does not run as root"),
        Err(error) => return log!("{MOUNTS}: {error}"),
    }
    let status = Command::new(HOOK)
        .env_clear()
        .envs(environ.iter())
        .env("LOCAL_USER_ID", uid.to_string())
        .env("LOCAL_GROUP_ID", gid.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => log!("{HOOK} failed: {status}"),
        Err(error) => log!("{HOOK} did not run: {error}"),
    }
}

/// False where the file, or a folder above it, is mounted into the container: what users mount is
/// not run as root.
fn is_of_the_image(path: &Path) -> io::Result<bool> {
    let mounts = std::fs::read_to_string(MOUNTS)?;
    Ok(!mounts.lines().any(|line| is_mount_over(line, path)))
}

fn is_mount_over(line: &str, path: &Path) -> bool {
    let point = line.split(' ').nth(4).map(Path::new);
    point.is_some_and(|point| point != Path::new("/") && path.starts_with(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_mount_is_not_of_the_image() {
        for (line, over) in [
            ("36 35 0:32 / / rw,relatime - overlay overlay rw", false),
            ("40 36 8:1 /vfolder /home/work/data rw - ext4 /dev/sda1 rw", false),
            ("41 36 8:1 /vfolder /opt/containers rw - ext4 /dev/sda1 rw", false),
            ("41 36 8:1 /vfolder /opt rw - ext4 /dev/sda1 rw", true),
            ("41 36 8:1 /vfolder /opt/container rw - ext4 /dev/sda1 rw", true),
            ("41 36 8:1 /f /opt/container/bootstrap.sh ro - ext4 /dev/sda1 rw", true),
        ] {
            assert_eq!(is_mount_over(line, Path::new(HOOK)), over, "{line}");
        }
    }
}
