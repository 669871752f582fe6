//! Configuration routes: who may use them, what they do, and what freezing stops.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::world::{Key, World};

async fn post(world: &World, key: Key, target: &str, body: Value) -> (StatusCode, Value) {
    let reply = world.request("POST", target).signed(key).json(&body).send().await;
    let status = reply.status;
    (status, serde_json::from_str(&reply.text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn configuration_is_read_written_and_deleted_by_superadmins_only() {
    let world = World::start().await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    let ok = (StatusCode::OK, json!({"result": "ok"}));
    let set = json!({"key": "/config/x", "value": {"": "own", "a:b": {"c": 1}, "d": "two"}});
    assert_eq!(post(&world, admin, "/config/set", set.clone()).await, ok);
    for (body, result) in [
        (json!({"key": "config/x/d"}), json!("two")),
        (json!({"key": "config/x/a%3Ab/c", "prefix": false}), json!("1")),
        (json!({"key": "config/nothing"}), Value::Null),
        (
            json!({"key": "config/x", "prefix": true}),
            json!({"": "own", "a%3Ab": {"c": "1"}, "d": "two"}),
        ),
        (json!({"key": "config/nothing", "prefix": true}), json!({})),
    ] {
        let (status, reply) = post(&world, admin, "/config/get", body.clone()).await;
        assert_eq!((status, &reply["result"]), (StatusCode::OK, &result), "{body}");
    }
    let large: serde_json::Map<String, Value> =
        (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    let (status, reply) =
        post(&world, admin, "/config/set", json!({"key": "config/y", "value": large})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reply["msg"].as_str().unwrap().contains("Too large update!"), "{reply}");
    for wrong in [json!([1]), Value::Null] {
        let body = json!({"key": "config/y", "value": wrong});
        assert_eq!(post(&world, admin, "/config/set", body).await.0, StatusCode::BAD_REQUEST);
    }

    post(&world, admin, "/config/set", json!({"key": "config/xy", "value": "neighbour"})).await;
    let delete = json!({"key": "config/x", "prefix": true});
    assert_eq!(post(&world, admin, "/config/delete", delete).await, ok);
    let (_, left) =
        post(&world, admin, "/config/get", json!({"key": "config/x", "prefix": true})).await;
    assert_eq!(left["result"], json!({}));
    let (_, left) = post(&world, admin, "/config/get", json!({"key": "config/xy"})).await;
    assert_eq!(left["result"], "neighbour");
    assert_eq!(
        post(&world, admin, "/config/delete", json!({"key": "/", "prefix": true})).await.0,
        StatusCode::BAD_REQUEST
    );
    for target in ["/config/set", "/config/get", "/config/delete"] {
        assert_eq!(post(&world, user, target, set.clone()).await.0, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn slots_types_and_registries_are_told() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    for (key, value) in [
        ("config/resource_slots/cuda.shares", json!("count")),
        ("config/resource_slots/odd.device", json!("count")),
        ("volumes/_types", json!({"user": "", "group": ""})),
        ("config/docker/registry/hub.example", json!({"": "https://hub.example", "password": "p"})),
    ] {
        let body = json!({"key": key, "value": value});
        assert_eq!(post(&world, admin, "/config/set", body).await.0, StatusCode::OK);
    }
    let get = async |target: &str| world.get(target).send().await.json();
    assert_eq!(get("/config/resource-slots").await["cuda.shares"], "count");
    let details = get("/config/resource-slots/details").await;
    assert_eq!(
        details["mem"],
        json!({"slot_name": "ram", "description": "Memory", "human_readable_name": "RAM",
               "display_unit": "GiB", "number_format": {"binary": true, "round_length": 0},
               "display_icon": "ram"})
    );
    assert_eq!(details.as_object().unwrap().len(), 3, "{details}");
    let of_group = get("/config/resource-slots/details?sgroup=default").await;
    assert_eq!(of_group.as_object().unwrap().len(), 2, "{of_group}");
    assert_eq!(get("/config/vfolder-types").await, json!(["group", "user"]));

    let signed = async |target: &str| world.get(target).signed(admin).send().await;
    let registries = signed("/config/docker-registries").await.json();
    assert_eq!(registries, json!({"hub.example": "https://hub.example"}));
    let whole = signed("/resource/container-registries").await;
    assert_eq!(whole.json()["hub.example"]["password"], "*****");
    let acl = signed("/acl").await.json();
    assert_eq!(acl["vfolder_host_permission_list"].as_array().unwrap().len(), 8);
    let usage = post(&world, admin, "/resource/recalculate-usage", json!({})).await;
    assert_eq!(usage, (StatusCode::OK, json!({})));
}

#[tokio::test]
async fn a_frozen_manager_refuses_changes_and_admits_looks() {
    let world = World::start().await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    let set = async |status: &str| {
        let body = json!({"status": status, "force_kill": true});
        world.request("PUT", "/manager/status").signed(admin).json(&body).send().await.status
    };
    assert_eq!(set("frozen").await, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/manager/status").send().await.json()["status"], "frozen");
    let create = json!({"name": "late", "image": "x"});
    let (status, reply) = post(&world, user, "/session", create.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply["type"].as_str().unwrap().ends_with("/server-frozen"), "{reply}");
    let mutation = "mutation { rescan_images { ok } }";
    let reply = world.gql(admin, mutation, json!({})).await;
    assert!(reply.contains("The server is frozen due to maintenance."), "{reply}");
    assert_eq!(
        world.get("/resource/stats/user/month").signed(user).send().await.status,
        StatusCode::OK
    );
    assert_eq!(set("preparing").await, StatusCode::NO_CONTENT);
    let (status, reply) = post(&world, user, "/session", create.clone()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply["type"].as_str().unwrap().ends_with("/service-unavailable"), "{reply}");
    assert_eq!(set("running").await, StatusCode::NO_CONTENT);
    assert_ne!(post(&world, user, "/session", create).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(set("molten").await, StatusCode::BAD_REQUEST);
    let body = json!({"status": "frozen"});
    let reply = world.request("PUT", "/manager/status").signed(user).json(&body).send().await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn announcements_are_made_shown_and_removed() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    let announce = async |body| post(&world, admin, "/manager/announcement", body).await.0;
    let shown = async || world.get("/manager/announcement").send().await.json();
    assert_eq!(announce(json!({"enabled": true})).await, StatusCode::BAD_REQUEST);
    let made = announce(json!({"enabled": true, "message": "moving on friday"})).await;
    assert_eq!(made, StatusCode::NO_CONTENT);
    assert_eq!(shown().await, json!({"enabled": true, "message": "moving on friday"}));
    assert_eq!(announce(json!({"enabled": false})).await, StatusCode::NO_CONTENT);
    assert_eq!(shown().await, json!({"enabled": false, "message": ""}));
}

#[tokio::test]
async fn agents_are_excluded_from_scheduling_all_or_none() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    add_agent(&world, "tcp://127.0.0.1:1").await;
    let operate = async |op: &str, agents: Value| {
        let body = json!({"op": op, "args": agents});
        post(&world, admin, "/manager/scheduler/operation", body).await
    };
    let schedulable = async || -> bool {
        let row = world.sql.query_one("SELECT schedulable FROM agents", &[]).await.unwrap();
        row.get(0)
    };
    let (status, reply) = operate("exclude-agents", json!(["i-1", "i-2"])).await;
    assert_eq!(
        (status, &reply["title"]),
        (StatusCode::NOT_FOUND, &json!("No such agent instance."))
    );
    assert!(schedulable().await);
    assert_eq!(operate("exclude-agents", json!(["i-1"])).await.0, StatusCode::NO_CONTENT);
    assert!(!schedulable().await);
    assert_eq!(operate("include-agents", json!(["i-1"])).await.0, StatusCode::NO_CONTENT);
    assert!(schedulable().await);
    assert_eq!(operate("paint-agents", json!(["i-1"])).await.0, StatusCode::BAD_REQUEST);
    for (event, expected) in [
        ("schedule", StatusCode::NO_CONTENT),
        ("prepare", StatusCode::NO_CONTENT),
        ("x", StatusCode::BAD_REQUEST),
    ] {
        let body = json!({"event": event});
        assert_eq!(post(&world, admin, "/manager/scheduler/trigger", body).await.0, expected);
    }
}

async fn add_agent(world: &World, addr: &str) {
    let insert = "INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, \
        architecture) VALUES ('i-1', 'local', 'default', '{}', $1, '1', 'x86_64')";
    world.sql.execute(insert, &[&addr]).await.unwrap();
}

#[tokio::test]
async fn watchers_are_called_with_the_token_and_their_answers_passed_on() {
    let world = World::start().await;
    let admin = world.key("admin").await;
    add_agent(&world, "tcp://127.0.0.1:1").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        let mut heads = Vec::new();
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 25\r\nconnection: close\r\n\r\n{\"agent-status\":\"active\"} ",
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno",
        ] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let count = socket.read(&mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..count]).to_ascii_lowercase());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        heads
    });
    for (key, value) in
        [("nodes/agents/i-1/ip", "127.0.0.1"), ("nodes/agents/i-1/watcher_port", &port)]
    {
        world.app.etcd.put(key, value).await.unwrap();
    }
    world.app.etcd.put("config/watcher/token", "t0ken").await.unwrap();
    world.app.shared.invalidate();
    let reply = world.get("/resource/watcher?agent_id=i-1").signed(admin).send().await;
    assert_eq!((reply.status, &reply.json()["agent-status"]), (StatusCode::OK, &json!("active")));
    let restart = "/resource/watcher/agent/restart";
    let reply =
        world.request("POST", restart).signed(admin).json(&json!({"agent_id": "i-1"})).send().await;
    assert_eq!((reply.status, reply.text.as_str()), (StatusCode::FORBIDDEN, "no"));
    let heads = server.join_next().await.unwrap().unwrap();
    assert!(
        heads[0].starts_with("get / ") && heads[0].contains("x-backendai-watcher-token: t0ken")
    );
    assert!(heads[1].starts_with("post /agent/restart "), "{}", heads[1]);

    // Nobody listens any more.
    let reply = world.get("/resource/watcher?agent_id=i-1").signed(admin).send().await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let reply = world.get("/resource/watcher?agent_id=i-9").signed(admin).send().await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn scaling_groups_are_those_of_the_group_the_caller_is_in() {
    let world = World::start().await;
    let user = world.key("user1").await;
    world
        .sql
        .batch_execute(
            "INSERT INTO scaling_groups (name, is_public) VALUES ('hidden', false);
             INSERT INTO sgroups_for_domains VALUES ('hidden', 'default');
             INSERT INTO groups (name, domain_name, resource_policy)
             VALUES ('others', 'default', 'default')",
        )
        .await
        .unwrap();
    let names = async |key: Key, group: &str| {
        let reply = world.get(&format!("/scaling-groups?group={group}")).signed(key).send().await;
        (reply.status, reply.json()["scaling_groups"].clone())
    };
    assert_eq!(names(user, "default").await, (StatusCode::OK, json!([{"name": "default"}])));
    assert_eq!(names(user, "others").await.0, StatusCode::NOT_FOUND);
    let admin = world.key("admin").await;
    let all = json!([{"name": "default"}, {"name": "hidden"}]);
    assert_eq!(names(admin, "others").await, (StatusCode::OK, all));
    let version = async |name: &str| {
        let target = format!("/scaling-groups/{name}/wsproxy-version?group=default");
        let reply = world.get(&target).signed(user).send().await;
        (reply.status, reply.json())
    };
    assert_eq!(version("default").await, (StatusCode::OK, json!({"wsproxy_version": "v1"})));
    assert_eq!(version("hidden").await.0, StatusCode::NOT_FOUND);
    world
        .sql
        .batch_execute("UPDATE scaling_groups SET wsproxy_addr = 'http://127.0.0.1:9'")
        .await
        .unwrap();
    let (status, reply) = version("default").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(reply["type"].as_str().unwrap().ends_with("/server-misconfigured"), "{reply}");
}

#[tokio::test]
async fn usage_is_accounted_by_group_and_period() {
    let world = World::start().await;
    let (admin, user) = (world.key("admin").await, world.key("user1").await);
    add_agent(&world, "tcp://127.0.0.1:1").await;
    let insert = "WITH s AS (
            INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key,
                scaling_group, image, architecture, requested_slots, status, terminated_at)
            SELECT gen_random_uuid(), 'once', g.domain_name, g.id, u.uuid, u.main_access_key,
                'default', 'i', 'x86_64', '{}', 'TERMINATED', now()
            FROM groups g, users u WHERE g.name = 'default' AND u.username = 'user1'
            RETURNING id)
        INSERT INTO kernels (id, session_id, cluster_hostname, image, architecture, registry, agent,
            requested_slots, resource_opts, status, created_at, terminated_at, last_stat)
        SELECT gen_random_uuid(), id, 'main1', 'i:1', 'x86_64', 'r', 'i-1',
            '{\"cpu\": \"2\", \"mem\": \"1048576\"}', '{\"shmem\": 65536}', 'TERMINATED',
            '2024-02-28 23:59:00+00', '2024-02-29 00:01:30.5+00',
            '{\"cpu_used\": {\"current\": \"725.5\"}, \"mem\": {\"current\": \"1\", \"stats.max\": \"7\"}}'
        FROM s";
    world.sql.batch_execute(insert).await.unwrap();
    let ask = async |target: &str, body: Value| {
        let reply = world.request("GET", target).signed(admin).json(&body).send().await;
        (reply.status, reply.json())
    };
    for (target, body) in [
        ("/resource/usage/month", json!({"month": "202402", "group_ids": []})),
        (
            "/resource/usage/period",
            json!({"group_id": null, "start_date": "20240229", "end_date": "20240229"}),
        ),
    ] {
        let (status, reply) = ask(target, body).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        let group = &reply[0];
        assert_eq!((&group["g_name"], &group["g_cpu_used"]), (&json!("default"), &json!(725.5)));
        assert_eq!((&group["g_mem_allocated"], &group["g_mem_used"]), (&json!(1048576), &json!(7)));
        let kernel = &group["c_infos"][0];
        assert_eq!(kernel["created_at"], "2024-02-28 23:59:00.000000+00:00");
        assert_eq!(
            (&kernel["used_time"], &kernel["used_days"]),
            (&json!("0:02:30.500000"), &json!(1))
        );
        assert_eq!((&kernel["nfs"], &kernel["cpu_allocated"]), (&Value::Null, &json!(2.0)));
    }
    let (_, none) =
        ask("/resource/usage/month", json!({"month": "202403", "group_ids": null})).await;
    assert_eq!(none, json!([]));
    // In Seoul it all happened on the 29th.
    world.app.etcd.put("config/system/timezone", "Asia/Seoul").await.unwrap();
    world.app.shared.invalidate();
    let body = json!({"group_id": null, "start_date": "20240228", "end_date": "20240228"});
    assert_eq!(ask("/resource/usage/period", body).await.1, json!([]));
    for body in [
        json!({"month": "202413", "group_ids": []}),
        json!({"month": "202402"}),
        json!({"month": "202402", "group_ids": ["x"]}),
    ] {
        assert_eq!(ask("/resource/usage/month", body).await.0, StatusCode::BAD_REQUEST);
    }
    let long = json!({"group_id": null, "start_date": "20240101", "end_date": "20241231"});
    assert_eq!(ask("/resource/usage/period", long).await.0, StatusCode::BAD_REQUEST);

    let month = world.get("/resource/stats/user/month").signed(user).send().await.json();
    assert_eq!(month.as_array().unwrap().len(), 2880);
    assert_eq!(month[0]["num_sessions"], json!({"value": 0, "unit_hint": "count"}));
    let everybody = world.get("/resource/stats/admin/month").signed(user).send().await;
    assert_eq!(everybody.status, StatusCode::UNAUTHORIZED);
}
