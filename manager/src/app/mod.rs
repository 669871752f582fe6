//! The business rules, one folder or file per resource.
//!
//! Nothing here knows HTTP: functions take an [`App`] and a
//! [`RequestContext`](crate::context::RequestContext), and return plain data or an [`Error`].

pub mod account;
pub mod agent;
pub mod audit;
pub mod background_task;
pub mod config_key;
pub mod container_registry;
pub mod domain;
pub mod dotfile;
pub mod error;
pub mod error_log;
pub mod group;
pub mod image;
pub mod keypair;
pub mod login;
pub mod manager_status;
pub mod network;
pub mod password;
pub mod preset;
pub mod resource_policy;
pub mod resource_slot;
pub mod scaling_group;
pub mod scheduler_status;
pub mod session;
pub mod ssh_keypair;
pub mod statistics;
pub mod template;
pub mod totp;
pub mod usage;
pub mod user;
pub mod vfolder;
pub mod watcher;

use std::sync::Arc;
use std::time::Duration;

use backendai_datastore::Datastore;
use backendai_datastore::transition::{By, Changed, Deadlines, Outcome};
use backendai_service::etcd::Etcd;
use backendai_service::redis::Redis;
use backendai_types::KernelStatus;

use crate::agents::AgentPool;
use crate::config::ManagerConfig;
use crate::feed::Feed;
use crate::shared_config::SharedConfig;
use crate::wake::{Task, Wake};

use background_task::BackgroundTasks;
pub use error::{Error, Result};

/// What every rule may use. One per process, behind an [`Arc`].
pub struct App {
    /// The manager's own configuration.
    pub config: ManagerConfig,
    /// PostgreSQL.
    pub datastore: Datastore,
    /// The cluster's shared configuration.
    pub etcd: Etcd,
    /// The parts of the shared configuration that requests need, cached.
    pub shared: SharedConfig,
    /// Counters and live statistics.
    pub redis: Redis,
    /// Wakes tasks and whoever waits for a session.
    pub wake: Wake,
    /// Clients of the agents.
    pub agents: AgentPool,
    /// Counts of executed code that have not reached the database yet.
    pub executions: session::execute::Executions,
    /// How far the output of runs has come.
    pub received_output: session::received::ReceivedOutput,
    /// What happens to sessions, as it happens.
    pub feed: Feed,
    /// Runs work that outlives its request.
    pub background_tasks: BackgroundTasks,
    /// Where folders lie.
    pub volumes: vfolder::host::Volumes,
}

impl App {
    /// Who changes the status of sessions, with the configured time limits.
    pub fn by<'a>(&self, actor: &'a str) -> By<'a> {
        let tunables = &self.config.tunables;
        By {
            actor,
            deadlines: Deadlines {
                scheduled: Duration::from_secs_f64(tunables.scheduled_deadline_s),
                preparing: Duration::from_secs_f64(tunables.preparing_deadline_s),
                terminating: Duration::from_secs_f64(tunables.terminating_deadline_s),
            },
        }
    }

    /// Wakes whoever has something to do after a committed change of status.
    pub fn wake_after(&self, changed: &Changed) {
        if changed.outcomes.contains(&Outcome::Applied) {
            self.wake.task(Task::FollowTransitions);
        }
        for (session, ..) in &changed.sessions {
            self.wake.session(*session);
        }
        if changed.entered(KernelStatus::Scheduled) {
            self.wake.task(Task::StartSessions);
        }
        if changed.entered(KernelStatus::Restarting) {
            self.wake.task(Task::RestartSessions);
        }
        if changed.entered(KernelStatus::Terminating) {
            self.wake.task(Task::ReapSessions);
        }
        if changed.freed_resources() {
            self.wake.task(Task::ScheduleSessions);
        }
    }
}

/// Shared by all requests and tasks.
pub type SharedApp = Arc<App>;
