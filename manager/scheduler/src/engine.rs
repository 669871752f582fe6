//! The pass over waiting sessions.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use backendai_types::{AccessKey, AgentId, ClusterMode, KernelId};
use chrono::{DateTime, Utc};

use crate::agents::{Agents, NoRoom};
use crate::amounts::{Amount, Request, SlotTable, Vector, to_decimal};
use crate::predicates;
use crate::quota::Owners;
use crate::{Agent, Decision, Kernel, Order, Outcome, Policy, Quotas, Session};

/// A pass over the sessions of one scaling group.
pub struct Scheduler {
    now: DateTime<Utc>,
    policy: Policy,
    table: SlotTable,
    agents: Agents,
    owners: Owners,
    /// Architectures for which somebody at the front waits.
    blocked: HashSet<String>,
}

/// Why a session has no agent, and whether those behind it must wait.
struct Unplaced {
    message: String,
    blocks: Option<String>,
}

impl Scheduler {
    /// A pass that knows agents and policy.
    pub fn new(now: DateTime<Utc>, policy: Policy, agents: Vec<Agent>) -> Self {
        let mut table = SlotTable::default();
        let agents = Agents::new(
            agents,
            policy.strategy,
            policy.max_kernels,
            policy.slot_priority.clone(),
            &mut table,
        );
        let owners = Owners::default();
        Self { now, policy, table, agents, owners, blocked: HashSet::new() }
    }

    /// Tells the limits of owners. Those of owners known already are left as they are.
    pub fn learn(&mut self, quotas: Quotas) {
        self.owners.learn(quotas, &mut self.table);
    }

    /// Architectures for which somebody waits at the front: sessions that need one of them
    /// and name no agents are not decided about any more.
    pub fn blocked(&self) -> Vec<String> {
        let mut names: Vec<String> = self.blocked.iter().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Decides about further sessions, given in the order in which they wait (for
    /// [`Order::Lifo`]: the youngest first). The others wait behind one of them.
    pub fn schedule(&mut self, sessions: &[Session]) -> Vec<Decision> {
        match self.policy.order {
            Order::Fifo { num_retries_to_skip: 0 } | Order::Lifo => {
                sessions.iter().filter_map(|session| self.decide(session)).collect()
            }
            Order::Fifo { num_retries_to_skip } => {
                let (fresh, skipped): (Vec<_>, Vec<_>) =
                    sessions.iter().partition(|session| session.retries < num_retries_to_skip);
                fresh.into_iter().chain(skipped).filter_map(|s| self.decide(s)).collect()
            }
            Order::Drf => self.schedule_fairly(sessions),
        }
    }

    /// Always the first session of the keypair that has least.
    fn schedule_fairly(&mut self, sessions: &[Session]) -> Vec<Decision> {
        let total = self.agents.total_capacity();
        let mut queues = BTreeMap::<&AccessKey, VecDeque<&Session>>::new();
        for session in sessions {
            queues.entry(&session.access_key).or_default().push_back(session);
        }
        let mut by_share: BTreeSet<(u64, &AccessKey)> =
            queues.keys().map(|key| (self.share(key, &total), *key)).collect();
        let mut decisions = Vec::new();
        while let Some((_, key)) = by_share.pop_first() {
            let Some(session) = queues.get_mut(key).and_then(VecDeque::pop_front) else { continue };
            decisions.extend(self.decide(session));
            by_share.insert((self.share(key, &total), key));
        }
        decisions
    }

    /// The keypair's largest part of any slot, as bits that sort like the number.
    fn share(&self, key: &AccessKey, total: &Vector) -> u64 {
        let Some(keypair) = self.owners.keypairs.get(key) else { return 0 };
        let part = |(slot, used): (usize, Amount)| match total.get(slot) {
            0 => 0.0,
            all => (used as f64 / all as f64).max(0.0),
        };
        // Non-negative floats sort as their bits do.
        keypair.cap.used().nonzero().map(part).fold(0.0, f64::max).to_bits()
    }

    fn decide(&mut self, session: &Session) -> Option<Decision> {
        let decided = |outcome| Some(Decision { session: session.id, outcome });
        if self.policy.pending_timeout.is_some_and(|limit| self.now - session.created_at >= limit) {
            return decided(Outcome::Cancelled { reason: "pending-timeout", failed: Vec::new() });
        }
        let is_behind = session.designated_agents.is_none()
            && session.kernels.iter().any(|kernel| self.blocked.contains(&kernel.architecture));
        if is_behind {
            return None;
        }
        let mut request = Request::default();
        let requests: Vec<Request> =
            session.kernels.iter().map(|kernel| self.table.request(&kernel.slots)).collect();
        for of_kernel in &requests {
            request.add(of_kernel);
        }
        let (failed, passed) = predicates::check(session, &request, &self.owners, self.now);
        if !failed.is_empty() {
            return decided(match session.is_private {
                true => Outcome::Cancelled { reason: "predicate-checks-failed", failed },
                false => Outcome::Waits { failed, passed },
            });
        }
        match self.place(session, &request, &requests) {
            Ok(placement) => {
                self.owners.take(session, &request);
                decided(Outcome::Placed(placement))
            }
            Err(unplaced) => {
                self.blocked.extend(unplaced.blocks);
                decided(Outcome::NoAgent { message: unplaced.message })
            }
        }
    }

    fn place(
        &mut self,
        session: &Session,
        whole: &Request,
        parts: &[Request],
    ) -> Result<Vec<(KernelId, AgentId)>, Unplaced> {
        match session.cluster_mode {
            ClusterMode::SingleNode => {
                let agent = self.place_together(session, whole)?;
                let id = self.agents.id(agent).clone();
                Ok(session.kernels.iter().map(|kernel| (kernel.id, id.clone())).collect())
            }
            ClusterMode::MultiNode => {
                let mut taken: Vec<usize> = Vec::with_capacity(parts.len());
                for (number, (kernel, part)) in session.kernels.iter().zip(parts).enumerate() {
                    match self.place_kernel(session, number, kernel, part) {
                        Ok(agent) => taken.push(agent),
                        Err(unplaced) => {
                            for (agent, part) in taken.iter().zip(parts) {
                                self.agents.give_back(*agent, part, 1);
                            }
                            return Err(unplaced);
                        }
                    }
                }
                let ids = taken.iter().map(|agent| self.agents.id(*agent).clone());
                Ok(session.kernels.iter().map(|kernel| kernel.id).zip(ids).collect())
            }
        }
    }

    /// All kernels on one agent.
    fn place_together(&mut self, session: &Session, whole: &Request) -> Result<usize, Unplaced> {
        let count = u32::try_from(session.kernels.len()).unwrap_or(u32::MAX);
        let Some(main) = session.kernels.first() else {
            return Err(never("The session has no kernels.".into()));
        };
        if session.kernels.iter().any(|kernel| kernel.architecture != main.architecture) {
            return Err(never(
                "Cannot assign multiple kernels with different architectures' single node session"
                    .into(),
            ));
        }
        let agent = match session.designated_agents.as_deref() {
            Some([designated, ..]) => self.designated(designated, main, whole)?,
            Some([]) | None => self
                .agents
                .best(&main.architecture, whole, count, &self.table)
                .map_err(|why| self.unplaced(why, session, main, "the session"))?,
        };
        self.agents.take(agent, whole, count);
        Ok(agent)
    }

    fn place_kernel(
        &mut self,
        session: &Session,
        number: usize,
        kernel: &Kernel,
        part: &Request,
    ) -> Result<usize, Unplaced> {
        let designated = session.designated_agents.as_ref().and_then(|agents| agents.get(number));
        let agent = match designated {
            Some(designated) => self.designated(designated, kernel, part)?,
            None => self
                .agents
                .best(&kernel.architecture, part, 1, &self.table)
                .map_err(|why| self.unplaced(why, session, kernel, "a kernel in the session"))?,
        };
        self.agents.take(agent, part, 1);
        Ok(agent)
    }

    fn designated(
        &self,
        id: &AgentId,
        kernel: &Kernel,
        request: &Request,
    ) -> Result<usize, Unplaced> {
        let Some(agent) = self.agents.find(id) else {
            return Err(never(format!("The designated agent ({id}) is not available.")));
        };
        if !self.agents.has_architecture(agent, &kernel.architecture) {
            return Err(never(format!(
                "The designated agent ({id}) does not have the architecture of the image \
                 ({}, arch: {}).",
                kernel.image, kernel.architecture
            )));
        }
        match self.agents.shortage(agent, request) {
            None => Ok(agent),
            Some((slot, asked)) => Err(never(format!(
                "The designated agent ({id}) does not have the enough remaining capacity \
                 ({}, requested: {}, remaining: {}).",
                self.table.name(slot),
                to_decimal(asked),
                to_decimal(self.agents.remaining(agent, slot)),
            ))),
        }
    }

    fn unplaced(&self, why: NoRoom, session: &Session, kernel: &Kernel, what: &str) -> Unplaced {
        let message = match why {
            NoRoom::NoAgents => "No agents are available for scheduling".to_owned(),
            NoRoom::Architecture => format!(
                "No agents found to be compatible with the image architecture \
                 (image[0]: {}, arch: {})",
                kernel.image, kernel.architecture
            ),
            NoRoom::KernelCount => "No agents found to be available because all agents have \
                                    reached the hard limit of the number of containers."
                .to_owned(),
            NoRoom::Now | NoRoom::Ever => format!(
                "Could not find a contiguous resource region in any agent big enough to host \
                 {what} (id: {}, resource group: {})",
                session.id, self.policy.scaling_group
            ),
        };
        let waits = matches!(why, NoRoom::Now | NoRoom::KernelCount | NoRoom::NoAgents);
        Unplaced { message, blocks: waits.then(|| kernel.architecture.clone()) }
    }
}

/// A session that holds up nobody.
fn never(message: String) -> Unplaced {
    Unplaced { message, blocks: None }
}
