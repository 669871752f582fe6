//! What the scheduler decides in small worlds.

mod common;

use backendai_scheduler::{Decision, Order, Outcome, Session, Snapshot, Strategy, schedule};
use backendai_types::{ClusterMode, SessionType};
use chrono::TimeDelta;
use common::{agent, capped, now, session, snapshot};

/// Decisions in short: `a1` or `a1,a2` where placed, `wait: names`, `none`, `cancel: reason`.
fn decide(snapshot: Snapshot) -> Vec<(u32, String)> {
    let number = |id: &str| u32::from_str_radix(&id[24..30], 16).expect("a number");
    schedule(snapshot)
        .into_iter()
        .map(|Decision { session, outcome }| {
            let text = match outcome {
                Outcome::Placed(kernels) => {
                    let agents: Vec<String> = kernels.iter().map(|(_, a)| a.0.clone()).collect();
                    agents.join(",")
                }
                Outcome::Waits { failed, .. } => {
                    let names: Vec<&str> = failed.iter().map(|f| f.name).collect();
                    format!("wait: {}", names.join(","))
                }
                Outcome::NoAgent { .. } => "none".into(),
                Outcome::Cancelled { reason, .. } => format!("cancel: {reason}"),
            };
            (number(&session.to_string()), text)
        })
        .collect()
}

fn small(n: u32) -> Session {
    session(n, "AK", &[&[("cpu", 1), ("mem", 1)]])
}

fn outcomes(expected: &[(u32, &str)]) -> Vec<(u32, String)> {
    expected.iter().map(|(n, text)| (*n, (*text).to_owned())).collect()
}

#[test]
fn dispersed_takes_the_emptiest_agent_and_concentrated_the_fullest_that_fits() {
    let agents =
        || vec![agent("a1", &[("cpu", 4), ("mem", 9)]), agent("a2", &[("cpu", 3), ("mem", 9)])];
    let mut world = snapshot(agents(), vec![small(1), small(2), small(3)]);
    assert_eq!(decide(world.clone()), outcomes(&[(1, "a1"), (2, "a2"), (3, "a1")]));
    world.policy.strategy = Strategy::Concentrated;
    assert_eq!(decide(world), outcomes(&[(1, "a2"), (2, "a2"), (3, "a2")]));
}

#[test]
fn slots_that_are_not_asked_for_are_spared() {
    let agents = vec![
        agent("big", &[("cpu", 64), ("mem", 64), ("cuda.device", 8)]),
        agent("plain", &[("cpu", 2), ("mem", 2)]),
    ];
    let gpu = session(2, "AK", &[&[("cpu", 1), ("mem", 1), ("cuda.device", 1)]]);
    let world = snapshot(agents, vec![small(1), gpu, small(3), small(4)]);
    let expected = [(1, "plain"), (2, "big"), (3, "plain"), (4, "big")];
    assert_eq!(decide(world), outcomes(&expected));
}

#[test]
fn a_session_without_room_holds_up_those_behind_it() {
    let agents = || vec![agent("a1", &[("cpu", 4), ("mem", 9)])];
    let big = |n| session(n, "AK", &[&[("cpu", 3), ("mem", 1)]]);
    let mut world = snapshot(agents(), vec![small(1), small(2), big(3), small(4)]);
    assert_eq!(decide(world.clone()), outcomes(&[(1, "a1"), (2, "a1"), (3, "none")]));
    // Unless it has been tried often enough,
    world.policy.order = Order::Fifo { num_retries_to_skip: 3 };
    world.sessions[2].retries = 3;
    let expected = [(1, "a1"), (2, "a1"), (4, "a1"), (3, "none")];
    assert_eq!(decide(world.clone()), outcomes(&expected));
    // or could never be placed.
    world.policy.order = Order::Fifo { num_retries_to_skip: 0 };
    world.sessions[2] = session(3, "AK", &[&[("cpu", 5), ("mem", 1)]]);
    let expected = [(1, "a1"), (2, "a1"), (3, "none"), (4, "a1")];
    assert_eq!(decide(world), outcomes(&expected));
}

#[test]
fn other_architectures_do_not_wait() {
    let mut arm = agent("arm", &[("cpu", 1), ("mem", 9)]);
    arm.architecture = "aarch64".into();
    let mut on_arm = small(2);
    on_arm.kernels[0].architecture = "aarch64".into();
    let mut nowhere = small(3);
    nowhere.kernels[0].architecture = "riscv64".into();
    let full = vec![agent("x", &[("cpu", 1), ("mem", 9)]), arm];
    let world = snapshot(full, vec![small(0), small(1), on_arm, nowhere, small(4)]);
    assert_eq!(decide(world), outcomes(&[(0, "x"), (1, "none"), (2, "arm"), (3, "none")]));
}

#[test]
fn youngest_first_and_fair_shares() {
    let agents = || vec![agent("a1", &[("cpu", 2), ("mem", 9)])];
    let mut world = snapshot(agents(), vec![small(3), small(2), small(1)]);
    world.policy.order = Order::Lifo;
    assert_eq!(decide(world), outcomes(&[(3, "a1"), (2, "a1"), (1, "none")]));

    let of = |n, key| session(n, key, &[&[("cpu", 1), ("mem", 1)]]);
    let all = vec![of(1, "A"), of(2, "A"), of(3, "B"), of(4, "B")];
    let mut world = snapshot(agents(), all);
    world.policy.order = Order::Drf;
    assert_eq!(decide(world)[..2], outcomes(&[(1, "a1"), (3, "a1")]));
}

#[test]
fn limits_hold_within_the_pass_and_tell_the_reason() {
    let agents = || vec![agent("a1", &[("cpu", 9), ("mem", 9)])];
    let mut world = snapshot(agents(), vec![small(1), small(2), small(3)]);
    world.quotas.keypairs.values_mut().for_each(|k| k.max_sessions = Some(1));
    world.quotas.users.values_mut().for_each(|u| u.limits = capped(&[("cpu", 2)]));
    world.quotas.domains.values_mut().for_each(|d| d.limits = capped(&[("mem", 1)]));
    let decisions = schedule(world);
    let Outcome::Waits { failed, passed } = &decisions[1].outcome else { panic!("{decisions:?}") };
    let texts: Vec<&str> = failed.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(
        texts,
        [
            "You cannot run more than 1 concurrent sessions",
            "Your domain resource quota is exceeded. (mem=1)"
        ]
    );
    assert_eq!(passed.len(), 5);
    assert_eq!(decisions.len(), 3, "limits hold up nobody else");
}

#[test]
fn batch_sessions_wait_for_their_time_and_their_dependencies() {
    let mut batch = small(1);
    batch.session_type = SessionType::Batch;
    batch.starts_at = Some(now() + TimeDelta::seconds(1));
    batch.unmet_dependencies = vec![(small(9).id, "first".into())];
    let world = snapshot(vec![agent("a1", &[("cpu", 9), ("mem", 9)])], vec![batch]);
    assert_eq!(decide(world.clone()), outcomes(&[(1, "wait: reserved_time,dependencies")]));
    let mut later = world;
    later.now += TimeDelta::seconds(1);
    later.sessions[0].unmet_dependencies.clear();
    assert_eq!(decide(later), outcomes(&[(1, "a1")]));
}

#[test]
fn private_sessions_are_cancelled_where_others_would_wait() {
    let mut private = small(1);
    private.is_private = true;
    let mut world = snapshot(vec![agent("a1", &[("cpu", 9), ("mem", 9)])], vec![private]);
    world.quotas.domains.values_mut().for_each(|d| d.limits = capped(&[("cpu", 0)]));
    assert_eq!(decide(world.clone()), outcomes(&[(1, "a1")]), "resource limits spare them");
    world.quotas.keypairs.values_mut().for_each(|k| {
        (k.max_private_sessions, k.private_sessions) = (Some(1), 1);
    });
    assert_eq!(decide(world), outcomes(&[(1, "cancel: predicate-checks-failed")]));
}

#[test]
fn whoever_waited_too_long_is_given_up() {
    let mut world = snapshot(vec![], vec![small(1), small(2)]);
    world.policy.pending_timeout = Some(world.now - world.sessions[0].created_at);
    assert_eq!(decide(world), outcomes(&[(1, "cancel: pending-timeout"), (2, "none")]));
}

#[test]
fn clusters_are_placed_whole_or_not_at_all() {
    let two = &[("cpu", 2), ("mem", 1)][..];
    let agents =
        || vec![agent("a1", &[("cpu", 3), ("mem", 9)]), agent("a2", &[("cpu", 2), ("mem", 9)])];
    let single = session(1, "AK", &[two, two]);
    assert_eq!(decide(snapshot(agents(), vec![single.clone()])), outcomes(&[(1, "none")]));
    let mut multi = single;
    multi.cluster_mode = ClusterMode::MultiNode;
    assert_eq!(decide(snapshot(agents(), vec![multi.clone()])), outcomes(&[(1, "a1,a2")]));
    multi.kernels.push(multi.kernels[0].clone());
    // What was taken for a cluster that does not fit is given back.
    let other_arch = {
        let mut s = small(2);
        s.designated_agents = Some(vec!["a1".into()]);
        s.kernels[0].slots = common::slots(&[("cpu", 3)]);
        s
    };
    let world = snapshot(agents(), vec![multi, other_arch]);
    assert_eq!(decide(world), outcomes(&[(1, "none"), (2, "a1")]));
}

#[test]
fn designated_agents_are_used_or_named_in_the_refusal() {
    let agents =
        || vec![agent("a1", &[("cpu", 9), ("mem", 9)]), agent("a2", &[("cpu", 1), ("mem", 9)])];
    let on = |n, agent: &str, cpu| {
        let mut s = session(n, "AK", &[&[("cpu", cpu)]]);
        s.designated_agents = Some(vec![agent.into()]);
        s
    };
    let world = snapshot(agents(), vec![on(1, "a2", 2), on(2, "a2", 1), on(3, "a3", 1)]);
    let decisions = schedule(world);
    assert_eq!(
        decisions[0].outcome,
        Outcome::NoAgent {
            message: "The designated agent (a2) does not have the enough remaining capacity \
                      (cpu, requested: 2, remaining: 1)."
                .into()
        }
    );
    assert!(matches!(&decisions[1].outcome, Outcome::Placed(p) if p[0].1.0 == "a2"));
    assert!(
        matches!(&decisions[2].outcome, Outcome::NoAgent { message } if message.contains("a3"))
    );
}

#[test]
fn agents_with_as_many_kernels_as_they_may_have_are_left_out() {
    let agents =
        vec![agent("a1", &[("cpu", 9), ("mem", 9)]), agent("a2", &[("cpu", 5), ("mem", 9)])];
    let mut world = snapshot(agents, vec![small(1), small(2), small(3)]);
    world.policy.max_kernels = Some(1);
    assert_eq!(decide(world), outcomes(&[(1, "a1"), (2, "a2"), (3, "none")]));
}
