//! Who comes in, and what strangers do.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use backendai_rpc::runner::{SSHD_PORT, StreamTarget};

use super::{Host, LOGIN, make_key};
use crate::support::Setup;

fn log_in(host: &Host, key: &str, user: &str) -> Output {
    let login = format!("{user}@127.0.0.1");
    host.client("ssh", key).args(["-o", "LogLevel=ERROR", &login, "echo in"]).output().unwrap()
}

fn is_refused(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.code() == Some(255) && said.contains("Permission denied (publickey)")
}

#[test]
fn keys_of_every_usual_kind_open_the_kernel() {
    let host = Host::new();
    for kind in ["rsa", "ecdsa"] {
        host.authorize(&make_key(host.folder.path(), kind, kind));
        let output = log_in(&host, kind, "work");
        assert_eq!(output.stdout, b"in\n", "{kind}: {output:?}");
    }
    assert_eq!(log_in(&host, "id", "work").stdout, b"in\n");
}

#[test]
fn the_platforms_keys_open_a_kernel_without_authorized_keys() {
    let setup = Setup::new("app");
    let keys = setup.folder.path().join("ssh");
    std::fs::create_dir(&keys).unwrap();
    make_key(&keys, "id_container", "ed25519");
    let host = Host::unlocked(setup);
    let private = std::fs::read(keys.join("id_container")).unwrap();
    std::fs::write(host.key("id"), private).unwrap();
    std::fs::set_permissions(host.key("id"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(log_in(&host, "id", "work").stdout, b"in\n");
}

#[test]
fn strangers_stay_outside() {
    let host = Host::new();
    make_key(host.folder.path(), "stranger", "ed25519");
    let output = log_in(&host, "stranger", "work");
    assert!(is_refused(&output), "{output:?}");
    for user in ["root", "nobody", "Work"] {
        let output = log_in(&host, "id", user);
        assert!(is_refused(&output), "{user}: {output:?}");
    }
    // An option restricts its key, so it lets nobody in.
    let restricted = make_key(host.folder.path(), "restricted", "ed25519");
    host.authorize(&format!("restrict {restricted}"));
    assert!(is_refused(&log_in(&host, "restricted", "work")));
    // A password is not even asked for.
    let output = host
        .client("ssh", "stranger")
        .args(["-o", "PreferredAuthentications=password", LOGIN, "echo in"])
        .output()
        .unwrap();
    assert!(is_refused(&output), "{output:?}");
    host.wait_until_idle();
}

#[test]
fn the_host_key_stays_for_the_kernels_life() {
    let host = Host::new();
    host.output("true");
    let strict = host
        .client("ssh", "id")
        .args(["-o", "StrictHostKeyChecking=yes", LOGIN, "true"])
        .output()
        .unwrap();
    assert!(strict.status.success(), "{strict:?}");
    let other = Host::new();
    other.output("true");
    let known = |host: &Host| {
        let text = std::fs::read_to_string(host.key("known_hosts")).unwrap();
        text.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_ne!(known(&host), known(&other));
}

#[test]
fn rubbish_and_huge_packets_end_their_connection_and_nothing_else() {
    let host = Host::new();
    let huge = [b"SSH-2.0-x\r\n".as_slice(), &u32::MAX.to_be_bytes(), &[0; 4096]].concat();
    let long_name = vec![b'x'; 1 << 20];
    for rubbish in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &huge, &long_name] {
        let mut stream = host.agent.lock().unwrap().open(StreamTarget::Port(SSHD_PORT));
        // The far end may close before it has taken all of it.
        let _ = stream.write_all(rubbish);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
    }
    host.wait_until_idle();
    assert_eq!(host.output("echo well"), "well\n");
}
