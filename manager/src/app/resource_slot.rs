//! What is known of resource slots beyond their types: names, units and icons for people.

use std::collections::BTreeMap;

use backendai_types::SlotName;

use super::{Result, SharedApp};

/// How a slot is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDetails {
    /// The slot itself.
    pub slot: &'static str,
    /// What clients call it.
    pub slot_name: &'static str,
    /// In a few words.
    pub description: &'static str,
    /// For labels.
    pub name: &'static str,
    /// For amounts.
    pub unit: &'static str,
    /// Amounts are shown in powers of 1024.
    pub binary: bool,
    /// Decimals of amounts.
    pub decimals: u32,
    /// Its icon in the web interface.
    pub icon: &'static str,
}

macro_rules! known {
    ($($slot:literal, $slot_name:literal, $description:literal, $name:literal, $unit:literal,
       $binary:literal, $decimals:literal, $icon:literal;)+) => {
        /// Slots that are known by name.
        const KNOWN: &[SlotDetails] = &[$(SlotDetails {
            slot: $slot, slot_name: $slot_name, description: $description, name: $name,
            unit: $unit, binary: $binary, decimals: $decimals, icon: $icon,
        }),+];
    };
}

known! {
    "cpu", "cpu", "CPU", "CPU", "Core", false, 0, "cpu";
    "mem", "ram", "Memory", "RAM", "GiB", true, 0, "ram";
    "cuda.device", "cuda.device", "CUDA-capable GPU", "GPU", "GPU", false, 0, "gpu1";
    "cuda.shares", "cuda.shares", "CUDA-capable GPU (fractional)", "fGPU", "fGPU", false, 2, "gpu1";
    "rocm.device", "rocm.device", "ROCm-capable GPU", "GPU", "GPU", false, 0, "gpu2";
    "tpu.device", "tpu.device", "TPU device", "TPU", "TPU", false, 0, "tpu";
}

/// Details of the slots the cluster knows; of a scaling group, those its agents offer.
///
/// # Errors
/// PostgreSQL or etcd is not available.
pub async fn details(
    app: &SharedApp,
    scaling_group: Option<&str>,
) -> Result<BTreeMap<SlotName, SlotDetails>> {
    let mut slots: Vec<SlotName> = app.shared.slot_types().await?.into_keys().collect();
    if let Some(group) = scaling_group {
        let offered = app.datastore.autocommit().await?.slots_schedulable(group).await?;
        slots.retain(|slot| {
            *slot == SlotName::cpu() || *slot == SlotName::mem() || offered.contains(&slot.0)
        });
    }
    let known = |slot: SlotName| {
        let details = KNOWN.iter().find(|known| known.slot == slot.0)?;
        Some((slot, *details))
    };
    Ok(slots.into_iter().filter_map(known).collect())
}
