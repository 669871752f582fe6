//! The host's devices as the pool counts them.

use rust_decimal::Decimal;

use backendai_types::{SlotName, SlotType};

use super::allocation::Strategy;
use super::slots::{Device, DeviceKind};
use crate::backend::Fingerprint;

/// What is kept for the host, and how often things are given away.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Cores kept for the host.
    pub reserved_cpu: u32,
    /// Bytes of memory kept for the host.
    pub reserved_mem: u64,
    /// How many kernels may share a core.
    pub cpu_overcommit: u32,
    /// How many times the memory is given away.
    pub mem_overcommit: u32,
}

/// Nothing would be left for kernels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {slot} is left for kernels: the host has {capacity}, {reserved} are reserved for it")]
pub struct NothingLeft {
    slot: SlotName,
    capacity: Decimal,
    reserved: Decimal,
}

/// Cores, memory, and whatever else the engine found.
///
/// # Errors
/// No core or no memory would be left for kernels.
pub fn device_kinds(
    fingerprint: &Fingerprint,
    settings: &HostSettings,
) -> Result<Vec<DeviceKind>, NothingLeft> {
    let per_core = Decimal::from(settings.cpu_overcommit.max(1));
    let cores = fingerprint.cores.iter().map(|(core, numa_node)| Device {
        id: core.to_string(),
        numa_node: *numa_node,
        capacity: per_core,
    });
    let cpu = DeviceKind {
        name: "cpu".to_owned(),
        slot: SlotName::cpu(),
        slot_type: SlotType::Count,
        strategy: Strategy::Even,
        devices: cores.collect(),
        reserved: Decimal::from(settings.reserved_cpu),
    };
    let bytes =
        Decimal::from(fingerprint.mem_bytes) * Decimal::from(settings.mem_overcommit.max(1));
    let mem = DeviceKind {
        name: "mem".to_owned(),
        slot: SlotName::mem(),
        slot_type: SlotType::Bytes,
        strategy: Strategy::Fill,
        devices: vec![Device { id: "root".to_owned(), numa_node: None, capacity: bytes }],
        reserved: Decimal::from(settings.reserved_mem),
    };
    let mut kinds = vec![cpu, mem];
    for kind in &kinds {
        let capacity: Decimal = kind.devices.iter().map(|device| device.capacity).sum();
        if capacity <= kind.reserved {
            let (slot, reserved) = (kind.slot.clone(), kind.reserved);
            return Err(NothingLeft { slot, capacity, reserved });
        }
    }
    kinds.extend(fingerprint.accelerators.iter().cloned());
    Ok(kinds)
}
