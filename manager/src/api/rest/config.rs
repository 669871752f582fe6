//! `/config`: the shared configuration, and what of it users may know.

use serde_json::{Map, Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app::{self, config_key, resource_slot};

/// `GET /config/resource-slots`
pub async fn slots(call: Call) -> Result<Response, Problem> {
    let types = call.app.shared.slot_types().await.map_err(app::Error::from)?;
    let view: Map<String, Value> =
        types.into_iter().map(|(slot, kind)| (slot.0, Value::from(kind.as_str()))).collect();
    Ok(ok(&view))
}

/// `GET /config/resource-slots/details`
pub async fn slot_details(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let group: Option<String> = params.optional(&["sgroup"], None, rules::null_or(rules::any_text));
    params.finish()?;
    let group = group.filter(|group| !group.is_empty());
    let details = resource_slot::details(&call.app, group.as_deref()).await?;
    let view: Map<String, Value> = details
        .into_iter()
        .map(|(slot, known)| {
            let view = json!({
                "slot_name": known.slot_name,
                "description": known.description,
                "human_readable_name": known.name,
                "display_unit": known.unit,
                "number_format": { "binary": known.binary, "round_length": known.decimals },
                "display_icon": known.icon,
            });
            (slot.0, view)
        })
        .collect();
    Ok(ok(&view))
}

/// `GET /config/vfolder-types`
pub async fn vfolder_types(call: Call) -> Result<Response, Problem> {
    Ok(ok(&call.app.shared.vfolder_types().await.map_err(app::Error::from)?))
}

/// `GET /config/docker-registries`
pub async fn docker_registries(call: Call) -> Result<Response, Problem> {
    let registries = call.app.shared.registries().await.map_err(app::Error::from)?;
    let view: Map<String, Value> =
        registries.into_iter().map(|(name, registry)| (name, Value::from(registry.url))).collect();
    Ok(ok(&view))
}

/// `POST /config/get`
pub async fn get(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let key: String = params.required(&["key"], rules::text);
    let prefix = params.optional(&["prefix"], false, rules::strict_bool);
    params.finish()?;
    Ok(ok(&json!({ "result": config_key::get(&call.app, &key, prefix).await? })))
}

/// `POST /config/set`
pub async fn set(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let key: String = params.required(&["key"], rules::text);
    let value: Value = params.required(&["value"], anything);
    params.finish()?;
    config_key::set(&call.app, &key, &value).await?;
    Ok(ok(&json!({ "result": "ok" })))
}

/// `POST /config/delete`
pub async fn delete(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let key: String = params.required(&["key"], rules::text);
    let prefix = params.optional(&["prefix"], false, rules::strict_bool);
    params.finish()?;
    config_key::delete(&call.app, &key, prefix).await?;
    Ok(ok(&json!({ "result": "ok" })))
}

fn anything(value: Value) -> Checked<Value> {
    Ok(value)
}
