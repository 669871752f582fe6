//! One deployment of our daemons: its choices, their configuration, and what is swept up
//! after them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::daemon::{AgentProcess, Daemon, ManagerProcess};
use crate::layout::Layout;
use crate::ports::{POOL, Ports};
use crate::process::{Launch, Lifetime, is_root, run};
use crate::servers::{Servers, remove_dir, write_private};

/// What every agent offers at least, by overcommitment where the machine has less: enough
/// for the twenty sessions at once of the benchmark.
const OFFERED_CORES: u64 = 20;
const OFFERED_GIB: u64 = 16;
/// The account of user code in containers.
const KERNEL_UID: u32 = 1000;

/// The choices that make one deployment: names and ports, nothing that can be derived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Eight hexadecimal digits that appear in every name below.
    pub id: String,
    /// PostgreSQL database.
    pub database: String,
    /// etcd namespace, which is also the prefix of keys in Redis.
    pub namespace: String,
    /// Port of the API.
    pub api_port: u16,
    /// Port that agents deliver events to.
    pub event_port: u16,
    /// The agents.
    pub agents: Vec<AgentPlan>,
}

/// The choices for one agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentPlan {
    /// Its id, also the owner label of its containers.
    pub id: String,
    /// Port of its RPC server.
    pub rpc_port: u16,
    /// First port of its pool for apps.
    pub pool_port: u16,
}

impl Plan {
    /// Chooses names that begin with `prefix`, and free ports.
    ///
    /// # Errors
    /// No port is free.
    pub fn choose(
        layout: &Layout,
        ports: &mut Ports,
        prefix: &str,
        id: &str,
        agents: usize,
    ) -> Result<Self> {
        let mut plan = Self {
            id: id.to_owned(),
            database: format!("{prefix}_{id}"),
            namespace: format!("{prefix}-{id}"),
            api_port: ports.choose(&layout.cache)?,
            event_port: ports.choose(&layout.cache)?,
            agents: Vec::new(),
        };
        for index in 1..=agents {
            plan.agents.push(AgentPlan {
                id: format!("i-{prefix}-{id}-{index}"),
                rpc_port: ports.choose(&layout.cache)?,
                pool_port: ports.choose_run(&layout.cache, POOL)?,
            });
        }
        Ok(plan)
    }

    /// Where the API answers.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// Sockets of kernels: a path of a unix socket must be short, so it cannot lie wherever
    /// somebody cloned the repository.
    pub fn ipc_dir(&self) -> PathBuf {
        std::env::temp_dir().join(format!("bai-{}", self.id))
    }
}

/// Where one deployment lives and what it uses.
#[derive(Debug)]
pub struct Deployment<'a> {
    /// Programs and samples.
    pub layout: &'a Layout,
    /// Its servers.
    pub servers: &'a Servers,
    /// Its choices.
    pub plan: &'a Plan,
    /// Folder for configuration, logs and scratch directories.
    pub dir: &'a Path,
    /// How long its daemons live.
    pub lifetime: Lifetime,
}

impl Deployment<'_> {
    /// Path of the manager's configuration.
    pub fn manager_config(&self) -> PathBuf {
        self.dir.join("manager.toml")
    }

    /// Writes the manager's configuration, with `extra` laid over it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_manager_config(&self, extra: &Value) -> Result<()> {
        let plan = self.plan;
        let mut config = json!({
            "etcd": {"namespace": plan.namespace, "addr": self.servers.etcd.addr()},
            "db": {
                "addr": self.servers.postgres.addr(),
                "name": plan.database,
                "user": crate::servers::POSTGRES_USER,
                "password": self.servers.postgres.password(),
            },
            "manager": {
                "id": format!("m-{}", plan.id),
                "service-addr": format!("127.0.0.1:{}", plan.api_port),
                "event-listen-addr": format!("127.0.0.1:{}", plan.event_port),
                "state-dir": self.dir.join("manager"),
            },
        });
        merge(&mut config, extra);
        write_toml(&self.manager_config(), &config)
    }

    fn agent_config(&self, agent: &AgentPlan) -> PathBuf {
        self.dir.join(format!("{}.toml", agent.id))
    }

    fn write_agent_config(&self, agent: &AgentPlan, runner: &Path, extra: &Value) -> Result<()> {
        let dir = self.dir.join(&agent.id);
        let ipc = self.plan.ipc_dir().join(agent.rpc_port.to_string());
        let mut config = json!({
            "etcd": {"namespace": self.plan.namespace, "addr": self.servers.etcd.addr()},
            "agent": {
                "mode": "docker",
                "id": agent.id,
                "rpc-listen-addr": format!("127.0.0.1:{}", agent.rpc_port),
                "scaling-group": "default",
                "var-base-path": dir.join("var"),
                "image-commit-path": dir.join("commit"),
                "ipc-base-path": ipc,
                // It changes the machine's firewall: only where a test is about that.
                "metadata-server-enabled": false,
            },
            "container": {
                "scratch-type": "hostdir",
                "scratch-root": dir.join("scratch"),
                "runner-path": runner,
                "port-range": [agent.pool_port, agent.pool_port + POOL - 1],
                "bind-host": "127.0.0.1",
                "kernel-uid": KERNEL_UID,
                "kernel-gid": KERNEL_UID,
            },
            "resource": {"reserved-cpu": 0, "reserved-mem": "256M", "reserved-disk": "0"},
        });
        merge(&mut config, extra);
        for path in [&dir.join("var"), &dir.join("scratch"), &ipc] {
            std::fs::create_dir_all(path)?;
        }
        write_toml(&self.agent_config(agent), &config)
    }

    /// The manager's program, running or not.
    ///
    /// # Errors
    /// Its pid file cannot be read.
    pub fn manager_daemon(&self) -> Result<Daemon> {
        let launch = Launch::new(
            "manager",
            self.layout.bin.join("backendai-manager"),
            self.dir.join("log/manager.log"),
        )
        .args(["start-server"])
        .env("BACKEND_CONFIG_FILE", self.manager_config().display().to_string());
        Daemon::open(launch, self.dir.join("manager.pid"), self.lifetime)
    }

    /// The manager.
    ///
    /// # Errors
    /// It is not built.
    pub fn manager(&self) -> Result<ManagerProcess> {
        self.layout.program("backendai-manager")?;
        Ok(ManagerProcess { process: self.manager_daemon()?, endpoint: self.plan.endpoint() })
    }

    /// An agent's program, running or not.
    ///
    /// # Errors
    /// Its pid file cannot be read.
    pub fn agent_daemon(&self, agent: &AgentPlan) -> Result<Daemon> {
        let (cpu, mem) = overcommit()?;
        let launch = Launch::new(
            &agent.id,
            self.layout.bin.join("backendai-agent"),
            self.dir.join(format!("log/{}.log", agent.id)),
        )
        .args(["start-server"])
        .env("BACKEND_CONFIG_FILE", self.agent_config(agent).display().to_string())
        .env("BACKEND_CPU_OVERCOMMIT_FACTOR", cpu.to_string())
        .env("BACKEND_MEM_OVERCOMMIT_FACTOR", mem.to_string());
        Daemon::open(launch, self.dir.join(format!("{}.pid", agent.id)), self.lifetime)
    }

    /// An agent. `runner` is the static kernel runner.
    ///
    /// # Errors
    /// It is not built, or its configuration cannot be written.
    pub fn agent(&self, agent: &AgentPlan, runner: &Path, extra: &Value) -> Result<AgentProcess> {
        self.layout.program("backendai-agent")?;
        self.write_agent_config(agent, runner, extra)?;
        Ok(AgentProcess {
            process: self.agent_daemon(agent)?,
            plan: agent.clone(),
            database: self.servers.postgres_url(&self.plan.database),
        })
    }

    /// Removes what agents may have left behind: containers, networks, mounts, sockets.
    ///
    /// # Errors
    /// Docker cannot be reached, or something cannot be removed.
    pub async fn sweep(&self) -> Result<()> {
        for agent in &self.plan.agents {
            sweep_owner(&agent.id).await?;
            sweep_firewall(&agent.id).await;
        }
        unmount_below(self.dir).await?;
        remove_dir(&self.plan.ipc_dir())
    }
}

/// Removes the rules of an agent that was killed. Most agents never made any, and where the
/// firewall cannot be used none could.
async fn sweep_firewall(agent_id: &str) {
    let iptables = |args: Vec<String>| async move {
        let mut command = tokio::process::Command::new("iptables");
        command.args(["-w", "5", "-t", "nat"]).args(args);
        run(&mut command).await.unwrap_or_default()
    };
    let chain = format!("BAI-META-{agent_id}");
    let rules = iptables(vec!["-S".to_owned(), "PREROUTING".to_owned()]).await;
    for rule in rules.lines().filter(|rule| rule.ends_with(&chain)) {
        let rule = rule.split(' ').map(str::to_owned).skip(1);
        iptables(std::iter::once("-D".to_owned()).chain(rule).collect()).await;
        for action in ["-F", "-X"] {
            iptables(vec![action.to_owned(), chain.clone()]).await;
        }
    }
}

/// Factors that let the agent offer what the example site promises.
fn overcommit() -> Result<(u64, u64)> {
    let cores = std::thread::available_parallelism()?.get() as u64;
    let meminfo = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok()
        })
        .context("MemTotal in /proc/meminfo")?;
    // One gibibyte to spare for what the agent reserves; it takes factors up to ten.
    let cpu = OFFERED_CORES.div_ceil(cores).clamp(1, 10);
    let mem = ((OFFERED_GIB + 1) << 20).div_ceil(kib).clamp(1, 10);
    Ok((cpu, mem))
}

/// Lays one JSON object over another.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}

pub(crate) fn write_toml(path: &Path, config: &Value) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // It holds the database's password.
    write_private(path, toml::to_string_pretty(config)?.as_bytes())
}

/// Removes the containers and networks that carry an owner label.
///
/// # Errors
/// Docker cannot be reached.
pub async fn sweep_owner(owner: &str) -> Result<()> {
    let docker = |args: &[&str]| {
        let mut command = tokio::process::Command::new("docker");
        command.args(args);
        command
    };
    let filter = format!("label=ai.backend.owner={owner}");
    let containers = run(&mut docker(&["ps", "-aq", "--filter", &filter])).await?;
    for id in containers.lines() {
        // Somebody else may have removed it meanwhile: the agent, or Docker itself.
        if let Err(error) = run(&mut docker(&["rm", "-f", "-v", id])).await
            && !error.to_string().contains("No such container")
            && !error.to_string().contains("already in progress")
        {
            return Err(error);
        }
    }
    let networks = run(&mut docker(&["network", "ls", "-q", "--filter", &filter])).await?;
    for id in networks.lines() {
        run(&mut docker(&["network", "rm", id])).await?;
    }
    Ok(())
}

async fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(dir))
        .collect();
    // The innermost first.
    below.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    for path in below {
        let mut umount = tokio::process::Command::new("umount");
        if !is_root() {
            umount = tokio::process::Command::new("sudo");
            umount.args(["-n", "umount"]);
        }
        run(umount.arg(path)).await?;
    }
    Ok(())
}
