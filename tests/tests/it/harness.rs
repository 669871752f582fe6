//! The tests' own tools: a test that breaks a server must know that it really broke it.

use std::time::Duration;

use anyhow::Result;

use backendai_tests::Layout;
use backendai_tests::process::Lifetime;
use backendai_tests::progress::Progress;
use backendai_tests::servers::{Kind, Servers};

#[tokio::test]
async fn servers_start_stop_and_are_found_again() -> Result<()> {
    let (layout, dir) = (Layout::discover()?, tempfile::tempdir()?);
    let mut servers = Servers::open(&layout, dir.path(), Lifetime::Detached)?;
    servers.start(&Progress::silent()).await?;
    let mut found = Servers::open(&layout, dir.path(), Lifetime::Detached)?;
    for (server, again) in servers.each_mut().into_iter().zip(found.each_mut()) {
        assert_eq!(server.pid(), again.pid(), "{}", server.kind().name());
        assert_eq!(server.addr(), again.addr());
        assert!(!again.start().await?, "it ran already");
    }
    found.stop().await?;
    for server in servers.each_mut() {
        assert!(!server.is_alive(), "{}", server.kind().name());
    }
    servers.wipe()
}

#[tokio::test]
async fn a_killed_database_comes_back_with_its_data() -> Result<()> {
    let (layout, dir) = (Layout::discover()?, tempfile::tempdir()?);
    let mut servers = Servers::open(&layout, dir.path(), Lifetime::Caller)?;
    servers.postgres.start().await?;
    let client = servers.connect("postgres").await?;
    client.batch_execute("CREATE TABLE kept AS SELECT 42 AS answer").await?;

    servers.postgres.kill().await?;
    assert!(!servers.postgres.is_alive());
    assert!(client.simple_query("SELECT 1").await.is_err());
    assert!(servers.connect("postgres").await.is_err());

    servers.postgres.start().await?;
    let client = servers.connect("postgres").await?;
    let answer: i32 = client.query_one("SELECT answer FROM kept", &[]).await?.get(0);
    assert_eq!(answer, 42);
    servers.stop().await?;
    servers.wipe()
}

#[tokio::test]
async fn a_paused_server_answers_nobody_until_it_goes_on() -> Result<()> {
    let (layout, dir) = (Layout::discover()?, tempfile::tempdir()?);
    let mut servers = Servers::open(&layout, dir.path(), Lifetime::Caller)?;
    servers.postgres.start().await?;
    let client = servers.connect("postgres").await?;
    client.simple_query("SELECT 1").await?;

    servers.postgres.pause()?;
    // Nothing is asserted of the time: a paused server never answers, however long one waits.
    let answer = tokio::time::timeout(Duration::from_millis(200), client.simple_query("SELECT 1"));
    assert!(answer.await.is_err(), "a paused server answered");
    assert!(servers.postgres.is_alive());

    servers.postgres.resume()?;
    client.simple_query("SELECT 1").await?;
    servers.stop().await?;
    servers.wipe()
}

#[tokio::test]
async fn servers_of_a_test_end_with_it() -> Result<()> {
    let (layout, dir) = (Layout::discover()?, tempfile::tempdir()?);
    let pid = {
        let mut servers = Servers::open(&layout, dir.path(), Lifetime::Caller)?;
        servers.redis.start().await?;
        servers.redis.pid()
    };
    assert!(pid.is_some_and(|pid| backendai_tests::process::ProcessId::of(pid).is_none()));
    let mut servers = Servers::open(&layout, dir.path(), Lifetime::Caller)?;
    assert_eq!(servers.redis.kind(), Kind::Redis);
    assert!(!servers.redis.is_alive());
    Ok(())
}
