//! `/resource`: presets, registries, and what is left of what there is.

use std::collections::BTreeMap;

use backendai_types::{ResourceSlots, SlotName};
use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use crate::app::preset::{self, Amount, PresetQuery};

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

/// `GET /resource/container-registries`
pub async fn container_registries(call: Call) -> Result<Response, Problem> {
    let registries = call.app.shared.registries().await.map_err(crate::app::Error::from)?;
    let view: Map<String, Value> = registries
        .into_iter()
        .map(|(name, registry)| {
            let view = json!({
                "": registry.url,
                "type": registry.kind.as_str(),
                "username": registry.username,
                "password": registry.password.map(|_| "*****"),
                "project": registry.projects,
                "ssl_verify": registry.ssl_verify,
            });
            (name, view)
        })
        .collect();
    Ok(ok(&view))
}

/// `POST /resource/recalculate-usage`: usage is a sum over what is allocated and never a
/// counter, so it is right already.
pub async fn recalculate_usage(call: Call) -> Result<Response, Problem> {
    call.params()?.finish()?;
    Ok(ok(&json!({})))
}

fn amounts(slots: &ResourceSlots) -> Value {
    json!(slots)
}

fn caps(caps: &BTreeMap<SlotName, Amount>) -> Map<String, Value> {
    caps.iter().map(|(slot, amount)| (slot.0.clone(), Value::from(amount.to_string()))).collect()
}
