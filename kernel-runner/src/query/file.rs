//! Query runs in languages without a driver: the code becomes a file that a command runs.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::command::{Commands, INTERRUPTED, NOT_STARTED, Sinks};
use crate::process::as_user;
use crate::runs::Current;
use crate::runtime::quote;

/// Writes `code` to a file with this extension in the working directory, runs `command`
/// with `{file}` replaced by its name, and returns the exit code.
pub async fn run_file(
    code: &str,
    extension: &str,
    command: &str,
    commands: &Commands,
    current: &Current,
) -> i32 {
    let sinks = Sinks { run: Some(current.output.clone()), ..Sinks::default() };
    if current.is_interrupted() {
        return INTERRUPTED;
    }
    let spawner = &commands.spawner;
    // Runs do not overlap, so one name is enough; it is not one that a user would choose.
    let path = spawner.work().join(format!(".kernel-runner-query.{extension}"));
    if let Err(error) = as_user(spawner.ids(), || write_new(&path, code)) {
        commands.complain(&format!("write {}: {error}", path.display()), &sinks).await;
        return NOT_STARTED;
    }
    let command = command.replace("{file}", &quote(&path.to_string_lossy()));
    let variables = commands.input_variables();
    let exit_code = commands.run(&command, variables, &sinks, |pid| current.set_group(pid)).await;
    // The user's code may have removed it.
    let _ = as_user(spawner.ids(), || std::fs::remove_file(&path));
    exit_code
}

fn write_new(path: &Path, code: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(code.as_bytes())
}
