//! Private PostgreSQL, Redis, etcd and Docker registry on free loopback ports.
//!
//! Each lives in its own folder with a record of its ports and process, so that a later run
//! of the program finds it again. Tests may kill, pause and restart them.

mod etcd;
mod postgres;
mod redis;
mod registry;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::ports::{Ports, is_free};
use crate::process::{Background, Launch, Lifetime, ProcessId};
use crate::progress::Progress;
use crate::wait::{wait_for, wait_until};

pub use postgres::SUPERUSER as POSTGRES_USER;
pub use postgres::connect;

/// Generous: PostgreSQL recovers after a kill, etcd elects itself.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Which program a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// PostgreSQL, one cluster, any number of databases.
    Postgres,
    /// Redis without persistence.
    Redis,
    /// etcd, a single member.
    Etcd,
    /// Docker registry v2 over plain HTTP.
    Registry,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Postgres, Self::Redis, Self::Etcd, Self::Registry];

    /// Its name in messages, folders and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
            Self::Registry => "registry",
        }
    }
}

/// What is kept on disk about a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    port: u16,
    /// The second port of etcd, 0 for the others.
    peer_port: u16,
    /// Password of PostgreSQL's superuser, empty for the others.
    password: String,
    /// Folder with the data; outside ours where PostgreSQL's account could not reach it.
    data: PathBuf,
    process: Option<ProcessId>,
}

/// One server.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    dir: PathBuf,
    log: PathBuf,
    cache: PathBuf,
    lifetime: Lifetime,
    record: Record,
    process: Option<Background>,
}

impl Server {
    /// Finds the server below a folder again, or lays down the record of a new one. Starts
    /// nothing.
    ///
    /// # Errors
    /// The folder or its record cannot be read or written, no port is free.
    pub fn open(layout: &Layout, kind: Kind, base: &Path, lifetime: Lifetime) -> Result<Self> {
        let dir = base.join(kind.name());
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let log = base.join(format!("log/{}.log", kind.name()));
        let record_path = dir.join("server.json");
        let record = if record_path.exists() {
            let text = std::fs::read(&record_path)?;
            serde_json::from_slice(&text)
                .with_context(|| format!("read {}", record_path.display()))?
        } else {
            Record::default()
        };
        let mut server = Self {
            kind,
            process: record.process.clone().map(|id| Background::adopt(kind.name(), &log, id)),
            dir,
            log,
            cache: layout.cache.clone(),
            lifetime,
            record,
        };
        if !server.is_alive() {
            server.process = None;
        }
        Ok(server)
    }

    /// Starts it unless it runs, and waits until it serves. Returns false if it ran.
    ///
    /// # Errors
    /// It cannot be prepared or started, or does not serve in time; the message holds the end
    /// of its log.
    pub async fn start(&mut self) -> Result<bool> {
        if self.is_alive() {
            return Ok(false);
        }
        // Held until the server has bound them.
        let mut ports = Ports::default();
        for port in [&mut self.record.port, &mut self.record.peer_port] {
            if *port == 0 || !is_free(*port) {
                *port = ports.choose(&self.cache)?;
            }
        }
        match self.kind {
            Kind::Postgres => postgres::prepare(self).await?,
            Kind::Registry => registry::prepare(self)?,
            Kind::Redis | Kind::Etcd => {
                self.record.data = self.dir.join("data");
                std::fs::create_dir_all(&self.record.data)?;
            }
        }
        let launch = self.launch()?;
        let process = launch.start(self.lifetime)?;
        self.record.process = process.id().cloned();
        self.process = Some(process);
        self.save()?;
        self.wait_ready().await?;
        Ok(true)
    }

    fn launch(&self) -> Result<Launch> {
        match self.kind {
            Kind::Postgres => postgres::launch(self),
            Kind::Redis => redis::launch(self),
            Kind::Etcd => etcd::launch(self),
            Kind::Registry => registry::launch(self),
        }
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// It ended, or does not answer in time.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let name = self.kind.name();
        wait_for(START_LIMIT, &format!("{name} to serve"), async || {
            // The inner result ends the waiting, the outer one goes on with it.
            if let Some(Err(error)) = self.process.as_mut().map(Background::ensure_alive) {
                return Ok(Some(Err(error)));
            }
            match self.kind {
                Kind::Postgres => postgres::check(self).await?,
                Kind::Redis => redis::check(self).await?,
                Kind::Etcd => etcd::check(self).await?,
                Kind::Registry => registry::check(self).await?,
            }
            Ok(Some(Ok(())))
        })
        .await?
    }

    /// True while its process runs, even if paused.
    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Background::is_alive)
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// Not even a kill ends it.
    pub async fn stop(&mut self) -> Result<()> {
        // To PostgreSQL SIGTERM means "when the last client has gone".
        let signal = if self.kind == Kind::Postgres { Signal::INT } else { Signal::TERM };
        if let Some(mut process) = self.process.take() {
            process.stop(signal, STOP_GRACE).await?;
        }
        self.record.process = None;
        self.save()
    }

    /// `kill -9`. PostgreSQL's other processes notice and end too.
    ///
    /// # Errors
    /// It survives.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let alive = process.is_alive();
            let children = match process.id() {
                Some(id) if alive => children_of(id.pid)?,
                _ => Vec::new(),
            };
            process.signal(Signal::KILL)?;
            process.wait(STOP_GRACE).await?;
            // PostgreSQL does not start while one of them still holds the shared memory.
            wait_until(STOP_GRACE, "a killed server's children to end", async || {
                Ok(!children.iter().any(ProcessId::is_alive))
            })
            .await?;
        }
        Ok(())
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    ///
    /// # Errors
    /// Not permitted.
    pub fn pause(&mut self) -> Result<()> {
        self.signal_family(Signal::STOP)
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// Not permitted.
    pub fn resume(&mut self) -> Result<()> {
        self.signal_family(Signal::CONT)
    }

    /// Signals the server and its children: PostgreSQL answers each client from its own process.
    fn signal_family(&mut self, signal: Signal) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.signal(signal)?;
        let Some(pid) = process.id().map(|id| id.pid) else { return Ok(()) };
        for child in children_of(pid)? {
            child.signal(signal)?;
        }
        Ok(())
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its process id while it runs.
    pub fn pid(&mut self) -> Option<i32> {
        if self.is_alive() { self.record.process.as_ref().map(|p| p.pid) } else { None }
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.record.port)
    }

    /// Its port; 0 before the first start.
    pub fn port(&self) -> u16 {
        self.record.port
    }

    /// Password of PostgreSQL's superuser, empty for the others.
    pub fn password(&self) -> &str {
        &self.record.password
    }

    fn save(&self) -> Result<()> {
        write_private(&self.dir.join("server.json"), &serde_json::to_vec_pretty(&self.record)?)
    }

    /// Removes its data. It must not run. The images of registries stay, they are shared.
    pub(crate) fn wipe(&self) -> Result<()> {
        if self.kind == Kind::Postgres && !self.record.data.as_os_str().is_empty() {
            remove_dir(&self.record.data)?;
        }
        remove_dir(&self.dir)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Caller
            && let Some(process) = &mut self.process
        {
            process.kill_now();
        }
    }
}

/// The four servers of a stack.
#[derive(Debug)]
pub struct Servers {
    /// PostgreSQL.
    pub postgres: Server,
    /// Redis.
    pub redis: Server,
    /// etcd.
    pub etcd: Server,
    /// The Docker registry; its images are shared by all stacks of the machine.
    pub registry: Server,
}

impl Servers {
    /// Finds the servers of a folder again, or lays them down. Starts nothing.
    ///
    /// # Errors
    /// As [`Server::open`].
    pub fn open(layout: &Layout, dir: &Path, lifetime: Lifetime) -> Result<Self> {
        let open = |kind| Server::open(layout, kind, dir, lifetime);
        Ok(Self {
            postgres: open(Kind::Postgres)?,
            redis: open(Kind::Redis)?,
            etcd: open(Kind::Etcd)?,
            registry: open(Kind::Registry)?,
        })
    }

    /// Starts what does not run, all at once.
    ///
    /// # Errors
    /// The first failure of a start.
    pub async fn start(&mut self, progress: &Progress) -> Result<()> {
        let step = progress.step("servers");
        let started = futures::future::try_join_all(
            self.each_mut()
                .map(async |server| Ok::<_, anyhow::Error>((server.start().await?, server.kind))),
        )
        .await?;
        let names: Vec<&str> =
            started.iter().filter(|(started, _)| *started).map(|(_, kind)| kind.name()).collect();
        step.done(&if names.is_empty() { "all running".to_owned() } else { names.join(", ") });
        Ok(())
    }

    /// Stops what runs.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn stop(&mut self) -> Result<()> {
        let results =
            futures::future::join_all(self.each_mut().map(async |server| server.stop().await))
                .await;
        results.into_iter().collect()
    }

    /// Removes all data. The servers must have been stopped.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        [&self.postgres, &self.redis, &self.etcd, &self.registry]
            .into_iter()
            .try_for_each(Server::wipe)
    }

    /// The four, for loops.
    pub fn each_mut(&mut self) -> [&mut Server; 4] {
        [&mut self.postgres, &mut self.redis, &mut self.etcd, &mut self.registry]
    }

    /// `postgres://…` of a database.
    pub fn postgres_url(&self, database: &str) -> String {
        let (user, password) = (POSTGRES_USER, self.postgres.password());
        format!("postgres://{user}:{password}@{}/{database}", self.postgres.addr())
    }

    /// Opens a connection to a database as superuser.
    ///
    /// # Errors
    /// No such database, or the server is down.
    pub async fn connect(&self, database: &str) -> Result<tokio_postgres::Client> {
        connect(&self.postgres_url(database)).await
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, content)
        .with_context(|| format!("write {}", path.display()))
}

/// Removes a folder with everything in it; one that is not there is fine.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn children_of(parent: i32) -> Result<Vec<ProcessId>> {
    let tasks = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(&tasks).with_context(|| format!("read {tasks}"))?;
    Ok(text.split_whitespace().filter_map(|pid| ProcessId::of(pid.parse().ok()?)).collect())
}
