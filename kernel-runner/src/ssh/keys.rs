//! Who may log in.

use std::io::{self, Read};
use std::path::Path;

use russh::keys::PublicKey;
use rustix::fs::{Mode, OFlags};

use crate::log::log;

/// Longest file of keys that is read: hundreds of keys.
const MAX_SIZE: u64 = 256 << 10;

/// The keys that open this kernel.
pub struct Keys(Vec<PublicKey>);

impl Keys {
    /// Those of the user's `authorized_keys` under `work`, and those of the platform: every
    /// `*.pub` in `platform`. The latter work even where a folder of the user's own is
    /// mounted as `.ssh`.
    pub fn read(work: &Path, platform: &Path) -> Self {
        let mut text = read_file(&work.join(".ssh/authorized_keys"));
        for entry in std::fs::read_dir(platform).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "pub") {
                text.push('\n');
                text.push_str(&read_file(&path));
            }
        }
        Self::parse(&text)
    }

    /// One key a line. A line with options lets nobody in: an option says what its key may
    /// *not* do, so to ignore it would give more than was meant.
    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(keys.filter_map(|line| PublicKey::from_openssh(line).ok()).collect())
    }

    /// True if the owner of this key may come in.
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.0.iter().any(|known| known.key_data() == key.key_data())
    }
}

/// A file's text, or nothing. It is the user's to choose and read as the user, so it can
/// only be a nuisance: a pipe, or endless.
fn read_file(path: &Path) -> String {
    match try_read_file(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                log!("read {}: {error}", path.display());
            }
            String::new()
        }
    }
}

fn try_read_file(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINCbbz0YQafc0ZSG+2OrDmWMYwgsT243L19JPwPDtwr1 a";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDbAAUitc/ETx9nWXbsSSbSY72IrML1ENaYx1R/bybE b";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    #[test]
    fn comments_and_rubbish_are_passed_over_and_options_let_nobody_in() {
        let keys = Keys::parse(&format!("# mine\n\nrubbish\n\u{fffd}\n  {ONE}  \nno-pty {TWO}\n"));
        assert!(keys.contains(&key(ONE)));
        assert!(!keys.contains(&key(TWO)));
        let other_comment = ONE.replace(" a", " somebody else");
        assert!(keys.contains(&key(&other_comment)));
    }

    #[test]
    fn both_places_are_read_and_no_pipe_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (work, platform) = (folder.path().join("work"), folder.path().join("platform"));
        std::fs::create_dir_all(work.join(".ssh")).unwrap();
        std::fs::create_dir(&platform).unwrap();
        std::fs::write(platform.join("id_cluster.pub"), TWO).unwrap();
        std::fs::write(platform.join("id_cluster"), ONE).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            work.join(".ssh/authorized_keys"),
            rustix::fs::FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        let keys = Keys::read(&work, &platform);
        assert!(keys.contains(&key(TWO)) && !keys.contains(&key(ONE)));
    }
}
