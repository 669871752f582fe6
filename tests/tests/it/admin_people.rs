//! Domains, groups, users and keypairs with the stock client's `admin` commands.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

use backendai_tests::site::Identity;
use backendai_tests::wait::wait_until;
use backendai_tests::{ClientOutput, StockClient, TestCluster};

use crate::support::LIMIT;

/// The object of a command that prints JSON.
pub fn parsed(output: ClientOutput) -> Result<Value> {
    let output = output.success();
    serde_json::from_str(&output.stdout).with_context(|| output.to_string())
}

/// The rows of `admin … list`.
pub async fn list(client: &StockClient, command: &[&str]) -> Result<Vec<Value>> {
    let mut args = vec!["--output", "json", "admin"];
    args.extend(command);
    let found = parsed(client.run(&args).await?)?;
    let rows = found.get("items").unwrap_or(&found);
    rows.as_array().cloned().with_context(|| found.to_string())
}

/// Runs `admin …` and returns what it printed on success.
pub async fn admin(client: &StockClient, command: &[&str]) -> Result<String> {
    let mut args = vec!["admin"];
    args.extend(command);
    Ok(client.run_with(&args, "y\n", LIMIT).await?.success().all())
}

/// Runs `admin …`, which is refused, and returns what it printed: that counts, for some of
/// the client's commands exit with 0 all the same.
pub async fn refused(client: &StockClient, command: &[&str]) -> Result<String> {
    let mut args = vec!["admin"];
    args.extend(command);
    Ok(client.run_with(&args, "y\n", LIMIT).await?.all())
}

pub fn row<'a>(rows: &'a [Value], key: &str, value: &str) -> Option<&'a Value> {
    rows.iter().find(|row| row[key] == value)
}

#[tokio::test]
async fn a_domain_lives_and_dies() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let hosts = r#"{"local:volume1": ["create-vfolder"]}"#;
    let slots = r#"{"cpu": 8, "mem": "2g"}"#;
    let add = ["domain", "add", "-d", "The lab", "--total-resource-slots", slots];
    let printed = admin(&client, &[&add[..], &["--vfhost-perms", hosts, "lab"]].concat()).await?;
    assert!(printed.contains("lab"), "{printed}");
    let found = list(&client, &["domain", "list"]).await?;
    let lab = row(&found, "name", "lab").context("the domain is listed")?;
    assert_eq!(lab["total_resource_slots"], json!({"cpu": "8", "mem": "2147483648"}), "{lab}");
    assert_eq!(lab["allowed_vfolder_hosts"], hosts);

    let again = refused(&client, &["domain", "add", "lab"]).await?;
    assert!(again.contains("integrity error"), "{again}");
    let bad = refused(&client, &["domain", "add", "no good"]).await?;
    assert!(bad.contains("slug format required"), "{bad}");
    let missing = refused(&client, &["domain", "update", "--description", "x", "nowhere"]).await?;
    assert!(missing.contains("no matching modifydomain"), "{missing}");

    admin(&client, &["domain", "update", "--new-name", "lab2", "lab"]).await?;
    admin(&client, &["domain", "delete", "lab2"]).await?;
    let found = list(&client, &["domain", "list"]).await?;
    assert!(row(&found, "name", "lab").is_none());
    let lab = row(&found, "name", "lab2").context("it has its new name")?;
    assert_eq!(lab["is_active"], false);
    assert_eq!(lab["description"], "The lab", "what was not named stays");
    let busy = refused(&client, &["domain", "purge", "default"]).await?;
    assert!(busy.contains("There are users bound to the domain"), "{busy}");
    admin(&client, &["domain", "purge", "lab2"]).await?;
    let found = list(&client, &["domain", "list"]).await?;
    assert!(row(&found, "name", "lab2").is_none());
    cluster.stop().await
}

#[tokio::test]
async fn a_user_and_its_keypairs_live_and_die() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.superadmin)?;
    let email = "ada@example.org";
    let add = ["user", "add", "-u", "ada", "-n", "Ada L.", "--allowed-ip", "127.0.*.*,::1"];
    let printed = admin(&client, &[&add[..], &["default", email, "s3cret-ada"]].concat()).await?;
    assert!(printed.contains(email), "{printed}");
    let users = list(&client, &["user", "list"]).await?;
    let ada = row(&users, "email", email).context("the user is listed")?;
    assert_eq!((&ada["status"], &ada["role"]), (&json!("active"), &json!("user")), "{ada}");
    assert_eq!(ada["status_info"], "admin-requested");
    let info =
        parsed(client.run(&["--output", "json", "admin", "user", "info", "-e", email]).await?)?;
    assert!(info.to_string().contains("127.0.0.0/16"), "{info}");

    let keys = list(&client, &["keypair", "list"]).await?;
    let key = row(&keys, "user_id", email).context("a user has a keypair")?;
    let access_key = key["access_key"].as_str().context("an access key")?.to_owned();
    assert_eq!(ada["main_access_key"], access_key.as_str());
    let own = Identity {
        email: email.into(),
        access_key: access_key.clone(),
        secret_key: key["secret_key"].as_str().context("a secret key")?.to_owned(),
        ..cluster.identities.user1.clone()
    };
    let hers = cluster.signed(&own);
    let test = async || hers.send(Method::GET, "/auth?echo=x", Value::Null).await;
    assert_eq!(test().await?.status, 200);

    let main = refused(&client, &["keypair", "delete", &access_key]).await?;
    assert!(main.contains("main access key"), "{main}");
    admin(&client, &["keypair", "add", "-r", "77", email, "default"]).await?;
    let keys = list(&client, &["keypair", "list"]).await?;
    let second = keys.iter().find(|key| key["user_id"] == email && key["rate_limit"] == 77);
    let second = second.and_then(|key| key["access_key"].as_str()).context("a second keypair")?;
    admin(&client, &["keypair", "deactivate", second]).await?;
    let keys = list(&client, &["keypair", "list"]).await?;
    let found = row(&keys, "access_key", second).context("it is still there")?;
    assert_eq!((&found["is_active"], &found["rate_limit"]), (&json!(false), &json!(77)));
    admin(&client, &["keypair", "activate", second]).await?;
    admin(&client, &["keypair", "update", "-r", "78", second]).await?;
    admin(&client, &["keypair", "delete", second]).await?;
    let gone = refused(&client, &["keypair", "update", "-r", "1", second]).await?;
    assert!(gone.contains("no matching modifykeypair"), "{gone}");

    admin(&client, &["user", "update", "-r", "admin", email]).await?;
    let keys = list(&client, &["keypair", "list"]).await?;
    let key = row(&keys, "access_key", &access_key).context("her keypair")?;
    assert_eq!(key["is_admin"], true, "an administrator's keypair is one");
    let bad = refused(&client, &["user", "update", "-r", "emperor", email]).await?;
    assert!(bad.contains("not a role"), "{bad}");
    let foreign = &cluster.identities.user1.access_key;
    let bad = refused(&client, &["user", "update", "--main-access-key", foreign, email]).await?;
    assert!(bad.contains("another user"), "{bad}");

    admin(&client, &["user", "delete", email]).await?;
    wait_until(LIMIT, "the keypair to be refused", async || Ok(test().await?.status == 401))
        .await?;
    admin(&client, &["user", "purge", email]).await?;
    let users = list(&client, &["user", "list"]).await?;
    assert!(row(&users, "email", email).is_none());
    let gone = refused(&client, &["user", "purge", email]).await?;
    assert!(gone.contains("no matching purgeuser"), "{gone}");
    cluster.stop().await
}

#[tokio::test]
async fn groups_belong_to_administrators_of_their_domain() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let superadmin = cluster.client(&cluster.identities.superadmin)?;
    let domain_admin = cluster.client(&cluster.identities.domain_admin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    admin(&superadmin, &["domain", "add", "other"]).await?;
    admin(&superadmin, &["group", "add", "other", "theirs"]).await?;
    let theirs = list(&superadmin, &["group", "list", "-d", "other"]).await?;
    let theirs = theirs[0]["id"].as_str().context("a group's id")?.to_owned();

    admin(&domain_admin, &["group", "add", "default", "ours"]).await?;
    let groups = list(&domain_admin, &["group", "list"]).await?;
    let ours = row(&groups, "name", "ours").context("the group is listed")?;
    let ours = ours["id"].as_str().context("a group's id")?.to_owned();
    assert!(row(&groups, "name", "theirs").is_none());
    let no = "no permission to execute";
    for (client, id) in [(&domain_admin, &theirs), (&user, &ours), (&user, &theirs)] {
        for command in [
            ["group", "update", "-n", "mine", id].as_slice(),
            &["group", "delete", id],
            &["group", "purge", id],
        ] {
            let printed = refused(client, command).await?;
            assert!(printed.contains(no), "{command:?}: {printed}");
        }
    }
    let printed = refused(&domain_admin, &["group", "add", "other", "mine"]).await?;
    assert!(printed.contains(no), "{printed}");
    let absent = "6f4f0499-5c42-484a-be48-1f36123e2c71";
    let printed = refused(&domain_admin, &["group", "purge", absent]).await?;
    assert!(printed.contains(no), "an absent group looks like another's: {printed}");

    let users = list(&superadmin, &["user", "list"]).await?;
    let member = row(&users, "email", &cluster.identities.user1.email).context("user1")?;
    let member = member["uuid"].as_str().context("an id")?;
    admin(&domain_admin, &["group", "add-users", &ours, member]).await?;
    let groups = list(&user, &["group", "list"]).await?;
    assert!(row(&groups, "name", "ours").is_some(), "{groups:?}");
    admin(&domain_admin, &["group", "remove-users", &ours, member]).await?;
    let groups = list(&user, &["group", "list"]).await?;
    assert!(row(&groups, "name", "ours").is_none(), "{groups:?}");

    admin(&domain_admin, &["group", "update", "-n", "ours2", &ours]).await?;
    admin(&domain_admin, &["group", "delete", &ours]).await?;
    admin(&domain_admin, &["group", "purge", &ours]).await?;
    let groups = list(&superadmin, &["group", "list", "-d", "default"]).await?;
    assert!(row(&groups, "name", "ours2").is_none(), "{groups:?}");
    cluster.stop().await
}

#[tokio::test]
async fn only_superadmins_change_people() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    for identity in [&cluster.identities.domain_admin, &cluster.identities.user1] {
        let client = cluster.client(identity)?;
        let key = &cluster.identities.user2.access_key;
        for command in [
            ["domain", "add", "x"].as_slice(),
            &["domain", "update", "--description", "x", "default"],
            &["domain", "delete", "default"],
            &["domain", "purge", "default"],
            &["user", "add", "default", "x@example.org", "password"],
            &["user", "update", "-u", "x", "user2@lablup.com"],
            &["user", "delete", "user2@lablup.com"],
            &["user", "purge", "user2@lablup.com"],
            &["keypair", "add", "user2@lablup.com", "default"],
            &["keypair", "update", "-r", "1", key],
            &["keypair", "deactivate", key],
            &["keypair", "delete", key],
        ] {
            let printed = refused(&client, command).await?;
            let field = "no permission to execute";
            assert!(printed.contains(field), "{command:?} of {}: {printed}", identity.email);
        }
    }
    let database = cluster.database().await?;
    let query = "SELECT count(*), count(*) FILTER (WHERE outcome = 'refused'), \
        count(DISTINCT email), count(*) FILTER (WHERE client IS NULL) FROM audit_log";
    let row = database.query_one(query, &[]).await?;
    let counts: (i64, i64, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(counts, (24, 24, 2, 0), "every try is in the audit log");
    cluster.stop().await
}
