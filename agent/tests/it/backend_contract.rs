//! What every container backend must do. The same cases run against Docker, where an
//! engine is present, and against the dummy; both must agree.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backendai_agent::backend::docker::{DockerAddress, DockerBackend};
use backendai_agent::backend::dummy::{DummyBackend, DummySettings, Script};
use backendai_agent::backend::{
    BackendError, ContainerBackend, ContainerChange, ContainerLimits, ContainerSpec,
    ContainerState, ExitStatus, PullImage, labels,
};
use chrono::Utc;
use futures::StreamExt;
use uuid::Uuid;

use crate::support::docker_image;
use crate::support::world::eventually;

/// Runs until SIGTERM, then ends with code 3.
const SLEEPER: &str = "contract/sleeper:1";
/// Writes to both streams and ends with code 7.
const QUITTER: &str = "contract/quitter:1";
/// Ends only by SIGKILL.
const STUBBORN: &str = "contract/stubborn:1";

const IMAGES: [&str; 3] = [SLEEPER, QUITTER, STUBBORN];

struct Bench {
    backend: Arc<dyn ContainerBackend>,
    prefix: String,
    owner: String,
}

impl Bench {
    fn spec(&self, image: &str) -> ContainerSpec {
        let kernel = Uuid::new_v4().to_string();
        ContainerSpec {
            name: format!("contract.{kernel}"),
            image: format!("{}{image}", self.prefix),
            hostname: "main1".into(),
            labels: BTreeMap::from([
                (labels::OWNER.to_owned(), self.owner.clone()),
                (labels::KERNEL_ID.to_owned(), kernel),
            ]),
            entrypoint: "/contract".into(),
            working_dir: "/".into(),
            mounts: Vec::new(),
            limits: ContainerLimits { pids: 64, log_bytes: 1 << 20, ..Default::default() },
            network: None,
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let (backend, owner) = (Arc::clone(&self.backend), self.owner.clone());
        let cleaning = async move {
            for container in backend.list(&owner).await.unwrap_or_default() {
                let _ = backend.remove(&container.handle.id).await;
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(cleaning));
        if !self.prefix.is_empty() {
            docker_image::remove(&IMAGES.map(|image| format!("{}{image}", self.prefix)));
        }
    }
}

fn dummy() -> Bench {
    let backend = DummyBackend::new(DummySettings { any_image: false, ..Default::default() });
    for image in IMAGES {
        backend.add_image(image, &format!("sha256:{image}"));
    }
    let short = Some(Duration::from_millis(5));
    let log = b"to stdout\nto stderr\n".to_vec();
    let quits = Script { run_for: short, exit_code: 7, log, ..Script::default() };
    backend.script_image(QUITTER, quits);
    backend.script_image(STUBBORN, Script { stubborn: true, ..Script::default() });
    Bench { backend: Arc::new(backend), prefix: String::new(), owner: Uuid::new_v4().to_string() }
}

/// `None` where there is no engine.
fn docker() -> Option<Bench> {
    if !docker_image::engine_is_present() {
        eprintln!("no container engine here: skipped");
        return None;
    }
    // Names of its own for each test: others import at the same time.
    let prefix = format!("test-{}-", Uuid::new_v4().simple());
    let forever = "while :; do sleep 0.02; done";
    for (image, program) in [
        (SLEEPER, format!("trap 'exit 3' TERM; {forever}")),
        (QUITTER, "echo to stdout; echo to stderr >&2; exit 7".to_owned()),
        (STUBBORN, format!("trap '' TERM; {forever}")),
    ] {
        docker_image::import(&format!("{prefix}{image}"), &program);
    }
    let backend = DockerBackend::new(DockerAddress::Environment);
    Some(Bench { backend: Arc::new(backend), prefix, owner: Uuid::new_v4().to_string() })
}

async fn ends_by_itself(bench: Bench) {
    let backend = &bench.backend;
    let since = Utc::now();
    backend.fingerprint().await.unwrap();
    let mut events = backend.events(&bench.owner, since);
    let spec = bench.spec(QUITTER);
    let container = backend.create(&spec).await.unwrap();
    assert_eq!(backend.inspect(&container.id).await.unwrap(), Some(ContainerState::Created));
    backend.start(&container).await.unwrap();
    let status = backend.wait(&container.id).await.unwrap();
    assert_eq!(status, ExitStatus { code: Some(7) });
    let ended = ContainerState::Exited(status);
    assert_eq!(backend.inspect(&container.id).await.unwrap(), Some(ended));
    let listed = backend.list(&bench.owner).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].handle, listed[0].state), (&container, ended));
    assert_eq!(listed[0].labels[labels::KERNEL_ID], spec.labels[labels::KERNEL_ID]);

    let mut seen = Vec::new();
    while seen.len() < 2 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!(event.id, container.id);
        assert_eq!(event.kernel_id.as_ref(), Some(&spec.labels[labels::KERNEL_ID]));
        seen.push(event.what);
    }
    assert_eq!(seen, [ContainerChange::Started, ContainerChange::Died(status)]);

    let log = String::from_utf8(backend.logs(&container.id, 1000).await.unwrap()).unwrap();
    assert!(log.contains("to stdout\n") && log.contains("to stderr\n"), "{log}");
    assert_eq!(backend.logs(&container.id, 5).await.unwrap().len(), 5);
}

async fn is_stopped_within_its_grace(bench: Bench) {
    let backend = &bench.backend;
    let gentle = backend.create(&bench.spec(SLEEPER)).await.unwrap();
    backend.start(&gentle).await.unwrap();
    backend.stop(&gentle.id, Duration::from_secs(20)).await.unwrap();
    let code = backend.wait(&gentle.id).await.unwrap().code.unwrap();
    assert!([3, 143].contains(&code), "ended by SIGTERM, not SIGKILL: {code}");

    let stubborn = backend.create(&bench.spec(STUBBORN)).await.unwrap();
    backend.start(&stubborn).await.unwrap();
    assert_eq!(backend.inspect(&stubborn.id).await.unwrap(), Some(ContainerState::Running));
    backend.stop(&stubborn.id, Duration::from_millis(100)).await.unwrap();
    assert_eq!(backend.wait(&stubborn.id).await.unwrap(), ExitStatus { code: Some(137) });
    // Stopping what has stopped is no error.
    backend.stop(&stubborn.id, Duration::ZERO).await.unwrap();
}

async fn is_found_again_by_its_owner(bench: Bench) {
    let backend = &bench.backend;
    let mut spec = bench.spec(SLEEPER);
    let container = backend.create(&spec).await.unwrap();
    backend.start(&container).await.unwrap();
    spec.labels.insert(labels::OWNER.to_owned(), "somebody else".to_owned());
    let taken = backend.create(&spec).await.unwrap_err();
    assert!(matches!(taken, BackendError::NameTaken(_)), "{taken:?}");
    let listed = backend.list(&bench.owner).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, ContainerState::Running);
    assert!(backend.list("nobody").await.unwrap().is_empty());
    // By name as well as by id.
    assert_eq!(backend.inspect(&spec.name).await.unwrap(), Some(ContainerState::Running));
    backend.remove(&spec.name).await.unwrap();
    assert!(backend.list(&bench.owner).await.unwrap().is_empty());
}

async fn what_is_not_there_is_told_or_harmless(bench: Bench) {
    let backend = &bench.backend;
    assert_eq!(backend.inspect("no-such-container").await.unwrap(), None);
    backend.stop("no-such-container", Duration::ZERO).await.unwrap();
    backend.remove("no-such-container").await.unwrap();
    let error = backend.wait("no-such-container").await.unwrap_err();
    assert!(matches!(error, BackendError::NoSuchContainer(_)), "{error:?}");
    let error = backend.logs("no-such-container", 10).await.unwrap_err();
    assert!(matches!(error, BackendError::NoSuchContainer(_)), "{error:?}");

    assert_eq!(backend.image("contract/none:1").await.unwrap(), None);
    let error = backend.create(&bench.spec("contract/none:1")).await.unwrap_err();
    assert!(matches!(error, BackendError::ImageNotAvailable { .. }), "{error:?}");
    let pull = PullImage {
        // Nothing listens there.
        name: "127.0.0.1:1/contract/none:1".into(),
        architecture: std::env::consts::ARCH.into(),
        registry_url: None,
        credentials: None,
    };
    let error = backend.pull_image(&pull, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BackendError::ImageNotAvailable { .. }), "{error:?}");
}

async fn images_are_listed_with_their_ids(bench: Bench) {
    let name = format!("{}{SLEEPER}", bench.prefix);
    let image = bench.backend.image(&name).await.unwrap().unwrap();
    assert!(image.id.starts_with("sha256:"), "{image:?}");
    let images = bench.backend.images().await.unwrap();
    let listed = images.iter().find(|i| i.name.ends_with(&name)).unwrap();
    assert_eq!(listed.id, image.id);
}

async fn a_snapshot_is_exported_and_removed(bench: Bench) {
    let backend = &bench.backend;
    let container = backend.create(&bench.spec(SLEEPER)).await.unwrap();
    backend.start(&container).await.unwrap();
    let repository = format!("contract-{}", Uuid::new_v4().simple());
    let image = format!("{repository}:one");
    backend.snapshot(&container.id, &image).await.unwrap();
    let made = backend.snapshots(&repository, &bench.owner).await.unwrap();
    assert_eq!(made, std::slice::from_ref(&image));
    assert!(backend.snapshots(&repository, "nobody").await.unwrap().is_empty());
    let pieces: Vec<_> = backend.export_image(&image).collect().await;
    let size: usize = pieces.into_iter().map(|piece| piece.unwrap().len()).sum();
    assert!(size > 0);
    backend.remove_image(&image).await.unwrap();
    backend.remove_image(&image).await.unwrap();
    assert!(backend.snapshots(&repository, &bench.owner).await.unwrap().is_empty());
    let missing = backend.export_image(&image).collect::<Vec<_>>().await;
    assert!(missing.iter().any(Result::is_err));
    let error = backend.snapshot("no-such-container", &image).await.unwrap_err();
    assert!(matches!(error, BackendError::NoSuchContainer(_)), "{error:?}");
}

async fn the_host_is_described(bench: Bench) {
    let fingerprint = bench.backend.fingerprint().await.unwrap();
    assert!(!fingerprint.cores.is_empty());
    assert!(fingerprint.mem_bytes > 0);
    assert_eq!(fingerprint.architecture, std::env::consts::ARCH);
}

async fn it_is_counted_while_it_runs(bench: Bench) {
    let backend = &bench.backend;
    assert_eq!(backend.locate("no-such-container").await.unwrap(), None);
    let container = backend.create(&bench.spec(SLEEPER)).await.unwrap();
    assert_eq!(backend.locate(&container.id).await.unwrap(), None);
    backend.start(&container).await.unwrap();
    let place = backend.locate(&container.id).await.unwrap().unwrap();
    assert_eq!(place.addresses.len(), 1, "{place:?}");
    let meter = RefCell::new(backend.meter(&place).unwrap());
    let read = || meter.borrow_mut().read();
    let first = read().unwrap();
    eventually(|| read().unwrap().cpu_ms > first.cpu_ms).await;
    let later = read().unwrap();
    assert!(later.mem_bytes > 0 && later.mem_bytes < later.mem_limit, "{later:?}");

    backend.stop(&container.id, Duration::ZERO).await.unwrap();
    backend.wait(&container.id).await.unwrap();
    assert_eq!(read(), None);
    assert_eq!(backend.locate(&container.id).await.unwrap(), None);
    assert!(backend.meter(&place).is_err() || backend.meter(&place).unwrap().read().is_none());
    let node = backend.node_sample();
    assert!(node.mem_total > 0 && !node.cores.is_empty(), "{node:?}");
}

macro_rules! contract {
    ($($case:ident)+) => {
        mod dummy_backend { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::dummy()).await;
            }
        )+ }
        mod docker_backend { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(bench) = super::docker() {
                    super::$case(bench).await;
                }
            }
        )+ }
    };
}

contract! {
    ends_by_itself
    is_stopped_within_its_grace
    is_found_again_by_its_owner
    what_is_not_there_is_told_or_harmless
    images_are_listed_with_their_ids
    a_snapshot_is_exported_and_removed
    the_host_is_described
    it_is_counted_while_it_runs
}
