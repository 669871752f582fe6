//! Background tasks whose manager died get an end that says so, or another manager.

use std::time::Duration;

use async_trait::async_trait;

use super::{Task, TaskError};
use crate::app::{SharedApp, background_task};

pub(super) struct AbandonedTasks {
    app: SharedApp,
    interval: Duration,
}

impl AbandonedTasks {
    pub fn new(app: SharedApp) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, interval }
    }
}

#[async_trait]
impl Task for AbandonedTasks {
    fn name(&self) -> &'static str {
        "background_tasks"
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        Ok(background_task::carry_on(&self.app).await?)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.interval).await;
    }
}
