//! Processes: starting them as the user, reaping them, and taking their output; on
//! terminals too.

mod capture;
mod console;
mod pty;
mod reaper;
mod spawn;
mod task_log;

pub use capture::{CHUNK, Capture};
pub use console::Console;
pub use pty::{Pty, Size};
pub use reaper::{Exit, Reaper};
pub use spawn::{OURSELVES, Program, Spawner, Started, as_user, detach};
pub use task_log::TaskLog;

/// One of the two output streams of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
