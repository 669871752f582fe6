//! Committing a session: its main container becomes an archive on its agent's host.
//!
//! The agent does the work and knows it by the background task's id, so the task can be
//! carried on by any manager: it asks for the same commit again.

use std::time::Duration;

use backendai_datastore::background_task::BackgroundTaskRow;
use backendai_datastore::kernel::LocatedKernel;
use backendai_rpc::agent_api::{CommitKernel, CommitState};
use backendai_rpc::call::{CallError, ErrorKind};
use backendai_types::{BackgroundTaskId, KernelId, KernelStatus, SessionId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lookup;
use crate::app::background_task::{self, Begin, Begun, End, Reporter};
use crate::app::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// The task's name.
pub const TASK: &str = "commit_session";
/// How long the agent holds back an answer while it has nothing new but a number.
const WAIT: Duration = Duration::from_secs(1);
/// Pause before an agent or database that is away is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of the session's name in the name of the file.
const NAME_LENGTH: usize = 32;

/// A commit that is under way.
#[derive(Clone, Debug)]
pub struct CommitUnderWay {
    /// The task that waits for it.
    pub task: BackgroundTaskId,
    /// The kernel whose container is committed.
    pub kernel: KernelId,
    /// Where the archive will be, below the agent's folder for commits.
    pub path: String,
}

/// What is to be committed and where to; kept with the task.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wanted {
    session_id: SessionId,
    kernel_id: KernelId,
    subdir: String,
    filename: String,
}

impl Wanted {
    fn path(&self) -> String {
        format!("{}/{}", self.subdir, self.filename)
    }
}

/// Begins to commit the caller's session. While a commit of it is under way, gives that one.
///
/// # Errors
/// No such session, or it does not run.
pub async fn commit(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<CommitUnderWay> {
    let session = lookup::find_live(app, &context.access_key, reference).await?;
    let kernel = main_kernel(app, session.id).await?;
    let Some(kernel) = kernel.filter(|kernel| kernel.status == KernelStatus::Running) else {
        return Err(Error::invalid(format!(
            "The session {} is not running: its status is {}.",
            session.name, session.status
        )));
    };
    let wanted = Wanted {
        session_id: session.id,
        kernel_id: kernel.id,
        subdir: context.email.replace(['@', '/'], "_"),
        filename: filename(Utc::now(), &session.name, &session.image),
    };
    let begin = Begin::new(TASK).only_one_for(kernel.id).with_arguments(json!(wanted));
    let work = |id, reporter| follow(app.clone(), wanted.clone(), id, reporter);
    let begun = background_task::start(app, context.user_id, begin, work).await?;
    let wanted = match &begun {
        Begun::New(_) => wanted,
        Begun::UnderWay(task) => arguments(task)?,
    };
    Ok(CommitUnderWay { task: begun.id(), kernel: kernel.id, path: wanted.path() })
}

/// The main kernel of the caller's session, and whether it is being committed.
///
/// # Errors
/// No such session, or it has no kernel yet.
pub async fn status(
    app: &SharedApp,
    context: &RequestContext,
    reference: &str,
) -> Result<(KernelId, bool)> {
    let session = lookup::find_live(app, &context.access_key, reference).await?;
    let kernel = main_kernel(app, session.id).await?;
    let kernel = kernel.ok_or(Error::NotFound { object: "main kernel", message: None })?;
    let db = app.datastore.autocommit().await?;
    let task = db.background_task_under_way(TASK, &kernel.id.to_string()).await?;
    Ok((kernel.id, task.is_some()))
}

/// Goes on with a commit that another process of the manager had begun to wait for.
///
/// # Errors
/// Its arguments cannot be read.
pub fn carry_on(app: &SharedApp, task: &BackgroundTaskRow) -> Result<()> {
    let wanted = arguments(task)?;
    let work = |id, reporter| follow(app.clone(), wanted, id, reporter);
    background_task::run(app, TASK, task.id, work);
    Ok(())
}

/// Asks the agent for the commit until it has an end.
async fn follow(app: SharedApp, wanted: Wanted, id: BackgroundTaskId, reporter: Reporter) -> End {
    loop {
        match ask(&app, &wanted, id).await {
            Ok(CommitState::Ongoing { bytes }) => {
                reporter.report(bytes, bytes, format!("Exported {} MiB", bytes >> 20));
            }
            Ok(CommitState::Done { .. }) => return End::Done(wanted.path()),
            Ok(CommitState::Failed { message }) => return End::Failed(message),
            Err(Stop::Ended) => return End::Cancelled("The session ended before that.".into()),
            Err(Stop::Failed(error)) => return End::failed(&error),
            Err(Stop::Away) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Why the agent did not say how far it is.
enum Stop {
    /// The kernel is gone.
    Ended,
    /// It, or the database, does not answer now.
    Away,
    Failed(CallError),
}

async fn ask(app: &SharedApp, wanted: &Wanted, id: BackgroundTaskId) -> Result<CommitState, Stop> {
    let kernel = main_kernel(app, wanted.session_id).await.map_err(|_| Stop::Away)?;
    let kernel = kernel.filter(|kernel| kernel.id == wanted.kernel_id).ok_or(Stop::Ended)?;
    let call = CommitKernel {
        commit_id: id,
        kernel_id: wanted.kernel_id,
        subdir: wanted.subdir.clone(),
        filename: wanted.filename.clone(),
        wait_ms: u64::try_from(WAIT.as_millis()).unwrap_or_default(),
    };
    let asked = app.agents.client(&kernel.agent, None).commit(&call).await;
    asked.map_err(|error| match &error {
        CallError::Remote(remote) if remote.kind == ErrorKind::KernelNotFound => Stop::Ended,
        _ if kernel.status.is_terminal() => Stop::Ended,
        error if error.is_transient() => Stop::Away,
        _ => Stop::Failed(error),
    })
}

async fn main_kernel(app: &SharedApp, session: SessionId) -> Result<Option<LocatedKernel>> {
    Ok(app.datastore.autocommit().await?.main_kernel_located(session).await?)
}

fn arguments(task: &BackgroundTaskRow) -> Result<Wanted> {
    serde_json::from_value(task.arguments.clone())
        .map_err(|error| Error::internal("read the arguments of a commit", error))
}

/// `<time>_<session>_<image>.tar.gz`, without characters that file systems mind.
fn filename(now: DateTime<Utc>, session: &str, image: &str) -> String {
    let time = now.format("%Y-%m-%dT%HH%MM%SS");
    let session: String = session.chars().take(NAME_LENGTH).collect();
    let image = image.rsplit('/').next().unwrap_or(image);
    format!("{time}_{session}_{image}.tar.gz").replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_time_session_and_image() {
        let now = "2026-11-21T04:03:45Z".parse().unwrap();
        let image = "127.0.0.1:5000/stable/python:3.11-debian12";
        assert_eq!(
            filename(now, "capB", image),
            "2026-11-21T04H03M45S_capB_python-3.11-debian12.tar.gz"
        );
        assert!(filename(now, &"x".repeat(64), image).contains(&format!("_{}_", "x".repeat(32))));
    }
}
