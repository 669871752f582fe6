//! When the leader last looked for room and started sessions: for operators who wonder
//! whether it still does. Any manager is asked, so the leader tells it through Redis.

use std::time::Duration;

use backendai_service::redis::Redis;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Keys of the notes: the step's name follows.
const KEY: &str = "scheduler:pass";
/// The loops that are steps of scheduling, with the names operators know them by.
const STEPS: [(&str, &str); 2] = [("schedule_sessions", "schedule"), ("start_sessions", "prepare")];
/// A step without a loop: replicas of services are sessions, which the scheduler looks at.
const NO_LOOP: &str = "scale_services";
/// Loops do not wait longer for a Redis that hangs.
const PATIENCE: Duration = Duration::from_millis(50);
/// A leader that has not looked for so long is none.
const KEPT_S: u64 = 86_400;

/// Whether operators ask when this loop last ran.
pub fn is_step(task: &str) -> bool {
    STEPS.iter().any(|(name, _)| *name == task)
}

/// Notes a pass of a loop that ends now. A failure only makes the note old.
pub async fn note(redis: &Redis, task: &str, begun: DateTime<Utc>) {
    let note = json!({
        "trigger_event": task,
        "execution_time": begun.to_rfc3339(),
        "finish_time": Utc::now().to_rfc3339(),
    });
    let mut command = redis::cmd("SET");
    command.arg(key(redis, task)).arg(note.to_string()).arg("EX").arg(KEPT_S);
    let mut connection = redis.connection();
    let noted = command.query_async::<()>(&mut connection);
    match tokio::time::timeout(PATIENCE, noted).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a pass is not noted"),
        Err(_) => tracing::debug!("a pass is not noted: Redis hangs"),
    }
}

/// The last pass of each step; an empty object where none is known.
pub async fn report(redis: &Redis) -> Value {
    let mut command = redis::cmd("MGET");
    for (task, _) in STEPS {
        command.arg(key(redis, task));
    }
    let mut connection = redis.connection();
    let found: redis::RedisResult<Vec<Option<String>>> = command.query_async(&mut connection).await;
    let found = found.unwrap_or_else(|error| {
        tracing::debug!(%error, "the last passes are not known");
        Vec::new()
    });
    let mut report = json!({ NO_LOOP: {} });
    for (index, (_, name)) in STEPS.iter().enumerate() {
        let note = found.get(index).cloned().flatten();
        let note = note.and_then(|text| serde_json::from_str(&text).ok());
        report[*name] = note.unwrap_or_else(|| json!({}));
    }
    report
}

fn key(redis: &Redis, task: &str) -> String {
    redis.key(&format!("{KEY}:{task}"))
}
