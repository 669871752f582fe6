//! How a scaling group schedules: its options over the cluster's configuration.

use backendai_datastore::scaling_group::ScalingGroup;
use backendai_scheduler::{Order, Policy, Strategy};
use chrono::TimeDelta;
use serde_json::Value;

use crate::app::App;
use crate::tasks::TaskError;

pub(super) async fn read(app: &App, group: &ScalingGroup) -> Result<Policy, TaskError> {
    let shared = format!("plugins/scheduler/{}/num_retries_to_skip", group.scheduler);
    let shared_retries = app.shared.config_value(&shared).await?;
    let max_kernels = app.shared.config_value("agent/max-container-count").await?;
    let option = |key: &str| group.scheduler_opts.get(key).filter(|value| !value.is_null());
    let order = match group.scheduler.as_str() {
        "lifo" => Order::Lifo,
        "drf" => Order::Drf,
        // `mof` differs in the choice of the agent, which `dispersed` comes close to.
        _ => {
            let own = option("config").and_then(|config| config.get("num_retries_to_skip"));
            let num_retries_to_skip = own
                .and_then(Value::as_u64)
                .or_else(|| shared_retries.as_deref().and_then(|text| text.parse().ok()))
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(0);
            Order::Fifo { num_retries_to_skip }
        }
    };
    Ok(Policy {
        scaling_group: group.name.clone(),
        order,
        strategy: match option("agent_selection_strategy").and_then(Value::as_str) {
            Some("concentrated") => Strategy::Concentrated,
            Some("legacy") => Strategy::Legacy,
            _ => Strategy::Dispersed,
        },
        slot_priority: app.config.manager.agent_selection_resource_priority.clone(),
        pending_timeout: option("pending_timeout").and_then(timeout),
        max_kernels: max_kernels.and_then(|text| text.parse().ok()),
    })
}

/// Seconds as a number, or a text such as `30m`. Zero is never.
fn timeout(value: &Value) -> Option<TimeDelta> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
            let number: f64 = text[..split].trim().parse().ok()?;
            number
                * match &text[split..] {
                    "" | "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    "d" => 86_400.0,
                    "w" => 604_800.0,
                    "mo" => 2_592_000.0,
                    "yr" => 31_536_000.0,
                    _ => return None,
                }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    // The cast saturates; such timeouts never come.
    TimeDelta::try_milliseconds((seconds * 1000.0) as i64)
        .filter(|limit| *limit > TimeDelta::zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn timeouts_are_seconds_or_text() {
        assert_eq!(timeout(&json!(90)), Some(TimeDelta::seconds(90)));
        assert_eq!(timeout(&json!("1.5m")), Some(TimeDelta::seconds(90)));
        assert_eq!(timeout(&json!("2h")), Some(TimeDelta::hours(2)));
        for never in [json!(0), json!("0"), json!("soon"), json!(null), json!("1x")] {
            assert_eq!(timeout(&never), None, "{never}");
        }
    }
}
