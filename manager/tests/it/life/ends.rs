//! How sessions end, and that repeating what was said changes nothing.

use backendai_manager::app::session::{CreateSession, destroy};
use backendai_rpc::manager_api::{KernelChange, Report};
use backendai_types::{ClusterMode, SessionResult, SessionStatus, SessionType};
use serde_json::json;

use super::agent::{Creating, FakeAgent};
use super::world::{ADMIN, USER, World, admin, request, user};

#[tokio::test]
async fn events_that_come_twice_or_late_change_nothing() {
    let world = World::new(&[4]).await;
    let id = world.create(request("sess-one")).await.unwrap().session_id;
    let agent = world.agent("a1");
    let early = agent.state.lock().reported.clone();
    agent.report(early.clone()).await;
    let running = world.events(id).await;
    assert_eq!(running.last().unwrap(), "session_started");
    world.destroy("sess-one", false).await.unwrap();
    world.until_status(id, SessionStatus::Terminated).await;
    let ended = world.events(id).await;
    let all = agent.state.lock().reported.clone();
    agent.report(all).await;
    assert_eq!(world.events(id).await, ended);
    world.until_empty().await;
    assert_eq!(world.session(id).await.status, SessionStatus::Terminated);
    // Events of kernels nobody knows are acknowledged, so that the agent forgets them.
    let unknown = FakeAgent::event(
        backendai_types::KernelId::random(),
        backendai_types::SessionId::random(),
        FakeAgent::started(),
    );
    let report = Report { agent_id: "a1".into(), events: vec![unknown] };
    world.manager.client.report(&report).await.unwrap();
}

#[tokio::test]
async fn waiting_sessions_are_cancelled_at_once_and_starting_ones_only_by_force() {
    let world = World::new(&[4]).await;
    let agent = world.agent("a1");
    agent.state.lock().creating = Creating::Hangs;
    let waiting = {
        let mut big = request("too-big");
        big.resources = super::world::resources(64);
        big.enqueue_only = true;
        world.create(big).await.unwrap().session_id
    };
    let starting = world.enqueue("starting").await;
    world.until_status(starting, SessionStatus::Preparing).await;

    let stats = world.destroy("too-big", false).await.unwrap();
    assert_eq!(stats, [json!({"status": "cancelled"})]);
    assert_eq!(world.session(waiting).await.status, SessionStatus::Cancelled);

    let error = world.destroy("starting", false).await.unwrap_err();
    assert!(error.to_string().contains("scheduled/preparing"), "{error}");
    world.destroy("starting", true).await.unwrap();
    let session = world.until_status(starting, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("force-terminated"));

    agent.state.lock().creating = Creating::Pulls;
    let pulling = world.enqueue("pulling").await;
    world.until_status(pulling, SessionStatus::Pulling).await;
    let error = world.destroy("pulling", true).await.unwrap_err();
    assert!(error.to_string().contains("pulling status"), "{error}");
}

#[tokio::test]
async fn batch_sessions_end_with_a_result_and_others_wait_for_it() {
    let world = World::new(&[4]).await;
    let batch = |name: &str, after: &[&str]| CreateSession {
        session_type: SessionType::Batch,
        startup_command: Some("true".into()),
        enqueue_only: true,
        dependencies: after.iter().map(|name| (*name).to_owned()).collect(),
        ..request(name)
    };
    let first = world.create(batch("first", &[])).await.unwrap().session_id;
    let second = world.create(batch("second", &["first"])).await.unwrap().session_id;
    world.until_status(first, SessionStatus::Running).await;
    world
        .until(
            "SELECT status_data->'scheduler'->'failed_predicates'->0->>'msg' FROM sessions
             WHERE name = 'second'",
            |text| text.starts_with("Waiting dependency sessions to finish as success. (first ("),
        )
        .await;
    let agent = world.agent("a1");
    let finish = |session, exit_code| {
        let agent = &agent;
        async move {
            let kernel = {
                let state = agent.state.lock();
                let found = state.kernels.iter().find(|(_, (of, _))| *of == session);
                *found.unwrap().0
            };
            let change = KernelChange::BatchFinished { exit_code };
            let event = FakeAgent::event(kernel, session, change);
            agent.report(vec![event.clone()]).await;
            agent.report(vec![event]).await;
        }
    };
    finish(first, 0).await;
    let ended = world.until_status(first, SessionStatus::Terminated).await;
    assert_eq!(ended.result, SessionResult::Success);
    assert_eq!(ended.status_info.as_deref(), Some("task-finished"));
    let events = world.events(first).await;
    assert_eq!(events.iter().filter(|name| *name == "session_success").count(), 1);

    world.until_status(second, SessionStatus::Running).await;
    finish(second, 3).await;
    let ended = world.until_status(second, SessionStatus::Terminated).await;
    assert_eq!(ended.result, SessionResult::Failure);
    let code = "SELECT exit_code FROM transitions WHERE event = 'session_failure'";
    assert_eq!(world.value(code).await, "3");
    world.until_empty().await;
}

#[tokio::test]
async fn a_session_goes_with_those_that_depend_on_it() {
    let world = World::new(&[1]).await;
    let first = world.create(request("first")).await.unwrap().session_id;
    let after = |name: &str, on: &str| CreateSession {
        enqueue_only: true,
        dependencies: vec![on.to_owned()],
        ..request(name)
    };
    let second = world.create(after("second", "first")).await.unwrap().session_id;
    let third = world.create(after("third", &second.to_string())).await.unwrap().session_id;
    let stats = destroy::destroy(world.app(), &user(), "first", None, false, true).await.unwrap();
    assert_eq!(stats.len(), 3);
    world.until_status(first, SessionStatus::Terminated).await;
    world.until_status(second, SessionStatus::Cancelled).await;
    world.until_status(third, SessionStatus::Cancelled).await;
}

#[tokio::test]
async fn a_cluster_ends_whole_with_any_of_its_kernels() {
    let world = World::new(&[4]).await;
    let agent = world.agent("a1");
    for role in ["sub", "main"] {
        let cluster = CreateSession {
            cluster_size: 3,
            cluster_mode: ClusterMode::MultiNode,
            ..request(&format!("loses-{role}"))
        };
        let id = world.create(cluster).await.unwrap().session_id;
        let sql = format!(
            "SELECT id FROM kernels WHERE cluster_role = '{role}' AND status = 'RUNNING'
             ORDER BY local_rank LIMIT 1"
        );
        let kernel = world.value(&sql).await.parse().unwrap();
        agent.state.lock().kernels.remove(&kernel);
        let (reason, exit_code) = ("self-terminated".into(), Some(1));
        let change = KernelChange::Terminated { reason, exit_code, metrics: None };
        agent.report(vec![FakeAgent::event(kernel, id, change)]).await;
        let ended = world.until_status(id, SessionStatus::Terminated).await;
        assert_eq!(ended.status_info.as_deref(), Some("self-terminated"));
        world.until_empty().await;
    }
}

#[tokio::test]
async fn only_admins_end_the_sessions_of_others() {
    let world = World::new(&[4]).await;
    world.create(request("sess-one")).await.unwrap();
    let (admin, user) = (admin(), user());
    let end =
        |context, owner| destroy::destroy(world.app(), context, "sess-one", owner, false, false);
    end(&admin, None).await.expect_err("not a session of the admin");
    end(&user, Some(ADMIN)).await.expect_err("not allowed");
    end(&admin, Some("AKIANOBODY")).await.expect_err("no such key");
    assert_eq!(end(&admin, Some(USER)).await.unwrap().len(), 1);
    world.until_empty().await;
}
