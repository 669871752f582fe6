//! Asking for sessions: checks, names, limits, order.

use std::time::Duration;

use backendai_manager::app::Error;
use backendai_manager::app::session::{CreateSession, create};
use backendai_types::{SessionStatus, SessionType};
use futures::future::join_all;
use serde_json::json;

use super::world::{USER, World, admin, request, resources};

#[tokio::test]
async fn wrong_requests_are_refused_in_the_products_words() {
    let world = World::new(&[]).await;
    let with = |change: &dyn Fn(&mut CreateSession)| {
        let mut wanted = CreateSession { enqueue_only: true, ..request("sess-one") };
        change(&mut wanted);
        wanted
    };
    for (wanted, text) in [
        (with(&|r| r.agent_list = Some(vec!["a1".into()])), "manually assign"),
        (with(&|r| r.domain = "other".into()), "You can only set the domain to your domain."),
        (with(&|r| r.group = "other".into()), "Invalid group"),
        (with(&|r| r.owner_access_key = Some("NOBODY".into())), "Unknown owner access key"),
        (
            with(&|r| r.mount_map = [("a".into(), "x".into()), ("b".into(), "x".into())].into()),
            "Duplicate alias folder name exists.",
        ),
        (
            with(&|r| r.resources = json!({"gpu": 1}).as_object().unwrap().clone()),
            "Unknown requested resource slot: gpu",
        ),
        (with(&|r| r.resources = resources(0)), ""),
        (with(&|r| r.image = "nope:1".into()), "environment image"),
        (with(&|r| r.session_type = SessionType::Batch), "non-empty startup command"),
        (with(&|r| r.starts_at = Some("1h".into())), "only for batch"),
        (with(&|r| r.cluster_size = 9), "more than 8 containers"),
        (with(&|r| r.scaling_group = Some("other".into())), "scaling group"),
        (with(&|r| r.session_type = SessionType::Inference), "scaling group"),
        (with(&|r| r.mounts = vec!["data".into()]), "virtual folder"),
        (with(&|r| r.dependencies = vec!["unborn".into()]), "dependency list"),
    ] {
        match world.create(wanted).await {
            // Nothing asked for is the image's minimum.
            Ok(_) => assert_eq!(text, ""),
            Err(error) => assert!(error.to_string().contains(text), "{error} for {text}"),
        }
        world.sql("DELETE FROM sessions").await;
    }
    let by_admin = with(&|r| r.agent_list = Some(vec!["a9".into()]));
    let error = create::create(world.app(), &admin(), by_admin).await.unwrap_err();
    assert!(error.to_string().contains("No such agent: a9"), "{error}");
}

#[tokio::test]
async fn of_many_who_ask_for_one_name_at_once_one_makes_it_and_the_others_get_it() {
    let world = World::new(&[8]).await;
    let asking = (0..8).map(|_| world.create(request("the-name")));
    let answers: Vec<_> = join_all(asking).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    assert!(answers.iter().all(|answer| answer.session_id == answers[0].session_id));

    let alone = || CreateSession { reuse_if_exists: false, ..request("other-name") };
    let answers = join_all((0..8).map(|_| world.create(alone()))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    let id = made.into_iter().next().unwrap().unwrap().session_id;
    for error in refused {
        assert!(matches!(error, Err(Error::SessionExists { existing }) if existing == id));
    }
    // The same name is free for another keypair.
    let other = create::create(world.app(), &admin(), request("the-name")).await.unwrap();
    assert!(other.created);
    let for_user = CreateSession { owner_access_key: Some(USER.into()), ..request("the-name") };
    let reused = create::create(world.app(), &admin(), for_user).await.unwrap();
    assert!(!reused.created && reused.service_ports.len() == 1);
}

#[tokio::test]
async fn whoever_waits_no_longer_than_asked_is_told_so_and_the_session_goes_on() {
    let world = World::new(&[]).await;
    let impatient =
        CreateSession { max_wait: Some(Duration::from_millis(50)), ..request("sess-one") };
    let answer = world.create(impatient).await.unwrap();
    assert_eq!(answer.status, "TIMEOUT");
    assert_eq!(world.session(answer.session_id).await.status, SessionStatus::Pending);
}

#[tokio::test]
async fn a_limit_is_told_as_the_reason_to_wait_and_ends_with_its_cause() {
    let world = World::new(&[8]).await;
    world.sql("UPDATE keypair_resource_policies SET max_concurrent_sessions = 1").await;
    world.create(request("first")).await.unwrap();
    let second = world.enqueue("second").await;
    let noted = "SELECT status_info FROM sessions WHERE name = 'second'";
    world.until(noted, |info| info == "predicate-checks-failed").await;
    let details = world.session(second).await.status_data["scheduler"].clone();
    let failed = json!([{
        "name": "concurrency", "msg": "You cannot run more than 1 concurrent sessions",
    }]);
    assert_eq!(details["failed_predicates"], failed);
    assert_eq!(details["passed_predicates"].as_array().unwrap().len(), 6);
    assert_eq!(details["retries"], 1, "the same reason is not written again and again");
    world.destroy("first", false).await.unwrap();
    world.until_status(second, SessionStatus::Running).await;
    assert_eq!(world.session(second).await.status_data, json!({}));
}

#[tokio::test]
async fn resource_quotas_count_what_is_placed_in_the_same_pass() {
    let world = World::new(&[]).await;
    world.sql("UPDATE domains SET total_resource_slots = '{\"cpu\": \"3\"}'").await;
    for n in 1..=5 {
        world.enqueue(&format!("sess-{n}")).await;
    }
    world.add_agent("a1", 8);
    let running = "SELECT count(*) FROM sessions WHERE status = 'RUNNING'";
    world.until(running, |count| count == "3").await;
    let waiting = "SELECT string_agg(name || ' ' || status_info, ', ' ORDER BY name) FROM sessions
                   WHERE status = 'PENDING'";
    let expected = "sess-4 predicate-checks-failed, sess-5 predicate-checks-failed";
    world.until(waiting, |text| text == expected).await;
    world.destroy("sess-1", false).await.unwrap();
    let fourth = "SELECT status FROM sessions WHERE name = 'sess-4'";
    world.until(fourth, |status| status == "RUNNING").await;
    assert_eq!(world.value(running).await, "3");
}

#[tokio::test]
async fn sessions_that_waited_too_long_are_cancelled() {
    let world = World::new(&[]).await;
    world.sql("UPDATE scaling_groups SET scheduler_opts = '{\"pending_timeout\": 0.2}'").await;
    let answer = world.create(request("sess-one")).await.unwrap();
    assert_eq!(answer.status, "CANCELLED");
    let session = world.session(answer.session_id).await;
    assert_eq!(session.status_info.as_deref(), Some("pending-timeout"));
}

#[tokio::test]
async fn many_sessions_fill_the_agents_exactly() {
    let world = World::new(&[3, 2]).await;
    let names: Vec<String> = (0..9).map(|n| format!("many-{n}")).collect();
    join_all(names.iter().map(|name| world.enqueue(name))).await;
    let running = "SELECT count(*) FROM sessions WHERE status = 'RUNNING'";
    world.until(running, |count| count == "5").await;
    let per_agent = "SELECT string_agg(agent || '=' || n, ' ' ORDER BY agent) FROM (
        SELECT agent, sum(amount)::int AS n FROM allocations WHERE slot = 'cpu' GROUP BY agent) t";
    assert_eq!(world.value(per_agent).await, "a1=3 a2=2");
}
