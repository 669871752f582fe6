//! States of sessions and kernels, and which may follow which.
//!
//! ```text
//! PENDING ──► SCHEDULED ──► PREPARING ◄──► PULLING ──► RUNNING ──► TERMINATING ──► TERMINATED
//!    │            │              │            │           │             │
//!    ├────────────┴──────────────┴────────────┴──► (fail) │             │
//!    ▼                                                    ▼             ▼
//! CANCELLED                                             ERROR ──────► TERMINATED
//! ```
//!
//! The happy path: a request inserts the session and its kernels as PENDING; the scheduler
//! reserves slots on agents (SCHEDULED); the agents are told to create the kernels
//! (PREPARING), maybe pull the image (PULLING), and report each container as started
//! (RUNNING). A user or a rule ends it (TERMINATING) and the agents report the containers
//! gone (TERMINATED). A running session may be restarted (RESTARTING, then RUNNING again):
//! its containers are made anew. A session that never ran ends CANCELLED; one whose agents cannot say
//! what became of it ends ERROR and may still be destroyed by force.
//!
//! A session's status follows from those of its kernels ([`SessionStatus::from_kernels`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that names no variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}")]
pub struct UnknownName {
    /// The type that was wanted.
    pub kind: &'static str,
    /// What was given.
    pub text: String,
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every variant, in order of life.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The spelling on the wire and in SQL.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|v| v.as_str().eq_ignore_ascii_case(text))
                    .ok_or_else(|| UnknownName { kind: stringify!($name), text: text.to_owned() })
            }
        }
    };
}

pub(crate) use named_enum;

named_enum!(
    /// The state of a session.
    SessionStatus {
        /// Waits for the scheduler.
        Pending = "PENDING",
        /// Slots are reserved on agents.
        Scheduled = "SCHEDULED",
        /// Agents pull the image.
        Pulling = "PULLING",
        /// Agents create the containers.
        Preparing = "PREPARING",
        /// All kernels run.
        Running = "RUNNING",
        /// Containers are made anew for the same session.
        Restarting = "RESTARTING",
        /// The main kernel runs, a sibling does not.
        RunningDegraded = "RUNNING_DEGRADED",
        /// Agents remove the containers.
        Terminating = "TERMINATING",
        /// Ended after having run.
        Terminated = "TERMINATED",
        /// What became of it is not known.
        Error = "ERROR",
        /// Ended without having run.
        Cancelled = "CANCELLED",
    }
);

named_enum!(
    /// The state of a kernel.
    KernelStatus {
        /// Waits for the scheduler.
        Pending = "PENDING",
        /// Slots are reserved on its agent.
        Scheduled = "SCHEDULED",
        /// The agent creates the container.
        Preparing = "PREPARING",
        /// The agent pulls the image.
        Pulling = "PULLING",
        /// The container runs and its runner answers.
        Running = "RUNNING",
        /// The container is made anew.
        Restarting = "RESTARTING",
        /// The agent removes the container.
        Terminating = "TERMINATING",
        /// The container is gone.
        Terminated = "TERMINATED",
        /// What became of it is not known.
        Error = "ERROR",
        /// Ended without having run.
        Cancelled = "CANCELLED",
    }
);

named_enum!(
    /// What a session is for. SQL and GraphQL use the upper-case names, REST the lower-case ones.
    SessionType {
        /// A person or program sends code and opens apps.
        Interactive = "INTERACTIVE",
        /// Runs one startup command and ends.
        Batch = "BATCH",
        /// Serves a model.
        Inference = "INFERENCE",
    }
);

named_enum!(
    /// How a batch session ended.
    SessionResult {
        /// Not known (yet), or not a batch session.
        Undefined = "UNDEFINED",
        /// Exit code zero.
        Success = "SUCCESS",
        /// Any other end.
        Failure = "FAILURE",
    }
);

named_enum!(
    /// Where the kernels of a session may lie.
    ClusterMode {
        /// All on one agent.
        SingleNode = "single-node",
        /// Each where there is room.
        MultiNode = "multi-node",
    }
);

/// A state change that the diagram does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} in status {from} cannot become {to}")]
pub struct TransitionError {
    /// `session` or `kernel`.
    pub what: &'static str,
    /// The status it has.
    pub from: &'static str,
    /// The status that was wanted.
    pub to: &'static str,
}

impl SessionStatus {
    /// Ended for good.
    pub const TERMINAL: &'static [Self] = &[Self::Terminated, Self::Cancelled];
    /// Between two resting states: someone owns it and it has a deadline.
    pub const IN_BETWEEN: &'static [Self] =
        &[Self::Scheduled, Self::Pulling, Self::Preparing, Self::Restarting, Self::Terminating];
    /// Code may be executed.
    pub const LIVE: &'static [Self] = &[Self::Running, Self::RunningDegraded];

    /// Ended for good.
    pub fn is_terminal(self) -> bool {
        Self::TERMINAL.contains(&self)
    }

    /// The statuses that may follow.
    pub fn successors(self) -> &'static [Self] {
        use SessionStatus::*;
        match self {
            Pending => &[Scheduled, Cancelled, Error],
            Scheduled => &[Pending, Preparing, Terminating, Cancelled, Error],
            Preparing => {
                &[Pulling, Running, RunningDegraded, Terminating, Terminated, Cancelled, Error]
            }
            Pulling => {
                &[Preparing, Running, RunningDegraded, Terminating, Terminated, Cancelled, Error]
            }
            Running => &[Restarting, RunningDegraded, Terminating, Terminated, Error],
            Restarting => &[Running, RunningDegraded, Terminating, Terminated, Error],
            RunningDegraded => &[Running, Terminating, Terminated, Error],
            // CANCELLED when it could not be started and what there was of it is removed.
            Terminating => &[Terminated, Error, Cancelled],
            Error => &[Terminating, Terminated, Cancelled],
            Terminated | Cancelled => &[],
        }
    }

    /// Checks one change.
    ///
    /// # Errors
    /// The diagram has no such arrow.
    pub fn check_transition(self, to: Self) -> Result<(), TransitionError> {
        if self.successors().contains(&to) {
            Ok(())
        } else {
            Err(TransitionError { what: "session", from: self.as_str(), to: to.as_str() })
        }
    }

    /// The status that kernels in these statuses make, `main` being the main kernel's.
    /// Never CANCELLED while a kernel still occupies something.
    pub fn from_kernels(main: KernelStatus, all: &[KernelStatus]) -> Self {
        let any = |status| all.contains(&status);
        match main {
            KernelStatus::Pending => Self::Pending,
            KernelStatus::Scheduled => Self::Scheduled,
            KernelStatus::Pulling => Self::Pulling,
            KernelStatus::Preparing => Self::Preparing,
            KernelStatus::Restarting => Self::Restarting,
            KernelStatus::Terminating => Self::Terminating,
            KernelStatus::Error => Self::Error,
            KernelStatus::Running => {
                if any(KernelStatus::Restarting) {
                    Self::Restarting
                } else if any(KernelStatus::Pulling) {
                    Self::Pulling
                } else if any(KernelStatus::Preparing) || any(KernelStatus::Scheduled) {
                    Self::Preparing
                } else if all.iter().all(|s| *s == KernelStatus::Running) {
                    Self::Running
                } else {
                    Self::RunningDegraded
                }
            }
            KernelStatus::Terminated | KernelStatus::Cancelled => {
                if all.iter().all(|s| *s == KernelStatus::Cancelled) {
                    Self::Cancelled
                } else if any(KernelStatus::Error) {
                    Self::Error
                } else if all.iter().all(|s| s.is_terminal()) {
                    Self::Terminated
                } else {
                    Self::Terminating
                }
            }
        }
    }
}

impl KernelStatus {
    /// Ended for good.
    pub const TERMINAL: &'static [Self] = &[Self::Terminated, Self::Cancelled];
    /// Holds allocation rows on an agent.
    pub const OCCUPYING: &'static [Self] = &[
        Self::Scheduled,
        Self::Preparing,
        Self::Pulling,
        Self::Running,
        Self::Restarting,
        Self::Terminating,
        Self::Error,
    ];

    /// Ended for good.
    pub fn is_terminal(self) -> bool {
        Self::TERMINAL.contains(&self)
    }

    /// The statuses that may follow.
    pub fn successors(self) -> &'static [Self] {
        use KernelStatus::*;
        match self {
            Pending => &[Scheduled, Cancelled, Error],
            Scheduled => &[Pending, Preparing, Terminating, Cancelled, Error],
            Preparing => &[Pulling, Running, Terminating, Terminated, Cancelled, Error],
            Pulling => &[Preparing, Running, Terminating, Terminated, Cancelled, Error],
            Running => &[Restarting, Terminating, Terminated, Error],
            Restarting => &[Running, Terminating, Terminated, Error],
            Terminating => &[Terminated, Error],
            Error => &[Terminating, Terminated],
            Terminated | Cancelled => &[],
        }
    }

    /// Checks one change.
    ///
    /// # Errors
    /// The diagram has no such arrow.
    pub fn check_transition(self, to: Self) -> Result<(), TransitionError> {
        if self.successors().contains(&to) {
            Ok(())
        } else {
            Err(TransitionError { what: "kernel", from: self.as_str(), to: to.as_str() })
        }
    }
}

impl SessionType {
    /// The spelling of the REST API.
    pub fn as_rest_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
            Self::Inference => "inference",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_have_no_successors_and_others_can_end() {
        for status in SessionStatus::ALL {
            assert_eq!(status.is_terminal(), status.successors().is_empty(), "{status}");
        }
        for status in KernelStatus::ALL {
            assert_eq!(status.is_terminal(), status.successors().is_empty(), "{status}");
        }
    }

    #[test]
    fn session_status_follows_its_kernels() {
        use KernelStatus as K;
        use SessionStatus as S;
        for (kernels, session) in [
            (&[K::Running, K::Running][..], S::Running),
            (&[K::Running, K::Pulling], S::Pulling),
            (&[K::Running, K::Preparing], S::Preparing),
            (&[K::Running, K::Terminated], S::RunningDegraded),
            (&[K::Running, K::Restarting], S::Restarting),
            (&[K::Restarting, K::Running], S::Restarting),
            (&[K::Terminated, K::Terminating], S::Terminating),
            (&[K::Terminated, K::Cancelled], S::Terminated),
            (&[K::Cancelled, K::Cancelled], S::Cancelled),
            (&[K::Pending], S::Pending),
        ] {
            assert_eq!(S::from_kernels(kernels[0], kernels), session, "{kernels:?}");
        }
    }

    #[test]
    fn names_are_read_in_either_case() {
        assert_eq!("batch".parse(), Ok(SessionType::Batch));
        assert_eq!("RUNNING_DEGRADED".parse(), Ok(SessionStatus::RunningDegraded));
        assert!("nope".parse::<SessionStatus>().is_err());
    }
}
