//! `etcd …`.

use serde_json::{Value, json};

use super::support::{Site, free_port};

#[tokio::test]
async fn values_are_written_read_and_deleted() {
    let site = Site::start(false).await;
    site.ok(&["etcd", "put", "config/redis/addr", "127.0.0.1:6379"]).await;
    assert_eq!(site.ok(&["etcd", "get", "/config/redis/addr"]).await, "127.0.0.1:6379\n");
    site.ok(&["etcd", "put", "config/empty", ""]).await;
    assert_eq!(site.ok(&["etcd", "get", "config/empty"]).await, "\n");

    let missing = site.fails(&["etcd", "get", "config/redis"], 1).await;
    assert!(missing.contains("config/redis"), "{missing}");
    let deleted = site.ok(&["etcd", "delete", "config/redis/addr"]).await;
    assert_eq!(deleted, "Key 'config/redis/addr' successfully deleted.\n");
    let gone = site.fails(&["etcd", "delete", "config/redis/addr"], 1).await;
    assert!(gone.contains("No key found to delete"), "{gone}");
}

#[tokio::test]
async fn trees_are_written_printed_moved_and_deleted_at_key_boundaries() {
    let site = Site::start(false).await;
    let tree = json!({"registry": {"127.0.0.1:5000": {"": "http://x", "type": "docker"}}, "n": 1});
    let output =
        site.run_with(&["etcd", "put-json", "config/docker", "-"], &tree.to_string()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    site.ok(&["etcd", "put", "config/dockerX", "neighbour"]).await;
    let printed = site.ok(&["etcd", "get", "--prefix", "config/docker"]).await;
    assert!(printed.starts_with("{\n    \""), "{printed}");
    let expected =
        json!({"n": "1", "registry": {"127.0.0.1%3A5000": {"": "http://x", "type": "docker"}}});
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), expected);

    site.ok(&["etcd", "move-subtree", "config/docker", "config/podman"]).await;
    assert_eq!(site.ok(&["etcd", "get", "--prefix", "config/docker"]).await, "{}\n");
    assert_eq!(site.ok(&["etcd", "get", "config/podman/n"]).await, "1\n");
    assert_eq!(site.ok(&["etcd", "get", "config/dockerX"]).await, "neighbour\n");
    site.fails(&["etcd", "move-subtree", "config/docker", "x"], 1).await;
    let within = site.fails(&["etcd", "move-subtree", "config", "config/a"], 1).await;
    assert!(within.contains("within"), "{within}");

    site.ok(&["etcd", "put", "config/podmanX", "neighbour"]).await;
    site.ok(&["etcd", "delete", "--prefix", "config/podman"]).await;
    assert_eq!(site.ok(&["etcd", "get", "--prefix", "config/podman"]).await, "{}\n");
    assert_eq!(site.ok(&["etcd", "get", "config/podmanX"]).await, "neighbour\n");
    site.fails(&["etcd", "delete", "--prefix", ""], 1).await;
}

#[tokio::test]
async fn trees_larger_than_a_transaction_move_whole() {
    let site = Site::start(false).await;
    let tree: serde_json::Map<String, Value> =
        (0..300).map(|n| (format!("k{n:03}"), json!(n.to_string()))).collect();
    let file = site.dir.path().join("tree.json");
    std::fs::write(&file, serde_json::to_vec(&tree).unwrap()).unwrap();
    site.ok(&["etcd", "put-json", "a", file.to_str().unwrap()]).await;
    site.ok(&["etcd", "move-subtree", "a", "b"]).await;
    let moved: Value =
        serde_json::from_str(&site.ok(&["etcd", "get", "--prefix", "b"]).await).unwrap();
    assert_eq!(moved, Value::Object(tree));
    assert_eq!(site.ok(&["etcd", "get", "--prefix", "a"]).await, "{}\n");
}

#[tokio::test]
async fn scopes_need_their_name_and_hide_each_other() {
    let site = Site::start(false).await;
    let unnamed = site.fails(&["etcd", "put", "-s", "SGROUP", "config/x", "1"], 1).await;
    assert!(unnamed.contains("--sgroup"), "{unnamed}");
    let unnamed = site.fails(&["etcd", "get", "-s", "node", "config/x"], 1).await;
    assert!(unnamed.contains("--node"), "{unnamed}");
    let merged = site.fails(&["etcd", "put", "-s", "MERGED", "config/x", "1"], 1).await;
    assert!(merged.contains("reading"), "{merged}");
    site.fails(&["etcd", "get", "-s", "ELSEWHERE", "x"], 2).await;

    site.ok(&["etcd", "put", "config/x", "global"]).await;
    site.ok(&["etcd", "put", "config/y/z", "global"]).await;
    let sgroup = ["-s", "SGROUP", "--sgroup", "gpu"];
    site.ok(&[&["etcd", "put", "config/x", "sgroup"][..], &sgroup].concat()).await;
    let node = ["--scope", "NODE", "--node", "i-a"];
    site.ok(&[&["etcd", "put", "config/y/w", "node"][..], &node].concat()).await;
    assert_eq!(site.ok(&["etcd", "get", "sgroup/gpu/config/x"]).await, "sgroup\n");
    assert_eq!(site.ok(&["etcd", "get", "nodes/agents/i-a/config/y/w"]).await, "node\n");
    assert_eq!(site.ok(&["etcd", "get", "config/x"]).await, "global\n");
    let merged = ["-s", "MERGED", "--sgroup", "gpu", "--node", "i-a"];
    assert_eq!(site.ok(&[&["etcd", "get", "config/x"][..], &merged].concat()).await, "sgroup\n");
    let tree = site.ok(&[&["etcd", "get", "--prefix", "config"][..], &merged].concat()).await;
    let tree: Value = serde_json::from_str(&tree).unwrap();
    assert_eq!(tree, json!({"x": "sgroup", "y": {"w": "node"}}));
}

#[tokio::test]
async fn namespaces_do_not_see_each_other_and_components_are_quoted() {
    let (one, two) = (Site::start(false).await, Site::start(false).await);
    one.ok(&["etcd", "put", "k", "v"]).await;
    two.fails(&["etcd", "get", "k"], 1).await;
    assert_eq!(one.ok(&["etcd", "quote", "r.example:5000/p"]).await, "r.example%3A5000%2Fp\n");
    assert_eq!(one.ok(&["etcd", "unquote", "r.example%3A5000%2Fp"]).await, "r.example:5000/p\n");
}

#[tokio::test]
async fn an_etcd_that_is_away_is_named() {
    let site = Site::start(false).await;
    let addr = format!("127.0.0.1:{}", free_port());
    let config = format!("[etcd]\naddr = {addr:?}\n");
    std::fs::write(site.dir.path().join("manager.toml"), config).unwrap();
    let error = site.fails(&["etcd", "get", "k"], 1).await;
    assert!(error.contains(&addr) && error.contains("etcd.addr"), "{error}");
}
