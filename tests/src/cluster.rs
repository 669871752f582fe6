//! A world for one test: its own database, etcd namespace, Redis keys, folders, manager and
//! agents, on servers and images that all tests of a run share.
//!
//! Everything ends with the value, also when the test panics or is killed: the daemons die
//! with the thread that started them, and `./halfstack test` sweeps what a killed test left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::ContainerSummary;
use serde_json::{Value, json};

use crate::client::{SignedClient, StockClient, Venv};
use crate::daemon::{AgentProcess, ManagerProcess, kernel_runner};
use crate::deployment::{Deployment, Plan, merge, sweep_owner};
use crate::images::{self, Image};
use crate::layout::Layout;
use crate::ports::Ports;
use crate::process::{Lifetime, lock, tail};
use crate::progress::Progress;
use crate::proxy::DockerProxy;
use crate::servers::{Kind, Server, Servers, remove_dir};
use crate::site::{Identities, Identity, Site, create_database, drop_database, program_version};

/// Names of tests' databases, namespaces and agents begin with it.
pub const PREFIX: &str = "t";
/// Set by `./halfstack test` when everything shared is known to be there: the template's id.
pub const PREPARED: &str = "HALFSTACK_PREPARED";
/// What daemons of tests log: enough to understand a failure from it alone.
const LOG_FILTER: &str = "info,backendai_manager=debug,backendai_agent=debug";
/// Lines of each log shown when a test fails.
const LOG_LINES: usize = 300;

/// What all tests of a run share.
#[derive(Debug)]
pub struct Shared {
    servers: Servers,
    template: Template,
}

/// The site that tests' databases are copied from.
#[derive(Debug)]
struct Template {
    id: String,
    database: String,
    namespace: String,
}

impl Shared {
    fn dir(layout: &Layout) -> PathBuf {
        layout.state.join("test")
    }

    /// Starts the servers and makes images, client and the site to copy, unless all is there.
    ///
    /// # Errors
    /// The first thing that fails.
    pub async fn prepare(layout: &Layout, progress: &Progress) -> Result<Self> {
        let dir = Self::dir(layout);
        let _lock = lock(&dir.join("lock")).await?;
        let mut servers = Servers::open(layout, &dir, Lifetime::Detached)?;
        servers.start(progress).await?;
        let prepared = std::env::var(PREPARED).ok();
        let id = match &prepared {
            Some(id) => id.clone(),
            // A new build may bring other migrations.
            None => {
                let version = program_version(&layout.program("backendai-manager")?)?;
                let digest = <sha2::Sha256 as sha2::Digest>::digest(version);
                hex::encode(&digest[..4])
            }
        };
        let plan = Plan {
            id: id.clone(),
            database: format!("template_{id}"),
            namespace: format!("template-{id}"),
            api_port: 0,
            event_port: 0,
            agents: Vec::new(),
        };
        let template =
            Template { id, database: plan.database.clone(), namespace: plan.namespace.clone() };
        if prepared.is_none() {
            Venv::ensure(layout, progress).await?;
            images::ensure(layout, &servers.registry, progress).await?;
            let site_dir = dir.join(&plan.database);
            let deployment = Deployment {
                layout,
                servers: &servers,
                plan: &plan,
                dir: &site_dir,
                lifetime: Lifetime::Caller,
            };
            deployment.write_manager_config(&Value::Null)?;
            let site = Site {
                layout,
                servers: &servers,
                config: deployment.manager_config(),
                database: plan.database.clone(),
                dir: site_dir.clone(),
            };
            site.set_up(progress).await?;
        }
        Ok(Self { servers, template })
    }

    /// What [`PREPARED`] tells the tests of this run.
    pub fn id(&self) -> &str {
        &self.template.id
    }

    /// Stops the servers and removes what killed tests left, and all data.
    ///
    /// # Errors
    /// Something cannot be ended or removed.
    pub async fn end(layout: &Layout) -> Result<()> {
        let dir = Self::dir(layout);
        if !dir.exists() {
            return Ok(());
        }
        let _lock = lock(&dir.join("lock")).await?;
        for world in worlds(&dir)? {
            let text = std::fs::read(world.join("plan.json"));
            // A test may be killed before it wrote its plan; then there is nothing else either.
            if let Ok(plan) = text.map(|text| serde_json::from_slice::<Plan>(&text)) {
                let plan = plan.with_context(|| format!("read {}", world.display()))?;
                for agent in &plan.agents {
                    sweep_owner(&agent.id).await?;
                }
                remove_dir(&plan.ipc_dir())?;
            }
        }
        let mut servers = Servers::open(layout, &dir, Lifetime::Detached)?;
        let registry = servers.registry.addr();
        servers.stop().await?;
        images::untag(&registry).await?;
        servers.wipe()?;
        remove_dir(&dir)
    }
}

fn worlds(dir: &Path) -> Result<Vec<PathBuf>> {
    let worlds = dir.join("worlds");
    if !worlds.exists() {
        return Ok(Vec::new());
    }
    Ok(std::fs::read_dir(worlds)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// Says what a cluster is made of.
#[derive(Debug)]
pub struct Builder {
    agents: usize,
    private_servers: bool,
    docker_proxy: bool,
    manager_config: Value,
    agent_config: Value,
}

impl Builder {
    /// So many agents; one unless said otherwise.
    #[must_use]
    pub fn agents(mut self, count: usize) -> Self {
        self.agents = count;
        self
    }

    /// PostgreSQL, Redis and etcd of its own, to be killed and paused.
    #[must_use]
    pub fn private_servers(mut self) -> Self {
        self.private_servers = true;
        self
    }

    /// Agents reach Docker through a proxy that the test can cut.
    #[must_use]
    pub fn docker_proxy(mut self) -> Self {
        self.docker_proxy = true;
        self
    }

    /// Lays a JSON object over the manager's configuration.
    #[must_use]
    pub fn manager_config(mut self, extra: Value) -> Self {
        self.manager_config = extra;
        self
    }

    /// Lays a JSON object over every agent's configuration.
    #[must_use]
    pub fn agent_config(mut self, extra: Value) -> Self {
        self.agent_config = extra;
        self
    }

    /// Sets the world up and starts manager and agents, waiting until all are alive.
    ///
    /// # Errors
    /// The first thing that fails, with the end of its log.
    pub async fn start(self) -> Result<TestCluster> {
        // Boxed, as in `set_up` and `stop`: these futures are large, and tests hold several.
        let mut cluster = Box::pin(self.set_up()).await?;
        cluster.manager.start().await?;
        for agent in &mut cluster.agents {
            agent.start().await?;
        }
        Ok(cluster)
    }

    /// Sets the world up and starts no daemon.
    ///
    /// # Errors
    /// The first thing that fails.
    pub async fn set_up(self) -> Result<TestCluster> {
        Box::pin(self.set_up_all()).await
    }

    async fn set_up_all(self) -> Result<TestCluster> {
        let layout = Layout::discover()?;
        let shared = Shared::prepare(&layout, &Progress::silent()).await?;
        let runner = kernel_runner(&layout).await?;
        let id = format!("{:08x}", rand::random::<u32>());
        let dir = Shared::dir(&layout).join("worlds").join(&id);
        std::fs::create_dir_all(&dir)?;
        let plan = Plan::choose(&layout, &mut Ports::default(), PREFIX, &id, self.agents)?;
        std::fs::write(dir.join("plan.json"), serde_json::to_vec(&plan)?)?;

        let mut servers = shared.servers;
        if self.private_servers {
            let open = |kind| Server::open(&layout, kind, &dir, Lifetime::Caller);
            servers.postgres = open(Kind::Postgres)?;
            servers.redis = open(Kind::Redis)?;
            servers.etcd = open(Kind::Etcd)?;
            servers.start(&Progress::silent()).await?;
        }
        let deployment = Deployment {
            layout: &layout,
            servers: &servers,
            plan: &plan,
            dir: &dir,
            lifetime: Lifetime::Caller,
        };
        let configured = |own: &Value| {
            let mut config = json!({ "logging": { "level": LOG_FILTER } });
            merge(&mut config, own);
            config
        };
        let agent_config = configured(&self.agent_config);
        deployment.write_manager_config(&configured(&self.manager_config))?;
        if self.private_servers {
            let site = Site {
                layout: &layout,
                servers: &servers,
                config: deployment.manager_config(),
                database: plan.database.clone(),
                dir: dir.join("site"),
            };
            site.set_up(&Progress::silent()).await?;
        } else {
            create_database(&servers, &plan.database, Some(&shared.template.database)).await?;
            copy_namespace(&servers, &shared.template.namespace, &plan.namespace).await?;
        }
        // Folders of one cluster are no business of another's.
        let mut etcd = etcd_client::Client::connect([servers.etcd.addr()], None).await?;
        let mount = dir.join("vfolders").display().to_string();
        etcd.put(format!("/sorna/{}/volumes/_mount", plan.namespace), mount, None).await?;
        let manager = deployment.manager()?;
        let mut agents = Vec::new();
        for agent in &plan.agents {
            agents.push(deployment.agent(agent, &runner, &agent_config)?);
        }
        let mut docker_proxy = None;
        if self.docker_proxy {
            std::fs::create_dir_all(plan.ipc_dir())?;
            let proxy = DockerProxy::open(&plan.ipc_dir().join("docker.sock"))?;
            for agent in &mut agents {
                agent.process.set_env("DOCKER_HOST", &proxy.url());
            }
            docker_proxy = Some(proxy);
        }
        Ok(TestCluster {
            identities: Identities::load(&layout)?,
            venv: Venv::ensure(&layout, &Progress::silent()).await?,
            manager,
            agents,
            docker_proxy,
            servers,
            plan,
            dir,
            layout,
            cleaned: false,
        })
    }
}

/// A running cluster that nobody else uses.
#[derive(Debug)]
pub struct TestCluster {
    /// The manager.
    pub manager: ManagerProcess,
    /// The agents.
    pub agents: Vec<AgentProcess>,
    /// Its servers: shared ones must not be touched.
    pub servers: Servers,
    /// The users of the site.
    pub identities: Identities,
    /// The way to Docker, if asked for.
    pub docker_proxy: Option<DockerProxy>,
    /// Names and ports.
    pub plan: Plan,
    venv: Venv,
    dir: PathBuf,
    layout: Layout,
    cleaned: bool,
}

impl TestCluster {
    /// A cluster with one agent, to be changed by the builder's methods.
    pub fn builder() -> Builder {
        Builder {
            agents: 1,
            private_servers: false,
            docker_proxy: false,
            manager_config: json!({}),
            agent_config: json!({}),
        }
    }

    /// The stock client acting for `identity`.
    ///
    /// # Errors
    /// Its home folder cannot be made.
    pub fn client(&self, identity: &Identity) -> Result<StockClient> {
        StockClient::new(&self.venv, &self.plan.endpoint(), identity)
    }

    /// A client that signs by itself.
    pub fn signed(&self, identity: &Identity) -> SignedClient {
        SignedClient::new(&self.plan.endpoint(), identity)
    }

    /// Full name of an image.
    pub fn image(&self, image: Image) -> String {
        image.reference(&self.servers.registry.addr())
    }

    /// A connection to its database.
    ///
    /// # Errors
    /// PostgreSQL is down.
    pub async fn database(&self) -> Result<tokio_postgres::Client> {
        self.servers.connect(&self.plan.database).await
    }

    /// Runs the management command line on it.
    ///
    /// # Errors
    /// The command fails.
    pub async fn manager_cli(&self, args: &[&str]) -> Result<String> {
        let config = self.dir.join("manager.toml");
        crate::site::manager_cli(&self.layout, &config, args).await
    }

    /// Its folder: configuration, logs, scratch directories.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All containers of its agents, running or not.
    ///
    /// # Errors
    /// Docker cannot be reached.
    pub async fn containers(&self) -> Result<Vec<ContainerSummary>> {
        let docker = docker()?;
        let mut all = Vec::new();
        for agent in &self.plan.agents {
            let label = format!("ai.backend.owner={}", agent.id);
            let filters = [("label".to_owned(), vec![label])].into();
            let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
                .all(true)
                .filters(&filters)
                .build();
            all.extend(docker.list_containers(Some(options)).await?);
        }
        Ok(all)
    }

    /// Names of all networks of its agents.
    ///
    /// # Errors
    /// Docker cannot be reached.
    pub async fn networks(&self) -> Result<Vec<String>> {
        let docker = docker()?;
        let mut all = Vec::new();
        for agent in &self.plan.agents {
            let label = format!("ai.backend.owner={}", agent.id);
            let filters = [("label".to_owned(), vec![label])].into();
            let options = bollard::query_parameters::ListNetworksOptionsBuilder::new()
                .filters(&filters)
                .build();
            let found = docker.list_networks(Some(options)).await?;
            all.extend(found.into_iter().filter_map(|network| network.name));
        }
        Ok(all)
    }

    /// Ends manager and agents in order, and checks that they leave with exit code 0.
    ///
    /// # Errors
    /// One does not, or something cannot be removed.
    pub async fn stop(mut self) -> Result<()> {
        let mut codes = Vec::new();
        for agent in &mut self.agents {
            if agent.process.is_alive() {
                codes.push((agent.id().to_owned(), agent.process.terminate().await?));
            }
        }
        if self.manager.process.is_alive() {
            codes.push(("manager".to_owned(), self.manager.process.terminate().await?));
        }
        Box::pin(self.clean_up()).await?;
        self.cleaned = true;
        for (name, code) in codes {
            anyhow::ensure!(code == Some(0), "{name} ended with {code:?} after SIGTERM");
        }
        Ok(())
    }

    async fn clean_up(&mut self) -> Result<()> {
        let deployment = Deployment {
            layout: &self.layout,
            servers: &self.servers,
            plan: &self.plan,
            dir: &self.dir,
            lifetime: Lifetime::Caller,
        };
        deployment.sweep().await?;
        // Private servers go with their folder; on a failed one these would only hang.
        if self.servers.postgres.log().starts_with(&self.dir) {
            for server in self.servers.each_mut() {
                if server.log().starts_with(&self.dir) {
                    server.kill().await?;
                }
            }
            self.servers.postgres.wipe()?;
        } else {
            drop_database(&self.servers, &self.plan.database).await?;
            delete_namespace(&self.servers, &self.plan.namespace).await?;
        }
        remove_dir(&self.dir)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.cleaned {
            return;
        }
        self.manager.process.kill_now();
        for agent in &mut self.agents {
            agent.process.kill_now();
        }
        if std::thread::panicking() {
            let logs = std::iter::once(self.manager.process.log())
                .chain(self.agents.iter().map(|agent| agent.process.log()));
            for log in logs {
                eprintln!("--- the end of {}\n{}", log.display(), tail(log, LOG_LINES));
            }
        }
        // The test's own runtime cannot be waited on from here.
        let cleaned = std::thread::scope(|scope| {
            let clean_up = || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?
                    .block_on(self.clean_up())
            };
            scope.spawn(clean_up).join()
        });
        if let Ok(Err(error)) = cleaned {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

/// The machine's Docker, speaking a version of its API that it knows.
///
/// # Errors
/// No such socket.
pub fn docker() -> Result<Docker> {
    // Later versions only add to this one.
    let version = bollard::ClientVersion { major_version: 1, minor_version: 41 };
    Ok(Docker::connect_with_unix("/var/run/docker.sock", 120, &version)?)
}

async fn copy_namespace(servers: &Servers, from: &str, to: &str) -> Result<()> {
    let mut etcd = etcd_client::Client::connect([servers.etcd.addr()], None).await?;
    let prefix = format!("/sorna/{from}/");
    let options = etcd_client::GetOptions::new().with_prefix();
    for pair in etcd.get(prefix.as_str(), Some(options)).await?.kvs() {
        let rest = pair.key_str()?.strip_prefix(&prefix).context("a key without its prefix")?;
        etcd.put(format!("/sorna/{to}/{rest}"), pair.value(), None).await?;
    }
    Ok(())
}

async fn delete_namespace(servers: &Servers, namespace: &str) -> Result<()> {
    let mut etcd = etcd_client::Client::connect([servers.etcd.addr()], None).await?;
    let options = etcd_client::DeleteOptions::new().with_prefix();
    etcd.delete(format!("/sorna/{namespace}/"), Some(options)).await?;
    Ok(())
}
