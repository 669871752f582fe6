//! Agents over containers in memory.

use std::sync::Arc;

use backendai_agent::backend::dummy::{DummyBackend, DummySettings};
use backendai_rpc::agent_api::Complete;
use backendai_rpc::call::{CallError, ErrorKind};
use backendai_rpc::runner::ConsoleItem;
use backendai_types::KernelId;

use super::world::{Running, World};

pub const IMAGE: &str = "registry.example.com/stable/python:3.12";

pub fn world() -> (World, DummyBackend) {
    world_of(DummySettings::default())
}

pub fn world_of(settings: DummySettings) -> (World, DummyBackend) {
    let backend = DummyBackend::new(settings);
    (World::new(Arc::new(backend.clone())), backend)
}

/// The kind of an error the agent answered with.
pub fn kind(error: CallError) -> ErrorKind {
    match error {
        CallError::Remote(error) => error.kind,
        other => panic!("{other}"),
    }
}

pub fn stdout(text: &str) -> ConsoleItem {
    ConsoleItem::Stdout(text.to_owned())
}

pub fn complete(kernel_id: KernelId) -> Complete {
    Complete { kernel_id, code: "im".into(), cursor: None }
}

/// Nothing of any kernel is left anywhere.
pub async fn assert_clean(world: &World, backend: &DummyBackend, agent: &Running, id: KernelId) {
    agent.forgotten(id).await;
    assert_eq!(backend.container_names(), Vec::<String>::new());
    assert_eq!(world.leftovers(), Vec::<String>::new());
    assert_eq!(agent.core.pool().unwrap().lock().holders().count(), 0);
}
