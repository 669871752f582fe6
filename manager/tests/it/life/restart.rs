//! Sessions that are restarted.

use backendai_manager::app::session::{CreateSession, restart};
use backendai_manager::app::{Error, Result};
use backendai_rpc::manager_api::KernelChange;
use backendai_types::{SessionId, SessionStatus};

use super::agent::{Creating, FakeAgent};
use super::world::{World, admin, request, user};

async fn restart_it(world: &World) -> Result<()> {
    restart::restart(world.app(), &user(), "sess-one", None).await
}

async fn running() -> (World, SessionId) {
    let world = World::new(&[4, 4]).await;
    let id = world.create(request("sess-one")).await.unwrap().session_id;
    (world, id)
}

/// What the agents have been told to restart.
fn told(world: &World) -> usize {
    world.fleet.0.lock().values().map(|agent| agent.state.lock().restarts.len()).sum()
}

fn all(world: &World, creating: Creating) {
    for agent in world.fleet.0.lock().values() {
        agent.state.lock().creating = creating;
    }
}

#[tokio::test]
async fn every_kernel_of_a_session_starts_anew_and_tells_so() {
    let world = World::new(&[4, 4]).await;
    let wanted = CreateSession { cluster_size: 3, ..request("sess-one") };
    let id = world.create(wanted).await.unwrap().session_id;
    let before = world.events(id).await.len();
    restart_it(&world).await.unwrap();
    assert_eq!(world.session(id).await.status, SessionStatus::Running);
    assert_eq!(told(&world), 3);
    let events = world.events(id).await.split_off(before);
    assert_eq!(events.iter().filter(|event| *event == "kernel_restarting").count(), 3);
    assert_eq!(events.iter().filter(|event| *event == "kernel_started").count(), 3);
    let session: Vec<_> = events.iter().filter(|event| event.starts_with("session")).collect();
    assert_eq!(session, ["session_restarting", "session_started"]);
    // Again, under another name.
    restart::restart(world.app(), &admin(), "sess-one", Some(super::world::USER)).await.unwrap();
    assert_eq!(told(&world), 6);
    world.destroy("sess-one", false).await.unwrap();
    world.until_empty().await;
}

#[tokio::test]
async fn a_restart_survives_lost_calls_and_lost_reports() {
    for losing in [Creating::LosesCall, Creating::LosesReports] {
        let (world, id) = running().await;
        all(&world, losing);
        restart_it(&world).await.unwrap();
        assert_eq!(world.session(id).await.status, SessionStatus::Running, "{losing:?}");
    }
}

#[tokio::test]
async fn a_kernel_that_cannot_be_made_anew_ends_its_session() {
    let (world, id) = running().await;
    all(&world, Creating::Fails);
    let error = restart_it(&world).await.unwrap_err();
    let Error::Agent { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("no such luck"), "{source}");
    let session = world.until_status(id, SessionStatus::Terminated).await;
    assert_eq!(session.status_info.as_deref(), Some("failed-to-restart"));
    world.until_empty().await;
}

#[tokio::test]
async fn only_the_report_of_this_very_restart_counts() {
    let (world, id) = running().await;
    restart_it(&world).await.unwrap();
    all(&world, Creating::Hangs);
    let agents: Vec<_> = world.fleet.0.lock().values().cloned().collect();
    let agent = agents.iter().find(|agent| !agent.state.lock().restarts.is_empty()).unwrap();
    let (kernel, first) = agent.state.lock().restarts[0];
    let restarting = restart_it(&world);
    let proof = async {
        world.until_status(id, SessionStatus::Restarting).await;
        let info = FakeAgent::info_of_kernel();
        let old = KernelChange::Restarted { restart: first, info };
        agent.report(vec![FakeAgent::event(kernel, id, old)]).await;
        assert_eq!(world.session(id).await.status, SessionStatus::Restarting);
        super::world::eventually("the agent is told", || async { told(&world) > 1 }).await;
        let (_, second) = *agent.state.lock().restarts.last().unwrap();
        assert!(second > first);
        let new = KernelChange::Restarted { restart: second, info: FakeAgent::info_of_kernel() };
        agent.report(vec![FakeAgent::event(kernel, id, new)]).await;
    };
    let (restarted, ()) = tokio::join!(restarting, proof);
    restarted.unwrap();
    assert_eq!(world.session(id).await.status, SessionStatus::Running);
}

#[tokio::test]
async fn a_restart_that_takes_too_long_ends_in_error() {
    let (world, id) = running().await;
    all(&world, Creating::Hangs);
    let pass_the_deadline = async {
        world.until_status(id, SessionStatus::Restarting).await;
        world.sql("UPDATE sessions SET deadline = now() - interval '1 second'").await;
    };
    let (restarted, ()) = tokio::join!(restart_it(&world), pass_the_deadline);
    restarted.unwrap_err();
    let session = world.session(id).await;
    assert_eq!(session.status, SessionStatus::Error);
    let info = session.status_info.as_deref();
    assert_eq!(info, Some("operation-timeout (restart_session)"));
    let error = restart_it(&world).await.unwrap_err();
    assert!(error.to_string().contains("the status of sess-one is ERROR"), "{error}");
    world.destroy("sess-one", true).await.unwrap();
    world.until_empty().await;
}

#[tokio::test]
async fn only_running_sessions_are_restarted() {
    let world = World::new(&[]).await;
    world.enqueue("sess-one").await;
    let error = restart_it(&world).await.unwrap_err();
    assert!(error.to_string().contains("PENDING"), "{error}");
    restart::restart(world.app(), &user(), "nobody", None).await.unwrap_err();
    assert_eq!(world.value("SELECT status FROM kernels").await, "PENDING");
}
