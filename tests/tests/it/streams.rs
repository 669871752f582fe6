//! Terminals and apps of sessions, over websockets and with the stock client.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::client::{SignedClient, Socket};

use crate::support::{LIMIT, create_body, execute, wait_nothing_left, wait_status};

/// A viewer of a session's terminal, as a client of the API.
struct Terminal {
    socket: Socket,
    /// All output so far.
    screen: String,
    /// Number of the byte that comes next.
    next: u64,
}

impl Terminal {
    async fn open(client: &SignedClient, session: &str, query: &str) -> Result<Self> {
        let socket = client.socket(&format!("/stream/session/{session}/pty{query}")).await?;
        Ok(Self { socket, screen: String::new(), next: 0 })
    }

    async fn send(&mut self, line: &str) -> Result<()> {
        let chars = BASE64.encode(line);
        self.socket.send(json!({ "type": "stdin", "chars": chars }).to_string()).await
    }

    /// Reads until the screen has a text.
    async fn expect(&mut self, text: &str) -> Result<()> {
        let waiting = async {
            while !self.screen.contains(text) {
                let frame = self.socket.next().await?.context("the terminal was closed")?;
                anyhow::ensure!(frame["type"] == "out", "{frame}");
                let bytes = BASE64.decode(frame["data"].as_str().unwrap_or_default())?;
                self.next = frame["offset"].as_u64().context("no offset")? + bytes.len() as u64;
                self.screen.push_str(&String::from_utf8_lossy(&bytes));
            }
            Ok(())
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(result) => result,
            Err(_) => anyhow::bail!("{text:?} did not appear in {:?}", self.screen),
        }
    }
}

#[tokio::test]
async fn a_terminal_outlives_agent_and_manager() -> Result<()> {
    let mut cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    client.post("/session", create_body("shelly", "python", json!({}))).await?.ok();
    let mut terminal = Terminal::open(&client, "shelly", "").await?;
    terminal.send("STATE=kept; echo begun $((40 + 2))\n").await?;
    terminal.expect("begun 42").await?;

    // The agent dies: the same websocket goes on, with what was missed.
    terminal.send("(sleep 1; echo missed $((6 * 7)))& echo waits $((2 + 2))\n").await?;
    terminal.expect("waits 4").await?;
    cluster.agents[0].process.kill().await?;
    cluster.agents[0].start().await?;
    wait_status(&cluster, "shelly", &["RUNNING"]).await?;
    terminal.send("echo agent $STATE $((1 + 1))\n").await?;
    terminal.expect("agent kept 2").await?;
    terminal.expect("missed 42").await?;

    // The manager dies: a client that comes back asks for what it has not seen.
    let seen = terminal.next;
    cluster.manager.process.kill().await?;
    cluster.manager.start().await?;
    wait_status(&cluster, "shelly", &["RUNNING"]).await?;
    let mut again = Terminal::open(&client, "shelly", &format!("?from={seen}")).await?;
    again.send("echo manager $STATE $((1 + 2))\n").await?;
    again.expect("manager kept 3").await?;
    assert!(!again.screen.contains("begun 42"), "{:?}", again.screen);
    // One that does not ask sees all that is kept.
    let mut late = Terminal::open(&client, "shelly", "").await?;
    late.expect("begun 42").await?;
    late.expect("manager kept 3").await?;

    // A restart of the session is a new terminal on the same socket.
    late.socket.send(json!({ "type": "restart" }).to_string()).await?;
    late.send("echo anew [$STATE]\n").await?;
    late.expect("anew []").await?;

    client.delete("/session/shelly").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_app_is_reached_through_the_proxy() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let resources = json!({ "cpu": "1", "mem": "384m" });
    let config = json!({ "resources": resources, "preopen_ports": [8123] });
    client
        .post("/session", create_body("webby", "python", json!({ "config": config })))
        .await?
        .ok();
    let apps = client.get("/stream/session/webby/apps").await?.ok();
    let names: Vec<&str> =
        apps.as_array().into_iter().flatten().filter_map(|a| a["name"].as_str()).collect();
    for name in ["sshd", "ttyd", "8123"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }

    // Nothing listens yet: the socket is closed with "try again later".
    let mut early = client.socket("/stream/session/webby/tcpproxy?app=8123").await?;
    assert_eq!(early.next_bytes().await?, None);

    let server = "import http.server, threading, os\n\
        open('page.txt', 'w').write('from inside ' * 20000)\n\
        s = http.server.ThreadingHTTPServer(('127.0.0.1', 8123), http.server.SimpleHTTPRequestHandler)\n\
        threading.Thread(target=s.serve_forever, daemon=True).start()";
    execute(&client, "webby", server).await?;
    let mut proxied = client.socket("/stream/session/webby/tcpproxy?app=8123").await?;
    proxied.send_bytes(b"GET /page.txt HTTP/1.0\r\n\r\n".to_vec()).await?;
    let mut answer = Vec::new();
    while let Some(bytes) = proxied.next_bytes().await? {
        answer.extend(bytes);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.0 200"), "{}", &answer[..answer.len().min(200)]);
    assert_eq!(answer.matches("from inside ").count(), 20_000);

    let unknown = client.socket("/stream/session/webby/tcpproxy?app=nothing").await;
    assert!(unknown.is_err());
    client.delete("/session/webby").await?.ok();
    cluster.stop().await
}
