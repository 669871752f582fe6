//! Batch runs: clean, build, exec.

use backendai_rpc::runner::RunRecord;

use crate::command::{Commands, INTERRUPTED, NOT_STARTED, Sinks};
use crate::runs::Current;
use crate::runtime::{Phase, Runtime};

/// Tells programs that they run without a person.
pub const BATCH_VARIABLE: (&str, &str) = ("_BACKEND_BATCH_MODE", "1");

/// The commands of a batch run. `None` and the empty string skip a step, `*` is the
/// runtime's default.
pub struct Batch {
    /// Cleaning command.
    pub clean: Option<String>,
    /// Building command.
    pub build: Option<String>,
    /// Main command.
    pub exec: Option<String>,
}

/// Carries out a batch run: pushes the records of the first two steps, and returns the
/// exit code of the third. If building fails, the third is skipped with code 127.
pub async fn run(
    batch: Batch,
    commands: &Commands,
    runtime: &Runtime,
    runtime_path: Option<&str>,
    current: &Current,
) -> i32 {
    let sinks = commands.sinks(Some(current.output.clone())).await;
    let step = async |phase, command: Option<String>| {
        let command = command.unwrap_or_default();
        if command.is_empty() {
            return 0;
        }
        if current.is_interrupted() {
            return INTERRUPTED;
        }
        let command = if command == "*" {
            match runtime.default_command(phase, commands.spawner.work(), runtime_path) {
                Some(command) => command,
                None => return no_default(phase, commands, runtime, &sinks).await,
            }
        } else {
            command
        };
        let mut variables = Vec::new();
        if phase == Phase::Exec {
            variables.push(BATCH_VARIABLE);
            variables.extend(commands.input_variables());
        }
        commands.run(&command, variables, &sinks, |pid| current.set_group(pid)).await
    };
    let exit_code = step(Phase::Clean, batch.clean).await;
    current.output.push(RunRecord::CleanFinished { exit_code });
    let exit_code = step(Phase::Build, batch.build).await;
    current.output.push(RunRecord::BuildFinished { exit_code });
    if exit_code != 0 {
        return NOT_STARTED;
    }
    step(Phase::Exec, batch.exec).await
}

/// Cleaning and building may have nothing to do; a main program must be there.
async fn no_default(phase: Phase, commands: &Commands, runtime: &Runtime, sinks: &Sinks) -> i32 {
    if phase != Phase::Exec {
        return 0;
    }
    let files = runtime.main_files();
    let message = if files.is_empty() {
        "this runtime has no default command".to_owned()
    } else {
        format!("the default command needs one of: {}", files.join(", "))
    };
    commands.complain(&message, sinks).await;
    NOT_STARTED
}
