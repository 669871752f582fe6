//! Transactions that are given up.

use backendai_datastore::testing;
use backendai_datastore::{Datastore, DatastoreConfig, DatastoreError};

/// A request or a task may be dropped at any await; its connection goes to somebody else.
#[tokio::test]
async fn a_transaction_given_up_at_any_moment_leaves_a_clean_connection() {
    let database = testing::database().await;
    let config = DatastoreConfig { pool_size: 1, ..database.config.clone() };
    let datastore = Datastore::new(&config).unwrap();
    let observer = database.connect().await;
    // More than a transaction of one statement takes.
    for polls in 1..=8 {
        let mut work = Box::pin(datastore.run_tx("given_up", |tx| async move {
            tx.admission_lock().await?;
            Ok::<_, DatastoreError>(())
        }));
        for _ in 0..polls {
            if futures::poll!(&mut work).is_ready() {
                break;
            }
            // Lets the server answer.
            observer.simple_query("SELECT 1").await.unwrap();
        }
        drop(work);

        let next = datastore.autocommit().await.unwrap();
        next.scaling_groups_waiting().await.unwrap();
        let row = observer
            .query_one(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "given up after {polls} polls");
    }
}
