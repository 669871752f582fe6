//! What changes, decided in memory: the rules without any SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use backendai_types::{
    AgentId, KernelId, KernelStatus, SessionId, SessionResult, SessionStatus, SessionType,
    TransitionError,
};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::{Change, Changed, ChangedKernel, FAILED_TO_START, Outcome, Scope, Started};

/// A locked session with its kernels.
#[derive(Clone, Debug)]
pub(super) struct Locked {
    pub id: SessionId,
    pub status: SessionStatus,
    pub status_info: Option<String>,
    pub session_type: SessionType,
    pub result: SessionResult,
    /// In order of rank: the main kernel first.
    pub kernels: Vec<LockedKernel>,
}

#[derive(Clone, Debug)]
pub(super) struct LockedKernel {
    pub id: KernelId,
    pub is_main: bool,
    pub status: KernelStatus,
    pub status_info: Option<String>,
    /// `None` once this plan has changed the status.
    pub status_changed: Option<DateTime<Utc>>,
    pub agent: Option<AgentId>,
}

/// New values of a kernel's row.
#[derive(Clone, Debug)]
pub(super) struct KernelWrite {
    pub status: KernelStatus,
    pub info: String,
    pub data: Map<String, Value>,
    pub agent: Option<AgentId>,
    pub exit_code: Option<i32>,
    pub last_stat: Option<Value>,
    pub started: Option<Started>,
}

/// New values of a session's row.
#[derive(Clone, Debug)]
pub(super) struct SessionWrite {
    pub status: SessionStatus,
    pub info: String,
    pub data: Map<String, Value>,
    pub result: SessionResult,
}

/// A row of `transitions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub session: SessionId,
    pub kernel: Option<KernelId>,
    pub event: &'static str,
    pub from: Option<&'static str>,
    pub to: Option<&'static str>,
    pub reason: String,
    pub exit_code: Option<i32>,
    /// `None` is whoever makes the whole plan.
    pub actor: Option<Arc<str>>,
}

/// Everything to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub changed: Changed,
    pub kernels: BTreeMap<KernelId, KernelWrite>,
    pub sessions: BTreeMap<SessionId, SessionWrite>,
    pub entries: Vec<Entry>,
}

/// `status_info` of a PREPARING kernel whose container is being made; tells a repeated
/// event from a new one.
const CREATING: &str = "creating";
/// Statuses that siblings share the fate of.
const ENDS: &[KernelStatus] = &[
    KernelStatus::Terminating,
    KernelStatus::Terminated,
    KernelStatus::Error,
    KernelStatus::Cancelled,
];
/// Reasons that say less than the one a kernel is being terminated for.
const PLAIN_ENDS: &[&str] = &["already-terminated", "self-terminated", "unknown", ""];

impl Plan {
    /// Applies one change to the kernels it concerns, and lets the session follow.
    ///
    /// # Errors
    /// The session cannot follow its kernels: a bug of the diagram.
    pub fn apply(
        &mut self,
        session: &mut Locked,
        change: &Change,
    ) -> Result<Outcome, TransitionError> {
        let targets: Vec<usize> = match change.scope {
            Scope::Session => (0..session.kernels.len()).collect(),
            Scope::Kernel(id) => {
                let found = session.kernels.iter().position(|kernel| kernel.id == id);
                match found {
                    // Kernels leave the queue together or not at all.
                    Some(_) if session.status == SessionStatus::Pending => {
                        (0..session.kernels.len()).collect()
                    }
                    found => found.into_iter().collect(),
                }
            }
        };
        if targets.is_empty() {
            return Ok(Outcome::Missing);
        }
        let mut illegal = None;
        let mut applied = false;
        for index in targets {
            match self.change_kernel(session, index, change) {
                Ok(changed) => applied |= changed,
                Err(error) => illegal = Some(error),
            }
        }
        if applied {
            if change.with_siblings && ENDS.contains(&change.to) {
                self.end_others(session, change)?;
            }
            self.settle(session, change)?;
            return Ok(Outcome::Applied);
        }
        Ok(illegal.map_or(Outcome::Unchanged, Outcome::Illegal))
    }

    /// Ends every kernel that has not ended and is not about to. Those in ERROR stay: what
    /// became of them is for people to find out.
    fn end_others(&mut self, session: &mut Locked, cause: &Change) -> Result<(), TransitionError> {
        for index in 0..session.kernels.len() {
            let to = match session.kernels[index].status {
                KernelStatus::Pending => KernelStatus::Cancelled,
                KernelStatus::Scheduled
                | KernelStatus::Preparing
                | KernelStatus::Pulling
                | KernelStatus::Running
                | KernelStatus::Restarting => KernelStatus::Terminating,
                KernelStatus::Terminating
                | KernelStatus::Terminated
                | KernelStatus::Error
                | KernelStatus::Cancelled => continue,
            };
            let end = Change {
                actor: cause.actor.clone(),
                ..Change::session(session.id, to, cause.reason.as_str())
            };
            self.change_kernel(session, index, &end)?;
        }
        Ok(())
    }

    /// True if the kernel changed, false if there is nothing to do.
    fn change_kernel(
        &mut self,
        session: &mut Locked,
        index: usize,
        change: &Change,
    ) -> Result<bool, TransitionError> {
        let kernel = &mut session.kernels[index];
        let (from, to) = (kernel.status, change.to);
        if !change.only_from.is_empty() && !change.only_from.contains(&from) {
            return Ok(false);
        }
        if change.only_since.is_some() && change.only_since != kernel.status_changed {
            return Ok(false);
        }
        // An agent says that it makes the container: an event, but no other status.
        let creating = from == to
            && to == KernelStatus::Preparing
            && change.reason == CREATING
            && kernel.status_info.as_deref() != Some(CREATING);
        if from == to && !creating {
            return Ok(false);
        }
        if !creating {
            from.check_transition(to)?;
        }
        let placed = change.placement.iter().find(|(id, _)| *id == kernel.id);
        if to == KernelStatus::Scheduled && placed.is_none() {
            return Ok(false);
        }
        let reason = reason_kept(from, to, kernel.status_info.as_deref(), &change.reason);
        let mut data = change.data.clone();
        if to == KernelStatus::Terminated {
            data.insert("kernel".into(), json!({"exit_code": change.exit_code}));
        }
        let event = if creating { "kernel_creating" } else { kernel_event(from, to) };
        self.entries.push(Entry {
            session: session.id,
            kernel: Some(kernel.id),
            event,
            from: (!creating).then_some(from.as_str()),
            to: (!creating).then_some(to.as_str()),
            reason: reason.clone(),
            exit_code: change.exit_code,
            actor: change.actor.clone(),
        });
        if !creating {
            let agent = placed.map(|(_, agent)| agent).or(kernel.agent.as_ref()).cloned();
            let (id, session) = (kernel.id, session.id);
            self.changed.kernels.push(ChangedKernel { id, session, agent, from, to });
        }
        kernel.status = to;
        kernel.status_changed = None;
        kernel.status_info = Some(reason.clone());
        kernel.agent = match (to, placed) {
            (KernelStatus::Pending, _) => None,
            (_, Some((_, agent))) => Some(agent.clone()),
            (_, None) => kernel.agent.take(),
        };
        let earlier = self.kernels.remove(&kernel.id);
        let (mut all_data, exit_code, last_stat, started) = match earlier {
            Some(earlier) => (earlier.data, earlier.exit_code, earlier.last_stat, earlier.started),
            None => (Map::new(), None, None, None),
        };
        all_data.extend(data);
        self.kernels.insert(
            kernel.id,
            KernelWrite {
                status: to,
                info: reason,
                data: all_data,
                agent: kernel.agent.clone(),
                exit_code: change.exit_code.or(exit_code),
                last_stat: change.last_stat.clone().or(last_stat),
                started: change.started.clone().or(started),
            },
        );
        Ok(true)
    }

    /// Lets the session follow its kernels.
    fn settle(&mut self, session: &mut Locked, cause: &Change) -> Result<(), TransitionError> {
        let reason = cause.reason.as_str();
        let from = session.status;
        let mut to = derived(session);
        if to == SessionStatus::Terminating {
            // Nothing of a session that ends keeps running.
            self.end_others(session, cause)?;
            to = derived(session);
        }
        let kept = match from {
            SessionStatus::Terminating | SessionStatus::Error => session.status_info.as_deref(),
            _ => None,
        };
        let reason = match kept {
            Some(why) if PLAIN_ENDS.contains(&reason) => why.to_owned(),
            _ => reason.to_owned(),
        };
        let mut all_data =
            self.sessions.remove(&session.id).map(|earlier| earlier.data).unwrap_or_default();
        all_data.extend(cause.data.clone());
        let write = |session: &Locked| SessionWrite {
            status: session.status,
            info: session.status_info.clone().unwrap_or_default(),
            data: all_data.clone(),
            result: session.result,
        };
        let has_failed = session.status_info.as_deref() == Some(FAILED_TO_START);
        if to == SessionStatus::Terminated && (has_failed || from.check_transition(to).is_err()) {
            // It ends without having run, whatever its kernels came to.
            to = SessionStatus::Cancelled;
        }
        // Kernels of a cluster can be apart in ways that no status of the session describes
        // (one restarts while another starts): it then stays what it is. Ends are never
        // left out.
        let is_undescribed = from.check_transition(to).is_err() && !to.is_terminal();
        if to == from || is_undescribed {
            if !all_data.is_empty() {
                self.sessions.insert(session.id, write(session));
            }
            return Ok(());
        }
        from.check_transition(to)?;
        self.entries.push(Entry {
            session: session.id,
            kernel: None,
            event: session_event(from, to),
            from: Some(from.as_str()),
            to: Some(to.as_str()),
            reason: reason.clone(),
            exit_code: None,
            actor: cause.actor.clone(),
        });
        if to.is_terminal()
            && session.session_type == SessionType::Batch
            && session.result == SessionResult::Undefined
        {
            // Sessions that depend on this one must learn that it will not succeed.
            session.result = SessionResult::Failure;
            self.entries.push(Entry {
                session: session.id,
                kernel: None,
                event: "session_failure",
                from: None,
                to: None,
                reason: "task-cancelled".into(),
                exit_code: Some(-2),
                actor: cause.actor.clone(),
            });
        }
        self.changed.sessions.push((session.id, from, to));
        session.status = to;
        session.status_info = Some(reason);
        self.sessions.insert(session.id, write(session));
        Ok(())
    }
}

fn derived(session: &Locked) -> SessionStatus {
    let all: Vec<KernelStatus> = session.kernels.iter().map(|kernel| kernel.status).collect();
    let main = session.kernels.iter().find(|kernel| kernel.is_main);
    match main.or(session.kernels.first()) {
        Some(main) => SessionStatus::from_kernels(main.status, &all),
        None => session.status,
    }
}

/// A kernel that was told to end keeps the reason for it when its agent only says that it
/// is gone.
fn reason_kept(from: KernelStatus, to: KernelStatus, old: Option<&str>, new: &str) -> String {
    let ends = from == KernelStatus::Terminating && to == KernelStatus::Terminated;
    match old {
        Some(old) if ends && PLAIN_ENDS.contains(&new) => old.to_owned(),
        _ => new.to_owned(),
    }
}

fn kernel_event(from: KernelStatus, to: KernelStatus) -> &'static str {
    match to {
        KernelStatus::Pending => "kernel_requeued",
        KernelStatus::Scheduled => "kernel_scheduled",
        KernelStatus::Preparing if from == KernelStatus::Pulling => "kernel_creating",
        KernelStatus::Preparing => "kernel_preparing",
        KernelStatus::Pulling => "kernel_pulling",
        KernelStatus::Running => "kernel_started",
        KernelStatus::Restarting => "kernel_restarting",
        KernelStatus::Terminating => "kernel_terminating",
        KernelStatus::Terminated => "kernel_terminated",
        KernelStatus::Error => "kernel_error",
        KernelStatus::Cancelled => "kernel_cancelled",
    }
}

fn session_event(from: SessionStatus, to: SessionStatus) -> &'static str {
    match to {
        SessionStatus::Pending => "session_requeued",
        SessionStatus::Scheduled => "session_scheduled",
        SessionStatus::Preparing if from == SessionStatus::Pulling => "session_creating",
        SessionStatus::Preparing => "session_preparing",
        SessionStatus::Pulling => "session_pulling",
        SessionStatus::Running => "session_started",
        SessionStatus::Restarting => "session_restarting",
        SessionStatus::RunningDegraded => "session_degraded",
        SessionStatus::Terminating => "session_terminating",
        SessionStatus::Terminated => "session_terminated",
        SessionStatus::Error => "session_error",
        SessionStatus::Cancelled => "session_cancelled",
    }
}
