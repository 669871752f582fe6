//! What is done before a service starts. Everything is done as the user.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::Value as Json;

use super::template::{Template, TemplateError, Value, Values};
use crate::command::Commands;
use crate::environ::ProgramError;
use crate::log::log;
use crate::process::{CHUNK, Capture, Program, as_user};

/// How long one command may take: the user waits for the service.
const COMMAND_TIME: Duration = Duration::from_secs(15);
/// What is kept of each output of a command.
const MAX_OUTPUT: usize = 1 << 20;
/// Where temporary files lie.
const TEMPORARY: &str = "/tmp";

/// An action, and the name under which later templates find its result.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawStep")]
pub struct Step {
    action: Action,
    result: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    action: String,
    args: Json,
    #[serde(rename = "ref")]
    result: Option<String>,
}

impl TryFrom<RawStep> for Step {
    type Error = serde_json::Error;

    fn try_from(raw: RawStep) -> Result<Self, serde_json::Error> {
        let action = serde_json::json!({ "action": raw.action, "args": raw.args });
        Ok(Self { action: serde_json::from_value(action)?, result: raw.result })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "action", content = "args", rename_all = "snake_case")]
enum Action {
    WriteFile(WriteFile),
    WriteTempfile(WriteTempfile),
    Mkdir(Mkdir),
    RunCommand(RunCommand),
    Log(Log),
}

/// Each line of the body gets a newline.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteFile {
    filename: Template,
    body: Vec<Template>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    append: bool,
}

/// The body is written as it is; the result is the file's path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteTempfile {
    body: Vec<Template>,
    #[serde(default)]
    mode: Mode,
}

/// Makes the folders above too.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mkdir {
    path: Template,
}

/// The result is what was printed: `out` and `err`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunCommand {
    command: Vec<Template>,
    #[serde(default)]
    echo: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    message: Template,
    /// Says how important it is, and the container's log has no levels.
    #[serde(default, rename = "debug")]
    _debug: bool,
}

/// Permissions, in octal digits.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Mode(u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o644)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(digits: String) -> Result<Self, String> {
        let mode = u32::from_str_radix(&digits, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.map(Self).ok_or_else(|| format!("{digits:?} are no permissions"))
    }
}

/// Why an action was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// A template cannot be filled.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The system refuses.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A command names no program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A command did not end.
    #[error("{0} took longer than {limit} seconds", limit = COMMAND_TIME.as_secs())]
    TooLong(String),
}

impl Step {
    /// Does it, and adds its result to `values`.
    ///
    /// # Errors
    /// If it cannot be done; what was done stays.
    pub async fn run(&self, values: &mut Values, commands: &Commands) -> Result<(), ActionError> {
        let result = self.action.run(values, commands).await?;
        if let (Some(name), Some(result)) = (&self.result, result) {
            values.insert(name.clone(), result);
        }
        Ok(())
    }
}

impl Action {
    async fn run(
        &self,
        values: &Values,
        commands: &Commands,
    ) -> Result<Option<Value>, ActionError> {
        match self {
            Self::WriteFile(WriteFile { filename, body, mode, append }) => {
                let path = commands.spawner.work().join(filename.fill(values)?);
                let text = fill_all(body, values)?.iter().map(|line| format!("{line}\n")).collect();
                let mut options = OpenOptions::new();
                options.create(true).append(*append).write(true).truncate(!*append);
                write(commands, path, options, *mode, text).await?;
                Ok(None)
            }
            Self::WriteTempfile(WriteTempfile { body, mode }) => {
                let text = fill_all(body, values)?.concat();
                let path = write_temporary(commands, *mode, text).await?;
                Ok(Some(Value::Text(path.display().to_string())))
            }
            Self::Mkdir(Mkdir { path }) => {
                let path = commands.spawner.work().join(path.fill(values)?);
                let what = format!("make the folder {}", path.display());
                let make = move || DirBuilder::new().recursive(true).create(path);
                user_io(commands, what, make).await?;
                Ok(None)
            }
            Self::RunCommand(RunCommand { command, echo }) => {
                let output = run_command(&fill_all(command, values)?, commands).await?;
                if *echo {
                    output.values().for_each(|text| log!("{}", text.trim_end()));
                }
                Ok(Some(Value::Map(output)))
            }
            Self::Log(Log { message, .. }) => {
                log!("{}", message.fill(values)?);
                Ok(None)
            }
        }
    }
}

fn fill_all(templates: &[Template], values: &Values) -> Result<Vec<String>, TemplateError> {
    templates.iter().map(|template| template.fill(values)).collect()
}

/// Does something to files with the user's rights, on another thread: the folder may be on a
/// slow network disk.
async fn user_io<T: Send + 'static>(
    commands: &Commands,
    what: String,
    action: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ActionError> {
    let ids = commands.spawner.ids();
    let done = tokio::task::spawn_blocking(move || as_user(ids, action)).await;
    done.map_err(io::Error::other).flatten().map_err(|source| ActionError::Io { what, source })
}

async fn write(
    commands: &Commands,
    path: PathBuf,
    mut options: OpenOptions,
    mode: Mode,
    text: String,
) -> Result<(), ActionError> {
    let what = format!("write {}", path.display());
    let action = move || {
        let mut file = options.mode(mode.0).open(&path)?;
        // The file may be an old one, and the mask does not apply.
        file.set_permissions(Permissions::from_mode(mode.0))?;
        file.write_all(text.as_bytes())
    };
    user_io(commands, what, action).await
}

async fn write_temporary(
    commands: &Commands,
    mode: Mode,
    text: String,
) -> Result<PathBuf, ActionError> {
    let mut number = 0;
    loop {
        let path = Path::new(TEMPORARY).join(format!("service-{number}.py"));
        let mut options = OpenOptions::new();
        options.create_new(true).write(true);
        match write(commands, path.clone(), options, mode, text.clone()).await {
            Ok(()) => return Ok(path),
            Err(ActionError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn run_command(
    command: &[String],
    commands: &Commands,
) -> Result<BTreeMap<String, String>, ActionError> {
    let spawner = &commands.spawner;
    let Some((name, args)) = command.split_first() else {
        return Err(ProgramError::NotFound(String::new()).into());
    };
    let path = spawner.environ().find_program(name, spawner.work())?;
    let started = spawner.start(&Program {
        path: &path,
        args: args.iter().map(Into::into).collect(),
        variables: Vec::new(),
        inherit: Vec::new(),
    });
    let failed = |source| ActionError::Io { what: name.clone(), source };
    let mut started = started.map_err(failed)?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let limit = tokio::time::sleep(COMMAND_TIME);
    tokio::pin!(limit);
    loop {
        tokio::select! {
            piece = started.stdout.next(None) => keep(&mut out, &piece),
            piece = started.stderr.next(None) => keep(&mut err, &piece),
            // The sender is dropped only with the whole runner.
            _ = &mut started.exit => break,
            () = &mut limit => {
                spawner.reaper().signal_group(started.pid, Signal::KILL);
                return Err(ActionError::TooLong(name.clone()));
            }
        }
    }
    for (capture, output) in [(&mut started.stdout, &mut out), (&mut started.stderr, &mut err)] {
        drain(capture, output);
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok([("out".to_owned(), text(out)), ("err".to_owned(), text(err))].into())
}

fn keep(output: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_OUTPUT - output.len();
    output.extend_from_slice(&piece[..piece.len().min(room)]);
}

fn drain(capture: &mut Capture, output: &mut Vec<u8>) {
    let mut pending = capture.pending();
    while pending > 0 {
        let Some(piece) = capture.take_now(pending.min(CHUNK)) else { return };
        pending -= piece.len();
        keep(output, &piece);
    }
}
