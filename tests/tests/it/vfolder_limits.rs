//! How much folders hold and may hold, where copies of them lie, and whose they become.

use std::path::Path;

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::wait::wait_until;

use crate::support::LIMIT;
use crate::vfolder_kills::{HOST, World, bytes, names, patch, plant, request_upload, tree};

const MIB: i64 = 1 << 20;

#[tokio::test]
async fn a_folder_holds_what_its_owner_and_the_policy_let_it() -> Result<()> {
    let world = World::start().await?;
    let cluster = &world.cluster;
    let (id, path) = world.folder("files").await?;
    plant(&path, 1, 4)?;
    let used: usize = tree(&path)?.values().map(Vec::len).sum();
    let [other, root] =
        [&cluster.identities.user2, &cluster.identities.superadmin].map(|who| cluster.signed(who));
    let about =
        |bytes: i64| json!({ "folder_host": HOST, "id": id, "input": { "size_bytes": bytes } });
    let query = |what: &str| format!("/folders/_/{what}?folder_host={HOST}&id={id}");

    let reply = world.owner.get(&query("quota")).await?.ok();
    assert_eq!(reply, json!({ "size_bytes": 0, "used_bytes": used }));
    for what in ["usage", "used-bytes"] {
        assert_eq!(world.owner.get(&query(what)).await?.status, 401, "{what}");
        assert_eq!(root.get(&query(what)).await?.ok()["used_bytes"], used, "{what}");
    }
    assert_eq!(root.get(&query("usage")).await?.ok()["file_count"], 4);
    for (method, path, body) in [
        (Method::GET, query("quota"), json!(null)),
        (Method::POST, "/folders/_/quota".to_owned(), about(MIB)),
    ] {
        assert_eq!(other.send(method, &path, body).await?.status, 404);
    }
    let elsewhere = json!({ "folder_host": "x", "id": id, "input": { "size_bytes": 1 } });
    assert_eq!(world.owner.post("/folders/_/quota", elsewhere).await?.status, 404);
    let negative = world.owner.post("/folders/_/quota", about(-1)).await?;
    assert_eq!(negative.status, 400, "{}", negative.body);

    let reply = world.owner.post("/folders/_/quota", about(2 * MIB)).await?.ok();
    assert_eq!(reply, json!({ "size_bytes": 2 * MIB }));
    assert_eq!(world.owner.get("/folders/files").await?.ok()["max_size"], 2);
    let content = bytes(1_500_000);
    let url = request_upload(&world.owner, "a", content.len()).await?;
    // What is promised to one file is not there for another.
    let body = json!({ "path": "b", "size": content.len() });
    let refused = world.owner.post("/folders/files/request-upload", body).await?;
    assert_eq!(refused.status, 412, "{}", refused.body);
    assert_eq!(patch(&world.http, &url, 0, content).await?, 204);

    let sql = cluster.database().await?;
    let policy = format!("UPDATE keypair_resource_policies SET max_vfolder_size = {}", 3 * MIB);
    sql.batch_execute(&policy).await?;
    for (wanted, given) in [(4 * MIB, 3 * MIB), (MIB, MIB), (0, 3 * MIB)] {
        let reply = world.owner.post("/folders/_/quota", about(wanted)).await?.ok();
        assert_eq!(reply["size_bytes"], given);
    }
    let made = world.owner.post("/folders", json!({ "name": "more", "host": HOST })).await?.ok();
    assert_eq!(made["max_size"], 3);
    assert_eq!(root.post("/folders/_/quota", about(9 * MIB)).await?.ok()["size_bytes"], 9 * MIB);
    world.cluster.stop().await
}

#[tokio::test]
async fn a_copy_can_lie_on_another_host() -> Result<()> {
    let world = World::start().await?;
    let (_, path) = world.folder("source").await?;
    plant(&path, 3, 5)?;
    let mount = world.volume.parent().context("the directory of hosts")?;
    std::fs::create_dir(mount.join("second"))?;
    let clone = json!({ "target_name": "copy", "target_host": "second" });
    let refused = world.owner.post("/folders/source/clone", clone.clone()).await?;
    assert_eq!(refused.status, 400, "{}", refused.body);
    let allow = "UPDATE domains SET allowed_vfolder_hosts = \
        allowed_vfolder_hosts || '{\"second\": [\"create-vfolder\", \"modify-vfolder\"]}'";
    world.cluster.database().await?.batch_execute(allow).await?;
    world.owner.post("/folders/source/clone", clone).await?.ok();
    let at = world.wait_ready("copy").await?;
    let id = at.file_name().context("an id")?;
    assert!(tree(&mount.join("second/folders").join(id))? == tree(&path)?);
    assert!(!at.exists());
    world.wait_at_rest().await?;
    world.cluster.stop().await
}

#[tokio::test]
async fn folders_of_a_purged_user_go_or_become_the_purgers() -> Result<()> {
    let world = World::start().await?;
    let cluster = &world.cluster;
    let owner = cluster.signed(&cluster.identities.user2);
    let root = cluster.signed(&cluster.identities.superadmin);
    for (who, name) in [(&owner, "ours"), (&owner, "team"), (&owner, "own"), (&root, "ours")] {
        who.post("/folders", json!({ "name": name, "host": HOST })).await?.ok();
    }
    let folders = world.volume.join("folders");
    assert_eq!(names(&folders)?.len(), 4);
    for name in ["ours", "team"] {
        owner.post(&format!("/folders/{name}/mkdir"), json!({ "path": name })).await?;
        let invite = json!({ "perm": "ro", "emails": [&cluster.identities.user1.email] });
        owner.post(&format!("/folders/{name}/invite"), invite).await?.ok();
    }
    let list = world.owner.get("/folders/invitations/list").await?.ok();
    for invitation in list["invitations"].as_array().context("invitations")? {
        let accept = json!({ "inv_id": invitation["id"] });
        world.owner.post("/folders/invitations/accept", accept).await?.ok();
    }
    let purge = "mutation($email: String!) { purge_user(email: $email, props: {}) { ok msg } }";
    let email = json!({ "email": cluster.identities.user2.email });
    let purged = root.gql(purge, email).await?;
    assert_eq!(purged["purge_user"]["ok"], true, "{purged}");

    let list = root.get("/folders").await?.ok();
    let mut mine: Vec<&str> = list
        .as_array()
        .context("a list")?
        .iter()
        .filter(|folder| folder["is_owner"] == true)
        .filter_map(|folder| folder["name"].as_str())
        .collect();
    mine.sort_unstable();
    assert_eq!(mine.len(), 3, "{mine:?}");
    assert!(mine[0] == "ours" && mine[1].starts_with("ours-") && mine[2] == "team", "{mine:?}");
    // Whoever it was shared with goes on.
    for name in &mine[1..] {
        let files = world.owner.get(&format!("/folders/{name}/files")).await?.ok();
        assert_eq!(files["items"].as_array().map(Vec::len), Some(1), "{name}: {files}");
    }
    wait_until(LIMIT, "the other folder to go", async || Ok(names(&folders)?.len() == 3)).await?;
    world.cluster.stop().await
}

/// Paths that lead elsewhere, wherever a path is taken.
#[tokio::test]
async fn no_path_of_a_request_leads_out_of_its_folder() -> Result<()> {
    let world = World::start().await?;
    let (_, path) = world.folder("files").await?;
    let (other, _) = world.folder("other").await?;
    plant(&path, 1, 1)?;
    let outside = world.volume.join("folders").join(&other);
    std::fs::write(outside.join("secret"), "secret")?;
    std::os::unix::fs::symlink(&outside, path.join("link"))?;
    let long = "x".repeat(4096);
    let encoded = format!("..%2f{other}%2fsecret");
    let bad = [
        format!("../{other}/secret"),
        format!("d0/../../{other}/secret"),
        outside.join("secret").display().to_string(),
        "link/secret".to_owned(),
        "a\0b".to_owned(),
        long,
    ];
    let before = listing(&world.volume.join("folders"))?;
    for bad in &bad {
        let shown: String = bad.chars().take(60).collect();
        for (method, path, body) in [
            (Method::POST, "mkdir", json!({ "path": bad })),
            (Method::POST, "move-file", json!({ "src": bad, "dst": "got" })),
            (Method::POST, "move-file", json!({ "src": "d0", "dst": bad })),
            (Method::POST, "rename-file", json!({ "target_path": bad, "new_name": "got" })),
            (Method::POST, "rename-file", json!({ "target_path": "d0", "new_name": bad })),
            (Method::DELETE, "delete-files", json!({ "files": [bad], "recursive": true })),
            (Method::GET, "files", json!({ "path": bad })),
        ] {
            let reply = world.owner.send(method, &format!("/folders/files/{path}"), body).await?;
            assert_eq!(reply.status, 400, "{path} {shown:?}: {}", reply.body);
        }
        // A path may be wrong at once, or when its token is used.
        let body = json!({ "path": bad, "size": 1 });
        let asked = world.owner.post("/folders/files/request-upload", body).await?;
        if asked.status == 200 {
            let url = request_upload(&world.owner, bad, 1).await?;
            assert_eq!(patch(&world.http, &url, 0, "x").await?, 400, "upload to {shown:?}");
        }
        let body = json!({ "path": bad });
        let asked = world.owner.post("/folders/files/request-download", body).await?;
        if asked.status == 200 {
            let text = |key: &str| asked.body[key].as_str().unwrap_or_default().to_owned();
            let url = format!("{}?token={}", text("url"), text("token"));
            let got = world.http.get(&url).send().await?;
            assert!(got.status().is_client_error(), "{shown:?}: {got:?}");
        }
    }
    // The place that a transfer names itself.
    let inner = request_upload(&world.owner, "secret", 1).await?;
    for directory in ["..", "%2e%2e", "../..", "link", "/etc", "d0/..%2f..", "%00"] {
        let url = format!("{inner}&dst_dir={directory}");
        let status = patch(&world.http, &url, 0, "x").await?;
        assert!((400..500).contains(&status), "{directory}: {status}");
    }
    for name in [format!("..%2f{other}"), format!("files%2f..%2f{other}"), encoded] {
        let reply = world.owner.get(&format!("/folders/{name}/files")).await?;
        assert_eq!(reply.status, 404, "{name}: {}", reply.body);
    }
    assert_eq!(listing(&world.volume.join("folders"))?, before, "something changed");
    world.cluster.stop().await
}

/// Everything beneath, with sizes; links are not followed.
fn listing(directory: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for name in names(directory)? {
        let path = directory.join(&name);
        let metadata = path.symlink_metadata()?;
        found.push((path.display().to_string(), metadata.len()));
        if metadata.is_dir() {
            found.extend(listing(&path)?);
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_host_in_use_is_not_unmounted() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let owner = cluster.signed(&cluster.identities.user1);
    let root = cluster.signed(&cluster.identities.superadmin);
    owner.post("/folders", json!({ "name": "files", "host": HOST })).await?.ok();
    let config = json!({ "resources": { "cpu": "1", "mem": "384m" }, "mounts": ["files"] });
    let body = crate::support::create_body("mounting", "python", json!({ "config": config }));
    owner.post("/session", body).await?.ok();
    let unmount = json!({ "name": HOST });
    let reply = root.send(Method::DELETE, "/folders/_/mounts", unmount).await?;
    assert_eq!((reply.status, reply.problem()), (409, Some("vfolder-host-in-use")));
    owner.delete("/session/mounting").await?.ok();
    crate::support::wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
