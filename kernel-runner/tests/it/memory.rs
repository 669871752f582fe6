//! Programs that were killed for want of memory, as the kernel counts them.

use backendai_rpc::runner::FromRunner;

use crate::support::{Setup, wait_until};

fn setup(runtime_type: &str) -> Setup {
    let setup = match runtime_type {
        "python" => Setup::python(),
        other => Setup::new(other),
    };
    write(&setup, 0);
    std::fs::write(setup.folder.path().join("cgroup/memory.max"), "268435456\n").unwrap();
    setup
}

fn write(setup: &Setup, kills: u32) {
    let events = format!("low 0\nmax 5\noom 1\noom_kill {kills}\n");
    std::fs::write(setup.folder.path().join("cgroup/memory.events"), events).unwrap();
}

const COMPLAINT: &str =
    "kernel-runner: the session's memory of 256 MiB was used up: 1 process killed\n";

#[test]
fn the_run_says_that_the_memory_was_used_up() {
    let mut agent = setup("app").start();
    let killed = "echo oom_kill 1 > ../cgroup/memory.events; echo dying; kill -9 $$";
    let outcome = agent.run_batch("", "", killed);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("dying\n", COMPLAINT));
    assert_eq!(outcome.exit_code(), 137);
    // The next one is not to blame, even if something else kills it.
    let outcome = agent.run_batch("", "", "kill -9 $$");
    assert_eq!((outcome.stderr.as_str(), outcome.exit_code()), ("", 137));
}

#[test]
fn an_interpreter_that_was_killed_says_so() {
    let mut agent = setup("python").start();
    let outcome = agent.run(
        "import os, signal\nopen('../cgroup/memory.events', 'w').write('oom_kill 1')\n\
         os.kill(os.getpid(), signal.SIGKILL)",
    );
    let expected = format!("kernel-runner: the interpreter ended: signal 9\n{COMPLAINT}");
    assert_eq!((outcome.stderr.as_str(), outcome.exit_code()), (expected.as_str(), 137));
    let outcome = agent.run("'alive'");
    assert_eq!(outcome.stdout, "'alive'");
}

#[test]
fn a_batch_session_says_it_on_the_console() {
    let mut setup = setup("app");
    setup.config.startup_command =
        Some("echo oom_kill 1 > ../cgroup/memory.events; kill -9 $$".into());
    let mut agent = setup.start();
    assert_eq!(agent.receive(), FromRunner::StartupFinished { exit_code: 137 });
    wait_until("it is on the console", || agent.console().1.contains("256 MiB was used up"));
}
