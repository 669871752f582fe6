//! Kernels whose containers are made anew.

use backendai_rpc::agent_api::{
    CreationInfo, ExecuteMode, KernelSpec, RestartKernel, RestartKernels, SessionSpec,
};
use backendai_rpc::manager_api::KernelChange;
use backendai_types::KernelId;

use crate::support::dummy::{IMAGE, assert_clean, world};
use crate::support::world::{Manager, Running, eventually, kernel, session};

async fn restart(agent: &Running, session: &SessionSpec, spec: &KernelSpec, restart: i64) {
    let kernels = vec![RestartKernel { restart, spec: spec.clone() }];
    let request = RestartKernels { session: session.clone(), kernels };
    agent.client.restart_kernels(&request).await.unwrap();
}

async fn restarted(manager: &Manager, id: KernelId, name: i64) -> CreationInfo {
    manager
        .event(id, |change| match change {
            KernelChange::Restarted { restart, info } if *restart == name => Some((**info).clone()),
            KernelChange::Failed(error) => panic!("kernel failed: {error}"),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_restart_makes_another_container_over_the_same_folder() {
    let (world, backend) = world();
    let agent = world.start().await;
    let (session, spec) = (session(), kernel(IMAGE));
    let id = spec.kernel_id;
    agent.create_in(session.clone(), vec![spec.clone()]).await.unwrap();
    let before = world.manager.started(id).await;
    let work = agent.core.scratch.paths(id).work;
    std::fs::write(work.join("kept"), "mine").unwrap();
    std::fs::write(work.join(".bashrc"), "mine").unwrap();
    let mode = ExecuteMode::Query { code: "wait".into() };
    agent.execute(id, Some("r"), mode, 0).await.unwrap();

    restart(&agent, &session, &spec, 7).await;
    let after = restarted(&world.manager, id, 7).await;
    assert_ne!(after.container_id, before.container_id);
    assert_eq!(after.allocations, before.allocations);
    for file in ["kept", ".bashrc"] {
        assert_eq!(std::fs::read_to_string(work.join(file)).unwrap(), "mine");
    }
    // What ran is over.
    agent.execute(id, Some("r"), ExecuteMode::Continue, 0).await.unwrap_err();
    agent.query(id, "1").await;
    assert_eq!(backend.container_names().len(), 1);

    // The same again is told again and does nothing; another is another.
    restart(&agent, &session, &spec, 7).await;
    let told_twice = || {
        let events = world.manager.events_of(id);
        events.iter().filter(|e| matches!(e, KernelChange::Restarted { .. })).count() == 2
    };
    eventually(told_twice).await;
    assert_eq!(backend.created_count(), 2);
    restart(&agent, &session, &spec, 8).await;
    restarted(&world.manager, id, 8).await;
    assert_eq!(backend.created_count(), 3);
    agent.destroy(id, session.session_id).await;
    world.manager.terminated(id).await;
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn an_agent_killed_in_a_restart_brings_it_to_its_end() {
    let (world, backend) = world();
    let agent = world.start().await;
    let (session, spec) = (session(), kernel(IMAGE));
    let id = spec.kernel_id;
    agent.create_in(session.clone(), vec![spec.clone()]).await.unwrap();
    let before = world.manager.started(id).await;
    restart(&agent, &session, &spec, 7).await;
    agent.kill().await;
    let agent = world.start().await;
    let after = restarted(&world.manager, id, 7).await;
    assert_ne!(after.container_id, before.container_id);
    agent.kill().await;
    // It is told as what it is after that too, and can be ended.
    let agent = world.start().await;
    restart(&agent, &session, &spec, 7).await;
    assert_eq!(backend.container_names().len(), 1);
    agent.destroy(id, session.session_id).await;
    world.manager.terminated(id).await;
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn a_kernel_to_be_removed_is_removed_in_the_midst_of_a_restart() {
    let (world, backend) = world();
    let agent = world.start().await;
    let (session, spec) = (session(), kernel(IMAGE));
    let id = spec.kernel_id;
    agent.create_in(session.clone(), vec![spec.clone()]).await.unwrap();
    world.manager.started(id).await;
    restart(&agent, &session, &spec, 7).await;
    agent.destroy(id, session.session_id).await;
    // Again, as a manager does that does not see it going.
    let gone = async {
        while agent.core.registry.get(id).is_some() {
            agent.destroy(id, session.session_id).await;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::join!(gone, world.manager.terminated(id));
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn what_is_not_here_cannot_be_restarted() {
    let (world, _) = world();
    let agent = world.start().await;
    let (session, spec) = (session(), kernel(IMAGE));
    restart(&agent, &session, &spec, 7).await;
    let end = world.manager.terminated(spec.kernel_id).await;
    assert_eq!(end, ("already-terminated".into(), None));
}
