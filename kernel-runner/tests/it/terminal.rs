//! The kernel's terminal, as the agent sees it.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use backendai_rpc::runner::terminal::{TerminalCodec, TerminalInput};
use backendai_rpc::runner::{StreamError, StreamTarget};
use bytes::BytesMut;
use tokio_util::codec::Encoder;

use crate::support::{Agent, Setup, wait_until};

/// A viewer.
pub struct Viewer {
    stream: UnixStream,
    /// Number of the first byte in `seen`.
    first: u64,
    seen: Vec<u8>,
}

impl Viewer {
    pub fn new(agent: &mut Agent, from: Option<u64>) -> Self {
        let mut stream = agent.open(StreamTarget::Terminal { from });
        let mut first = [0; 8];
        stream.read_exact(&mut first).unwrap();
        Self { stream, first: u64::from_be_bytes(first), seen: Vec::new() }
    }

    fn send(&mut self, input: TerminalInput) {
        let mut frame = BytesMut::new();
        TerminalCodec.encode(input, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn type_in(&mut self, text: &str) {
        self.send(TerminalInput::Input(text.to_owned().into()));
    }

    /// False at the end.
    fn read(&mut self) -> bool {
        let mut piece = [0; 1 << 14];
        let length = match self.stream.read(&mut piece) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}: {}", self.text()),
        };
        self.seen.extend_from_slice(&piece[..length]);
        length > 0
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub fn until(&mut self, text: &str) {
        let mut searched = 0;
        while !String::from_utf8_lossy(&self.seen[searched..]).contains(text) {
            searched = self.seen.len().saturating_sub(text.len());
            assert!(self.read(), "no {text:?} in {:?}", self.text());
        }
    }

    fn read_all(&mut self) {
        while self.read() {}
    }

    /// Number of the next byte.
    fn position(&self) -> u64 {
        self.first + self.seen.len() as u64
    }
}

#[test]
fn a_shell_runs_in_a_terminal_of_the_last_size() {
    let mut agent = Setup::new("app").start();
    let mut viewer = Viewer::new(&mut agent, None);
    assert_eq!(viewer.first, 0);
    viewer.type_in("echo $FROM_CONFIG-$((6 * 7)) $TERM; pwd; test -t 0 && stty size\n");
    viewer.until("yes-42 xterm-256color\r\n");
    viewer.until(&format!("{}\r\n", agent.work().display()));
    viewer.until("24 80\r\n");
    viewer.send(TerminalInput::Resize { rows: 50, cols: 132 });
    viewer.type_in("stty size\n");
    viewer.until("50 132\r\n");
    // Control characters reach the program in the foreground.
    viewer.type_in("sh -c 'echo begun-$((1 + 1)); exec sleep 1000'\n");
    viewer.until("begun-2");
    viewer.type_in("\x03");
    viewer.type_in("echo status $?\n");
    viewer.until("status 130");
}

#[test]
fn a_viewer_that_comes_back_misses_and_repeats_nothing() {
    let mut agent = Setup::new("app").start();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.type_in("PS1=; stty -echo; seq 30000; echo la''st\n");
    viewer.until("\n777\r\n");
    let mut seen = std::mem::take(&mut viewer.seen);
    viewer.first += seen.len() as u64;
    drop(viewer);
    // It goes on while nobody looks, and while the agent is away.
    agent.disconnect();
    agent.listen();
    agent.accept();
    let from = seen.len() as u64;
    let mut viewer = Viewer::new(&mut agent, Some(from));
    assert_eq!(viewer.first, from);
    viewer.until("last\r\n");
    seen.extend_from_slice(&viewer.seen);
    let seen = String::from_utf8(seen).unwrap();
    let numbers: String = (1..=30000).map(|number| format!("{number}\r\n")).collect();
    assert!(seen.contains(&format!("{numbers}last\r\n")), "{}", &seen[..2000]);
    // A number that never was means everything.
    let mut other = Viewer::new(&mut agent, Some(1 << 40));
    assert_eq!(other.first, 0);
    other.until("last\r\n");
    assert!(other.text().starts_with(&seen));
}

#[test]
fn a_shell_that_ends_ends_its_streams_and_the_next_look_starts_another() {
    let mut agent = Setup::new("app").start();
    let mut one = Viewer::new(&mut agent, None);
    let mut two = Viewer::new(&mut agent, None);
    two.type_in("x=kept; echo fi''rst; (sleep 1 &); exit\n");
    one.read_all();
    two.read_all();
    assert!(one.text().contains("first\r\n"), "{}", one.text());
    assert_eq!(one.text(), two.text());
    // Whoever broke off before gets the rest, and nobody gets more.
    let mut late = Viewer::new(&mut agent, Some(4));
    late.read_all();
    assert_eq!(late.text(), one.text()[4..]);
    let end = StreamTarget::Terminal { from: Some(one.position()) };
    assert_eq!(agent.try_open(end.clone()).err(), Some(StreamError::Ended));

    let mut next = Viewer::new(&mut agent, None);
    assert!(next.first > one.position());
    next.type_in("echo [$x]\n");
    next.until("[]\r\n");
    assert!(!next.text().contains("first"));
    assert_eq!(agent.try_open(end).err(), Some(StreamError::Ended));
    let again = Viewer::new(&mut agent, Some(next.first));
    assert_eq!(again.first, next.first);
}

#[test]
fn a_viewer_that_does_not_read_holds_up_nobody() {
    let mut agent = Setup::new("app").start();
    let mut lazy = Viewer::new(&mut agent, None);
    let mut keen = Viewer::new(&mut agent, None);
    keen.type_in("PS1=; stty -echo; head -c 3000000 /dev/zero | tr '\\0' '#'; echo; echo do''ne\n");
    keen.until("done\r\n");
    assert!(keen.text().contains(&"#".repeat(3_000_000)));
    // What it missed cannot be told in its stream, which ends instead.
    lazy.read_all();
    assert!(lazy.seen.len() < 3_000_000);
    assert!(keen.text().starts_with(&lazy.text()));
    let again = Viewer::new(&mut agent, Some(lazy.position()));
    assert!(again.first > lazy.position());
}

#[test]
fn programs_go_on_while_nobody_looks() {
    let mut agent = Setup::new("app").start();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.type_in("head -c 4000000 /dev/zero | tr '\\0' x; touch done\n");
    viewer.until("xxx");
    drop(viewer);
    let done = agent.work().join("done");
    wait_until("the program ends", || done.exists());
}

#[test]
fn a_viewer_that_sends_garbage_is_cut_off() {
    let mut agent = Setup::new("app").start();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.stream.write_all(&[9, 0, 0, 0, 1, 0]).unwrap();
    viewer.read_all();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.stream.write_all(&[0, 0xff, 0xff, 0xff, 0xff]).unwrap();
    viewer.read_all();
    // One that only looks and says goodbye is no harm either.
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.stream.shutdown(Shutdown::Write).unwrap();
    viewer.read_all();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.type_in("echo al''ive\n");
    viewer.until("alive");
}

#[test]
fn an_image_without_a_shell_says_so() {
    let mut setup = Setup::new("app");
    setup.config.environ.insert("PATH".into(), "/nowhere".into());
    let mut agent = setup.start();
    let refused = agent.try_open(StreamTarget::Terminal { from: None }).unwrap_err();
    assert_eq!(refused.to_string(), "this image has no shell");
}

#[test]
fn a_container_with_an_open_terminal_ends_at_once() {
    let mut agent = Setup::new("app").start();
    let mut viewer = Viewer::new(&mut agent, None);
    viewer.type_in("trap '' TERM; echo re''ady\n");
    viewer.until("ready");
    // A grace longer than any test.
    assert_eq!(agent.shutdown(3_600_000), 0);
    viewer.read_all();
}
