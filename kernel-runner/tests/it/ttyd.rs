//! The web terminal, as a browser sees it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use backendai_rpc::runner::{StreamTarget, TTYD_PORT};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use crate::support::{Agent, Setup};

const TARGET: StreamTarget = StreamTarget::Port(TTYD_PORT);

/// A tab of a browser.
struct Tab {
    socket: WebSocket<UnixStream>,
    title: String,
    seen: String,
    closed: Option<CloseCode>,
}

impl Tab {
    fn new(agent: &mut Agent) -> Self {
        let mut tab = Self::silent(agent);
        tab.send(r#"{"AuthToken":"","columns":100,"rows":30}"#);
        tab
    }

    /// One that has said nothing yet.
    fn silent(agent: &mut Agent) -> Self {
        let mut request = "ws://127.0.0.1:8080/ws".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", "tty".parse().unwrap());
        headers.insert("Origin", "http://127.0.0.1:8080".parse().unwrap());
        let (socket, response) = client(request, agent.open(TARGET)).unwrap();
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "tty");
        Self { socket, title: String::new(), seen: String::new(), closed: None }
    }

    fn send(&mut self, text: &str) {
        self.socket.send(Message::binary(text.to_owned())).unwrap();
    }

    /// False at the end.
    fn read(&mut self) -> bool {
        match self.socket.read().unwrap() {
            Message::Binary(message) => {
                let text = String::from_utf8(message[1..].to_vec()).unwrap();
                match message[0] {
                    b'0' => self.seen.push_str(&text),
                    b'1' => self.title = text,
                    b'2' => assert_eq!(text, "{}"),
                    other => panic!("message {other}"),
                }
                true
            }
            Message::Close(frame) => {
                self.closed = frame.map(|frame| frame.code);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read(), "no {text:?} in {:?}", self.seen);
        }
    }
}

/// Sends a request and reads one response: its status and its body.
fn get(stream: &mut UnixStream, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap())
}

#[test]
fn the_page_and_what_it_needs_come_over_one_connection() {
    let mut agent = Setup::new("app").start();
    let mut stream = agent.open(TARGET);
    let mut fetch = |line: &str| get(&mut stream, &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let (status, page) = fetch("GET /");
    assert_eq!(status, 200);
    for script in ["screen.js", "client.js"] {
        assert!(page.contains(&format!("src=\"{script}\"")));
        let (status, source) = fetch(&format!("GET /{script}"));
        assert_eq!((status, source.is_empty()), (200, false));
    }
    assert!(!page.contains("http"), "the page must need nothing from elsewhere");
    assert_eq!(fetch("GET /token"), (200, r#"{"token":""}"#.to_owned()));
    assert_eq!(fetch("GET /nothing").0, 404);
    assert_eq!(fetch("DELETE /").0, 405);
    assert_eq!(fetch("GET /ws").0, 400);
    assert_eq!(fetch("GET /?arg=1").0, 200);
}

#[test]
fn a_terminal_of_the_browsers_size_is_typed_into_and_seen() {
    let mut agent = Setup::new("app").start();
    let mut tab = Tab::new(&mut agent);
    tab.send("0stty size; echo caf\u{e9}-$((40 + 2))\n");
    tab.until("30 100\r\ncaf\u{e9}-42\r\n");
    assert_eq!(tab.title, rustix::system::uname().nodename().to_str().unwrap());
    tab.send(r#"1{"columns":90,"rows":20}"#);
    tab.send("0stty size\n");
    tab.until("20 90\r\n");
    // What a newer client might say.
    tab.send("9?");
    tab.send("");
    tab.send("0exit\n");
    while tab.read() {}
    assert_eq!(tab.closed, Some(CloseCode::Normal));
}

#[test]
fn a_reloaded_page_shows_the_same_terminal() {
    let mut agent = Setup::new("app").start();
    let mut tab = Tab::new(&mut agent);
    tab.send("0x=kept; echo fi''rst\n");
    tab.until("first\r\n");
    // Everything between the kernel and the browser goes away.
    agent.disconnect();
    drop(tab);
    agent.listen();
    agent.accept();
    let mut tab = Tab::new(&mut agent);
    tab.until("first\r\n");
    tab.send("0echo [$x]\n");
    tab.until("[kept]\r\n");
    let mut other = Tab::new(&mut agent);
    other.until("[kept]\r\n");
    other.send("0echo from''two\n");
    tab.until("fromtwo\r\n");
}

#[test]
fn a_paused_page_gets_what_was_printed_when_it_resumes() {
    let mut agent = Setup::new("app").start();
    let mut tab = Tab::new(&mut agent);
    tab.send("0PS1=; stty -echo; echo re''ady\n");
    tab.until("ready\r\n");
    tab.send("2");
    tab.send("0seq 20000; touch done\n");
    let mut other = Tab::new(&mut agent);
    other.until("\n20000\r\n");
    tab.send("3");
    tab.until("\n20000\r\n");
    let numbers: String = (1..=20000).map(|number| format!("{number}\r\n")).collect();
    assert!(tab.seen.contains(&numbers));
}

#[test]
fn strangers_and_broken_clients_are_turned_away() {
    let mut agent = Setup::new("app").start();
    let mut request = "ws://127.0.0.1:8080/ws".into_client_request().unwrap();
    request.headers_mut().insert("Origin", "http://evil.example".parse().unwrap());
    let refused = client(request, agent.open(TARGET)).unwrap_err().to_string();
    assert!(refused.contains("403"), "{refused}");

    let mut tab = Tab::silent(&mut agent);
    tab.send("hello");
    assert!(!tab.read());
    assert_eq!(tab.closed, Some(CloseCode::Policy));

    let mut stream = agent.open(TARGET);
    stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");

    let mut setup = Setup::new("app");
    setup.config.environ.insert("PATH".into(), "/nowhere".into());
    let mut agent = setup.start();
    let mut tab = Tab::new(&mut agent);
    tab.until("this image has no shell\r\n");
    assert!(!tab.read());
}
