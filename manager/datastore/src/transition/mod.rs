//! The one door through which sessions and kernels change their status.
//!
//! A change names a kernel, or all kernels of a session; the session's status follows from
//! its kernels. The door locks the sessions, checks every change against the diagram in
//! [`backendai_types::session`], writes what changed, gives in-between statuses a deadline,
//! frees what ended kernels occupied, and appends to `transitions`. All of it is done with a
//! handful of statements however many sessions are concerned.
//!
//! A change that has been made already, or comes too late to make sense, changes nothing:
//! agents report at least once, and tasks compare before they act.
//!
//! Invariant: a kernel's status changes only while its session's row is locked, and nobody
//! but this module writes a `status` column of sessions or kernels after the insert.

mod plan;
mod result;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;
use std::time::Duration;

use backendai_types::image::ServicePort;
use backendai_types::{AgentId, KernelId, KernelStatus, SessionId, SessionStatus, TransitionError};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::tx::Transaction;

pub use result::BatchEnd;

/// Event names that the public event streams show; `transitions` has others besides.
pub const STREAMED_EVENTS: &[&str] = &[
    "session_enqueued",
    "session_scheduled",
    "kernel_preparing",
    "kernel_pulling",
    "kernel_creating",
    "kernel_started",
    "session_started",
    "kernel_terminating",
    "kernel_terminated",
    "kernel_cancelled",
    "session_terminating",
    "session_terminated",
    "session_cancelled",
    "session_success",
    "session_failure",
];

/// The reason of sessions that could not be started. Such a session ends CANCELLED even
/// when some of its kernels were running already.
pub const FAILED_TO_START: &str = "failed-to-start";

/// How long in-between statuses may last.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// SCHEDULED.
    pub scheduled: Duration,
    /// PREPARING, PULLING and RESTARTING.
    pub preparing: Duration,
    /// TERMINATING.
    pub terminating: Duration,
}

/// Who changes, and what time limits hold.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// An access key, a task's name, or `agent:<id>`.
    pub actor: &'a str,
    /// Limits for the statuses entered.
    pub deadlines: Deadlines,
}

/// Which kernels of the session a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Session,
    /// One.
    Kernel(KernelId),
}

/// A change that is wanted.
#[derive(Clone, Debug)]
pub struct Change {
    /// The session.
    pub session: SessionId,
    /// Which of its kernels.
    pub scope: Scope,
    /// The status they shall have.
    pub to: KernelStatus,
    /// Change only kernels that are in one of these; empty is any that may.
    pub only_from: &'static [KernelStatus],
    /// Change only a kernel that has had its status since exactly then.
    pub only_since: Option<DateTime<Utc>>,
    /// Why: a kebab-case word, or the image's name when pulling.
    pub reason: String,
    /// Merged into `status_data` of the kernels and the session.
    pub data: Map<String, Value>,
    /// Exit code of the kernel's main process, when it is known.
    pub exit_code: Option<i32>,
    /// The kernel's last statistics, in the shape clients see; only of one kernel.
    pub last_stat: Option<Value>,
    /// Who changes this, if it is not who changes the others.
    pub actor: Option<Arc<str>>,
    /// When this changes a kernel, end the session's other kernels for the same reason.
    pub with_siblings: bool,
    /// Where each kernel shall lie; only with SCHEDULED, where it is required.
    pub placement: Vec<(KernelId, AgentId)>,
    /// What the kernel turned out to be; only with RUNNING.
    pub started: Option<Started>,
}

/// What a started kernel turned out to be.
#[derive(Clone, Debug)]
pub struct Started {
    /// The engine's id of the container.
    pub container_id: String,
    /// Address of the agent as clients of apps see it.
    pub kernel_host: String,
    /// Apps it can serve.
    pub service_ports: Vec<ServicePort>,
    /// Which devices it got: kind → slot → device → amount.
    pub attached_devices: Value,
}

impl Change {
    /// A change of all kernels of a session.
    pub fn session(session: SessionId, to: KernelStatus, reason: impl Into<String>) -> Self {
        Self {
            session,
            scope: Scope::Session,
            to,
            only_from: &[],
            only_since: None,
            reason: reason.into(),
            data: Map::new(),
            exit_code: None,
            last_stat: None,
            actor: None,
            with_siblings: false,
            placement: Vec::new(),
            started: None,
        }
    }

    /// A change of one kernel.
    pub fn kernel(
        session: SessionId,
        kernel: KernelId,
        to: KernelStatus,
        reason: impl Into<String>,
    ) -> Self {
        Self { scope: Scope::Kernel(kernel), ..Self::session(session, to, reason) }
    }

    /// Limits the change to kernels in one of these statuses.
    pub fn only_from(mut self, statuses: &'static [KernelStatus]) -> Self {
        self.only_from = statuses;
        self
    }

    /// Adds details of the reason.
    pub fn with_data(mut self, key: &str, value: Value) -> Self {
        self.data.insert(key.to_owned(), value);
        self
    }
}

/// What the door has changed.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Sessions whose status changed, with the old and the new one.
    pub sessions: Vec<(SessionId, SessionStatus, SessionStatus)>,
    /// Kernels that changed.
    pub kernels: Vec<ChangedKernel>,
    /// For each wanted change, what became of it.
    pub outcomes: Vec<Outcome>,
}

/// A kernel whose status changed.
#[derive(Clone, Debug)]
pub struct ChangedKernel {
    /// The kernel.
    pub id: KernelId,
    /// Its session.
    pub session: SessionId,
    /// Where it lies (or lay).
    pub agent: Option<AgentId>,
    /// The old status.
    pub from: KernelStatus,
    /// The new status.
    pub to: KernelStatus,
}

/// What became of one wanted change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At least one kernel changed.
    Applied,
    /// There was nothing to change (any more).
    Unchanged,
    /// The diagram has no such arrow for any kernel concerned.
    Illegal(TransitionError),
    /// There is no such session or kernel.
    Missing,
}

impl Changed {
    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.kernels.is_empty()
    }

    /// True when a kernel ended, so that there is room for others.
    pub fn freed_resources(&self) -> bool {
        self.kernels.iter().any(|kernel| {
            kernel.from != KernelStatus::Pending && !KernelStatus::OCCUPYING.contains(&kernel.to)
        })
    }

    /// True when a kernel entered the status.
    pub fn entered(&self, status: KernelStatus) -> bool {
        self.kernels.iter().any(|kernel| kernel.to == status)
    }
}

impl Transaction {
    /// Makes many changes at once, in order; see the module's description.
    ///
    /// # Errors
    /// PostgreSQL failed. A change that may not be made is no error but an [`Outcome`].
    pub async fn transition(&self, changes: &[Change], by: By<'_>) -> Result<Changed> {
        if changes.is_empty() {
            return Ok(Changed::default());
        }
        let mut sessions = self.lock_for_transition(changes).await?;
        let mut plan = plan::Plan::default();
        for change in changes {
            let outcome = match sessions.get_mut(&change.session) {
                Some(session) => plan.apply(session, change)?,
                None => Outcome::Missing,
            };
            plan.changed.outcomes.push(outcome);
        }
        self.write_plan(&plan, by).await?;
        Ok(plan.changed)
    }

    /// Changes all kernels of one session.
    ///
    /// # Errors
    /// The diagram has no such arrow, there is no such session, or PostgreSQL failed.
    pub async fn session_transition(&self, change: Change, by: By<'_>) -> Result<Changed> {
        let changed = self.transition(&[change], by).await?;
        match &changed.outcomes[0] {
            Outcome::Illegal(error) => Err(error.clone().into()),
            Outcome::Missing => {
                Err(crate::DatastoreError::RowCount { what: "the session to change", rows: 0 })
            }
            Outcome::Applied | Outcome::Unchanged => Ok(changed),
        }
    }

    /// Changes one kernel.
    ///
    /// # Errors
    /// As [`Transaction::session_transition`].
    pub async fn kernel_transition(&self, change: Change, by: By<'_>) -> Result<Changed> {
        self.session_transition(change, by).await
    }
}
