//! How far the output of runs has come to this manager.
//!
//! An agent tells the kernel runner to forget output when it has handed it out. Killed in
//! between, it is sent the same output again; what it is told here lets it leave that out.

use std::collections::HashMap;

use backendai_rpc::agent_api::{ExecuteReply, RunStatus};
use backendai_types::KernelId;
use parking_lot::Mutex;

/// Kernels remembered at most. Runs that nobody fetched to their end stay until then; a run
/// that is forgotten may show its last piece of output twice if its agent is killed.
const CAPACITY: usize = 10_000;

/// The last record received of each kernel's latest run.
#[derive(Default)]
pub struct ReceivedOutput {
    runs: Mutex<HashMap<KernelId, (String, u64)>>,
}

impl ReceivedOutput {
    /// The last record received of a run, 0 if none is known.
    pub fn last_record(&self, kernel: KernelId, run_id: Option<&str>) -> u64 {
        match self.runs.lock().get(&kernel) {
            Some((run, last)) if Some(run.as_str()) == run_id => *last,
            _ => 0,
        }
    }

    /// Notes an agent's answer.
    pub fn note(&self, kernel: KernelId, reply: &ExecuteReply) {
        let mut runs = self.runs.lock();
        if reply.status == RunStatus::Finished {
            runs.remove(&kernel);
            return;
        }
        if runs.len() >= CAPACITY && !runs.contains_key(&kernel) {
            runs.clear();
        }
        runs.insert(kernel, (reply.run_id.clone(), reply.last_record));
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_run_is_remembered_until_it_ends_or_another_follows() {
        let (received, kernel) = (ReceivedOutput::default(), KernelId::from(Uuid::nil()));
        let mut reply = ExecuteReply {
            run_id: "a".into(),
            status: RunStatus::Continued,
            exit_code: None,
            is_password: None,
            console: Vec::new(),
            last_record: 7,
        };
        received.note(kernel, &reply);
        assert_eq!(received.last_record(kernel, Some("a")), 7);
        assert_eq!(received.last_record(kernel, Some("b")), 0);
        assert_eq!(received.last_record(kernel, None), 0);
        reply.status = RunStatus::Finished;
        received.note(kernel, &reply);
        assert_eq!(received.last_record(kernel, Some("a")), 0);
    }
}
