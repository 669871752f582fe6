//! `GET /events/background-task`: how far a task is, and what comes of it.

use std::time::Duration;

use backendai_datastore::background_task::BackgroundTaskRow;
use backendai_service::telemetry::chain;
use backendai_types::BackgroundTaskId;
use serde_json::{Value, json};
use warp::reply::Response;
use warp::sse::Event;

use super::super::call::Call;
use super::super::params::rules;
use super::super::problem::Problem;
use super::{Gone, Sink, stream};
use crate::app::background_task::watch::{self, News, Watcher};

/// Written as `retry: 5`. The stock client takes it for seconds, so it cannot be longer;
/// browsers take it for milliseconds.
const RETRY: Duration = Duration::from_millis(5);

/// `GET /events/background-task`
pub async fn background_task(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let id = params.required(&["task_id", "taskId"], rules::uuid);
    params.finish()?;
    let watcher = watch::watch(&call.app, &context, BackgroundTaskId(id)).await?;
    Ok(stream(&call, |sink| feed(watcher, sink)))
}

async fn feed(mut watcher: Watcher, sink: Sink) -> Result<(), Gone> {
    loop {
        let (event, is_end) = match watcher.next().await {
            Ok(News::Progress(task)) => (progress(&task).retry(RETRY), false),
            Ok(News::Ended(task)) => (end(&task).retry(RETRY), true),
            Ok(News::HadEnded(task)) => (past_end(&task), true),
            Err(error) => {
                // The client connects again.
                tracing::warn!(error = chain(&error), "the watch of a background task was cut");
                return Ok(());
            }
        };
        sink.send(event).await?;
        if is_end {
            return sink.send(named("server_close", &json!({}))).await;
        }
    }
}

fn progress(task: &BackgroundTaskRow) -> Event {
    let view = json!({
        "task_id": task.id,
        "message": task.progress.message,
        "current_progress": task.progress.current,
        "total_progress": task.progress.total,
    });
    named("bgtask_updated", &view)
}

fn end(task: &BackgroundTaskRow) -> Event {
    let view = json!({ "task_id": task.id, "message": task.progress.message });
    named(&format!("bgtask_{}", task.status.as_str()), &view)
}

/// The contract has numbers as text here.
fn past_end(task: &BackgroundTaskRow) -> Event {
    let view = json!({
        "task_id": task.id,
        "status": task.status.as_str(),
        "current_progress": task.progress.current.to_string(),
        "total_progress": task.progress.total.to_string(),
        "message": task.progress.message,
    });
    named(&format!("bgtask_{}", task.status.as_str()), &view)
}

fn named(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
