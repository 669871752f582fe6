//! A real systemd, in a container: Debian's, with the bus, on the network of this machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::layout::Layout;
use crate::process::{lock, run};
use crate::wait::wait_for;

/// Debian release and packages: systemd, the bus, what our programs are linked with, and the
/// certificates without which they make no TLS client.
const DEBIAN: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libzmq5,libsodium23,ca-certificates";
/// The image, by what it is made of.
const IMAGE: &str = "halfstack/systemd:bookworm-2";
/// How long the boot may take on a busy machine.
const BOOT: Duration = Duration::from_secs(120);

/// A booted system; gone with its owner.
#[derive(Debug)]
pub struct SystemdHost {
    name: String,
}

impl SystemdHost {
    /// Boots a system with the files below `root` laid over it, and the programs `bin` in
    /// `/opt/backendai`.
    ///
    /// # Errors
    /// The image cannot be made, or it does not boot.
    pub async fn boot(layout: &Layout, name: &str, root: &Path, bin: &[&Path]) -> Result<Self> {
        ensure_image(layout).await?;
        let host = Self { name: name.to_owned() };
        // Not privileged, which this machine may not allow: named capabilities instead.
        run(Command::new("docker").args(["create", "--name", name, "--network", "host"]).args([
            "--cap-add",
            "SYS_ADMIN",
            "--cap-add",
            "NET_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--cgroupns=private",
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
            "-v",
            "/sys/fs/cgroup:/sys/fs/cgroup:rw",
            IMAGE,
            "/lib/systemd/systemd",
        ]))
        .await
        .context("docker create")?;
        let copy = async |from: &Path, to: &str| {
            run(Command::new("docker").arg("cp").arg(from).arg(format!("{name}:{to}"))).await
        };
        // `docker cp` makes no folder.
        std::fs::create_dir_all(root.join("opt/backendai"))?;
        copy(&root.join("."), "/").await?;
        for program in bin {
            let file = program.file_name().context("a program's name")?.to_string_lossy();
            copy(program, &format!("/opt/backendai/{file}")).await?;
        }
        run(Command::new("docker").args(["start", name])).await?;
        wait_for(BOOT, "systemd to boot", async || {
            // It exits with an error while booting, and when a unit of Debian's own failed.
            let state = host.exec("systemctl is-system-running || true").await?;
            Ok(["running", "degraded"].contains(&state.trim()).then_some(()))
        })
        .await?;
        Ok(host)
    }

    /// Runs a line of shell in it and returns what it prints.
    ///
    /// # Errors
    /// It fails; the message holds what it said.
    pub async fn exec(&self, line: &str) -> Result<String> {
        run(Command::new("docker").args(["exec", &self.name, "/bin/sh", "-c", line])).await
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// systemd cannot be asked.
    pub async fn property(&self, unit: &str, property: &str) -> Result<String> {
        let line = format!("systemctl show --property {property} --value {unit}");
        Ok(self.exec(&line).await?.trim().to_owned())
    }

    /// Starts a unit and waits for systemd to say how that went.
    ///
    /// # Errors
    /// It does not start; the message holds its journal.
    pub async fn start(&self, unit: &str) -> Result<()> {
        let started = self.exec(&format!("systemctl start {unit}")).await;
        if let Err(error) = started {
            let journal = self.exec(&format!("journalctl --no-pager -n 40 -u {unit}")).await?;
            return Err(error.context(journal));
        }
        Ok(())
    }
}

impl Drop for SystemdHost {
    fn drop(&mut self) {
        let removed =
            std::process::Command::new("docker").args(["rm", "-f", "-v", &self.name]).output();
        if let Err(error) = removed {
            eprintln!("docker rm {}: {error}", self.name);
        }
    }
}

/// Makes the image unless Docker has it.
///
/// # Errors
/// debootstrap needs root and a mirror.
pub async fn ensure_image(layout: &Layout) -> Result<()> {
    let _lock = lock(&layout.cache.join("systemd.lock")).await?;
    if run(Command::new("docker").args(["image", "inspect", IMAGE])).await.is_ok() {
        return Ok(());
    }
    let dir = tempfile::tempdir_in(&layout.cache)?;
    let root = dir.path().join("root");
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
    debootstrap.arg(DEBIAN).arg(&root).args(std::env::var_os("HALFSTACK_DEBIAN_MIRROR"));
    run(&mut debootstrap).await.context("debootstrap (needs root and a mirror)")?;
    let archive = dir.path().join("root.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".")).await?;
    run(Command::new("docker").arg("import").arg(&archive).arg(IMAGE)).await?;
    Ok(())
}
