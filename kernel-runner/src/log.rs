//! Lines for whoever reads the container's log. The runner is quiet: a line means that
//! something did not go as configured.

use std::fmt::Arguments;
use std::io::Write;

/// Writes one line to standard error, in one piece. Standard error may be a pipe that
/// nobody reads, and PID 1 must neither block nor die of that: then the line is lost.
pub fn line(message: Arguments<'_>) {
    let text = format!("kernel-runner: {message}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// [`line()`] with a format string.
macro_rules! log {
    ($($format:tt)*) => { $crate::log::line(format_args!($($format)*)) };
}
pub(crate) use log;
