//! Kernels become archives.

use std::io::Read;
use std::path::Path;

use backendai_agent::backend::ContainerBackend;
use backendai_rpc::agent_api::{CommitKernel, CommitState};
use backendai_rpc::call::ErrorKind;
use backendai_types::{BackgroundTaskId, KernelId};

use crate::support::dummy::{IMAGE, kind, world};
use crate::support::world::kernel;

const PATIENCE_MS: u64 = 20_000;

fn commit(kernel_id: KernelId, filename: &str) -> CommitKernel {
    CommitKernel {
        commit_id: BackgroundTaskId::random(),
        kernel_id,
        subdir: "me_example.org".into(),
        filename: filename.into(),
        wait_ms: PATIENCE_MS,
    }
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_container_becomes_an_archive_once() {
    let (world, backend) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let request = commit(id, "one.tar.gz");
    let error = agent.client.commit(&request).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::KernelNotFound);
    agent.create(spec).await;
    world.manager.started(id).await;

    let state = agent.client.commit(&request).await.unwrap();
    let dir = world.dir.path().join("commit/me_example.org");
    let path = dir.join("one.tar.gz");
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(state, CommitState::Done { bytes: size });
    let container = backend.container_names().remove(0);
    assert_eq!(unpacked(&path), format!("files of {container}"));
    assert_eq!(names(&dir), ["one.tar.gz"], "no half archives");
    let left = backend.snapshots("backendai-commit", agent.core.agent_id.as_str()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");

    // Asked again it is the same, also by a process that knows nothing of it.
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(agent.client.commit(&request).await.unwrap(), state);
    agent.kill().await;
    let agent = world.start().await;
    assert_eq!(agent.client.commit(&request).await.unwrap(), state);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);

    let outside = CommitKernel { subdir: "..".into(), ..commit(id, "two.tar.gz") };
    assert_eq!(kind(agent.client.commit(&outside).await.unwrap_err()), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn what_an_earlier_process_left_half_done_is_cleared_away() {
    let (world, backend) = world();
    let agent = world.start().await;
    let owner = agent.core.agent_id.to_string();
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let container = world.manager.started(id).await.container_id;
    agent.kill().await;
    backend.snapshot(&container, "backendai-commit:old").await.unwrap();
    let dir = world.dir.path().join("commit/me_example.org");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!(".old.tar.gz.{owner}.part")), "half").unwrap();
    std::fs::write(dir.join(".old.tar.gz.i-another.part"), "another's").unwrap();

    let agent = world.start().await;
    agent.client.commit(&commit(id, "new.tar.gz")).await.unwrap();
    let mut left = names(&dir);
    left.sort();
    assert_eq!(left, [".old.tar.gz.i-another.part", "new.tar.gz"]);
    assert!(backend.snapshots("backendai-commit", &owner).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_fails_the_commit_and_leaves_nothing() {
    let (world, backend) = world();
    // A file where the folder should be.
    std::fs::write(world.dir.path().join("commit"), "").unwrap();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    world.manager.started(id).await;
    let state = agent.client.commit(&commit(id, "one.tar.gz")).await.unwrap();
    assert!(
        matches!(&state, CommitState::Failed { message } if message.contains("one.tar.gz")),
        "{state:?}"
    );
    let owner = agent.core.agent_id.to_string();
    assert!(backend.snapshots("backendai-commit", &owner).await.unwrap().is_empty());
}
