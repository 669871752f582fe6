//! The pool of an agent: all device kinds, and which kernel holds what of them.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use backendai_types::{KernelId, ResourceSlots, SlotName, SlotType};

use super::allocation::{AllocationError, AllocationMap, Shares, Strategy};

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its name within the kind: the number of a core, `root` for main memory.
    pub id: String,
    /// Its NUMA node; `None` where the host does not say.
    pub numa_node: Option<i32>,
    /// How much of the slot it offers, overcommitment included.
    pub capacity: Decimal,
}

/// Devices of one kind with the slot they are counted in.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceKind {
    /// `cpu`, `mem`, `cuda`…
    pub name: String,
    /// The slot.
    pub slot: SlotName,
    /// What its amounts mean.
    pub slot_type: SlotType,
    /// How amounts are spread over the devices.
    pub strategy: Strategy,
    /// In the host's order.
    pub devices: Vec<Device>,
    /// Kept for the host itself.
    pub reserved: Decimal,
}

/// What a kernel holds: device kind → slot → device id → amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allocation(pub BTreeMap<String, BTreeMap<SlotName, Shares>>);

impl Allocation {
    /// Ids of the devices held of a kind.
    pub fn devices(&self, kind: &str) -> Vec<&str> {
        let slots = self.0.get(kind).into_iter().flat_map(BTreeMap::values);
        slots.flat_map(|shares| shares.keys().map(String::as_str)).collect()
    }

    /// Amounts by slot.
    pub fn slots(&self) -> ResourceSlots {
        let mut sums = ResourceSlots::default();
        for (slot, shares) in self.0.values().flatten() {
            let sum: Decimal = shares.values().sum();
            sums.set(slot.clone(), (sums.get(slot) + sum).normalize());
        }
        sums
    }

    /// As text, for the manager.
    pub fn as_text(&self) -> BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> {
        let text = |shares: &Shares| {
            shares.iter().map(|(id, a)| (id.clone(), a.normalize().to_string())).collect()
        };
        self.0
            .iter()
            .map(|(kind, slots)| {
                (kind.clone(), slots.iter().map(|(slot, s)| (slot.0.clone(), text(s))).collect())
            })
            .collect()
    }
}

/// How devices are chosen.
#[derive(Clone, Debug, Default)]
pub struct PoolSettings {
    /// Device kinds in the order in which they are chosen; others follow in the host's order.
    pub allocation_order: Vec<String>,
    /// True to fill one NUMA node before the next, false to take from all in turn.
    pub prefer_single_node: bool,
}

/// All device kinds, and who holds what.
#[derive(Debug)]
pub struct ResourcePool {
    kinds: Vec<(DeviceKind, AllocationMap)>,
    prefer_single_node: bool,
    held: BTreeMap<KernelId, Allocation>,
}

impl ResourcePool {
    /// A pool of which nothing is held.
    pub fn new(kinds: Vec<DeviceKind>, settings: &PoolSettings) -> Self {
        let rank = |name: &str| {
            settings.allocation_order.iter().position(|n| n == name).unwrap_or(usize::MAX)
        };
        let mut kinds: Vec<_> = kinds
            .into_iter()
            .map(|kind| {
                let devices = kind.devices.iter().map(|d| (d.id.clone(), d.capacity));
                let map = AllocationMap::new(kind.slot.clone(), kind.strategy, devices);
                (kind, map)
            })
            .collect();
        kinds.sort_by_key(|(kind, _)| rank(&kind.name));
        Self { kinds, prefer_single_node: settings.prefer_single_node, held: BTreeMap::new() }
    }

    /// What the agent offers: type and amount by slot, the reserved part taken off.
    pub fn offered(&self) -> BTreeMap<SlotName, (SlotType, Decimal)> {
        let offer = |(kind, map): &(DeviceKind, AllocationMap)| {
            let amount = (map.capacity() - kind.reserved).max(Decimal::ZERO).normalize();
            (kind.slot.clone(), (kind.slot_type, amount))
        };
        self.kinds.iter().map(offer).collect()
    }

    /// Gives a kernel all it asks for, or nothing. A kernel that already holds something
    /// is told what that is.
    ///
    /// # Errors
    /// Too little is left, or the amounts make no sense here; see [`AllocationError`].
    pub fn allocate(
        &mut self,
        kernel: KernelId,
        wanted: &ResourceSlots,
    ) -> Result<Allocation, AllocationError> {
        if let Some(held) = self.held.get(&kernel) {
            return Ok(held.clone());
        }
        for (slot, amount) in wanted.iter() {
            if !amount.is_zero() && !self.kinds.iter().any(|(kind, _)| kind.slot == *slot) {
                return Err(AllocationError::Unsupported(slot.clone()));
            }
        }
        let mut allocation = Allocation::default();
        let mut nodes = Vec::new();
        for at in 0..self.kinds.len() {
            let amount = wanted.get(&self.kinds[at].0.slot);
            if amount.is_zero() {
                continue;
            }
            match self.allocate_kind(at, amount, &nodes) {
                Ok(shares) => {
                    let kind = &self.kinds[at].0;
                    nodes.extend(
                        kind.devices.iter().filter(|d| shares.contains_key(&d.id)).map(node),
                    );
                    let slots = allocation.0.entry(kind.name.clone()).or_default();
                    slots.insert(kind.slot.clone(), shares);
                }
                Err(error) => {
                    self.give_back(&allocation);
                    return Err(error);
                }
            }
        }
        self.held.insert(kernel, allocation.clone());
        Ok(allocation)
    }

    fn allocate_kind(
        &mut self,
        at: usize,
        amount: Decimal,
        chosen_nodes: &[i32],
    ) -> Result<Shares, AllocationError> {
        let preferred = self.preference(&self.kinds[at].0, chosen_nodes);
        let (kind, map) = &mut self.kinds[at];
        let free = (map.capacity() - kind.reserved - map.taken()).max(Decimal::ZERO);
        if amount > free {
            let slot = kind.slot.clone();
            return Err(AllocationError::Insufficient { slot, wanted: amount, free });
        }
        map.allocate(amount, &preferred)
    }

    /// Devices near those already chosen come first, from the chosen nodes in turn; without
    /// any chosen, the nodes in turn or one after the other.
    fn preference(&self, kind: &DeviceKind, chosen_nodes: &[i32]) -> Vec<String> {
        let mut by_node: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for device in &kind.devices {
            by_node.entry(node(device)).or_default().push(device.id.clone());
        }
        let is_near = |n: &i32| chosen_nodes.contains(n);
        let near: Vec<_> = by_node.iter().filter(|(n, _)| is_near(n)).map(|(_, d)| d).collect();
        let rest: Vec<_> = by_node.iter().filter(|(n, _)| !is_near(n)).map(|(_, d)| d).collect();
        let mut order = interleave(&near);
        if self.prefer_single_node {
            order.extend(rest.into_iter().flatten().cloned());
        } else {
            order.extend(interleave(&rest));
        }
        order
    }

    /// Notes what a kernel holds already, even where that is more than there is.
    pub fn restore(&mut self, kernel: KernelId, allocation: Allocation) {
        self.release(kernel);
        for (kind, map) in &mut self.kinds {
            if let Some(shares) =
                allocation.0.get(&kind.name).and_then(|slots| slots.get(&kind.slot))
            {
                map.restore(shares);
            }
        }
        self.held.insert(kernel, allocation);
    }

    /// Takes back what a kernel holds. Harmless when it holds nothing.
    pub fn release(&mut self, kernel: KernelId) {
        if let Some(allocation) = self.held.remove(&kernel) {
            self.give_back(&allocation);
        }
    }

    fn give_back(&mut self, allocation: &Allocation) {
        for (kind, map) in &mut self.kinds {
            if let Some(shares) =
                allocation.0.get(&kind.name).and_then(|slots| slots.get(&kind.slot))
            {
                map.release(shares);
            }
        }
    }

    /// The kernels that hold something.
    pub fn holders(&self) -> impl Iterator<Item = KernelId> {
        self.held.keys().copied()
    }
}

/// Devices of unknown node count as lying together on one.
fn node(device: &Device) -> i32 {
    device.numa_node.unwrap_or(-1).max(-1)
}

fn interleave(groups: &[&Vec<String>]) -> Vec<String> {
    let longest = groups.iter().map(|group| group.len()).max().unwrap_or(0);
    let at = |i: usize| groups.iter().filter_map(move |group| group.get(i).cloned());
    (0..longest).flat_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(name: &str, strategy: Strategy, devices: &[(&str, Option<i32>, i64)]) -> DeviceKind {
        DeviceKind {
            name: name.to_owned(),
            slot: name.into(),
            slot_type: SlotType::Count,
            strategy,
            devices: devices
                .iter()
                .map(|(id, numa_node, capacity)| Device {
                    id: (*id).to_owned(),
                    numa_node: *numa_node,
                    capacity: Decimal::from(*capacity),
                })
                .collect(),
            reserved: Decimal::ZERO,
        }
    }

    fn settings(order: &[&str]) -> PoolSettings {
        PoolSettings {
            allocation_order: order.iter().map(|s| (*s).to_owned()).collect(),
            prefer_single_node: false,
        }
    }

    fn slots(value: serde_json::Value) -> ResourceSlots {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_kernel_gets_all_or_nothing() {
        let kinds = vec![
            kind("cpu", Strategy::Even, &[("0", None, 1), ("1", None, 1)]),
            kind("mem", Strategy::Fill, &[("root", None, 1000)]),
        ];
        let mut pool = ResourcePool::new(kinds, &settings(&["cpu", "mem"]));
        let (first, second) = (KernelId::random(), KernelId::random());
        let error = pool.allocate(first, &slots(json!({"cpu": 1, "mem": 2000}))).unwrap_err();
        assert!(matches!(error, AllocationError::Insufficient { .. }), "{error}");
        assert_eq!(pool.holders().count(), 0);
        let both = pool.allocate(second, &slots(json!({"cpu": 2, "mem": 1000}))).unwrap();
        assert_eq!(both.devices("cpu"), ["0", "1"]);
        assert_eq!(both.slots(), slots(json!({"cpu": 2, "mem": 1000})));
        assert!(pool.allocate(first, &slots(json!({"cpu": 1}))).is_err());
        pool.release(second);
        assert!(pool.allocate(first, &slots(json!({"cpu": 2}))).is_ok());
    }

    #[test]
    fn allocating_twice_takes_once() {
        let kinds = vec![kind("cpu", Strategy::Even, &[("0", None, 1), ("1", None, 1)])];
        let mut pool = ResourcePool::new(kinds, &settings(&[]));
        let kernel = KernelId::random();
        let first = pool.allocate(kernel, &slots(json!({"cpu": 1}))).unwrap();
        assert_eq!(pool.allocate(kernel, &slots(json!({"cpu": 1}))).unwrap(), first);
        assert!(pool.allocate(KernelId::random(), &slots(json!({"cpu": 1}))).is_ok());
    }

    #[test]
    fn the_reserved_part_is_neither_offered_nor_given() {
        let mut cpu = kind("cpu", Strategy::Even, &[("0", None, 1), ("1", None, 1)]);
        cpu.reserved = Decimal::ONE;
        let mut pool = ResourcePool::new(vec![cpu], &settings(&[]));
        assert_eq!(pool.offered()[&SlotName::cpu()], (SlotType::Count, Decimal::ONE));
        assert!(pool.allocate(KernelId::random(), &slots(json!({"cpu": 2}))).is_err());
        assert!(pool.allocate(KernelId::random(), &slots(json!({"cpu": 1}))).is_ok());
    }

    #[test]
    fn unknown_slots_are_refused_unless_zero() {
        let kinds = vec![kind("cpu", Strategy::Even, &[("0", None, 1)])];
        let mut pool = ResourcePool::new(kinds, &settings(&[]));
        assert_eq!(
            pool.allocate(KernelId::random(), &slots(json!({"cuda.device": 1}))),
            Err(AllocationError::Unsupported("cuda.device".into()))
        );
        assert!(
            pool.allocate(KernelId::random(), &slots(json!({"cuda.device": 0, "cpu": 1}))).is_ok()
        );
    }

    #[test]
    fn cores_are_taken_near_the_accelerators() {
        let cuda = kind("cuda", Strategy::Even, &[("g0", Some(0), 1), ("g1", Some(1), 1)]);
        let cores: Vec<(String, Option<i32>, i64)> =
            (0..6).map(|i| (format!("c{i}"), Some(i / 2), 1)).collect();
        let cores: Vec<_> = cores.iter().map(|(id, n, c)| (id.as_str(), *n, *c)).collect();
        let cpu = kind("cpu", Strategy::Even, &cores);
        let pool = ResourcePool::new(vec![cpu, cuda], &settings(&["cuda", "cpu"]));
        let cpu = &pool.kinds[1].0;
        assert_eq!(pool.preference(cpu, &[0, 1]), ["c0", "c2", "c1", "c3", "c4", "c5"]);
        let mut pool = pool;
        let kernel = KernelId::random();
        let got = pool.allocate(kernel, &slots(json!({"cuda": 1, "cpu": 2}))).unwrap();
        assert_eq!((got.devices("cuda"), got.devices("cpu")), (vec!["g0"], vec!["c0", "c1"]));
    }

    #[test]
    fn devices_of_unknown_node_lie_together() {
        let cpu = kind("cpu", Strategy::Even, &[("a", None, 1), ("b", Some(0), 1), ("c", None, 1)]);
        let pool = ResourcePool::new(vec![cpu], &settings(&[]));
        let cpu = &pool.kinds[0].0;
        assert_eq!(pool.preference(cpu, &[-1]), ["a", "c", "b"]);
    }

    #[test]
    fn restored_holdings_count_even_beyond_the_capacity() {
        let kinds = vec![kind("cpu", Strategy::Even, &[("0", None, 1)])];
        let mut pool = ResourcePool::new(kinds, &settings(&[]));
        let (old, other) = (KernelId::random(), KernelId::random());
        let held = pool.allocate(old, &slots(json!({"cpu": 1}))).unwrap();
        pool.restore(other, held);
        pool.release(old);
        assert!(pool.allocate(KernelId::random(), &slots(json!({"cpu": 1}))).is_err());
        pool.release(other);
        assert!(pool.allocate(KernelId::random(), &slots(json!({"cpu": 1}))).is_ok());
    }
}
