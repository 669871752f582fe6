//! `site`: declared people, projects, policies and keys.

use serde_json::{Value, json};

use super::support::Site;

fn declared(secrets: &std::path::Path) -> Value {
    let file = |name: &str, text: &str| {
        let path = secrets.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    json!({
        "etcd": {"config/watcher/token": "0123456789abcdef0123456789abcdef"},
        "domains": {"science": {"description": "All of it"}},
        "user-resource-policies": {"default": {"max-vfolder-size": -1}},
        "project-resource-policies": {"default": {"max-vfolder-size": -1}},
        "keypair-resource-policies": {
            "default": {"max-concurrent-sessions": 5, "max-containers-per-session": 1},
        },
        "scaling-groups": {"gpu": {"domains": ["science"]}},
        "projects": {"physics": {"domain": "science", "scaling-groups": ["gpu"]}},
        "users": {"ada@example.org": {
            "domain": "science", "projects": ["physics"], "role": "admin",
            "password-file": file("password", "first of many\n"),
            "access-key": "AKIAADAEXAMPLE000000", "secret-key-file": file("secret", "s3cr3t\n"),
        }},
    })
}

#[tokio::test]
async fn a_declared_site_is_planned_made_and_then_left_alone() {
    let site = Site::start(false).await;
    site.ok(&["schema", "oneshot"]).await;
    let file = site.dir.path().join("site.json");
    let write = |value: &Value| std::fs::write(&file, value.to_string()).unwrap();
    let path = file.to_str().unwrap();
    let mut wanted = declared(site.dir.path());
    write(&wanted);

    site.ok(&["site", "check", path]).await;
    let plan = site.ok(&["site", "plan", path]).await;
    assert!(plan.contains("+ etcd key config/watcher/token"), "{plan}");
    assert!(plan.ends_with("12 to make, 0 to change, 0 as declared.\n"), "{plan}");
    // A plan changes nothing.
    assert_eq!(site.ok(&["site", "plan", path]).await, plan);
    let made = site.ok(&["site", "apply", path]).await;
    assert!(made.ends_with("12 made, 0 changed, 0 as declared.\n"), "{made}");
    let again = site.ok(&["site", "apply", path]).await;
    assert_eq!(again, "0 made, 0 changed, 12 as declared.\n");

    wanted["domains"]["science"]["description"] = json!("Some of it");
    write(&wanted);
    let changed = site.ok(&["site", "apply", path]).await;
    assert!(changed.contains("(name=science): description"), "{changed}");
    assert!(changed.ends_with("0 made, 1 changed, 11 as declared.\n"), "{changed}");

    wanted["projects"]["physics"]["scaling-groups"] = json!(["gpus"]);
    write(&wanted);
    let slip = site.fails(&["site", "check", path], 1).await;
    assert!(slip.contains("no scaling group \"gpus\"; declared are gpu"), "{slip}");
    wanted["projects"]["physics"]["scaling-groups"] = json!([]);
    wanted["users"]["ada@example.org"]["password"] = json!("in the open");
    write(&wanted);
    let open = site.fails(&["site", "plan", path], 1).await;
    assert!(open.contains("use password-file"), "{open}");
}
