//! The agent goes away and comes back.

use backendai_rpc::runner::{FromRunner, OUTPUT_WINDOW, RunRecord, ToRunner};

use crate::support::{Outcome, Setup};

/// More than the window and all that the test takes before the last reconnection.
const LINES: usize = 1_500_000;

#[test]
fn a_reconnection_in_a_run_loses_and_repeats_nothing() {
    let mut agent = Setup::new("app").start();
    agent.batch("r", "", "", &format!("seq 0 {}", LINES - 1));
    agent.batch("next", "", "", "echo next");
    let mut outcome = Outcome::default();
    let mut taken = 0;
    for round in 0..5 {
        for _ in 0..4 {
            let FromRunner::Record { seq, run_id, record } = agent.receive() else {
                panic!("no record")
            };
            // A new connection repeats what was not acknowledged.
            if seq <= taken {
                continue;
            }
            assert_eq!((seq, run_id.as_str()), (taken + 1, "r"));
            taken = seq;
            outcome.add(record);
        }
        // The last ones stay unacknowledged.
        agent.send(ToRunner::Ack { seq: taken.saturating_sub(2) });
        agent.disconnect();
        agent.listen();
        let FromRunner::Hello { running, queued, .. } = agent.accept() else { panic!() };
        assert_eq!(running.as_deref(), Some("r"), "round {round}");
        assert_eq!(queued, ["next"]);
    }
    while !matches!(outcome.records.last(), Some(RunRecord::Finished { .. })) {
        let (seq, run_id, record) = agent.record();
        if seq > taken {
            assert_eq!((seq, run_id.as_str()), (taken + 1, "r"));
            taken = seq;
            outcome.add(record);
        }
    }
    let expected: String = (0..LINES).map(|i| format!("{i}\n")).collect();
    assert!(outcome.stdout == expected);
    let mut outcome = Outcome::default();
    agent.until_end("next", &mut outcome);
    assert_eq!(outcome.stdout, "next\n");
}

#[test]
fn programs_run_while_the_agent_is_away_until_the_window_is_full() {
    let mut agent = Setup::new("app").start();
    let total = 4 * OUTPUT_WINDOW;
    agent.batch("r", "", "", &format!("head -c {total} /dev/zero | tr '\\0' x"));
    let mut outcome = Outcome::default();
    agent.until_event("r", &mut outcome);
    agent.until_event("r", &mut outcome);
    agent.disconnect();
    agent.listen();
    let FromRunner::Hello { running, .. } = agent.accept() else { panic!() };
    assert_eq!(running.as_deref(), Some("r"));
    let mut taken = 2;
    while !matches!(outcome.records.last(), Some(RunRecord::Finished { .. })) {
        let (seq, _, record) = agent.record();
        if seq > taken {
            taken = seq;
            outcome.add(record);
        }
    }
    assert_eq!(outcome.stdout.len(), total);
}

#[test]
fn a_run_that_the_agent_asks_for_again_is_not_repeated() {
    let mut agent = Setup::new("app").start();
    agent.batch("r", "", "", "echo once >> file; cat file");
    // The run ends, and the agent goes away without having read that.
    let mut records = Vec::new();
    while !matches!(records.last(), Some(RunRecord::Finished { .. })) {
        let FromRunner::Record { record, .. } = agent.receive() else { panic!() };
        records.push(record);
    }
    agent.disconnect();
    agent.listen();
    agent.accept();
    agent.batch("r", "", "", "echo once >> file; cat file");
    let mut outcome = Outcome::default();
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.stdout, "once\n");
    // Once taken, the name may be used again.
    agent.batch("r", "", "", "echo twice >> file; cat file");
    let mut outcome = Outcome::default();
    agent.until_end("r", &mut outcome);
    assert_eq!(outcome.stdout, "once\ntwice\n");
}
