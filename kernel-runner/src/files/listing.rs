//! What is in a folder.

use backendai_rpc::runner::files::{FileEntry, FilesErrorKind, FilesMessage, MAX_BATCH};
use rustix::fs::{Dir, FileType, Stat};
use rustix::io::Errno;

use super::Stop;
use super::channel::Channel;
use super::work::{Work, failed, failure, kind, size, stat_in};

/// Sends the entries of a folder, if there are more than `limit` the first.
pub fn list(work: &Work, path: &[u8], limit: u64, channel: &mut Channel) -> Result<(), Stop> {
    let (folder, stat) = work.open_to_read(path)?;
    if kind(&stat) != FileType::Directory {
        return Err(failed(path, FilesErrorKind::NotAFolder).into());
    }
    let mut entries = Vec::new();
    let mut count = 0;
    for entry in Dir::read_from(&folder).map_err(failure(path))? {
        let entry = entry.map_err(failure(path))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let stat = match stat_in(&folder, name) {
            Ok(stat) => stat,
            // Removed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failure(name)(error).into()),
        };
        if count == limit {
            let kind = FilesErrorKind::TooLarge { limit };
            channel.send(FilesMessage::Entries(entries))?;
            return Err(failed(path, kind).into());
        }
        count += 1;
        entries.push(describe(name, &stat));
        if entries.len() == MAX_BATCH {
            channel.send(FilesMessage::Entries(std::mem::take(&mut entries)))?;
        }
    }
    if !entries.is_empty() {
        channel.send(FilesMessage::Entries(entries))?;
    }
    Ok(())
}

fn describe(name: &[u8], stat: &Stat) -> FileEntry {
    let at = |seconds: i64, nanoseconds: i64| seconds as f64 + nanoseconds as f64 / 1e9;
    FileEntry {
        name: name.to_vec(),
        mode: stat.st_mode,
        size: size(stat),
        atime: at(stat.st_atime, stat.st_atime_nsec as i64),
        mtime: at(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: at(stat.st_ctime, stat.st_ctime_nsec as i64),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_crowd_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MAX_BATCH + 1 {
            std::fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let work = Work::open(folder.path()).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(near.into());
        let limit = MAX_BATCH as u64 + 1;
        let stopped = list(&work, b"", limit, &mut channel);
        assert!(matches!(stopped, Err(Stop::Failed(error)) if error.kind
            == FilesErrorKind::TooLarge { limit }));
        let mut far = Channel::new(far.into());
        for length in [MAX_BATCH, 1] {
            match far.receive().unwrap() {
                Some(FilesMessage::Entries(entries)) => assert_eq!(entries.len(), length),
                other => panic!("{other:?}"),
            }
        }
    }
}
