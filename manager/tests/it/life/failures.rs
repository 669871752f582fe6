//! Failures at every step: each leaves a reason and nothing else.

use backendai_manager::app::session::CreateSession;
use backendai_types::{ClusterMode, SessionStatus};
use serde_json::Value;

use super::agent::Creating;
use super::world::{World, config, eventually, request};

async fn error_of(world: &World, id: backendai_types::SessionId) -> (SessionStatus, String, Value) {
    let session = world.session(id).await;
    (session.status, session.status_info.unwrap_or_default(), session.status_data["error"].clone())
}

#[tokio::test]
async fn kernels_that_are_refused_or_fail_cancel_the_session_with_a_reason() {
    let world = World::new(&[4]).await;
    let agent = world.agent("a1");
    for (creating, name) in
        [(Creating::Refuses, "InsufficientResource"), (Creating::Fails, "ImageNotAvailable")]
    {
        agent.state.lock().creating = creating;
        let created = world.create(request("sess-one")).await.unwrap();
        assert_eq!(created.status, "CANCELLED");
        let (status, info, error) = error_of(&world, created.session_id).await;
        assert_eq!((status, info.as_str()), (SessionStatus::Cancelled, "failed-to-start"));
        assert_eq!((&error["src"], &error["name"]), (&"agent".into(), &name.into()), "{error}");
        world.until_empty().await;
    }
    // The name is free again.
    agent.state.lock().creating = Creating::Starts;
    assert_eq!(world.create(request("sess-one")).await.unwrap().status, "RUNNING");
}

#[tokio::test]
async fn when_one_kernel_of_a_cluster_fails_the_others_are_removed() {
    let world = World::new(&[1, 4]).await;
    world.agent("a1").state.lock().creating = Creating::FailsSubs;
    world.agent("a2").state.lock().creating = Creating::FailsSubs;
    let cluster = CreateSession {
        cluster_size: 3,
        cluster_mode: ClusterMode::MultiNode,
        ..request("clustered")
    };
    let created = world.create(cluster).await.unwrap();
    assert_eq!(created.status, "CANCELLED", "not before it is over");
    let session = world.session(created.session_id).await;
    assert_eq!(session.status_info.as_deref(), Some("failed-to-start"));
    assert_eq!(session.status_data["error"]["name"], "ImageNotAvailable");
    world.until_empty().await;
}

#[tokio::test]
async fn a_kernel_that_never_starts_is_given_up_at_its_deadline() {
    let mut config = config();
    config.tunables.preparing_deadline_s = 1.0;
    let world = World::with(config, &[4]).await;
    world.agent("a1").state.lock().creating = Creating::Hangs;
    let id = world.enqueue("hanging").await;
    let session = world.until_status(id, SessionStatus::Cancelled).await;
    assert_eq!(session.status_info.as_deref(), Some("failed-to-start"));
    assert_eq!(session.status_data["error"]["name"], "TimeoutError");
    world.until_empty().await;
}

#[tokio::test]
async fn a_kernel_that_is_not_removed_is_in_error_until_it_is() {
    let mut config = config();
    config.tunables.terminating_deadline_s = 1.0;
    let world = World::with(config, &[4]).await;
    let id = world.create(request("sticky")).await.unwrap().session_id;
    let agent = world.agent("a1");
    agent.state.lock().keeps = true;
    world.destroy("sticky", false).await.unwrap();
    let session = world.until_status(id, SessionStatus::Error).await;
    assert_eq!(session.status_info.as_deref(), Some("operation-timeout (destroy_session)"));
    assert_ne!(world.value("SELECT count(*) FROM allocations").await, "0", "it is still there");
    agent.state.lock().keeps = false;
    world.destroy("sticky", true).await.unwrap();
    world.until_status(id, SessionStatus::Terminated).await;
    world.until_empty().await;
}

#[tokio::test]
async fn lost_calls_and_lost_reports_heal() {
    let world = World::new(&[4]).await;
    let agent = world.agent("a1");
    agent.state.lock().creating = Creating::LosesCall;
    assert_eq!(world.create(request("lost-call")).await.unwrap().status, "RUNNING");
    agent.state.lock().creating = Creating::LosesReports;
    assert_eq!(world.create(request("lost-report")).await.unwrap().status, "RUNNING");
    let (kernels, destroyed) = {
        let state = agent.state.lock();
        (state.kernels.len(), state.destroyed.clone())
    };
    assert_eq!((kernels, destroyed), (2, vec![]), "asking twice makes nothing twice");
}

#[tokio::test]
async fn sessions_of_a_lost_agent_stay_until_it_is_back_or_they_are_forced_to_end() {
    let world = World::new(&[4]).await;
    let stays = world.create(request("stays")).await.unwrap().session_id;
    let forced = world.create(request("forced")).await.unwrap().session_id;
    let agent = world.agent("a1");
    agent.state.lock().is_silent = true;
    world.until("SELECT status FROM agents", |status| status == "LOST").await;
    assert_eq!(world.session(stays).await.status, SessionStatus::Running);
    world.destroy("forced", true).await.unwrap();
    assert_eq!(world.session(forced).await.status, SessionStatus::Terminated);
    // A new session waits for an agent.
    let waits = world.enqueue("waits").await;
    world
        .until("SELECT status_info FROM sessions WHERE name = 'waits'", |info| {
            info == "no-available-instances"
        })
        .await;

    agent.state.lock().is_silent = false;
    world.until_status(waits, SessionStatus::Running).await;
    assert_eq!(world.session(stays).await.status, SessionStatus::Running);
    // What was ended behind its back is removed.
    eventually("the agent keeps what is wanted only", || async {
        agent.state.lock().kernels.len() == 2
    })
    .await;
}

#[tokio::test]
async fn kernels_that_a_restarted_agent_does_not_have_any_more_are_terminated() {
    let world = World::new(&[4]).await;
    let id = world.create(request("sess-one")).await.unwrap().session_id;
    world.agent("a1").restart_empty();
    let session = world.until_status(id, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("already-terminated"));
    world.until_empty().await;
}

#[tokio::test]
async fn a_lost_agent_holds_up_the_end_only_until_the_deadline() {
    let mut config = config();
    config.tunables.terminating_deadline_s = 1.0;
    let world = World::with(config, &[4]).await;
    let id = world.create(request("sess-one")).await.unwrap().session_id;
    let agent = world.agent("a1");
    agent.state.lock().is_silent = true;
    world.until("SELECT status FROM agents", |status| status == "LOST").await;
    world.destroy("sess-one", false).await.unwrap();
    let session = world.until_status(id, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("agent-lost"));
    agent.state.lock().is_silent = false;
    world.until_empty().await;
}
