//! A kernel's folders on the host.
//!
//! `{scratch-root}/{kernel}/work` becomes `/home/work`, `…/config` becomes `/home/config`
//! (read-only inside), and `{ipc-base-path}/{kernel}` holds the runner's socket. Nothing
//! that a user sends becomes a path here: names come from this file alone. What the folder
//! of a kernel lies on, [`volume`] knows.

pub mod volume;

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use backendai_rpc::agent_api::{KernelSpec, SessionSpec};
use backendai_rpc::runner::RunnerConfig;
use backendai_types::KernelId;
use backendai_types::size::ByteCount;
use rust_decimal::prelude::ToPrimitive;

use self::volume::Volume;
use crate::resources::Allocation;
use crate::work_folder::WorkFolder;

const BASHRC: &str = "\
# Made when the session started; yours to change.
PS1='work@${BACKENDAI_CLUSTER_HOST:-main1}[${BACKENDAI_SESSION_NAME:-session}]:\\w\\$ '
alias ls='ls --color=auto' ll='ls -l'
";
const BASH_PROFILE: &str = "[ -f ~/.bashrc ] && . ~/.bashrc\n";

/// How `ssh sub1` finds the other kernels of its session. Host keys are made anew with each
/// container, so there is none to remember; the network is the session's own.
const CLUSTER_SSH_CONFIG: &str = "
    Port 2200
    IdentityFile /home/config/ssh/id_cluster
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
";

/// Makes and removes kernels' folders.
#[derive(Clone, Debug)]
pub struct Scratch {
    scratch_root: PathBuf,
    ipc_root: PathBuf,
    uid: u32,
    gid: u32,
    volume: Volume,
}

/// Paths of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchPaths {
    /// Becomes `/home/work`.
    pub work: PathBuf,
    /// Becomes `/home/config`.
    pub config: PathBuf,
    /// Becomes `/tmp` and `/var/tmp` where the folders are limited: everything that a user
    /// who is not root can write then counts.
    pub tmp: Option<PathBuf>,
    /// Holds the runner's socket.
    pub ipc: PathBuf,
}

impl Scratch {
    /// Folders below these roots, which are made if need be; `uid` and `gid` own what the
    /// user may write. A kernel's folders in the first root lie on a `volume`.
    ///
    /// # Errors
    /// A root cannot be made, or volumes cannot be mounted by this process.
    pub fn open(
        scratch_root: &Path,
        ipc_root: &Path,
        (uid, gid): (u32, u32),
        volume: Volume,
    ) -> io::Result<Self> {
        if volume.is_limited() && !rustix::process::geteuid().is_root() {
            let why = "only an agent that is root can have another scratch-type than hostdir";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        fs::create_dir_all(scratch_root)?;
        fs::create_dir_all(ipc_root)?;
        // The engine wants absolute paths.
        Ok(Self {
            scratch_root: fs::canonicalize(scratch_root)?,
            ipc_root: fs::canonicalize(ipc_root)?,
            uid,
            gid,
            volume,
        })
    }

    /// The numeric user and group that own the work folder.
    pub fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// The paths of a kernel, whether they exist or not.
    pub fn paths(&self, kernel_id: KernelId) -> ScratchPaths {
        let folder = self.scratch_root.join(kernel_id.to_string());
        ScratchPaths {
            work: folder.join("work"),
            config: folder.join("config"),
            tmp: self.volume.is_limited().then(|| folder.join("tmp")),
            ipc: self.ipc_root.join(kernel_id.to_string()),
        }
    }

    /// Makes the folder of the socket if it does not exist. Blocks.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_ipc_dir(&self, kernel_id: KernelId) -> io::Result<PathBuf> {
        let ipc = self.paths(kernel_id).ipc;
        // Root alone: whoever opens the socket commands the kernel.
        DirBuilder::new().recursive(true).mode(0o700).create(&ipc)?;
        Ok(ipc)
    }

    /// Makes and fills a kernel's folders; with `keeps_work`, the work folder is left as its
    /// user has it. Blocks.
    ///
    /// # Errors
    /// Something cannot be written; what was is removed by [`Scratch::remove`].
    pub fn prepare(
        &self,
        session: &SessionSpec,
        spec: &KernelSpec,
        allocation: &Allocation,
        runner: &RunnerConfig,
        keeps_work: bool,
    ) -> io::Result<()> {
        let paths = self.paths(spec.kernel_id);
        self.volume.make(&self.scratch_root.join(spec.kernel_id.to_string()))?;
        if let Some(tmp) = &paths.tmp {
            DirBuilder::new().recursive(true).create(tmp)?;
            // As everywhere: for all, each his own. Not as the umask would have it.
            fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777))?;
        }
        DirBuilder::new().recursive(true).mode(0o755).create(&paths.config)?;
        DirBuilder::new().recursive(true).mode(0o755).create(&paths.work)?;
        self.give(&paths.work)?;

        let config = |name: &str, mode: u32, text: &str| {
            write_new(&paths.config.join(name), mode, text.as_bytes())
        };
        // Only the runner (root) reads this one; it has the user's commands and keys.
        config("runner.json", 0o600, &serde_json::to_string(runner)?)?;
        config("environ.txt", 0o644, &environ_text(runner))?;
        config("resource.txt", 0o644, &resource_text(spec, allocation, self.volume))?;
        let ssh = paths.config.join("ssh");
        DirBuilder::new().recursive(true).mode(0o755).create(&ssh)?;
        if let Some(keys) = &spec.ssh_keypair {
            // Lets the user in even where a folder of theirs is mounted as `.ssh`.
            write_new(&ssh.join("id_container.pub"), 0o644, keys.public_key.as_bytes())?;
        }
        if let Some(keys) = &session.cluster_ssh_keypair {
            write_new(&ssh.join("id_cluster"), 0o600, keys.private_key.as_bytes())?;
            // Read by ssh as the kernel's user.
            self.give(&ssh.join("id_cluster"))?;
            write_new(&ssh.join("id_cluster.pub"), 0o644, keys.public_key.as_bytes())?;
        }

        if keeps_work {
            return Ok(());
        }
        let work = WorkFolder::open(&paths.work, self.owner_to_give())?;
        work.write(".bashrc", 0o644, BASHRC.as_bytes())?;
        work.write(".bash_profile", 0o644, BASH_PROFILE.as_bytes())?;
        let has_own_ssh = spec.mounts.iter().any(|m| m.kernel_path == "/home/work/.ssh");
        if let Some(keys) = &spec.ssh_keypair {
            work.write("id_container", 0o600, keys.private_key.as_bytes())?;
            if !has_own_ssh {
                let authorized = format!("{}\n", keys.public_key.trim_end());
                work.make_dir(".ssh", 0o700)?;
                work.write(".ssh/authorized_keys", 0o600, authorized.as_bytes())?;
                work.write(".ssh/id_rsa", 0o600, keys.private_key.as_bytes())?;
            }
        }
        if session.cluster_ssh_keypair.is_some() && !has_own_ssh {
            work.make_dir(".ssh", 0o700)?;
            let hosts: Vec<&str> = session.hosts.iter().map(|host| &*host.hostname).collect();
            let config = format!("Host {}{CLUSTER_SSH_CONFIG}", hosts.join(" "));
            work.write(".ssh/config", 0o600, config.as_bytes())?;
        }
        for dotfile in &spec.dotfiles {
            work.write(&dotfile.path, dotfile.mode, dotfile.data.as_bytes()).map_err(|error| {
                io::Error::new(error.kind(), format!("place dotfile {:?}: {error}", dotfile.path))
            })?;
        }
        Ok(())
    }

    /// Removes all folders of a kernel. Blocks. Those that do not exist are no error.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self, kernel_id: KernelId) -> io::Result<()> {
        for root in [&self.scratch_root, &self.ipc_root] {
            volume::remove(&root.join(kernel_id.to_string()))?;
        }
        Ok(())
    }

    /// Where the kernels' folders lie.
    pub fn root(&self) -> &Path {
        &self.scratch_root
    }

    /// Kernels that have a folder. Blocks.
    ///
    /// # Errors
    /// A root cannot be read.
    pub fn kernels(&self) -> io::Result<Vec<KernelId>> {
        let mut found = Vec::new();
        for root in [&self.scratch_root, &self.ipc_root] {
            for entry in fs::read_dir(root)? {
                let name = entry?.file_name();
                let kernel = volume::kernel_name(Path::new(&name));
                found.extend(kernel.and_then(|name| name.parse::<KernelId>().ok()));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Makes the kernel's user the owner, where this process may.
    fn give(&self, path: &Path) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner_to_give() {
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// The kernel's user and group, where this process may make them owners.
    fn owner_to_give(&self) -> Option<(u32, u32)> {
        rustix::process::geteuid().is_root().then_some((self.uid, self.gid))
    }
}

fn write_new(path: &Path, mode: u32, body: &[u8]) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(body)
}

/// `K=V` lines for programs that look at the file; the runner has its own copy.
fn environ_text(runner: &RunnerConfig) -> String {
    runner.environ.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// The product's own description of what a kernel holds.
fn resource_text(spec: &KernelSpec, allocation: &Allocation, volume: Volume) -> String {
    let mounts: Vec<String> = spec
        .mounts
        .iter()
        .map(|mount| {
            let permission = if mount.read_only { "ro" } else { "rw" };
            format!("{}:{}:{permission}", mount.host_path, mount.kernel_path)
        })
        .collect();
    let slots = serde_json::to_string(&allocation.slots()).unwrap_or_default();
    let size = volume.size() >> 20;
    let mut text = format!("SCRATCH_SIZE={size}m\nMOUNTS={}\nSLOTS={slots}\n", mounts.join(","));
    for (slot, shares) in allocation.0.values().flatten() {
        let shares: Vec<String> = shares
            .iter()
            .map(|(device, amount)| match amount.to_u64() {
                Some(bytes) if slot.is_bytes() => {
                    format!("{device}:{}", ByteCount(bytes).humanize())
                }
                _ => format!("{device}:{}", amount.normalize()),
            })
            .collect();
        let name = slot.0.to_uppercase();
        text.push_str(&format!("{name}_SHARES={}\n", shares.join(",")));
    }
    text
}
