//! Programs that ask the user.

use backendai_rpc::runner::{FromRunner, RunRecord, ToRunner};

use crate::support::{Agent, Outcome, Setup, wait_until};

/// Says what it was told, or what it was not.
const ASKING: &str = "\
import getpass
name = input('name: ')
secret = getpass.getpass('secret: ')
print(name, secret, repr(input()))
";

/// Answers the questions of the run in order and returns whether they were for passwords.
fn answer(agent: &mut Agent, run: &str, answers: &[&str], outcome: &mut Outcome) -> Vec<bool> {
    let mut passwords = Vec::new();
    loop {
        match agent.until_event(run, outcome) {
            RunRecord::WaitingInput { is_password } => {
                agent.input(run, answers[passwords.len()]);
                passwords.push(is_password);
            }
            RunRecord::Finished { .. } => return passwords,
            _ => {}
        }
    }
}

#[test]
fn a_script_of_a_batch_run_asks() {
    let mut agent = Setup::python().start();
    std::fs::write(agent.work().join("main.py"), ASKING).unwrap();
    let mut outcome = Outcome::default();
    agent.batch("r", "", "", "*");
    let passwords = answer(&mut agent, "r", &["한글", "s3cret", ""], &mut outcome);
    assert_eq!(passwords, [false, true, false]);
    assert_eq!(outcome.stdout, "name: secret: 한글 s3cret ''\n");
    assert_eq!((outcome.exit_code(), outcome.stderr.as_str()), (0, ""));
    let question = RunRecord::WaitingInput { is_password: false };
    let prompt_first = outcome.records.iter().position(|record| *record == question);
    assert!(prompt_first > Some(2), "the prompt comes first: {:?}", outcome.records);
}

#[test]
fn a_program_in_any_language_asks_by_connecting() {
    let mut agent = Setup::new("c").start();
    let code = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        #include <unistd.h>
        int main() {
            struct sockaddr_un address = { .sun_family = AF_UNIX };
            strcpy(address.sun_path, getenv("_BACKEND_USER_INPUT"));
            printf("number? ");
            fflush(stdout);
            int fd = socket(AF_UNIX, SOCK_STREAM, 0);
            if (connect(fd, (struct sockaddr *)&address, sizeof address)) return 9;
            shutdown(fd, SHUT_WR);
            char text[16] = "";
            for (int n = 0, r; (r = read(fd, text + n, 15 - n)) > 0; n += r);
            printf("%d", 2 * atoi(text));
            return 0;
        }"#;
    let mut outcome = Outcome::default();
    agent.query("r", code);
    assert_eq!(answer(&mut agent, "r", &["21"], &mut outcome), [false]);
    assert_eq!((outcome.stdout.as_str(), outcome.exit_code()), ("number? 42", 0), "{outcome:?}");
}

#[test]
fn a_program_started_by_code_asks_beside_it() {
    let mut agent = Setup::python().start();
    let socket = agent.setup.folder.path().join("input.sock");
    let ask = format!(
        "import socket\n\
         def ask():\n    with socket.socket(socket.AF_UNIX) as s:\n        \
         s.connect({socket:?})\n        return s.makefile().read()\n"
    );
    let mut outcome = Outcome::default();
    agent.query("r", &format!("{ask}print('? ', end='')\nask() + input('! ')"));
    assert_eq!(answer(&mut agent, "r", &["a", "b"], &mut outcome), [false, false]);
    assert_eq!(outcome.stdout, "? ! 'ab'");
}

#[test]
fn an_interrupt_ends_a_program_that_asks_and_the_next_may_ask_again() {
    let mut agent = Setup::python().start();
    std::fs::write(agent.work().join("main.py"), ASKING).unwrap();
    for _ in 0..2 {
        let mut outcome = Outcome::default();
        agent.batch("r", "", "", "*");
        while !matches!(agent.until_event("r", &mut outcome), RunRecord::WaitingInput { .. }) {}
        agent.send(ToRunner::Interrupt);
        agent.until_end("r", &mut outcome);
        assert_eq!(outcome.exit_code(), 130, "{outcome:?}");
        assert!(outcome.stderr.contains("KeyboardInterrupt"), "{outcome:?}");
    }
}

#[test]
fn without_a_run_nobody_can_be_asked() {
    let mut setup = Setup::python();
    std::fs::write(setup.work().join("main.py"), ASKING).unwrap();
    // The command of a batch session has standard input alone, which is empty.
    let python = setup.config.runtime_path.clone().unwrap();
    setup.config.startup_command = Some(format!("{python} main.py"));
    let mut agent = setup.start();
    assert_eq!(agent.receive(), FromRunner::StartupFinished { exit_code: 1 });
    assert!(agent.console().1.contains("EOFError"), "{:?}", agent.console());
    // One that outlives its run is told that nobody is there.
    std::fs::write(
        agent.work().join("late.py"),
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\ninput()",
    )
    .unwrap();
    agent.run_batch("", "", &format!("{python} late.py 2> late &"));
    std::fs::write(agent.work().join("go"), "").unwrap();
    let late = agent.work().join("late");
    wait_until("it was told", || {
        std::fs::read_to_string(&late)
            .is_ok_and(|text| text.contains("EOFError: nobody can be asked"))
    });
}

#[test]
fn standard_input_of_the_programs_own_comes_first_and_the_images_own_hook_runs() {
    let mut setup = Setup::python();
    let hooks = setup.folder.path().join("hooks");
    std::fs::create_dir(&hooks).unwrap();
    std::fs::write(hooks.join("sitecustomize.py"), "import sys\nsys.hooked = 'yes'").unwrap();
    setup.config.environ.insert("PYTHONPATH".into(), hooks.to_str().unwrap().into());
    let mut agent = setup.start();
    let code = "import sys; print(input(), sys.hooked)";
    let python = agent.setup.config.runtime_path.clone().unwrap();
    let outcome = agent.run_batch("", "", &format!("echo piped | {python} -c '{code}'"));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("piped yes\n", ""));
}

#[test]
fn a_new_agent_hears_of_a_question_that_was_taken_before() {
    let mut agent = Setup::python().start();
    let waiting = |greeting| match greeting {
        FromRunner::Hello { running, waiting_input, .. } => (running, waiting_input),
        other => panic!("{other:?}"),
    };
    std::fs::write(agent.work().join("main.py"), "import getpass; print(getpass.getpass(''))")
        .unwrap();
    for (run, is_batch, is_password) in [("q", false, false), ("b", true, true)] {
        if is_batch {
            agent.batch(run, "", "", "*");
        } else {
            agent.query(run, "print(input())");
        }
        let mut outcome = Outcome::default();
        while agent.until_event(run, &mut outcome) != (RunRecord::WaitingInput { is_password }) {}
        // The acknowledgement is on its way; an answer to a question tells that it arrived.
        agent.complete("x", None);
        agent.disconnect();
        agent.listen();
        assert_eq!(waiting(agent.accept()), (Some(run.into()), Some(is_password)));
        agent.input(run, "answered");
        agent.until_end(run, &mut outcome);
        assert_eq!(outcome.stdout, "answered\n");
        agent.disconnect();
        agent.listen();
        assert_eq!(waiting(agent.accept()), (None, None));
    }
}
