//! Commands of the shell.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backendai_rpc::runner::{RunRecord, ToRunner};

use crate::support::{Outcome, Setup, wait_until};

#[test]
fn three_steps_always_end() {
    let mut agent = Setup::new("app").start();
    let outcome = agent.run_batch("", "", "");
    let expected = [
        RunRecord::CleanFinished { exit_code: 0 },
        RunRecord::BuildFinished { exit_code: 0 },
        RunRecord::Finished { exit_code: 0 },
    ];
    assert_eq!(outcome.records, expected);
    let outcome = agent.run_batch(
        "echo clean; exit 4",
        "echo build >&2; echo ${_BACKEND_BATCH_MODE:-none}",
        "echo $_BACKEND_BATCH_MODE $FROM_CONFIG; pwd; exit 7",
    );
    let work = agent.work();
    assert_eq!(outcome.stdout, format!("clean\nnone\n1 yes\n{}\n", work.display()));
    assert_eq!(outcome.stderr, "build\n");
    assert_eq!(outcome.exit_codes, [4, 0, 7]);
    let outcome = agent.run_batch("", "exit 2", "echo never");
    assert_eq!((outcome.exit_codes, outcome.stdout.as_str()), (vec![0, 2, 127], ""));
    let outcome = agent.run_batch("", "", "kill -9 $$");
    assert_eq!(outcome.exit_codes, [0, 0, 137]);
    let outcome = agent.run_batch("", "", "no-such-command");
    assert_eq!(outcome.exit_codes, [0, 0, 127]);
    let (stdout, stderr) = agent.console();
    assert!(stdout.contains("clean\n") && stderr.contains("build\n"), "copied to the console");
}

#[test]
fn the_star_is_the_runtimes_default() {
    let mut agent = Setup::python().start();
    let outcome = agent.run_batch("*", "*", "*");
    assert_eq!(outcome.exit_codes, [0, 0, 127]);
    assert!(outcome.stderr.contains("main.py"), "{outcome:?}");
    std::fs::write(agent.work().join("main.py"), "print('main')").unwrap();
    let outcome = agent.run_batch("*", "*", "*");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_codes), ("main\n", vec![0, 0, 0]));
}

#[test]
fn c_is_compiled_and_run() {
    let mut agent = Setup::new("c").start();
    let code = "#include <stdio.h>\nint main() { puts(\"from c\"); return 3; }\n";
    std::fs::write(agent.work().join("main.c"), code).unwrap();
    let outcome = agent.run_batch("*", "*", "*");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_codes.clone()), ("from c\n", vec![0, 0, 3]));
    let outcome = agent.run(code);
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("from c\n", 3));
}

/// Plays a program.
fn write_script(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn what_cargo_made_is_run_debug_before_release() {
    let mut agent = Setup::new("rust").start();
    let work = agent.work();
    assert_eq!(agent.run_batch("", "", "*").exit_codes, [0, 0, 127]);
    write_script(&work.join("target/release/app"), "echo release; exit 4");
    let outcome = agent.run_batch("", "", "*");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("release\n", 4), "{outcome:?}");
    std::fs::create_dir_all(work.join("target/debug/deps")).unwrap();
    std::fs::write(work.join("target/debug/app.d"), "no program").unwrap();
    write_script(&work.join("target/debug/its app"), "echo debug; exit 5");
    let outcome = agent.run_batch("", "", "*");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("debug\n", 5), "{outcome:?}");
}

#[test]
fn a_java_file_is_called_like_its_public_class() {
    let mut setup = Setup::new("java");
    let bin = setup.folder.path().join("jdk/bin");
    write_script(&bin.join("javac"), "cp \"$3\" \"$2/$(basename \"$3\" .java).class\"");
    write_script(&bin.join("java"), "ls \"${2%%:*}\"; echo \"runs $3\"; exit 6");
    // The folder of an installation will do.
    setup.config.runtime_path = Some(bin.parent().unwrap().to_str().unwrap().into());
    setup.config.environ.insert("PATH".into(), format!("{}:/usr/bin:/bin", bin.display()));
    let mut agent = setup.start();
    for (code, class) in [
        ("import x;\npublic final class Hello2 {\n}\npublic class Other {}", "Hello2"),
        ("class Quiet {}", "Main"),
    ] {
        let outcome = agent.run(code);
        let expected = format!("{class}.class\n{class}.java\nruns {class}\n");
        assert_eq!((outcome.stdout, outcome.exit_codes), (expected, vec![6]));
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn an_interrupt_ends_the_whole_group_and_the_run() {
    let mut agent = Setup::new("app").start();
    let mut outcome = Outcome::default();
    agent.batch("r", "", "(echo begun; exec sleep 1000); echo no", "echo never");
    agent.until_event("r", &mut outcome);
    agent.until_text("r", "\n", &mut outcome);
    agent.send(ToRunner::Interrupt);
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.exit_codes, [0, 130, 127]);
    assert!(!outcome.stdout.contains("no"), "{outcome:?}");
}

#[test]
fn a_program_left_in_the_background_lives_on() {
    let mut agent = Setup::new("app").start();
    let outcome = agent.run_batch(
        "",
        "",
        "(while [ ! -e go ]; do sleep 0.02; done; echo later; echo done > done) & echo started",
    );
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("started\n", 0));
    std::fs::write(agent.work().join("go"), "").unwrap();
    let done = agent.work().join("done");
    wait_until("it went on", || done.exists());
    wait_until("its words are on the console", || agent.console().0.contains("later"));
}

#[test]
fn dev_stdout_can_be_opened_and_standard_input_is_empty() {
    let mut agent = Setup::new("app").start();
    let outcome = agent.run_batch("", "", "cat; echo named > /dev/stdout; ls -l /proc/self/fd");
    // Descriptors of whoever runs the tests may be there; the runner's sockets, pipes of
    // other programs and event queues are not.
    assert!(outcome.stdout.starts_with("named\n"), "{outcome:?}");
    let leaked = |kind: &str| outcome.stdout.contains(kind);
    assert!(!leaked("socket:") && !leaked("anon_inode:"), "{outcome:?}");
}

#[test]
fn output_is_kept_in_the_users_log_folder() {
    let setup = Setup::new("app");
    std::fs::create_dir(setup.work().join(".logs")).unwrap();
    let mut agent = setup.start();
    agent.run_batch("", "echo one", "echo two >&2");
    let log = agent.work().join(".logs/task/0f/1e/2d3c4b5a69788796a5b4c3d2e1f0.log");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "one\ntwo\n");
}

#[test]
fn runs_wait_for_one_another() {
    let mut agent = Setup::new("app").start();
    for run in ["1", "2", "3"] {
        agent.batch(run, "", "", &format!("echo {run} >> order; cat order"));
    }
    for (run, expected) in [("1", "1\n"), ("2", "1\n2\n"), ("3", "1\n2\n3\n")] {
        let mut outcome = Outcome::default();
        agent.until_end(run, &mut outcome);
        assert_eq!(outcome.stdout, expected);
    }
}

#[test]
fn orphans_are_reaped() {
    let mut agent = Setup::new("app").start();
    let outcome = agent.run_batch("", "", "sh -c 'sleep 0.05 & echo $!'");
    let orphan = outcome.stdout.trim().to_owned();
    let stat = format!("/proc/{orphan}/stat");
    wait_until("the orphan is gone", || !Path::new(&stat).exists());
}
