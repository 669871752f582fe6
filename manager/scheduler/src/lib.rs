//! Decides which waiting session gets which agents. Pure: what it knows is passed in, what
//! it decides comes out, with the reasons; the same input gives the same output.
//!
//! Happy path: a [`Scheduler`] is made from the agents of one scaling group and a
//! [`Policy`]; [`Scheduler::learn`] tells it the limits of the owners concerned, and
//! [`Scheduler::schedule`] takes waiting sessions in order of creation, page by page. Every
//! placement is taken off the agents' room and the owners' limits at once, so that the next
//! session sees it.
//!
//! This crate has no clock, no randomness and no I/O, and knows neither SQL nor tokio.
//!
//! # Who waits for whom
//! A session that fits nowhere now, but would on an emptier agent, holds up those behind it
//! that need agents of the same architecture: otherwise small sessions would starve it.
//! Sessions held back by a limit of their owner, and those that no agent could ever hold,
//! hold up nobody.

mod agents;
mod amounts;
mod engine;
mod predicates;
mod quota;

use std::collections::BTreeMap;

use backendai_types::{
    AccessKey, AgentId, ClusterMode, GroupId, KernelId, ResourceLimits, ResourceSlots, SessionId,
    SessionType, UserId,
};
use chrono::{DateTime, TimeDelta, Utc};

pub use engine::Scheduler;
pub use predicates::Failure;

/// How a scaling group schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The group's name, for messages.
    pub scaling_group: String,
    /// Which session comes next.
    pub order: Order,
    /// Which agent is best.
    pub strategy: Strategy,
    /// Slots in the order in which they matter for choosing an agent; `cuda` stands for
    /// `cuda.device` and `cuda.shares` as well. Others come last.
    pub slot_priority: Vec<String>,
    /// Sessions that have waited this long are given up.
    pub pending_timeout: Option<TimeDelta>,
    /// Kernels an agent may have at most.
    pub max_kernels: Option<u32>,
}

/// Which session comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The one that has waited longest.
    Fifo {
        /// After this many attempts a session no longer holds up others; 0 is never.
        num_retries_to_skip: u32,
    },
    /// The one that came last.
    Lifo,
    /// The first one of the keypair with the least dominant share.
    Drf,
}

/// Which agent is best among those that have room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The one with most room.
    Dispersed,
    /// The one with least room.
    Concentrated,
    /// The largest one.
    Legacy,
}

/// An agent that may be given kernels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// `x86_64`…
    pub architecture: String,
    /// What it offers.
    pub capacity: ResourceSlots,
    /// What is taken of it.
    pub used: ResourceSlots,
    /// Kernels it has.
    pub kernels: u32,
}

/// A session that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What it is for.
    pub session_type: SessionType,
    /// Where its kernels may lie.
    pub cluster_mode: ClusterMode,
    /// The owner's keypair.
    pub access_key: AccessKey,
    /// The owner.
    pub user_id: UserId,
    /// The group it belongs to.
    pub group_id: GroupId,
    /// The owner's domain.
    pub domain_name: String,
    /// True for system (sftp) sessions, which have limits of their own.
    pub is_private: bool,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a batch session may start.
    pub starts_at: Option<DateTime<Utc>>,
    /// Agents a superadmin asked for: one for all kernels, or one for each.
    pub designated_agents: Option<Vec<AgentId>>,
    /// How often it was tried already.
    pub retries: u32,
    /// Sessions it waits for: id and name.
    pub unmet_dependencies: Vec<(SessionId, String)>,
    /// Its kernels, the main one first.
    pub kernels: Vec<Kernel>,
}

/// A kernel that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its id.
    pub id: KernelId,
    /// Name of its image, for messages.
    pub image: String,
    /// Architecture its agent must have.
    pub architecture: String,
    /// What it asks for.
    pub slots: ResourceSlots,
}

/// Limits of owners, and what they have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of keypairs. One that is missing may have nothing.
    pub keypairs: BTreeMap<AccessKey, KeypairQuota>,
    /// Of users, by their main keypair. One that is missing may have nothing.
    pub users: BTreeMap<UserId, Quota>,
    /// Of groups. One that is missing has no limit.
    pub groups: BTreeMap<GroupId, Quota>,
    /// Of domains. One that is missing has no limit.
    pub domains: BTreeMap<String, Quota>,
}

/// A cap on resource slots, and what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The cap.
    pub limits: ResourceLimits,
    /// What is taken.
    pub used: ResourceSlots,
}

/// Limits of a keypair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeypairQuota {
    /// On resource slots.
    pub slots: Quota,
    /// Sessions at once; `None` is unlimited.
    pub max_sessions: Option<i64>,
    /// Sessions it has.
    pub sessions: i64,
    /// Private sessions at once; `None` is unlimited.
    pub max_private_sessions: Option<i64>,
    /// Private sessions it has.
    pub private_sessions: i64,
}

/// What was decided about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The session.
    pub session: SessionId,
    /// What.
    pub outcome: Outcome,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Each kernel has its agent.
    Placed(Vec<(KernelId, AgentId)>),
    /// It must wait for something other than room.
    Waits {
        /// What stands against it.
        failed: Vec<Failure>,
        /// Names of the conditions that are met.
        passed: Vec<&'static str>,
    },
    /// No agent has room for it.
    NoAgent {
        /// Why, in words.
        message: String,
    },
    /// It is given up, for this reason (`pending-timeout`…).
    Cancelled {
        /// A kebab-case word.
        reason: &'static str,
        /// What stood against it.
        failed: Vec<Failure>,
    },
}

/// Everything a pass needs to know, for callers that have it all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Now.
    pub now: DateTime<Utc>,
    /// How the group schedules.
    pub policy: Policy,
    /// Its agents.
    pub agents: Vec<Agent>,
    /// Limits of the owners.
    pub quotas: Quotas,
    /// Waiting sessions in order of creation.
    pub sessions: Vec<Session>,
}

/// Decides about a whole snapshot. Sessions it says nothing about wait behind another.
pub fn schedule(snapshot: Snapshot) -> Vec<Decision> {
    let mut scheduler = Scheduler::new(snapshot.now, snapshot.policy, snapshot.agents);
    scheduler.learn(snapshot.quotas);
    scheduler.schedule(&snapshot.sessions)
}
