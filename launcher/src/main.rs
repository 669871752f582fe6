//! `backend.ai`: one command in front of the programs of a cluster.
//!
//! `backend.ai mgr …`, `backend.ai ag …` and `backend.ai watcher …` become our manager, agent
//! and watcher; every other command line goes to the client of that name, which is the next
//! `backend.ai` in `PATH`. So both may be installed, and neither hides the other.
//!
//! Cargo cannot build a program with a dot in its name: this one is `backendai`, and whoever
//! installs it links `backend.ai` to it, in a folder that comes in `PATH` before the client's.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The name of this program and of the client.
const NAME: &str = "backend.ai";

/// What the first argument may be, and the program it stands for.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("mgr", "backendai-manager", "the manager and its management commands"),
    ("ag", "backendai-agent", "the agent"),
    ("watcher", "backendai-watcher", "the watcher beside the agent"),
];

/// Exit code of a program that is not there, as shells have it.
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next();
    let ours = PROGRAMS.iter().find(|(word, ..)| first.as_deref().is_some_and(|f| f == *word));
    let (program, arguments) = match ours {
        Some((_, program, _)) => (find_ours(program), arguments.collect::<Vec<_>>()),
        None => (find_client(), first.into_iter().chain(arguments).collect()),
    };
    match (program, ours) {
        (Some(program), _) => hand_over(&program, &arguments),
        (None, Some((word, program, _))) => {
            eprintln!(
                "error: `{NAME} {word}` is the program {program}, which lies neither beside this \
                 one nor in PATH"
            );
            ExitCode::from(NOT_FOUND)
        }
        (None, None) => without_client(&arguments),
    }
}

/// Becomes another program.
fn hand_over(program: &Path, arguments: &[OsString]) -> ExitCode {
    let error = Command::new(program).args(arguments).exec();
    eprintln!("error: start {}: {error}", program.display());
    ExitCode::FAILURE
}

/// Help for those who have no client; what else it would have done needs it.
fn without_client(arguments: &[OsString]) -> ExitCode {
    let wants_help = arguments.first().is_none_or(|first| first == "-h" || first == "--help");
    if !wants_help {
        eprintln!(
            "error: this is a command of the client, and no other {NAME} is in PATH: install it \
             with `pip install backend.ai-client==23.9.10`"
        );
        return ExitCode::from(NOT_FOUND);
    }
    println!("Usage: {NAME} COMMAND [ARGS]...\n\nCommands:");
    for (word, program, meaning) in PROGRAMS {
        println!("  {word:8} {meaning} ({program})");
    }
    println!("\nOther commands are the client's, which is not installed.");
    ExitCode::SUCCESS
}

/// A program of ours: beside this one, or else in `PATH`.
fn find_ours(program: &str) -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(program)));
    beside.filter(|path| path.is_file()).or_else(|| in_path(program).next())
}

/// The client: the first `backend.ai` in `PATH` that is not this program.
fn find_client() -> Option<PathBuf> {
    let own = env::current_exe().and_then(|own| own.canonicalize()).ok();
    in_path(NAME).find(|path| path.canonicalize().ok() != own)
}

fn in_path(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let program = program.to_owned();
    folders.into_iter().map(move |folder| folder.join(&program)).filter(|path| path.is_file())
}
