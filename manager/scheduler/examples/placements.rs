//! Prints how many sessions a second the scheduler places.
//!
//! `cargo run --release -p backendai-scheduler --example placements [agents] [sessions]`

use std::collections::BTreeMap;
use std::time::Instant;

use backendai_scheduler::{
    Agent, Kernel, KeypairQuota, Order, Outcome, Policy, Quota, Quotas, Session, Snapshot,
    Strategy, schedule,
};
use backendai_types::{
    AccessKey, ClusterMode, GroupId, KernelId, ResourceLimits, ResourceSlots, SessionId,
    SessionType, SlotName, UserId,
};
use rust_decimal::Decimal;

const OWNERS: usize = 1000;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|text| text.parse::<usize>().ok());
    let agents = numbers.next().unwrap_or(10_000);
    let sessions = numbers.next().unwrap_or(100_000);
    for order in [Order::Fifo { num_retries_to_skip: 0 }, Order::Drf] {
        for strategy in [Strategy::Dispersed, Strategy::Concentrated] {
            measure(agents, sessions, order, strategy);
        }
    }
}

fn measure(agents: usize, sessions: usize, order: Order, strategy: Strategy) {
    let snapshot = world(agents, sessions, order, strategy);
    let begin = Instant::now();
    let decisions = schedule(snapshot);
    let took = begin.elapsed();
    let placed = decisions.iter().filter(|d| matches!(d.outcome, Outcome::Placed(_))).count();
    println!(
        "{order:?}, {strategy:?}: {placed} of {sessions} sessions on {agents} agents in {} ms: \
         {:.0} placements/s",
        took.as_millis(),
        placed as f64 / took.as_secs_f64()
    );
}

fn slots(entries: &[(&str, u64)]) -> ResourceSlots {
    entries.iter().map(|(slot, n)| (SlotName::from(*slot), Decimal::from(*n))).collect()
}

fn world(agents: usize, sessions: usize, order: Order, strategy: Strategy) -> Snapshot {
    let now = "2023-11-21T03:19:22Z".parse().expect("a date");
    let gib = 1u64 << 30;
    let cap = |cpu: u64| {
        let named = [(SlotName::cpu(), Some(Decimal::from(cpu)))];
        Quota {
            limits: ResourceLimits::unlimited_unless(BTreeMap::from(named)),
            used: ResourceSlots::default(),
        }
    };
    let users: Vec<UserId> = (0..OWNERS).map(|_| UserId::random()).collect();
    let groups: Vec<GroupId> = (0..20).map(|_| GroupId::random()).collect();
    let key = |n: usize| AccessKey(format!("AKIA{n:016}"));
    let keypair = || KeypairQuota {
        slots: cap(10_000),
        max_sessions: Some(10_000),
        sessions: 0,
        max_private_sessions: Some(1),
        private_sessions: 0,
    };
    Snapshot {
        now,
        policy: Policy {
            scaling_group: "default".into(),
            order,
            strategy,
            slot_priority: ["cuda", "rocm", "tpu", "cpu", "mem"].map(str::to_owned).to_vec(),
            pending_timeout: None,
            max_kernels: None,
        },
        agents: (0..agents)
            .map(|n| {
                let mut capacity = slots(&[("cpu", 32), ("mem", 128 * gib)]);
                if n % 4 == 0 {
                    capacity.set("cuda.device".into(), Decimal::from(8));
                }
                Agent {
                    id: format!("i-{n:05}").into(),
                    architecture: "x86_64".into(),
                    capacity,
                    used: slots(&[("cpu", (n % 3) as u64)]),
                    kernels: 0,
                }
            })
            .collect(),
        quotas: Quotas {
            keypairs: (0..OWNERS).map(|n| (key(n), keypair())).collect(),
            users: users.iter().map(|user| (*user, cap(10_000))).collect(),
            groups: groups.iter().map(|group| (*group, cap(10_000_000))).collect(),
            domains: [("default".to_owned(), cap(10_000_000))].into(),
        },
        sessions: (0..sessions)
            .map(|n| {
                let mut request = slots(&[("cpu", 1 + n as u64 % 3), ("mem", gib)]);
                if n % 10 == 0 {
                    request.set("cuda.device".into(), Decimal::ONE);
                }
                Session {
                    id: SessionId::random(),
                    session_type: SessionType::Interactive,
                    cluster_mode: ClusterMode::SingleNode,
                    access_key: key(n % OWNERS),
                    user_id: users[n % OWNERS],
                    group_id: groups[n % groups.len()],
                    domain_name: "default".into(),
                    is_private: false,
                    created_at: now,
                    starts_at: None,
                    designated_agents: None,
                    retries: 0,
                    unmet_dependencies: Vec::new(),
                    kernels: vec![Kernel {
                        id: KernelId::random(),
                        image: "r/i:t".into(),
                        architecture: "x86_64".into(),
                        slots: request,
                    }],
                }
            })
            .collect(),
    }
}
