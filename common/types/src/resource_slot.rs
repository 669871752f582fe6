//! Resource slots: how much of what (`cpu`, `mem`, `cuda.shares`…), in exact decimals.
//!
//! Amounts never pass through floating point. Bytes slots (`mem`) count bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::size::ByteCount;

/// The name of a slot: `cpu`, `mem`, or `<plugin>.<kind>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotName(pub String);

impl SlotName {
    /// The slot every agent has: processor cores.
    pub fn cpu() -> Self {
        Self("cpu".into())
    }

    /// The slot every agent has: main memory in bytes.
    pub fn mem() -> Self {
        Self("mem".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where no type map says otherwise, a slot with `mem` in its name counts bytes.
    pub fn is_bytes(&self) -> bool {
        self.0.contains("mem")
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SlotName {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What the amounts of a slot mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotType {
    /// Pieces or fractions of pieces.
    Count,
    /// Bytes.
    Bytes,
    /// A thing that is taken whole, once.
    Unique,
}

impl SlotType {
    /// The wire and etcd spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Unique => "unique",
        }
    }
}

/// An amount that cannot be a resource slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{slot}: {text:?} is not an amount of this resource")]
pub struct InvalidAmount {
    /// The slot.
    pub slot: SlotName,
    /// What was given.
    pub text: String,
}

/// Amounts by slot. A missing slot is zero. Negative amounts cannot be parsed.
///
/// As JSON: an object of decimal strings without exponent and trailing zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSlots(pub BTreeMap<SlotName, Decimal>);

impl ResourceSlots {
    /// The amount of a slot, zero if absent.
    pub fn get(&self, slot: &SlotName) -> Decimal {
        self.0.get(slot).copied().unwrap_or_default()
    }

    /// The amount of a slot named by text, zero if absent.
    pub fn amount(&self, slot: &str) -> Decimal {
        self.get(&SlotName::from(slot))
    }

    /// The amount of `mem` in bytes.
    pub fn mem_bytes(&self) -> u64 {
        use rust_decimal::prelude::ToPrimitive;
        self.get(&SlotName::mem()).to_u64().unwrap_or(u64::MAX)
    }

    /// Sets one amount.
    pub fn set(&mut self, slot: SlotName, amount: Decimal) {
        self.0.insert(slot, amount);
    }

    /// Slots and amounts, in order of slot name.
    pub fn iter(&self) -> impl Iterator<Item = (&SlotName, Decimal)> {
        self.0.iter().map(|(slot, amount)| (slot, *amount))
    }

    /// True when every slot of `self` is at most that of `capacity` (absent is zero).
    pub fn fits_in(&self, capacity: &Self) -> bool {
        self.0.iter().all(|(slot, amount)| *amount <= capacity.get(slot))
    }

    /// Slot-wise sum. Saturates at the largest decimal, which no real amount reaches.
    pub fn add(&mut self, other: &Self) {
        for (slot, amount) in &other.0 {
            let sum = self.get(slot).saturating_add(*amount);
            self.0.insert(slot.clone(), sum);
        }
    }

    /// Slot-wise difference; may become negative, as the reader of a remainder wants to know.
    pub fn sub(&mut self, other: &Self) {
        for (slot, amount) in &other.0 {
            let rest = self.get(slot).saturating_sub(*amount);
            self.0.insert(slot.clone(), rest);
        }
    }

    /// True when no slot has an amount.
    pub fn is_zero(&self) -> bool {
        self.0.values().all(Decimal::is_zero)
    }

    /// Parses what users send: numbers or strings, sizes (`512m`) for bytes slots. Counts are
    /// rounded to three decimals. Null values are dropped.
    ///
    /// # Errors
    /// Negative, not a number, infinite.
    pub fn parse_map<'a>(
        entries: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>,
    ) -> Result<Self, InvalidAmount> {
        let mut slots = Self::default();
        for (name, value) in entries {
            let slot = SlotName(name.clone());
            let text = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let amount = parse_amount(&slot, &text)?;
            slots.0.insert(slot, amount);
        }
        Ok(slots)
    }

    /// For messages: `cpu=2 mem=1.5g`.
    pub fn humanize(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(slot, amount)| format!("{slot}={}", humanize_amount(slot, *amount)))
            .collect();
        parts.join(" ")
    }
}

/// Parses one amount: a size for bytes slots, else a decimal rounded to three places.
///
/// # Errors
/// Negative, not a number, infinite.
pub fn parse_amount(slot: &SlotName, text: &str) -> Result<Decimal, InvalidAmount> {
    let invalid = || InvalidAmount { slot: slot.clone(), text: text.to_owned() };
    let amount = match Decimal::from_str(text.trim()) {
        Ok(amount) => amount,
        Err(_) if slot.is_bytes() => {
            ByteCount::from_str(text).map(|size| Decimal::from(size.0)).map_err(|_| invalid())?
        }
        Err(_) => Decimal::from_scientific(text.trim()).map_err(|_| invalid())?,
    };
    if amount.is_sign_negative() && !amount.is_zero() {
        return Err(invalid());
    }
    Ok(amount.round_dp(3).normalize())
}

fn humanize_amount(slot: &SlotName, amount: Decimal) -> String {
    use rust_decimal::prelude::ToPrimitive;
    match amount.to_u64() {
        Some(bytes) if slot.is_bytes() => ByteCount(bytes).humanize(),
        _ => amount.normalize().to_string(),
    }
}

impl FromIterator<(SlotName, Decimal)> for ResourceSlots {
    fn from_iter<I: IntoIterator<Item = (SlotName, Decimal)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Serialize for ResourceSlots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(k, v)| (k, v.normalize().to_string())))
    }
}

impl<'de> Deserialize<'de> for ResourceSlots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        Self::parse_map(&map).map_err(serde::de::Error::custom)
    }
}

/// Caps by slot, as policies state them. `None` is unlimited (`"Infinity"` in JSON).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Caps of the slots that are named.
    pub named: BTreeMap<SlotName, Option<Decimal>>,
    /// Slots that are not named: unlimited, or nothing at all.
    pub unnamed_unlimited: bool,
}

impl ResourceLimits {
    /// Caps of the named slots only; the rest is free.
    pub fn unlimited_unless(named: BTreeMap<SlotName, Option<Decimal>>) -> Self {
        Self { named, unnamed_unlimited: true }
    }

    /// The first slot in which `amount` is above the cap.
    pub fn first_exceeded<'a>(&self, amount: &'a ResourceSlots) -> Option<&'a SlotName> {
        amount.0.iter().find_map(|(slot, wanted)| {
            let allowed = match self.named.get(slot) {
                Some(None) => true,
                Some(Some(cap)) => wanted <= cap,
                None => self.unnamed_unlimited || wanted.is_zero(),
            };
            (!allowed).then_some(slot)
        })
    }

    /// Reads a policy's JSON object of caps.
    ///
    /// # Errors
    /// A value that is neither an amount nor `Infinity`.
    pub fn from_json(
        object: &serde_json::Value,
        unnamed_unlimited: bool,
    ) -> Result<Self, InvalidAmount> {
        let mut named = BTreeMap::new();
        for (name, value) in object.as_object().into_iter().flatten() {
            let slot = SlotName(name.clone());
            let text = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let cap = match text.to_ascii_lowercase().as_str() {
                "infinity" | "inf" | "infinite" => None,
                _ => Some(parse_amount(&slot, &text)?),
            };
            named.insert(slot, cap);
        }
        Ok(Self { named, unnamed_unlimited })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slots(value: serde_json::Value) -> ResourceSlots {
        serde_json::from_value(value).expect("valid slots")
    }

    #[test]
    fn slots_parse_as_users_write_them_and_print_as_decimal_strings() {
        let parsed = slots(json!({"cpu": 2, "mem": "1.5g", "cuda.shares": "0.5000", "x": null}));
        assert_eq!(
            serde_json::to_value(&parsed).expect("json"),
            json!({"cpu": "2", "cuda.shares": "0.5", "mem": "1610612736"})
        );
        assert_eq!(parsed.humanize(), "cpu=2 cuda.shares=0.5 mem=1.5g");
    }

    #[test]
    fn bad_amounts_are_refused() {
        for value in [
            json!({"cpu": "-1"}),
            json!({"cpu": "NaN"}),
            json!({"mem": "lots"}),
            json!({"cpu": "Infinity"}),
        ] {
            assert!(serde_json::from_value::<ResourceSlots>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn fitting_is_slot_wise_and_absent_is_zero() {
        let capacity = slots(json!({"cpu": "2", "mem": "1g"}));
        assert!(slots(json!({"cpu": "2", "mem": "1g"})).fits_in(&capacity));
        assert!(!slots(json!({"cpu": "2.001"})).fits_in(&capacity));
        assert!(!slots(json!({"cuda.device": "1"})).fits_in(&capacity));
        assert!(slots(json!({"cuda.device": "0"})).fits_in(&capacity));
    }

    #[test]
    fn limits_tell_the_slot_that_is_exceeded() {
        let limits = ResourceLimits::from_json(&json!({"cpu": "4", "mem": "Infinity"}), false)
            .expect("limits");
        assert_eq!(limits.first_exceeded(&slots(json!({"cpu": "4", "mem": "99t"}))), None);
        assert_eq!(limits.first_exceeded(&slots(json!({"cpu": "5"}))), Some(&SlotName::cpu()));
        assert_eq!(limits.first_exceeded(&slots(json!({"gpu": "1"}))), Some(&"gpu".into()));
    }
}
