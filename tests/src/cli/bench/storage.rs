//! `bench storage`: one big file and very many small ones in and out of a folder, beside the
//! disk, the loopback interface and `tar` in the same minute.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use comfy_table::{Table, presets};
use futures::stream;
use rustix::fs::Advice;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use backendai_tests::progress::{Progress, say};
use backendai_tests::{SignedClient, TestCluster};

use super::stats::ratio;
use super::streams::memory;

const FOLDER: &str = "bench-storage";
const HOST: &str = "local:volume1";
/// What is sent and written at once everywhere, so that no side has the better size.
const PIECE: usize = 256 << 10;
/// The part of the disk that a run may fill: the file is there three times.
const COPIES: u64 = 3;
/// Bytes of a small file.
const SMALL: usize = 4096;
/// Small files sent at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub struct Options {
    /// Size of the big file; smaller where the disk has no room for it three times.
    #[arg(long, default_value_t = 10)]
    gigabytes: u64,
    /// Number of small files of 4 KB.
    #[arg(long, default_value_t = 100_000)]
    files: usize,
}

pub async fn run(cluster: &mut TestCluster, options: &Options) -> Result<()> {
    let client = cluster.signed(&cluster.identities.user1);
    // More than a keypair may ask for in the usual time.
    let database = cluster.database().await?;
    database.batch_execute("UPDATE keypairs SET rate_limit = 1000000000").await?;
    let body = json!({ "name": FOLDER, "host": HOST });
    let made = client.post("/folders", body).await?;
    let id = made.body["id"].as_str().with_context(|| format!("{made:?}"))?.to_owned();
    let folder = cluster.dir().join("vfolders").join(HOST).join("folders").join(id);
    let beside = cluster.dir().join("beside");
    std::fs::create_dir_all(&beside)?;
    let manager = cluster.manager.process.pid().context("the manager's process")?;
    let size = affordable(options.gigabytes << 30, cluster.dir())?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["", "ours", "disk", "loopback", "of the slower"]);
    let mut step = Progress::shown().step("storage");
    let before = memory(manager, "VmRSS")?;

    step.note("one big file, up");
    let disk = write_file(&beside.join("big"), size).await?;
    let wire = loopback(size).await?;
    let ours = upload(&client, "big", size).await?;
    table.add_row(row("up", size, ours, disk, wire));
    anyhow::ensure!(folder.join("big").metadata()?.len() == size, "the file has another size");

    step.note("one big file, down");
    let disk = read_file(&beside.join("big")).await?;
    let wire = loopback(size).await?;
    forget(&folder.join("big"))?;
    let ours = download(&client, json!({ "path": "big" }), size).await?;
    table.add_row(row("down", size, ours, disk, wire));
    let disk = read_file_again(&beside.join("big")).await?;
    let ours = download(&client, json!({ "path": "big" }), size).await?;
    table.add_row(row("down, from memory", size, ours, disk, wire));
    std::fs::remove_file(beside.join("big"))?;

    let mut small = Table::new();
    small.load_style(presets::ASCII_MARKDOWN);
    small.set_header(["", "ours", "tar", "ratio"]);
    step.note("small files, up");
    let source = beside.join("small");
    plant(source.clone(), options.files).await?;
    let theirs = copy_with_tar(&source, &beside.join("copy")).await?;
    let ours = upload_small(&client, options.files).await?;
    small.add_row(row_of_files("files, each by itself, up", options.files, ours, theirs));
    let there = std::fs::read_dir(folder.join("small"))?.count();
    anyhow::ensure!(there == options.files, "{there} files are there");
    step.note("small files, down");
    let theirs = pack_with_tar(&source).await?;
    let archive = json!({ "path": "small", "archive": true });
    let ours = download_archive(&client, archive, options.files).await?;
    small.add_row(row_of_files("files, as one archive, down", options.files, ours, theirs));
    step.done(client.endpoint());
    println!("{table}\n{small}");
    println!(
        "the manager's memory: {before} MiB before, {} MiB at most",
        memory(manager, "VmHWM")?
    );
    Ok(())
}

/// The size itself, or as much of it as the disk can take.
fn affordable(size: u64, directory: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    // Not the last bit: others use the disk, too.
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) / 10 * 8;
    let most = (free / COPIES).min(size) >> 20 << 20;
    anyhow::ensure!(most > 0, "{} has no room", directory.display());
    if most < size {
        say(&format!("! the disk is short: {} MiB instead of {} MiB", most >> 20, size >> 20));
    }
    Ok(most)
}

fn rate(size: u64, took: Duration) -> String {
    format!("{:.0} MB/s", size as f64 / 1e6 / took.as_secs_f64())
}

fn row(way: &str, size: u64, ours: Duration, disk: Duration, wire: Duration) -> [String; 5] {
    let percent = disk.max(wire).as_secs_f64() / ours.as_secs_f64() * 100.0;
    [
        format!("{} MiB {way}", size >> 20),
        rate(size, ours),
        rate(size, disk),
        rate(size, wire),
        format!("{percent:.0} %"),
    ]
}

fn row_of_files(what: &str, count: usize, ours: Duration, tar: Duration) -> [String; 4] {
    let rate = |took: Duration| format!("{:.0}/s", count as f64 / took.as_secs_f64());
    [format!("{count} {what}"), rate(ours), rate(tar), ratio(tar, ours)]
}

/// A file as whoever writes it and waits for the disk.
async fn write_file(path: &Path, size: u64) -> Result<Duration> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut file = File::create(path)?;
        let piece = vec![7; PIECE];
        let mut left = size;
        while left > 0 {
            let length = left.min(PIECE as u64) as usize;
            file.write_all(&piece[..length])?;
            left -= length as u64;
        }
        file.sync_all()?;
        Ok(begun.elapsed())
    })
    .await?
}

/// Has the system read it from the disk the next time.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
}

async fn read_file(path: &Path) -> Result<Duration> {
    forget(path)?;
    read_file_again(path).await
}

async fn read_file_again(path: &Path) -> Result<Duration> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut file = File::open(path)?;
        let mut piece = vec![0; PIECE];
        while file.read(&mut piece)? > 0 {}
        Ok(begun.elapsed())
    })
    .await?
}

/// The same bytes from one task to another, over a connection.
async fn loopback(size: u64) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let begun = Instant::now();
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        let mut stream = TcpStream::connect(address).await?;
        let piece = vec![7; PIECE];
        let mut left = size;
        while left > 0 {
            let length = left.min(PIECE as u64) as usize;
            stream.write_all(&piece[..length]).await?;
            left -= length as u64;
        }
        anyhow::Ok(())
    });
    let (mut stream, _) = listener.accept().await?;
    let mut piece = vec![0; PIECE];
    let mut read = 0;
    loop {
        match stream.read(&mut piece).await? {
            0 => break,
            count => read += count as u64,
        }
    }
    sender.join_all().await.into_iter().collect::<Result<()>>()?;
    anyhow::ensure!(read == size, "{read} bytes of {size} arrived");
    Ok(begun.elapsed())
}

/// The URL of a transfer.
async fn request(client: &SignedClient, what: &str, body: Value) -> Result<String> {
    let reply = client.post(&format!("/folders/{FOLDER}/request-{what}"), body).await?;
    anyhow::ensure!(reply.status == 200, "{reply:?}");
    let text = |key: &str| reply.body[key].as_str().unwrap_or_default().to_owned();
    Ok(format!("{}?token={}", text("url"), text("token")))
}

async fn upload(client: &SignedClient, path: &str, size: u64) -> Result<Duration> {
    let begun = Instant::now();
    let url = request(client, "upload", json!({ "path": path, "size": size })).await?;
    let http = backendai_tests::http();
    let piece = Bytes::from(vec![7; PIECE]);
    let pieces = stream::unfold(size, move |left| {
        let length = left.min(PIECE as u64);
        let next = (length > 0).then(|| piece.slice(..length as usize));
        std::future::ready(next.map(|piece| (std::io::Result::Ok(piece), left - length)))
    });
    patch(&http, &url, reqwest::Body::wrap_stream(pieces)).await?;
    Ok(begun.elapsed())
}

async fn patch(http: &reqwest::Client, url: &str, body: impl Into<reqwest::Body>) -> Result<()> {
    let request = http.patch(url).header("Tus-Resumable", "1.0.0");
    // No limit on the whole: a big file takes its time.
    let request = request.timeout(Duration::from_secs(3600)).header("Upload-Offset", "0");
    let answer = request.body(body).send().await?;
    anyhow::ensure!(answer.status() == 204, "an upload is answered {}", answer.status());
    Ok(())
}

async fn download(client: &SignedClient, what: Value, size: u64) -> Result<Duration> {
    let begun = Instant::now();
    let read = fetch(&request(client, "download", what).await?).await?;
    anyhow::ensure!(read == size, "{read} bytes of {size} arrived");
    Ok(begun.elapsed())
}

async fn fetch(url: &str) -> Result<u64> {
    let request = backendai_tests::http().get(url).timeout(Duration::from_secs(3600));
    let mut answer = request.send().await?.error_for_status()?;
    let mut read = 0;
    while let Some(bytes) = answer.chunk().await? {
        read += bytes.len() as u64;
    }
    Ok(read)
}

async fn download_archive(client: &SignedClient, what: Value, files: usize) -> Result<Duration> {
    let begun = Instant::now();
    let url = format!("{}&archive=tar", request(client, "download", what).await?);
    let read = fetch(&url).await?;
    anyhow::ensure!(read > (files * SMALL) as u64, "{read} bytes arrived");
    Ok(begun.elapsed())
}

async fn plant(directory: std::path::PathBuf, files: usize) -> Result<()> {
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&directory)?;
        for file in 0..files {
            std::fs::write(directory.join(format!("f{file}")), [7; SMALL])?;
        }
        Ok(())
    })
    .await?
}

async fn upload_small(client: &SignedClient, files: usize) -> Result<Duration> {
    let begun = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let content = Bytes::from(vec![7; SMALL]);
    let http = backendai_tests::http();
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, next, content) = (client.clone(), Arc::clone(&next), content.clone());
        let http = http.clone();
        tasks.spawn(async move {
            loop {
                let file = next.fetch_add(1, Ordering::Relaxed);
                if file >= files {
                    return anyhow::Ok(());
                }
                let wanted = json!({ "path": format!("small/f{file}"), "size": SMALL });
                patch(&http, &request(&client, "upload", wanted).await?, content.clone()).await?;
            }
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<()>>()?;
    Ok(begun.elapsed())
}

async fn copy_with_tar(from: &Path, to: &Path) -> Result<Duration> {
    std::fs::create_dir_all(to)?;
    let begun = Instant::now();
    let pack = "tar -C \"$0\" -cf - . | tar -C \"$1\" -xf - && sync -f \"$1\"";
    let ended = Command::new("sh").args(["-c", pack]).arg(from).arg(to).status().await?;
    anyhow::ensure!(ended.success(), "tar ended with {ended}");
    Ok(begun.elapsed())
}

async fn pack_with_tar(directory: &Path) -> Result<Duration> {
    let begun = Instant::now();
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["-cf", "-", "."])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut packed = tar.stdout.take().context("its output")?;
    let mut piece = vec![0; PIECE];
    while packed.read(&mut piece).await? > 0 {}
    let ended = tar.wait().await?;
    anyhow::ensure!(ended.success(), "tar ended with {ended}");
    Ok(begun.elapsed())
}
