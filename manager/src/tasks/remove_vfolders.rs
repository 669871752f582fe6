//! Removes folders that nobody wants any more, and what is left of uploads.

use std::time::Duration;

use async_trait::async_trait;

use super::{Task, TaskError};
use crate::app::{SharedApp, vfolder};
use crate::wake;

pub(super) struct RemoveVfolders {
    app: SharedApp,
    interval: Duration,
}

impl RemoveVfolders {
    pub fn new(app: SharedApp) -> Self {
        let interval = Duration::from_secs_f64(app.config.tunables.task_interval_s);
        Self { app, interval }
    }
}

#[async_trait]
impl Task for RemoveVfolders {
    fn name(&self) -> &'static str {
        wake::Task::RemoveVfolders.name()
    }

    async fn pass(&mut self) -> Result<(), TaskError> {
        vfolder::remove::unwanted(&self.app).await?;
        vfolder::remove::leftovers(&self.app).await?;
        vfolder::clone::resume(&self.app).await?;
        Ok(vfolder::remove::uploads(&self.app).await?)
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.app.wake.woken(wake::Task::RemoveVfolders) => {}
            () = tokio::time::sleep(self.interval) => {}
        }
    }
}
