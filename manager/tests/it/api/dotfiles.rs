//! Dotfiles of users, groups and domains, and the bootstrap script.

use serde_json::{Value, json};

use super::world::{Key, World};

const GROUP: &str = "f3ee69b6-3224-40ae-aa56-837ce2c3e0db";

async fn ask(world: &World, key: Key, method: &str, target: &str, body: Value) -> (u16, Value) {
    let request = world.request(method, target).signed(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    let reply = request.send().await;
    (reply.status.as_u16(), reply.json())
}

fn file(path: &str, data: &str) -> Value {
    json!({"path": path, "data": data, "permission": "640"})
}

fn with(mut body: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_users_dotfiles_are_made_shown_changed_and_removed() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let route = "/user-config/dotfiles";
    let call =
        async |method: &str, target: &str, body| ask(&world, key, method, target, body).await;
    assert_eq!(call("GET", route, Value::Null).await, (200, json!([])));
    assert_eq!(call("POST", route, file(".vimrc", "set nu\n")).await, (200, json!({})));
    assert_eq!(
        call("GET", route, Value::Null).await,
        (200, json!([{"path": ".vimrc", "permission": "640", "data": "set nu\n"}]))
    );
    let one = format!("{route}?path=.vimrc");
    assert_eq!(
        call("GET", &one, Value::Null).await,
        (200, json!({"path": ".vimrc", "perm": "640", "data": "set nu\n"}))
    );
    // The same file by its full path.
    let full = format!("{route}?path=/home/work/.vimrc");
    assert_eq!(call("GET", &full, Value::Null).await.0, 200);
    assert_eq!(call("PATCH", route, file(".vimrc", "other")).await, (200, json!({})));
    assert_eq!(call("GET", &one, Value::Null).await.1["data"], "other");
    assert_eq!(call("DELETE", &one, Value::Null).await, (200, json!({"success": true})));

    for (method, target, body) in [
        ("GET", one.as_str(), Value::Null),
        ("DELETE", one.as_str(), Value::Null),
        ("PATCH", route, file(".vimrc", "x")),
    ] {
        let (status, body) = call(method, target, body).await;
        assert_eq!((status, &body["title"]), (404, &json!("No such dotfile.")), "{method}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_dotfile_is_refused() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let route = "/user-config/dotfiles";
    let create = async |body| ask(&world, key, "POST", route, body).await;
    create(file(".a/b", "x")).await;
    for (path, message) in [
        ("/etc/passwd", "/etc/passwd is not beneath /home/work."),
        ("../x", "The path \"../x\" must not contain . or ..."),
        (".ssh", ".ssh is reserved for internal operations."),
        (".a", ".a/b and .a cannot both be files."),
    ] {
        let (status, body) = create(file(path, "x")).await;
        assert_eq!((status, body["msg"].as_str()), (400, Some(message)));
    }
    let (status, body) = create(file("/home/work/.a/b", "x")).await;
    assert_eq!((status, &body["title"]), (400, &json!("Dotfile already exists.")));
    let (_, body) = create(json!({"path": "x", "data": "", "permission": "888"})).await;
    assert_eq!(
        body["data"],
        json!({"data": "blank value is not allowed",
               "permission": "does not match pattern ^[0-7]{3}$"})
    );

    let refused = |reply: (u16, Value)| {
        assert_eq!((reply.0, &reply.1["title"]), (400, &json!("Dotfile creation has failed.")));
    };
    refused(create(file(".big", &"x".repeat(65 << 10))).await);
    assert_eq!(create(file(".half", &"x".repeat(40 << 10))).await.0, 200);
    refused(create(file(".other-half", &"x".repeat(40 << 10))).await);
    for n in 0..98 {
        assert_eq!(create(file(&format!(".n{n}"), "x")).await.0, 200, "{n}");
    }
    refused(create(file(".one-too-many", "x")).await);
}

#[tokio::test]
async fn groups_and_domains_have_theirs_from_their_administrators() {
    let world = World::start().await;
    let (admin, domain_admin) = (world.key("admin").await, world.key("domain-admin").await);
    let user = world.key("user1").await;
    for (route, scope) in [
        ("/domain-config/dotfiles", json!({"domain": "default"})),
        ("/group-config/dotfiles", json!({"group": "default", "domain": "default"})),
        ("/group-config/dotfiles", json!({"group": GROUP})),
    ] {
        let query: Vec<String> = scope
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap()))
            .collect();
        let listed = format!("{route}?{}", query.join("&"));
        let one = format!("{listed}&path=.shared");
        let new = with(file(".shared", "x"), scope.clone());
        for key in [admin, domain_admin] {
            let call = async |method: &str, target: &str, body| {
                let (status, reply) = ask(&world, key, method, target, body).await;
                assert_eq!(status, 200, "{method} {target}: {reply}");
                reply
            };
            call("POST", route, new.clone()).await;
            call("PATCH", route, with(file(".shared", "y"), scope.clone())).await;
            assert_eq!(ask(&world, user, "GET", &one, Value::Null).await.1["data"], "y");
            assert_eq!(call("GET", &listed, Value::Null).await.as_array().unwrap().len(), 1);
            call("DELETE", &one, Value::Null).await;
        }
        for method in ["POST", "PATCH"] {
            assert_eq!(ask(&world, user, method, route, new.clone()).await.0, 401);
        }
        assert_eq!(ask(&world, user, "DELETE", &one, Value::Null).await.0, 401);
    }
}

#[tokio::test]
async fn strangers_and_nobodys_dotfiles_are_out_of_reach() {
    let world = World::start().await;
    world
        .sql
        .batch_execute(
            "INSERT INTO domains (name) VALUES ('other');
             INSERT INTO groups (id, name, domain_name, resource_policy) VALUES
               ('00000000-0000-4000-8000-00000000000a', 'theirs', 'other', 'default')",
        )
        .await
        .unwrap();
    let (admin, domain_admin) = (world.key("admin").await, world.key("domain-admin").await);
    let user = world.key("user1").await;
    let theirs = "/group-config/dotfiles?group=00000000-0000-4000-8000-00000000000a";
    for (key, target, status) in [
        (user, "/domain-config/dotfiles?domain=other", 403),
        (domain_admin, "/domain-config/dotfiles?domain=other", 403),
        (admin, "/domain-config/dotfiles?domain=other", 200),
        (admin, "/domain-config/dotfiles?domain=nowhere", 404),
        (user, theirs, 403),
        (domain_admin, theirs, 403),
        (admin, theirs, 200),
        (admin, "/group-config/dotfiles?group=theirs&domain=other", 200),
        (admin, "/group-config/dotfiles?group=theirs&domain=default", 404),
        (admin, "/group-config/dotfiles?group=theirs", 400),
        (user, &format!("/user-config/dotfiles?owner_access_key={}", admin.access), 403),
        (admin, &format!("/user-config/dotfiles?owner_access_key={}", user.access), 200),
        (admin, "/user-config/dotfiles?owner_access_key=AKIANOBODY", 400),
    ] {
        let (got, body) = ask(&world, key, "GET", target, Value::Null).await;
        assert_eq!(got, status, "{target}: {body}");
    }
}

#[tokio::test]
async fn the_bootstrap_script_is_kept() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let route = "/user-config/bootstrap-script";
    let set = async |script: &str| ask(&world, key, "POST", route, json!({"script": script})).await;
    assert_eq!(ask(&world, key, "GET", route, Value::Null).await, (200, json!("")));
    assert_eq!(set("echo hello").await, (200, json!({})));
    assert_eq!(ask(&world, key, "GET", route, Value::Null).await, (200, json!("echo hello")));
    assert_eq!(set(&"x".repeat((64 << 10) + 1)).await.0, 400);
    assert_eq!(set("").await.0, 200);
    assert_eq!(ask(&world, key, "GET", route, Value::Null).await, (200, json!("")));
}
