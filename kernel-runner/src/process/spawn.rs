//! Starts programs as the user.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use rustix::fs::{Gid, Uid};
use rustix::io::FdFlags;
use rustix::process::Pid;
use tokio::sync::oneshot;

use super::{Capture, Exit, Reaper, Stream};
use crate::environ::Environ;

/// This program, whatever the image has: the path of helpers.
pub const OURSELVES: &str = "/proc/self/exe";

/// What to start.
pub struct Program<'a> {
    /// The file, with a slash.
    pub path: &'a Path,
    /// Its arguments, without its name.
    pub args: Vec<OsString>,
    /// Variables beside the common environment.
    pub variables: Vec<(&'a str, &'a str)>,
    /// Descriptors that it keeps, under their numbers. All others are closed.
    pub inherit: Vec<BorrowedFd<'a>>,
}

/// A program that was started.
pub struct Started {
    /// Its id, and that of its session and process group.
    pub pid: Pid,
    /// Resolves when it ended.
    pub exit: oneshot::Receiver<Exit>,
    /// What it prints.
    pub stdout: Capture,
    /// What it complains about.
    pub stderr: Capture,
}

/// A program that was started on a terminal, which has its input and output.
pub struct StartedOnTerminal {
    /// Its id, and that of its session and process group.
    pub pid: Pid,
    /// Resolves when it ended.
    pub exit: oneshot::Receiver<Exit>,
}

/// Starts programs.
pub struct Spawner {
    reaper: Rc<Reaper>,
    /// User and group; `None` to stay what the runner is.
    ids: Option<(u32, u32)>,
    environ: Environ,
    work: PathBuf,
}

impl Spawner {
    /// Programs run as `ids` in `work`, with `environ`.
    pub fn new(
        reaper: Rc<Reaper>,
        ids: Option<(u32, u32)>,
        environ: Environ,
        work: PathBuf,
    ) -> Self {
        Self { reaper, ids, environ, work }
    }

    /// Collects what is started here.
    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    /// The common environment.
    pub fn environ(&self) -> &Environ {
        &self.environ
    }

    /// The working directory.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// User and group that programs switch to.
    pub fn ids(&self) -> Option<(u32, u32)> {
        self.ids
    }

    /// Starts a program in a session of its own, with nothing on standard input and its
    /// output captured.
    ///
    /// # Errors
    /// If the file cannot be executed, or the system has no room for another process.
    pub fn start(&self, program: &Program<'_>) -> io::Result<Started> {
        let (stdout, child_stdout) = self.pipe(Stream::Stdout)?;
        let (stderr, child_stderr) = self.pipe(Stream::Stderr)?;
        let mut command = self.command(program);
        command.stdin(Stdio::null()).stdout(child_stdout).stderr(child_stderr);
        detach(&mut command, &program.inherit, false);
        let (pid, exit) = self.spawn(command)?;
        Ok(Started { pid, exit, stdout, stderr })
    }

    /// Starts a program in a session of its own, whose terminal is `terminal`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on_terminal(
        &self,
        program: &Program<'_>,
        terminal: OwnedFd,
    ) -> io::Result<StartedOnTerminal> {
        let mut command = self.command(program);
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
        detach(&mut command, &program.inherit, true);
        let (pid, exit) = self.spawn(command)?;
        Ok(StartedOnTerminal { pid, exit })
    }

    /// Starts a program in a session of its own, with these as standard input and output.
    /// What it complains about goes to the container's log. Returns what resolves when it
    /// ended.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_connected(
        &self,
        program: &Program<'_>,
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> io::Result<oneshot::Receiver<Exit>> {
        let mut command = self.command(program);
        command.stdin(stdin).stdout(stdout).stderr(Stdio::inherit());
        detach(&mut command, &program.inherit, false);
        Ok(self.spawn(command)?.1)
    }

    fn command(&self, program: &Program<'_>) -> Command {
        let mut command = Command::new(program.path);
        command.args(&program.args).env_clear().envs(self.environ.iter());
        command.envs(program.variables.iter().copied());
        if self.work.is_dir() {
            command.current_dir(&self.work);
        } else {
            command.current_dir("/");
        }
        if let Some((uid, gid)) = self.ids {
            // As root this also drops all supplementary groups.
            command.uid(uid).gid(gid);
        }
        command
    }

    fn spawn(&self, mut command: Command) -> io::Result<(Pid, oneshot::Receiver<Exit>)> {
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        Ok((pid, self.reaper.register(pid)))
    }

    /// A pipe whose end for the child belongs to the user, so that the program may open
    /// `/dev/stdout` by name.
    fn pipe(&self, stream: Stream) -> io::Result<(Capture, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        if let Some((uid, gid)) = self.ids {
            // Without the capability the program cannot open it by name, and that is all.
            let _ = rustix::fs::fchown(&writer, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
        Ok((Capture::new(stream, reader.into())?, writer.into()))
    }
}

/// Makes the child the leader of a session, whose terminal is its standard input if there is
/// a `terminal`, and lets it keep some descriptors, which must stay open until it is started.
#[expect(unsafe_code, reason = "code between fork and exec")]
pub fn detach(command: &mut Command, inherit: &[BorrowedFd<'_>], terminal: bool) {
    let numbers: Vec<_> = inherit.iter().map(AsRawFd::as_raw_fd).collect();
    let in_child = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        for number in &numbers {
            // SAFETY: the caller of `start` holds these open until the fork is done.
            let fd = unsafe { BorrowedFd::borrow_raw(*number) };
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor locks.
    unsafe { command.pre_exec(in_child) };
}

/// Runs `action` with the user's rights. These belong to the thread, so the rest of the
/// runner stays root.
pub fn as_user<T>(
    ids: Option<(u32, u32)>,
    action: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
    let Some((uid, gid)) = ids else { return action() };
    set_thread_res_gid(None::<Gid>, Gid::from_raw(gid), None::<Gid>)?;
    set_thread_res_uid(None::<Uid>, Uid::from_raw(uid), None::<Uid>)?;
    let result = action();
    set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>)?;
    set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>)?;
    result
}
