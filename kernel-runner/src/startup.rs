//! What runs once: the bootstrap script, and the command of a batch session.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::MemfdFlags;
use rustix::process::Pid;

use crate::batch::BATCH_VARIABLE;
use crate::command::{Commands, SHELL};
use crate::environ::is_executable;
use crate::log::log;
use crate::process::Program;
use crate::runtime::Runtime;

/// Runs what images of this runtime may bring for every start. A failure is only logged.
pub async fn prepare(runtime: &Runtime, commands: &Commands) {
    let Some(program) = runtime.preparation.filter(|path| is_executable(Path::new(path))) else {
        return;
    };
    let sinks = commands.sinks(None).await;
    let code = commands.run(program, Vec::new(), &sinks, |_| {}).await;
    if code != 0 {
        log!("{program} failed: exit code {code}");
    }
}

/// Runs the bootstrap script to its end. A failure is only logged.
pub async fn bootstrap(script: &str, commands: &Commands) {
    match start_script(script, commands) {
        Ok(program) => {
            let sinks = commands.sinks(None).await;
            let code = commands.follow(program, &sinks).await;
            if code != 0 {
                log!("the bootstrap script failed: exit code {code}");
            }
        }
        Err(error) => log!("the bootstrap script did not run: {error}"),
    }
}

/// The script is a file in memory: it may be longer than an argument, and standard input
/// belongs to the programs in it.
fn start_script(script: &str, commands: &Commands) -> std::io::Result<crate::process::Started> {
    let fd = rustix::fs::memfd_create("bootstrap.sh", MemfdFlags::CLOEXEC)?;
    std::fs::File::from(fd.try_clone()?).write_all(script.as_bytes())?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    commands.spawner.start(&Program {
        path: Path::new(SHELL),
        args: vec![path.into()],
        variables: Vec::new(),
        inherit: vec![fd.as_fd()],
    })
}

/// Runs the command of a batch session to its end and returns its exit code.
pub async fn startup(command: &str, commands: &Rc<Commands>, started: impl FnOnce(Pid)) -> i32 {
    let sinks = commands.sinks(None).await;
    commands.run(command, vec![BATCH_VARIABLE], &sinks, started).await
}
