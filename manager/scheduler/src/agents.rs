//! Agents, and the best one for a request without looking at all of them.
//!
//! For every kind of request (architecture and set of slots) that comes up, the agents are
//! kept sorted by how good they are for it. Finding one walks from the best; where the
//! first slot alone shows that nothing further can fit, it stops.

use std::collections::{BTreeSet, HashMap};

use backendai_types::AgentId;

use crate::amounts::{Amount, Request, SlotTable, Vector};
use crate::{Agent, Strategy};

/// The agents of a scaling group during a pass.
pub(crate) struct Agents {
    strategy: Strategy,
    max_kernels: u32,
    slot_priority: Vec<String>,
    agents: Vec<Room>,
    by_id: HashMap<AgentId, usize>,
    architectures: Vec<String>,
    shapes: HashMap<Shape, usize>,
    indexes: Vec<Index>,
}

struct Room {
    id: AgentId,
    architecture: usize,
    capacity: Vector,
    remaining: Vector,
    kernels: u32,
}

/// A kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    architecture: usize,
    /// Slots asked for, in order of number.
    slots: Vec<usize>,
}

/// Agents from best to worst for one kind of request: the number of slots they have that
/// are not asked for, then one number per slot.
struct Index {
    architecture: usize,
    /// Slots in order of priority.
    slots: Vec<usize>,
    asked: Vec<usize>,
    best_first: BTreeSet<(Key, usize)>,
}

/// Smaller is better.
type Key = Vec<Amount>;

/// Why a request got no agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There are no agents at all.
    NoAgents,
    /// None has the architecture.
    Architecture,
    /// All that have it carry as many kernels as they may.
    KernelCount,
    /// None has room now, but one would if it were empty.
    Now,
    /// None could ever hold it.
    Ever,
}

impl Agents {
    pub fn new(
        agents: Vec<Agent>,
        strategy: Strategy,
        max_kernels: Option<u32>,
        slot_priority: Vec<String>,
        table: &mut SlotTable,
    ) -> Self {
        let mut this = Self {
            strategy,
            max_kernels: max_kernels.unwrap_or(u32::MAX),
            slot_priority,
            agents: Vec::with_capacity(agents.len()),
            by_id: HashMap::with_capacity(agents.len()),
            architectures: Vec::new(),
            shapes: HashMap::new(),
            indexes: Vec::new(),
        };
        let mut agents = agents;
        // Ties go to the first by id, in whatever order the caller had them.
        agents.sort_by(|a, b| a.id.cmp(&b.id));
        for agent in agents {
            let architecture = this.architecture(&agent.architecture);
            let capacity = table.vector(&agent.capacity);
            let mut remaining = capacity.clone();
            for (slot, amount) in table.vector(&agent.used).nonzero() {
                *remaining.at(slot) -= amount;
            }
            this.by_id.insert(agent.id.clone(), this.agents.len());
            let kernels = agent.kernels;
            this.agents.push(Room { id: agent.id, architecture, capacity, remaining, kernels });
        }
        this
    }

    fn architecture(&mut self, name: &str) -> usize {
        match self.architectures.iter().position(|known| known == name) {
            Some(number) => number,
            None => {
                self.architectures.push(name.to_owned());
                self.architectures.len() - 1
            }
        }
    }

    pub fn id(&self, agent: usize) -> &AgentId {
        &self.agents[agent].id
    }

    pub fn find(&self, id: &AgentId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub fn remaining(&self, agent: usize, slot: usize) -> Amount {
        self.agents[agent].remaining.get(slot)
    }

    /// The first slot in which an agent has too little.
    pub fn shortage(&self, agent: usize, request: &Request) -> Option<(usize, Amount)> {
        let remaining = &self.agents[agent].remaining;
        request.0.iter().copied().find(|(slot, amount)| remaining.get(*slot) < *amount)
    }

    pub fn has_architecture(&self, agent: usize, architecture: &str) -> bool {
        self.architectures[self.agents[agent].architecture] == architecture
    }

    /// What all agents together offer.
    pub fn total_capacity(&self) -> Vector {
        let mut total = Vector::default();
        for agent in &self.agents {
            for (slot, amount) in agent.capacity.nonzero() {
                *total.at(slot) += amount;
            }
        }
        total
    }

    /// The best agent with room for `kernels` kernels that together ask for `request`.
    pub fn best(
        &mut self,
        architecture: &str,
        request: &Request,
        kernels: u32,
        table: &SlotTable,
    ) -> Result<usize, NoRoom> {
        let architecture = self.architecture(architecture);
        let index = self.index(architecture, request, table);
        let most = self.max_kernels;
        let fits = |agent: usize| {
            let room = &self.agents[agent];
            room.kernels.saturating_add(kernels) <= most && room.remaining.holds(request)
        };
        match self.indexes[index].first(self.strategy, request, fits) {
            Some(agent) => Ok(agent),
            None => Err(self.why_not(architecture, request, kernels)),
        }
    }

    fn why_not(&self, architecture: usize, request: &Request, kernels: u32) -> NoRoom {
        if self.agents.is_empty() {
            return NoRoom::NoAgents;
        }
        let mut same = self.agents.iter().filter(|a| a.architecture == architecture).peekable();
        if same.peek().is_none() {
            return NoRoom::Architecture;
        }
        let (mut full, mut possible) = (true, false);
        for agent in same {
            full &= agent.kernels.saturating_add(kernels) > self.max_kernels;
            possible |= agent.capacity.holds(request);
        }
        match (full, possible) {
            (true, _) => NoRoom::KernelCount,
            (false, true) => NoRoom::Now,
            (false, false) => NoRoom::Ever,
        }
    }

    pub fn take(&mut self, agent: usize, request: &Request, kernels: u32) {
        self.change(agent, |room| {
            room.remaining.sub(request);
            room.kernels += kernels;
        });
    }

    pub fn give_back(&mut self, agent: usize, request: &Request, kernels: u32) {
        self.change(agent, |room| {
            room.remaining.add(request);
            room.kernels -= kernels;
        });
    }

    fn change(&mut self, agent: usize, change: impl FnOnce(&mut Room)) {
        let strategy = self.strategy;
        let room = &mut self.agents[agent];
        let of_agent = |index: &&mut Index| index.architecture == room.architecture;
        for index in self.indexes.iter_mut().filter(of_agent) {
            let key = index.key(strategy, room);
            index.best_first.remove(&(key, agent));
        }
        change(room);
        let of_agent = |index: &&mut Index| index.architecture == room.architecture;
        for index in self.indexes.iter_mut().filter(of_agent) {
            let key = index.key(strategy, room);
            index.best_first.insert((key, agent));
        }
    }

    fn index(&mut self, architecture: usize, request: &Request, table: &SlotTable) -> usize {
        let asked: Vec<usize> = request.0.iter().map(|(slot, _)| *slot).collect();
        let shape = Shape { architecture, slots: asked };
        if let Some(index) = self.shapes.get(&shape) {
            return *index;
        }
        let asked = shape.slots.clone();
        let mut slots = asked.clone();
        slots.sort_by_cached_key(|slot| {
            let name = table.name(*slot).as_str();
            let rank = self
                .slot_priority
                .iter()
                .position(|known| {
                    name == known || name.strip_prefix(known).is_some_and(|r| r.starts_with('.'))
                })
                .unwrap_or(self.slot_priority.len());
            (rank, name.to_owned())
        });
        let mut index = Index { architecture, slots, asked, best_first: BTreeSet::new() };
        for (number, room) in self.agents.iter().enumerate() {
            if room.architecture == architecture {
                let key = index.key(self.strategy, room);
                index.best_first.insert((key, number));
            }
        }
        self.indexes.push(index);
        self.shapes.insert(shape, self.indexes.len() - 1);
        self.indexes.len() - 1
    }
}

impl Index {
    fn key(&self, strategy: Strategy, room: &Room) -> Key {
        let unasked = |slot: usize| self.asked.binary_search(&slot).is_err();
        let spare = room.capacity.nonzero().filter(|(slot, _)| unasked(*slot)).count();
        let mut key = Vec::with_capacity(1 + self.slots.len());
        key.push(spare as Amount);
        key.extend(self.slots.iter().map(|slot| match strategy {
            Strategy::Dispersed => -room.remaining.get(*slot),
            Strategy::Concentrated => room.remaining.get(*slot),
            Strategy::Legacy => -room.capacity.get(*slot),
        }));
        key
    }

    /// The best agent that fits.
    fn first(
        &self,
        strategy: Strategy,
        request: &Request,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let least = self.slots.first().and_then(|slot| {
            let position = request.0.binary_search_by_key(slot, |(slot, _)| *slot).ok()?;
            Some(request.0[position].1)
        });
        let mut from: Key = Vec::new();
        // One round for each number of spare slots.
        'spare: while let Some((first, _)) = self.best_first.range((from.clone(), 0)..).next() {
            let spare = first[0];
            let mut start = vec![spare];
            if strategy == Strategy::Concentrated {
                // Agents with less of the first slot cannot fit.
                start.extend(least);
            }
            for (key, agent) in self.best_first.range((start, 0)..) {
                let exhausted = strategy != Strategy::Concentrated
                    && least.is_some_and(|least| key.get(1).is_some_and(|have| -have < least));
                if key[0] != spare || exhausted {
                    from = vec![spare + 1];
                    continue 'spare;
                }
                if fits(*agent) {
                    return Some(*agent);
                }
            }
            from = vec![spare + 1];
        }
        None
    }
}
