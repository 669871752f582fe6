//! Images and aliases.

use std::collections::BTreeMap;

use backendai_datastore::image::{NewImage, SlotRange, Upserted};
use backendai_datastore::{DatastoreError, testing};
use backendai_types::{ImageRef, SlotName};
use rust_decimal::Decimal;

fn image(tag: &str, architecture: &str) -> NewImage {
    let limit = |min: u32| SlotRange { min: Decimal::from(min), max: None };
    NewImage {
        reference: ImageRef {
            registry: "r:5000".into(),
            name: "stable/python".into(),
            tag: tag.into(),
        },
        architecture: architecture.into(),
        config_digest: "sha256:1".into(),
        size_bytes: 7,
        accelerators: None,
        labels: BTreeMap::from([("ai.backend.runtime-type".into(), "python".into())]),
        resources: BTreeMap::from([(SlotName::cpu(), limit(1)), (SlotName::mem(), limit(1024))]),
        is_local: false,
    }
}

#[tokio::test]
async fn a_scan_adds_changes_and_keeps_what_an_operator_set() {
    let database = testing::database().await;
    let tx = database.datastore.autocommit().await.unwrap();
    let mut new = image("3.11", "x86_64");
    assert_eq!(tx.image_upsert(&new).await.unwrap(), Upserted::Added);
    assert_eq!(tx.image_upsert(&new).await.unwrap(), Upserted::Same);

    let rows = tx.images_named("r:5000/stable/python:3.11").await.unwrap();
    let row = &rows[0];
    assert_eq!(
        (row.labels.clone(), row.resources.clone()),
        (new.labels.clone(), new.resources.clone())
    );
    assert_eq!(row.labels().runtime_type(), "python");

    let wide = SlotRange { min: Decimal::from(2), max: Some(Decimal::from(8)) };
    tx.image_set_limit(row.id, &SlotName::cpu(), &wide).await.unwrap();
    assert_eq!(tx.image_upsert(&new).await.unwrap(), Upserted::Same);
    let find = async || tx.images_named("r:5000/stable/python:3.11").await.unwrap().remove(0);
    assert_eq!(find().await.maximum(&SlotName::cpu()), Some(Decimal::from(8)));

    // Another build of the image states its own needs.
    new.config_digest = "sha256:2".into();
    assert_eq!(tx.image_upsert(&new).await.unwrap(), Upserted::Changed);
    let row = find().await;
    assert_eq!(
        (row.maximum(&SlotName::cpu()), row.minimum(&SlotName::cpu())),
        (None, Decimal::ONE)
    );
    assert_eq!(row.minimum(&"cuda.device".into()), Decimal::ZERO);
}

#[tokio::test]
async fn an_alias_names_one_image_and_goes_with_it() {
    let database = testing::database().await;
    let tx = database.datastore.autocommit().await.unwrap();
    for architecture in ["aarch64", "x86_64"] {
        tx.image_upsert(&image("3.11", architecture)).await.unwrap();
    }
    let rows = tx.images_named("r:5000/stable/python:3.11").await.unwrap();
    let x86 = rows.iter().find(|row| row.architecture == "x86_64").unwrap();
    tx.image_alias_add("python", x86.id).await.unwrap();
    let taken = tx.image_alias_add("python", rows[0].id).await.unwrap_err();
    assert!(matches!(taken, DatastoreError::Conflict { .. }), "{taken:?}");

    let aliased = tx.images_aliased("python").await.unwrap();
    assert_eq!(
        aliased.iter().map(|row| row.architecture.as_str()).collect::<Vec<_>>(),
        ["x86_64", "aarch64"]
    );
    assert_eq!(tx.image_aliases().await.unwrap()[&x86.id], ["python"]);
    assert!(tx.image_delete(x86.id).await.unwrap());
    assert!(!tx.image_delete(x86.id).await.unwrap());
    assert!(tx.images_aliased("python").await.unwrap().is_empty());
    assert!(!tx.image_alias_remove("python").await.unwrap());
    assert_eq!(tx.images().await.unwrap().len(), 1);
    assert!(tx.image_holders().await.unwrap().is_empty());
}
