//! Presets and the room left for them.

use serde_json::json;

use super::world::World;

#[tokio::test]
async fn presets_show_every_slot_the_cluster_knows() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let reply = world.get("/resource/presets").signed(key).send().await.json();
    let presets = reply["presets"].as_array().unwrap();
    assert_eq!(
        presets[0],
        json!({"name": "cpu01-small", "shared_memory": null,
               "resource_slots": {"cpu": "1", "mem": "1073741824"}})
    );
    assert_eq!(presets[2]["shared_memory"], "1073741824");
}

#[tokio::test]
async fn a_preset_is_allocatable_where_agents_and_limits_have_room() {
    let world = World::start().await;
    let key = world.key("user1").await;
    world
        .sql
        .batch_execute(
            r#"INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture)
               VALUES ('i-1', 'local', 'default', '{"cpu": "4", "mem": "8589934592"}', 'tcp://x', '1', 'x86_64')"#,
        )
        .await
        .unwrap();
    let reply = world.request("POST", "/resource/check-presets").signed(key).send().await;
    let reply = reply.json();
    assert_eq!(reply["keypair_limits"], json!({"cpu": "Infinity", "mem": "Infinity"}));
    assert_eq!(reply["keypair_using"], json!({"cpu": "0", "mem": "0"}));
    assert_eq!(reply["group_remaining"], json!({"cpu": "NaN", "mem": "NaN"}));
    assert_eq!(
        reply["scaling_groups"],
        json!({"default": {"using": {"cpu": "0", "mem": "0"},
                           "remaining": {"cpu": "4", "mem": "8589934592"}}})
    );
    let allocatable: Vec<_> = reply["presets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|preset| (preset["name"].as_str().unwrap(), preset["allocatable"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        allocatable,
        [
            ("cpu01-small", true),
            ("cpu02-medium", true),
            ("cpu08-large", false),
            ("cuda01-shared", false),
            ("cuda01-small", false),
        ]
    );
    let body = json!({"scaling_group": "nope"});
    let reply =
        world.request("POST", "/resource/check-presets").json(&body).signed(key).send().await;
    assert_eq!(reply.json()["title"], "No such scaling group.");
}
