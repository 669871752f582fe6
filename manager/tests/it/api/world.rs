//! A manager's API without the rest of the manager, and clients that sign.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::testing::{self, TestDatabase, spawn_guarded};
use backendai_datastore::{Datastore, DatastoreConfig};
use backendai_manager::agents::{AgentAddr, AgentPool, AgentTransport};
use backendai_manager::api;
use backendai_manager::api::auth::{date, signature};
use backendai_manager::app::background_task::BackgroundTasks;
use backendai_manager::app::{App, SharedApp};
use backendai_manager::config::ManagerConfig;
use backendai_manager::feed;
use backendai_manager::shared_config::SharedConfig;
use backendai_manager::wake::Wake;
use backendai_rpc::call::{CallContext, CallError, Connection};
use backendai_service::Lifecycle;
use backendai_service::etcd::{Etcd, EtcdAddress};
use backendai_service::redis::{Redis, RedisAddress};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

use crate::support::{etcd, free_port};

/// Waits of tests end here; nothing on the way there is timed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A keypair of the example site.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub access: &'static str,
    pub secret: &'static str,
}

/// An agent that does nothing but what a test makes of it.
pub type Play = Arc<dyn Connection>;

struct PlayedAgents(Option<Play>);

impl AgentTransport for PlayedAgents {
    fn connect(&self, _: &AgentAddr) -> Play {
        self.0.clone().unwrap_or_else(|| Arc::new(NoAgent))
    }
}

struct NoAgent;

#[async_trait::async_trait]
impl Connection for NoAgent {
    async fn call(
        &self,
        _: &CallContext,
        _: &'static str,
        _: Vec<u8>,
        _: Duration,
    ) -> Result<Vec<u8>, CallError> {
        Err(CallError::Closed)
    }
}

/// What a world is made of where it differs from the usual one.
#[derive(Default)]
pub struct Options {
    pub agents: Option<Play>,
    pub redis_is_away: bool,
    pub database_is_away: bool,
}

/// An API server over a database of its own, loaded with the example site.
pub struct World {
    pub app: SharedApp,
    pub addr: SocketAddr,
    pub lifecycle: Lifecycle,
    pub http: reqwest::Client,
    pub database: Arc<TestDatabase>,
    pub sql: tokio_postgres::Client,
}

impl World {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let database = Arc::new(testing::database().await);
        let site = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-configs");
        for file in ["example-keypairs.json", "example-resource-presets.json"] {
            let text = std::fs::read(site.join(file)).unwrap();
            database.datastore.populate(&text).await.unwrap();
        }
        Self::beside(database, options).await
    }

    /// Another manager over the same stores.
    pub async fn beside(database: Arc<TestDatabase>, options: Options) -> Self {
        backendai_manager::tls::install_provider();
        let lifecycle = Lifecycle::new();
        let namespace = database.config.name.clone();
        let address = EtcdAddress {
            addr: etcd().await.to_owned(),
            namespace: namespace.clone(),
            credentials: None,
        };
        let etcd = Etcd::connect(&address).await.unwrap();
        let port = if options.redis_is_away { free_port() } else { redis_port().await };
        let redis_address = RedisAddress { host: "127.0.0.1".into(), port, password: None };
        let redis = Redis::connect(&redis_address, &namespace).await.unwrap();
        let datastore = match options.database_is_away {
            false => database.datastore.clone(),
            true => Datastore::new(&DatastoreConfig {
                host: "127.0.0.1".into(),
                port: free_port(),
                ..database.config.clone()
            })
            .unwrap(),
        };
        let mut config = ManagerConfig::default();
        config.manager.id = "i-test".into();
        let app = Arc::new(App {
            config,
            datastore,
            shared: SharedConfig::new(etcd.clone()),
            etcd,
            redis,
            wake: Wake::local(),
            agents: AgentPool::new(PlayedAgents(options.agents)),
            executions: Default::default(),
            received_output: Default::default(),
            feed: Default::default(),
            background_tasks: BackgroundTasks::new(lifecycle.clone()),
            volumes: Default::default(),
        });
        lifecycle.spawn_vital("feed", feed::follow(Arc::clone(&app), lifecycle.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        lifecycle.spawn_vital("api", api::serve(Arc::clone(&app), listener, lifecycle.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let sql = connect(&database.config).await;
        Self { app, addr, lifecycle, http, database, sql }
    }

    /// A request of nobody.
    pub fn request(&self, method: &str, target: &str) -> Request<'_> {
        Request {
            world: self,
            method: method.to_owned(),
            target: target.to_owned(),
            key: None,
            body: None,
            headers: vec![("x-backendai-version".into(), "v7.20230615".into())],
            date: chrono::Utc::now().to_rfc3339(),
            signed_as: None,
        }
    }

    pub fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    /// A key of the example site by the user's name: `admin`, `user1`…
    pub async fn key(&self, username: &str) -> Key {
        let row = self
            .sql
            .query_one(
                "SELECT k.access_key, k.secret_key FROM users u \
                 JOIN keypairs k ON k.access_key = u.main_access_key WHERE u.username = $1",
                &[&username],
            )
            .await
            .unwrap();
        let leak = |text: String| -> &'static str { text.leak() };
        Key { access: leak(row.get(0)), secret: leak(row.get(1)) }
    }

    /// A query as the stock client sends it; gives the body as text, so that the order of
    /// keys can be compared.
    pub async fn gql(&self, key: Key, query: &str, variables: Value) -> String {
        let body = serde_json::json!({"query": query, "variables": variables});
        let reply = self.request("POST", "/admin/gql").signed(key).json(&body).send().await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        reply.text
    }
}

/// A request that is being put together.
pub struct Request<'a> {
    world: &'a World,
    pub method: String,
    pub target: String,
    pub key: Option<Key>,
    pub body: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
    pub date: String,
    pub signed_as: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status, last part of the problem type, and message.
    pub fn problem(&self) -> (u16, String, String) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json; charset=utf-8"),
            "{}",
            self.text
        );
        let body = self.json();
        let kind = body["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        (self.status.as_u16(), kind, body["msg"].as_str().unwrap_or_default().to_owned())
    }
}

impl Request<'_> {
    pub fn signed(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string().into_bytes(), "application/json")
    }

    pub fn body(mut self, body: Vec<u8>, media_type: &str) -> Self {
        self.body = Some(body);
        self.header("content-type", media_type)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    /// The `Authorization` header for a key.
    pub fn authorization(&self, key: Key) -> String {
        let find = |name: &str| {
            self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let media_type = signature::media_type(find("content-type").map(str::as_bytes));
        let host = self.world.addr.to_string();
        let signed = signature::Signed {
            method: &self.method,
            target: self.signed_as.as_deref().unwrap_or(&self.target),
            date_header: self.date.as_bytes(),
            date: date::parse(&self.date).unwrap_or_default(),
            host: host.as_bytes(),
            media_type: &media_type,
            version_header: "x-backendai-version",
            version: find("x-backendai-version").unwrap_or_default().as_bytes(),
        };
        let signature = signature::sign_sha256(key.secret, &signed);
        format!("BackendAI signMethod=HMAC-SHA256, credential={}:{signature}", key.access)
    }

    pub async fn send(self) -> Reply {
        let reply = self.answer().await;
        let (status, headers) = (reply.status(), reply.headers().clone());
        Reply { status, headers, text: reply.text().await.unwrap() }
    }

    /// The status alone, for answers that do not end.
    pub async fn head(self) -> StatusCode {
        self.answer().await.status()
    }

    async fn answer(self) -> reqwest::Response {
        let authorization = self.key.map(|key| self.authorization(key));
        let url = format!("http://{}{}", self.world.addr, self.target);
        let method: Method = self.method.parse().unwrap();
        let mut request = self.world.http.request(method, url);
        if !self.date.is_empty() {
            request = request.header("date", &self.date);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        request.send().await.unwrap()
    }
}

async fn redis_port() -> u16 {
    static REDIS: OnceCell<(u16, Child)> = OnceCell::const_new();
    let (port, _) = REDIS
        .get_or_init(|| async {
            let dir = tempfile::Builder::new().prefix("backendai-redis-").tempdir().unwrap().keep();
            let port = free_port();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&dir);
            let child = spawn_guarded(&dir, &command);
            let ready = async {
                while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, ready).await.expect("redis starts");
            (port, child)
        })
        .await;
    *port
}

async fn connect(config: &DatastoreConfig) -> tokio_postgres::Client {
    let mut pg = tokio_postgres::Config::new();
    pg.host(&config.host).port(config.port).dbname(&config.name).user(&config.user);
    if !config.password.is_empty() {
        pg.password(&config.password);
    }
    let (client, connection) = pg.connect(tokio_postgres::NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(async move {
        connection.await.ok();
    });
    client
}
