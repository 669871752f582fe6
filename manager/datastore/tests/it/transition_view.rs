//! Following `transitions` while others append to it.

use backendai_datastore::testing::{self, TestDatabase};
use tokio_postgres::Client;

/// One session, so that transitions have something to refer to.
async fn site() -> TestDatabase {
    let database = testing::example_site().await;
    let sql = "INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key,
            scaling_group, image, architecture, requested_slots)
        SELECT gen_random_uuid(), 'one', 'default', g.id, u.uuid, u.main_access_key, 'default',
               'i', 'x86_64', '{}'
        FROM users u, groups g WHERE u.username = 'admin' AND g.name = 'default'";
    database.connect().await.batch_execute(sql).await.unwrap();
    database
}

/// Draws a number as the door does: after the transaction has its id.
async fn append(client: &Client) -> i64 {
    client.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
    let sql = "INSERT INTO transitions (session_id, event, actor)
        SELECT id, 'session_started', 'test' FROM sessions RETURNING seq";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_lower_number_that_commits_later_is_waited_for() {
    let database = site().await;
    let (slow, quick) = (database.connect().await, database.connect().await);
    let db = database.datastore.autocommit().await.unwrap();

    // The slow one has the newer transaction id: beyond the bounds of any snapshot taken
    // while nothing newer has ended.
    quick.batch_execute("BEGIN").await.unwrap();
    quick.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap();
    slow.batch_execute("BEGIN").await.unwrap();
    let low = append(&slow).await;
    let high = append(&quick).await;
    assert!(low < high);
    quick.batch_execute("COMMIT").await.unwrap();

    let horizon = db.transitions_horizon(Some(0)).await.unwrap().unwrap();
    assert_eq!(horizon.upto, high);
    assert!(!db.transitions_settled(&horizon).await.unwrap());
    slow.batch_execute("COMMIT").await.unwrap();
    assert!(db.transitions_settled(&horizon).await.unwrap());
    let read = db.transitions_between(0, horizon.upto, 10).await.unwrap();
    assert_eq!(read.iter().map(|t| t.seq).collect::<Vec<_>>(), [low, high]);
    assert_eq!(db.transitions_horizon(Some(high)).await.unwrap(), None);

    // A number that is never used holds nobody up once its transaction is over.
    slow.batch_execute("BEGIN").await.unwrap();
    append(&slow).await;
    let last = append(&quick).await;
    let horizon = db.transitions_horizon(Some(high)).await.unwrap().unwrap();
    assert!(!db.transitions_settled(&horizon).await.unwrap());
    slow.batch_execute("ROLLBACK").await.unwrap();
    assert!(db.transitions_settled(&horizon).await.unwrap());
    let read = db.transitions_between(high, horizon.upto, 10).await.unwrap();
    assert_eq!(read.iter().map(|t| t.seq).collect::<Vec<_>>(), [last]);
}

#[tokio::test]
async fn a_follower_of_many_writers_misses_nothing() {
    const WRITERS: usize = 12;
    const EACH: usize = 40;
    let database = site().await;
    let write = async || {
        let client = database.connect().await;
        for n in 0..EACH {
            client.batch_execute("BEGIN").await.unwrap();
            for _ in 0..=rand::random_range(0..3) {
                append(&client).await;
                tokio::task::yield_now().await;
            }
            let end = if n % 7 == 0 { "ROLLBACK" } else { "COMMIT" };
            client.batch_execute(end).await.unwrap();
        }
    };
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let writers = async {
        futures::future::join_all((0..WRITERS).map(|_| write())).await;
        done.send_replace(true);
    };
    let follower = async {
        let db = database.datastore.autocommit().await.unwrap();
        let (mut seen, mut position) = (Vec::new(), 0);
        loop {
            let last_round = *is_done.borrow_and_update();
            if let Some(horizon) = db.transitions_horizon(Some(position)).await.unwrap() {
                while !db.transitions_settled(&horizon).await.unwrap() {
                    tokio::task::yield_now().await;
                }
                let page = db.transitions_between(position, horizon.upto, i64::MAX).await.unwrap();
                seen.extend(page.iter().map(|t| t.seq));
                position = horizon.upto;
            } else if last_round {
                return seen;
            } else {
                tokio::task::yield_now().await;
            }
        }
    };
    let (seen, ()) = futures::join!(follower, writers);
    let rows = database
        .connect()
        .await
        .query("SELECT seq FROM transitions ORDER BY seq", &[])
        .await
        .unwrap();
    assert_eq!(seen, rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>());
}
