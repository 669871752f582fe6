//! Sessions from insert to end, through the one door.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::agent::{AgentProfile, AgentStatus};
use backendai_datastore::kernel::AgentAddr;
use backendai_datastore::pending::Page;
use backendai_datastore::session::{LIVE_NAME_INDEX, NewKernel, NewSession};
use backendai_datastore::testing::{self, TestDatabase};
use backendai_datastore::transition::{BatchEnd, By, Change, Deadlines, Outcome};
use backendai_datastore::{Datastore, DatastoreError};
use backendai_types::{
    AgentId, ClusterMode, KernelId, KernelStatus as K, ResourceSlots, SessionId, SessionResult,
    SessionStatus as S, SessionType,
};
use futures::future::join_all;
use serde_json::{Value, json};

/// The superadmin of the example site.
const KEY: &str = "AKIA3YRNWABCSGXCJSDH";
const BY: By<'_> = By {
    actor: "test",
    deadlines: Deadlines {
        scheduled: Duration::from_secs(60),
        preparing: Duration::from_secs(600),
        terminating: Duration::from_secs(30),
    },
};

struct Site {
    database: TestDatabase,
    user: backendai_types::UserId,
    group: backendai_types::GroupId,
}

impl Site {
    async fn new() -> Self {
        let database = testing::database().await;
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../sample-configs/example-keypairs.json");
        database.datastore.populate(&std::fs::read(path).unwrap()).await.unwrap();
        let tx = database.datastore.autocommit().await.unwrap();
        let user = tx.owner_of_keypair(&KEY.into()).await.unwrap().unwrap().user_id;
        let group = tx.group_active("default", "default", None).await.unwrap().unwrap();
        let profile = AgentProfile {
            addr: AgentAddr {
                id: "a1".into(),
                addr: "tcp://127.0.0.1:6001".into(),
                public_key: None,
            },
            incarnation: u64::MAX,
            region: "local".into(),
            scaling_group: "default".into(),
            available_slots: slots(),
            public_host: "127.0.0.1".into(),
            version: "0".into(),
            architecture: "x86_64".into(),
            compute_plugins: json!({}),
            images: vec![],
        };
        assert!(tx.agent_upsert(&profile).await.unwrap(), "new");
        assert!(!tx.agent_upsert(&profile).await.unwrap(), "known");
        drop(tx);
        Self { database, user, group }
    }

    fn store(&self) -> &Datastore {
        &self.database.datastore
    }

    fn session(&self, name: &str, kernels: i32) -> NewSession {
        NewSession {
            id: SessionId::random(),
            name: name.into(),
            session_type: SessionType::Batch,
            cluster_mode: ClusterMode::SingleNode,
            domain_name: "default".into(),
            group_id: self.group,
            user_id: self.user,
            access_key: KEY.into(),
            scaling_group: "default".into(),
            image: "r/i:t".into(),
            architecture: "x86_64".into(),
            registry: "r".into(),
            tag: None,
            requested_slots: slots(),
            environ: BTreeMap::from([("A".into(), "b".into())]),
            bootstrap_script: None,
            startup_command: Some("true".into()),
            callback_url: None,
            cluster_ssh_keypair: None,
            designated_agents: None,
            is_private: false,
            starts_at: None,
            vfolder_mounts: Vec::new(),
            dependencies: vec![],
            kernels: (0..kernels)
                .map(|rank| NewKernel {
                    id: KernelId::random(),
                    cluster_role: if rank == 0 { "main" } else { "sub" },
                    cluster_idx: rank.max(1),
                    local_rank: rank,
                    requested_slots: slots(),
                    resource_opts: json!({"shmem": "67108864"}),
                    preopen_ports: vec![8080, 65535],
                })
                .collect(),
        }
    }

    async fn insert(&self, new: &NewSession) -> Result<(), DatastoreError> {
        self.store().autocommit().await?.session_insert(new, KEY).await
    }

    /// Makes one change and gives what became of it.
    async fn change(&self, change: Change) -> Outcome {
        let change = &change;
        let changed =
            self.store()
                .run_tx("test", |tx| async move {
                    tx.transition(std::slice::from_ref(change), BY).await
                })
                .await
                .unwrap();
        changed.outcomes.into_iter().next().unwrap()
    }

    async fn schedule(&self, new: &NewSession) {
        let agent = AgentId::from("a1");
        let placement: Vec<_> = new.kernels.iter().map(|k| (k.id, agent.clone())).collect();
        let change = &Change {
            placement: placement.clone(),
            ..Change::session(new.id, K::Scheduled, "scheduled")
        };
        let pairs: &Vec<_> = &placement.iter().map(|(kernel, agent)| (*kernel, agent)).collect();
        self.store()
            .run_tx("test", |tx| async move {
                tx.admission_lock().await?;
                tx.session_transition(change.clone(), BY).await?;
                tx.allocations_insert(pairs).await
            })
            .await
            .unwrap();
    }

    async fn value(&self, sql: &str) -> Value {
        let client = self.database.connect().await;
        client.query_one(&format!("SELECT to_jsonb(({sql}))"), &[]).await.unwrap().get(0)
    }
}

fn slots() -> ResourceSlots {
    serde_json::from_value(json!({"cpu": "1.5", "mem": "1g", "cuda.device": "0"})).unwrap()
}

#[tokio::test]
async fn a_session_is_read_as_it_was_written() {
    let site = Site::new().await;
    let new = site.session("sess-one", 2);
    site.insert(&new).await.unwrap();
    let tx = site.store().autocommit().await.unwrap();
    let session = tx.session_get(new.id).await.unwrap().unwrap();
    assert_eq!((session.status, session.cluster_size), (S::Pending, 2));
    assert_eq!((session.environ, session.requested_slots), (new.environ, slots()));
    let kernels = tx.session_kernels(new.id).await.unwrap();
    assert_eq!(kernels[1].cluster_hostname, "sub1");
    assert_eq!(kernels[1].preopen_ports, [8080, 65535]);
    let by_id = tx.session_find(&KEY.into(), &new.id.to_string(), true).await.unwrap();
    assert_eq!(by_id.len(), 1);
    assert!(tx.session_find(&"OTHER".into(), "sess-one", false).await.unwrap().is_empty());
    let page = |after, without: &[&str]| Page {
        after,
        limit: 10,
        newest_first: false,
        without_architectures: without.iter().map(|name| (*name).to_owned()).collect(),
    };
    let pending = tx.sessions_pending("default", &page(None, &["arm64"])).await.unwrap();
    assert_eq!(pending[0].kernels.len(), 2);
    let next = page(Some((pending[0].created_at, new.id)), &[]);
    assert!(tx.sessions_pending("default", &next).await.unwrap().is_empty());
    let blocked = page(None, &["x86_64"]);
    assert!(tx.sessions_pending("default", &blocked).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_sessions_of_one_name_one_lives() {
    let site = Site::new().await;
    let new: Vec<_> = (0..8).map(|_| site.session("the-name", 1)).collect();
    let results = join_all(new.iter().map(|new| site.insert(new))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        let conflict = matches!(&error, DatastoreError::Conflict { constraint, .. } if constraint == LIVE_NAME_INDEX);
        assert!(conflict, "{error}");
    }
    let live = site.store().autocommit().await.unwrap();
    let live = live.session_named(&KEY.into(), "the-name").await.unwrap().unwrap();
    site.change(Change::session(live.id, K::Cancelled, "user-requested")).await;
    site.insert(&site.session("the-name", 1)).await.unwrap();
}

#[tokio::test]
async fn the_door_writes_everything_that_belongs_to_a_status() {
    let site = Site::new().await;
    let new = site.session("sess-one", 2);
    site.insert(&new).await.unwrap();
    let note = json!({"retries": 1});
    let tx = site.store().autocommit().await.unwrap();
    tx.sessions_note_scheduling(&[(new.id, "no-available-instances", note.clone())]).await.unwrap();
    site.schedule(&new).await;
    tx.sessions_note_scheduling(&[(new.id, "too-late", note)]).await.unwrap();
    let row = "SELECT to_jsonb(s) FROM (SELECT status, status_info, status_data,
        deadline > now() AS has_deadline, terminated_at IS NULL AS lives, result FROM sessions) s";
    assert_eq!(
        site.value(row).await,
        json!({
            "status": "SCHEDULED", "status_info": "scheduled", "status_data": {},
            "has_deadline": true, "lives": true, "result": "UNDEFINED",
        })
    );
    let used = tx.session_usage(new.id).await.unwrap();
    assert_eq!(used.humanize(), "cpu=3 mem=2g", "zero amounts take no row");
    let usage = tx.agent_usage("default").await.unwrap();
    assert_eq!(usage[&"a1".into()].kernels, 2);

    let illegal = Change::session(new.id, K::Restarting, "");
    assert!(matches!(site.change(illegal.clone()).await, Outcome::Illegal(_)));
    let error = site
        .store()
        .run_tx("test", |tx| {
            let illegal = illegal.clone();
            async move { tx.session_transition(illegal, BY).await }
        })
        .await
        .unwrap_err();
    assert!(matches!(error, DatastoreError::Transition(_)), "{error}");

    site.change(Change::session(new.id, K::Preparing, "")).await;
    let error = json!({"name": "X"});
    site.change(
        Change::session(new.id, K::Terminated, "self-terminated").with_data("error", error.clone()),
    )
    .await;
    assert_eq!(
        site.value(row).await,
        json!({
            "status": "TERMINATED", "status_info": "self-terminated",
            "status_data": {"error": error}, "has_deadline": null, "lives": false,
            "result": "FAILURE",
        })
    );
    assert_eq!(site.value("SELECT count(*) FROM allocations").await, 0);
    let missing = Change::session(SessionId::random(), K::Terminated, "");
    assert_eq!(site.change(missing).await, Outcome::Missing);
}

#[tokio::test]
async fn many_doors_at_once_make_one_history() {
    let site = Site::new().await;
    let sessions: Vec<_> = (0..4).map(|n| site.session(&format!("sess-{n}"), 2)).collect();
    for new in &sessions {
        site.insert(new).await.unwrap();
        site.schedule(new).await;
    }
    // Every order of sessions, every kind of change, all at once.
    let all: Vec<Change> = sessions
        .iter()
        .flat_map(|new| {
            let main = new.kernels[0].id;
            [
                Change::session(new.id, K::Preparing, ""),
                Change::kernel(new.id, main, K::Running, "started"),
                Change::session(new.id, K::Running, "started"),
                Change::session(new.id, K::Terminating, "user-requested"),
                Change::kernel(new.id, main, K::Terminated, "user-requested"),
                Change::session(new.id, K::Terminated, "user-requested"),
            ]
        })
        .collect();
    let doors = (0..12).map(|n| {
        let mut changes = all.clone();
        changes.rotate_left(n * 2);
        if n % 2 == 1 {
            changes.reverse();
        }
        let store = site.store();
        async move {
            let changes = &changes;
            store.run_tx("test", |tx| async move { tx.transition(changes, BY).await }).await
        }
    });
    for result in join_all(doors).await {
        result.unwrap();
    }
    for new in &sessions {
        let history = site
            .value(&format!(
                "SELECT bool_and(from_status IS NOT DISTINCT FROM before) FROM (
                    SELECT from_status, lag(to_status) OVER (
                        PARTITION BY kernel_id ORDER BY seq) AS before,
                        row_number() OVER (PARTITION BY kernel_id ORDER BY seq) AS n
                    FROM transitions WHERE session_id = '{}' AND to_status IS NOT NULL) t
                 WHERE n > 1",
                new.id
            ))
            .await;
        assert_eq!(history, true, "each row begins where the one before it ended");
        let tx = site.store().autocommit().await.unwrap();
        let session = tx.session_get(new.id).await.unwrap().unwrap();
        assert!(session.status.is_terminal(), "{}", session.status);
    }
    assert_eq!(site.value("SELECT count(*) FROM allocations").await, 0);
}

#[tokio::test]
async fn a_result_is_noted_once() {
    let site = Site::new().await;
    let new = site.session("sess-one", 1);
    site.insert(&new).await.unwrap();
    let note = |exit_code| {
        let end = BatchEnd { exit_code, actor: Arc::from("agent:a1") };
        let finished = BTreeMap::from([(new.id, end)]);
        let store = site.store();
        async move { store.autocommit().await.unwrap().session_results(&finished).await.unwrap() }
    };
    assert_eq!(note(0).await, [new.id]);
    assert_eq!(note(1).await, []);
    let session = site.store().autocommit().await.unwrap().session_get(new.id).await.unwrap();
    assert_eq!(session.unwrap().result, SessionResult::Success);
    let events = "SELECT jsonb_agg(event || ' ' || actor ORDER BY seq) FROM transitions";
    assert_eq!(
        site.value(events).await,
        json!([format!("session_enqueued {KEY}"), "session_success agent:a1"])
    );
}

#[tokio::test]
async fn agents_are_lost_and_come_back() {
    let site = Site::new().await;
    let tx = site.store().autocommit().await.unwrap();
    let all = ["a1".into(), "unknown".into()];
    assert_eq!(tx.agents_set_status(&all, AgentStatus::Lost).await.unwrap(), all[..1]);
    assert!(tx.agents_set_status(&all, AgentStatus::Lost).await.unwrap().is_empty());
    assert!(tx.agents_schedulable("default").await.unwrap().is_empty());
    let (addr, status, incarnation) = tx.agents_known().await.unwrap().swap_remove(0);
    assert_eq!((status, incarnation), (AgentStatus::Lost, u64::MAX));
    assert_eq!(addr.addr, "tcp://127.0.0.1:6001");
    tx.agents_set_status(&all, AgentStatus::Alive).await.unwrap();
    assert_eq!(tx.agents_schedulable("default").await.unwrap().len(), 1);
}
