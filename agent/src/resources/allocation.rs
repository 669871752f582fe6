//! One slot over several devices: who gets how much from where.
//!
//! Pure arithmetic. Devices are given in the order in which they are preferred; a map knows
//! each device's capacity and what is taken from it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use backendai_types::SlotName;

/// Shares smaller than this are not handed out; also the step in which an amount is spread.
const FRACTION_STEP: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

/// How an amount is spread over devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// From the freest device as much as it has, then from the next.
    Fill,
    /// Whole units, over all devices with room.
    Even,
    /// Fractions: one device if one can hold all, else as few and as even as possible.
    Fraction {
        /// Amounts are rounded down to a multiple of this.
        quantum: Decimal,
    },
}

/// An amount that cannot be given. Nothing has been taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// The devices have less left than is asked for.
    #[error("InsufficientResource: {slot}: {wanted} wanted, {free} free")]
    Insufficient {
        /// The slot.
        slot: SlotName,
        /// The amount asked for.
        wanted: Decimal,
        /// What is left.
        free: Decimal,
    },
    /// A slot of whole units was asked for a part.
    #[error("InvalidResourceArgument: {slot} is given in whole units, not as {wanted}")]
    NotWhole {
        /// The slot.
        slot: SlotName,
        /// The amount asked for.
        wanted: Decimal,
    },
    /// Nothing is left of the amount after rounding it down.
    #[error("NotMultipleOfQuantum: {slot}: {wanted} is less than the smallest share of {quantum}")]
    BelowQuantum {
        /// The slot.
        slot: SlotName,
        /// The amount asked for.
        wanted: Decimal,
        /// The smallest share.
        quantum: Decimal,
    },
    /// No device of this host has the slot.
    #[error("UnsupportedResource: this agent has no {0}")]
    Unsupported(SlotName),
}

/// Amounts by device id.
pub type Shares = BTreeMap<String, Decimal>;

/// One slot's devices: capacities, and what is taken.
#[derive(Clone, Debug)]
pub struct AllocationMap {
    slot: SlotName,
    strategy: Strategy,
    /// In the host's order.
    devices: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: String,
    capacity: Decimal,
    taken: Decimal,
}

impl Entry {
    fn free(&self) -> Decimal {
        (self.capacity - self.taken).max(Decimal::ZERO)
    }
}

impl AllocationMap {
    /// A map with nothing taken; `devices` are ids with capacities.
    pub fn new(
        slot: SlotName,
        strategy: Strategy,
        devices: impl IntoIterator<Item = (String, Decimal)>,
    ) -> Self {
        let devices = devices
            .into_iter()
            .map(|(id, capacity)| Entry { id, capacity, taken: Decimal::ZERO })
            .collect();
        Self { slot, strategy, devices }
    }

    /// The slot of this map.
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// What all devices have together, taken or not.
    pub fn capacity(&self) -> Decimal {
        self.devices.iter().map(|d| d.capacity).sum()
    }

    /// What is taken from all devices together.
    pub fn taken(&self) -> Decimal {
        self.devices.iter().map(|d| d.taken).sum()
    }

    /// Takes an amount. `preferred` lists device ids in the order in which equals are
    /// chosen; devices it does not name come last.
    ///
    /// # Errors
    /// See [`AllocationError`]; nothing is taken then.
    pub fn allocate(
        &mut self,
        wanted: Decimal,
        preferred: &[String],
    ) -> Result<Shares, AllocationError> {
        if wanted <= Decimal::ZERO {
            return Ok(Shares::new());
        }
        let order = self.order(preferred);
        let free: Vec<Decimal> = order.iter().map(|i| self.devices[*i].free()).collect();
        let taken = match self.strategy {
            Strategy::Fill => fill(&free, wanted),
            Strategy::Even => {
                let whole =
                    wanted.fract().is_zero().then(|| wanted.to_u64()).flatten().ok_or_else(
                        || AllocationError::NotWhole { slot: self.slot.clone(), wanted },
                    )?;
                even(&free, whole)
            }
            Strategy::Fraction { quantum } => {
                let rounded = (wanted / quantum).floor() * quantum;
                if rounded.is_zero() {
                    return Err(AllocationError::BelowQuantum {
                        slot: self.slot.clone(),
                        wanted,
                        quantum,
                    });
                }
                fraction(&free, rounded)
            }
        };
        let Some(taken) = taken else {
            return Err(AllocationError::Insufficient {
                slot: self.slot.clone(),
                wanted,
                free: free.iter().sum(),
            });
        };
        let mut shares = Shares::new();
        for (place, amount) in order.into_iter().zip(taken) {
            if !amount.is_zero() {
                self.devices[place].taken += amount;
                shares.insert(self.devices[place].id.clone(), amount.normalize());
            }
        }
        Ok(shares)
    }

    /// Takes exactly these shares, even beyond the capacity: they are in use already, by a
    /// container that an earlier process of the agent started.
    pub fn restore(&mut self, shares: &Shares) {
        for device in &mut self.devices {
            if let Some(amount) = shares.get(&device.id) {
                device.taken += amount;
            }
        }
    }

    /// Gives shares back.
    pub fn release(&mut self, shares: &Shares) {
        for device in &mut self.devices {
            if let Some(amount) = shares.get(&device.id) {
                device.taken = (device.taken - amount).max(Decimal::ZERO);
            }
        }
    }

    fn order(&self, preferred: &[String]) -> Vec<usize> {
        let rank = |id: &String| preferred.iter().position(|p| p == id).unwrap_or(usize::MAX);
        let mut order: Vec<usize> = (0..self.devices.len()).collect();
        order.sort_by_key(|i| rank(&self.devices[*i].id));
        order
    }
}

/// Freest first; as much as there is.
fn fill(free: &[Decimal], wanted: Decimal) -> Option<Vec<Decimal>> {
    let mut order: Vec<usize> = (0..free.len()).collect();
    order.sort_by(|a, b| free[*b].cmp(&free[*a]));
    let mut taken = vec![Decimal::ZERO; free.len()];
    let mut left = wanted;
    for i in order {
        taken[i] = left.min(free[i]);
        left -= taken[i];
    }
    left.is_zero().then_some(taken)
}

/// Splits what is left over all devices with room, the first ones getting one more, until
/// nothing is left. The freest devices come first, so that they get the odd units.
fn even(free: &[Decimal], wanted: u64) -> Option<Vec<Decimal>> {
    let room: Vec<u64> = free.iter().map(|f| f.floor().to_u64().unwrap_or(u64::MAX)).collect();
    let mut order: Vec<usize> = (0..free.len()).collect();
    order.sort_by(|a, b| room[*b].cmp(&room[*a]));
    let mut taken = vec![0u64; free.len()];
    let mut left = wanted;
    while left > 0 {
        let open: Vec<usize> = order.iter().copied().filter(|i| taken[*i] < room[*i]).collect();
        if open.is_empty() {
            return None;
        }
        let (base, extra) = (left / open.len() as u64, left % open.len() as u64);
        for (place, i) in open.into_iter().enumerate() {
            let share = base + u64::from((place as u64) < extra);
            let share = share.min(room[i] - taken[i]);
            taken[i] += share;
            left -= share;
        }
    }
    Some(taken.into_iter().map(Decimal::from).collect())
}

/// One device if one can hold everything: the one with the least room that suffices. Else
/// the best window of devices that are neighbours when sorted by room.
fn fraction(free: &[Decimal], wanted: Decimal) -> Option<Vec<Decimal>> {
    let mut order: Vec<usize> = (0..free.len()).filter(|i| free[*i] >= FRACTION_STEP).collect();
    order.sort_by(|a, b| free[*a].cmp(&free[*b]));
    let mut taken = vec![Decimal::ZERO; free.len()];
    if let Some(single) = order.iter().copied().find(|i| free[*i] >= wanted) {
        taken[single] = wanted;
        return Some(taken);
    }
    let mut best: Option<(Ranking, &[usize], Vec<Decimal>)> = None;
    for width in 2..=order.len() {
        for window in order.windows(width) {
            let room: Vec<Decimal> = window.iter().map(|i| free[*i]).collect();
            if room.iter().sum::<Decimal>() < wanted {
                continue;
            }
            let shares = spread(&room, wanted);
            let ranking = Ranking::of(&room, &shares);
            if best.as_ref().is_none_or(|(so_far, ..)| ranking < *so_far) {
                best = Some((ranking, window, shares));
            }
        }
    }
    let (_, window, shares) = best?;
    for (i, share) in window.iter().zip(shares) {
        taken[*i] = share;
    }
    Some(taken)
}

/// Smaller is better, field by field.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranking {
    unevenness: Decimal,
    devices: usize,
    /// Remainders too small to be handed out.
    unusable: Decimal,
}

impl Ranking {
    fn of(room: &[Decimal], shares: &[Decimal]) -> Self {
        let most = shares.iter().max().copied().unwrap_or_default();
        let least = shares.iter().min().copied().unwrap_or_default();
        let remainders = room.iter().zip(shares).map(|(room, share)| room - share);
        Self {
            unevenness: most - least,
            devices: shares.len(),
            unusable: remainders.filter(|rest| *rest < FRACTION_STEP).sum(),
        }
    }
}

/// Splits evenly in steps, devices with little room (they come first) giving all they have.
/// The rest that the steps leave over goes to the device with the most room.
fn spread(room: &[Decimal], wanted: Decimal) -> Vec<Decimal> {
    let mut left = wanted;
    let mut shares = Vec::with_capacity(room.len());
    for (place, free) in room.iter().enumerate() {
        let remaining = Decimal::from(room.len() - place);
        let part = if remaining == Decimal::ONE {
            left
        } else {
            (left / remaining / FRACTION_STEP).floor() * FRACTION_STEP
        };
        let share = part.min(*free);
        left -= share;
        shares.push(share);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn map(strategy: Strategy, capacities: &[&str]) -> AllocationMap {
        let devices = capacities.iter().enumerate().map(|(i, c)| (format!("d{i}"), decimal(c)));
        AllocationMap::new("x".into(), strategy, devices)
    }

    fn amounts(map: &mut AllocationMap, wanted: &str) -> Vec<String> {
        let shares = map.allocate(decimal(wanted), &[]).unwrap();
        (0..map.devices.len())
            .map(|i| shares.get(&format!("d{i}")).map_or("0".into(), Decimal::to_string))
            .collect()
    }

    const QUANTUM: Strategy =
        Strategy::Fraction { quantum: Decimal::from_parts(1, 0, 0, false, 2) };

    #[test]
    fn even_spreads_over_all_devices() {
        let mut three = map(Strategy::Even, &["10", "10", "10"]);
        assert_eq!(amounts(&mut three, "7"), ["3", "2", "2"]);
        assert_eq!(amounts(&mut three, "23"), ["7", "8", "8"]);
        let mut two = map(Strategy::Even, &["100", "100"]);
        assert_eq!(amounts(&mut two, "130"), ["65", "65"]);
        assert_eq!(amounts(&mut two, "15"), ["8", "7"]);
    }

    #[test]
    fn fill_takes_device_after_device() {
        assert_eq!(amounts(&mut map(Strategy::Fill, &["100", "100"]), "130"), ["100", "30"]);
    }

    #[test]
    fn cores_are_shared_under_overcommit_and_a_shortage_changes_nothing() {
        let mut cores = map(Strategy::Even, &["2", "2", "2", "2"]);
        assert_eq!(amounts(&mut cores, "4"), ["1", "1", "1", "1"]);
        assert_eq!(amounts(&mut cores, "2"), ["1", "1", "0", "0"]);
        let before = cores.taken();
        let error = cores.allocate(decimal("3"), &[]).unwrap_err();
        assert_eq!(
            error,
            AllocationError::Insufficient {
                slot: "x".into(),
                wanted: decimal("3"),
                free: decimal("2")
            }
        );
        assert_eq!(cores.taken(), before);
    }

    #[test]
    fn fractions_stay_on_one_device_where_they_can() {
        let rooms = ["0.05", "0.1", "0.2", "0.3"];
        let fresh = || map(QUANTUM, &rooms);
        assert_eq!(amounts(&mut fresh(), "0.2"), ["0", "0", "0.2", "0"]);
        assert_eq!(amounts(&mut fresh(), "0.5"), ["0", "0", "0.2", "0.3"]);
        assert_eq!(amounts(&mut fresh(), "0.65"), ["0.05", "0.1", "0.2", "0.3"]);
        let mut rest = map(QUANTUM, &["0.3", "0.3", "0.9"]);
        assert_eq!(amounts(&mut rest, "1"), ["0.3", "0.3", "0.4"]);
    }

    #[test]
    fn amounts_below_the_quantum_or_in_parts_of_a_unit_are_refused() {
        let tenth = Strategy::Fraction { quantum: decimal("0.1") };
        assert!(matches!(
            map(tenth, &["1"]).allocate(decimal("0.09"), &[]),
            Err(AllocationError::BelowQuantum { .. })
        ));
        assert_eq!(amounts(&mut map(tenth, &["1"]), "0.27"), ["0.2"]);
        assert!(matches!(
            map(Strategy::Even, &["4"]).allocate(decimal("1.5"), &[]),
            Err(AllocationError::NotWhole { .. })
        ));
    }

    #[test]
    fn released_shares_can_be_taken_again() {
        let mut cores = map(Strategy::Even, &["1", "1"]);
        let shares = cores.allocate(decimal("2"), &[]).unwrap();
        assert!(cores.allocate(decimal("1"), &[]).is_err());
        cores.release(&shares);
        assert_eq!(cores.taken(), Decimal::ZERO);
        assert!(cores.allocate(decimal("2"), &[]).is_ok());
    }

    #[test]
    fn preferred_devices_come_first_among_equals() {
        let mut cores = map(Strategy::Even, &["1", "1", "1", "1"]);
        let shares = cores.allocate(decimal("2"), &["d2".into(), "d1".into()]).unwrap();
        assert_eq!(shares.keys().collect::<Vec<_>>(), ["d1", "d2"]);
    }
}
