//! What clients may run.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{OURSELVES, SFTP_MODE, USER};
use crate::command::{self, NOT_STARTED};
use crate::environ::Environ;

/// What clients may run, and with what.
pub struct Programs {
    environ: Environ,
    work: PathBuf,
}

impl Programs {
    /// Programs with `environ`, and what an ssh server adds to it. `work` is the home.
    pub fn new(
        mut environ: Environ,
        work: PathBuf,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> Self {
        environ.set_default("USER", USER);
        environ.set_default("LOGNAME", USER);
        let (client, connection) = match addresses {
            Some((client, server)) => {
                let (host, port) = (client.ip().to_canonical(), client.port());
                let (own_host, own_port) = (server.ip().to_canonical(), server.port());
                (
                    format!("{host} {port} {own_port}"),
                    format!("{host} {port} {own_host} {own_port}"),
                )
            }
            // As OpenSSH says of what is no TCP connection.
            None => {
                let unknown = "UNKNOWN 65535";
                (format!("{unknown} 65535"), format!("{unknown} {unknown}"))
            }
        };
        environ.set("SSH_CLIENT", client);
        environ.set("SSH_CONNECTION", connection);
        Self { environ, work }
    }

    /// The common environment.
    pub fn environ(&self) -> &Environ {
        &self.environ
    }

    /// The home.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The user's shell, if the image has it.
    fn shell(&self) -> Option<&Path> {
        let shell = self.environ.get("SHELL").map(Path::new);
        let known = [shell, Some(Path::new(command::SHELL))];
        known.into_iter().flatten().find(|path| path.exists())
    }

    /// The program to start, or what to tell the client.
    pub fn command(&self, start: Start<'_>) -> Result<Command, (String, i32)> {
        match (start, self.shell()) {
            (Start::Sftp, _) => {
                let mut command = Command::new(OURSELVES);
                command.arg(SFTP_MODE);
                Ok(command)
            }
            (Start::Shell, Some(shell)) => {
                let mut name = OsString::from("-");
                name.push(shell.file_name().unwrap_or_default());
                let mut command = Command::new(shell);
                // The sign of a login shell.
                command.arg0(name);
                Ok(command)
            }
            (Start::Shell, None) => Err(("this image has no shell".to_owned(), NOT_STARTED)),
            (Start::Command(line), Some(shell)) => {
                let mut command = Command::new(shell);
                command.arg("-c").arg(OsStr::from_bytes(line));
                Ok(command)
            }
            (Start::Command(line), None) => {
                let line = String::from_utf8_lossy(line);
                let (path, args) = command::split(&line, &self.environ, &self.work)?;
                let mut command = Command::new(path);
                command.args(args);
                Ok(command)
            }
        }
    }
}

/// What a session runs.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// A login shell.
    Shell,
    /// A line for the shell.
    Command(&'a [u8]),
    /// The sftp server.
    Sftp,
}
