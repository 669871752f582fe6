//! Running code in kernels, step by step.

use backendai_rpc::agent_api::{ExecuteMode, KernelCall, RunStatus};
use backendai_rpc::call::ErrorKind;
use backendai_rpc::manager_api::KernelChange;
use backendai_rpc::runner::ConsoleItem;
use backendai_types::SessionType;

use crate::support::dummy::{IMAGE, complete, kind, stdout, world};
use crate::support::world::{kernel, session};

#[tokio::test]
async fn runs_stop_for_input_interrupts_and_phases() {
    let (world, _) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    let error = agent.execute(id, None, ExecuteMode::Continue, 10).await.unwrap_err();
    assert_eq!(kind(error), ErrorKind::KernelNotFound);
    agent.create(spec).await;
    world.manager.started(id).await;

    let reply = agent.query(id, "input").await;
    assert_eq!((reply.status, reply.is_password), (RunStatus::WaitingInput, Some(false)));
    let input = ExecuteMode::Input { text: "me".into() };
    let reply = agent.execute(id, Some(&reply.run_id), input, 10_000).await.unwrap();
    assert_eq!(reply.console, [stdout("me\n")]);
    assert_eq!(reply.status, RunStatus::Finished);

    let wait = ExecuteMode::Query { code: "wait".into() };
    let reply = agent.execute(id, Some("mine"), wait.clone(), 1).await.unwrap();
    assert_eq!((reply.run_id.as_str(), reply.status), ("mine", RunStatus::Continued));
    let again = agent.execute(id, Some("mine"), wait, 1).await.unwrap_err();
    assert_eq!(kind(again), ErrorKind::InvalidInput);
    agent.client.interrupt(&KernelCall { kernel_id: id }).await.unwrap();
    let reply = agent.execute(id, Some("mine"), ExecuteMode::Continue, 10_000).await.unwrap();
    assert_eq!((reply.status, reply.exit_code), (RunStatus::Finished, Some(130)));
    let over = agent.execute(id, Some("mine"), ExecuteMode::Continue, 1).await.unwrap_err();
    assert_eq!(kind(over), ErrorKind::InvalidInput);

    let batch = ExecuteMode::Batch { clean: None, build: None, exec: Some("go".into()) };
    let mut steps = vec![agent.execute(id, Some("b"), batch, 10_000).await.unwrap()];
    for _ in 0..2 {
        steps.push(agent.execute(id, Some("b"), ExecuteMode::Continue, 10_000).await.unwrap());
    }
    let statuses: Vec<_> = steps.iter().map(|step| step.status).collect();
    assert_eq!(statuses, [RunStatus::CleanFinished, RunStatus::BuildFinished, RunStatus::Finished]);
    assert_eq!(steps[2].console, [stdout("go\n")]);

    assert_eq!(agent.client.complete(&complete(id)).await.unwrap(), ["im_"]);
}

#[tokio::test]
async fn a_question_outlives_the_agent() {
    let (world, _) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    world.manager.started(id).await;
    let reply = agent.query(id, "input").await;
    assert_eq!(reply.status, RunStatus::WaitingInput);
    // The runner has heard that the question was taken, and the reply is lost.
    agent.client.complete(&complete(id)).await.unwrap();
    agent.kill().await;
    let agent = world.start().await;
    let run = Some(reply.run_id.as_str());
    let reply = agent.execute(id, run, ExecuteMode::Continue, 10_000).await.unwrap();
    assert_eq!((reply.status, reply.is_password), (RunStatus::WaitingInput, Some(false)));
    let input = ExecuteMode::Input { text: "me".into() };
    let reply = agent.execute(id, run, input, 10_000).await.unwrap();
    assert_eq!((reply.status, reply.console), (RunStatus::Finished, vec![stdout("me\n")]));
}

#[tokio::test]
async fn large_output_comes_in_pieces_and_whole() {
    let (world, _) = world();
    let agent = world.start().await;
    let spec = kernel(IMAGE);
    let id = spec.kernel_id;
    agent.create(spec).await;
    world.manager.started(id).await;
    let bytes = 5 << 20;
    let mode = ExecuteMode::Query { code: format!("flood {bytes}") };
    let mut reply = agent.execute(id, Some("big"), mode, 10_000).await.unwrap();
    let mut seen = 0;
    loop {
        let size: usize = reply.console.iter().map(ConsoleItem::size).sum();
        assert!(size <= 2 << 20, "{size}");
        seen += size;
        if reply.status == RunStatus::Finished {
            break;
        }
        reply = agent.execute(id, Some("big"), ExecuteMode::Continue, 10_000).await.unwrap();
    }
    assert_eq!(seen, bytes);
}

#[tokio::test]
async fn a_batch_command_is_told_once_it_ended() {
    let (world, _) = world();
    let agent = world.start().await;
    let mut spec = kernel(IMAGE);
    spec.startup_command = Some("exit 4".into());
    let id = spec.kernel_id;
    let mut session = session();
    session.session_type = SessionType::Batch;
    agent.create_in(session, vec![spec]).await.unwrap();
    let code = |change: &KernelChange| match change {
        KernelChange::BatchFinished { exit_code } => Some(*exit_code),
        _ => None,
    };
    assert_eq!(world.manager.event(id, code).await, 4);
    let events = world.manager.events_of(id);
    assert!(matches!(
        events[..],
        [_, KernelChange::Started(_), KernelChange::BatchFinished { .. }]
    ));
}
