//! What holds whatever the input.

mod common;

use std::collections::BTreeMap;

use backendai_scheduler::{Agent, Order, Outcome, Session, Snapshot, Strategy, schedule};
use backendai_types::{AgentId, ClusterMode, ResourceSlots};
use common::{agent, capped, session, snapshot};
use proptest::prelude::*;

const KEYS: [&str; 3] = ["A", "B", "C"];

fn agents() -> impl Strategy_<Value = Vec<Agent>> {
    prop::collection::vec((1i64..9, 1i64..9, 0i64..3, 0i64..3, prop::bool::weighted(0.2)), 0..6)
        .prop_map(|all| {
            (0..)
                .zip(all)
                .map(|(n, (cpu, mem, gpu, used, arm))| {
                    let mut a = agent(
                        &format!("a{n}"),
                        &[("cpu", cpu), ("mem", mem), ("cuda.device", gpu)],
                    );
                    a.used = common::slots(&[("cpu", used.min(cpu))]);
                    if arm {
                        a.architecture = "aarch64".into();
                    }
                    a
                })
                .collect()
        })
}

fn sessions() -> impl Strategy_<Value = Vec<Session>> {
    let kernel = (1i64..4, 1i64..4, 0i64..2);
    let one = (
        0usize..3,
        prop::collection::vec(kernel, 1..4),
        any::<bool>(),
        prop::bool::weighted(0.2),
        0u32..3,
    );
    prop::collection::vec(one, 0..20).prop_map(|all| {
        (1..)
            .zip(all)
            .map(|(n, (key, kernels, multi, arm, retries))| {
                let kernels: Vec<[(&str, i64); 3]> = kernels
                    .into_iter()
                    .map(|(cpu, mem, gpu)| [("cpu", cpu), ("mem", mem), ("cuda.device", gpu)])
                    .collect();
                let slices: Vec<&[(&str, i64)]> = kernels.iter().map(|k| &k[..]).collect();
                let mut s = session(n, KEYS[key], &slices);
                if multi {
                    s.cluster_mode = ClusterMode::MultiNode;
                }
                if arm {
                    s.kernels.iter_mut().for_each(|k| k.architecture = "aarch64".into());
                }
                s.retries = retries;
                s
            })
            .collect()
    })
}

use proptest::strategy::Strategy as Strategy_;

fn worlds() -> impl Strategy_<Value = Snapshot> {
    let order = prop_oneof![
        Just(Order::Fifo { num_retries_to_skip: 0 }),
        Just(Order::Fifo { num_retries_to_skip: 2 }),
        Just(Order::Lifo),
        Just(Order::Drf),
    ];
    let strategy = prop_oneof![
        Just(Strategy::Dispersed),
        Just(Strategy::Concentrated),
        Just(Strategy::Legacy),
    ];
    (agents(), sessions(), order, strategy, 1i64..20, 1i64..9).prop_map(
        |(agents, sessions, order, strategy, cpu_cap, session_cap)| {
            let mut world = snapshot(agents, sessions);
            world.quotas = common::quotas(&KEYS);
            for keypair in world.quotas.keypairs.values_mut() {
                keypair.slots.limits = capped(&[("cpu", cpu_cap)]);
                keypair.max_sessions = Some(session_cap);
            }
            world.policy.order = order;
            world.policy.strategy = strategy;
            world
        },
    )
}

/// Every placement of a pass: session and where its kernels lie.
fn placements(world: &Snapshot) -> Vec<(Session, Vec<AgentId>)> {
    schedule(world.clone())
        .into_iter()
        .filter_map(|decision| match decision.outcome {
            Outcome::Placed(kernels) => {
                let session = world.sessions.iter().find(|s| s.id == decision.session)?.clone();
                let wanted: Vec<_> = session.kernels.iter().map(|kernel| kernel.id).collect();
                let placed: Vec<_> = kernels.iter().map(|(kernel, _)| *kernel).collect();
                assert_eq!(wanted, placed, "all kernels or none");
                Some((session, kernels.into_iter().map(|(_, agent)| agent).collect()))
            }
            _ => None,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_placed_beyond_capacity_or_on_the_wrong_agent(world in worlds()) {
        let mut used: BTreeMap<AgentId, ResourceSlots> =
            world.agents.iter().map(|a| (a.id.clone(), a.used.clone())).collect();
        for (session, agents) in placements(&world) {
            if session.cluster_mode == ClusterMode::SingleNode {
                prop_assert!(agents.windows(2).all(|pair| pair[0] == pair[1]));
            }
            for (kernel, id) in session.kernels.iter().zip(&agents) {
                let agent = world.agents.iter().find(|a| a.id == *id).expect("a known agent");
                prop_assert_eq!(&kernel.architecture, &agent.architecture);
                used.get_mut(id).expect("a known agent").add(&kernel.slots);
            }
        }
        for agent in &world.agents {
            prop_assert!(used[&agent.id].fits_in(&agent.capacity), "{:?}", used[&agent.id]);
        }
    }

    #[test]
    fn no_owner_gets_more_than_its_limits(world in worlds()) {
        let mut used = BTreeMap::<String, (i64, ResourceSlots)>::new();
        for (session, _) in placements(&world) {
            let (sessions, slots) = used.entry(session.access_key.0.clone()).or_default();
            *sessions += 1;
            session.kernels.iter().for_each(|kernel| slots.add(&kernel.slots));
        }
        for (key, (sessions, slots)) in used {
            let quota = &world.quotas.keypairs[&key.as_str().into()];
            prop_assert!(quota.max_sessions.is_none_or(|most| sessions <= most));
            prop_assert_eq!(quota.slots.limits.first_exceeded(&slots), None);
        }
    }

    #[test]
    fn the_same_input_gives_the_same_output(world in worlds()) {
        let mut shuffled = world.clone();
        shuffled.agents.reverse();
        prop_assert_eq!(schedule(world), schedule(shuffled));
    }

    #[test]
    fn no_session_overtakes_an_equal_one_of_the_same_owner(mut world in worlds()) {
        world.policy.order = Order::Fifo { num_retries_to_skip: 0 };
        let placed: Vec<_> = placements(&world).into_iter().map(|(s, _)| s.id).collect();
        for (n, early) in world.sessions.iter().enumerate() {
            for late in &world.sessions[n + 1..] {
                let same = early.access_key == late.access_key
                    && early.cluster_mode == late.cluster_mode
                    && early.kernels.len() == late.kernels.len()
                    && early.kernels.iter().zip(&late.kernels).all(|(a, b)| {
                        a.slots == b.slots && a.architecture == b.architecture
                    });
                prop_assert!(!same || !placed.contains(&late.id) || placed.contains(&early.id));
            }
        }
    }

    #[test]
    fn a_second_pass_over_what_is_left_places_nothing_a_first_would_have(world in worlds()) {
        // FIFO without limits: what remains after a pass either waits behind somebody or
        // fits nowhere, so that the next pass, with the same agents, places nothing.
        let mut world = world;
        world.policy.order = Order::Fifo { num_retries_to_skip: 0 };
        world.quotas = common::quotas(&KEYS);
        for (session, agents) in placements(&world) {
            for (kernel, id) in session.kernels.iter().zip(&agents) {
                let agent = world.agents.iter_mut().find(|a| a.id == *id).expect("known");
                agent.used.add(&kernel.slots);
            }
            world.sessions.retain(|left| left.id != session.id);
        }
        prop_assert!(placements(&world).is_empty());
    }
}
