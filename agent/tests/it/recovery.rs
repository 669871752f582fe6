//! Restarts of the agent, and of the engine below it.

use std::time::Duration;

use backendai_agent::backend::dummy::Script;
use backendai_agent::core::EngineState;
use backendai_rpc::agent_api::{ExecuteMode, KernelCall, RunStatus};
use backendai_rpc::call::ErrorKind;
use backendai_rpc::manager_api::{KernelChange, KernelPhase};

use crate::support::dummy::{IMAGE, assert_clean, complete, kind, stdout, world};
use crate::support::world::{eventually, kernel, session};

#[tokio::test]
async fn a_killed_agent_adopts_what_runs_and_loses_no_output() {
    let (world, backend) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let session = agent.create(spec).await;
    let before = world.manager.started(id).await;
    let mode = ExecuteMode::Query { code: "wait".into() };
    agent.execute(id, Some("r"), mode, 0).await.unwrap();
    // It ends, and nobody fetches that: it is on its way when the agent dies.
    agent.client.interrupt(&KernelCall { kernel_id: id }).await.unwrap();
    agent.client.complete(&complete(id)).await.unwrap();
    agent.kill().await;

    let agent = world.start().await;
    assert_eq!(backend.created_count(), 1);
    let reply = agent.execute(id, Some("r"), ExecuteMode::Continue, 10_000).await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(130)));
    let pool = agent.core.pool().unwrap();
    assert_eq!(pool.lock().holders().collect::<Vec<_>>(), [id]);
    assert_eq!(agent.query(id, "more").await.console, [stdout("more\n")]);
    let again = world.manager.started(id).await;
    assert_eq!(again.container_id, before.container_id);
    agent.destroy(id, session).await;
    world.manager.terminated(id).await;
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn what_ended_while_the_agent_was_away_is_told() {
    let (world, backend) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let info = world.manager.started(id).await;
    agent.kill().await;
    backend.kill(&info.container_id).await;
    let agent = world.start().await;
    assert_eq!(world.manager.terminated(id).await, ("self-terminated".into(), Some(137)));
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn an_end_that_was_not_acknowledged_is_told_by_the_next_process() {
    let (world, backend) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let session = agent.create(spec).await;
    world.manager.started(id).await;
    world.manager.refuse_reports(true);
    agent.destroy(id, session).await;
    let gone = |h: &backendai_rpc::manager_api::Heartbeat| {
        h.kernels.iter().any(|k| k.kernel_id == id && k.phase == KernelPhase::Gone)
    };
    world.manager.heartbeat(gone).await;
    agent.kill().await;
    world.manager.refuse_reports(false);
    let agent = world.start().await;
    assert_eq!(world.manager.terminated(id).await, ("user-requested".into(), Some(0)));
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn half_made_kernels_are_finished_or_made_anew() {
    let (world, backend) = world();
    // Killed while its container is being created: nothing exists yet.
    let slow = Duration::from_secs(3600);
    let early = kernel(IMAGE);
    backend.script_kernel(
        &early.kernel_id.to_string(),
        Script { create_delay: slow, ..Script::default() },
    );
    // Killed while waiting for the runner: the container runs.
    let late = kernel(IMAGE);
    backend.script_kernel(&late.kernel_id.to_string(), Script { mute: true, ..Script::default() });
    let (early_id, late_id) = (early.kernel_id, late.kernel_id);
    let agent = world.start().await;
    agent.create_in(session(), vec![early, late]).await.unwrap();
    eventually(|| backend.created_count() >= 1).await;
    let creating = |c: &KernelChange| matches!(c, KernelChange::Creating).then_some(());
    world.manager.event(early_id, creating).await;
    agent.kill().await;

    backend.script_kernel(&early_id.to_string(), Script::default());
    let agent = world.start().await;
    let info = world.manager.started(early_id).await;
    assert!(backend.spec(&info.container_id).is_some());
    // The other one is still being waited for, in the same container.
    assert_eq!(agent.core.registry.get(late_id).unwrap().phase(), KernelPhase::Creating);
    assert_eq!(backend.container_names().len(), 2);
    assert_eq!(backend.created_count(), 2);
}

#[tokio::test]
async fn lost_records_are_rebuilt_from_labels_and_strays_removed() {
    let (world, backend) = world();
    let agent = world.start().await;
    let (kept, dead) = (kernel(IMAGE), kernel(IMAGE));
    let (kept_id, dead_id) = (kept.kernel_id, dead.kernel_id);
    agent.create(kept).await;
    agent.create(dead).await;
    let before = world.manager.started(kept_id).await;
    let dead_info = world.manager.started(dead_id).await;
    agent.kill().await;
    backend.kill(&dead_info.container_id).await;
    for id in [kept_id, dead_id] {
        std::fs::remove_file(world.dir.path().join(format!("var/kernels/{id}.json"))).unwrap();
    }
    let agent = world.start().await;
    let kernel = agent.core.registry.get(kept_id).expect("rebuilt");
    assert_eq!(kernel.phase(), KernelPhase::Running);
    let again = world.manager.started(kept_id).await;
    assert_eq!(again.allocations, before.allocations);
    assert!(agent.core.registry.get(dead_id).is_none());
    eventually(|| backend.container_names().len() == 1).await;
    let folder = world.dir.path().join("scratch").join(dead_id.to_string());
    assert!(!folder.exists());
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for() {
    let (world, backend) = world();
    backend.set_available(false);
    let agent = world.launch();
    let error = agent.create_in(session(), vec![kernel(IMAGE)]).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::EngineUnavailable);
    assert_eq!(world.manager.heartbeat_count(), 0);
    backend.set_available(true);
    world.manager.heartbeat(|_| true).await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let session_id = agent.create(spec).await;
    let info = world.manager.started(id).await;

    // Away in the middle: heartbeats go on, and what was wanted is done afterwards.
    backend.set_available(false);
    let mut engine = agent.core.engine.subscribe();
    engine.wait_for(|state| *state == EngineState::Down).await.unwrap();
    let error = agent.create_in(session(), vec![kernel(IMAGE)]).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::EngineUnavailable);
    let error = agent.client.kernel_log(&KernelCall { kernel_id: id }).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::EngineUnavailable);
    world.manager.heartbeat(|h| h.kernels.len() == 1).await;
    backend.kill(&info.container_id).await;
    agent.destroy(id, session_id).await;
    backend.set_available(true);
    world.manager.terminated(id).await;
    assert_clean(&world, &backend, &agent, id).await;
}
