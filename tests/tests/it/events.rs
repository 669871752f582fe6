//! What happens to sessions and in the background, as the stock client shows it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use backendai_tests::client::PtyClient;
use backendai_tests::cluster::docker;
use backendai_tests::images::Image;
use backendai_tests::wait::{wait_for, wait_until};
use backendai_tests::{StockClient, TestCluster};

use crate::support::{LIMIT, create_body, wait_status};

/// Waits until each client listens: it shows an event that is made up for it again and again.
async fn until_listening(cluster: &TestCluster, name: &str, clients: &[&PtyClient]) -> Result<()> {
    let database = cluster.database().await?;
    let sql = "INSERT INTO transitions (session_id, event, actor) \
        SELECT id, 'session_scheduled', 'test' FROM sessions WHERE name = $1";
    wait_until(LIMIT, "the clients to listen", async || {
        let deaf = clients.iter().filter(|client| !client.screen().contains("session_scheduled"));
        let deaf = deaf.count();
        if deaf > 0 {
            database.execute(sql, &[&name]).await?;
        }
        ensure!(deaf == 0, "{deaf} clients do not listen yet");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn events_and_watch_follow_a_session_to_its_end() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    client.run(&["session", "create", "-t", "followed", "python"]).await?.success();
    let watch = client.pty(&["session", "watch", "followed"])?;
    let mut events = client.pty(&["session", "events", "followed"])?;
    let mut by_key = client.pty(&[
        "session",
        "events",
        "-o",
        &cluster.identities.user1.access_key,
        "followed",
    ])?;
    until_listening(&cluster, "followed", &[&watch, &events, &by_key]).await?;
    client.run(&["session", "rm", "followed"]).await?.success();
    for client in [&mut events, &mut by_key] {
        for event in
            ["kernel_terminating", "session_terminating", "kernel_terminated", "session_terminated"]
        {
            client.expect(event, LIMIT).await?;
        }
        assert!(client.screen().contains("\"sessionName\": \"followed\""), "{}", client.screen());
    }
    let mut watch = watch;
    watch.expect("session_terminated", LIMIT).await?;
    assert_eq!(watch.wait(LIMIT).await?, Some(0), "{}", watch.screen());

    // Of another's session nothing is heard, and another's key is refused.
    let stranger = cluster.client(&cluster.identities.user2)?;
    let key = &cluster.identities.user1.access_key;
    let output = stranger.run(&["session", "events", "-o", key, "followed"]).await?;
    assert!(output.all().contains("403"), "{output}");
    cluster.stop().await
}

/// The work folder of a session's only kernel on this host.
fn work_folder(cluster: &TestCluster, kernel: &str) -> PathBuf {
    cluster.dir().join(cluster.agents[0].id()).join("scratch").join(kernel).join("work")
}

async fn main_kernel(cluster: &TestCluster, name: &str) -> Result<String> {
    let database = cluster.database().await?;
    let sql = "SELECT k.id::text FROM kernels k JOIN sessions s ON s.id = k.session_id \
        WHERE s.name = $1";
    Ok(database.query_one(sql, &[&name]).await?.get(0))
}

#[tokio::test]
async fn watch_ends_with_the_exit_code_of_a_batch_session() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    for (name, code, event) in [("succeeds", 0, "session_success"), ("fails", 3, "session_failure")]
    {
        let command = format!("while [ ! -e /home/work/go ]; do sleep 0.05; done; exit {code}");
        let create =
            ["session", "create", "--type", "batch", "-c", &command, "-t", name, "busybox"];
        client.run(&create).await?.success();
        wait_status(&cluster, name, &["RUNNING"]).await?;
        let mut watch = client.pty(&["session", "watch", name])?;
        until_listening(&cluster, name, &[&watch]).await?;
        let kernel = main_kernel(&cluster, name).await?;
        std::fs::write(work_folder(&cluster, &kernel).join("go"), "")?;
        watch.expect(event, LIMIT).await?;
        assert_eq!(watch.wait(LIMIT).await?, Some(code), "{}", watch.screen());
        wait_status(&cluster, name, &["TERMINATED"]).await?;
    }
    cluster.stop().await
}

/// The archive of a commit, once it is whole.
async fn archive(dir: &Path) -> Result<PathBuf> {
    wait_for(LIMIT, "an archive", async || {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(None) };
        let paths = entries.flatten().map(|entry| entry.path());
        let whole = |path: &PathBuf| path.to_string_lossy().ends_with(".tar.gz");
        Ok(paths.into_iter().find(whole))
    })
    .await
}

#[tokio::test]
async fn a_committed_session_is_an_archive_of_its_image() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let identity = &cluster.identities.user1;
    let client = cluster.client(identity)?;
    let signed = cluster.signed(identity);
    signed.post("/session", create_body("kept", "busybox", json!({}))).await?;
    let output = client.run(&["session", "commit", "kept"]).await?.success();
    assert!(output.all().contains("Request to commit Session"), "{output}");

    let commits = cluster.dir().join(cluster.agents[0].id()).join("commit");
    let archive = archive(&commits.join(identity.email.replace('@', "_"))).await?;
    let name = archive.file_name().and_then(|name| name.to_str()).context("a name")?;
    assert!(name.contains("_kept_busybox"), "{name}");
    let listed = std::process::Command::new("tar").arg("-tzf").arg(&archive).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("manifest.json"), "{listed}");

    wait_until(LIMIT, "the commit to be over", async || {
        let status = signed.get("/session/kept/commit").await?;
        ensure!(status.body["status"] == "ready", "{status:?}");
        Ok(true)
    })
    .await?;
    let label = format!("ai.backend.owner={}", cluster.agents[0].id());
    let filters = std::collections::HashMap::from([("label", vec![label])]);
    let options =
        bollard::query_parameters::ListImagesOptionsBuilder::new().filters(&filters).build();
    let images = docker()?.list_images(Some(options)).await?;
    assert!(images.is_empty(), "temporary images stay: {images:?}");

    let history = client.run(&["session", "status-history", "kept"]).await?.success();
    assert!(history.all().contains("Actual Resource Allocation Time"), "{history}");
    assert!(history.all().contains("preparing"), "{history}");
    cluster.stop().await
}

#[tokio::test]
async fn image_rescan_waits_for_the_scan() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let database = cluster.database().await?;
    database.execute("DELETE FROM images", &[]).await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let image = cluster.image(Image::Busybox);
    let output = rescan(&admin, &image).await?;
    assert!(output.contains("Started updating the image metadata"), "{output}");
    assert!(output.contains("Finished registry scanning"), "{output}");
    let found: Vec<String> = database
        .query("SELECT name FROM images", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(found, [image]);
    let failed = admin.run(&["admin", "image", "rescan", "-r", "nowhere:1"]).await?.failure();
    assert!(failed.all().contains("nowhere:1"), "{failed}");
    let stranger = cluster.client(&cluster.identities.user1)?;
    stranger.run(&["admin", "image", "rescan"]).await?.failure();
    cluster.stop().await
}

async fn rescan(admin: &StockClient, what: &str) -> Result<String> {
    Ok(admin.run(&["admin", "image", "rescan", "-r", what]).await?.success().all())
}
