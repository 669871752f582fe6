//! Ending everything in the container.

use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::process::Reaper;
use crate::setup;

/// Sends SIGTERM to every process and waits for their end; kills what is left after
/// `grace`, or when `hurry` resolves.
pub async fn end_all(reaper: &Reaper, grace: Duration, hurry: impl Future<Output = ()>) {
    if setup::is_init() {
        signal_everybody(Signal::TERM);
    } else {
        reaper.signal_all_groups(Signal::TERM);
    }
    tokio::select! {
        () = reaper.all_gone() => return,
        () = tokio::time::sleep(grace) => {}
        () = hurry => {}
    }
    if setup::is_init() {
        signal_everybody(Signal::KILL);
    } else {
        reaper.signal_all_groups(Signal::KILL);
    }
    // A process in an uninterruptible sleep stays; the end of PID 1 disposes of it.
    let _ = tokio::time::timeout(KILL_TIME, reaper.all_gone()).await;
}

/// How long the system may take to end killed processes.
const KILL_TIME: Duration = Duration::from_millis(500);

/// Signals every other process of the container.
fn signal_everybody(signal: Signal) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = number.filter(|number| *number > 1).and_then(Pid::from_raw) {
            // It may have ended since.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}
