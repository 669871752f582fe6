//! Changes of leadership.

use backendai_manager::app::session::{create, destroy};
use backendai_types::SessionStatus;

use super::agent::Creating;
use super::world::{TestManager, World, config, eventually, request, user};

#[tokio::test]
async fn a_session_begun_under_one_leader_goes_on_under_the_next() {
    // The world's own manager does nothing here.
    let world = World::new(&[4]).await;
    world.manager.lifecycle.kill().await;
    let first = TestManager::start(&world.database, config(), &world.fleet, false).await;
    let epoch = first.leadership.acquired().await;
    let second = TestManager::start(&world.database, config(), &world.fleet, false).await;
    *world.managers.lock() = vec![first.client.clone(), second.client.clone()];
    assert_eq!(second.leadership.epoch(), None);

    let agent = world.agent("a1");
    let running = create::create(&first.app, &user(), request("running")).await.unwrap();
    assert_eq!(running.status, "RUNNING");
    agent.state.lock().creating = Creating::Hangs;
    let begun = {
        let mut request = request("begun");
        request.enqueue_only = true;
        create::create(&first.app, &user(), request).await.unwrap().session_id
    };
    world.until_status(begun, SessionStatus::Preparing).await;

    // The process is gone without a word; the agent finds the next leader.
    first.lifecycle.kill().await;
    *world.managers.lock() = vec![second.client.clone()];
    agent.state.lock().creating = Creating::Starts;
    assert!(second.leadership.acquired().await > epoch);
    world.until_status(begun, SessionStatus::Running).await;
    let ended = destroy::destroy(&second.app, &user(), "running", None, false, false).await;
    ended.unwrap();
    world.until_status(running.session_id, SessionStatus::Terminated).await;
    let epochs = agent.state.lock().epochs.clone();
    assert!(epochs.is_sorted() && epochs.first() < epochs.last(), "{epochs:?}");
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    let world = World::new(&[]).await;
    let first = TestManager::start(&world.database, config(), &world.fleet, false).await;
    first.leadership.acquired().await;
    let second = TestManager::start(&world.database, config(), &world.fleet, false).await;
    first.lifecycle.shut_down(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(first.leadership.epoch(), None);
    eventually("the second leads", || async { second.leadership.epoch().is_some() }).await;
}

#[tokio::test]
async fn the_loops_survive_a_database_that_goes_away() {
    let world = World::new(&[4]).await;
    world.create(request("before")).await.unwrap();
    // Every connection of the pool is cut.
    world
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await;
    eventually("a session can be made again", || async {
        world.create(request("after")).await.is_ok_and(|created| created.status == "RUNNING")
    })
    .await;
}
