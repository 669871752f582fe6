//! The manager is killed at random while folders are filled, copied, emptied and renamed.
//!
//! Those who work do what clients do: they ask again until they are answered. What they were
//! told must hold ever after, and what they look at must always be whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};

use backendai_tests::SignedClient;
use backendai_tests::client::Reply;
use backendai_tests::wait::{POLL, wait_for};

use crate::support::LIMIT;
use crate::vfolder_kills::{HOST, World, bytes, names, offset, patch, plant, request_upload, tree};

/// Deaths of the manager.
const KILLS: usize = 12;
/// How long it lives at most.
const LIFE_MS: u64 = 500;
/// Files in each directory that is removed.
const PLANTED: (usize, usize) = (3, 30);

/// Somebody who works while the manager dies and comes back.
#[derive(Clone)]
struct Worker {
    owner: SignedClient,
    http: reqwest::Client,
    ended: Arc<AtomicBool>,
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.ended.load(Ordering::Relaxed)
    }

    /// Asks until there is an answer; the manager may have done it before, too.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Reply> {
        wait_for(LIMIT, &format!("an answer to {method} {path}"), async || {
            let reply = self.owner.send(method.clone(), path, body.clone()).await?;
            // It is about to go, or has just come.
            anyhow::ensure!(reply.status < 500, "{reply:?}");
            Ok(Some(reply))
        })
        .await
    }
}

/// Uploads files of random sizes in random pieces; gives their paths and content.
async fn upload(worker: Worker, seed: u64) -> Result<Vec<(String, Vec<u8>)>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = Vec::new();
    while worker.goes_on() {
        let content = bytes(random.random_range(1..3_000_000));
        let path = format!("{seed}-{}-{}", done.len(), content.len());
        let url = wait_for(LIMIT, "an upload", async || {
            Ok(Some(request_upload(&worker.owner, &path, content.len()).await?))
        })
        .await?;
        let mut at = 0;
        while at < content.len() {
            let end = (at + random.random_range(1..800_000)).min(content.len());
            match patch(&worker.http, &url, at, content[at..end].to_vec()).await {
                Ok(204) => at = end,
                _ => {
                    let there = async || Ok(Some(offset(&worker.http, &url).await?));
                    let there = wait_for(LIMIT, "an upload to go on", there).await?;
                    anyhow::ensure!(there >= at, "{path}: {there} of {at} bytes are left");
                    at = there;
                }
            }
        }
        done.push((path, content));
    }
    Ok(done)
}

/// Copies a folder; gives the copies' names.
async fn copy(worker: Worker) -> Result<Vec<String>> {
    let mut done = Vec::new();
    while worker.goes_on() {
        let name = format!("copy-{}", done.len());
        let body = json!({ "target_name": name, "target_host": HOST });
        let reply = worker.ask(Method::POST, "/folders/source/clone", body).await?;
        match reply.problem() {
            // The answer to an earlier attempt was lost.
            None | Some("vfolder-already-exists") => done.push(name),
            // The copy before is not complete.
            Some("vfolder-filter-status-failed") => tokio::time::sleep(POLL).await,
            _ => anyhow::bail!("{reply:?}"),
        }
    }
    Ok(done)
}

/// Removes directories, of which each must be there wholly or not at all.
async fn remove(worker: Worker, folder: std::path::PathBuf) -> Result<()> {
    let mut count = 0;
    while worker.goes_on() {
        let name = format!("tree-{count}");
        count += 1;
        plant(&folder.join(&name), PLANTED.0, PLANTED.1)?;
        let body = json!({ "files": [&name], "recursive": true });
        loop {
            let path = "/folders/doomed/delete-files";
            let reply = worker.owner.send(Method::DELETE, path, body.clone()).await;
            match tree(&folder.join(&name)) {
                Ok(files) => {
                    let all = PLANTED.0 * PLANTED.1;
                    anyhow::ensure!(files.len() == all, "{name} has {} files", files.len());
                    let answered = reply.is_ok_and(|reply| reply.status == 200);
                    anyhow::ensure!(!answered, "{name} is there again");
                }
                Err(_) => break,
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Gives a folder one name after the other; there is always one of them.
async fn rename(worker: Worker) -> Result<String> {
    let mut count = 0;
    let mut name = "name-0".to_owned();
    while worker.goes_on() {
        count += 1;
        let next = format!("name-{count}");
        let path = format!("/folders/{name}/rename");
        let reply = worker.ask(Method::POST, &path, json!({ "new_name": next })).await?;
        // Not found: it was renamed, and the answer was lost.
        anyhow::ensure!(matches!(reply.status, 201 | 404), "{reply:?}");
        let (old, new) = (format!("/folders/{name}"), format!("/folders/{next}"));
        let old = worker.ask(Method::GET, &old, Value::Null).await?.status;
        let new = worker.ask(Method::GET, &new, Value::Null).await?.status;
        anyhow::ensure!((old, new) == (404, 200), "{name}: {old}, {next}: {new}");
        name = next;
    }
    Ok(name)
}

/// Looks at the files that are uploaded: none is ever shown in part.
async fn look(worker: Worker) -> Result<()> {
    while worker.goes_on() {
        let body = json!({ "path": "." });
        let reply = worker.ask(Method::GET, "/folders/files/files", body).await?.ok();
        for item in reply["items"].as_array().context("items")? {
            let name = item["name"].as_str().unwrap_or_default();
            let whole = name.rsplit('-').next().and_then(|size| size.parse().ok());
            anyhow::ensure!(item["size"].as_u64() == whole, "half a file is shown: {item}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn kill_at_random(world: &mut World) -> Result<()> {
    let seed: u64 = rand::random();
    println!("the manager is killed at moments from seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        // Not waiting for anything: the moment is what is tried.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..LIFE_MS))).await;
        world.cluster.manager.process.kill().await?;
        world.cluster.manager.start().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_holds_whenever_the_manager_is_killed() -> Result<()> {
    let mut world = World::start().await?;
    let (_, files) = world.folder("files").await?;
    let (_, doomed) = world.folder("doomed").await?;
    let (_, source) = world.folder("source").await?;
    let (_, named) = world.folder("name-0").await?;
    plant(&source, 5, 20)?;
    plant(&named, 1, 1)?;
    let worker = Worker {
        owner: world.owner.clone(),
        http: world.http.clone(),
        ended: Arc::new(AtomicBool::new(false)),
    };
    let killer = async {
        let killed = kill_at_random(&mut world).await;
        worker.ended.store(true, Ordering::Relaxed);
        killed
    };
    let (killed, first, second, copies, name, removed, looked) = tokio::join!(
        killer,
        upload(worker.clone(), 1),
        upload(worker.clone(), 2),
        copy(worker.clone()),
        rename(worker.clone()),
        remove(worker.clone(), doomed.clone()),
        look(worker.clone()),
    );
    killed?;
    removed?;
    looked?;
    let uploaded: Vec<_> = first?.into_iter().chain(second?).collect();
    assert_eq!(names(&files)?.len(), uploaded.len());
    for (path, content) in uploaded {
        assert!(std::fs::read(files.join(&path))? == content, "{path} is another");
    }
    let kept = world.owner.get(&format!("/folders/{}", name?)).await?.ok();
    assert_eq!(kept["numFiles"], 1);

    let copies = copies?;
    let all = tree(&source)?;
    for name in &copies {
        assert!(tree(&world.wait_ready(name).await?)? == all, "{name} is another");
    }
    world.wait_at_rest().await?;
    assert!(names(&doomed)?.is_empty());
    let audit = world.cluster.signed(&world.cluster.identities.superadmin);
    let audit = audit.get("/folders/_/audit").await?.ok();
    let host = &audit["hosts"][HOST];
    assert_eq!(host["folders"], copies.len() + 4, "{audit}");
    assert_eq!(host["directories_without_folder"], json!([]), "{audit}");
    assert_eq!(host["folders_without_directory"], json!([]), "{audit}");
    world.cluster.stop().await
}
