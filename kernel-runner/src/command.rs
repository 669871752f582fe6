//! Commands of the user: by the image's shell, or without one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use backendai_rpc::runner::RunRecord;
use rustix::process::Pid;
use tokio_util::task::TaskTracker;

use crate::environ::{Environ, ProgramError};
use crate::input::UserInput;
use crate::log::log;
use crate::outbox::RunOutput;
use crate::process::{Capture, Console, Program, Spawner, Started, TaskLog};
use crate::words;

/// The shell, if the image has one.
pub const SHELL: &str = "/bin/sh";

/// Exit code of a command that cannot be started.
pub const NOT_STARTED: i32 = 127;
/// Exit code of what was not begun because it was interrupted before.
pub const INTERRUPTED: i32 = 130;

/// Starts a command line in the working directory. Without a shell it is split into words
/// and its first word executed.
///
/// # Errors
/// A message for the user and an exit code, as a shell would give.
pub fn start(
    spawner: &Spawner,
    command: &str,
    variables: Vec<(&str, &str)>,
) -> Result<Started, (String, i32)> {
    let inherit = Vec::new();
    if Path::new(SHELL).exists() {
        let args = vec!["-c".into(), command.into()];
        let program = Program { path: Path::new(SHELL), args, variables, inherit };
        return spawner.start(&program).map_err(|error| (format!("{SHELL}: {error}"), NOT_STARTED));
    }
    let (path, args) = split(command, spawner.environ(), spawner.work())?;
    let program = Program { path: &path, args, variables, inherit };
    let failed = |error| (format!("{}: {error}", path.display()), NOT_STARTED);
    spawner.start(&program).map_err(failed)
}

/// The program and the arguments that a command line names, where no shell takes it.
///
/// # Errors
/// A message for the user and an exit code, as a shell would give.
pub fn split(
    command: &str,
    environ: &Environ,
    work: &Path,
) -> Result<(PathBuf, Vec<OsString>), (String, i32)> {
    let words = words::split(command).map_err(|error| (error.to_string(), NOT_STARTED))?;
    let Some((name, args)) = words.split_first() else {
        return Err((ProgramError::NotFound(command.to_owned()).to_string(), NOT_STARTED));
    };
    let path =
        environ.find_program(name, work).map_err(|error| (error.to_string(), error.exit_code()))?;
    Ok((path, args.iter().map(Into::into).collect()))
}

/// Where a command's output goes.
#[derive(Clone, Default)]
pub struct Sinks {
    /// A run.
    pub run: Option<RunOutput>,
    /// The container's console.
    pub console: Option<Rc<Console>>,
    /// The user's log folder.
    pub task_log: Option<Rc<TaskLog>>,
}

impl Sinks {
    /// Passes on a piece that [`Capture::next`] or [`Capture::take_now`] returned. The run
    /// gets it before the first `await`, while it has room.
    pub async fn take(&self, capture: &mut Capture, piece: &[u8]) {
        if let Some(run) = &self.run {
            let text = capture.decode(piece);
            match capture.stream() {
                crate::process::Stream::Stdout => run.stdout(text),
                crate::process::Stream::Stderr => run.stderr(text),
            }
        }
        if let Some(console) = &self.console {
            console.write(capture.stream(), piece).await;
        }
        if let Some(task_log) = &self.task_log {
            task_log.append(piece).await;
        }
    }

    /// Passes on what can be read at this moment, and no more: a program in the background
    /// may go on printing for ever.
    pub async fn drain(&self, capture: &mut Capture) {
        let mut pending = capture.pending();
        while pending > 0 {
            if let Some(run) = &self.run {
                run.room(crate::text::worst_case(crate::process::CHUNK)).await;
            }
            let Some(piece) = capture.take_now(pending) else { return };
            pending -= piece.len();
            self.take(capture, &piece).await;
        }
    }

    /// Asks the user for a line, after what the program has printed.
    pub async fn ask(&self, is_password: bool, stdout: &mut Capture, stderr: &mut Capture) {
        self.drain(stdout).await;
        self.drain(stderr).await;
        if let Some(run) = &self.run {
            run.push(RunRecord::WaitingInput { is_password });
        }
    }

    /// Passes on the rest of a cut character when a run ends.
    pub fn finish(&self, capture: &mut Capture) {
        let rest = capture.finish();
        if let Some(run) = &self.run {
            match capture.stream() {
                crate::process::Stream::Stdout => run.stdout(rest),
                crate::process::Stream::Stderr => run.stderr(rest),
            }
        }
    }
}

/// Runs commands to their end.
pub struct Commands {
    /// Starts them.
    pub spawner: Rc<Spawner>,
    /// The container's console.
    pub console: Rc<Console>,
    /// Owns what is left over.
    pub tasks: TaskTracker,
    /// For the name of the task log.
    pub kernel_id: String,
    /// The way to the user.
    pub input: Rc<UserInput>,
    /// Tells programs of runs how to ask the user.
    pub input_variables: Vec<(&'static str, String)>,
}

impl Commands {
    /// Variables of a program that may ask the user.
    pub fn input_variables(&self) -> Vec<(&str, &str)> {
        self.input_variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Sinks of a command that is no run, or of a batch run.
    pub async fn sinks(&self, run: Option<RunOutput>) -> Sinks {
        let task_log =
            TaskLog::open(self.spawner.work(), &self.kernel_id, self.spawner.ids()).await;
        Sinks { run, console: Some(Rc::clone(&self.console)), task_log: task_log.map(Rc::new) }
    }

    /// Runs a command to its end and returns its exit code. `started` is told the process
    /// group. A command that cannot be started says so on standard error.
    pub async fn run(
        &self,
        command: &str,
        variables: Vec<(&str, &str)>,
        sinks: &Sinks,
        started: impl FnOnce(Pid),
    ) -> i32 {
        match start(&self.spawner, command, variables) {
            Ok(program) => {
                started(program.pid);
                self.follow(program, sinks).await
            }
            Err((message, code)) => {
                self.complain(&message, sinks).await;
                code
            }
        }
    }

    /// Says on standard error why something cannot be done.
    pub async fn complain(&self, message: &str, sinks: &Sinks) {
        if let Some(run) = &sinks.run {
            run.stderr(format!("kernel-runner: {message}\n"));
        }
        if sinks.console.is_some() {
            log!("{message}");
        }
    }

    /// Passes on what a program prints until it ends, and returns its exit code.
    ///
    /// Programs that it left in the background and that still hold its output keep running;
    /// what they print later goes to the console.
    pub async fn follow(&self, program: Started, sinks: &Sinks) -> i32 {
        let Started { mut exit, mut stdout, mut stderr, .. } = program;
        let run = sinks.run.as_ref();
        let code = loop {
            tokio::select! {
                piece = stdout.next(run) => sinks.take(&mut stdout, &piece).await,
                piece = stderr.next(run) => sinks.take(&mut stderr, &piece).await,
                is_password = self.input.next(), if run.is_some() => {
                    sinks.ask(is_password, &mut stdout, &mut stderr).await;
                }
                // The sender is dropped only with the whole runner.
                ended = &mut exit => break ended.map_or(NOT_STARTED, |exit| exit.code()),
            }
        };
        for mut capture in [stdout, stderr] {
            sinks.drain(&mut capture).await;
            sinks.finish(&mut capture);
            self.adopt(capture);
        }
        code
    }

    /// Copies what else is printed to the console.
    pub fn adopt(&self, mut capture: Capture) {
        let console = Rc::clone(&self.console);
        self.tasks.spawn_local(async move {
            while !capture.is_closed() {
                let piece = capture.next(None).await;
                console.write(capture.stream(), &piece).await;
            }
        });
    }
}
