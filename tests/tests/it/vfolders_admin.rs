//! Administration of folders and of the file systems they lie on, with the stock client.

use anyhow::{Context, Result};
use serde_json::json;

use backendai_tests::TestCluster;

use crate::admin_site::watcher;
use crate::support::LIMIT;

const HOST: &str = "local:volume1";

#[tokio::test]
async fn administrators_see_shares_and_change_owners() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let owner = cluster.client(&cluster.identities.user1)?;
    let guest = cluster.client(&cluster.identities.user2)?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    owner.run(&["vfolder", "create", "ours", HOST]).await?.success();
    let email = cluster.identities.user2.email.clone();
    owner.run(&["vfolder", "invite", "-p", "rw", "ours", &email]).await?.success();
    // The first one, and yes.
    let output = guest.run_with(&["vfolder", "invitations"], "1\na\n", LIMIT).await?.success();
    assert!(output.all().contains("ours"), "{output}");
    guest.run(&["vfolder", "mkdir", "ours", "made"]).await?.success();
    let output = owner.run(&["vfolder", "list-own"]).await?.success();
    assert!(output.stdout.contains("ours"), "{output}");

    let signed = cluster.signed(&cluster.identities.superadmin);
    let shares = signed.get("/folders/_/shared").await?.ok();
    let share = &shares["shared"][0];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (folder, user) = (text(&share["vfolder_id"]), text(&share["shared_to"]["uuid"]));
    let run = async |args: &[&str]| {
        let all: Vec<&str> = ["admin", "vfolder"].iter().chain(args).copied().collect();
        admin.run(&all).await
    };
    for (args, shown) in [
        (vec!["list"], "ours"),
        (vec!["list-hosts"], HOST),
        (vec!["list-shared-vfolders"], "ours"),
        (vec!["shared-vfolder-info", &folder], email.as_str()),
    ] {
        let output = run(&args).await?.success();
        assert!(output.stdout.contains(shown), "{args:?}: {output}");
    }
    run(&["update-shared-vf-permission", "-p", "ro", &folder, &user]).await?.success();
    let output = guest.run(&["vfolder", "mkdir", "ours", "x"]).await?;
    assert!(output.all().contains("No such virtual folder"), "{output}");
    run(&["remove-shared-vf-permission", &folder, &user]).await?.success();
    let output = guest.run(&["vfolder", "ls", "ours"]).await?;
    assert!(output.all().contains("No such virtual folder"), "{output}");
    run(&["change-vfolder-ownership", &folder, &email]).await?.success();
    let output = guest.run(&["vfolder", "ls", "ours"]).await?.success();
    assert!(output.stdout.contains("made"), "{output}");
    let output = owner.run(&["vfolder", "ls", "ours"]).await?;
    assert!(output.all().contains("No such virtual folder"), "{output}");

    let output = admin.run(&["admin", "storage", "list"]).await?.success();
    assert!(output.stdout.contains(HOST), "{output}");
    let output = admin.run(&["admin", "storage", "info", HOST]).await?.success();
    assert!(output.stdout.contains("vfs"), "{output}");
    cluster.stop().await
}

#[tokio::test]
async fn file_systems_are_mounted_by_the_watchers_of_agents() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let user = cluster.client(&cluster.identities.user1)?;
    user.run(&["vfolder", "create", "data", HOST]).await?.success();
    let answers = vec![r#"["/mnt/nfs-1"]"#, "", "", "/dev/sda1 / ext4 defaults 0 1"];
    let (port, mut heard) = watcher(answers).await.context("a watcher")?;
    let agent = cluster.agents[0].id();
    let node = format!("nodes/agents/{agent}");
    cluster.manager_cli(&["etcd", "put", &format!("{node}/ip"), "127.0.0.1"]).await?;
    let port = port.to_string();
    cluster.manager_cli(&["etcd", "put", &format!("{node}/watcher_port"), &port]).await?;

    let mount = ["mount-host", "-o", "rw", "10.0.0.1:/export", "nfs-1"];
    let fstab = ["get-fstab-contents", "-a", agent];
    let commands: [(&[&str], &str); 6] = [
        (&["list-mounts"], "/mnt/nfs-1"),
        (&mount, agent),
        (&["umount-host", "nfs-1"], agent),
        (&fstab, "/dev/sda1"),
        (&["get-fstab-contents"], "volumes/_mount"),
        (&["perf-metric", HOST], "has no counts"),
    ];
    for (args, shown) in commands {
        let all: Vec<&str> = ["admin", "vfolder"].iter().chain(args).copied().collect();
        let refused = user.run(&all).await?;
        assert!(refused.all().contains("Unauthorized access"), "{args:?}: {refused}");
        let output = admin.run(&all).await?;
        assert!(output.all().contains(shown), "{args:?}: {output}");
    }
    let heads = heard.join_next().await.context("the watcher")??;
    assert_eq!(
        heads,
        [
            "GET /mounts HTTP/1.1",
            "POST /mounts HTTP/1.1",
            "DELETE /mounts HTTP/1.1",
            "GET /fstab HTTP/1.1"
        ]
    );

    // Nobody listens there any more: the others are told all the same.
    let signed = cluster.signed(&cluster.identities.superadmin);
    let mounts = signed.get("/folders/_/mounts").await?.ok();
    assert_eq!(mounts["agents"][agent]["success"], false, "{mounts}");
    let volumes = mounts["storage-proxy"]["mounts"].as_array().context("volumes")?;
    assert!(volumes.iter().any(|volume| volume[0] == HOST), "{mounts}");
    for bad in ["../etc", "", ".hidden"] {
        let body = json!({ "name": bad, "fs_location": "x" });
        let reply = signed.post("/folders/_/mounts", body).await?;
        assert_eq!(reply.status, 400, "{}", reply.body);
    }
    cluster.stop().await
}
