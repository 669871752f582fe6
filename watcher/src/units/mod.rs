//! systemd units, and which of them may be touched.

pub mod systemd;

use async_trait::async_trait;
use serde::Serialize;

/// What can be done to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Start it if it does not run.
    Start,
    /// Stop it if it runs.
    Stop,
    /// Stop and start it.
    Restart,
    /// Have it read its configuration anew.
    Reload,
}

/// How a unit is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UnitState {
    /// `active`, `inactive`, `activating`, `failed`, …
    pub active: String,
    /// The state in more words: `running`, `dead`, `auto-restart`, …
    pub sub: String,
    /// `loaded`, or `not-found` where there is no such unit.
    pub load: String,
    /// What the service says of itself; empty if nothing.
    pub status: String,
    /// How its last run ended: `success`, `exit-code`, `watchdog`, …
    pub result: String,
    /// Its main process; 0 if it does not run.
    pub main_pid: u32,
    /// How often systemd started it again by itself.
    pub restarts: u32,
}

/// The unit could not be asked or changed.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// This host is not managed by systemd, or its bus is closed to us.
    #[error("Agent is not loaded with systemctl.")]
    NoSystemd(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// systemd said no.
    #[error("systemd refuses to {action} {unit}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// What systemd said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// systemd tried and did not succeed.
    #[error("{unit}: the job ended as {result:?}; see `journalctl -u {unit}`")]
    Failed {
        /// Of which unit.
        unit: String,
        /// systemd's word: `failed`, `timeout`, `dependency`, …
        result: String,
    },
    /// It takes longer than a manager waits.
    #[error("{unit}: still under way; ask again for its state")]
    Slow {
        /// Of which unit.
        unit: String,
    },
    /// Not a unit the watcher is for.
    #[error("{0} is not a unit this watcher may touch")]
    Foreign(String),
}

/// systemd, or what stands for it in tests.
#[async_trait]
pub trait UnitManager: Send + Sync {
    /// How a unit is.
    ///
    /// # Errors
    /// There is no systemd.
    async fn state(&self, unit: &str) -> Result<UnitState, UnitError>;

    /// Does something to a unit and waits for its end.
    ///
    /// # Errors
    /// There is no systemd, it refuses, or the job fails or takes long.
    async fn run(&self, job: Job, unit: &str) -> Result<(), UnitError>;

    /// Powers the host off.
    ///
    /// # Errors
    /// There is no systemd, or it refuses.
    async fn power_off(&self) -> Result<(), UnitError>;
}

/// The one way to units: it knows which may be touched.
pub struct Units {
    manager: std::sync::Arc<dyn UnitManager>,
    target: String,
    may_control_host: bool,
}

/// Docker's unit, restarted by a hard reset.
const DOCKER: &str = "docker.service";

impl Units {
    /// Units of which `target` may be touched, and with `may_control_host` Docker's and the host.
    pub fn new(
        manager: std::sync::Arc<dyn UnitManager>,
        target: String,
        may_control_host: bool,
    ) -> Self {
        Self { manager, target, may_control_host }
    }

    /// How the agent's unit is.
    ///
    /// # Errors
    /// There is no systemd.
    pub async fn state(&self) -> Result<UnitState, UnitError> {
        self.manager.state(&self.target).await
    }

    /// Does something to the agent's unit.
    ///
    /// # Errors
    /// See [`UnitManager::run`].
    pub async fn run(&self, job: Job) -> Result<(), UnitError> {
        self.manager.run(job, &self.target).await
    }

    /// Stops the agent, restarts Docker, starts the agent.
    ///
    /// # Errors
    /// Not allowed here, or see [`UnitManager::run`].
    pub async fn hard_reset(&self) -> Result<(), UnitError> {
        if !self.may_control_host {
            return Err(UnitError::Foreign(DOCKER.to_owned()));
        }
        self.run(Job::Stop).await?;
        self.manager.run(Job::Restart, DOCKER).await?;
        self.run(Job::Start).await
    }

    /// Stops the agent and powers the host off.
    ///
    /// # Errors
    /// Not allowed here, or see [`UnitManager::run`].
    pub async fn shut_down(&self) -> Result<(), UnitError> {
        if !self.may_control_host {
            return Err(UnitError::Foreign("poweroff.target".to_owned()));
        }
        self.run(Job::Stop).await?;
        self.manager.power_off().await
    }
}
