//! Secrets stay where they belong: a walk past everything that takes or makes one, and then a
//! look through all that was logged and written down.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use backendai_tests::TestCluster;
use backendai_tests::site::Identity;

use crate::support::{create_body, wait_nothing_left};

/// Secrets by what they are.
type Secrets = Vec<(&'static str, String)>;

/// A text of an answer, noted as a secret.
fn keep(secrets: &mut Secrets, what: &'static str, value: &Value) -> Result<()> {
    let text = value.as_str().with_context(|| format!("{what}: {value}"))?;
    secrets.push((what, text.to_owned()));
    Ok(())
}

/// Signs in, successfully and not, and changes passwords in each way there is.
async fn passwords(cluster: &TestCluster, secrets: &mut Secrets) -> Result<()> {
    let user = &cluster.identities.user1;
    let signed = cluster.signed(user);
    let http = backendai_tests::http();
    let login = async |password: &str| -> Result<(u16, Value)> {
        let body = json!({"type": "keypair", "domain": "default", "username": user.email,
                          "password": password});
        let url = format!("{}/auth/authorize", signed.endpoint());
        let answer = http.post(url).json(&body).send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    };
    secrets.push(("a wrong password", "canary-wr0ng-password".into()));
    assert_eq!(login("canary-wr0ng-password").await?.0, 401);
    let (status, answer) = login(&user.password).await?;
    assert_eq!(status, 200, "{answer}");
    keep(secrets, "the secret key of a sign-in", &answer["data"]["secret_key"])?;
    let new = "canary-n3w-password";
    secrets.push(("a new password", new.into()));
    let change = json!({"old_password": user.password, "new_password": new,
                        "new_password2": new});
    signed.post("/auth/update-password", change).await?.ok();
    let newest = "canary-n3west-password";
    secrets.push(("the newest password", newest.into()));
    let expired = json!({"domain": "default", "username": user.email, "current_password": new,
                         "new_password": newest});
    let url = format!("{}/auth/update-password-no-auth", signed.endpoint());
    // Refused, for passwords of this site never expire; what came with it is no less secret.
    assert!(http.post(url).json(&expired).send().await?.status().is_client_error());
    Ok(())
}

/// Has an administrator make people, keys and what else has secrets.
async fn administration(cluster: &TestCluster, secrets: &mut Secrets) -> Result<Identity> {
    let admin = cluster.signed(&cluster.identities.superadmin);
    secrets.push(("a made user's password", "canary-m4de-password".into()));
    let user = json!({"username": "canary", "password": "canary-m4de-password",
        "need_password_change": false, "domain_name": "default"});
    let make = "mutation($props: UserInput!) { create_user(email: \"canary@example.org\", \
        props: $props) { ok msg } }";
    let made = admin.gql(make, json!({ "props": user })).await?;
    assert_eq!(made["create_user"]["ok"], true, "{made}");
    secrets.push(("a set password", "canary-s3t-password".into()));
    let change = "mutation { modify_user(email: \"canary@example.org\", \
        props: {password: \"canary-s3t-password\"}) { ok msg } }";
    assert_eq!(admin.gql(change, json!({})).await?["modify_user"]["ok"], true);
    let key = "mutation { create_keypair(user_id: \"canary@example.org\", props: {is_active: \
        true, is_admin: false, resource_policy: \"default\", rate_limit: 1000}) { ok msg \
        keypair { access_key secret_key } } }";
    let made = admin.gql(key, json!({})).await?;
    let keypair = &made["create_keypair"]["keypair"];
    keep(secrets, "a made secret key", &keypair["secret_key"])?;
    let own = Identity {
        email: "canary@example.org".into(),
        access_key: keypair["access_key"].as_str().context("an access key")?.to_owned(),
        secret_key: keypair["secret_key"].as_str().context("a secret key")?.to_owned(),
        ..cluster.identities.user1.clone()
    };

    secrets.push(("a registry's password", "canary-r3gistry-password".into()));
    let registry = "mutation { create_container_registry(hostname: \"canary.example.org\", \
        props: {url: \"https://canary.example.org\", type: \"docker\", username: \"u\", \
        password: \"canary-r3gistry-password\"}) { container_registry { hostname } } }";
    admin.gql(registry, json!({})).await?;
    secrets.push(("a set configuration", "canary-c0nfigured".into()));
    let config = json!({"key": "config/plugins/canary/password", "value": "canary-c0nfigured"});
    admin.post("/config/set", config).await?.ok();
    secrets.push(("a proxy's token", "canary-w5proxy-token".into()));
    let group = "mutation { create_scaling_group(name: \"canary\", props: {driver: \"static\", \
        scheduler: \"fifo\", wsproxy_api_token: \"canary-w5proxy-token\"}) { ok msg } }";
    assert_eq!(admin.gql(group, json!({})).await?["create_scaling_group"]["ok"], true);
    Ok(own)
}

/// Has a user make keys and a session that is given secrets.
async fn sessions(cluster: &TestCluster, own: &Identity, secrets: &mut Secrets) -> Result<()> {
    let signed = cluster.signed(own);
    let keys = signed.send(Method::PATCH, "/auth/ssh-keypair", Value::Null).await?.ok();
    let private = keys["ssh_private_key"].as_str().context("a private key")?;
    // Logs may break lines; one of the middle is as good as all.
    let line = private.lines().nth(2).context("a line of the private key")?;
    secrets.push(("a private ssh key", line.to_owned()));
    secrets.push(("a dotfile", "canary-d0tfile".into()));
    let dotfile = json!({"path": ".canaryrc", "data": "canary-d0tfile", "permission": "600"});
    signed.post("/user-config/dotfiles", dotfile).await?.ok();
    let joined = cluster.signed(&cluster.identities.user1);
    secrets.push(("a variable of a session", "canary-env1ron".into()));
    let config = json!({"resources": {"cpu": "1", "mem": "256m"},
                        "environ": {"CANARY_TOKEN": "canary-env1ron"}});
    joined
        .post("/session", create_body("canary", "busybox", json!({"config": config})))
        .await?
        .ok();
    secrets.push(("code that is run", "canary-c0de".into()));
    let run = json!({"mode": "query", "runId": "canary", "code": "echo canary-c0de"});
    let ran = joined.post("/session/canary", run).await?;
    assert!(ran.status < 500, "{ran:?}");
    let folder = json!({"name": "canary", "host": "local:volume1"});
    joined.post("/folders", folder).await?.ok();
    let upload = json!({"path": "file", "size": 3});
    let token = joined.post("/folders/canary/request-upload", upload).await?.ok();
    keep(secrets, "a token for an upload", &token["token"])?;
    joined.delete("/session/canary").await?;
    wait_nothing_left(cluster).await
}

#[tokio::test]
async fn no_log_and_no_record_holds_a_secret() -> Result<()> {
    // Everything of ours that can be logged.
    let log = json!({"logging": {"level": "info,backendai=trace,backendai_manager=trace,\
        backendai_agent=trace,backendai_datastore=trace,backendai_service=trace,\
        backendai_rpc=trace,backendai_storage=trace"}});
    let cluster =
        TestCluster::builder().manager_config(log.clone()).agent_config(log).start().await?;
    let people = &cluster.identities;
    let mut secrets: Secrets = vec![
        ("the superadmin's secret key", people.superadmin.secret_key.clone()),
        ("a user's secret key", people.user1.secret_key.clone()),
        ("a user's password", people.user1.password.clone()),
        ("the database's password", cluster.servers.postgres.password().to_owned()),
    ];
    passwords(&cluster, &mut secrets).await?;
    let own = administration(&cluster, &mut secrets).await?;
    sessions(&cluster, &own, &mut secrets).await?;

    let mut written = vec![("the manager's log".to_owned(), cluster.manager.process.log_text())];
    for agent in &cluster.agents {
        written.push((format!("the log of {}", agent.id()), agent.process.log_text()));
    }
    let database = cluster.database().await?;
    for table in ["audit_log", "transitions", "background_tasks", "error_logs"] {
        let rows = database.query(&format!("SELECT t::text FROM {table} t"), &[]).await?;
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        written.push((format!("the table {table}"), rows.join("\n")));
    }
    assert!(written[0].1.contains("TRACE") || written[0].1.contains("DEBUG"), "it logs much");
    assert!(written.iter().any(|(_, text)| text.contains("create_keypair")), "the walk is noted");
    for (what, secret) in &secrets {
        assert!(secret.len() >= 8, "{what} is too short to be told from other text");
        for (place, text) in &written {
            let line = text.lines().find(|line| line.contains(secret.as_str()));
            assert!(line.is_none(), "{what} is in {place}: {}", line.unwrap_or_default());
        }
    }
    cluster.stop().await
}
