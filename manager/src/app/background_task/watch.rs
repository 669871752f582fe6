//! Watching a background task.

use std::time::Duration;

use backendai_datastore::background_task::{BackgroundTaskRow, TaskStatus};
use backendai_types::BackgroundTaskId;

use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;
use crate::wake::Watch;

/// The longest time without a look, should a wake-up of another manager be lost.
const INTERVAL: Duration = Duration::from_secs(2);

/// What a watcher is told next.
#[derive(Clone, Debug)]
pub enum News {
    /// The task has come this far.
    Progress(BackgroundTaskRow),
    /// The task has ended while it was watched.
    Ended(BackgroundTaskRow),
    /// The task had ended before it was watched.
    HadEnded(BackgroundTaskRow),
}

/// Watches one task.
pub struct Watcher {
    app: SharedApp,
    watch: Watch,
    id: BackgroundTaskId,
    /// The first look at it, until it is told.
    first: Option<BackgroundTaskRow>,
    /// The revision that was told last; 0 is that of a task that has said nothing yet.
    told: i64,
}

/// Begins to watch a task.
///
/// # Errors
/// There is no such task, or it is another's.
pub async fn watch(
    app: &SharedApp,
    context: &RequestContext,
    id: BackgroundTaskId,
) -> Result<Watcher> {
    // Taken before the first look, so that no change is missed.
    let watch = app.wake.watch_background_task(id);
    let task = app.datastore.autocommit().await?.background_task_get(id).await?;
    let first = task.filter(|task| task.user_id == context.user_id || context.is_superadmin());
    let first = Some(first.ok_or_else(no_such_task)?);
    Ok(Watcher { app: app.clone(), watch, id, first, told: 0 })
}

impl Watcher {
    /// What is new. After an end nothing more comes.
    ///
    /// # Errors
    /// PostgreSQL failed, or the task was forgotten meanwhile.
    pub async fn next(&mut self) -> Result<News> {
        if let Some(first) = self.first.take() {
            if first.status != TaskStatus::Started {
                return Ok(News::HadEnded(first));
            }
            if first.revision > 0 {
                self.told = first.revision;
                return Ok(News::Progress(first));
            }
        }
        loop {
            tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let db = self.app.datastore.autocommit().await?;
            let task = db.background_task_get(self.id).await?.ok_or_else(no_such_task)?;
            if task.revision > self.told {
                self.told = task.revision;
                return Ok(match task.status {
                    TaskStatus::Started => News::Progress(task),
                    _ => News::Ended(task),
                });
            }
        }
    }
}

fn no_such_task() -> Error {
    Error::NotFound { object: "background task", message: None }
}
