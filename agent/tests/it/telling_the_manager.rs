//! Heartbeats, events, and questions about the agent itself.

use std::time::Duration;

use backendai_agent::kernel::record::KernelState;
use backendai_rpc::agent_api::KernelCall;
use backendai_rpc::call::ErrorKind;
use backendai_rpc::manager_api::KernelPhase;
use backendai_rpc::statistics::Statistics;

use crate::support::dummy::{IMAGE, kind, world};
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
async fn figures_of_node_and_kernels_are_told_and_the_last_ones_stay() {
    let (world, backend) = world();
    let agent = world.start().await;
    let told = world.manager.statistics(|told| told.kernels.is_empty()).await;
    let node = told.node.unpack().unwrap();
    assert_eq!(node.node["mem"].percent(), 25.0);
    assert_eq!(node.devices["cpu_util"].len(), 4);

    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let is_counted = |told: &Statistics| told.kernels.iter().any(|(kernel, _)| *kernel == id);
    let told = world.manager.statistics(is_counted).await;
    let metrics = told.kernels[0].1.unpack().unwrap();
    assert_eq!(metrics["mem"].current, f64::from(64 << 20));
    let asked = agent.client.kernel_metrics(&KernelCall { kernel_id: id }).await.unwrap();
    let asked = asked.unwrap().unpack().unwrap();
    assert!(asked["cpu_used"].current >= metrics["cpu_used"].current);

    let container = agent.core.registry.get(id).unwrap().record();
    let KernelState::Running(running) = container.state else { panic!("it runs") };
    backend.kill(&running.container.id).await;
    let last = world.manager.last_metrics(id).await.unwrap();
    assert!(last["cpu_used"].current >= asked["cpu_used"].current);
    agent.forgotten(id).await;
    world.manager.statistics(|told| told.kernels.is_empty()).await;
    let gone = agent.client.kernel_metrics(&KernelCall { kernel_id: id }).await.unwrap_err();
    assert_eq!(kind(gone), ErrorKind::KernelNotFound);
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
