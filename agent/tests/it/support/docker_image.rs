//! Images made on the spot: no registry is needed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where an engine would be.
pub fn engine_is_present() -> bool {
    Path::new("/var/run/docker.sock").exists()
}

/// Imports an image with busybox and one program at `/contract`. Importing the same files
/// again gives another id under the same name, so every caller chooses its own name.
pub fn import(name: &str, program: &str) {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::fs::create_dir(root.path().join("tmp")).unwrap();
    std::fs::copy("/usr/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["sh", "sleep", "echo", "cat", "id"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let contract = root.path().join("contract");
    std::fs::write(&contract, format!("#!/bin/sh\n{program}\n")).unwrap();
    std::fs::set_permissions(&contract, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut tar = Command::new("tar")
        .args(["-C", root.path().to_str().unwrap(), "-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let imported = Command::new("docker")
        .args(["import", "-", name])
        .stdin(tar.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert!(tar.wait().unwrap().success());
}

/// Removes images. Those that are gone already are no error.
pub fn remove(names: &[String]) {
    let done = Command::new("docker").args(["rmi", "-f"]).args(names).output();
    if let Err(error) = done {
        eprintln!("images stay behind: {error}");
    }
}
