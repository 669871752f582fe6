//! Templates of sessions and clusters, and sessions made from them.

use serde_json::{Value, json};

use super::world::{Key, World};

async fn ask(world: &World, key: Key, method: &str, target: &str, body: Value) -> (u16, Value) {
    let request = world.request(method, target).signed(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    let reply = request.send().await;
    let text = &reply.text;
    let body = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
    (reply.status.as_u16(), body)
}

fn template(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "taskTemplate", "metadata": {"name": name, "tag": "t"},
        "spec": {
            "kernel": {"image": "127.0.0.1:5000/stable/python:3.11-debian12",
                       "environ": {"FROM": "template"}},
            "resources": {"cpu": "1", "mem": "512m"},
        },
    })
}

async fn keep(world: &World, key: Key, route: &str, template: &Value) -> String {
    let body = json!({"payload": template.to_string()});
    let (status, created) = ask(world, key, "POST", route, body).await;
    assert_eq!(status, 200, "{created}");
    let created = if created.is_array() { created[0].clone() } else { created };
    created["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn task_templates_are_kept_shown_changed_and_deleted() {
    let world = World::start().await;
    let user = world.key("user1").await;
    let route = "/template/session";
    let id = keep(&world, user, route, &template("one")).await;
    assert_eq!(id.len(), 32);
    let (_, listed) = ask(&world, user, "GET", route, json!({"all": false})).await;
    let item = &listed[0];
    for (field, value) in [
        ("name", json!("one")),
        ("id", json!(id)),
        ("is_owner", json!(true)),
        ("user_email", json!("user1@example.org")),
        ("group_name", json!("default")),
        ("domain_name", json!("default")),
        ("type", json!("task")),
    ] {
        assert_eq!(item[field], value, "{field}");
    }
    assert_eq!(item["template"]["spec"]["session_type"], "interactive");

    let one = format!("{route}/{id}");
    let (_, shown) = ask(&world, user, "GET", &format!("{one}?format=yaml"), Value::Null).await;
    assert_eq!(shown["template"], item["template"]);
    let body = json!({"payload": template("two").to_string()});
    let success = (200, json!({"success": true}));
    assert_eq!(ask(&world, user, "PUT", &one, body.clone()).await, success);
    assert_eq!(ask(&world, user, "GET", &one, Value::Null).await.1["name"], "two");
    assert_eq!(ask(&world, user, "DELETE", &one, Value::Null).await, success);
    assert_eq!(ask(&world, user, "GET", &one, Value::Null).await, (200, json!({})));
    for (method, body) in [("PUT", body), ("DELETE", Value::Null)] {
        for target in [one.as_str(), "/template/session/nonsense"] {
            let (status, reply) = ask(&world, user, method, target, body.clone()).await;
            assert_eq!((status, &reply["title"]), (404, &json!("No such task template.")));
        }
    }
}

#[tokio::test]
async fn members_of_the_group_see_a_template_and_only_owners_and_admins_change_it() {
    let world = World::start().await;
    let (user, other) = (world.key("user1").await, world.key("user2").await);
    let admin = world.key("domain-admin").await;
    let id = keep(&world, user, "/template/session", &template("one")).await;
    let one = format!("/template/session/{id}");
    let body = json!({"payload": template("two").to_string()});
    assert_eq!(ask(&world, other, "GET", &one, Value::Null).await.1["name"], "one");
    let (_, listed) = ask(&world, other, "GET", "/template/session", Value::Null).await;
    assert_eq!(listed[0]["is_owner"], false);
    assert_eq!(ask(&world, other, "PUT", &one, body.clone()).await.0, 404);
    assert_eq!(ask(&world, other, "DELETE", &one, Value::Null).await.0, 404);
    assert_eq!(ask(&world, admin, "PUT", &one, body).await.0, 200);

    world.sql.batch_execute("DELETE FROM association_groups_users").await.unwrap();
    assert_eq!(ask(&world, other, "GET", &one, Value::Null).await, (200, json!({})));
    assert_eq!(ask(&world, other, "GET", "/template/session", Value::Null).await.1, json!([]));
    assert_eq!(ask(&world, user, "GET", &one, Value::Null).await.1["name"], "two");
}

#[tokio::test]
async fn what_is_no_template_is_refused() {
    let world = World::start().await;
    let user = world.key("user1").await;
    let create = async |body| ask(&world, user, "POST", "/template/session", body).await;
    let (status, reply) = create(json!({"payload": "{"})).await;
    assert_eq!((status, &reply["msg"]), (400, &json!("Malformed payload")));
    let (status, reply) = create(json!({"payload": "{\"kind\": 1}"})).await;
    assert_eq!((status, &reply["data"]["spec"]), (400, &json!("is required")));
    let payload = template("x").to_string();
    let (status, reply) = create(json!({"payload": payload, "group": "nowhere"})).await;
    assert_eq!((status, &reply["msg"]), (400, &json!("Invalid group")));
    let item = json!({"template": template("x"), "user_uuid": uuid::Uuid::nil()});
    assert_eq!(create(json!({"payload": item.to_string()})).await.0, 403);
    let (status, _) = create(json!({"payload": payload, "owner_access_key": "AKIANOBODY"})).await;
    assert_eq!(status, 400);
}

/// The image of the templates.
async fn with_image(world: &World) {
    world
        .sql
        .batch_execute(
            "INSERT INTO images (name, registry, image, tag, config_digest, size_bytes, is_local)
             VALUES ('127.0.0.1:5000/stable/python:3.11-debian12', '127.0.0.1:5000',
                     'stable/python', '3.11-debian12', 'sha256:0', 1, true)",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_session_is_what_the_template_says_unless_the_request_says_otherwise() {
    let world = World::start().await;
    with_image(&world).await;
    let user = world.key("user1").await;
    let id = keep(&world, user, "/template/session", &template("one")).await;
    // As the stock client sends it.
    let body = json!({
        "template_id": id, "name": "made", "group": "default", "domain": "default",
        "dependencies": null, "starts_at": null, "reuseIfExists": true, "enqueueOnly": true,
        "config": {"mounts": []}, "tag": "mine",
    });
    let route = "/session/_/create-from-template";
    let (status, created) = ask(&world, user, "POST", route, body).await;
    assert_eq!((status, &created["status"]), (201, &json!("PENDING")), "{created}");
    let (_, info) = ask(&world, user, "GET", "/session/made", Value::Null).await;
    assert_eq!(info["environ"], "{'FROM': 'template'}");
    assert_eq!(info["tag"], "mine");
    assert!(info["requestedSlots"].as_str().unwrap().contains("536870912"), "{info}");

    for (body, status, problem) in [
        (json!({"name": "other"}), 400, "Missing or invalid API parameters."),
        (json!({"template_id": null, "name": "other"}), 404, "No such task template."),
        (json!({"template_id": uuid::Uuid::nil(), "name": "other"}), 404, "No such task template."),
        (json!({"template_id": "x", "name": "other"}), 400, "Missing or invalid API parameters."),
        (json!({"template_id": id}), 400, "Missing or invalid API parameters."),
        (
            json!({"template_id": id, "name": "other", "lang": "nope"}),
            404,
            "No such environment image.",
        ),
        (
            json!({"template_id": id, "name": "other", "x": 1}),
            400,
            "Missing or invalid API parameters.",
        ),
    ] {
        let (got, reply) = ask(&world, user, "POST", route, body.clone()).await;
        assert_eq!((got, reply["title"].as_str()), (status, Some(problem)), "{body}: {reply}");
    }
}

#[tokio::test]
async fn a_cluster_is_made_of_the_templates_of_its_nodes() {
    let world = World::start().await;
    with_image(&world).await;
    let user = world.key("user1").await;
    let node = keep(&world, user, "/template/session", &template("node")).await;
    let cluster = json!({
        "apiVersion": "v1", "kind": "clusterTemplate", "mode": "multi-node",
        "metadata": {"name": "cluster"},
        "spec": {"environ": {"ALL": "nodes"}, "nodes": [
            {"role": "sub", "session_template": node, "replicas": 2},
            {"role": "main", "sessionTemplate": node},
        ]},
    });
    let id = keep(&world, user, "/template/cluster", &cluster).await;
    let (_, listed) = ask(&world, user, "GET", "/template/cluster", Value::Null).await;
    assert_eq!((&listed[0]["name"], &listed[0]["type"]), (&json!("cluster"), &json!("user")));
    let one = format!("/template/cluster/{id}");
    let (_, text) = ask(&world, user, "GET", &one, Value::Null).await;
    assert!(text.as_str().unwrap().contains("mode: multi-node"), "{text}");
    let (_, shown) = ask(&world, user, "GET", &format!("{one}?format=json"), Value::Null).await;
    assert_eq!(shown["spec"]["nodes"][0]["replicas"], 2);

    let body = json!({"clientSessionToken": "crowd", "template_id": id, "enqueueOnly": true});
    let route = "/session/_/create-cluster";
    let (status, created) = ask(&world, user, "POST", route, body.clone()).await;
    assert_eq!((status, &created["status"]), (201, &json!("PENDING")), "{created}");
    assert!(created["kernelId"].is_string(), "{created}");
    let (_, info) = ask(&world, user, "GET", "/session/crowd", Value::Null).await;
    assert_eq!(info["environ"], "{'ALL': 'nodes', 'FROM': 'template'}");
    let kernels = world.sql.query_one("SELECT count(*) FROM kernels", &[]).await.unwrap();
    assert_eq!(kernels.get::<_, i64>(0), 3);
    let (status, again) = ask(&world, user, "POST", route, body).await;
    assert_eq!(status, 400, "{again}");
    assert!(again["data"]["existingSessionId"].is_string(), "{again}");
    let body = json!({"clientSessionToken": "crowd", "template_id": uuid::Uuid::nil()});
    assert_eq!(ask(&world, user, "POST", route, body).await.0, 404);

    let update = json!({"payload": cluster.to_string()});
    assert_eq!(ask(&world, user, "PUT", &one, update).await, (200, json!({"success": true})));
    assert_eq!(ask(&world, user, "DELETE", &one, Value::Null).await.0, 200);
    assert_eq!(ask(&world, user, "DELETE", &one, Value::Null).await.0, 404);
}
