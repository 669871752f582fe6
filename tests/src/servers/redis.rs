//! Redis, in memory only: the product must survive the loss of everything in it.

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Server;
use crate::process::{Launch, find_program};

pub(super) fn launch(server: &Server) -> Result<Launch> {
    let program = find_program(&["redis-server"], &[])
        .context("redis-server is not installed: run ./halfstack up")?;
    let port = server.record.port.to_string();
    let data = server.record.data.display().to_string();
    Ok(Launch::new("redis", program, &server.log).args([
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        &data,
    ]))
}

pub(super) async fn check(server: &Server) -> Result<()> {
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+PONG", "redis answers {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}
