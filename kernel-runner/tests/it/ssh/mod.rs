//! The ssh server, used by OpenSSH's own programs.

mod access;
mod files;
mod forward;
mod programs;
mod terminal;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use backendai_rpc::runner::{SSHD_PORT, StreamTarget};
use tempfile::TempDir;

use crate::support::{Agent, Setup, wait_until};

/// As whom to log in, and where.
pub const LOGIN: &str = "work@127.0.0.1";

/// A kernel whose ssh server is reached by a port of this machine, as through an agent.
pub struct Host {
    pub agent: Arc<Mutex<Agent>>,
    pub folder: TempDir,
    pub port: u16,
    /// Connections that were made, to cut them.
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Host {
    /// A kernel that lets in the key `id` of [`Self::key`].
    pub fn new() -> Self {
        Self::of(Setup::new("app"))
    }

    pub fn of(setup: Setup) -> Self {
        let host = Self::unlocked(setup);
        host.authorize(&make_key(host.folder.path(), "id", "ed25519"));
        host
    }

    /// A kernel that lets nobody in yet.
    pub fn unlocked(setup: Setup) -> Self {
        let agent = Arc::new(Mutex::new(setup.start()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (weak, made) = (Arc::downgrade(&agent), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Some(agent) = weak.upgrade() else { return };
                let client = client.unwrap();
                made.lock().unwrap().push(client.try_clone().unwrap());
                let kernel = agent.lock().unwrap().open(StreamTarget::Port(SSHD_PORT));
                kernel.set_read_timeout(None).unwrap();
                join(client, kernel);
            }
        });
        Self { agent, folder: tempfile::tempdir().unwrap(), port, connections }
    }

    /// Lets a public key in, as its owner would.
    pub fn authorize(&self, public: &str) {
        let folder = self.work().join(".ssh");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("authorized_keys");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(public.as_bytes()).unwrap();
    }

    pub fn work(&self) -> PathBuf {
        self.agent.lock().unwrap().work()
    }

    /// A private key of [`make_key`].
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of OpenSSH's programs with the options that all of them take.
    pub fn client(&self, program: &str, key: &str) -> Command {
        let known = format!("UserKnownHostsFile={}", self.key("known_hosts").display());
        let port = format!("Port={}", self.port);
        let mut command = Command::new(program);
        command.args(["-F", "/dev/null", "-i", self.key(key).to_str().unwrap()]);
        for option in
            ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "BatchMode=yes", &known, &port]
        {
            command.args(["-o", option]);
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn ssh(&self) -> Command {
        let mut command = self.client("ssh", "id");
        command.args(["-o", "LogLevel=ERROR", LOGIN]);
        command
    }

    /// Runs a command in the kernel.
    pub fn run(&self, command: &str) -> Output {
        self.ssh().arg(command).output().unwrap()
    }

    /// Its standard output, if it went well.
    pub fn output(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs lines of sftp's language; returns what was printed.
    pub fn sftp(&self, lines: &str) -> Output {
        let batch = self.key("batch");
        std::fs::write(&batch, lines).unwrap();
        let mut command = self.client("sftp", "id");
        command.args(["-b", batch.to_str().unwrap(), LOGIN]).output().unwrap()
    }

    /// Cuts every connection in the middle.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            // The client may have left already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Waits until nothing runs in the kernel but the runner.
    pub fn wait_until_idle(&self) {
        let runner = self.agent.lock().unwrap().runner.id();
        wait_until("the last process of the kernel ended", || children(runner).is_empty());
    }
}

/// Makes a pair of keys in `folder`; returns the line of the public one.
pub fn make_key(folder: &Path, name: &str, kind: &str) -> String {
    let path = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", "", "-f", path.to_str().unwrap()])
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn children(parent: u32) -> Vec<String> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Passes bytes on in both directions until both ends are done.
fn join(client: TcpStream, kernel: UnixStream) {
    let (mut from_client, mut to_client) = (client.try_clone().unwrap(), client);
    let (mut from_kernel, mut to_kernel) = (kernel.try_clone().unwrap(), kernel);
    // Either end may go at any time; the other one is told and that is all.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_kernel);
        let _ = to_kernel.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from_kernel, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

/// Reads all that comes.
pub fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}
