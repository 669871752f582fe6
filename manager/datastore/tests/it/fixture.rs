//! Loading rows from files.

use backendai_datastore::fixture::FixtureError;
use backendai_datastore::{Datastore, password, testing};
use serde_json::{Value, json};

fn sample(name: &str) -> Vec<u8> {
    let path = format!("{}/../../sample-configs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

async fn populate(datastore: &Datastore, content: Value) -> Result<usize, FixtureError> {
    let report = datastore.populate(&serde_json::to_vec(&content).unwrap()).await?;
    Ok(report.tables.iter().map(|(_, counts)| counts.written).sum())
}

async fn refused(datastore: &Datastore, content: Value) -> String {
    populate(datastore, content).await.expect_err("the file is wrong").to_string()
}

/// The value of an SQL expression, as text.
async fn value(database: &testing::TestDatabase, sql: &str) -> String {
    let client = database.connect().await;
    client.query_one(&format!("SELECT ({sql})::text"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_example_site_loads_and_loading_it_again_is_harmless() {
    let database = testing::database().await;
    for file in ["example-keypairs.json", "example-resource-presets.json"] {
        let report = database.datastore.populate(&sample(file)).await.unwrap();
        assert!(report.tables.iter().all(|(_, c)| c.written == c.given), "{report:?}");
        let report = database.datastore.populate(&sample(file)).await.unwrap();
        assert!(report.tables.iter().all(|(_, c)| c.written == 0), "{report:?}");
    }
    let main_keys = "SELECT count(*) FROM users u JOIN keypairs k ON k.access_key = u.main_access_key AND k.\"user\" = u.uuid";
    assert_eq!(
        value(&database, main_keys).await,
        value(&database, "SELECT count(*) FROM users").await
    );
    let hash = value(&database, "SELECT password FROM users WHERE username = 'user1'").await;
    let content: Value = serde_json::from_slice(&sample("example-keypairs.json")).unwrap();
    let users = content["users"].as_array().unwrap();
    let user = users.iter().find(|user| user["username"] == "user1").unwrap();
    assert!(password::verify(user["password"].as_str().unwrap(), &hash).unwrap());
    let registries = "SELECT allowed_docker_registries FROM domains WHERE name = 'default'";
    assert_eq!(value(&database, registries).await, "{index.docker.io}");
}

#[tokio::test]
async fn order_and_surrogate_keys_do_not_matter_and_values_are_normalized() {
    let database = testing::database().await;
    let user = "11111111-1111-4111-8111-111111111111";
    let group = "22222222-2222-4222-8222-222222222222";
    let content = json!({
        "association_groups_users": [{"id": group, "user_id": user, "group_id": group}],
        "keypairs": [{"user_id": "a@example.org", "access_key": "AKIAAAAAAAAAAAAAAAAA",
                      "secret_key": "s", "resource_policy": "p", "user": user}],
        "users": [{"uuid": user, "email": "a@example.org", "resource_policy": "p", "domain_name": "d",
                   "main_access_key": "AKIAAAAAAAAAAAAAAAAA", "password": "$2b$04$abc",
                   "allowed_client_ip": ["10.0.0.0/8"]}],
        "keypair_resource_policies": [{"name": "p", "max_concurrent_sessions": 1,
            "max_containers_per_session": 1,
            "total_resource_slots": {"cpu": 4, "mem": "16g", "cuda.shares": "Infinity"}}],
        "user_resource_policies": [{"name": "p"}],
        "project_resource_policies": [{"name": "p"}],
        "groups": [{"id": group, "name": "g", "domain_name": "d", "resource_policy": "p"}],
        "scaling_groups": [],
        "resource_presets": [{"name": "x", "resource_slots": {"mem": "1g", "cpu": "1.50"}}],
        "images": [{"name": "r:1/i:t", "registry": "r:1", "image": "i", "tag": "t",
                    "config_digest": "sha256:0", "size_bytes": 1,
                    "resources": {"mem": {"min": "64m", "max": null}}}],
        "domains": [{"name": "d"}],
    });
    assert_eq!(populate(&database.datastore, content).await.unwrap(), 10);
    let limits = "SELECT total_resource_slots FROM keypair_resource_policies";
    let expected = r#"{"cpu": "4", "mem": "17179869184", "cuda.shares": "Infinity"}"#;
    assert_eq!(value(&database, limits).await, expected);
    let slots = "SELECT resource_slots FROM resource_presets";
    assert_eq!(value(&database, slots).await, r#"{"cpu": "1.5", "mem": "1073741824"}"#);
    let minimum = "SELECT resources -> 'mem' ->> 'min' FROM images";
    assert_eq!(value(&database, minimum).await, "67108864");
    assert_eq!(value(&database, "SELECT password FROM users").await, "$2b$04$abc");
}

#[tokio::test]
async fn rows_are_updated_by_primary_key() {
    let database = testing::database().await;
    let datastore = &database.datastore;
    populate(datastore, json!({"domains": [{"name": "d"}, {"name": "e"}]})).await.unwrap();
    let update = |rows: Value| json!({"__mode": "update", "domains": rows});
    let rows = json!([{"name": "d", "description": "new"}, {"name": "e", "description": null}]);
    assert_eq!(populate(datastore, update(rows)).await.unwrap(), 2);
    let description = "SELECT description FROM domains WHERE name = 'd'";
    assert_eq!(value(&database, description).await, "new");
    for (rows, why) in [
        (json!([{"description": "x"}]), "missing primary key column name"),
        (json!([{"name": "d", "colour": "x"}]), "invalid column name colour"),
        (
            json!([{"name": "d", "description": "x"}, {"name": "e", "is_active": true}]),
            "missing data column",
        ),
        (json!([{"name": "f", "description": "x"}]), "no such row"),
        (json!([{"name": "d"}]), "nothing to update"),
    ] {
        let error = refused(datastore, update(rows)).await;
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_file_is_refused_whole_with_the_place() {
    let database = testing::database().await;
    let datastore = &database.datastore;
    let policy = json!([{"name": "p"}]);
    let user = |extra: Value| {
        let mut user = json!({"email": "a@example.org", "resource_policy": "p"});
        user.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"user_resource_policies": policy, "users": [user]})
    };
    for (content, place, why) in [
        (json!([]), "object of tables", ""),
        (json!({"people": []}), "people", "users"),
        (json!({"__what": []}), "__what", "reserved"),
        (json!({"__mode": "replace"}), "__mode", "replace"),
        (json!({"users": {}}), "users", "list"),
        (json!({"users": [1]}), "users row 1", "object"),
        (user(json!({"emial": "x"})), "users row 1 (email=a@example.org)", "emial"),
        (user(json!({"role": "king"})), "users row 1", "superadmin"),
        (user(json!({"status": "ACTIVE"})), "users row 1", "inactive"),
        (user(json!({"uuid": "x"})), "users row 1 (email=a@example.org): uuid: ", "\"x\""),
        (user(json!({"username": "x".repeat(65)})), "users row 1", "username: value too long"),
        (user(json!({"totp_activated": "maybe"})), "users row 1", "totp_activated: "),
        (user(json!({"domain_name": "nowhere"})), "users row 1", "nowhere"),
        (user(json!({"password": 1})), "users row 1", "password"),
        (user(json!({"main_access_key": "AKIAX"})), "end of the file", "AKIAX"),
        (json!({"users": [{"email": "a@example.org"}]}), "users row 1", "resource_policy"),
        (
            json!({"domains": [{"name": "d", "total_resource_slots": {"cpu": "many"}}]}),
            "domains row 1 (name=d)",
            "many",
        ),
        (
            json!({"domains": [{"name": "d", "allowed_vfolder_hosts": ["x"]}]}),
            "domains row 1",
            "permission",
        ),
    ] {
        let error = refused(datastore, content.clone()).await;
        assert!(error.contains(place) && error.contains(why), "{content}: {error}");
    }
    assert_eq!(value(&database, "SELECT count(*) FROM user_resource_policies").await, "0");
}
