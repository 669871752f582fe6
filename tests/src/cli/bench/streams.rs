//! `bench streams`: what a terminal, proxied connections and a flood of output cost.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use comfy_table::{Table, presets};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use backendai_tests::client::Socket;
use backendai_tests::progress::Progress;
use backendai_tests::{SignedClient, TestCluster};

use super::stats::{ms, quantile, ratio, spread};
use super::target::Target;

const SESSION: &str = "bench-streams";
/// Keys pressed on each terminal.
const KEYS: usize = 500;
/// Connections at once.
const STREAMS: usize = 64;
/// Bytes that each of them carries.
const PER_STREAM: usize = 32 << 20;
/// Bytes that the program prints.
const FLOOD: usize = 1 << 30;
const PORT: u16 = 8123;
const LIMIT: Duration = Duration::from_secs(60);

/// Listens on a port (0: any, which it prints) and gives each connection the same bytes.
const SOURCE: &str = "\
import socket, sys, threading
def serve(port, count):
    listener = socket.create_server(('127.0.0.1', port), backlog=128)
    piece = bytes(1 << 18)
    def give(connection):
        with connection:
            for _ in range(count // len(piece)):
                connection.sendall(piece)
    def accept():
        while True:
            threading.Thread(target=give, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]
";

pub async fn run(cluster: &mut TestCluster, ours: &Target) -> Result<()> {
    let config = json!({ "resources": { "cpu": "2", "mem": "1g" }, "preopen_ports": [PORT] });
    ours.create(SESSION, json!({ "config": config })).await?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["", "ours", "without us", "ratio"]);

    let mut step = Progress::shown().step("streams");
    step.note("keystrokes");
    let direct = direct_keys()?;
    let through = keys(&ours.client).await?;
    table.add_row([
        "keystroke → echo, p50 / p99".to_owned(),
        spread(&through),
        spread(&direct),
        "-".to_owned(),
    ]);
    let above = |part| quantile(&through, part).saturating_sub(quantile(&direct, part));
    let added = format!("{} / {}", ms(above(0.5)), ms(above(0.99)));
    table.add_row(["  added by us, p50 / p99".to_owned(), added, "-".into(), "-".into()]);

    step.note("proxied connections");
    let manager = cluster.manager.process.pid().context("the manager's process")?;
    let before = memory(manager, "VmRSS")?;
    let loopback = loopback().await?;
    let proxied = proxied(&ours.client).await?;
    table.add_row([
        format!("{STREAMS} connections, MB/s"),
        rate(proxied),
        rate(loopback),
        ratio(loopback, proxied),
    ]);
    table.add_row([
        "  manager's memory before / at most".to_owned(),
        format!("{before} / {} MiB", memory(manager, "VmHWM")?),
        "-".into(),
        "-".into(),
    ]);

    step.note("1 GB of output");
    let agent = cluster.agents[0].process.pid().context("the agent's process")?;
    let before = memory(agent, "VmRSS")?;
    let begun = Instant::now();
    let arrived = flood(&ours.client).await?;
    let took = begun.elapsed();
    table.add_row([
        format!("{FLOOD} bytes printed, MB/s"),
        format!("{:.0}", FLOOD as f64 / 1e6 / took.as_secs_f64()),
        "-".into(),
        "-".into(),
    ]);
    let lost = FLOOD.abs_diff(arrived);
    table.add_row(["  bytes lost".to_owned(), lost.to_string(), "-".into(), "-".into()]);
    table.add_row([
        "  agent's memory before / at most".to_owned(),
        format!("{before} / {} MiB", memory(agent, "VmHWM")?),
        "-".into(),
        "-".into(),
    ]);
    step.done(ours.client.endpoint());
    ours.destroy(SESSION).await?;
    println!("{table}");
    Ok(())
}

fn rate(took: Duration) -> String {
    format!("{:.0}", (STREAMS * PER_STREAM) as f64 / 1e6 / took.as_secs_f64())
}

/// Echoes of a terminal that nobody is in between.
fn direct_keys() -> Result<Vec<Duration>> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    // Open on the other side, as by a program that reads; the kernel echoes.
    let _slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    let mut master = File::from(master);
    let mut took = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let begun = Instant::now();
        master.write_all(b"k")?;
        let mut echo = [0];
        master.read_exact(&mut echo)?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// The same through the API, into a container where `cat` reads.
async fn keys(client: &SignedClient) -> Result<Vec<Duration>> {
    let mut socket = client.socket(&format!("/stream/session/{SESSION}/pty")).await?;
    type_keys(&mut socket, "stty -icanon; echo begun; cat > /dev/null\n").await?;
    while !echoed(&mut socket).await?.contains("begun\r\n") {}
    let mut took = Vec::with_capacity(KEYS);
    for _ in 0..KEYS {
        let begun = Instant::now();
        type_keys(&mut socket, "k").await?;
        while !echoed(&mut socket).await?.contains('k') {}
        took.push(begun.elapsed());
    }
    type_keys(&mut socket, "\x03exit\n").await?;
    Ok(took)
}

async fn type_keys(socket: &mut Socket, keys: &str) -> Result<()> {
    let chars = BASE64.encode(keys);
    socket.send(json!({ "type": "stdin", "chars": chars }).to_string()).await
}

async fn echoed(socket: &mut Socket) -> Result<String> {
    let frame = tokio::time::timeout(LIMIT, socket.next()).await??.context("a frame")?;
    let bytes = BASE64.decode(frame["data"].as_str().unwrap_or_default())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The source on this machine, read over loopback.
async fn loopback() -> Result<Duration> {
    let serve = format!("{SOURCE}print(serve(0, {PER_STREAM}), flush=True)\nsys.stdin.read()");
    let mut source: Child = Command::new("python3")
        .args(["-c", &serve])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut port = String::new();
    let mut stdout = source.stdout.take().context("its output")?;
    while !port.ends_with('\n') {
        port.push(char::from(stdout.read_u8().await?));
    }
    let port: u16 = port.trim().parse()?;
    let begun = Instant::now();
    let read_one = || async move {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut buffer = vec![0; 1 << 17];
        let mut read = 0;
        loop {
            match stream.read(&mut buffer).await? {
                0 => return complete(read),
                count => read += count,
            }
        }
    };
    at_once(read_one).await?;
    Ok(begun.elapsed())
}

/// The source in the container, read through the proxy.
async fn proxied(client: &SignedClient) -> Result<Duration> {
    let code = format!("{SOURCE}serve({PORT}, {PER_STREAM})");
    run_code(client, &code, |_| ()).await?;
    let begun = Instant::now();
    let read_one = || {
        let client = client.clone();
        async move {
            let target = format!("/stream/session/{SESSION}/tcpproxy?app={PORT}");
            complete(client.count_bytes(&target).await?)
        }
    };
    at_once(read_one).await?;
    Ok(begun.elapsed())
}

/// Runs [`STREAMS`] of a task on all cores.
async fn at_once<F>(task: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        tasks.spawn(task());
    }
    tasks.join_all().await.into_iter().collect()
}

fn complete(read: usize) -> Result<()> {
    anyhow::ensure!(read == PER_STREAM, "{read} bytes of {PER_STREAM} arrived");
    Ok(())
}

/// Prints much and reads it; the bytes that arrived.
async fn flood(client: &SignedClient) -> Result<usize> {
    let code = format!(
        "import sys\nline = 'x' * 1023 + '\\n'\nfor _ in range({}): sys.stdout.write(line)",
        FLOOD / 1024
    );
    let mut arrived = 0;
    run_code(client, &code, |text| arrived += text.len()).await?;
    Ok(arrived)
}

/// Runs code to its end and hands on what it prints.
async fn run_code(client: &SignedClient, code: &str, mut printed: impl FnMut(&str)) -> Result<()> {
    let run_id = format!("{:016x}", rand::random::<u64>());
    let mut body = json!({"mode": "query", "code": code, "runId": run_id, "options": null});
    loop {
        let reply = client.post(&format!("/session/{SESSION}"), body).await?;
        let result = &reply.body["result"];
        for item in result["console"].as_array().into_iter().flatten() {
            anyhow::ensure!(item[0] != "stderr", "the program says {}", item[1]);
            printed(item[1].as_str().unwrap_or_default());
        }
        match result["status"].as_str() {
            Some("finished") => return Ok(()),
            Some(_) => {}
            None => anyhow::bail!("execute is answered {reply:?}"),
        }
        body = json!({"mode": "continue", "code": "", "runId": run_id, "options": null});
    }
}

/// A figure of `/proc/{pid}/status`, in MiB.
pub fn memory(pid: i32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.with_context(|| format!("{name} of process {pid}"))?.parse::<u64>()? >> 10)
}
