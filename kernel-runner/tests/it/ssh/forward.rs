//! Ports of the kernel for the client, and the client's agent for the kernel.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use super::{Host, LOGIN, read_all};

#[test]
fn a_port_of_the_kernel_is_reached() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for name in ["127.0.0.1", "localhost"] {
        let mut client = host
            .client("ssh", "id")
            .args(["-o", "LogLevel=ERROR", "-W", &format!("{name}:{port}"), LOGIN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut service, _) = listener.accept().unwrap();
        service.write_all(b"hello").unwrap();
        let mut greeting = [0; 5];
        client.stdout.as_mut().unwrap().read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(b"question").unwrap();
        drop(stdin);
        assert_eq!(read_all(&mut service), b"question");
        service.write_all(b"answer").unwrap();
        drop(service);
        assert_eq!(read_all(client.stdout.take().unwrap()), b"answer");
        client.wait().unwrap();
    }
    host.wait_until_idle();
}

#[test]
fn a_port_that_nobody_has_and_a_name_that_is_none_are_refused() {
    let host = Host::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for target in [free.to_string(), "no.such.host:80".to_owned()] {
        let output = host.client("ssh", "id").args(["-W", &target, LOGIN]).output().unwrap();
        assert_eq!(output.status.code(), Some(255));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("open failed: connect failed"), "{said}");
    }
}

#[test]
fn the_clients_agent_is_there_while_the_connection_is() {
    let host = Host::new();
    let socket = host.key("agent");
    let mut agent = Command::new("ssh-agent")
        .args(["-D", "-a", socket.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    crate::support::wait_until("the agent listens", || socket.exists());
    let added = Command::new("ssh-add")
        .args(["-q", host.key("id").to_str().unwrap()])
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .unwrap();
    assert!(added.success());
    let output = host
        .ssh()
        .args(["-A", "echo $SSH_AUTH_SOCK; ssh-add -L"])
        .env("SSH_AUTH_SOCK", &socket)
        .output()
        .unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (path, keys) = text.split_once('\n').unwrap();
    let public = std::fs::read_to_string(host.key("id").with_extension("pub")).unwrap();
    assert_eq!(keys, public);
    host.wait_until_idle();
    assert!(!std::path::Path::new(path).exists(), "{path} is left");
    // Nobody offered one.
    assert_eq!(host.output("echo ${SSH_AUTH_SOCK:-none}"), "none\n");
}
