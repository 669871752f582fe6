//! `backendai-manager`: the server and the management command line.

use std::process::ExitCode;

use clap::Parser;

use backendai_manager::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    backendai_service::daemon::run(cli::run(Cli::parse()))
}
