//! Dotfiles and bootstrap scripts with the stock client, and in real containers.

use anyhow::Result;
use serde_json::json;

use backendai_tests::TestCluster;

use crate::support::{execute, wait_nothing_left};

#[tokio::test]
async fn dotfiles_lie_in_the_home_folder_of_a_session() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let admin = cluster.client(&cluster.identities.superadmin)?;
    let dir = tempfile::tempdir()?;
    let file = |content: &str| -> Result<String> {
        let path = dir.path().join(content);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };

    let output = client.run(&["dotfile", "list"]).await?.success();
    assert!(output.stdout.contains("There is no dotfiles"), "{output}");
    let theirs = file("theirs")?;
    for path in [".shared", ".mine"] {
        let create = ["dotfile", "create", "-d", "default", "-f", &theirs, path];
        admin.run(&create).await?.success();
    }
    let mine = file("mine")?;
    let create = ["dotfile", "create", "--perm", "600", "-f", &mine, ".mine"];
    let output = client.run(&create).await?.success();
    assert!(output.all().contains("Dotfile .mine created and ready"), "{output}");
    client.run(&["dotfile", "create", "-f", &mine, "a/b/deep"]).await?.success();
    let output = client.run(&["dotfile", "create", "-f", &mine, "/etc/motd"]).await?.failure();
    assert!(output.all().contains("not beneath /home/work"), "{output}");
    let output = client.run(&["dotfile", "list"]).await?.success();
    assert!(output.stdout.contains(".mine") && output.stdout.contains("600"), "{output}");
    let output = client.run(&["dotfile", "get", ".mine"]).await?.success();
    assert_eq!(output.stdout.trim(), "mine");

    let signed = cluster.signed(&cluster.identities.user1);
    let script = json!({"script": "echo booted > /home/work/booted"});
    signed.post("/user-config/bootstrap-script", script).await?.ok();

    client.run(&["session", "create", "-t", "dotted", "python"]).await?.success();
    let code = "import os, stat\n\
        for name in ['.shared', '.mine', 'a/b/deep', 'booted']:\n    \
        at = os.stat(name)\n    \
        own = at.st_uid == os.getuid() == os.stat(os.path.dirname(name) or '.').st_uid\n    \
        print(name, open(name).read().strip(), oct(stat.S_IMODE(at.st_mode)), own)";
    let printed = execute(&signed, "dotted", code).await?;
    assert_eq!(
        printed.lines().take(3).collect::<Vec<_>>(),
        [".shared theirs 0o755 True", ".mine mine 0o600 True", "a/b/deep mine 0o755 True"]
    );
    assert!(printed.contains("booted booted"), "{printed}");

    let other = file("other")?;
    client.run(&["dotfile", "update", "-f", &other, ".mine"]).await?.success();
    let output = client.run(&["dotfile", "get", ".mine"]).await?.success();
    assert_eq!(output.stdout.trim(), "other");
    client.run(&["dotfile", "delete", "-f", ".mine"]).await?.success();
    let output = client.run(&["dotfile", "get", ".mine"]).await?.failure();
    assert!(output.all().contains("No such dotfile"), "{output}");
    client.run(&["session", "rm", "dotted"]).await?.success();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
