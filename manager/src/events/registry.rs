//! What the leader remembers of each agent between heartbeats. None of it is truth: a new
//! leader begins with nothing and asks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use backendai_rpc::manager_api::{AgentInfo, KernelPhase, KernelReport};
use backendai_types::{AgentId, KernelId};

/// Agents by id, in the time of one leader.
#[derive(Default)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    epoch: u64,
    agents: HashMap<AgentId, Seen>,
}

/// One agent, as last heard.
struct Seen {
    at: Instant,
    /// `None` until it told, in this leader's time.
    told: Option<(u64, AgentInfo)>,
    is_lost: bool,
    kernels: HashMap<KernelId, KernelPhase>,
    /// Kernels the database has here and the agent does not list, and for how many
    /// heartbeats.
    missing: HashMap<KernelId, u32>,
    reconciled: Option<Instant>,
}

/// What a heartbeat means to the one who received it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// The agent is not known and has not said who it is.
    pub is_stranger: bool,
    /// What the agent is has to be written.
    pub is_news: bool,
    /// It was LOST and is back.
    pub is_back: bool,
    /// Its kernels should be compared with the database.
    pub should_reconcile: bool,
}

/// How often an agent's kernels are compared although nothing changed.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(15);

impl Registry {
    /// Forgets everything when a new time as leader begins; true if so.
    pub fn begin_epoch(&self, epoch: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.epoch == epoch {
            return false;
        }
        *inner = Inner { epoch, agents: HashMap::new() };
        true
    }

    /// Gives agents that should live a first sign of life, so that silence counts from now.
    pub fn expect(&self, agents: impl Iterator<Item = AgentId>) {
        let mut inner = self.inner.lock();
        for agent in agents {
            inner.agents.entry(agent).or_insert_with(Seen::new);
        }
    }

    /// Notes a heartbeat.
    pub fn hear(
        &self,
        agent: &AgentId,
        incarnation: u64,
        info: Option<&AgentInfo>,
        kernels: &[KernelReport],
    ) -> Heard {
        let mut inner = self.inner.lock();
        let seen = inner.agents.entry(agent.clone()).or_insert_with(Seen::new);
        seen.at = Instant::now();
        let is_same = seen.told.as_ref().is_some_and(|(known, told)| {
            *known == incarnation && info.is_none_or(|info| info == told)
        });
        if !is_same && info.is_none() {
            return Heard { is_stranger: true, ..Heard::default() };
        }
        let listed: HashMap<KernelId, KernelPhase> =
            kernels.iter().map(|report| (report.kernel_id, report.phase)).collect();
        let due = seen.reconciled.is_none_or(|at| at.elapsed() >= RECONCILE_INTERVAL);
        let should_reconcile = due || !seen.missing.is_empty() || listed != seen.kernels;
        seen.kernels = listed;
        Heard { is_stranger: false, is_news: !is_same, is_back: seen.is_lost, should_reconcile }
    }

    /// Notes that what an agent told is written.
    pub fn know(&self, agent: &AgentId, incarnation: u64, info: AgentInfo) {
        if let Some(seen) = self.inner.lock().agents.get_mut(agent) {
            seen.told = Some((incarnation, info));
            seen.is_lost = false;
        }
    }

    /// Notes that a lost agent is back.
    pub fn revive(&self, agent: &AgentId) {
        if let Some(seen) = self.inner.lock().agents.get_mut(agent) {
            seen.is_lost = false;
        }
    }

    /// Counts how often kernels were missing in a row; returns those missing `patience` times.
    pub fn count_missing(
        &self,
        agent: &AgentId,
        missing: impl Iterator<Item = KernelId>,
        patience: u32,
    ) -> Vec<KernelId> {
        let mut inner = self.inner.lock();
        let Some(seen) = inner.agents.get_mut(agent) else { return Vec::new() };
        seen.reconciled = Some(Instant::now());
        let mut before = std::mem::take(&mut seen.missing);
        let mut gone = Vec::new();
        for kernel in missing {
            let times = before.remove(&kernel).unwrap_or(0) + 1;
            if times >= patience {
                gone.push(kernel);
            }
            seen.missing.insert(kernel, times);
        }
        gone
    }

    /// Agents not heard for `timeout` that are not lost yet.
    pub fn silent(&self, timeout: Duration) -> Vec<AgentId> {
        let inner = self.inner.lock();
        let is_silent = |seen: &Seen| !seen.is_lost && seen.at.elapsed() > timeout;
        inner
            .agents
            .iter()
            .filter(|(_, seen)| is_silent(seen))
            .map(|(agent, _)| agent.clone())
            .collect()
    }

    /// Notes that agents are LOST.
    pub fn lose(&self, agents: &[AgentId]) {
        let mut inner = self.inner.lock();
        for agent in agents {
            if let Some(seen) = inner.agents.get_mut(agent) {
                seen.is_lost = true;
                seen.kernels.clear();
                seen.missing.clear();
            }
        }
    }

    /// Forgets an agent that said good-bye.
    pub fn forget(&self, agent: &AgentId) {
        self.inner.lock().agents.remove(agent);
    }

    /// How far an agent said a kernel is.
    pub fn reported(&self, agent: &AgentId, kernel: KernelId) -> Option<KernelPhase> {
        let inner = self.inner.lock();
        inner.agents.get(agent).filter(|seen| !seen.is_lost)?.kernels.get(&kernel).copied()
    }

    /// True when the agent was heard and is not lost.
    pub fn is_alive(&self, agent: &AgentId) -> bool {
        self.inner.lock().agents.get(agent).is_some_and(|s| !s.is_lost && s.told.is_some())
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            told: None,
            is_lost: false,
            kernels: HashMap::new(),
            missing: HashMap::new(),
            reconciled: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> AgentInfo {
        AgentInfo {
            addr: "tcp://127.0.0.1:6001".into(),
            public_key: None,
            public_host: "127.0.0.1".into(),
            scaling_group: "default".into(),
            region: "local".into(),
            version: "0".into(),
            architecture: "x86_64".into(),
            slots: Default::default(),
            compute_plugins: Default::default(),
            images: Vec::new(),
        }
    }

    #[test]
    fn a_stranger_is_asked_and_then_known_until_it_restarts() {
        let registry = Registry::default();
        let agent = AgentId::from("i-a");
        assert!(registry.hear(&agent, 1, None, &[]).is_stranger);
        assert!(registry.hear(&agent, 1, Some(&info()), &[]).is_news);
        registry.know(&agent, 1, info());
        assert!(registry.is_alive(&agent));
        let known = registry.hear(&agent, 1, None, &[]);
        assert!(!known.is_stranger && !known.is_news);
        assert!(registry.hear(&agent, 2, None, &[]).is_stranger);
    }

    #[test]
    fn a_kernel_is_gone_only_when_it_is_missing_several_times_in_a_row() {
        let registry = Registry::default();
        let agent = AgentId::from("i-a");
        registry.hear(&agent, 1, Some(&info()), &[]);
        let kernel = KernelId::random();
        let missing = |list: &[KernelId]| registry.count_missing(&agent, list.iter().copied(), 2);
        assert_eq!(missing(&[kernel]), []);
        assert_eq!(missing(&[]), []);
        assert_eq!(missing(&[kernel]), []);
        assert_eq!(missing(&[kernel]), [kernel]);
    }
}
