//! `/config/resource-slots` and `/resource`: slots, presets, and what is left of them.

use std::collections::BTreeMap;

use backendai_types::{ResourceSlots, SlotName};
use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::preset::{self, Amount, PresetQuery};

/// `GET /config/resource-slots`
pub async fn slots(call: Call) -> Result<Response, Problem> {
    let types = call.app.shared.slot_types().await.map_err(crate::app::Error::from)?;
    let view: Map<String, Value> =
        types.into_iter().map(|(slot, kind)| (slot.0, Value::from(kind.as_str()))).collect();
    Ok(ok(&view))
}

/// `GET /resource/presets`
pub async fn presets(call: Call) -> Result<Response, Problem> {
    let presets = preset::list(&call.app).await?;
    let view: Vec<Value> = presets
        .iter()
        .map(|preset| {
            json!({
                "name": preset.name,
                "shared_memory": preset.shared_memory.map(|bytes| bytes.to_string()),
                "resource_slots": amounts(&preset.slots),
            })
        })
        .collect();
    Ok(ok(&json!({ "presets": view })))
}

/// `POST /resource/check-presets`
pub async fn check_presets(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let query = PresetQuery {
        scaling_group: params.optional(&["scaling_group"], None, rules::null_or(rules::text)),
        group: params.optional(&["group"], "default".to_owned(), rules::text),
    };
    params.finish()?;
    let report = preset::check(&call.app, &context, &query).await?;
    let scaling_groups: Map<String, Value> = report
        .scaling_groups
        .iter()
        .map(|(name, room)| {
            let view =
                json!({ "using": amounts(&room.using), "remaining": amounts(&room.remaining) });
            (name.clone(), view)
        })
        .collect();
    let presets: Vec<Value> = report
        .presets
        .iter()
        .map(|(preset, allocatable)| {
            json!({
                "name": preset.name,
                "resource_slots": amounts(&preset.slots),
                "shared_memory": preset.shared_memory.map(|bytes| bytes.to_string()),
                "allocatable": allocatable,
            })
        })
        .collect();
    Ok(ok(&json!({
        "keypair_limits": caps(&report.keypair.limits),
        "keypair_using": caps(&report.keypair.using),
        "keypair_remaining": caps(&report.keypair.remaining),
        "group_limits": caps(&report.group.limits),
        "group_using": caps(&report.group.using),
        "group_remaining": caps(&report.group.remaining),
        "scaling_group_remaining": amounts(&report.scaling_group_remaining),
        "scaling_groups": scaling_groups,
        "presets": presets,
    })))
}

fn amounts(slots: &ResourceSlots) -> Value {
    json!(slots)
}

fn caps(caps: &BTreeMap<SlotName, Amount>) -> Map<String, Value> {
    caps.iter().map(|(slot, amount)| (slot.0.clone(), Value::from(amount.to_string()))).collect()
}
