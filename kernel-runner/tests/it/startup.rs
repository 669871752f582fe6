//! Bootstrapping, batch sessions, and the end.

use backendai_rpc::runner::{FromRunner, ToRunner};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Setup, wait_until};

fn exit_code(greeting: FromRunner) -> Option<i32> {
    match greeting {
        FromRunner::Hello { startup_exit_code, .. } => startup_exit_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_bootstrap_script_ends_before_the_first_run() {
    let mut setup = Setup::new("app");
    let long = "#".repeat(200_000);
    setup.config.bootstrap_script = Some(format!(
        "echo preparing; while [ ! -e go ]; do sleep 0.02; done; touch prepared; exit 5\n{long}"
    ));
    let mut agent = setup.start_unheard();
    agent.accept_unready();
    agent.batch("batch", "", "", "ls");
    wait_until("it began", || agent.console().0.contains("preparing"));
    std::fs::write(agent.work().join("go"), "").unwrap();
    assert!(matches!(agent.receive(), FromRunner::Ready { .. }));
    let mut outcome = Default::default();
    agent.until_end("batch", &mut outcome);
    assert_eq!(outcome.stdout, "go\nprepared\n");
    let (_, log) = agent.console();
    assert!(log.contains("the bootstrap script failed: exit code 5"), "{log}");
}

#[test]
fn what_the_bootstrap_script_prints_is_in_the_task_log() {
    let mut setup = Setup::new("app");
    std::fs::create_dir(setup.work().join(".logs")).unwrap();
    setup.config.bootstrap_script = Some("echo prepared; echo aside >&2".into());
    let mut agent = setup.start();
    agent.run_batch("", "echo cleaned", "echo run");
    let log = agent.work().join(".logs/task/0f/1e/2d3c4b5a69788796a5b4c3d2e1f0.log");
    let text = std::fs::read_to_string(log).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines[..2].sort_unstable();
    assert_eq!(lines, ["aside", "prepared", "cleaned", "run"]);
}

#[test]
fn the_startup_command_runs_once_with_or_without_an_agent() {
    let mut setup = Setup::new("app");
    setup.config.startup_command =
        Some("echo $_BACKEND_BATCH_MODE >> ran; echo to the console; exit 9".into());
    let mut agent = setup.start_alone();
    wait_until("it ran", || agent.console().0.contains("to the console"));
    agent.listen();
    let mut greeting = agent.accept();
    if exit_code(greeting.clone()).is_none() {
        assert_eq!(agent.receive(), FromRunner::StartupFinished { exit_code: 9 });
    }
    for _ in 0..2 {
        agent.disconnect();
        agent.listen();
        greeting = agent.accept();
        assert_eq!(exit_code(greeting), Some(9));
    }
    assert_eq!(agent.run_batch("", "", "cat ran").stdout, "1\n");
    assert_eq!(agent.shutdown(5000), 9);
}

#[test]
fn a_running_startup_command_is_ended_by_the_shutdown() {
    let mut setup = Setup::new("app");
    setup.config.startup_command = Some("echo begun; exec sleep 1000".into());
    let agent = setup.start();
    wait_until("it runs", || agent.console().0.contains("begun"));
    assert_eq!(agent.shutdown(5000), 143);
}

#[test]
fn an_interrupt_reaches_the_startup_command() {
    let mut setup = Setup::new("app");
    setup.config.startup_command = Some("echo begun; exec sleep 1000".into());
    let mut agent = setup.start();
    wait_until("it runs", || agent.console().0.contains("begun"));
    agent.send(ToRunner::Interrupt);
    assert_eq!(agent.receive(), FromRunner::StartupFinished { exit_code: 130 });
    assert_eq!(agent.shutdown(5000), 130);
}

#[test]
fn programs_may_clean_up_and_stubborn_ones_are_killed() {
    let mut agent = Setup::new("app").start();
    agent.batch(
        "r",
        "",
        "",
        "trap 'echo cleaned > cleaned; exit 0' TERM; echo ready; while :; do sleep 0.02; done",
    );
    agent.until_text("r", "ready", &mut Default::default());
    let cleaned = agent.work().join("cleaned");
    agent.send(ToRunner::Shutdown { grace_ms: 60_000 });
    assert_eq!(agent.runner.wait().unwrap().code(), Some(0));
    assert!(cleaned.exists());

    let mut agent = Setup::new("app").start();
    agent.batch("r", "", "", "trap '' TERM; echo ready; while :; do sleep 0.02; done");
    agent.until_text("r", "ready", &mut Default::default());
    assert_eq!(agent.shutdown(50), 0);
}

#[test]
fn a_signal_ends_the_kernel() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Setup::python().start();
        agent.run("1");
        kill_process(Pid::from_child(&agent.runner), signal).unwrap();
        assert_eq!(agent.runner.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_broken_configuration_is_said() {
    let setup = Setup::new("app");
    std::fs::write(setup.folder.path().join("bad.json"), "{}").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_backendai-kernel-runner"))
        .env("BACKENDAI_RUNNER_CONFIG", setup.folder.path().join("bad.json"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("bad.json") && said.contains("kernel_id"), "{said}");
}
