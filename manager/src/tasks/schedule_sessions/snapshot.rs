//! From rows to what the scheduler knows.

use std::collections::{BTreeMap, BTreeSet};

use backendai_datastore::pending::PendingSession;
use backendai_datastore::{Result, Transaction};
use backendai_scheduler::{Agent, Kernel, KeypairQuota, Quota, Quotas, Session};
use backendai_types::{ResourceLimits, ResourceSlots};
use futures::try_join;

use super::notes;

/// The agents of a scaling group with what lies on them.
pub(super) async fn agents(tx: &Transaction, scaling_group: &str) -> Result<Vec<Agent>> {
    let (agents, mut usage) =
        try_join!(tx.agents_schedulable(scaling_group), tx.agent_usage(scaling_group))?;
    Ok(agents
        .into_iter()
        .map(|agent| {
            let used = usage.remove(&agent.id).unwrap_or_default();
            Agent {
                id: agent.id,
                architecture: agent.architecture,
                capacity: agent.available_slots,
                used: used.slots,
                kernels: u32::try_from(used.kernels).unwrap_or(u32::MAX),
            }
        })
        .collect())
}

/// The limits of the owners of these sessions, and what they have.
pub(super) async fn quotas(tx: &Transaction, pending: &[PendingSession]) -> Result<Quotas> {
    let keys = distinct(pending, |session| session.access_key.clone());
    let users = distinct(pending, |session| session.user_id);
    let groups = distinct(pending, |session| session.group_id);
    let domains = distinct(pending, |session| session.domain_name.clone());
    let (keypair_limits, keypair_usage, counts, user_limits, user_usage) = try_join!(
        tx.keypair_limits(&keys),
        tx.keypair_usage(&keys),
        tx.keypair_session_counts(&keys),
        tx.user_limits(&users),
        tx.user_usage(&users),
    )?;
    let (group_limits, group_usage, domain_limits, domain_usage) = try_join!(
        tx.group_limits(&groups),
        tx.group_usage(&groups),
        tx.domain_limits(&domains),
        tx.domain_usage(&domains),
    )?;
    Ok(Quotas {
        keypairs: keypair_limits
            .into_iter()
            .map(|(key, limits)| {
                let used = keypair_usage.get(&key).cloned().unwrap_or_default();
                let count = counts.get(&key).copied().unwrap_or_default();
                let quota = KeypairQuota {
                    slots: Quota { limits: limits.slots, used },
                    max_sessions: limits.sessions,
                    sessions: count.sessions,
                    max_private_sessions: limits.private_sessions,
                    private_sessions: count.private_sessions,
                };
                (key, quota)
            })
            .collect(),
        users: joined(user_limits, &user_usage),
        groups: joined(group_limits, &group_usage),
        domains: joined(domain_limits, &domain_usage),
    })
}

fn joined<K: Ord>(
    limits: BTreeMap<K, ResourceLimits>,
    usage: &BTreeMap<K, ResourceSlots>,
) -> BTreeMap<K, Quota> {
    limits
        .into_iter()
        .map(|(owner, limits)| {
            let used = usage.get(&owner).cloned().unwrap_or_default();
            (owner, Quota { limits, used })
        })
        .collect()
}

fn distinct<K: Ord>(pending: &[PendingSession], key: impl Fn(&PendingSession) -> K) -> Vec<K> {
    pending.iter().map(key).collect::<BTreeSet<K>>().into_iter().collect()
}

/// A waiting session as the scheduler sees it.
pub(super) fn session(pending: &PendingSession) -> Session {
    Session {
        id: pending.id,
        session_type: pending.session_type,
        cluster_mode: pending.cluster_mode,
        access_key: pending.access_key.clone(),
        user_id: pending.user_id,
        group_id: pending.group_id,
        domain_name: pending.domain_name.clone(),
        is_private: pending.is_private,
        created_at: pending.created_at,
        starts_at: pending.starts_at,
        designated_agents: pending.designated_agents.clone(),
        retries: notes::retries(pending),
        unmet_dependencies: pending.unmet_dependencies.clone(),
        kernels: pending
            .kernels
            .iter()
            .map(|kernel| Kernel {
                id: kernel.id,
                image: kernel.image.clone(),
                architecture: kernel.architecture.clone(),
                slots: kernel.requested_slots.clone(),
            })
            .collect(),
    }
}
