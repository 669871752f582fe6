//! Commands: their input and output, how they end, and what outlives them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Host, read_all};
use crate::support::wait_until;

/// More than all buffers between the two ends hold.
const MUCH: usize = 24 << 20;

#[test]
fn a_command_has_the_kernels_environment_and_both_outputs() {
    let host = Host::new();
    let output = host
        .ssh()
        .args(["-o", "SetEnv=GIVEN=by-client", "echo $FROM_CONFIG $GIVEN $USER; pwd; echo bad >&2"])
        .output()
        .unwrap();
    let expected = format!("yes by-client work\n{}\n", host.work().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(output.stderr, b"bad\n");
    assert!(host.output("echo $SSH_CONNECTION").starts_with("UNKNOWN"));
}

#[test]
fn the_end_of_a_command_is_told() {
    let host = Host::new();
    assert_eq!(host.run("exit 7").status.code(), Some(7));
    assert_eq!(host.run("no-such-program").status.code(), Some(127));
    // What the client makes of a signal.
    assert_eq!(host.run("kill -9 $$").status.code(), Some(255));
}

#[test]
fn input_reaches_the_command_and_its_end_too() {
    let host = Host::new();
    let mut client = host
        .ssh()
        .arg("cat; echo end")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"text\n").unwrap();
    assert_eq!(client.wait_with_output().unwrap().stdout, b"text\nend\n");
}

/// The command's output waits for messages of the client that are behind its input.
#[test]
fn a_command_that_prints_before_it_reads_gets_all_of_its_input() {
    let host = Host::new();
    let input = host.key("input");
    let bytes: Vec<u8> = (0..MUCH as u32 / 4).flat_map(u32::to_ne_bytes).collect();
    std::fs::write(&input, &bytes).unwrap();
    let mut client = host
        .ssh()
        .arg(format!("head -c {MUCH} /dev/zero; cat"))
        .stdin(File::open(&input).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = read_all(client.stdout.take().unwrap());
    assert!(client.wait().unwrap().success());
    assert_eq!(output.len(), 2 * MUCH);
    assert!(output[..MUCH].iter().all(|byte| *byte == 0) && output[MUCH..] == bytes);
}

#[test]
fn a_command_that_does_not_read_stops_its_client_and_no_other_session() {
    let host = Host::new();
    let control = format!("ControlPath={}", host.key("control").display());
    let input = host.key("input");
    File::create(&input).unwrap().set_len(1 << 30).unwrap();
    let mut client = host
        .ssh()
        .args(["-o", &control, "-o", "ControlMaster=yes", "echo $$; exec sleep 1000"])
        .stdin(File::open(&input).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pid = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let sent = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", client.id())).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    wait_until("the client sends", || sent() > 1 << 19);
    // Meanwhile a client that need not wait would send hundreds of megabytes.
    for number in 0..20 {
        let output = host.ssh().args(["-o", &control, &format!("echo {number}")]).output().unwrap();
        assert_eq!(output.stdout, format!("{number}\n").as_bytes());
    }
    assert!(sent() < 8 << 20, "{} bytes", sent());
    kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(255));
    host.wait_until_idle();
}

#[test]
fn a_detached_process_outlives_its_connection_and_others_see_it() {
    let host = Host::new();
    let started = "nohup setsid sleep 1000 > /dev/null 2>&1 < /dev/null & echo $!";
    let pid: i32 = host.output(started).trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    host.cut();
    assert_eq!(
        host.output(&format!("kill -0 {pid} && echo alive", pid = pid.as_raw_nonzero())),
        "alive\n"
    );
    kill_process(pid, Signal::TERM).unwrap();
    wait_until("it was collected", || test_kill_process(pid).is_err());
}

#[test]
fn many_sessions_share_a_connection() {
    let host = Host::new();
    let control = host.key("control");
    let control = format!("ControlPath={}", control.display());
    let mut master = host
        .ssh()
        .args(["-o", &control, "-o", "ControlMaster=yes", "echo up; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the connection is there", || host.key("control").exists());
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let mut client = host.ssh();
            client.args(["-o", &control, &format!("echo {number}; exit {number}")]);
            client.stdout(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(number as i32));
        assert_eq!(output.stdout, format!("{number}\n").as_bytes());
    }
    drop(master.stdin.take());
    assert!(master.wait().unwrap().success());
    host.wait_until_idle();
}
