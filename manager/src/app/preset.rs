//! Resource presets, and which of them a user could have now.

use std::collections::BTreeMap;
use std::fmt;

use backendai_datastore::Transaction;
use backendai_datastore::preset_view::PresetView;
use backendai_types::{ResourceLimits, ResourceSlots, SlotName};
use rust_decimal::Decimal;

use super::{Error, Result, SharedApp};
use crate::context::RequestContext;

/// Key below `config/` that lets users see what their group has left.
const GROUP_VISIBILITY: &str = "api/resources/group_resource_visibility";

/// Makes a preset; `shared_memory` is in bytes.
///
/// # Errors
/// The name is empty or taken.
pub async fn create(
    app: &SharedApp,
    name: &str,
    slots: &ResourceSlots,
    shared_memory: Option<i64>,
) -> Result<PresetView> {
    if name.trim().is_empty() {
        return Err(Error::BadRequest("the name must not be empty".into()));
    }
    app.datastore.autocommit().await?.preset_insert(name, slots, shared_memory).await?;
    Ok(PresetView { name: name.to_owned(), slots: slots.clone(), shared_memory })
}

/// Changes a preset; `None` leaves a value as it is.
///
/// # Errors
/// There is none.
pub async fn modify(
    app: &SharedApp,
    name: &str,
    slots: Option<&ResourceSlots>,
    shared_memory: Option<i64>,
) -> Result<()> {
    match app.datastore.autocommit().await?.preset_update(name, slots, shared_memory).await? {
        true => Ok(()),
        false => Err(Error::NotFound { object: "resource preset", message: None }),
    }
}

/// Removes a preset.
///
/// # Errors
/// There is none.
pub async fn delete(app: &SharedApp, name: &str) -> Result<()> {
    match app.datastore.autocommit().await?.preset_delete(name).await? {
        true => Ok(()),
        false => Err(Error::NotFound { object: "resource preset", message: None }),
    }
}

/// For whom presets are checked.
#[derive(Clone, Debug)]
pub struct PresetQuery {
    /// Only this scaling group; all that the user may use if absent.
    pub scaling_group: Option<String>,
    /// Name or id of the group sessions would belong to.
    pub group: String,
}

/// An amount that may be without limit, or not for the asker to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This much.
    Finite(Decimal),
    /// Any amount.
    Unlimited,
    /// Not told.
    Hidden,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finite(amount) => amount.normalize().fmt(f),
            Self::Unlimited => f.write_str("Infinity"),
            Self::Hidden => f.write_str("NaN"),
        }
    }
}

/// Caps of an owner, what it uses of them, and the rest, by slot.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    /// Caps.
    pub limits: BTreeMap<SlotName, Amount>,
    /// In use.
    pub using: BTreeMap<SlotName, Amount>,
    /// What is left.
    pub remaining: BTreeMap<SlotName, Amount>,
}

/// A scaling group as one user sees it.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// What the user's kernels occupy there.
    pub using: ResourceSlots,
    /// What its agents have left.
    pub remaining: ResourceSlots,
}

/// What a user could have now.
#[derive(Clone, Debug)]
pub struct PresetReport {
    /// The caller's keypair.
    pub keypair: Quota,
    /// The group.
    pub group: Quota,
    /// Left on all agents the user may use.
    pub scaling_group_remaining: ResourceSlots,
    /// The same by scaling group.
    pub scaling_groups: BTreeMap<String, Room>,
    /// Presets, and whether one session of each would fit.
    pub presets: Vec<(PresetView, bool)>,
}

/// Every preset, with an amount for each slot the cluster knows.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn list(app: &SharedApp) -> Result<Vec<PresetView>> {
    let slots = known_slots(app).await?;
    let mut presets = app.datastore.autocommit().await?.presets().await?;
    for preset in &mut presets {
        preset.slots = complete(&preset.slots, &slots);
    }
    Ok(presets)
}

/// Reports what the caller could have now.
///
/// # Errors
/// The group or scaling group is not one the caller may use.
pub async fn check(
    app: &SharedApp,
    context: &RequestContext,
    query: &PresetQuery,
) -> Result<PresetReport> {
    let slots = known_slots(app).await?;
    let shown = app.shared.config_value(GROUP_VISIBILITY).await?;
    let group_is_shown = shown.is_some_and(|text| matches!(text.as_str(), "true" | "True" | "1"));
    app.datastore
        .run_tx("preset_check", |tx| check_in(tx, context, query, &slots, group_is_shown))
        .await
}

async fn check_in(
    tx: Transaction,
    context: &RequestContext,
    query: &PresetQuery,
    slots: &[SlotName],
    group_is_shown: bool,
) -> Result<PresetReport> {
    let group = tx
        .group_active(&context.domain_name, &query.group, Some(context.user_id))
        .await?
        .ok_or_else(|| Error::invalid("Invalid group"))?;
    let key = std::slice::from_ref(&context.access_key);
    let key_limits = tx.keypair_limits(key).await?.remove(&context.access_key).map(|l| l.slots);
    let key_usage = tx.keypair_usage(key).await?.remove(&context.access_key).unwrap_or_default();
    let group_limits = tx.group_limits(&[group]).await?.remove(&group).unwrap_or_default();
    let group_usage = tx.group_usage(&[group]).await?.remove(&group).unwrap_or_default();

    let mut allowed: Vec<String> = tx
        .scaling_groups_allowed(&context.domain_name, group, &context.access_key)
        .await?
        .into_iter()
        .map(|scaling_group| scaling_group.name)
        .collect();
    if let Some(wanted) = &query.scaling_group {
        allowed.retain(|name| name == wanted);
        if allowed.is_empty() {
            return Err(Error::NotFound { object: "scaling group", message: None });
        }
    }
    let mut usage = tx.user_usage_by_scaling_group(context.user_id).await?;
    let mut scaling_groups: BTreeMap<String, Room> = allowed
        .iter()
        .map(|name| {
            let using = complete(&usage.remove(name).unwrap_or_default(), slots);
            (name.clone(), Room { using, remaining: complete(&ResourceSlots::default(), slots) })
        })
        .collect();
    let mut total = complete(&ResourceSlots::default(), slots);
    let mut rests = Vec::new();
    for agent in tx.agent_rooms(&allowed).await? {
        let mut rest = agent.available;
        rest.sub(&agent.occupied);
        let rest = complete(&rest, slots);
        total.add(&rest);
        if let Some(room) = scaling_groups.get_mut(&agent.scaling_group) {
            room.remaining.add(&rest);
        }
        rests.push(rest);
    }

    let keypair = quota(&key_limits.unwrap_or_default(), &key_usage, slots);
    let group =
        if group_is_shown { quota(&group_limits, &group_usage, slots) } else { hidden(slots) };
    let presets = tx
        .presets()
        .await?
        .into_iter()
        .map(|mut preset| {
            let fits_agent = rests.iter().any(|rest| preset.slots.fits_in(rest));
            let within = |quota: &Quota| within(&preset.slots, &quota.remaining);
            let allocatable = fits_agent && within(&keypair) && within(&group);
            preset.slots = complete(&preset.slots, slots);
            (preset, allocatable)
        })
        .collect();
    Ok(PresetReport { keypair, group, scaling_group_remaining: total, scaling_groups, presets })
}

async fn known_slots(app: &SharedApp) -> Result<Vec<SlotName>> {
    Ok(app.shared.slot_types().await?.into_keys().collect())
}

/// Exactly the known slots, zero where there is none.
fn complete(amounts: &ResourceSlots, slots: &[SlotName]) -> ResourceSlots {
    slots.iter().map(|slot| (slot.clone(), amounts.get(slot))).collect()
}

fn quota(limits: &ResourceLimits, usage: &ResourceSlots, slots: &[SlotName]) -> Quota {
    let mut quota = Quota::default();
    for slot in slots {
        let limit = match limits.named.get(slot) {
            Some(Some(cap)) => Amount::Finite(*cap),
            Some(None) => Amount::Unlimited,
            None if limits.unnamed_unlimited => Amount::Unlimited,
            None => Amount::Finite(Decimal::ZERO),
        };
        let used = usage.get(slot);
        let rest = match limit {
            Amount::Finite(cap) => Amount::Finite((cap - used).max(Decimal::ZERO)),
            other => other,
        };
        quota.limits.insert(slot.clone(), limit);
        quota.using.insert(slot.clone(), Amount::Finite(used));
        quota.remaining.insert(slot.clone(), rest);
    }
    quota
}

fn hidden(slots: &[SlotName]) -> Quota {
    let all: BTreeMap<_, _> = slots.iter().map(|slot| (slot.clone(), Amount::Hidden)).collect();
    Quota { limits: all.clone(), using: all.clone(), remaining: all }
}

fn within(wanted: &ResourceSlots, remaining: &BTreeMap<SlotName, Amount>) -> bool {
    wanted.iter().all(|(slot, amount)| match remaining.get(slot) {
        Some(Amount::Finite(rest)) => amount <= *rest,
        Some(Amount::Unlimited | Amount::Hidden) => true,
        // A slot the cluster does not know cannot be had.
        None => amount.is_zero(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quota_is_what_the_limits_leave() {
        let limits =
            ResourceLimits::from_json(&json!({"cpu": "4", "mem": "Infinity"}), false).unwrap();
        let usage: ResourceSlots = serde_json::from_value(json!({"cpu": "1", "mem": "5"})).unwrap();
        let slots = ["cpu", "mem", "cuda.device"].map(SlotName::from);
        let quota = quota(&limits, &usage, &slots);
        let shown = |map: &BTreeMap<SlotName, Amount>| {
            map.iter()
                .map(|(slot, amount)| format!("{slot}={amount}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(shown(&quota.limits), "cpu=4 cuda.device=0 mem=Infinity");
        assert_eq!(shown(&quota.remaining), "cpu=3 cuda.device=0 mem=Infinity");
        let wants = |value| within(&serde_json::from_value(value).unwrap(), &quota.remaining);
        assert!(wants(json!({"cpu": "3", "mem": "99t"})));
        assert!(!wants(json!({"cpu": "3.5"})));
        assert!(!wants(json!({"unknown": "1"})));
    }
}
