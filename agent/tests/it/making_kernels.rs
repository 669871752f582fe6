//! Making and removing kernels, as a manager asks for it.

use std::time::Duration;

use backendai_agent::backend::dummy::{DummySettings, Script};
use backendai_rpc::agent_api::{ExecuteMode, RunStatus};
use backendai_rpc::call::{CallContext, ErrorKind};
use backendai_rpc::manager_api::KernelChange;
use backendai_types::{KernelId, SessionId};

use crate::support::dummy::{IMAGE, assert_clean, kind, stdout, world, world_of};
use crate::support::world::{EPOCH, eventually, kernel, session};

#[tokio::test]
async fn a_kernel_is_made_run_and_removed() {
    let (world, backend) = world();
    let agent = world.start().await;
    let mut spec = kernel(IMAGE);
    spec.image.labels.insert("ai.backend.service-ports".into(), "jupyter:http:8080".into());
    spec.preopen_ports = vec![9000];
    let id = spec.kernel_id;
    let session = agent.create(spec).await;
    let info = world.manager.started(id).await;
    let names: Vec<_> = info.service_ports.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["sshd", "ttyd", "jupyter", "9000"]);
    assert_eq!(info.allocations["cpu"]["cpu"], [("0".into(), "1".into())].into());
    assert_eq!(info.slots.mem_bytes(), 256 << 20);
    let made = backend.spec(&info.container_id).unwrap();
    assert_eq!((made.limits.mem_bytes, made.limits.shm_bytes), (192 << 20, 64 << 20));
    assert_eq!(made.name, format!("kernel.python.{id}"));

    let reply = agent.query(id, "print(1)").await;
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(0)));
    assert_eq!(reply.console, [stdout("print(1)\n")]);
    assert_eq!(reply.run_id.len(), 32);

    agent.destroy(id, session).await;
    assert_eq!(world.manager.terminated(id).await, ("user-requested".into(), Some(0)));
    assert_clean(&world, &backend, &agent, id).await;
    let events = world.manager.events_of(id);
    assert!(matches!(
        events[..],
        [KernelChange::Creating, KernelChange::Started(_), KernelChange::Terminated { .. }]
    ));
}

#[tokio::test]
async fn creating_twice_makes_one_container_and_tells_again() {
    let (world, backend) = world();
    let agent = world.start().await;
    let (session, spec) = (session(), kernel(IMAGE));
    let id = spec.kernel_id;
    agent.create_in(session.clone(), vec![spec.clone()]).await.unwrap();
    agent.create_in(session.clone(), vec![spec.clone()]).await.unwrap();
    world.manager.started(id).await;
    agent.create_in(session, vec![spec]).await.unwrap();
    let told_twice = || {
        let events = world.manager.events_of(id);
        events.iter().filter(|e| matches!(e, KernelChange::Started(_))).count() == 2
    };
    eventually(told_twice).await;
    assert_eq!(backend.created_count(), 1);
}

#[tokio::test]
async fn destroying_what_is_not_here_is_told_as_done() {
    let (world, _) = world();
    let agent = world.start().await;
    let id = KernelId::random();
    agent.destroy(id, SessionId::random()).await;
    assert_eq!(world.manager.terminated(id).await, ("already-terminated".into(), None));
}

#[tokio::test]
async fn replaced_managers_are_refused_after_a_restart_too() {
    let (world, _) = world();
    let agent = world.start().await;
    agent.destroy(KernelId::random(), SessionId::random()).await;
    agent.kill().await;
    let mut agent = world.start().await;
    let older = CallContext { epoch: EPOCH - 1, ..CallContext::default() };
    agent.client = agent.client.with_context(older);
    let error = agent.create_in(session(), vec![kernel(IMAGE)]).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::StaleEpoch);
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing_behind() {
    let error = || Some("by request".to_owned());
    let quick = || Some(Duration::from_millis(1));
    let scripts = [
        ("pull", Script { pull_error: error(), ..Script::default() }),
        ("create", Script { create_error: error(), ..Script::default() }),
        ("start", Script { start_error: error(), ..Script::default() }),
        (
            "ends early",
            Script {
                run_for: quick(),
                exit_code: 9,
                mute: true,
                log: b"no such file".to_vec(),
                ..Script::default()
            },
        ),
        ("mute", Script { mute: true, ..Script::default() }),
    ];
    for (step, script) in scripts {
        let settings = DummySettings { any_image: false, ..DummySettings::default() };
        let (mut world, backend) = world_of(settings);
        world.config.container.ready_timeout = Duration::from_millis(100);
        backend.script_image(IMAGE, script);
        backend.add_pullable_image(IMAGE, "sha256:new");
        let agent = world.start().await;
        let mut spec = kernel(IMAGE);
        spec.image.registry_url = Some("https://registry.example.com".into());
        spec.image.config_digest = "sha256:new".into();
        let id = spec.kernel_id;
        agent.create(spec).await;
        let failure = world.manager.failed(id).await;
        let (kind, part) = match step {
            "pull" => (ErrorKind::ImageNotAvailable, "by request"),
            "create" | "start" => (ErrorKind::Internal, "by request"),
            "ends early" => (ErrorKind::Internal, "exit code 9"),
            _ => (ErrorKind::Internal, "did not answer"),
        };
        assert_eq!(failure.kind, kind, "{step}: {failure}");
        assert!(failure.message.contains(part), "{step}: {failure}");
        if step == "ends early" {
            assert!(failure.message.contains("no such file"), "{failure}");
        }
        assert_clean(&world, &backend, &agent, id).await;
    }
}

#[tokio::test]
async fn a_kernel_that_does_not_fit_fails_and_leaves_nothing_behind() {
    let (world, backend) = world();
    let agent = world.start().await;
    let mut spec = kernel(IMAGE);
    spec.slots = serde_json::from_value(serde_json::json!({"cpu": 5, "mem": "1g"})).unwrap();
    let id = spec.kernel_id;
    agent.create(spec).await;
    assert_eq!(world.manager.failed(id).await.kind, ErrorKind::InsufficientResource);
    assert_clean(&world, &backend, &agent, id).await;

    // Folders that cannot be made: a file lies in the way.
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    std::fs::write(world.dir.path().join("scratch").join(id.to_string()), "").unwrap();
    agent.create(spec).await;
    let failure = world.manager.failed(id).await;
    assert!(failure.message.contains("folders"), "{failure}");
}

#[tokio::test]
async fn images_are_pulled_as_the_policy_says() {
    let settings = DummySettings { any_image: false, ..DummySettings::default() };
    let (world, backend) = world_of(settings);
    backend.add_image(IMAGE, "sha256:old");
    backend.add_pullable_image(IMAGE, "sha256:new");
    let agent = world.start().await;
    let mut spec = kernel(IMAGE);
    spec.image.registry_url = Some("https://registry.example.com".into());
    spec.image.config_digest = "sha256:new".into();
    for expect_pull in [true, false] {
        let mut spec = spec.clone();
        spec.kernel_id = KernelId::random();
        let id = spec.kernel_id;
        agent.create(spec).await;
        world.manager.started(id).await;
        let events = world.manager.events_of(id);
        let pulled = events.contains(&KernelChange::Pulling { image: IMAGE.into() });
        assert_eq!(pulled, expect_pull);
    }
    let absent = kernel("registry.example.com/none:1");
    let id = absent.kernel_id;
    agent.create(absent).await;
    assert_eq!(world.manager.failed(id).await.kind, ErrorKind::ImageNotAvailable);

    let mut foreign = kernel(IMAGE);
    foreign.image.architecture = "s390x".into();
    let id = foreign.kernel_id;
    agent.create(foreign).await;
    assert!(world.manager.failed(id).await.message.contains("s390x"));
}

#[tokio::test]
async fn a_kernel_can_be_removed_while_it_is_made() {
    let (world, backend) = world();
    backend.script_image(IMAGE, Script { mute: true, ..Script::default() });
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let session = agent.create(spec).await;
    world.manager.event(id, |c| matches!(c, KernelChange::Creating).then_some(())).await;
    agent.destroy(id, session).await;
    assert_eq!(world.manager.terminated(id).await.0, "user-requested");
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn a_kernel_that_will_not_end_is_killed() {
    let (mut world, backend) = world();
    world.config.container.stop_grace = Duration::from_millis(10);
    let log = b"last words".to_vec();
    backend.script_image(IMAGE, Script { stubborn: true, log, ..Script::default() });
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let session = agent.create(spec).await;
    world.manager.started(id).await;
    agent.destroy(id, session).await;
    assert_eq!(world.manager.terminated(id).await, ("user-requested".into(), Some(137)));
    assert_eq!(world.manager.log(id).await, b"last words");
    assert_clean(&world, &backend, &agent, id).await;
}

#[tokio::test]
async fn a_kernel_that_ends_by_itself_is_noticed() {
    let (world, backend) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    let info = world.manager.started(id).await;
    let mode = ExecuteMode::Query { code: "wait".into() };
    let waiting = agent.execute(id, None, mode, 20_000);
    let (waited, ()) = tokio::join!(waiting, async {
        backend.kill(&info.container_id).await;
    });
    assert_eq!(kind(waited.unwrap_err()), ErrorKind::KernelNotFound);
    assert_eq!(world.manager.terminated(id).await, ("self-terminated".into(), Some(137)));
    assert_clean(&world, &backend, &agent, id).await;
}
