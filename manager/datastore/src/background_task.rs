//! Work that outlives the request that began it.
//!
//! The process that runs a task holds its row by a lease and alone writes to it: what an
//! earlier process writes late touches no row. When a lease has passed, nobody runs
//! the task: another process takes it over, or it is noted as failed.

use std::collections::HashSet;
use std::time::Duration;

use backendai_types::{BackgroundTaskId, UserId};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::Result;
use crate::row;
use crate::tx::Transaction;

/// Violated when a task of the same name and subject runs already.
pub const ONE_AT_A_TIME: &str = "background_tasks_one_at_a_time";
/// How long a row is kept after its last change.
const KEPT_HOURS: i32 = 24;
const COLUMNS: &str = "id, name, subject, user_uuid, status, current_progress, total_progress,
    message, arguments, revision";

/// What became of a task so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// It runs.
    Started,
    /// It did what it was to do.
    Done,
    /// It was given up for a good reason.
    Cancelled,
    /// It could not do what it was to do.
    Failed,
}

impl TaskStatus {
    /// The spelling in SQL and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for TaskStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Started, Self::Done, Self::Cancelled, Self::Failed]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("unknown status {text:?}"))
    }
}

/// A process that runs tasks.
#[derive(Clone, Copy, Debug)]
pub struct TaskRunner<'a> {
    /// Id of the manager, for people.
    pub manager: &'a str,
    /// The process.
    pub incarnation: Uuid,
    /// How long tasks stay its own without renewal.
    pub lease: Duration,
}

/// A task that begins.
#[derive(Clone, Debug)]
pub struct NewBackgroundTask {
    /// Its id.
    pub id: BackgroundTaskId,
    /// What is done.
    pub name: &'static str,
    /// What it is done to, if that can be done only once at a time.
    pub subject: Option<String>,
    /// Who wants it.
    pub user_id: UserId,
    /// What another process needs to carry it on.
    pub arguments: Value,
}

/// A task as it stands.
#[derive(Clone, Debug)]
pub struct BackgroundTaskRow {
    /// Its id.
    pub id: BackgroundTaskId,
    /// What is done.
    pub name: String,
    /// What it is done to.
    pub subject: Option<String>,
    /// Who wanted it.
    pub user_id: UserId,
    /// What became of it.
    pub status: TaskStatus,
    /// How far it is.
    pub progress: Progress,
    /// What another process needs to carry it on.
    pub arguments: Value,
    /// Grows with every change.
    pub revision: i64,
}

/// How far a task is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Done of `total`.
    pub current: i64,
    /// All there is to do, as far as it is known.
    pub total: i64,
    /// What was done last; of an ended task, what came of it.
    pub message: String,
}

impl Transaction {
    /// Notes that a task begins.
    ///
    /// # Errors
    /// [`ONE_AT_A_TIME`] is violated, or PostgreSQL failed.
    pub async fn background_task_insert(
        &self,
        new: &NewBackgroundTask,
        runner: TaskRunner<'_>,
    ) -> Result<()> {
        self.execute_one(
            "the task that begins",
            "-- background_task_insert
            INSERT INTO background_tasks
                (id, name, subject, user_uuid, arguments, manager, incarnation, lease_until)
            VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))",
            &[
                &new.id.0,
                &new.name,
                &new.subject,
                &new.user_id.0,
                &new.arguments,
                &runner.manager,
                &runner.incarnation,
                &runner.lease.as_secs_f64(),
            ],
        )
        .await
    }

    /// A task by id; `None` if there is none or it is older than is kept.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_task_get(
        &self,
        id: BackgroundTaskId,
    ) -> Result<Option<BackgroundTaskRow>> {
        let sql = format!(
            "-- background_task_get
            SELECT {COLUMNS} FROM background_tasks
            WHERE id = $1 AND (status = 'started' OR updated_at > now() - make_interval(hours => $2))"
        );
        self.query_opt(&sql, &[&id.0, &KEPT_HOURS]).await?.as_ref().map(task).transpose()
    }

    /// The task of this name that is under way with this subject, if there is one.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_task_under_way(
        &self,
        name: &str,
        subject: &str,
    ) -> Result<Option<BackgroundTaskRow>> {
        let sql = format!(
            "-- background_task_under_way
            SELECT {COLUMNS} FROM background_tasks
            WHERE name = $1 AND subject = $2 AND status = 'started'"
        );
        self.query_opt(&sql, &[&name, &subject]).await?.as_ref().map(task).transpose()
    }

    /// Which of these subjects have a task of this name under way.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_task_subjects(
        &self,
        name: &str,
        subjects: &[String],
    ) -> Result<HashSet<String>> {
        let rows = self
            .query(
                "-- background_task_subjects
                SELECT subject FROM background_tasks
                WHERE name = $1 AND subject = ANY($2 /* subjects */) AND status = 'started'",
                &[&name, &subjects],
            )
            .await?;
        rows.iter().map(|row| Ok(row.try_get("subject")?)).collect()
    }

    /// Notes how far a task is, or with which status it ended. False if it is not this
    /// process's (any more).
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_task_update(
        &self,
        id: BackgroundTaskId,
        incarnation: Uuid,
        status: TaskStatus,
        progress: &Progress,
    ) -> Result<bool> {
        let rows = self
            .execute(
                "-- background_task_update
                UPDATE background_tasks SET status = $3, current_progress = $4,
                    total_progress = $5, message = $6, revision = revision + 1, updated_at = now()
                WHERE id = $1 AND incarnation = $2 AND status = 'started'",
                &[
                    &id.0,
                    &incarnation,
                    &status.as_str(),
                    &progress.current,
                    &progress.total,
                    &progress.message,
                ],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Keeps all tasks of a process its own for another lease.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_tasks_renew(&self, runner: TaskRunner<'_>) -> Result<()> {
        self.execute(
            "-- background_tasks_renew
            UPDATE background_tasks SET lease_until = now() + make_interval(secs => $2)
            WHERE incarnation = $1 AND status = 'started'",
            &[&runner.incarnation, &runner.lease.as_secs_f64()],
        )
        .await?;
        Ok(())
    }

    /// Gives up a task of a process that stops: others need not wait for its lease to pass.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_task_release(
        &self,
        id: BackgroundTaskId,
        incarnation: Uuid,
    ) -> Result<()> {
        self.execute(
            "-- background_task_release
            UPDATE background_tasks SET lease_until = now()
            WHERE id = $1 AND incarnation = $2 AND status = 'started'",
            &[&id.0, &incarnation],
        )
        .await?;
        Ok(())
    }

    /// Makes the tasks of these names that nobody runs the process's own.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_tasks_take_over(
        &self,
        names: &[&str],
        runner: TaskRunner<'_>,
    ) -> Result<Vec<BackgroundTaskRow>> {
        let sql = format!(
            "-- background_tasks_take_over
            UPDATE background_tasks SET manager = $2, incarnation = $3,
                lease_until = now() + make_interval(secs => $4)
            WHERE name = ANY($1 /* that can be carried on */)
              AND status = 'started' AND lease_until < now()
            RETURNING {COLUMNS}"
        );
        let lease_s = runner.lease.as_secs_f64();
        let rows =
            self.query(&sql, &[&names, &runner.manager, &runner.incarnation, &lease_s]).await?;
        rows.iter().map(task).collect()
    }

    /// Notes as failed the tasks that nobody runs, but for those of these names. Gives
    /// their ids.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_tasks_fail_abandoned(
        &self,
        except: &[&str],
    ) -> Result<Vec<BackgroundTaskId>> {
        let rows = self
            .query(
                "-- background_tasks_fail_abandoned
                UPDATE background_tasks SET status = 'failed', revision = revision + 1,
                    updated_at = now(),
                    message = format('The manager %s stopped before this was done.', manager)
                WHERE name <> ALL($1 /* that can be carried on */)
                  AND status = 'started' AND lease_until < now()
                RETURNING id",
                &[&except],
            )
            .await?;
        rows.iter().map(|row| Ok(BackgroundTaskId(row.try_get("id")?))).collect()
    }

    /// Forgets tasks that ended long ago.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn background_tasks_purge(&self) -> Result<()> {
        self.execute(
            "-- background_tasks_purge
            DELETE FROM background_tasks
            WHERE status <> 'started' AND updated_at < now() - make_interval(hours => $1)",
            &[&KEPT_HOURS],
        )
        .await?;
        Ok(())
    }
}

fn task(row: &Row) -> Result<BackgroundTaskRow> {
    Ok(BackgroundTaskRow {
        id: BackgroundTaskId(row.try_get("id")?),
        name: row.try_get("name")?,
        subject: row.try_get("subject")?,
        user_id: UserId(row.try_get("user_uuid")?),
        status: row::parsed(row, "status")?,
        progress: Progress {
            current: row.try_get("current_progress")?,
            total: row.try_get("total_progress")?,
            message: row.try_get("message")?,
        },
        arguments: row.try_get("arguments")?,
        revision: row.try_get("revision")?,
    })
}
