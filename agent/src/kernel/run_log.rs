//! The output of a kernel's runs on its way from the runner to the API.
//!
//! A pure structure without locks or clocks. Records arrive in the order of their numbers;
//! each belongs to a run and is handed out once. The runner is told to forget records only
//! up to the first one that nobody has taken: its window thereby bounds what lies here.
//!
//! Runs execute one after the other. A run whose output nobody fetches would hold up all
//! that wait behind it, so its place can be asked for with [`RunLog::blocker`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use backendai_rpc::runner::{ConsoleItem, OUTPUT_WINDOW, RunRecord};

/// A reply holds about this much output at most.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Output that has arrived and was not fetched yet, and the runs it belongs to.
#[derive(Debug, Default)]
pub struct RunLog {
    /// Number of the last record that arrived.
    received: u64,
    records: VecDeque<Slot>,
    runs: HashMap<Arc<str>, Run>,
    /// Runs that have not ended, oldest first.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Slot {
    seq: u64,
    run: Arc<str>,
    /// `None` once handed out or dropped.
    record: Option<RunRecord>,
}

#[derive(Debug)]
struct Run {
    last_poll: Instant,
    pollers: usize,
    bytes: usize,
    controls: usize,
    /// It waits for input, as its runner said when this process did not know the run.
    waiting_input: Option<bool>,
}

/// What one step of a run gives.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// Output, adjacent pieces of one stream merged.
    pub console: Vec<ConsoleItem>,
    /// What ended the step, if something did.
    pub control: Option<RunRecord>,
    /// Number of the last record handed out here or before.
    pub last: u64,
    /// The runner may forget records up to this number.
    pub acknowledge: Option<u64>,
}

impl RunLog {
    /// Notes a run that was sent to the runner. False if there is one of that name.
    pub fn begin(&mut self, run: &str, now: Instant) -> bool {
        let is_new = !self.runs.contains_key(run);
        if is_new {
            self.note(run, now);
        }
        is_new
    }

    /// Notes runs the runner says it has, as after a restart of the agent, and whether the
    /// first of them waits for input. Of a run that is known, the question is known as well.
    pub fn adopt(&mut self, runs: &[String], waiting_input: Option<bool>, now: Instant) {
        for (index, run) in runs.iter().enumerate() {
            let is_new = self.begin(run, now);
            if let Some(state) = self.runs.get_mut(&**run).filter(|_| is_new && index == 0) {
                state.waiting_input = waiting_input;
            }
        }
    }

    /// The input that a run may have waited for is on its way.
    pub fn answered(&mut self, run: &str) {
        if let Some(state) = self.runs.get_mut(run) {
            state.waiting_input = None;
        }
    }

    /// True for runs that have not been fetched to their end.
    pub fn knows(&self, run: &str) -> bool {
        self.runs.contains_key(run)
    }

    /// Takes in a record. One that arrived before (the runner sends again what was not
    /// acknowledged) is ignored. True if somebody waiting for the run should look.
    pub fn record(&mut self, seq: u64, run: &str, record: RunRecord, now: Instant) -> bool {
        if seq <= self.received {
            return false;
        }
        self.received = seq;
        let is_new = !self.runs.contains_key(run);
        let run = match self.runs.get_key_value(run) {
            Some((run, _)) => Arc::clone(run),
            None => self.note(run, now),
        };
        if let Some(state) = self.runs.get_mut(&run) {
            match &record {
                RunRecord::Console(item) => state.bytes += item.size(),
                _ => state.controls += 1,
            }
        }
        self.records.push_back(Slot { seq, run: Arc::clone(&run), record: Some(record) });
        is_new || self.is_due(&run)
    }

    /// True when a step of the run should be answered without waiting longer: it has come
    /// to a stop, or enough output has gathered.
    pub fn is_due(&self, run: &str) -> bool {
        self.runs.get(run).is_some_and(|run| {
            run.controls > 0 || run.waiting_input.is_some() || run.bytes >= OUTPUT_WINDOW / 2
        })
    }

    /// Hands out a run's output up to its next stop, or up to a reply's size. A run that
    /// ended is forgotten with its last output.
    ///
    /// Records up to `received` have reached the caller: the process of the agent that handed
    /// them out ended before it could tell the runner, so that they came again.
    pub fn take(&mut self, run: &str, received: u64, now: Instant) -> Taken {
        let mut taken = Taken { last: received, ..Taken::default() };
        let Some(state) = self.runs.get_mut(run) else { return taken };
        state.last_poll = now;
        let mut size = 0;
        for slot in self.records.iter_mut().filter(|slot| &*slot.run == run) {
            let Some(record) = slot.record.take() else { continue };
            if slot.seq <= received {
                match record {
                    RunRecord::Console(item) => {
                        state.bytes = state.bytes.saturating_sub(item.size())
                    }
                    _ => state.controls = state.controls.saturating_sub(1),
                }
                continue;
            }
            match record {
                RunRecord::Console(item) => {
                    if size > 0 && size + item.size() > MAX_REPLY_BYTES {
                        slot.record = Some(RunRecord::Console(item));
                        break;
                    }
                    taken.last = slot.seq;
                    size += item.size();
                    state.bytes = state.bytes.saturating_sub(item.size());
                    push_merged(&mut taken.console, item);
                }
                control => {
                    state.controls = state.controls.saturating_sub(1);
                    taken.last = slot.seq;
                    taken.control = Some(control);
                    break;
                }
            }
        }
        if taken.control.is_none() {
            let waiting = state.waiting_input.take();
            taken.control = waiting.map(|is_password| RunRecord::WaitingInput { is_password });
        }
        if matches!(taken.control, Some(RunRecord::Finished { .. })) {
            self.forget(run);
        }
        taken.acknowledge = self.settle();
        taken
    }

    /// Drops a run with all its output; what the runner may forget thereby.
    pub fn drop_run(&mut self, run: &str) -> Option<u64> {
        for slot in self.records.iter_mut().filter(|slot| &*slot.run == run) {
            slot.record = None;
        }
        self.forget(run);
        self.settle()
    }

    /// Somebody began to wait for a run.
    pub fn poll_begins(&mut self, run: &str) {
        if let Some(run) = self.runs.get_mut(run) {
            run.pollers += 1;
        }
    }

    /// Somebody waits no longer.
    pub fn poll_ends(&mut self, run: &str, now: Instant) {
        if let Some(run) = self.runs.get_mut(run) {
            run.pollers = run.pollers.saturating_sub(1);
            run.last_poll = now;
        }
    }

    /// The run that is ahead of all others and that nobody waits for, if it is not this
    /// one; with the time it was last asked for.
    pub fn blocker(&self, run: &str) -> Option<(String, Instant)> {
        let first = self.order.front().filter(|first| &***first != run)?;
        let state = self.runs.get(first).filter(|state| state.pollers == 0)?;
        Some((first.to_string(), state.last_poll))
    }

    fn note(&mut self, run: &str, now: Instant) -> Arc<str> {
        let run: Arc<str> = run.into();
        let state = Run { last_poll: now, pollers: 0, bytes: 0, controls: 0, waiting_input: None };
        self.runs.insert(Arc::clone(&run), state);
        self.order.push_back(Arc::clone(&run));
        run
    }

    fn forget(&mut self, run: &str) {
        self.runs.remove(run);
        self.order.retain(|other| &**other != run);
    }

    /// Removes what was handed out from the front; the last number removed.
    fn settle(&mut self) -> Option<u64> {
        let mut last = None;
        while let Some(slot) = self.records.front().filter(|slot| slot.record.is_none()) {
            last = Some(slot.seq);
            self.records.pop_front();
        }
        last
    }
}

fn push_merged(console: &mut Vec<ConsoleItem>, item: ConsoleItem) {
    match (console.last_mut(), item) {
        (Some(ConsoleItem::Stdout(before)), ConsoleItem::Stdout(text))
        | (Some(ConsoleItem::Stderr(before)), ConsoleItem::Stderr(text)) => before.push_str(&text),
        (_, item) => console.push(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(text: &str) -> RunRecord {
        RunRecord::Console(ConsoleItem::Stdout(text.into()))
    }

    const FINISHED: RunRecord = RunRecord::Finished { exit_code: 0 };

    #[test]
    fn adjacent_output_is_merged_up_to_the_next_stop() {
        let now = Instant::now();
        let mut log = RunLog::default();
        assert!(log.begin("a", now));
        assert!(!log.record(1, "a", out("x"), now));
        assert!(!log.record(2, "a", out("y"), now));
        log.record(3, "a", RunRecord::Console(ConsoleItem::Stderr("e".into())), now);
        log.record(4, "a", out("z"), now);
        assert!(log.record(5, "a", RunRecord::BuildFinished { exit_code: 1 }, now));
        log.record(6, "a", out("more"), now);
        log.record(7, "a", FINISHED, now);
        let first = log.take("a", 0, now);
        assert_eq!(
            first.console,
            [
                ConsoleItem::Stdout("xy".into()),
                ConsoleItem::Stderr("e".into()),
                ConsoleItem::Stdout("z".into())
            ]
        );
        assert_eq!(first.control, Some(RunRecord::BuildFinished { exit_code: 1 }));
        assert_eq!(first.acknowledge, Some(5));
        let second = log.take("a", 0, now);
        assert_eq!((second.control, second.acknowledge), (Some(FINISHED), Some(7)));
        assert!(!log.knows("a"));
    }

    #[test]
    fn a_question_asked_before_is_asked_again_once() {
        let now = Instant::now();
        let mut log = RunLog::default();
        log.begin("known", now);
        log.adopt(&["known".into()], Some(true), now);
        assert!(!log.is_due("known"));
        log.drop_run("known");
        log.adopt(&["a".into(), "b".into()], Some(true), now);
        assert!(log.is_due("a") && !log.is_due("b"));
        let question = Some(RunRecord::WaitingInput { is_password: true });
        assert_eq!(log.take("a", 0, now).control, question);
        assert_eq!(log.take("a", 0, now).control, None);
        log.adopt(&["c".into()], Some(false), now);
        log.answered("c");
        assert!(!log.is_due("c"));
    }

    #[test]
    fn nothing_is_acknowledged_past_what_nobody_fetched() {
        let now = Instant::now();
        let mut log = RunLog::default();
        log.record(1, "a", out("a"), now);
        log.record(2, "a", FINISHED, now);
        log.record(3, "b", out("b"), now);
        log.record(4, "b", FINISHED, now);
        assert_eq!(log.take("b", 0, now).acknowledge, None);
        assert_eq!(log.take("a", 0, now).acknowledge, Some(4));
    }

    #[test]
    fn records_that_arrive_again_are_ignored() {
        let now = Instant::now();
        let mut log = RunLog::default();
        log.record(1, "a", out("x"), now);
        log.take("a", 0, now);
        log.record(1, "a", out("x"), now);
        log.record(2, "a", out("y"), now);
        assert_eq!(log.take("a", 0, now).console, [ConsoleItem::Stdout("y".into())]);
    }

    #[test]
    fn what_reached_the_caller_is_left_out() {
        let now = Instant::now();
        let mut log = RunLog::default();
        log.record(4, "a", out("before"), now);
        log.record(5, "a", RunRecord::BuildFinished { exit_code: 0 }, now);
        log.record(6, "a", out("after"), now);
        let taken = log.take("a", 5, now);
        assert_eq!(taken.console, [ConsoleItem::Stdout("after".into())]);
        assert_eq!((taken.control, taken.last, taken.acknowledge), (None, 6, Some(6)));
        assert!(!log.is_due("a"));
        assert_eq!(log.take("a", 6, now).last, 6);
    }

    #[test]
    fn a_reply_is_cut_at_its_size_and_the_rest_comes_next() {
        let now = Instant::now();
        let mut log = RunLog::default();
        let piece = "x".repeat(MAX_REPLY_BYTES / 2 + 1);
        for seq in 1..=3 {
            log.record(seq, "a", out(&piece), now);
        }
        log.record(4, "a", FINISHED, now);
        for expected in [Some(1), Some(2)] {
            let taken = log.take("a", 0, now);
            assert_eq!((taken.control, taken.acknowledge), (None, expected));
        }
        assert_eq!(log.take("a", 0, now).control, Some(FINISHED));
    }

    #[test]
    fn the_run_in_front_blocks_unless_somebody_waits_for_it() {
        let now = Instant::now();
        let mut log = RunLog::default();
        log.begin("a", now);
        log.begin("b", now);
        assert_eq!(log.blocker("a"), None);
        assert_eq!(log.blocker("b"), Some(("a".into(), now)));
        log.poll_begins("a");
        assert_eq!(log.blocker("b"), None);
        log.poll_ends("a", now);
        log.record(1, "a", out("x"), now);
        assert_eq!(log.drop_run("a"), Some(1));
        assert_eq!(log.blocker("b"), None);
    }
}
