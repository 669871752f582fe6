//! Asking for a session: every field arrives, and every wrong one is named.

use serde_json::{Value, json};

use super::world::{Key, World};

async fn world() -> World {
    let world = World::start().await;
    world
        .sql
        .batch_execute(
            r#"INSERT INTO images (name, registry, image, tag, config_digest, size_bytes, is_local)
               VALUES ('127.0.0.1:5000/python:3', '127.0.0.1:5000', 'python', '3', 'sha256:0', 1, true);
               INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture)
               VALUES ('i-1', 'local', 'default', '{"cpu": "4"}', 'tcp://x', '1', 'x86_64');
               UPDATE users SET sudo_session_enabled = true WHERE username = 'user1';
               UPDATE keypairs SET bootstrap_script = 'echo stored'
               WHERE access_key = (SELECT main_access_key FROM users WHERE username = 'user1')"#,
        )
        .await
        .unwrap();
    world
}

fn body(extra: Value) -> Value {
    let mut body = json!({
        "name": "asked", "image": "127.0.0.1:5000/python:3", "enqueueOnly": true,
        "config": {"resources": {"cpu": "1", "mem": "512m"}},
    });
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn create(world: &World, key: Key, extra: Value) -> (u16, Value) {
    let reply = world.request("POST", "/session").signed(key).json(&body(extra)).send().await;
    (reply.status.as_u16(), reply.json())
}

/// One value of the newest session, as text.
async fn stored(world: &World, expression: &str) -> String {
    let sql = format!(
        "SELECT ({expression})::text FROM sessions s JOIN kernels k ON k.session_id = s.id \
         AND k.cluster_role = 'main' JOIN users u ON u.uuid = s.user_uuid \
         ORDER BY s.created_at DESC LIMIT 1"
    );
    world.sql.query_one(&sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn every_field_of_a_request_reaches_the_session() {
    let world = world().await;
    let (user, admin) = (world.key("user1").await, world.key("admin").await);
    assert_eq!(create(&world, user, json!({"name": "first"})).await.0, 201);
    assert_eq!(stored(&world, "s.bootstrap_script").await, "echo stored");
    assert_eq!(stored(&world, "s.environ").await, r#"{"SUDO_SESSION_ENABLED": "1"}"#);

    // A superadmin asks for it on the user's behalf.
    let (status, reply) = create(
        &world,
        admin,
        json!({
            "type": "batch", "startupCommand": "true", "startsAt": "2030-01-02T03:04:05Z",
            "tag": "mine", "bootstrap_script": "echo own", "clusterSize": 2,
            "clusterMode": "multi-node", "callbackURL": "http://127.0.0.1:9/hook",
            "dependencies": ["first"], "owner_access_key": user.access,
            "config": {
                "resources": {"cpu": 2, "mem": "1g"}, "resource_opts": {"shmem": "128m"},
                "environ": {"A": "b"}, "scalingGroup": "default", "preopen_ports": [5000],
                "agentList": ["i-1", "i-1"],
            },
        }),
    )
    .await;
    assert_eq!((status, &reply["status"]), (201, &json!("PENDING")), "{reply}");
    for (expression, value) in [
        ("s.session_type", "BATCH"),
        ("s.startup_command", "true"),
        ("s.starts_at AT TIME ZONE 'UTC'", "2030-01-02 03:04:05"),
        ("s.tag", "mine"),
        ("s.bootstrap_script", "echo own"),
        ("s.cluster_size", "2"),
        ("s.cluster_mode", "multi-node"),
        ("s.callback_url", "http://127.0.0.1:9/hook"),
        ("s.access_key", user.access),
        ("u.username", "user1"),
        ("s.environ", r#"{"A": "b", "SUDO_SESSION_ENABLED": "1"}"#),
        ("s.scaling_group", "default"),
        ("s.designated_agents", "{i-1,i-1}"),
        ("s.requested_slots", r#"{"cpu": "4", "mem": "2147483648"}"#),
        ("k.requested_slots", r#"{"cpu": "2", "mem": "1073741824"}"#),
        ("k.resource_opts", r#"{"shmem": "134217728"}"#),
        ("k.preopen_ports", "{5000}"),
        ("SELECT count(*) FROM session_dependencies", "1"),
    ] {
        assert_eq!(stored(&world, expression).await, value, "{expression}");
    }
}

#[tokio::test]
async fn each_wrong_field_is_refused_with_its_reason() {
    let world = world().await;
    let (user, admin) = (world.key("user1").await, world.key("admin").await);
    let config = |config: Value| json!({ "config": config });
    for (key, extra, status, reason) in [
        (user, config(json!({"agent_list": ["i-1"]})), 403, "manually assign agents"),
        (admin, config(json!({"agent_list": ["i-1", "i-1"]})), 400, "only one"),
        (admin, config(json!({"agent_list": ["i-9"]})), 400, "No such agent: i-9"),
        (user, config(json!({"mount_map": {"x": "a/../../etc"}})), 400, "must not contain"),
        (user, config(json!({"mount_map": {"x": "y", "z": "y"}})), 400, "Duplicate alias"),
        (user, config(json!({"mounts": ["x"]})), 404, "virtual folder"),
        (user, config(json!({"resources": {"cpu": "-1"}})), 400, "Invalid resource allocation"),
        (user, config(json!({"resources": {"cpu": "NaN"}})), 400, "Invalid resource allocation"),
        (
            user,
            config(json!({"resources": {"mem": "Infinity"}})),
            400,
            "Invalid resource allocation",
        ),
        (user, config(json!({"resources": {"x": 1}})), 400, "Unknown requested resource slot"),
        (user, config(json!({"resource_opts": {"shmem": "x"}})), 400, "shmem"),
        (user, config(json!({"scaling_group": "nope"})), 404, "scaling group"),
        (user, config(json!({"preopen_ports": [80]})), 400, "value is less than 1024"),
        (user, config(json!({"environ": {"A": ""}})), 400, "blank value is not allowed"),
        (user, json!({"image": "nope"}), 404, "environment image"),
        (user, json!({"name": "from-template"}), 400, "reserved"),
        (user, json!({"type": "batch"}), 400, "startup command"),
        (user, json!({"starts_at": "1h"}), 400, "only for batch"),
        (
            user,
            json!({"type": "batch", "startupCommand": "x", "starts_at": "soon"}),
            400,
            "is not a valid date",
        ),
        (user, json!({"clusterSize": 10000}), 412, "containers"),
        (user, json!({"clusterSize": 0}), 400, "value is less than 1"),
        (user, json!({"dependencies": ["nobody"]}), 400, "dependency list"),
        (user, json!({"dependencies": [uuid::Uuid::nil()]}), 400, "dependency list"),
        (user, json!({"callback_url": "/x"}), 400, "URL should be absolute"),
        (user, json!({"group": "nope"}), 400, "Invalid group"),
        (user, json!({"domain": "nope"}), 400, "domain"),
        (user, json!({"owner_access_key": admin.access}), 403, "on behalf of other users"),
        (admin, json!({"owner_access_key": "AKIANOBODY"}), 400, "Unknown owner access key"),
    ] {
        let (got, reply) = create(&world, key, extra.clone()).await;
        assert_eq!(got, status, "{extra}: {reply}");
        assert!(reply.to_string().contains(reason), "{extra}: {reply}");
    }
}
