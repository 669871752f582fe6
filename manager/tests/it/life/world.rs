//! One cluster for one test.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::image::{NewImage, SlotRange};
use backendai_datastore::session::Session;
use backendai_datastore::testing::{self, TestDatabase};
use backendai_manager::agents::AgentPool;
use backendai_manager::app::background_task::BackgroundTasks;
use backendai_manager::app::session::execute::Executions;
use backendai_manager::app::session::{CreateSession, CreatedSession, create, destroy};
use backendai_manager::app::{App, Result, SharedApp};
use backendai_manager::config::ManagerConfig;
use backendai_manager::context::{RequestContext, Role};
use backendai_manager::events::AgentEvents;
use backendai_manager::leader::{Candidate, Leadership};
use backendai_manager::shared_config::SharedConfig;
use backendai_manager::tasks;
use backendai_manager::wake::Wake;
use backendai_rpc::manager_api::{ManagerClient, ManagerService};
use backendai_service::Lifecycle;
use backendai_service::etcd::{Etcd, EtcdAddress};
use backendai_service::redis::{Redis, RedisAddress};
use backendai_types::{ClusterMode, ImageRef, SessionId, SessionStatus, SessionType, SlotName};
use parking_lot::Mutex;
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::agent::{FakeAgent, Fleet, manager_client};
use crate::support;

/// The one image there is.
pub const IMAGE: &str = "127.0.0.1:5000/python:3.12";
/// The superadmin's keypair.
pub const ADMIN: &str = "AKIAADMIN000000ADMIN";
/// A user's keypair.
pub const USER: &str = "AKIAUSER00000000USER";
const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub database: TestDatabase,
    pub fleet: Fleet,
    pub managers: Arc<Mutex<Vec<ManagerClient>>>,
    pub lifecycle: Lifecycle,
    pub manager: TestManager,
}

/// One manager of the cluster.
pub struct TestManager {
    pub app: SharedApp,
    pub leadership: Leadership,
    pub lifecycle: Lifecycle,
    /// How agents reach it.
    pub client: ManagerClient,
}

pub fn config() -> ManagerConfig {
    let mut config = ManagerConfig::default();
    config.manager.heartbeat_timeout = 1.0;
    config.tunables.task_interval_s = 0.1;
    config
}

impl World {
    /// A cluster with one manager that leads and agents with so many cores each.
    pub async fn new(cores: &[i64]) -> Self {
        Self::with(config(), cores).await
    }

    pub async fn with(config: ManagerConfig, cores: &[i64]) -> Self {
        let database = testing::database().await;
        site(&database).await;
        let fleet = Fleet::default();
        let manager = TestManager::start(&database, config, &fleet, true).await;
        let managers = Arc::new(Mutex::new(vec![manager.client.clone()]));
        let lifecycle = Lifecycle::new();
        let world = Self { database, fleet, managers, lifecycle, manager };
        for (n, cores) in cores.iter().enumerate() {
            world.add_agent(&format!("a{}", n + 1), *cores);
        }
        let wanted = cores.len();
        let alive = "SELECT count(*) FROM agents WHERE status = 'ALIVE'";
        world.until(alive, move |count| count == wanted.to_string()).await;
        world
    }

    /// Another agent joins.
    pub fn add_agent(&self, id: &str, cores: i64) {
        let agent = FakeAgent::new(id, cores, Arc::clone(&self.managers));
        self.fleet.0.lock().insert(agent.id.clone(), Arc::clone(&agent));
        self.lifecycle.spawn("agent", agent.beat());
    }

    pub fn app(&self) -> &SharedApp {
        &self.manager.app
    }

    pub fn agent(&self, id: &str) -> Arc<FakeAgent> {
        self.fleet.0.lock()[&id.into()].clone()
    }

    /// The value of an SQL expression as text.
    pub async fn value(&self, sql: &str) -> String {
        let client = self.database.connect().await;
        let row = client.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    /// Waits until the value of an SQL expression is as wanted.
    pub async fn until(&self, sql: &str, wanted: impl Fn(String) -> bool) {
        eventually(sql, || async { wanted(self.value(sql).await) }).await;
    }

    pub async fn session(&self, id: SessionId) -> Session {
        let tx = self.app().datastore.autocommit().await.unwrap();
        tx.session_get(id).await.unwrap().unwrap()
    }

    pub async fn until_status(&self, id: SessionId, status: SessionStatus) -> Session {
        eventually(&format!("{id} {status}"), || async { self.session(id).await.status == status })
            .await;
        self.session(id).await
    }

    /// A session of the user, once it runs or will not.
    pub async fn create(&self, request: CreateSession) -> Result<CreatedSession> {
        create::create(self.app(), &user(), request).await
    }

    /// A session of the user in the queue.
    pub async fn enqueue(&self, name: &str) -> SessionId {
        let request = CreateSession { enqueue_only: true, ..request(name) };
        self.create(request).await.unwrap().session_id
    }

    pub async fn destroy(&self, name: &str, forced: bool) -> Result<Vec<Value>> {
        destroy::destroy(self.app(), &user(), name, None, forced, false).await
    }

    /// Nothing is occupied, and no agent has a kernel.
    pub async fn until_empty(&self) {
        self.until("SELECT count(*) FROM allocations", |count| count == "0").await;
        let agents: Vec<_> = self.fleet.0.lock().values().cloned().collect();
        eventually("no agent has a kernel", || async {
            agents.iter().all(|agent| agent.state.lock().kernels.is_empty())
        })
        .await;
    }

    /// Names of the events of a session, in order.
    pub async fn events(&self, id: SessionId) -> Vec<String> {
        let sql = format!(
            "SELECT string_agg(event, ' ' ORDER BY seq) FROM transitions WHERE session_id = '{id}'"
        );
        self.value(&sql).await.split(' ').map(str::to_owned).collect()
    }

    /// Runs SQL that prepares something.
    pub async fn sql(&self, sql: &str) {
        self.database.connect().await.batch_execute(sql).await.unwrap();
    }
}

impl TestManager {
    /// A manager that leads, or one that runs for it against others.
    pub async fn start(
        database: &TestDatabase,
        config: ManagerConfig,
        fleet: &Fleet,
        leads: bool,
    ) -> Self {
        backendai_manager::tls::install_provider();
        let lifecycle = Lifecycle::new();
        let namespace = database.config.name.clone();
        let addr = support::etcd().await.to_owned();
        let etcd =
            Etcd::connect(&EtcdAddress { addr, namespace, credentials: None }).await.unwrap();
        // Nobody answers there: losing Redis must cost nothing but speed.
        let nowhere = RedisAddress { host: "127.0.0.1".into(), port: 1, password: None };
        let redis = Redis::connect(&nowhere, "test").await.unwrap();
        let app: SharedApp = Arc::new(App {
            config,
            datastore: database.datastore.clone(),
            shared: SharedConfig::new(etcd.clone()),
            etcd: etcd.clone(),
            redis,
            wake: Wake::local(),
            agents: AgentPool::new(fleet.clone()),
            executions: Executions::default(),
            received_output: Default::default(),
            feed: Default::default(),
            background_tasks: BackgroundTasks::new(lifecycle.clone()),
            volumes: Default::default(),
        });
        let leadership = if leads {
            Leadership::fixed(1)
        } else {
            let (leadership, candidacy) = Leadership::new();
            let candidate = Candidate {
                manager_id: format!("m-{}", rand::random::<u32>()),
                event_addr: "memory://".into(),
                public_key: None,
                lease: Duration::from_secs(2),
            };
            candidacy.campaign(etcd, candidate, &lifecycle);
            leadership
        };
        let events = Arc::new(AgentEvents::new(Arc::clone(&app), leadership.clone()));
        tasks::start(&app, &leadership, &events, &lifecycle);
        let client = manager_client(Arc::new(ManagerService(events)));
        Self { app, leadership, lifecycle, client }
    }
}

/// Waits until something holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
        panic!("never: {what}");
    }
}

fn context(key: &str, role: Role, user: u8, email: &str) -> RequestContext {
    RequestContext {
        request_id: "test".into(),
        access_key: key.into(),
        is_admin_key: role == Role::Superadmin,
        user_id: user_id(user).parse().unwrap(),
        email: email.into(),
        role,
        domain_name: "default".into(),
        api_version: (7, "20230615".into()),
    }
}

pub fn admin() -> RequestContext {
    context(ADMIN, Role::Superadmin, 1, "admin@example.org")
}

pub fn user() -> RequestContext {
    context(USER, Role::User, 2, "user@example.org")
}

fn user_id(n: u8) -> String {
    format!("00000000-0000-4000-8000-00000000000{n}")
}

/// An interactive session of one core.
pub fn request(name: &str) -> CreateSession {
    CreateSession {
        name: name.into(),
        image: IMAGE.into(),
        architecture: "x86_64".into(),
        session_type: SessionType::Interactive,
        group: "default".into(),
        domain: "default".into(),
        cluster_size: 1,
        cluster_mode: ClusterMode::SingleNode,
        resources: resources(1),
        resource_opts: Map::new(),
        environ: BTreeMap::new(),
        mounts: Vec::new(),
        mount_map: BTreeMap::new(),
        scaling_group: None,
        preopen_ports: Vec::new(),
        agent_list: None,
        tag: None,
        enqueue_only: false,
        max_wait: Some(DEADLINE),
        starts_at: None,
        reuse_if_exists: true,
        startup_command: None,
        bootstrap_script: None,
        dependencies: Vec::new(),
        callback_url: None,
        owner_access_key: None,
    }
}

pub fn resources(cpu: u32) -> Map<String, Value> {
    json!({"cpu": cpu.to_string(), "mem": "512m"}).as_object().unwrap().clone()
}

/// Two users, their keys, a group, a scaling group and an image.
async fn site(database: &TestDatabase) {
    let group = user_id(9);
    let user = |n: u8, name: &str, role: &str, key: &str| {
        json!({
            "uuid": user_id(n), "username": name, "email": format!("{name}@example.org"),
            "domain_name": "default", "role": role, "resource_policy": "default",
            "main_access_key": key,
        })
    };
    let keypair = |n: u8, name: &str, key: &str| {
        json!({
            "user_id": format!("{name}@example.org"), "access_key": key,
            "secret_key": "0123456789012345678901234567890123456789",
            "is_active": true, "is_admin": n == 1, "resource_policy": "default",
            "rate_limit": 10000, "user": user_id(n),
        })
    };
    let rows = json!({
        "domains": [{"name": "default", "allowed_docker_registries": ["127.0.0.1:5000"]}],
        "user_resource_policies": [{"name": "default"}],
        "project_resource_policies": [{"name": "default"}],
        "keypair_resource_policies": [{
            "name": "default", "default_for_unspecified": "UNLIMITED",
            "max_concurrent_sessions": 30, "max_containers_per_session": 8,
        }],
        "groups": [{
            "id": group, "name": "default", "domain_name": "default", "resource_policy": "default",
        }],
        "scaling_groups": [{"name": "default", "driver": "static", "scheduler": "fifo"}],
        "sgroups_for_domains": [{"scaling_group": "default", "domain": "default"}],
        "users": [user(1, "admin", "superadmin", ADMIN), user(2, "user", "user", USER)],
        "association_groups_users": [
            {"group_id": group, "user_id": user_id(1)},
            {"group_id": group, "user_id": user_id(2)},
        ],
        "keypairs": [keypair(1, "admin", ADMIN), keypair(2, "user", USER)],
    });
    let store = &database.datastore;
    store.populate(&serde_json::to_vec(&rows).unwrap()).await.unwrap();
    let image = NewImage {
        reference: ImageRef::parse(IMAGE, &[]).unwrap(),
        architecture: "x86_64".into(),
        config_digest: "sha256:0".into(),
        size_bytes: 1,
        accelerators: None,
        labels: [("ai.backend.service-ports".to_owned(), "jupyter:http:8888".to_owned())].into(),
        resources: [(SlotName::cpu(), SlotRange { min: Decimal::ONE, max: None })].into(),
        is_local: false,
    };
    store.autocommit().await.unwrap().image_upsert(&image).await.unwrap();
}
