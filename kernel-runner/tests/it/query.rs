//! Code in Python, without IPython.

use backendai_rpc::runner::{ConsoleItem, FromRunner, OUTPUT_WINDOW, RunRecord, ToRunner};

use crate::support::{Agent, Outcome, Setup, resident_kib, wait_until};

fn python() -> Agent {
    Setup::python().start()
}

#[test]
fn prints_and_shows_the_last_value() {
    let mut agent = python();
    assert_eq!(agent.run("print('hello world')").stdout, "hello world\n");
    let outcome = agent.run("x = 6\nprint('a')\nx * 7");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("a\n42", 0));
    assert_eq!(agent.run("None").stdout, "");
    assert_eq!(agent.run("_").stdout, "42");
    assert_eq!(agent.run("").exit_codes, [0]);
    assert_eq!(agent.shutdown(5000), 0);
}

#[test]
fn keeps_its_state_between_runs() {
    let mut agent = python();
    agent.run("from __future__ import annotations\nimport os, sys, pickle\ndef f(): return 'kept'");
    assert_eq!(agent.run("f(), __name__, sys.argv").stdout, "('kept', '__main__', [''])");
    assert_eq!(agent.run("class A: x: Unknown = 1\npickle.loads(pickle.dumps(A())).x").stdout, "1");
    let work = agent.work();
    let environ =
        agent.run("os.getcwd(), os.environ['HOME'], os.environ['FROM_CONFIG'], os.environ['LANG']");
    let work = work.to_str().unwrap();
    assert_eq!(environ.stdout, format!("('{work}', '{work}', 'yes', 'C.UTF-8')"));
    let hidden = agent.run("[n for n in os.environ if n.startswith('BACKENDAI_RUNNER_')]");
    assert_eq!(hidden.stdout, "[]");
}

#[test]
fn packages_installed_meanwhile_can_be_imported() {
    let mut agent = python();
    agent.run("x = 1");
    std::fs::write(agent.work().join("newmodule.py"), "value = 5").unwrap();
    assert_eq!(agent.run("import newmodule; newmodule.value").stdout, "5");
}

#[test]
fn errors_are_tracebacks_of_the_users_code_alone() {
    let mut agent = python();
    let outcome = agent.run("def f():\n    return 1 / 0\nprint('before')\nf()");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("before\n", 0));
    assert!(outcome.stderr.starts_with("Traceback (most recent call last):\n"), "{outcome:?}");
    assert!(outcome.stderr.contains("    return 1 / 0\n"), "{outcome:?}");
    assert!(outcome.stderr.ends_with("ZeroDivisionError: division by zero\n"), "{outcome:?}");
    assert!(!outcome.stderr.contains("kernel-runner"), "{outcome:?}");
    let outcome = agent.run("x = = 1");
    assert!(outcome.stderr.contains("SyntaxError"), "{outcome:?}");
    assert!(!outcome.stderr.contains("Traceback"), "{outcome:?}");
    let outcome =
        agent.run("try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e");
    assert!(outcome.stderr.contains("KeyError: 'a'") && outcome.stderr.contains("ValueError: b"));
    assert_eq!(agent.run("import sys; sys.exit(3)").exit_code(), 0);
    assert_eq!(agent.run("sys.exit('bye')").stderr, "bye\n");
    assert_eq!(agent.run("exit()").exit_code(), 0);
    assert_eq!(agent.run("'alive'").stdout, "'alive'");
}

#[test]
fn asks_for_input_and_passwords() {
    let mut agent = python();
    let mut outcome = Outcome::default();
    agent.query("r", "import getpass, sys\na = input('name: ')\nb = getpass.getpass()\nc = sys.stdin.readline()\nprint(a, b, repr(c))");
    let asked = agent.until_event("r", &mut outcome);
    assert_eq!(asked, RunRecord::WaitingInput { is_password: false });
    assert_eq!(outcome.stdout, "name: ");
    agent.input("other", "not for this run");
    agent.input("r", "한글");
    // The second answer finds nothing that waits, or the next question: never a crash.
    let asked = agent.until_event("r", &mut outcome);
    assert_eq!(asked, RunRecord::WaitingInput { is_password: true });
    agent.input("r", "secret");
    agent.until_event("r", &mut outcome);
    agent.input("r", "line");
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.stdout, "name: Password: 한글 secret 'line\\n'\n");
    assert_eq!(outcome.exit_code(), 0);
    let (_, log) = agent.console();
    assert!(log.contains("input for a run that does not wait: other"), "{log}");
}

#[test]
fn output_of_every_kind_keeps_its_order() {
    let mut agent = python();
    let outcome = agent.run(
        "import os, subprocess, sys\n\
         for i in range(3):\n    print('out', i)\n    print('err', i, file=sys.stderr)\n\
         subprocess.run('echo sub; echo suberr >&2', shell=True)\n\
         os.write(1, b'raw\\n')\nsys.stdout.buffer.write(b'bytes\\n')\nprint('no newline', end='')",
    );
    let stdout = |text: &str| ConsoleItem::Stdout(text.into());
    let stderr = |text: &str| ConsoleItem::Stderr(text.into());
    let expected = [stdout("out 0\n"), stderr("err 0\n"), stdout("out 1\n"), stderr("err 1\n")];
    assert_eq!(outcome.console()[..4], expected);
    assert_eq!(outcome.stdout, "out 0\nout 1\nout 2\nsub\nraw\nbytes\nno newline");
    assert!(outcome.stderr.ends_with("suberr\n"));
}

#[test]
fn a_line_is_seen_before_the_code_ends() {
    let mut agent = python();
    let mut outcome = Outcome::default();
    agent.query("r", "import time\nprint('.', end='')\ntime.sleep(1000)");
    agent.until_text("r", ".", &mut outcome);
    agent.send(ToRunner::Interrupt);
    agent.until_end("r", &mut outcome);
}

#[test]
fn characters_cut_in_two_are_joined() {
    let mut agent = python();
    let mut outcome = Outcome::default();
    agent.query(
        "r",
        "import os\nos.write(1, '한'.encode()[:2])\ninput()\nos.write(1, '한'.encode()[2:] + b'|\\xff|')\nos.write(1, b'\\xed')",
    );
    agent.until_event("r", &mut outcome);
    assert_eq!(outcome.stdout, "");
    agent.input("r", "");
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.stdout, "한|\u{fffd}|\u{fffd}1");
}

#[test]
fn interrupts_reach_loops_sleeps_questions_and_subprocesses() {
    let mut agent = python();
    agent.run("kept = 1");
    let cases = [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import subprocess; subprocess.run(['sleep', '1000'])",
        "input()",
    ];
    for code in cases {
        let mut outcome = Outcome::default();
        agent.query("r", &format!("print('begun')\n{code}"));
        agent.until_text("r", "begun", &mut outcome);
        if code == "input()" {
            agent.until_event("r", &mut outcome);
        }
        agent.send(ToRunner::Interrupt);
        agent.until_end("r", &mut outcome);
        assert!(outcome.stderr.ends_with("KeyboardInterrupt\n"), "{code}: {outcome:?}");
        assert!(!outcome.stderr.contains("kernel-runner"), "{code}: {outcome:?}");
        assert_eq!(outcome.exit_code(), 0, "{code}");
    }
    // Nothing runs: nothing to interrupt.
    agent.send(ToRunner::Interrupt);
    assert_eq!(agent.run("kept").stdout, "1");
}

#[test]
fn an_interrupt_right_behind_the_code_is_not_lost() {
    let mut agent = python();
    for _ in 0..20 {
        let mut outcome = Outcome::default();
        agent.query("r", "while True: pass");
        agent.send(ToRunner::Interrupt);
        agent.until_end("r", &mut outcome);
        assert!(outcome.stderr.contains("KeyboardInterrupt"), "{outcome:?}");
    }
    assert_eq!(agent.run("1").stdout, "1");
}

#[test]
fn an_interpreter_that_dies_ends_the_run_and_is_replaced() {
    let mut agent = python();
    let outcome = agent.run("import os\nx = 1\nprint('last words', flush=True)\nos._exit(3)");
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("last words\n", 3));
    assert!(outcome.stderr.contains("the interpreter ended: exit code 3"), "{outcome:?}");
    let outcome = agent.run("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)");
    assert_eq!(outcome.exit_code(), 139);
    assert!(outcome.stderr.contains("its state is lost"), "{outcome:?}");
    assert_eq!(agent.run("import os; os._exit(0)").exit_code(), 1);
    assert!(agent.run("x").stderr.contains("NameError"));
}

#[test]
fn slow_acknowledgement_stops_the_program_and_bounds_memory() {
    const SIZE: usize = 10 << 20;
    let mut agent = python();
    agent.run("1");
    let runner = agent.runner.id();
    let before = resident_kib(runner);
    agent.query(
        "r",
        "import sys\nfor i in range(10 * 1024):\n    sys.stdout.write('x' * 1023 + '\\n')",
    );
    let (mut unacknowledged, mut got, mut last_seq) = (0, 0, 0);
    let mut largest = 0;
    loop {
        let FromRunner::Record { seq, record, .. } = agent.receive() else { panic!("no record") };
        if last_seq != 0 {
            assert_eq!(seq, last_seq + 1);
        }
        last_seq = seq;
        unacknowledged += record.size();
        assert!(unacknowledged <= OUTPUT_WINDOW, "{unacknowledged}");
        match record {
            RunRecord::Finished { .. } => break,
            RunRecord::Console(ConsoleItem::Stdout(text)) => got += text.len(),
            other => panic!("{other:?}"),
        }
        // Acknowledges only when the window is nearly full.
        if unacknowledged > OUTPUT_WINDOW / 2 {
            largest = largest.max(resident_kib(runner));
            agent.send(ToRunner::Ack { seq });
            unacknowledged = 0;
        }
    }
    assert_eq!(got, SIZE);
    assert!(largest < before + 8 * 1024, "from {before} to {largest} KiB");
}

#[test]
fn completions_come_from_the_living_state() {
    let mut agent = python();
    agent.run("import os\nsome_long_name = 1");
    assert_eq!(agent.complete("some_lo", None), ["some_long_name"]);
    assert!(agent.complete("x = 1\nos.path.joi", None).contains(&"os.path.join".to_owned()));
    assert_eq!(agent.complete("some_lo\nother", Some((0, 7))), ["some_long_name"]);
    assert!(agent.complete("no_such.thing", None).is_empty());
    // A busy interpreter cannot answer; the client does not wait for it.
    let mut outcome = Outcome::default();
    agent.query("r", "print('begun')\nwhile True: pass");
    agent.until_text("r", "begun", &mut outcome);
    assert!(agent.complete("some_lo", None).is_empty());
    agent.send(ToRunner::Interrupt);
    agent.until_end("r", &mut outcome);
}

#[test]
fn runs_follow_one_another_and_can_be_cancelled() {
    let mut agent = python();
    let mut outcome = Outcome::default();
    agent.query("1", "print('begun')\nwhile True: pass");
    agent.query("2", "print('never')");
    agent.query("3", "print('third')");
    agent.query("3", "print('sent twice')");
    agent.until_text("1", "begun", &mut outcome);
    agent.send(ToRunner::Cancel { run_id: "2".into() });
    agent.send(ToRunner::Cancel { run_id: "1".into() });
    let outcome = agent.until_end_past_cancelled("3");
    assert_eq!(outcome.stdout, "third\n");
    assert_eq!(agent.run("'alive'").stdout, "'alive'");
}

#[test]
fn a_cancelled_run_that_does_not_listen_is_killed() {
    let mut agent = python();
    let mut outcome = Outcome::default();
    agent.query("1", "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun')\nwhile True: pass");
    agent.until_text("1", "begun", &mut outcome);
    agent.send(ToRunner::Cancel { run_id: "1".into() });
    agent.query("2", "2");
    let outcome = agent.until_end_past_cancelled("2");
    assert_eq!(outcome.stdout, "2");
    assert!(outcome.stderr.contains("its state is lost"), "{outcome:?}");
}

#[test]
fn threads_and_forks_do_not_disturb() {
    let mut agent = python();
    let outcome = agent.run(
        "import os, sys, threading, multiprocessing\n\
         def work(n):\n    for i in range(200):\n        print(n, file=sys.stderr if i % 2 else sys.stdout)\n\
         ts = [threading.Thread(target=work, args=(n,)) for n in range(4)]\n\
         [t.start() for t in ts]; [t.join() for t in ts]\n\
         context = multiprocessing.get_context('fork')\n\
         ps = [context.Process(target=work, args=('p',)) for _ in range(3)]\n\
         [p.start() for p in ps]; [p.join() for p in ps]\n\
         print('end')",
    );
    assert_eq!(outcome.stdout.matches('p').count(), 300, "{outcome:?}");
    assert_eq!(outcome.stderr.matches('\n').count(), 4 * 100 + 300, "{}", outcome.stderr);
    assert!(outcome.stdout.ends_with("end\n"));
}

#[test]
fn what_threads_print_between_runs_goes_to_the_console() {
    let mut agent = python();
    agent.run(
        "import threading\ngo = threading.Event()\ndef late():\n    go.wait()\n    print('late words')\n\
         threading.Thread(target=late).start()",
    );
    agent.run("threading.Timer(0.05, go.set).start()");
    wait_until("the thread printed", || agent.console().0.contains("late words"));
    assert_eq!(agent.run("1").stdout, "1");
}

#[test]
fn code_that_disturbs_the_driver_ends_with_it() {
    let mut agent = python();
    let sockets = "import os, sys\nlink = sys.stdout.link\n\
                   sockets = [link.commands.fd, link.output.fd]\n";
    for disturb in ["os.write(s, b'\\xff' * 8)", "os.close(s)"] {
        let outcome =
            agent.run(&format!("{sockets}for s in sockets: {disturb}\nprint(len(sockets))"));
        assert_ne!(outcome.exit_code(), 0, "{outcome:?}");
    }
    assert_eq!(agent.run("1").stdout, "1");
}

#[test]
fn what_is_too_large_is_said() {
    let mut agent = python();
    // The driver itself shows no media without IPython, so its own function is called.
    let outcome =
        agent.run("import sys\nsys.stdout.link.show('html', text='x' * (15 << 20))\nprint('on')");
    assert!(outcome.stderr.contains("too large to show"), "{}", outcome.stderr.len());
    assert_eq!(outcome.stdout, "on\n");
    let outcome = agent.run("sys.stdout.link.show('html', text='x' * (14 << 20))");
    assert_eq!(outcome.items.len(), 1);
}

#[test]
fn a_missing_interpreter_is_said() {
    let mut setup = Setup::new("python");
    let fake = setup.work().join("fake-python");
    std::fs::write(&fake, "#!/bin/sh\necho broken >&2\nexit 4\n").unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    setup.config.runtime_path = Some(fake.to_str().unwrap().into());
    let mut agent = setup.start();
    for _ in 0..2 {
        let outcome = agent.run("1");
        assert_eq!(outcome.exit_code(), 127);
        assert!(!outcome.stderr.is_empty());
    }
    let mut agent = Setup::new("app").start();
    let outcome = agent.run("1");
    assert_eq!(outcome.exit_code(), 127);
    assert!(outcome.stderr.contains("takes no code"), "{outcome:?}");
}

#[test]
fn other_languages_run_from_a_file() {
    let mut setup = Setup::new("lua");
    setup.config.runtime_path = Some("/bin/cat".into());
    let mut agent = setup.start();
    assert_eq!(agent.run("print('x')").stdout, "print('x')");
    assert_eq!(std::fs::read_dir(agent.work()).unwrap().count(), 0);
}
