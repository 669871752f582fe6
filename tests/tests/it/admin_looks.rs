//! What administrators look at with the stock client: every `admin … list` and `… info` that
//! no test of changes asks for, as superadmin, as administrator of a domain, and as user.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::wait::wait_until;
use backendai_tests::{StockClient, TestCluster};

use crate::admin_people::{list, parsed, row};
use crate::support::{LIMIT, create_body, wait_nothing_left, wait_status};

/// Looks with `admin …`; a failed look prints why, and some of the client's commands exit
/// with 0 all the same.
async fn look(client: &StockClient, command: &[&str]) -> Result<String> {
    let mut args = vec!["admin"];
    args.extend(command);
    Ok(client.run(&args).await?.all())
}

/// True when the client was told that it may not.
fn is_refusal(printed: &str) -> bool {
    ["Forbidden operation", "401 Unauthorized", "403 Forbidden", "Insufficient privilege"]
        .iter()
        .any(|reason| printed.contains(reason))
}

#[tokio::test]
async fn agents_and_their_sessions_are_shown() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let people = &cluster.identities;
    let admin = cluster.client(&people.superadmin)?;
    let domain_admin = cluster.client(&people.domain_admin)?;
    let user = cluster.client(&people.user1)?;
    let agent = cluster.agents[0].id();
    let signed = cluster.signed(&people.user1);
    let made = signed.post("/session", create_body("watched", "busybox", json!({}))).await?.ok();
    let id = made["sessionId"].as_str().context("the session's id")?.to_owned();

    let agents = look(&admin, &["agent", "list"]).await?;
    for shown in [agent, "ALIVE", "x86_64", "default", "cpu:1"] {
        assert!(agents.contains(shown), "{shown} in {agents}");
    }
    let rows = list(&admin, &["agent", "list"]).await?;
    assert!(row(&rows, "id", agent).is_some(), "{rows:?}");
    let none = list(&admin, &["agent", "list", "-s", "LOST"]).await?;
    assert_eq!(none, Vec::<serde_json::Value>::new());
    let found = list(&admin, &["agent", "list", "--filter", "status == \"ALIVE\""]).await?;
    assert_eq!(found.len(), 1);
    wait_until(LIMIT, "live figures of the agent", async || {
        let info = admin.run(&["admin", "agent", "info", agent]).await?.success();
        let all = ["HW Metadata", "Live Stat", "Local Config", "cpu_util", "healthy"];
        anyhow::ensure!(all.iter().all(|shown| info.stdout.contains(shown)), "{info}");
        Ok(true)
    })
    .await?;
    for client in [&domain_admin, &user] {
        for command in [&["agent", "list"][..], &["agent", "info", agent]] {
            let refused = look(client, command).await?;
            assert!(is_refusal(&refused), "{command:?}: {refused}");
        }
    }

    // A user's session is seen by those above, by nobody beside.
    for client in [&admin, &domain_admin, &user] {
        let listed = look(client, &["session", "list"]).await?;
        assert!(listed.contains("watched") && listed.contains("RUNNING"), "{listed}");
        let info = look(client, &["session", "info", &id]).await?;
        for shown in ["watched", "RUNNING", "main1"] {
            assert!(info.contains(shown), "{shown} in {info}");
        }
    }
    let other = cluster.client(&people.user2)?;
    let listed = look(&other, &["session", "list"]).await?;
    assert!(!listed.contains("watched"), "{listed}");
    let info = look(&other, &["session", "info", &id]).await?;
    assert!(info.contains("no such compute session") || info.contains("no such"), "{info}");
    let access_key = &people.user1.access_key;
    let of_key = ["session", "list", "--access-key", access_key, "--name-only"];
    let names = look(&admin, &of_key).await?;
    assert!(names.contains("watched"), "{names}");
    let stolen = look(&other, &of_key).await?;
    assert!(!stolen.contains("watched"), "{stolen}");
    user.run(&["session", "rm", "watched"]).await?.success();
    wait_status(&cluster, "watched", &["TERMINATED"]).await?;
    let dead = look(&admin, &["session", "list", "--dead"]).await?;
    assert!(dead.contains("watched") && dead.contains("TERMINATED"), "{dead}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// What a role is shown by a command.
#[derive(Clone, Copy)]
enum Sees {
    /// This.
    Text(&'static str),
    /// That it may not.
    Refusal,
}

#[tokio::test]
async fn people_places_and_rights_are_shown_to_whom_they_concern() -> Result<()> {
    use Sees::{Refusal, Text};
    let cluster = TestCluster::builder().agents(0).start().await?;
    let people = &cluster.identities;
    let clients =
        [&people.superadmin, &people.domain_admin, &people.user1].map(|who| cluster.client(who));
    let table: [(&[&str], [Sees; 3]); 12] = [
        (&["domain", "info", "default"], [Text("Demo domain"); 3]),
        (&["domain", "list"], [Text("Demo domain"), Refusal, Refusal]),
        (&["group", "info", "default"], [Text("Demo project"); 3]),
        (&["group", "list"], [Text("default"); 3]),
        (&["scaling-group", "info", "default"], [Text("Demo scaling group"), Refusal, Refusal]),
        (&["scaling-group", "list"], [Text("Demo scaling group"), Refusal, Refusal]),
        (&["storage", "info", "local"], [Text("vfs"), Refusal, Refusal]),
        (&["storage", "list"], [Text("vfs"), Refusal, Refusal]),
        (&["permission", "list"], [Text("mount-in-session"); 3]),
        (&["keypair-resource-policy", "info", "default"], [Text("86400"); 3]),
        (&["vfolder", "list-hosts"], [Text("local"), Refusal, Refusal]),
        (&["user", "list"], [Text("user1@"), Text("user1@"), Refusal]),
    ];
    let clients: Vec<StockClient> = clients.into_iter().collect::<Result<_>>()?;
    for (command, seen) in table {
        for (client, sees) in clients.iter().zip(seen) {
            let printed = look(client, command).await?;
            match sees {
                Text(text) => assert!(printed.contains(text), "{command:?}: {printed}"),
                Refusal => assert!(is_refusal(&printed), "{command:?}: {printed}"),
            }
        }
    }
    for (client, who) in
        clients.iter().zip([&people.superadmin, &people.domain_admin, &people.user1])
    {
        let own = look(client, &["keypair", "info"]).await?;
        assert!(own.contains(&who.access_key), "{own}");
    }
    let json = ["--output", "json", "admin", "image", "list"];
    let images = parsed(clients[2].run(&json).await?)?;
    assert!(images.to_string().contains("stable/python"), "{images}");
    // Licenses are of another edition; the client says that it found none.
    let license = look(&clients[0], &["license", "show"]).await?;
    assert!(!license.contains("Traceback"), "{license}");
    cluster.stop().await
}

#[tokio::test]
async fn folders_of_all_are_shown_to_superadmins() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let people = &cluster.identities;
    let admin = cluster.client(&people.superadmin)?;
    let user = cluster.client(&people.user1)?;
    let other = cluster.client(&people.user2)?;
    user.run(&["vfolder", "create", "papers", "local:volume1"]).await?.success();
    user.run(&["vfolder", "invite", "papers", "-p", "rw", &people.user2.email]).await?.success();
    let invitations = cluster.signed(&people.user2).get("/folders/invitations/list").await?.ok();
    let invitation = &invitations["invitations"][0]["id"];
    let accept = json!({ "inv_id": invitation });
    cluster.signed(&people.user2).post("/folders/invitations/accept", accept).await?.ok();

    let listed = look(&admin, &["vfolder", "list"]).await?;
    assert!(listed.contains("papers"), "{listed}");
    let mine = look(&user, &["vfolder", "list"]).await?;
    assert!(mine.contains("papers"), "{mine}");
    let shared = look(&admin, &["vfolder", "list-shared-vfolders"]).await?;
    assert!(shared.contains("papers") && shared.contains(&people.user2.email), "{shared}");
    let query = "SELECT id::text FROM vfolders WHERE name = 'papers'";
    let id: String = cluster.database().await?.query_one(query, &[]).await?.get(0);
    let info = look(&admin, &["vfolder", "shared-vfolder-info", &id]).await?;
    assert!(info.contains("papers"), "{info}");
    let query = "SELECT uuid::text FROM users WHERE email = $1";
    let database = cluster.database().await?;
    let sharer: String = database.query_one(query, &[&people.user2.email]).await?.get(0);
    let less = ["vfolder", "update-shared-vf-permission", &id, &sharer, "-p", "ro"];
    let printed = look(&admin, &less).await?;
    assert!(printed.contains("Updated"), "{printed}");
    let seen = other.run(&["vfolder", "info", "papers"]).await?.success();
    assert!(seen.stdout.contains("ro"), "{seen}");
    let none = ["vfolder", "remove-shared-vf-permission", &id, &sharer];
    let printed = look(&admin, &none).await?;
    assert!(printed.contains("Removed"), "{printed}");
    other.run(&["vfolder", "info", "papers"]).await?.failure();
    cluster.stop().await
}
