//! Sessions that run and are used.

use std::time::Duration;

use backendai_manager::app::session::execute::{self, ExecuteRequest};
use backendai_manager::app::session::{CreateSession, logs, query};
use backendai_rpc::agent_api::{ExecuteMode, RunStatus};
use backendai_types::{ClusterMode, SessionStatus};
use serde_json::{Value, json};

use super::world::{World, eventually, request, user};

#[tokio::test]
async fn a_session_runs_and_ends_and_tells_each_step_once() {
    let world = World::new(&[4]).await;
    let created = world.create(request("sess-one")).await.unwrap();
    assert_eq!((created.status.as_str(), created.created), ("RUNNING", true));
    assert_eq!(created.service_ports[0].name, "jupyter");
    let id = created.session_id;

    let info = query::info(world.app(), &user(), "sess-one").await.unwrap();
    assert_eq!(info.occupied_slots.humanize(), "cpu=1 mem=512m");
    assert_eq!(info.main_kernel.container_id.as_deref(), Some("c0ffee"));
    let by_id = query::info(world.app(), &user(), &id.to_string()).await.unwrap();
    assert_eq!(by_id.session.name, "sess-one");

    let stats = world.destroy("sess-one", false).await.unwrap();
    let mem = json!({"current": "512", "capacity": "1024", "pct": "50.00", "unit_hint": "bytes"});
    assert_eq!(stats, [json!({"mem": mem, "status": "terminated", "version": 2})]);
    let session = world.until_status(id, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("user-requested"));
    world.until_empty().await;
    assert_eq!(
        world.events(id).await,
        [
            "session_enqueued",
            "kernel_scheduled",
            "session_scheduled",
            "kernel_preparing",
            "session_preparing",
            "kernel_pulling",
            "session_pulling",
            "kernel_creating",
            "session_creating",
            "kernel_started",
            "session_started",
            "kernel_terminating",
            "session_terminating",
            "kernel_terminated",
            "session_terminated",
        ]
    );
    let exit_code = "SELECT exit_code FROM kernels";
    assert_eq!(world.value(exit_code).await, "137");
    let last_stat = world.value("SELECT last_stat::text FROM kernels").await;
    assert_eq!(serde_json::from_str::<Value>(&last_stat).unwrap(), json!({"mem": mem}));
    world.destroy("sess-one", false).await.unwrap_err();
}

#[tokio::test]
async fn kernels_are_told_who_and_where_they_are() {
    let world = World::new(&[4, 4]).await;
    let mut wanted = CreateSession {
        cluster_size: 3,
        cluster_mode: ClusterMode::MultiNode,
        preopen_ports: vec![5000, 5001],
        ..request("clustered")
    };
    wanted.environ.insert("MINE".into(), "yes".into());
    wanted.environ.insert("BACKENDAI_SESSION_NAME".into(), "not mine".into());
    world.create(wanted).await.unwrap();
    let agents = ["a1", "a2"].map(|id| world.agent(id));
    let specs: Vec<_> = agents.iter().flat_map(|a| a.state.lock().specs.clone()).collect();
    assert_eq!(specs.len(), 2, "one call for each agent");
    let hosts: Vec<_> = specs[0].session.hosts.iter().map(|h| h.hostname.as_str()).collect();
    assert_eq!(hosts, ["main1", "sub1", "sub2"]);
    assert_eq!(specs[0].session.cluster_ssh_keypair, specs[1].session.cluster_ssh_keypair);
    let kernels: Vec<_> = specs.iter().flat_map(|spec| &spec.kernels).collect();
    let main = kernels.iter().find(|kernel| kernel.cluster_role == "main").unwrap();
    for (name, value) in [
        ("MINE", "yes"),
        ("BACKENDAI_SESSION_NAME", "clustered"),
        ("BACKENDAI_CLUSTER_SIZE", "3"),
        ("BACKENDAI_CLUSTER_REPLICAS", "main:1,sub:2"),
        ("BACKENDAI_CLUSTER_HOSTS", "main1,sub1,sub2"),
        ("BACKENDAI_CLUSTER_ROLE", "main"),
        ("BACKENDAI_CLUSTER_IDX", "1"),
        ("BACKENDAI_CLUSTER_HOST", "main1"),
        ("BACKENDAI_PREOPEN_PORTS", "5000,5001"),
        ("BACKENDAI_SERVICE_PORTS", "jupyter:http:8888"),
    ] {
        assert_eq!(main.environ.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(main.shmem, 64 << 20);
    assert!(kernels.iter().all(|k| k.preopen_ports.is_empty() == (k.cluster_role == "sub")));
}

#[tokio::test]
async fn an_agent_on_a_swarm_makes_the_network_and_removes_it_at_the_end() {
    let world = World::new(&[1, 1, 1]).await;
    for id in ["a1", "a2"] {
        world.agent(id).state.lock().has_no_swarm = true;
    }
    let wanted = CreateSession {
        cluster_size: 2,
        cluster_mode: ClusterMode::MultiNode,
        ..request("spread")
    };
    let created = world.create(wanted).await.unwrap();
    assert_eq!(created.status, "RUNNING");
    let networks = || world.agent("a3").state.lock().networks.clone();
    assert!(networks().contains(&created.session_id));
    // Kernels of one agent need no such network.
    world.create(request("single")).await.unwrap();
    assert_eq!(networks().len(), 1);
    world.destroy("spread", false).await.unwrap();
    eventually("the network is removed", || async { networks().is_empty() }).await;
}

#[tokio::test]
async fn without_a_swarm_a_multi_node_session_says_so() {
    let world = World::new(&[4]).await;
    world.agent("a1").state.lock().has_no_swarm = true;
    let wanted = CreateSession {
        cluster_size: 2,
        cluster_mode: ClusterMode::MultiNode,
        ..request("spread")
    };
    let created = world.create(wanted).await.unwrap();
    assert_eq!(created.status, "CANCELLED");
    let session = world.session(created.session_id).await;
    assert_eq!(session.status_data["error"]["name"], "NotSupported");
    world.until_empty().await;
}

#[tokio::test]
async fn kernels_get_the_dotfiles_of_domain_group_and_user() {
    let world = World::new(&[4]).await;
    world
        .sql(
            r#"UPDATE domains SET dotfiles = '[{"path": ".a", "perm": "600", "data": "domain"},
                                              {"path": ".b", "perm": "644", "data": "domain"}]';
            UPDATE groups SET dotfiles = '[{"path": "/home/work/.b", "perm": "644", "data": "group"},
                                           {"path": ".c", "perm": "644", "data": "group"}]';
            UPDATE keypairs SET dotfiles = '[{"path": ".c", "perm": "755", "data": "user"},
                                             {"path": "/etc/cron.d/x", "perm": "644", "data": "no"}]'
            WHERE NOT is_admin"#,
        )
        .await;
    world.create(request("sess-one")).await.unwrap();
    let specs = world.agent("a1").state.lock().specs.clone();
    let placed: Vec<_> = specs[0].kernels[0]
        .dotfiles
        .iter()
        .map(|file| (file.path.as_str(), file.mode, file.data.as_str()))
        .collect();
    assert_eq!(placed, [(".a", 0o600, "domain"), (".b", 0o644, "group"), (".c", 0o755, "user")]);
}

#[tokio::test]
async fn code_runs_while_the_kernel_lives_and_logs_outlive_it() {
    let world = World::new(&[4]).await;
    let id = world.create(request("sess-one")).await.unwrap().session_id;
    let query = || ExecuteRequest {
        run_id: Some("r1".into()),
        mode: ExecuteMode::Query { code: "print(1)".into() },
        flush: Duration::from_secs(1),
    };
    let app = world.app();
    let reply = execute::execute(app, &user(), "sess-one", query()).await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(0)));
    let found = execute::complete(app, &user(), "sess-one", "pri", None).await.unwrap();
    assert_eq!(found, ["print"]);
    execute::interrupt(app, &user(), "sess-one").await.unwrap();
    assert_eq!(logs::logs(app, &user(), "sess-one", None).await.unwrap(), "live \u{fffd} log");
    world.until("SELECT num_queries FROM sessions", |count| count == "1").await;

    // The kernel vanished, but the manager does not know yet.
    let agent = world.agent("a1");
    let kernel = {
        let mut state = agent.state.lock();
        state.is_silent = false;
        let (kernel, _) = state.kernels.pop_first().unwrap();
        kernel
    };
    let reply = execute::execute(app, &user(), "sess-one", query()).await;
    // Unless heartbeats told it in the meantime.
    if let Ok(reply) = reply {
        assert_eq!(reply.exit_code, Some(130));
    }
    world.until_status(id, SessionStatus::Terminated).await;
    let log = backendai_rpc::manager_api::StoreKernelLog {
        kernel_id: kernel,
        bytes: b"the end".to_vec(),
    };
    world.manager.client.store_kernel_log(&log).await.unwrap();
    assert_eq!(logs::logs(app, &user(), "sess-one", None).await.unwrap(), "the end");
}

#[tokio::test]
async fn code_needs_a_running_session() {
    let world = World::new(&[]).await;
    world.enqueue("waiting").await;
    let error = execute::interrupt(world.app(), &user(), "waiting").await.unwrap_err();
    assert!(error.to_string().contains("PENDING"), "{error}");
    execute::interrupt(world.app(), &user(), "nobody").await.unwrap_err();
    assert_eq!(logs::logs(world.app(), &user(), "waiting", None).await.unwrap(), "");
}
