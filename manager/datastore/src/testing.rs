//! Throw-away databases for tests (feature `testing`).
//!
//! One PostgreSQL server for the test process, one migrated template in it, one database for
//! each test. `BACKENDAI_TEST_POSTGRES_URL` names a running server to use instead; its
//! account must be allowed to create databases. The server's own account is `postgres` when
//! the tests run as root, which PostgreSQL refuses to do.
//!
//! Everything here panics when it fails: there is no test without a database.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

use crate::{Datastore, DatastoreConfig};

/// Names a running server instead of a private one: `postgres://user:password@host:port/db`.
pub const SERVER_VARIABLE: &str = "BACKENDAI_TEST_POSTGRES_URL";

/// Superuser of private servers.
const SUPERUSER: &str = "backendai";
/// Account that runs private servers when the tests run as root.
const ACCOUNT: &str = "postgres";
/// Connections of one test's pool: enough to deadlock in, few enough for many tests at once.
const POOL_SIZE: usize = 8;
/// How long a private server may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Serialises processes that make the template at once. Arbitrary.
const TEMPLATE_LOCK: i64 = 0x7465_7374;

static SERVER: OnceCell<Server> = OnceCell::const_new();

tokio::task_local! {
    /// Plans of the lists that are read within [`plans`].
    static PLANS: std::sync::Mutex<Vec<String>>;
}

/// Does something and gives how PostgreSQL carries out each statement of a list (page or
/// count) that it reads, as `EXPLAIN` shows it, after the statement's name.
pub async fn plans<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    PLANS
        .scope(std::sync::Mutex::default(), async {
            let done = work.await;
            let plans = PLANS.with(|plans| std::mem::take(&mut *plans.lock().expect("no panic")));
            (done, plans)
        })
        .await
}

/// Notes the plan of a statement within [`plans`]; nothing elsewhere.
pub(crate) async fn note_plan(
    client: &tokio_postgres::Client,
    sql: &crate::list_view::Sql,
) -> Result<(), tokio_postgres::Error> {
    if PLANS.try_with(|_| ()).is_err() {
        return Ok(());
    }
    let rows = client.query_typed(&format!("EXPLAIN {}", sql.text), &sql.typed()).await?;
    let name = sql.text.lines().next().unwrap_or_default().to_owned();
    let lines = rows.iter().map(|row| row.get::<_, String>(0));
    let plan: Vec<String> = std::iter::once(name).chain(lines).collect();
    PLANS.with(|plans| plans.lock().expect("no panic").push(plan.join("\n")));
    Ok(())
}

/// A database of one test. Dropped with it on servers that outlive the process.
pub struct TestDatabase {
    /// A pool of connections.
    pub datastore: Datastore,
    /// How to reach it.
    pub config: DatastoreConfig,
    is_shared: bool,
}

/// A fresh database with the current schema and no rows.
pub async fn database() -> TestDatabase {
    let server = SERVER.get_or_init(Server::start).await;
    server.create(Some(&server.template)).await
}

/// A fresh database with the people, policies and scaling group of the example site:
/// `sample-configs/example-keypairs.json`.
pub async fn example_site() -> TestDatabase {
    let fixture = include_bytes!("../../../sample-configs/example-keypairs.json");
    let database = database().await;
    database.datastore.populate(fixture).await.expect("the example site loads");
    database
}

/// A fresh database without any schema.
pub async fn empty_database() -> TestDatabase {
    let server = SERVER.get_or_init(Server::start).await;
    server.create(None).await
}

impl TestDatabase {
    /// A connection of its own, for statements the datastore does not have.
    pub async fn connect(&self) -> tokio_postgres::Client {
        connect(&self.config).await.expect("connect to the test database")
    }
}

struct Server {
    admin: DatastoreConfig,
    template: String,
    is_shared: bool,
    /// Stops the private server when this process ends, however it ends.
    _guard: Option<Child>,
}

impl Server {
    async fn start() -> Self {
        let (admin, guard) = match std::env::var(SERVER_VARIABLE) {
            Ok(url) => (parse_url(&url), None),
            Err(_) => start_private(),
        };
        let mut server =
            Self { admin, template: String::new(), is_shared: guard.is_none(), _guard: guard };
        server.make_template().await;
        server
    }

    async fn make_template(&mut self) {
        let name = format!("test_template_{:016x}", migrations_hash());
        let admin = self.connect().await;
        admin
            .execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK])
            .await
            .expect("lock the template");
        let exists = "SELECT 1 FROM pg_database WHERE datname = $1";
        if admin.query_opt(exists, &[&name]).await.expect("list databases").is_none() {
            let draft = format!("{name}_{}", std::process::id());
            let create = format!("CREATE DATABASE \"{draft}\"");
            admin.batch_execute(&create).await.expect("create the template");
            let config = DatastoreConfig { name: draft.clone(), ..self.admin.clone() };
            let datastore = Datastore::new(&config).expect("a usable configuration");
            datastore.migrate().await.expect("migrate the template");
            datastore.pool.close();
            let rename = format!("ALTER DATABASE \"{draft}\" RENAME TO \"{name}\"");
            when_unused(&admin, &draft, &rename).await;
        }
        self.template = name;
        // The lock goes with the connection.
    }

    async fn create(&self, template: Option<&str>) -> TestDatabase {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}_{:08x}", std::process::id(), rand::random::<u32>());
        let admin = self.connect().await;
        let from = template.map(|name| format!(" TEMPLATE \"{name}\"")).unwrap_or_default();
        let create = format!("CREATE DATABASE \"{name}\"{from}");
        match template {
            Some(template) => when_unused(&admin, template, &create).await,
            None => admin.batch_execute(&create).await.expect("create a database"),
        }
        let config = DatastoreConfig { name, pool_size: POOL_SIZE, ..self.admin.clone() };
        let datastore = Datastore::new(&config).expect("a usable configuration");
        TestDatabase { datastore, config, is_shared: self.is_shared }
    }

    async fn connect(&self) -> tokio_postgres::Client {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match connect(&self.admin).await {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => {
                    panic!("connect to the test server: {error:?}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if !self.is_shared {
            return;
        }
        self.datastore.pool.close();
        let name = std::mem::take(&mut self.config.name);
        let admin = DatastoreConfig { name: "postgres".into(), ..self.config.clone() };
        // A destructor cannot wait within the test's runtime.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
                match connect(&admin).await {
                    Ok(admin) => admin.batch_execute(&drop).await,
                    Err(error) => Err(error),
                }
            })
        });
        match dropping.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("a test database is left over: {error}"),
            Err(_) => eprintln!("a test database is left over: its removal panicked"),
        }
    }
}

async fn connect(
    config: &DatastoreConfig,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut pg = tokio_postgres::Config::new();
    pg.host(&config.host).port(config.port).dbname(&config.name).user(&config.user);
    if !config.password.is_empty() {
        pg.password(&config.password);
    }
    let (client, connection) = pg.connect(NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its client; a test has no Lifecycle")]
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the test server");
        }
    });
    Ok(client)
}

/// Repeats a statement that wants nobody connected to `database` until those who are
/// leaving have left.
async fn when_unused(admin: &tokio_postgres::Client, database: &str, statement: &str) {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match admin.batch_execute(statement).await {
            Ok(()) => return,
            Err(error)
                if error.code() == Some(&SqlState::OBJECT_IN_USE) && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{statement} ({database}): {error:?}"),
        }
    }
}

fn migrations_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    for migration in crate::migrate::embedded_checksums() {
        migration.hash(&mut hasher);
    }
    hasher.finish()
}

fn parse_url(url: &str) -> DatastoreConfig {
    let config: tokio_postgres::Config =
        url.parse().unwrap_or_else(|error| panic!("{SERVER_VARIABLE}: {error}"));
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "127.0.0.1".into(),
    };
    DatastoreConfig {
        host,
        port: config.get_ports().first().copied().unwrap_or(5432),
        name: config.get_dbname().unwrap_or("postgres").into(),
        user: config.get_user().unwrap_or("postgres").into(),
        password: String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned(),
        pool_size: POOL_SIZE,
    }
}

/// Starts a server on a unix socket in a folder of its own, without durability.
fn start_private() -> (DatastoreConfig, Option<Child>) {
    let dir = run(as_account("mktemp").args(["-d", "-t", "backendai-pg-XXXXXX"]));
    let dir = PathBuf::from(dir.trim());
    let data = dir.join("data");
    run(as_account(&program("initdb"))
        .args(["--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-U", SUPERUSER])
        .arg("-D")
        .arg(&data));
    let mut postgres = as_account(&program("postgres"));
    postgres.arg("-D").arg(&data).arg("-k").arg(&dir).current_dir("/");
    for setting in [
        "listen_addresses=",
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "max_connections=400",
    ] {
        postgres.args(["-c", setting]);
    }
    let guard = spawn_guarded(&dir, &postgres);
    let config = DatastoreConfig {
        host: dir.display().to_string(),
        port: 5432,
        name: "postgres".into(),
        user: SUPERUSER.into(),
        password: String::new(),
        pool_size: POOL_SIZE,
    };
    (config, Some(guard))
}

/// Starts a server that ends with this process, however that ends; then `dir` is removed.
/// What the server prints goes to `dir/log`.
pub fn spawn_guarded(dir: &Path, server: &Command) -> Child {
    let mut shell = Command::new("sh");
    // The shell outlives this process by design: when our end of the pipe closes, it takes
    // the server down and removes the folder. QUIT is what ends PostgreSQL at once; servers
    // that do not handle it ignore it, as a shell makes its background jobs do, and get TERM.
    shell.args([
        "-c",
        "dir=$1; shift; trap '' INT TERM HUP; \"$@\" >\"$dir/log\" 2>&1 </dev/null & server=$!; \
         cat >/dev/null; kill -QUIT $server; kill -TERM $server; wait $server; rm -rf \"$dir\"",
        "sh",
    ]);
    shell.arg(dir).arg(server.get_program()).args(server.get_args());
    shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = server.get_current_dir() {
        shell.current_dir(folder);
    }
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.spawn().unwrap_or_else(|error| panic!("start sh for {server:?}: {error}"))
}

/// A command that runs as an account PostgreSQL accepts.
fn as_account(program: &str) -> Command {
    let is_root = run(Command::new("id").arg("-u")).trim() == "0";
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={ACCOUNT}")).arg(format!("--regid={ACCOUNT}"));
    command.args(["--init-groups", program]).current_dir("/");
    command
}

/// Debian keeps the server's programs out of PATH, in a folder for each version.
fn program(name: &str) -> String {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin").join(name)).collect())
        .unwrap_or_default();
    versions.retain(|path: &PathBuf| Path::exists(path));
    versions.sort();
    versions.pop().map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
