//! The launcher beside programs that only say who they are.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

fn program(path: &Path, code: i32) {
    let name = path.file_name().unwrap().display();
    std::fs::write(path, format!("#!/bin/sh\necho {name} \"$@\"\nexit {code}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(launcher: &Path, path: &str, arguments: &[&str]) -> Output {
    Command::new(launcher).args(arguments).env("PATH", path).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn our_programs_and_the_client_get_their_command_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, client) = (dir.path().join("ours"), dir.path().join("client"));
    std::fs::create_dir_all(&ours).unwrap();
    std::fs::create_dir_all(&client).unwrap();
    // Under its name in use, and found again under it in PATH: it must not call itself.
    let launcher = ours.join("backend.ai");
    std::fs::copy(env!("CARGO_BIN_EXE_backendai"), ours.join("backendai")).unwrap();
    symlink("backendai", &launcher).unwrap();
    program(&ours.join("backendai-manager"), 7);
    program(&client.join("backendai-agent"), 0);
    program(&client.join("backend.ai"), 3);
    let path = format!("{}:{}:/bin:/usr/bin", ours.display(), client.display());

    let manager = run(&launcher, &path, &["mgr", "etcd", "put", "a b", ""]);
    assert_eq!(text(&manager.stdout), "backendai-manager etcd put a b \n");
    assert_eq!(manager.status.code(), Some(7));
    let agent = run(&launcher, &path, &["ag", "start-server"]);
    assert_eq!(text(&agent.stdout), "backendai-agent start-server\n");
    let client = run(&launcher, &path, &["session", "list"]);
    assert_eq!(text(&client.stdout), "backend.ai session list\n");
    assert_eq!(client.status.code(), Some(3));
    let missing = run(&launcher, &path, &["watcher"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("backendai-watcher"), "{missing:?}");

    let alone = format!("{}:/bin:/usr/bin", ours.display());
    let help = run(&launcher, &alone, &["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("mgr"), "{help:?}");
    let missing = run(&launcher, &alone, &["ps"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(text(&missing.stderr).contains("backend.ai-client"), "{missing:?}");
}
