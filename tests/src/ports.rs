//! Free loopback ports.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};

/// Below the range the kernel hands out by itself (32768), so that a chosen port is not
/// taken by somebody's outgoing connection before its server binds it.
const FIRST: u16 = 12000;
const LAST: u16 = 29999;
/// Ports of one agent's pool for apps.
pub const POOL: u16 = 100;

/// Ports that no other stack of this machine chooses while this value lives.
#[derive(Debug, Default)]
pub struct Ports {
    taken: BTreeSet<u16>,
    locks: Vec<File>,
}

impl Ports {
    /// Chooses a free port. `cache` holds the locks that keep parallel tests apart between
    /// the choice and the bind.
    ///
    /// # Errors
    /// No port is free, or the locks cannot be made.
    pub fn choose(&mut self, cache: &Path) -> Result<u16> {
        self.choose_run(cache, 1)
    }

    /// Chooses a run of free ports and returns the first.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn choose_run(&mut self, cache: &Path, count: u16) -> Result<u16> {
        let dir = cache.join("ports");
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        for _ in 0..1000 {
            let first = rand::random_range(FIRST..=LAST - count);
            let run = first..first + count;
            if run.clone().any(|port| self.taken.contains(&port)) {
                continue;
            }
            let locked: Option<Vec<File>> = run
                .clone()
                .map(|port| {
                    let file = File::create(dir.join(port.to_string())).ok()?;
                    file.try_lock().ok().map(|()| file)
                })
                .collect();
            let Some(locks) = locked else { continue };
            if run.clone().all(is_free) {
                self.taken.extend(run);
                self.locks.extend(locks);
                return Ok(first);
            }
        }
        anyhow::bail!("no free loopback port between {FIRST} and {LAST}")
    }
}

/// True when a server can bind the port on loopback.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
