//! The door's rules, without a database.

use backendai_types::{
    KernelId, KernelStatus as K, SessionId, SessionResult, SessionStatus as S, SessionType,
};
use proptest::prelude::*;
use serde_json::json;

use super::plan::{Locked, LockedKernel, Plan};
use super::{Change, FAILED_TO_START, Outcome};

fn session(kernels: &[K]) -> Locked {
    let locked = |index: usize, status| LockedKernel {
        id: KernelId::random(),
        is_main: index == 0,
        status,
        status_changed: None,
        status_info: None,
        agent: (status != K::Pending).then(|| "a1".into()),
    };
    Locked {
        id: SessionId::random(),
        status: S::from_kernels(kernels[0], kernels),
        status_info: None,
        session_type: SessionType::Interactive,
        result: SessionResult::Undefined,
        kernels: kernels.iter().enumerate().map(|(n, status)| locked(n, *status)).collect(),
    }
}

fn statuses(session: &Locked) -> Vec<K> {
    session.kernels.iter().map(|kernel| kernel.status).collect()
}

/// Applies changes one after the other; the names of the events they make.
fn events(session: &mut Locked, changes: &[Change]) -> Vec<&'static str> {
    let mut plan = Plan::default();
    for change in changes {
        plan.apply(session, change).expect("the session can follow");
    }
    plan.entries.iter().map(|entry| entry.event).collect()
}

fn scheduled(session: &Locked) -> Change {
    let placement = session.kernels.iter().map(|kernel| (kernel.id, "a1".into())).collect();
    Change { placement, ..Change::session(session.id, K::Scheduled, "scheduled") }
}

#[test]
fn a_life_from_queue_to_end_makes_the_events_of_the_product() {
    let mut session = session(&[K::Pending]);
    let (id, kernel) = (session.id, session.kernels[0].id);
    let life = [
        scheduled(&session),
        Change::session(id, K::Preparing, ""),
        Change::kernel(id, kernel, K::Pulling, "r/i:t"),
        Change::kernel(id, kernel, K::Preparing, "creating"),
        Change::kernel(id, kernel, K::Running, "new-container-started"),
        Change::session(id, K::Terminating, "user-requested"),
        Change::kernel(id, kernel, K::Terminated, "self-terminated"),
    ];
    let got = events(&mut session, &life);
    let streamed: Vec<_> =
        got.into_iter().filter(|name| super::STREAMED_EVENTS.contains(name)).collect();
    assert_eq!(
        streamed,
        [
            "session_scheduled",
            "kernel_preparing",
            "kernel_pulling",
            "kernel_creating",
            "kernel_started",
            "session_started",
            "kernel_terminating",
            "session_terminating",
            "kernel_terminated",
            "session_terminated",
        ]
    );
    assert_eq!(session.status_info.as_deref(), Some("user-requested"), "the reason is kept");
    // All of it again, late: nothing happens.
    assert_eq!(events(&mut session, &life), [""; 0]);
    assert_eq!(session.status, S::Terminated);
}

#[test]
fn creating_is_an_event_once_without_a_pull() {
    let mut session = session(&[K::Preparing]);
    let creating = Change::kernel(session.id, session.kernels[0].id, K::Preparing, "creating");
    assert_eq!(events(&mut session, &[creating.clone(), creating]), ["kernel_creating"]);
}

#[test]
fn when_one_kernel_fails_to_start_the_whole_session_is_cancelled() {
    let mut session = session(&[K::Running, K::Preparing]);
    let (id, main, sub) = (session.id, session.kernels[0].id, session.kernels[1].id);
    let failed = Change {
        with_siblings: true,
        ..Change::kernel(id, sub, K::Cancelled, FAILED_TO_START)
            .with_data("error", json!({"src": "agent"}))
    };
    events(&mut session, &[failed]);
    assert_eq!(statuses(&session), [K::Terminating, K::Cancelled]);
    assert_eq!(session.status, S::Terminating);
    events(&mut session, &[Change::kernel(id, main, K::Terminated, FAILED_TO_START)]);
    assert_eq!(session.status, S::Cancelled);
}

#[test]
fn siblings_of_an_ended_main_kernel_end_too() {
    let mut session = session(&[K::Running, K::Running, K::Terminated]);
    let gone = Change::kernel(session.id, session.kernels[0].id, K::Terminated, "self-terminated");
    events(&mut session, &[gone]);
    assert_eq!(statuses(&session), [K::Terminated, K::Terminating, K::Terminated]);
    assert_eq!(session.status, S::Terminating);
}

#[test]
fn a_batch_session_without_a_result_has_failed_when_it_ends() {
    let mut session = session(&[K::Running]);
    session.session_type = SessionType::Batch;
    let gone = Change::session(session.id, K::Terminated, "self-terminated");
    assert!(events(&mut session, &[gone]).contains(&"session_failure"));
    assert_eq!(session.result, SessionResult::Failure);
}

#[test]
fn changes_the_diagram_does_not_have_are_told_and_change_nothing() {
    let mut session = session(&[K::Terminated]);
    let mut plan = Plan::default();
    let back = Change::session(session.id, K::Running, "");
    assert!(matches!(plan.apply(&mut session, &back), Ok(Outcome::Illegal(_))));
    let stranger = Change::kernel(session.id, KernelId::random(), K::Terminated, "");
    assert_eq!(plan.apply(&mut session, &stranger), Ok(Outcome::Missing));
    assert!(plan.entries.is_empty() && plan.kernels.is_empty() && plan.sessions.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is wanted in whatever order: sessions can follow their kernels, every step is
    /// one the diagram has, and each row's new status is where its last step leads.
    #[test]
    fn every_history_is_one_the_diagram_allows(
        size in 1usize..4,
        wanted in prop::collection::vec((0usize..5, 0usize..K::ALL.len(), any::<bool>()), 0..30),
    ) {
        let mut session = session(&vec![K::Pending; size]);
        let mut plan = Plan::default();
        for (target, to, with_siblings) in wanted {
            let to = K::ALL[to];
            let change = match session.kernels.get(target) {
                Some(kernel) => Change::kernel(session.id, kernel.id, to, "some-reason"),
                None if to == K::Scheduled => scheduled(&session),
                None => Change::session(session.id, to, "some-reason"),
            };
            let outcome = plan.apply(&mut session, &Change { with_siblings, ..change });
            prop_assert!(outcome.is_ok(), "{outcome:?}");
            prop_assert_eq!(
                session.status.is_terminal(),
                session.kernels.iter().all(|kernel| kernel.status.is_terminal())
            );
        }
        let mut kernels = std::collections::HashMap::new();
        let mut status = S::Pending;
        for entry in plan.entries.iter().filter(|entry| entry.to.is_some()) {
            let (from, to) = (entry.from.unwrap_or(""), entry.to.unwrap_or(""));
            match entry.kernel {
                Some(kernel) => {
                    let known = kernels.entry(kernel).or_insert(K::Pending);
                    prop_assert_eq!(from, known.as_str());
                    let to: K = to.parse().expect("a status");
                    prop_assert!(known.successors().contains(&to));
                    *known = to;
                }
                None => {
                    prop_assert_eq!(from, status.as_str());
                    let to: S = to.parse().expect("a status");
                    prop_assert!(status.successors().contains(&to));
                    status = to;
                }
            }
        }
        prop_assert_eq!(status, session.status);
        for kernel in &session.kernels {
            let last = kernels.get(&kernel.id).copied().unwrap_or(K::Pending);
            prop_assert_eq!(last, kernel.status);
        }
    }
}
