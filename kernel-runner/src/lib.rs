//! The kernel runner: the static program that is PID 1 of every kernel container.
//!
//! It runs the user's code as the user and speaks with the agent over a unix socket, in
//! the language of [`backendai_rpc::runner`]. It needs nothing of the image, so any image
//! can be a kernel: one without Python runs commands, one without a shell runs programs.
//!
//! ```text
//!   agent ── connection ── runner ──┬── runs ──┬── batch ──┐
//!                │                  │          └── query ──┴── command ── process
//!             outbox ◄──────────────┴── records of runs
//! ```
//!
//! - `connection` comes and goes with the agent; programs do not notice.
//! - `outbox` keeps records until the agent has them, and makes programs wait when it
//!   does not take them.
//! - `runs` carries out one run after the other; `batch` by commands of the shell,
//!   `query` by code, for Python in a driver process that keeps its state.
//! - `runtime` is the table of languages.
//! - `stream` opens sockets into the container and hands them to the agent.
//! - `input` lets programs that are no Python code of ours ask the user.
//! - `ssh` is the ssh server, `sftp` the part of it that moves files.
//! - `service` starts the programs behind the ports that the image declares.
//! - `terminal` is the one terminal of the kernel, and `ttyd` shows it to browsers.
//! - `files` moves the user's files in and out.
//! - `process` starts programs with the user's ids, reads what they print, and reaps.
//!
//! Everything happens on one thread that sleeps while nothing happens.
//!
//! This crate must not link a C library (it is static), open a port, or trust the image: it
//! calls no function of libc that would load or run something of the image's.

mod account;
mod batch;
mod command;
mod connection;
mod environ;
mod files;
mod hook;
mod input;
mod library;
mod log;
mod memory;
mod outbox;
mod process;
mod query;
mod runner;
mod runs;
mod runtime;
mod service;
mod setup;
mod sftp;
mod shutdown;
mod ssh;
mod startup;
mod stream;
mod terminal;
mod text;
mod ttyd;
mod words;

use std::ffi::OsStr;
use std::path::Path;

use crate::log::log;

/// Runs to the end and returns the exit code of the process: of the runner, or of one of
/// its helpers, which are this same program with arguments.
pub fn main() -> i32 {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next().filter(|_| !setup::is_init());
    match (mode.as_deref().and_then(OsStr::to_str), args.next()) {
        (Some(ssh::MODE), _) => ssh::main(),
        (Some(ssh::SFTP_MODE), _) => sftp::main(),
        (Some(files::MODE), Some(folder)) => files::main(Path::new(&folder)),
        _ => run(),
    }
}

fn run() -> i32 {
    let paths = setup::Paths::find();
    let config = match paths.read_config() {
        Ok(config) => config,
        Err(error) => {
            log!("{error}");
            return CONFIG_ERROR;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runner::run(&runtime, config, paths)) {
        Ok(code) => code,
        Err(error) => {
            log!("{error}");
            FAILED
        }
    }
}

/// `EX_CONFIG`: the agent made a mistake, and trying again does not help.
const CONFIG_ERROR: i32 = 78;
/// `EX_OSERR`: the system does not let the runner work.
const FAILED: i32 = 71;
