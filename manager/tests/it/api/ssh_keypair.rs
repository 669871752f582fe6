//! `/auth/ssh-keypair`.

use serde_json::{Value, json};

use super::world::{Key, World};

const ROUTE: &str = "/auth/ssh-keypair";
const PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINCbbz0YQafc0ZSG+2OrDmWMYwgsT243L19JPwPDtwr1 me";
const PRIVATE: &str =
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----";

async fn ask(world: &World, key: Key, method: &str, body: Value) -> (u16, Value) {
    let request = world.request(method, ROUTE).signed(key);
    let request = if body.is_null() { request } else { request.json(&body) };
    let reply = request.send().await;
    (reply.status.as_u16(), reply.json())
}

#[tokio::test]
async fn keys_are_made_and_shown_to_their_owner() {
    let world = World::start().await;
    let (key, other) = (world.key("user1").await, world.key("admin").await);
    let (status, made) = ask(&world, key, "PATCH", Value::Null).await;
    assert_eq!(status, 200, "{made}");
    let public = made["ssh_public_key"].as_str().unwrap();
    assert!(public.starts_with("ssh-ed25519 ") && public.ends_with('\n'), "{public}");
    let private = made["ssh_private_key"].as_str().unwrap();
    assert!(private.starts_with("-----BEGIN ") && private.ends_with("-----\n"));
    let shown = ask(&world, key, "GET", Value::Null).await;
    assert_eq!(shown, (200, json!({ "ssh_public_key": public })));
    assert_ne!(ask(&world, other, "GET", Value::Null).await, shown);
    let (_, again) = ask(&world, key, "PATCH", Value::Null).await;
    assert_ne!(again, made);
}

#[tokio::test]
async fn ones_own_keys_are_taken_if_they_are_keys() {
    let world = World::start().await;
    let key = world.key("user1").await;
    let body = json!({"pubkey": format!("{PUBLIC} \n\n"), "privkey": format!("{PRIVATE}\n ")});
    let taken = json!({
        "ssh_public_key": format!("{PUBLIC}\n"),
        "ssh_private_key": format!("{PRIVATE}\n"),
    });
    assert_eq!(ask(&world, key, "POST", body).await, (200, taken));
    for (public, private) in [
        ("nonsense", PRIVATE),
        (&format!("{PUBLIC}\n{PUBLIC}"), PRIVATE),
        (&format!("command=\"sh\" {PUBLIC}"), PRIVATE),
        (PUBLIC, "nonsense"),
        (&format!("{PUBLIC}{}", "x".repeat(32 << 10)), PRIVATE),
    ] {
        let body = json!({"pubkey": public, "privkey": private});
        let (status, answer) = ask(&world, key, "POST", body).await;
        assert_eq!(status, 400, "{public}: {answer}");
    }
    assert_eq!(ask(&world, key, "POST", json!({"pubkey": PUBLIC})).await.0, 400);
    let shown = ask(&world, key, "GET", Value::Null).await;
    assert_eq!(shown, (200, json!({ "ssh_public_key": format!("{PUBLIC}\n") })));
}
