//! Private servers and the program under test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use backendai_datastore::testing::{self, TestDatabase, spawn_guarded};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

/// Long enough for a machine that does other things besides.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A port nobody uses at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn temp_dir(name: &str) -> PathBuf {
    tempfile::Builder::new().prefix(name).tempdir().unwrap().keep()
}

async fn wait_for(url: &str, dir: &Path) {
    backendai_manager::tls::install_provider();
    let ready = async {
        loop {
            match reqwest::get(url).await {
                Ok(reply) if !reply.status().is_server_error() => return,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    if tokio::time::timeout(START_TIMEOUT, ready).await.is_err() {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("no answer from {url}:\n{log}");
    }
}

/// Address of the etcd of this test process.
pub async fn etcd() -> &'static str {
    static ETCD: OnceCell<PrivateEtcd> = OnceCell::const_new();
    &ETCD.get_or_init(PrivateEtcd::start).await.addr
}

/// An etcd.
pub struct PrivateEtcd {
    pub addr: String,
    guard: Child,
}

impl PrivateEtcd {
    pub async fn start() -> Self {
        let dir = temp_dir("backendai-etcd-");
        let addr = format!("127.0.0.1:{}", free_port());
        let client = format!("http://{addr}");
        let peer = format!("http://127.0.0.1:{}", free_port());
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("data")).args(["--log-level", "error"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"]);
        let guard = spawn_guarded(&dir, &command);
        wait_for(&format!("{client}/health"), &dir).await;
        Self { addr, guard }
    }

    /// Ends it, and returns when it is gone.
    pub fn stop(mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().unwrap();
    }
}

/// Address of the Redis of this test process.
pub async fn redis() -> &'static str {
    static REDIS: OnceCell<(String, Child)> = OnceCell::const_new();
    let (addr, _) = REDIS
        .get_or_init(|| async {
            let dir = temp_dir("backendai-redis-");
            let port = free_port();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            let child = spawn_guarded(&dir, &command);
            let addr = format!("127.0.0.1:{port}");
            let ready = async {
                while tokio::net::TcpStream::connect(&addr).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(START_TIMEOUT, ready).await.expect("redis starts");
            (addr, child)
        })
        .await;
    addr
}

/// A folder with a configuration for the program, a database and an etcd namespace.
pub struct Site {
    /// Kept, as it goes with the site.
    _database: TestDatabase,
    pub dir: tempfile::TempDir,
}

impl Site {
    /// A site on a database that is migrated or empty.
    pub async fn start(migrated: bool) -> Self {
        let database = match migrated {
            true => testing::database().await,
            false => testing::empty_database().await,
        };
        let dir = tempfile::tempdir().unwrap();
        let db = &database.config;
        let namespace = &db.name;
        let config = format!(
            "[etcd]\nnamespace = {namespace:?}\naddr = {:?}\n[db]\naddr = {:?}\nname = {:?}\n\
             user = {:?}\npassword = {:?}\n",
            etcd().await,
            format!("{}:{}", db.host, db.port),
            db.name,
            db.user,
            db.password,
        );
        std::fs::write(dir.path().join("manager.toml"), config).unwrap();
        Self { _database: database, dir }
    }

    /// Adds lines to the configuration.
    pub fn configure(&self, lines: &str) {
        let path = self.dir.path().join("manager.toml");
        let text = std::fs::read_to_string(&path).unwrap() + lines;
        std::fs::write(path, text).unwrap();
    }

    /// The program, to be run in the site's folder.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_backendai-manager"));
        command.args(args).current_dir(self.dir.path()).env_remove("BACKEND_CONFIG_FILE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs the program.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, "").await
    }

    /// Runs the program with something on its standard input.
    pub async fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        use tokio::io::AsyncWriteExt;
        let mut command = self.command(args);
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // A program that does not read its input closes it.
        pipe.write_all(stdin.as_bytes()).await.ok();
        drop(pipe);
        child.wait_with_output().await.unwrap()
    }

    /// Runs the program, which must succeed and keep quiet on standard error.
    pub async fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must fail with this exit code; gives its message.
    pub async fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(!stderr.is_empty(), "{args:?} fails silently");
        stderr
    }
}

/// A real registry, to which tests push over its API.
pub struct Registry {
    pub addr: String,
    http: reqwest::Client,
    credentials: Option<(String, String)>,
    _guard: Child,
}

impl Registry {
    /// A registry that asks for an account if one is given.
    pub async fn start(credentials: Option<(&str, &str)>) -> Self {
        let dir = temp_dir("backendai-registry-");
        let addr = format!("127.0.0.1:{}", free_port());
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\n\
             http: {{addr: {addr:?}, secret: s}}\n",
            dir.join("data").display().to_string(),
        );
        if let Some((user, password)) = credentials {
            let passwords = dir.join("htpasswd");
            let hash = bcrypt::hash(password, 4).unwrap();
            std::fs::write(&passwords, format!("{user}:{hash}\n")).unwrap();
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n",
                passwords.display().to_string()
            );
        }
        std::fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let guard = spawn_guarded(&dir, &command);
        wait_for(&format!("http://{addr}/v2/"), &dir).await;
        let credentials = credentials.map(|(u, p)| (u.to_owned(), p.to_owned()));
        Self { addr, http: reqwest::Client::new(), credentials, _guard: guard }
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// Pushes a blob; gives its descriptor.
    async fn push_blob(&self, repository: &str, content: Vec<u8>) -> Value {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let start = format!("http://{}/v2/{repository}/blobs/uploads/", self.addr);
        let reply = self.authorized(self.http.post(start)).send().await.unwrap();
        let location = reply.headers()["location"].to_str().unwrap().to_owned();
        let size = content.len();
        let put = self.http.put(location).query(&[("digest", &digest)]).body(content);
        self.authorized(put).send().await.unwrap().error_for_status().unwrap();
        json!({"digest": digest, "size": size, "mediaType": "application/octet-stream"})
    }

    async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Value {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let content = serde_json::to_vec(manifest).unwrap();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let reference = if reference.is_empty() { &digest } else { reference };
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", self.addr);
        let size = content.len();
        let put = self.http.put(url).header("Content-Type", media_type).body(content);
        let reply = self.authorized(put).send().await.unwrap();
        let status = reply.status();
        assert!(status.is_success(), "{status}: {}", reply.text().await.unwrap());
        json!({"digest": digest, "size": size, "mediaType": media_type})
    }

    /// Pushes an image of one architecture under a tag, or by digest if that is empty.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        architecture: &str,
        labels: Value,
    ) -> Value {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = self.push_blob(repository, serde_json::to_vec(&config).unwrap()).await;
        let layer = self.push_blob(repository, b"layer".to_vec()).await;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": config, "layers": [layer],
        });
        self.push_manifest(repository, tag, &manifest).await
    }

    /// Pushes an index of images.
    pub async fn push_index(&self, repository: &str, tag: &str, manifests: Vec<Value>) {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        });
        self.push_manifest(repository, tag, &index).await;
    }
}

/// Labels of a kernel image.
pub fn python_labels() -> Value {
    json!({
        "ai.backend.kernelspec": "1",
        "ai.backend.features": "batch query uid-match user-input",
        "ai.backend.runtime-type": "python",
        "ai.backend.resource.min.cpu": "1",
        "ai.backend.resource.min.mem": "256m",
    })
}
