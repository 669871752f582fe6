//! PostgreSQL 15 or later. It survives a kill with all that was committed, as tests of kills
//! need, but not the machine's loss of power: nothing waits for the disk.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Server, write_private};
use crate::layout::is_reachable_by_all;
use crate::process::{Launch, find_program, is_root, run};

/// The superuser's name; also our daemons' user.
pub const SUPERUSER: &str = "backendai";
/// The account Debian's package makes; PostgreSQL refuses to run as root.
const ACCOUNT: &str = "postgres";
/// Parallel tests hold a pool of connections each.
const MAX_CONNECTIONS: u32 = 600;

fn program(name: &str) -> Result<PathBuf> {
    // Debian keeps the server's programs out of PATH, in a folder for each version.
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|dir| dir.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    find_program(&[name], &versions)
        .with_context(|| format!("{name} of PostgreSQL is not installed: run ./halfstack up"))
}

/// Makes the cluster if there is none.
pub(super) async fn prepare(server: &mut Server) -> Result<()> {
    if server.record.data.join("PG_VERSION").exists() {
        return Ok(());
    }
    let account = is_root().then_some(ACCOUNT);
    let data = if account.is_none() || is_reachable_by_all(&server.dir) {
        server.dir.join("data")
    } else {
        server.cache.join(format!("postgres-{:016x}", rand::random::<u64>()))
    };
    super::remove_dir(&data)?;
    std::fs::create_dir_all(&data)?;
    server.record.password = format!("{:032x}", rand::random::<u128>());
    let secret = server.dir.join("password");
    write_private(&secret, server.record.password.as_bytes())?;
    let mut words: Vec<String> = Vec::new();
    if let Some(account) = account {
        for path in [&data, &secret] {
            run(tokio::process::Command::new("chown").arg(account).arg(path)).await?;
        }
        words.extend(["setpriv".into(), format!("--reuid={account}")]);
        words.extend([format!("--regid={account}"), "--init-groups".into()]);
    }
    words.push(program("initdb")?.display().to_string());
    let mut command = tokio::process::Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(["--no-sync", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"])
        .args(["-U", SUPERUSER, "--pwfile"])
        .arg(&secret)
        .arg("-D")
        .arg(&data)
        .current_dir("/");
    run(&mut command).await?;
    std::fs::remove_file(&secret)?;
    server.record.data = data;
    Ok(())
}

pub(super) fn launch(server: &Server) -> Result<Launch> {
    let port = server.record.port.to_string();
    let mut launch = Launch::new("postgres", program("postgres")?, &server.log).args([
        "-D".as_ref(),
        server.record.data.as_os_str(),
        "-p".as_ref(),
        port.as_ref(),
    ]);
    for setting in [
        "listen_addresses=127.0.0.1",
        // The path of a socket may be longer than the kernel allows.
        "unix_socket_directories=",
        "fsync=off",
        "full_page_writes=off",
        "logging_collector=off",
    ] {
        launch = launch.args(["-c", setting]);
    }
    launch = launch.args(["-c", &format!("max_connections={MAX_CONNECTIONS}")]);
    launch.user = is_root().then(|| ACCOUNT.to_owned());
    Ok(launch)
}

pub(super) async fn check(server: &Server) -> Result<()> {
    let url = format!(
        "postgres://{SUPERUSER}:{}@{}/postgres?connect_timeout=5",
        server.record.password,
        server.addr()
    );
    connect(&url).await?.simple_query("SELECT 1").await?;
    Ok(())
}

/// Opens a connection by its URL and drives it until the client is dropped.
///
/// # Errors
/// No such database, or the server is down.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    crate::background(async move {
        // The client's queries report its end; tests that kill servers expect it.
        let _ = connection.await;
    });
    Ok(client)
}
