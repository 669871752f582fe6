//! The development stack of one clone: what `./halfstack up` starts and `down` ends.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::client::Venv;
use crate::daemon::{AgentProcess, ManagerProcess, kernel_runner};
use crate::deployment::{Deployment, Plan};
use crate::images::{self, Image};
use crate::layout::Layout;
use crate::ports::Ports;
use crate::process::Lifetime;
use crate::progress::Progress;
use crate::servers::{Servers, remove_dir};
use crate::site::{Identities, Site};

/// The stack.
#[derive(Debug)]
pub struct Stack {
    /// Where things lie.
    pub layout: Layout,
    /// Its servers.
    pub servers: Servers,
    /// Its names and ports.
    pub plan: Plan,
}

/// One line of `halfstack status`.
#[derive(Debug)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Process id; `None` when it does not run.
    pub pid: Option<i32>,
    /// Where it listens.
    pub addr: String,
    /// Its log.
    pub log: PathBuf,
}

impl Stack {
    /// The stack of this clone, if it was ever brought up.
    ///
    /// # Errors
    /// Its records cannot be read.
    pub fn find(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.state.join("plan.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path)?;
        let plan =
            serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
        let servers = Servers::open(layout, &layout.state, Lifetime::Detached)?;
        Ok(Some(Self { layout: layout.clone(), servers, plan }))
    }

    /// The stack of this clone, laid down if there is none yet. Starts nothing.
    ///
    /// # Errors
    /// Its records cannot be read or written, no port is free.
    pub fn find_or_plan(layout: &Layout) -> Result<Self> {
        if let Some(stack) = Self::find(layout)? {
            return Ok(stack);
        }
        std::fs::create_dir_all(&layout.state)?;
        let id = format!("{:08x}", rand::random::<u32>());
        let plan = Plan::choose(layout, &mut Ports::default(), "dev", &id, 1)?;
        std::fs::write(layout.state.join("plan.json"), serde_json::to_vec_pretty(&plan)?)?;
        Self::find(layout)?.context("the plan that was just written")
    }

    fn deployment(&self) -> Deployment<'_> {
        Deployment {
            layout: &self.layout,
            servers: &self.servers,
            plan: &self.plan,
            dir: &self.layout.state,
            lifetime: Lifetime::Detached,
        }
    }

    /// Starts what does not run and sets up what is missing.
    ///
    /// # Errors
    /// The first thing that fails, with the end of its log.
    pub async fn up(&mut self, progress: &Progress) -> Result<()> {
        self.servers.start(progress).await?;
        Venv::ensure(&self.layout, progress).await?;
        images::ensure(&self.layout, &self.servers.registry, progress).await?;
        let runner = kernel_runner(&self.layout).await?;

        let deployment = self.deployment();
        deployment.write_manager_config(&Value::Null)?;
        let site = Site {
            layout: &self.layout,
            servers: &self.servers,
            config: deployment.manager_config(),
            database: self.plan.database.clone(),
            dir: self.layout.state.join("site"),
        };
        site.set_up(progress).await?;

        let mut manager = deployment.manager()?;
        let step = progress.step("manager");
        if manager.process.is_outdated() {
            manager.process.terminate().await?;
        }
        let started = manager.start().await?;
        step.done(if started { manager.endpoint() } else { "running" });
        for plan in &self.plan.agents {
            let step = progress.step("agent");
            let mut agent = deployment.agent(plan, &runner, &Value::Null)?;
            if agent.process.is_outdated() {
                agent.process.terminate().await?;
            }
            let started = agent.start().await?;
            step.done(if started { agent.id() } else { "running" });
        }
        Ok(())
    }

    /// Ends everything and removes containers, networks and mounts; with `wipe` the data too.
    ///
    /// # Errors
    /// Something cannot be ended or removed.
    pub async fn down(&mut self, wipe: bool, progress: &Progress) -> Result<()> {
        let step = progress.step("stopping");
        for mut daemon in self.daemons()? {
            daemon.terminate().await?;
        }
        self.deployment().sweep().await?;
        let registry = self.servers.registry.addr();
        self.servers.stop().await?;
        images::untag(&registry).await?;
        if wipe {
            self.servers.wipe()?;
            remove_dir(&self.layout.state)?;
        }
        step.done(if wipe { "all data removed" } else { "data kept" });
        Ok(())
    }

    /// The daemons, agents first: they end while the manager still listens.
    fn daemons(&self) -> Result<Vec<crate::daemon::Daemon>> {
        let deployment = self.deployment();
        let mut daemons = Vec::new();
        for plan in &self.plan.agents {
            daemons.push(deployment.agent_daemon(plan)?);
        }
        daemons.push(deployment.manager_daemon()?);
        Ok(daemons)
    }

    /// What there is, running or not.
    ///
    /// # Errors
    /// Our programs are not built.
    pub fn parts(&mut self) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = self
            .servers
            .each_mut()
            .map(|server| Part {
                name: server.kind().name().to_owned(),
                pid: server.pid(),
                addr: server.addr(),
                log: server.log().to_owned(),
            })
            .into();
        let ports = self.plan.agents.iter().map(|agent| agent.rpc_port);
        for (mut daemon, port) in self.daemons()?.into_iter().zip(ports.chain([self.plan.api_port]))
        {
            parts.push(Part {
                name: daemon.name().to_owned(),
                pid: daemon.pid(),
                addr: format!("127.0.0.1:{port}"),
                log: daemon.log().to_owned(),
            });
        }
        Ok(parts)
    }

    /// The manager.
    ///
    /// # Errors
    /// It is not built.
    pub fn manager(&self) -> Result<ManagerProcess> {
        self.deployment().manager()
    }

    /// The first agent.
    ///
    /// # Errors
    /// It is not built.
    pub async fn agent(&self) -> Result<AgentProcess> {
        let runner = kernel_runner(&self.layout).await?;
        self.deployment().agent(&self.plan.agents[0], &runner, &Value::Null)
    }

    /// What `halfstack env` exports.
    ///
    /// # Errors
    /// The example site's fixture or the client cannot be found.
    pub async fn environment(&self) -> Result<Vec<(String, String)>> {
        let identities = Identities::load(&self.layout)?;
        let venv = Venv::ensure(&self.layout, &Progress::shown()).await?;
        let registry = self.servers.registry.addr();
        let endpoint = self.plan.endpoint();
        let mut env = crate::client::environment(&endpoint, &identities.superadmin);
        let mut add = |name: String, value: &str| env.push((name, value.to_owned()));
        for (name, identity) in identities.named() {
            add(format!("HALFSTACK_{name}_ACCESS_KEY"), &identity.access_key);
            add(format!("HALFSTACK_{name}_SECRET_KEY"), &identity.secret_key);
            add(format!("HALFSTACK_{name}_EMAIL"), &identity.email);
            add(format!("HALFSTACK_{name}_PASSWORD"), &identity.password);
        }
        for image in Image::ALL {
            let name = image.name().to_uppercase().replace('-', "_");
            add(format!("HALFSTACK_{name}_IMAGE"), &image.reference(&registry));
        }
        let database = self.servers.postgres_url(&self.plan.database);
        let config = self.deployment().manager_config().display().to_string();
        for (name, value) in [
            ("ENDPOINT", endpoint.as_str()),
            ("MANAGER_ADDR", &format!("127.0.0.1:{}", self.plan.api_port)),
            ("EVENT_ADDR", &format!("127.0.0.1:{}", self.plan.event_port)),
            ("AGENT_ADDR", &format!("127.0.0.1:{}", self.plan.agents[0].rpc_port)),
            ("AGENT_ID", &self.plan.agents[0].id),
            ("POSTGRES_URL", &database),
            ("POSTGRES_ADDR", &self.servers.postgres.addr()),
            ("REDIS_ADDR", &self.servers.redis.addr()),
            ("ETCD_ADDR", &self.servers.etcd.addr()),
            ("ETCD_NAMESPACE", &self.plan.namespace),
            ("REGISTRY_ADDR", &registry),
            ("MANAGER_CONFIG", &config),
            ("BIN", &self.layout.bin.display().to_string()),
        ] {
            add(format!("HALFSTACK_{name}"), value);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = venv.bin().display().to_string();
        let launcher = self.layout.launcher()?.display().to_string();
        let rest: Vec<&str> =
            path.split(':').filter(|part| *part != bin && *part != launcher).collect();
        add("PATH".to_owned(), &format!("{launcher}:{bin}:{}", rest.join(":")));
        Ok(env)
    }
}
