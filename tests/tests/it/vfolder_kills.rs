//! `kill -9` of the manager while folders and files change: at each step of each operation,
//! and at random.
//!
//! A step is reached for certain by holding what it waits for in PostgreSQL; the statement
//! that waits is ended with the manager, as it would be if the manager had died before it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use backendai_tests::wait::{wait_for, wait_until};
use backendai_tests::{SignedClient, TestCluster};

use crate::support::LIMIT;

pub const HOST: &str = "local:volume1";
/// Holds what inserts and changes of uploads wait for.
const HOLD_UPLOADS: &str = "LOCK TABLE vfolder_uploads IN SHARE MODE";

/// A cluster without agents and a user who works on its folders.
pub struct World {
    pub cluster: TestCluster,
    pub owner: SignedClient,
    pub http: reqwest::Client,
    pub volume: PathBuf,
    sql: tokio_postgres::Client,
}

impl World {
    pub async fn start() -> Result<Self> {
        // What is left behind is cleared by a task; nobody shall wait for it for long.
        let config = json!({ "tunables": { "task-interval-s": 0.2 } });
        let cluster = TestCluster::builder().agents(0).manager_config(config).start().await?;
        Ok(Self {
            owner: cluster.signed(&cluster.identities.user1),
            http: reqwest::Client::builder().no_proxy().build()?,
            volume: cluster.dir().join("vfolders").join(HOST),
            sql: cluster.database().await?,
            cluster,
        })
    }

    /// Makes a folder, and gives its id and where it is on the disk.
    pub async fn folder(&self, name: &str) -> Result<(String, PathBuf)> {
        let body = json!({ "name": name, "host": HOST, "cloneable": true });
        let made = self.owner.post("/folders", body).await?.ok();
        let id = made["id"].as_str().context("an id")?.to_owned();
        let path = self.volume.join("folders").join(&id);
        Ok((id, path))
    }

    /// Sends a request that will not be answered.
    fn send(&self, method: Method, path: &str, body: Value) -> JoinSet<()> {
        let (owner, path) = (self.owner.clone(), path.to_owned());
        beside(async move { drop(owner.send(method, &path, body).await) })
    }

    /// Kills the manager, and starts it again when nothing of it is left.
    async fn kill(&mut self) -> Result<()> {
        self.cluster.manager.process.kill().await?;
        let orphans = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.sql.execute(orphans, &[]).await?;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.cluster.manager.start().await?;
        Ok(())
    }

    /// Sends a request while `hold` is held, kills the manager when the request has come to
    /// where it waits for it and `reached` holds, and starts the manager again.
    async fn cut(
        &mut self,
        hold: &str,
        (method, path, body): (Method, &str, Value),
        reached: impl AsyncFn() -> Result<bool>,
    ) -> Result<()> {
        self.sql.batch_execute(&format!("BEGIN; {hold}")).await?;
        let request = self.send(method, path, body);
        let looker = self.cluster.database().await?;
        wait_until(LIMIT, &format!("{path} to be cut"), async || {
            Ok(is_blocked(&looker).await? && reached().await?)
        })
        .await?;
        self.kill().await?;
        ended(request).await?;
        self.sql.batch_execute("ROLLBACK").await?;
        self.restart().await
    }

    /// Waits until nothing is on its way in or out on the volume.
    pub async fn wait_at_rest(&self) -> Result<()> {
        wait_until(LIMIT, "the volume to come to rest", async || {
            for area in ["copies", "removed"] {
                let left = names(&self.volume.join(area))?;
                anyhow::ensure!(left.is_empty(), "{area}/ has {left:?}");
            }
            let moving = "SELECT count(*) FROM vfolders WHERE status IN ('performing', 'deleting')";
            let moving: i64 = self.sql.query_one(moving, &[]).await?.get(0);
            anyhow::ensure!(moving == 0, "{moving} folders are on their way");
            Ok(true)
        })
        .await
    }

    async fn names(&self) -> Result<Vec<String>> {
        let list = self.owner.get("/folders").await?.ok();
        let list = list.as_array().context("a list")?;
        let mut names: Vec<String> =
            list.iter().filter_map(|folder| Some(folder["name"].as_str()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    pub async fn wait_ready(&self, name: &str) -> Result<PathBuf> {
        wait_for(LIMIT, &format!("the folder {name} to be ready"), async || {
            let reply = self.owner.get(&format!("/folders/{name}")).await?;
            let id = reply.body["id"].as_str().context("an id")?;
            let is_ready = reply.body["status"] == "ready";
            Ok(is_ready.then(|| self.volume.join("folders").join(id)))
        })
        .await
    }
}

/// Does something meanwhile.
fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut set = JoinSet::new();
    set.spawn(work);
    set
}

/// What came of it.
async fn ended<T: 'static>(mut work: JoinSet<T>) -> Result<T> {
    Ok(work.join_next().await.context("a task")??)
}

async fn is_blocked(sql: &tokio_postgres::Client) -> Result<bool> {
    let blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity \
        WHERE datname = current_database() AND wait_event_type = 'Lock')";
    Ok(sql.query_one(blocked, &[]).await?.get(0))
}

async fn has_row(sql: &tokio_postgres::Client, name: &str) -> Result<bool> {
    let row = "SELECT EXISTS (SELECT FROM vfolders WHERE name = $1)";
    Ok(sql.query_one(row, &[&name]).await?.get(0))
}

pub fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// All files beneath, with their content.
pub fn tree(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        if path.is_dir() {
            let inner = tree(&path)?.into_iter();
            files.extend(inner.map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.insert(name, std::fs::read(path)?);
        }
    }
    Ok(files)
}

/// Puts so many files into so many directories, past the manager.
pub fn plant(directory: &Path, directories: usize, files: usize) -> Result<()> {
    for outer in 0..directories {
        let inner = directory.join(format!("d{outer}"));
        std::fs::create_dir_all(&inner)?;
        for file in 0..files {
            std::fs::write(inner.join(format!("f{file}")), format!("{outer} {file}\n").repeat(40))?;
        }
    }
    Ok(())
}

pub fn bytes(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n % 253) as u8).collect()
}

/// Looks again and again without a pause: what is awaited does not last.
async fn watch(what: &str, seen: impl Fn() -> bool) -> Result<()> {
    let seen = async {
        while !seen() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, seen).await.with_context(|| format!("waited for {what}"))
}

fn is_filled(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// Asks for an upload and gives its URL.
pub async fn request_upload(owner: &SignedClient, path: &str, size: usize) -> Result<String> {
    let body = json!({ "path": path, "size": size });
    let reply = owner.post("/folders/files/request-upload", body).await?;
    anyhow::ensure!(reply.status == 200, "{reply:?}");
    let text = |key: &str| reply.body[key].as_str().unwrap_or_default().to_owned();
    Ok(format!("{}?token={}", text("url"), text("token")))
}

pub async fn patch(
    http: &reqwest::Client,
    url: &str,
    at: usize,
    bytes: impl Into<reqwest::Body>,
) -> Result<u16> {
    let request = http.patch(url).header("Tus-Resumable", "1.0.0");
    let request = request.header("Upload-Offset", at.to_string()).body(bytes);
    Ok(request.send().await?.status().as_u16())
}

/// How many bytes of an upload are there.
pub async fn offset(http: &reqwest::Client, url: &str) -> Result<usize> {
    let answer = http.head(url).send().await?;
    anyhow::ensure!(answer.status() == 200, "HEAD is answered {}", answer.status());
    Ok(answer.headers()["upload-offset"].to_str()?.parse()?)
}

#[tokio::test]
async fn an_upload_survives_the_manager_at_every_step() -> Result<()> {
    let mut world = World::start().await?;
    let (_, folder) = world.folder("files").await?;
    let uploads = world.volume.join("uploads");
    let content = bytes(3_000_000);

    // Its bytes have a place, and no row yet.
    let body = json!({ "path": "a", "size": content.len() });
    let request = (Method::POST, "/folders/files/request-upload", body);
    let (place, size) = (uploads.clone(), content.len());
    world.cut(HOLD_UPLOADS, request, async || Ok(is_filled(&place))).await?;
    assert!(tree(&folder)?.is_empty(), "a file that nobody has sent is shown");

    // A body is on its way.
    let url = request_upload(&world.owner, "a", size).await?;
    let (http, to, sent) = (world.http.clone(), url.clone(), content.clone());
    let body = futures::stream::unfold(0, move |at| {
        let piece = sent.get(at..at + 1000).map(<[u8]>::to_vec);
        async move {
            match piece {
                Some(piece) if at < 1_500_000 => Some((std::io::Result::Ok(piece), at + 1000)),
                // The rest never comes.
                _ => std::future::pending().await,
            }
        }
    });
    let body = reqwest::Body::wrap_stream(body);
    let request = beside(async move { patch(&http, &to, 0, body).await });
    let arrived = || {
        names(&uploads).is_ok_and(|names| {
            let size = |name: &String| std::fs::metadata(uploads.join(name)).map(|m| m.len());
            names.iter().any(|name| size(name).is_ok_and(|size| size > 1_000_000))
        })
    };
    watch("bytes to arrive", arrived).await?;
    world.kill().await?;
    assert!(ended(request).await?.is_err());
    world.restart().await?;
    let at = offset(&world.http, &url).await?;
    assert!((1_000_000..=1_500_000).contains(&at), "{at} bytes are there");
    assert!(tree(&folder)?.is_empty(), "half a file is shown");
    assert_eq!(patch(&world.http, &url, at, content[at..].to_vec()).await?, 204);
    assert!(tree(&folder)?["a"] == content, "another file came out");

    // All bytes are there and the file has its name, but nobody was told.
    let url = request_upload(&world.owner, "b/c", size).await?;
    world.sql.batch_execute(&format!("BEGIN; {HOLD_UPLOADS}")).await?;
    let (http, to, sent) = (world.http.clone(), url.clone(), content.clone());
    let request = beside(async move { patch(&http, &to, 0, sent).await });
    wait_until(LIMIT, "the file to appear", async || Ok(folder.join("b/c").exists())).await?;
    world.kill().await?;
    assert!(ended(request).await?.is_err());
    world.sql.batch_execute("ROLLBACK").await?;
    world.restart().await?;
    assert_eq!(offset(&world.http, &url).await?, size);
    assert!(tree(&folder)?["b/c"] == content, "another file came out");
    let complete = "SELECT count(*) FROM vfolder_uploads WHERE completed_at IS NULL";
    let left: i64 = world.sql.query_one(complete, &[]).await?.get(0);
    assert_eq!(left, 0, "room stays promised to files that are there");
    world.cluster.stop().await
}

#[tokio::test]
async fn a_copy_survives_the_manager_at_every_step() -> Result<()> {
    let mut world = World::start().await?;
    let (_, source) = world.folder("source").await?;
    plant(&source, 20, 40)?;
    let all = tree(&source)?;
    let clone = |name: &str| {
        let body = json!({ "target_name": name, "target_host": HOST });
        (Method::POST, "/folders/source/clone", body)
    };
    let copies = world.volume.join("copies");

    // It has a row, and nobody copies.
    let hold = "LOCK TABLE background_tasks IN SHARE MODE";
    let looker = world.cluster.database().await?;
    world.cut(hold, clone("first"), async || has_row(&looker, "first").await).await?;
    assert!(tree(&world.wait_ready("first").await?)? == all, "the copy is another");

    // Files are copied.
    let (method, path, body) = clone("second");
    let request = world.send(method, path, body);
    watch("a copy to begin", || is_filled(&copies)).await?;
    world.kill().await?;
    ended(request).await?;
    assert!(!is_shown_in_part(&world.volume, &all)?, "half a copy is shown");
    world.restart().await?;
    assert!(tree(&world.wait_ready("second").await?)? == all, "the copy is another");

    // The copy is complete, and its row says otherwise.
    let before = names(&world.volume.join("folders"))?.len();
    world.sql.batch_execute(&format!("BEGIN; {hold}")).await?;
    let (method, path, body) = clone("third");
    let request = world.send(method, path, body);
    let row = async || has_row(&looker, "third").await;
    wait_until(LIMIT, "the copy to have a row", row).await?;
    looker.batch_execute("BEGIN; SELECT FROM vfolders WHERE name = 'third' FOR UPDATE").await?;
    world.sql.batch_execute("ROLLBACK").await?;
    wait_until(LIMIT, "the copy to be complete", async || {
        Ok(names(&world.volume.join("folders"))?.len() > before && is_blocked(&world.sql).await?)
    })
    .await?;
    world.kill().await?;
    ended(request).await?;
    looker.batch_execute("ROLLBACK").await?;
    world.restart().await?;
    assert!(tree(&world.wait_ready("third").await?)? == all, "the copy is another");
    world.wait_at_rest().await?;
    assert_eq!(names(&world.volume.join("folders"))?.len(), before + 1);
    world.cluster.stop().await
}

/// Whether a folder has some of these files and not all.
fn is_shown_in_part(volume: &Path, all: &BTreeMap<String, Vec<u8>>) -> Result<bool> {
    for name in names(&volume.join("folders"))? {
        if tree(&volume.join("folders").join(name))? != *all {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn a_removal_survives_the_manager_at_every_step() -> Result<()> {
    let mut world = World::start().await?;
    let removed = world.volume.join("removed");

    // A directory in a folder: all or nothing of it.
    let (_, path) = world.folder("files").await?;
    plant(&path.join("tree"), 30, 40)?;
    let body = json!({ "files": ["tree"], "recursive": true });
    let request = world.send(Method::DELETE, "/folders/files/delete-files", body);
    watch("a removal to begin", || is_filled(&removed)).await?;
    world.kill().await?;
    ended(request).await?;
    assert!(names(&path)?.is_empty(), "half a directory is shown");
    world.restart().await?;
    world.wait_at_rest().await?;

    // A folder that is about to go to the trash stays whole.
    let (id, path) = world.folder("doomed").await?;
    plant(&path, 30, 40)?;
    let all = tree(&path)?;
    let hold = "SELECT FROM vfolders WHERE name = 'doomed' FOR UPDATE";
    let request = (Method::DELETE, "/folders/doomed", Value::Null);
    world.cut(hold, request, async || Ok(true)).await?;
    assert_eq!(world.names().await?, ["doomed", "files"]);
    assert!(tree(&path)? == all, "something is lost");
    world.owner.delete("/folders/doomed").await?.ok();
    assert_eq!(world.names().await?, ["files"]);
    assert!(tree(&path)? == all, "something is lost of what can be restored");

    // Its content is on its way out.
    let purge = json!({ "vfolder_id": id });
    let path_of_purge = "/folders/delete-from-trash-bin";
    let request = world.send(Method::POST, path_of_purge, purge);
    watch("a removal to begin", || is_filled(&removed)).await?;
    world.kill().await?;
    ended(request).await?;
    assert!(!path.exists(), "half a folder is there");
    world.restart().await?;
    world.wait_at_rest().await?;

    // Its content is gone, and its row is not.
    let (id, path) = world.folder("gone").await?;
    world.owner.delete("/folders/gone").await?.ok();
    let hold = "SELECT FROM vfolders WHERE name = 'gone' FOR KEY SHARE";
    let request = (Method::POST, path_of_purge, json!({ "vfolder_id": id }));
    world.cut(hold, request, async || Ok(!path.exists())).await?;
    world.wait_at_rest().await?;
    let rows: i64 = world.sql.query_one("SELECT count(*) FROM vfolders", &[]).await?.get(0);
    assert_eq!(rows, 1);
    world.cluster.stop().await
}
