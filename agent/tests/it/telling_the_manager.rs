//! Heartbeats, events, and questions about the agent itself.

use std::time::Duration;

use backendai_rpc::manager_api::KernelPhase;

use crate::support::dummy::{IMAGE, world};
use crate::support::world::kernel;

#[tokio::test]
async fn heartbeats_list_the_kernels_and_leave_says_good_bye() {
    let (world, _) = world();
    let agent = world.start().await;
    let first = world.manager.heartbeat(|h| h.kernels.is_empty()).await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let listed = |h: &backendai_rpc::manager_api::Heartbeat| {
        h.kernels.iter().any(|k| k.kernel_id == id && k.phase == KernelPhase::Running)
    };
    let later = world.manager.heartbeat(listed).await;
    assert_eq!(later.incarnation, first.incarnation);
    assert!(later.info.is_none(), "what was told is not repeated");
    agent.lifecycle.shut_down(Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.manager.left().await, "shutdown");
    let agent = world.start().await;
    let again = world.manager.heartbeat(|h| h.incarnation != first.incarnation).await;
    let info = again.info.expect("a new process says who it is");
    assert_eq!(info.slots[&"cpu".into()].1, 4.into());
    drop(agent);
}

#[tokio::test]
async fn events_wait_for_the_manager() {
    let (world, _) = world();
    world.manager.refuse_reports(true);
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let listed = |h: &backendai_rpc::manager_api::Heartbeat| {
        h.kernels.iter().any(|k| k.kernel_id == id && k.phase == KernelPhase::Running)
    };
    world.manager.heartbeat(listed).await;
    assert!(world.manager.events_of(id).is_empty());
    world.manager.refuse_reports(false);
    world.manager.started(id).await;
}

#[tokio::test]
async fn hardware_and_hello_are_answered() {
    let (world, _) = world();
    let agent = world.start().await;
    let hello = agent.client.hello(&Default::default()).await.unwrap();
    assert_eq!(Some(hello.agent_id), world.config.agent.id);
    let health = agent.client.hardware(&Default::default()).await.unwrap();
    assert_eq!(health["cpu"].status, "healthy");
}
