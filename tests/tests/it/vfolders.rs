//! Virtual folders with the stock client, and as sessions see them.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use backendai_tests::TestCluster;
use backendai_tests::client::StockClient;

use crate::support::{execute, wait_nothing_left};

const HOST: &str = "local:volume1";

fn write(client: &StockClient, name: &str, content: &[u8]) -> Result<()> {
    let path = client.home().join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    Ok(std::fs::write(path, content)?)
}

#[tokio::test]
async fn a_folder_and_its_files_live_and_go() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let run = async |args: &[&str]| -> Result<_> {
        let all: Vec<&str> = ["vfolder"].iter().chain(args).copied().collect();
        client.run(&all).await
    };

    let output = run(&["list-hosts"]).await?.success();
    assert!(output.stdout.contains(HOST), "{output}");
    let output = run(&["list-allowed-types"]).await?.success();
    assert!(output.stdout.contains("user") && output.stdout.contains("group"), "{output}");
    let output = run(&["create", "data", HOST]).await?.success();
    assert!(output.stdout.contains("Virtual folder \"data\" is created."), "{output}");
    let output = run(&["create", "data", HOST]).await?.failure();
    assert!(output.all().contains("already exists with the same name"), "{output}");
    let output = run(&["create", ".ssh", HOST]).await?.failure();
    assert!(output.all().contains("reserved for internal operations"), "{output}");
    let output = run(&["create", "other", "nowhere"]).await?.failure();
    assert!(output.all().contains("Not allowed in vfolder host"), "{output}");

    let big: Vec<u8> = (0..5_000_000u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
    write(&client, "one.txt", b"one\n")?;
    write(&client, "empty", b"")?;
    write(&client, "big", &big)?;
    run(&["upload", "data", "one.txt", "empty"]).await?.success();
    run(&["upload", "--chunk-size", "1m", "data", "big"]).await?.success();
    let output = run(&["ls", "data"]).await?.success();
    for name in ["one.txt", "empty", "big"] {
        assert!(output.stdout.contains(name), "{output}");
    }
    run(&["mkdir", "data", "sub"]).await?.success();
    let output = run(&["mkdir", "data", "sub"]).await?.failure();
    assert!(output.all().contains("File exists"), "{output}");
    run(&["mkdir", "-p", "data", "deep/er/still"]).await?.success();
    run(&["rename-file", "data", "one.txt", "two.txt"]).await?.success();
    run(&["mv", "data", "two.txt", "sub/two.txt"]).await?.success();
    let output = run(&["ls", "data", "sub"]).await?.success();
    assert!(output.stdout.contains("two.txt"), "{output}");
    std::fs::remove_file(client.home().join("big"))?;
    std::fs::create_dir(client.home().join("sub"))?;
    run(&["download", "data", "big", "sub/two.txt"]).await?.success();
    assert!(std::fs::read(client.home().join("big"))? == big, "the file came back different");
    assert_eq!(std::fs::read(client.home().join("sub/two.txt"))?, b"one\n");

    let output = run(&["info", "data"]).await?.success();
    assert!(output.stdout.contains("Number of files: 3"), "{output}");
    let output = run(&["list"]).await?.success();
    assert!(output.stdout.contains("data") && output.stdout.contains("ready"), "{output}");
    let rm = ["vfolder", "rm", "-r", "data", "sub"];
    let limit = std::time::Duration::from_secs(120);
    client.run_with(&rm, "y\n", limit).await?.success();
    let output = run(&["ls", "data"]).await?.success();
    assert!(!output.stdout.contains("sub"), "{output}");
    run(&["rename", "data", "renamed"]).await?.success();
    run(&["update-options", "--set-cloneable", "true", "renamed"]).await?.success();
    run(&["delete", "renamed"]).await?.success();
    let output = run(&["info", "renamed"]).await?.failure();
    assert!(output.all().contains("No such virtual folder"), "{output}");

    let signed = cluster.signed(&cluster.identities.user1);
    let trash = signed.get("/folders/_/trash").await?.ok();
    let id = trash[0]["id"].clone();
    let restore = json!({ "vfolder_id": id });
    let reply = signed.post("/folders/restore-from-trash-bin", restore.clone()).await?;
    assert_eq!(reply.status, 204, "{}", reply.body);
    run(&["info", "renamed"]).await?.success();
    run(&["delete", "renamed"]).await?.success();
    let reply = signed.post("/folders/delete-from-trash-bin", restore).await?;
    assert_eq!(reply.status, 204, "{}", reply.body);
    cluster.stop().await
}

#[tokio::test]
async fn folders_of_others_are_as_absent_as_those_that_do_not_exist() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let owner = cluster.signed(&cluster.identities.user1);
    let other = cluster.signed(&cluster.identities.user2);
    owner.post("/folders", json!({ "name": "mine", "host": HOST })).await?.ok();
    for (method, path, body) in [
        ("GET", "", Value::Null),
        ("DELETE", "", Value::Null),
        ("GET", "/files", json!({ "path": "." })),
        ("POST", "/mkdir", json!({ "path": "x" })),
        ("POST", "/rename", json!({ "new_name": "x" })),
        ("POST", "/update-options", json!({ "cloneable": true })),
        ("POST", "/request-upload", json!({ "path": "x", "size": 1 })),
        ("POST", "/request-download", json!({ "path": "x" })),
        ("POST", "/move-file", json!({ "src": "x", "dst": "y" })),
        ("POST", "/rename-file", json!({ "target_path": "x", "new_name": "y" })),
        ("DELETE", "/delete-files", json!({ "files": ["x"] })),
        ("POST", "/invite", json!({ "perm": "rw", "emails": ["admin@lablup.com"] })),
        ("POST", "/leave", json!({})),
        ("POST", "/clone", json!({ "target_name": "x", "target_host": HOST })),
    ] {
        let method: reqwest::Method = method.parse()?;
        let ask = async |name: &str| {
            let path = format!("/folders/{name}{path}");
            other.send(method.clone(), &path, body.clone()).await
        };
        let (theirs, absent) = (ask("mine").await?, ask("none").await?);
        assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.body);
        let shown = |body: &Value| body.to_string().replace("mine", "none");
        assert_eq!(shown(&theirs.body), shown(&absent.body), "{method} {path}");
    }
    owner.get("/folders/mine").await?.ok();
    cluster.stop().await
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut_also_by_the_managers_death() -> Result<()> {
    let mut cluster = TestCluster::builder().agents(0).start().await?;
    let owner = cluster.signed(&cluster.identities.user1);
    owner.post("/folders", json!({ "name": "mine", "host": HOST })).await?.ok();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
    let body = json!({ "path": "a/b.bin", "size": content.len() });
    let reply = owner.post("/folders/mine/request-upload", body).await?.ok();
    let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    let url = format!("{}?token={}", text("url"), text("token"));
    let http = reqwest::Client::builder().no_proxy().build()?;
    let patch = async |offset: usize, bytes: &[u8]| -> Result<reqwest::Response> {
        let request = http.patch(&url).header("Tus-Resumable", "1.0.0");
        let request = request.header("Upload-Offset", offset.to_string());
        Ok(request.body(bytes.to_vec()).send().await?)
    };
    let offset = async || -> Result<usize> {
        let answer = http.head(&url).send().await?;
        assert_eq!(answer.status(), 200);
        Ok(answer.headers()["upload-offset"].to_str()?.parse()?)
    };
    assert_eq!(offset().await?, 0);
    let mut at = 0;
    for end in [1, 65_536, 1_000_001, 2_500_000] {
        let answer = patch(at, &content[at..end]).await?;
        assert_eq!(answer.status(), 204);
        at = end;
        cluster.manager.process.kill().await?;
        cluster.manager.start().await?;
        assert_eq!(offset().await?, at, "no acknowledged byte is lost");
        let listed = owner.get("/folders/mine/files").await?.ok();
        assert_eq!(listed["items"], json!([]), "no half file is shown");
        let answer = patch(at + 1, &content[at..]).await?;
        assert_eq!(answer.status(), 409);
    }
    let answer = patch(at, &content[at..]).await?;
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["upload-offset"].to_str()?, content.len().to_string());
    assert_eq!(offset().await?, content.len());

    let reply = owner.post("/folders/mine/request-download", json!({ "path": "a/b.bin" })).await?;
    let reply = reply.ok();
    let text = |key: &str| reply[key].as_str().unwrap_or_default().to_owned();
    let url = format!("{}?token={}", text("url"), text("token"));
    let answer = http.get(&url).send().await?;
    let modified = answer.headers()["last-modified"].clone();
    assert!(answer.bytes().await? == content, "the file came back different");
    let part = http.get(&url).header("Range", "bytes=1000-").header("If-Range", modified);
    let answer = part.send().await?;
    assert_eq!(answer.status(), 206);
    assert!(answer.bytes().await? == content[1000..], "the part came back different");
    let bad = http.get(url.replace("token=", "token=x")).send().await?;
    assert_eq!(bad.status(), 400);
    cluster.stop().await
}

#[tokio::test]
async fn folders_are_shared_by_invitation_and_left() -> Result<()> {
    let cluster = TestCluster::builder().agents(0).start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let guest = cluster.client(&cluster.identities.user2)?;
    let email = cluster.identities.user2.email.clone();
    client.run(&["vfolder", "create", "ours", HOST]).await?.success();
    let output = client.run(&["vfolder", "invite", "-p", "ro", "ours", &email]).await?.success();
    assert!(output.stdout.contains(&email), "{output}");
    let signed = cluster.signed(&cluster.identities.user2);
    let list = signed.get("/folders/invitations/list").await?.ok();
    let id = list["invitations"][0]["id"].clone();
    let stranger = cluster.signed(&cluster.identities.domain_admin);
    let accept = json!({ "inv_id": id });
    let reply = stranger.post("/folders/invitations/accept", accept.clone()).await?;
    assert_eq!(reply.status, 404, "{}", reply.body);
    signed.post("/folders/invitations/accept", accept).await?.ok();
    let output = guest.run(&["vfolder", "list-invited"]).await?.success();
    assert!(output.stdout.contains("ours"), "{output}");
    guest.run(&["vfolder", "ls", "ours"]).await?.success();
    guest.run(&["vfolder", "mkdir", "ours", "x"]).await?.failure();
    let output = guest.run(&["vfolder", "delete", "ours"]).await?.failure();
    assert!(output.all().contains("not owned by myself"), "{output}");
    guest.run(&["vfolder", "leave", "ours"]).await?.success();
    // The client exits with 0 all the same.
    let left = guest.run(&["vfolder", "ls", "ours"]).await?;
    assert!(left.all().contains("No such virtual folder"), "{left}");

    let admin = cluster.client(&cluster.identities.domain_admin)?;
    admin.run(&["vfolder", "create", "-g", "default", "team", HOST]).await?.success();
    guest.run(&["vfolder", "mkdir", "team", "x"]).await?.success();
    admin.run(&["vfolder", "share", "-p", "ro", "team", &email]).await?.success();
    guest.run(&["vfolder", "mkdir", "team", "y"]).await?.failure();
    admin.run(&["vfolder", "unshare", "team", &email]).await?.success();
    guest.run(&["vfolder", "mkdir", "team", "y"]).await?.success();
    let output = guest.run(&["vfolder", "list-project"]).await?.success();
    assert!(output.stdout.contains("team"), "{output}");

    write(&client, "file", b"content")?;
    client.run(&["vfolder", "upload", "ours", "file"]).await?.success();
    // The client looks at the folder first, and exits with 0.
    let output = client.run(&["vfolder", "clone", "ours", "copy", HOST]).await?;
    assert!(output.all().contains("Clone is not allowed"), "{output}");
    let options = ["vfolder", "update-options", "--set-cloneable", "true", "ours"];
    client.run(&options).await?.success();
    // Its progress bar fails when the copy is there before the bar.
    let output = client.run(&["vfolder", "clone", "ours", "copy", HOST]).await?;
    assert!(output.all().contains("Cloning the vfolder is complete"), "{output}");
    let output = client.run(&["vfolder", "ls", "copy"]).await?.success();
    assert!(output.stdout.contains("file"), "{output}");
    cluster.stop().await
}

#[tokio::test]
async fn sessions_see_the_folders_that_they_mount() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.client(&cluster.identities.user1)?;
    let signed = cluster.signed(&cluster.identities.user1);
    for name in ["data", "fixed", ".private"] {
        client.run(&["vfolder", "create", name, HOST]).await?.success();
    }
    client.run(&["vfolder", "update-options", "-p", "ro", "fixed"]).await?.success();
    write(&client, "seen.txt", b"from outside")?;
    client.run(&["vfolder", "upload", "data", "seen.txt"]).await?.success();
    client.run(&["vfolder", "mkdir", "data", "part"]).await?.success();
    let create = ["session", "create", "-t", "mounting", "-v", "data", "-v", "fixed", "python"];
    client.run(&create).await?.success();
    let code = "import os\n\
        print(open('data/seen.txt').read(), sorted(os.listdir('data')))\n\
        open('data/made.txt', 'w').write('from inside')\n\
        open('.private/secret', 'w').write('s')\n\
        try:\n    open('fixed/x', 'w')\nexcept OSError as error:\n    print(error.errno)";
    let printed = execute(&signed, "mounting", code).await?;
    assert!(printed.contains("from outside ['part', 'seen.txt']"), "{printed}");
    assert!(printed.contains("30"), "a read-only file system: {printed}");
    client.run(&["vfolder", "download", "data", "made.txt"]).await?.success();
    assert_eq!(std::fs::read(client.home().join("made.txt"))?, b"from inside");
    let output = client.run(&["vfolder", "delete", "data"]).await?.failure();
    assert!(output.all().contains("mounting"), "{output}");
    client.run(&["vfolder", "rename", "data", "moved"]).await?.success();
    let printed = execute(&signed, "mounting", "print(open('data/made.txt').read())").await?;
    assert!(printed.contains("from inside"), "{printed}");
    client.run(&["session", "rm", "mounting"]).await?.success();
    wait_nothing_left(&cluster).await?;
    client.run(&["vfolder", "delete", "moved"]).await?.success();
    for bad in ["fixed/../..", "fixed/none", "nothing", "fixed//etc"] {
        let create = ["session", "create", "-t", "refused", "-v", bad, "python"];
        client.run(&create).await?.failure();
    }
    cluster.stop().await
}
