//! The schema.

use backendai_datastore::{DatastoreError, testing};

#[tokio::test]
async fn migrating_twice_changes_nothing_and_versions_are_told() {
    let database = testing::empty_database().await;
    let datastore = &database.datastore;
    let before = datastore.schema_version().await.unwrap();
    assert_eq!(before.current, None);
    let refused = datastore.check_schema().await.unwrap_err();
    assert!(refused.to_string().contains("schema oneshot"), "{refused}");

    assert!(!datastore.migrate().await.unwrap().is_empty());
    assert!(datastore.schema_version().await.unwrap().is_current());
    datastore.check_schema().await.unwrap();
    assert_eq!(datastore.migrate().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn managers_that_start_at_once_migrate_once() {
    let database = testing::empty_database().await;
    let (one, two) = tokio::join!(database.datastore.migrate(), database.datastore.migrate());
    let applied = [one.unwrap(), two.unwrap()];
    assert_eq!(applied.iter().filter(|names| !names.is_empty()).count(), 1, "{applied:?}");
}

#[tokio::test]
async fn a_server_that_is_away_is_told_apart() {
    let database = testing::database().await;
    let mut config = database.config.clone();
    config.host = "/nonexistent".into();
    let away = backendai_datastore::Datastore::new(&config).unwrap();
    let error = away.schema_version().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(matches!(error, DatastoreError::Unavailable(_)));
}
