//! Small worlds to schedule in.

use std::collections::BTreeMap;

use backendai_scheduler::{
    Agent, Kernel, KeypairQuota, Order, Policy, Quota, Quotas, Session, Snapshot, Strategy,
};
use backendai_types::{
    AccessKey, ClusterMode, GroupId, KernelId, ResourceLimits, ResourceSlots, SessionId,
    SessionType, SlotName, UserId,
};
use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;

pub fn slots(entries: &[(&str, i64)]) -> ResourceSlots {
    entries.iter().map(|(slot, n)| (SlotName::from(*slot), Decimal::from(*n))).collect()
}

pub fn unlimited() -> ResourceLimits {
    ResourceLimits::unlimited_unless(BTreeMap::new())
}

pub fn capped(entries: &[(&str, i64)]) -> ResourceLimits {
    let named =
        entries.iter().map(|(slot, n)| (SlotName::from(*slot), Some(Decimal::from(*n)))).collect();
    ResourceLimits::unlimited_unless(named)
}

pub fn now() -> DateTime<Utc> {
    "2023-11-21T03:19:22Z".parse().expect("a date")
}

pub fn agent(id: &str, capacity: &[(&str, i64)]) -> Agent {
    Agent {
        id: id.into(),
        architecture: "x86_64".into(),
        capacity: slots(capacity),
        used: ResourceSlots::default(),
        kernels: 0,
    }
}

/// The `n`th session of a keypair; its id and age follow from the number.
pub fn session(n: u32, key: &str, kernels: &[&[(&str, i64)]]) -> Session {
    Session {
        id: SessionId(id(n, 0)),
        session_type: SessionType::Interactive,
        cluster_mode: ClusterMode::SingleNode,
        access_key: key.into(),
        user_id: UserId(id(1, 7)),
        group_id: GroupId(id(1, 8)),
        domain_name: "default".into(),
        is_private: false,
        created_at: now() - TimeDelta::hours(1) + TimeDelta::seconds(i64::from(n)),
        starts_at: None,
        designated_agents: None,
        retries: 0,
        unmet_dependencies: Vec::new(),
        kernels: (1u32..)
            .zip(kernels)
            .map(|(k, request)| Kernel {
                id: KernelId(id(n, k)),
                image: "r/i:t".into(),
                architecture: "x86_64".into(),
                slots: slots(request),
            })
            .collect(),
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(a: u32, b: u32) -> T {
    format!("00000000-0000-4000-8000-{a:06x}{b:06x}").parse().expect("an id")
}

pub fn policy() -> Policy {
    Policy {
        scaling_group: "default".into(),
        order: Order::Fifo { num_retries_to_skip: 0 },
        strategy: Strategy::Dispersed,
        slot_priority: ["cuda", "rocm", "tpu", "cpu", "mem"].map(str::to_owned).to_vec(),
        pending_timeout: None,
        max_kernels: None,
    }
}

/// Quotas without limits for these keypairs and everybody the sessions belong to.
pub fn quotas(keys: &[&str]) -> Quotas {
    let quota = || Quota { limits: unlimited(), used: ResourceSlots::default() };
    let keypair = || KeypairQuota {
        slots: quota(),
        max_sessions: None,
        sessions: 0,
        max_private_sessions: None,
        private_sessions: 0,
    };
    Quotas {
        keypairs: keys.iter().map(|key| (AccessKey::from(*key), keypair())).collect(),
        users: [(UserId(id(1, 7)), quota())].into(),
        groups: [(GroupId(id(1, 8)), quota())].into(),
        domains: [("default".to_owned(), quota())].into(),
    }
}

pub fn snapshot(agents: Vec<Agent>, sessions: Vec<Session>) -> Snapshot {
    let mut keys: Vec<&str> = sessions.iter().map(|s| s.access_key.as_str()).collect();
    keys.dedup();
    let quotas = quotas(&keys);
    Snapshot { now: now(), policy: policy(), agents, quotas, sessions }
}
