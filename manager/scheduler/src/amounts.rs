//! Amounts as whole numbers in vectors, so that comparing them costs next to nothing.

use std::collections::HashMap;

use backendai_types::{ResourceSlots, SlotName};
use rust_decimal::Decimal;

/// Decimals kept: as many as the database does.
const SCALE: u32 = 6;

/// An amount in millionths.
pub(crate) type Amount = i128;

/// Numbers of slots, given in order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct SlotTable {
    numbers: HashMap<SlotName, usize>,
    names: Vec<SlotName>,
}

impl SlotTable {
    pub fn number(&mut self, slot: &SlotName) -> usize {
        if let Some(number) = self.numbers.get(slot) {
            return *number;
        }
        let number = self.names.len();
        self.numbers.insert(slot.clone(), number);
        self.names.push(slot.clone());
        number
    }

    pub fn name(&self, number: usize) -> &SlotName {
        &self.names[number]
    }

    /// Slots that are asked for, with their amounts, by number.
    pub fn request(&mut self, slots: &ResourceSlots) -> Request {
        let mut entries: Vec<(usize, Amount)> = slots
            .iter()
            .filter(|(_, amount)| !amount.is_zero())
            .map(|(slot, amount)| (self.number(slot), to_amount(amount)))
            .collect();
        entries.sort_unstable();
        Request(entries)
    }

    pub fn vector(&mut self, slots: &ResourceSlots) -> Vector {
        let mut vector = Vector::default();
        for (slot, amount) in slots.iter() {
            *vector.at(self.number(slot)) = to_amount(amount);
        }
        vector
    }
}

/// Amounts by slot number; slots beyond the end are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vector(Vec<Amount>);

impl Vector {
    pub fn get(&self, slot: usize) -> Amount {
        self.0.get(slot).copied().unwrap_or(0)
    }

    pub fn at(&mut self, slot: usize) -> &mut Amount {
        if self.0.len() <= slot {
            self.0.resize(slot + 1, 0);
        }
        &mut self.0[slot]
    }

    pub fn add(&mut self, request: &Request) {
        for (slot, amount) in &request.0 {
            *self.at(*slot) += amount;
        }
    }

    pub fn sub(&mut self, request: &Request) {
        for (slot, amount) in &request.0 {
            *self.at(*slot) -= amount;
        }
    }

    pub fn holds(&self, request: &Request) -> bool {
        request.0.iter().all(|(slot, amount)| self.get(*slot) >= *amount)
    }

    /// Slots that are not zero.
    pub fn nonzero(&self) -> impl Iterator<Item = (usize, Amount)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, amount)| *amount != 0)
    }
}

/// Amounts that are asked for: each above zero, in order of slot number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request(pub Vec<(usize, Amount)>);

impl Request {
    pub fn add(&mut self, other: &Self) {
        for (slot, amount) in &other.0 {
            match self.0.binary_search_by_key(slot, |(slot, _)| *slot) {
                Ok(index) => self.0[index].1 += amount,
                Err(index) => self.0.insert(index, (*slot, *amount)),
            }
        }
    }
}

pub(crate) fn to_amount(amount: Decimal) -> Amount {
    // At most 96 bits of mantissa, so six more digits never overflow 128 bits.
    match SCALE.checked_sub(amount.scale()) {
        Some(missing) => amount.mantissa() * 10i128.pow(missing),
        None => amount.mantissa() / 10i128.pow(amount.scale() - SCALE),
    }
}

/// For messages.
pub(crate) fn to_decimal(amount: Amount) -> Decimal {
    Decimal::try_from_i128_with_scale(amount, SCALE).unwrap_or(Decimal::MAX).normalize()
}
