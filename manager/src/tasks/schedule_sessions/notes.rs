//! Why a session still waits, as users see it in `status_data.scheduler`.

use backendai_datastore::pending::PendingSession;
use backendai_scheduler::{Failure, Order};
use backendai_types::SessionId;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

/// Conditions that are not met.
pub(super) fn waits(
    session: &PendingSession,
    failed: &[Failure],
    passed: &[&'static str],
    now: DateTime<Utc>,
) -> Value {
    let failed: Vec<Value> =
        failed.iter().map(|f| json!({"name": f.name, "msg": f.message})).collect();
    let passed: Vec<Value> = passed.iter().map(|name| json!({"name": name})).collect();
    json!({
        "retries": retries(session) + 1,
        "last_try": now.to_rfc3339_opts(SecondsFormat::Micros, false),
        "failed_predicates": failed,
        "passed_predicates": passed,
    })
}

/// No room. What is known from before stays.
pub(super) fn no_agent(session: &PendingSession, message: &str, now: DateTime<Utc>) -> Value {
    let mut details = session.scheduler.as_object().cloned().unwrap_or_default();
    details.insert("retries".into(), json!(retries(session) + 1));
    details.insert("last_try".into(), json!(now.to_rfc3339_opts(SecondsFormat::Micros, false)));
    details.insert("msg".into(), json!(message));
    details.insert("failed_predicates".into(), json!([]));
    details.into()
}

/// What to write, unless the row says the same but for the number and time of attempts:
/// sessions that wait long must not be rewritten at every pass. Attempts are counted only
/// while the count matters.
pub(super) fn if_new(
    session: &PendingSession,
    info: &'static str,
    details: Value,
    order: Order,
) -> Option<(SessionId, &'static str, Value)> {
    let counts = match order {
        Order::Fifo { num_retries_to_skip } => retries(session) < num_retries_to_skip,
        Order::Lifo | Order::Drf => false,
    };
    let same = ["failed_predicates", "passed_predicates", "msg"]
        .iter()
        .all(|key| session.scheduler.get(key) == details.get(key));
    (counts || !same).then_some((session.id, info, details))
}

/// How often a session was tried.
pub(super) fn retries(session: &PendingSession) -> u32 {
    let count = session.scheduler.get("retries").and_then(Value::as_u64).unwrap_or(0);
    u32::try_from(count).unwrap_or(u32::MAX)
}
