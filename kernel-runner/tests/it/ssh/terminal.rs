//! Sessions with a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::Host;

/// A person at a terminal.
struct Person {
    client: Child,
    terminal: File,
    seen: String,
}

impl Person {
    /// Runs `ssh` on a terminal of this machine.
    fn new(host: &Host, rows: u16, cols: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&ours).unwrap();
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).unwrap();
        tcsetwinsize(&ours, size(rows, cols)).unwrap();
        let ssh = host.ssh();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(ssh.get_program()).args(ssh.get_args());
        command.env("TERM", "vt220");
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        let client = command.stderr(theirs).spawn().unwrap();
        Self { client, terminal: ours.into(), seen: String::new() }
    }

    fn enter(&mut self, line: &str) {
        self.terminal.write_all(format!("{line}\r").as_bytes()).unwrap();
    }

    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let mut piece = [0; 4096];
            let length = self.terminal.read(&mut piece).unwrap_or(0);
            assert!(length > 0, "no {text:?} in {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    }
}

fn size(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

#[test]
fn a_person_works_in_a_shell() {
    let host = Host::new();
    let mut person = Person::new(&host, 31, 101);
    person.enter("echo $TERM-$((6 * 7)); stty size");
    person.until("vt220-42\r\n");
    person.until("31 101\r\n");
    tcsetwinsize(&person.terminal, size(40, 120)).unwrap();
    // The client tells the new size a moment later.
    person.enter("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.02; done; echo re''sized");
    person.until("resized\r\n");
    // Ctrl-C ends the program, not the shell.
    // The program itself says that it runs: before, the shell would be the one interrupted.
    person.enter("sh -c \"echo sl''eeps; exec sleep 1000\"");
    person.until("sleeps\r\n");
    person.terminal.write_all(b"\x03").unwrap();
    person.enter("echo interr''upted");
    person.until("interrupted\r\n");
    person.enter("test -t 0 && test \"$SSH_TTY\" = \"$(tty)\" && echo own tty''; exit 5");
    person.until("own tty\r\n");
    assert_eq!(person.client.wait().unwrap().code(), Some(5));
    host.wait_until_idle();
}

#[test]
fn a_lost_connection_hangs_the_terminal_up() {
    let host = Host::new();
    let mut person = Person::new(&host, 24, 80);
    person.enter("sleep 1000 & echo beg''un");
    person.until("begun\r\n");
    host.cut();
    host.wait_until_idle();
    assert_eq!(person.client.wait().unwrap().code(), Some(255));
}

#[test]
fn a_terminal_is_given_where_the_client_has_none() {
    let host = Host::new();
    let lines = host.key("lines");
    std::fs::write(&lines, "echo $((6 * 7))\nexit 3\n").unwrap();
    let output = host.ssh().arg("-tt").stdin(File::open(&lines).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("42\r\n"), "{output:?}");
}
