//! Records on their way to the agent: kept until acknowledged, sent again after a
//! reconnection, and never more than fit the window.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use backendai_rpc::runner::{
    ConsoleItem, FromRunner, MAX_FRAME, MAX_TEXT_RECORD, OUTPUT_WINDOW, RunRecord,
};
use tokio::sync::Notify;

/// What a record costs beside its text, in bytes: ids, number, enums and list. Counted in,
/// so that a million records of one byte do not fit the window.
const RECORD_OVERHEAD: usize = 128;

/// The largest single item. A frame holds it and what is around it.
const MAX_ITEM: usize = MAX_FRAME - (64 << 10);

/// All that waits for the agent.
#[derive(Default)]
pub struct Outbox {
    state: RefCell<State>,
    /// Something can be sent.
    sendable: Notify,
    /// Something was acknowledged.
    room: Notify,
    /// Everything was sent.
    flushed: Notify,
}

#[derive(Default)]
struct State {
    /// Messages that are only worth something to the present connection; they go first.
    control: VecDeque<FromRunner>,
    /// Unacknowledged records, in order.
    records: VecDeque<FromRunner>,
    /// Number of the last record there ever was.
    last_seq: u64,
    /// How many of `records` went out on the present connection.
    sent: usize,
    /// Number of the last record that went out on any connection: up to it they may have
    /// been taken, so they do not change any more.
    frozen_seq: u64,
    /// Sum of the costs of `records`.
    bytes: usize,
}

impl Outbox {
    /// Begins a new connection with these messages; all unacknowledged records follow.
    pub fn connected(&self, greeting: impl IntoIterator<Item = FromRunner>) {
        let mut state = self.state.borrow_mut();
        state.control = greeting.into_iter().collect();
        state.sent = 0;
    }

    /// Sends a message to the present connection. It is lost if there is none.
    pub fn send(&self, message: FromRunner) {
        self.state.borrow_mut().control.push_back(message);
        self.sendable.notify_one();
    }

    /// Passes the next message to `encode`; false if there is none.
    pub fn send_next<E>(
        &self,
        encode: impl FnOnce(&FromRunner) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut state = self.state.borrow_mut();
        if let Some(message) = state.control.pop_front() {
            return encode(&message).map(|()| true);
        }
        let sent = state.sent;
        let Some(message) = state.records.get(sent) else {
            self.flushed.notify_waiters();
            return Ok(false);
        };
        encode(message)?;
        let seq = seq_of(message);
        state.sent += 1;
        state.frozen_seq = state.frozen_seq.max(seq);
        Ok(true)
    }

    /// Resolves when [`Self::send_next`] may have something. For one waiter.
    pub async fn sendable(&self) {
        self.sendable.notified().await;
    }

    /// Waits until everything went out on the present connection, for ever without one.
    pub async fn flushed(&self) {
        loop {
            let flushed = self.flushed.notified();
            if self.is_sent() {
                return;
            }
            flushed.await;
        }
    }

    fn is_sent(&self) -> bool {
        let state = self.state.borrow();
        state.control.is_empty() && state.sent == state.records.len()
    }

    /// Forgets the records up to this number.
    pub fn acknowledge(&self, seq: u64) {
        let state = &mut *self.state.borrow_mut();
        // A number that was never sent acknowledges nothing more than what was.
        while state.sent > 0 && state.records.front().is_some_and(|first| seq_of(first) <= seq) {
            if let Some(taken) = state.records.pop_front() {
                state.bytes -= cost(&taken);
                state.sent -= 1;
            }
        }
        self.room.notify_waiters();
    }

    /// True if the agent has not yet taken all records of this run.
    pub fn has_records_of(&self, run_id: &str) -> bool {
        self.state.borrow().records.iter().any(|message| run_of(message) == run_id)
    }

    /// True if the agent has not yet taken a question of this run.
    pub fn has_question_of(&self, run_id: &str) -> bool {
        self.state.borrow().records.iter().any(|message| {
            let FromRunner::Record { run_id: run, record, .. } = message else { return false };
            run == run_id && matches!(record, RunRecord::WaitingInput { .. })
        })
    }

    /// Empties the records of a run. Their numbers remain, so that there are no gaps.
    fn discard(&self, run_id: &str) {
        let state = &mut *self.state.borrow_mut();
        for message in &mut state.records {
            if let FromRunner::Record { run_id: run, record, .. } = message
                && run == run_id
            {
                *record = RunRecord::Console(ConsoleItem::Stdout(String::new()));
            }
        }
        state.bytes = state.records.iter().map(cost).sum();
        self.room.notify_waiters();
    }

    fn push(&self, run_id: &str, record: RunRecord) {
        let state = &mut *self.state.borrow_mut();
        if !state.append_text(run_id, &record) {
            state.last_seq += 1;
            let message =
                FromRunner::Record { seq: state.last_seq, run_id: run_id.to_owned(), record };
            state.bytes += cost(&message);
            state.records.push_back(message);
        }
        self.sendable.notify_one();
    }
}

impl State {
    /// Adds text to the last record, if it is of the same kind and was never sent.
    fn append_text(&mut self, run_id: &str, record: &RunRecord) -> bool {
        let Some(FromRunner::Record { seq, run_id: last_run, record: last }) =
            self.records.back_mut()
        else {
            return false;
        };
        if *seq <= self.frozen_seq || last_run != run_id {
            return false;
        }
        let (RunRecord::Console(last), RunRecord::Console(new)) = (last, record) else {
            return false;
        };
        let (last, new) = match (last, new) {
            (ConsoleItem::Stdout(last), ConsoleItem::Stdout(new)) => (last, new),
            (ConsoleItem::Stderr(last), ConsoleItem::Stderr(new)) => (last, new),
            _ => return false,
        };
        let fits = last.len() + new.len() <= MAX_TEXT_RECORD;
        if fits {
            last.push_str(new);
            self.bytes += new.len();
        }
        fits
    }
}

fn seq_of(message: &FromRunner) -> u64 {
    match message {
        FromRunner::Record { seq, .. } => *seq,
        _ => 0,
    }
}

fn run_of(message: &FromRunner) -> &str {
    match message {
        FromRunner::Record { run_id, .. } => run_id,
        _ => "",
    }
}

fn cost(message: &FromRunner) -> usize {
    match message {
        FromRunner::Record { record, .. } => record.size() + RECORD_OVERHEAD,
        _ => 0,
    }
}

/// Where one run puts its records.
#[derive(Clone)]
pub struct RunOutput {
    outbox: Rc<Outbox>,
    run_id: Rc<str>,
    cancelled: Rc<Cell<bool>>,
}

impl RunOutput {
    /// For the run of this name.
    pub fn new(outbox: Rc<Outbox>, run_id: &str) -> Self {
        Self { outbox, run_id: run_id.into(), cancelled: Rc::default() }
    }

    /// Discards what there is and whatever follows.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        self.outbox.discard(&self.run_id);
    }

    /// True after [`Self::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Waits until so many bytes of text fit the window, or until nothing else is in it.
    /// The room is there until the next `await`.
    pub async fn room(&self, bytes: usize) {
        loop {
            let room = self.outbox.room.notified();
            let used = self.outbox.state.borrow().bytes;
            let fits = used + bytes + RECORD_OVERHEAD <= OUTPUT_WINDOW;
            if fits || used == 0 || self.is_cancelled() {
                return;
            }
            room.await;
        }
    }

    /// Adds a record. Does not wait for room: see [`Self::room`].
    pub fn push(&self, record: RunRecord) {
        if self.is_cancelled() {
            return;
        }
        let size = record.size();
        match record {
            RunRecord::Console(ConsoleItem::Stdout(text)) => {
                self.push_text(text, ConsoleItem::Stdout)
            }
            RunRecord::Console(ConsoleItem::Stderr(text)) => {
                self.push_text(text, ConsoleItem::Stderr)
            }
            RunRecord::Console(_) if size > MAX_ITEM => {
                let text =
                    format!("kernel-runner: an output of {size} bytes is too large to show\n");
                self.push_text(text, ConsoleItem::Stderr);
            }
            record => self.outbox.push(&self.run_id, record),
        }
    }

    /// Adds text, cut to records of the largest size.
    fn push_text(&self, text: String, item: fn(String) -> ConsoleItem) {
        if text.len() <= MAX_TEXT_RECORD {
            if !text.is_empty() {
                self.outbox.push(&self.run_id, RunRecord::Console(item(text)));
            }
            return;
        }
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_TEXT_RECORD));
            self.outbox.push(&self.run_id, RunRecord::Console(item(piece.to_owned())));
            rest = after;
        }
    }

    /// Adds text to standard output.
    pub fn stdout(&self, text: String) {
        self.push(RunRecord::Console(ConsoleItem::Stdout(text)));
    }

    /// Adds text to standard error.
    pub fn stderr(&self, text: String) {
        self.push(RunRecord::Console(ConsoleItem::Stderr(text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &Outbox) -> Vec<(u64, String)> {
        let mut got = Vec::new();
        while outbox
            .send_next(|message| {
                if let FromRunner::Record { seq, record, .. } = message {
                    let text = match record {
                        RunRecord::Console(ConsoleItem::Stdout(text)) => text.clone(),
                        other => format!("{other:?}"),
                    };
                    got.push((*seq, text));
                }
                Ok::<_, ()>(())
            })
            .unwrap()
        {}
        got
    }

    #[test]
    fn unacknowledged_records_are_sent_again_and_do_not_change() {
        let outbox = Rc::new(Outbox::default());
        let run = RunOutput::new(Rc::clone(&outbox), "r");
        run.stdout("a".into());
        run.stdout("b".into());
        assert_eq!(drain(&outbox), [(1, "ab".into())]);
        run.stdout("c".into());
        outbox.connected([]);
        run.stdout("d".into());
        assert_eq!(drain(&outbox), [(1, "ab".into()), (2, "cd".into())]);
        outbox.acknowledge(1);
        outbox.connected([]);
        assert_eq!(drain(&outbox), [(2, "cd".into())]);
        assert!(outbox.is_sent());
        outbox.acknowledge(99);
        assert!(!outbox.has_records_of("r"));
        assert_eq!(outbox.state.borrow().bytes, 0);
    }

    #[test]
    fn a_cancelled_run_leaves_numbers_only() {
        let outbox = Rc::new(Outbox::default());
        let (one, two) =
            (RunOutput::new(Rc::clone(&outbox), "1"), RunOutput::new(Rc::clone(&outbox), "2"));
        one.stdout("x".repeat(1000));
        two.stdout("y".into());
        one.cancel();
        one.stdout("more".into());
        assert_eq!(drain(&outbox), [(1, String::new()), (2, "y".into())]);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let outbox = Rc::new(Outbox::default());
        let text = "한".repeat(MAX_TEXT_RECORD / 2);
        RunOutput::new(Rc::clone(&outbox), "r").stdout(text.clone());
        let records = drain(&outbox);
        assert!(records.iter().all(|(_, piece)| piece.len() <= MAX_TEXT_RECORD));
        assert_eq!(records.into_iter().map(|(_, piece)| piece).collect::<String>(), text);
    }
}
