//! The fence against managers that have been replaced.
//!
//! The highest epoch ever seen is on disk, so that a restarted agent does not obey a
//! manager which the one before it had already learned to refuse.

use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;

use backendai_rpc::call::{ErrorKind, RemoteError};

use crate::kernel::record::write_synced;

/// Remembers the highest epoch seen.
pub struct EpochFence {
    path: PathBuf,
    highest: Mutex<u64>,
}

impl EpochFence {
    /// Reads what an earlier process saw; zero if nothing.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let highest = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { path, highest: Mutex::new(highest) })
    }

    /// The highest epoch seen.
    pub fn highest(&self) -> u64 {
        *self.highest.lock()
    }

    /// Lets a caller of this epoch pass, and remembers it.
    ///
    /// # Errors
    /// A higher epoch has been seen, or the new one cannot be written down.
    pub fn admit(&self, epoch: u64) -> Result<(), RemoteError> {
        let mut highest = self.highest.lock();
        if epoch < *highest {
            return Err(RemoteError::new(
                ErrorKind::StaleEpoch,
                format!("the call is of epoch {epoch}, but epoch {highest} has begun"),
            ));
        }
        if epoch > *highest {
            // Rare (a change of leader) and small: worth the short wait.
            write_synced(&self.path, epoch.to_string().as_bytes()).map_err(|error| {
                RemoteError::new(ErrorKind::Internal, format!("write down the epoch: {error}"))
            })?;
            *highest = epoch;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_epochs_are_refused_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epoch");
        let fence = EpochFence::open(path.clone()).unwrap();
        assert!(fence.admit(3).is_ok());
        assert!(fence.admit(3).is_ok());
        let fence = EpochFence::open(path).unwrap();
        assert_eq!(fence.admit(2).unwrap_err().kind, ErrorKind::StaleEpoch);
        assert!(fence.admit(4).is_ok());
        assert_eq!(fence.highest(), 4);
    }
}
