//! Setting up a site: schema, fixtures, images, keys.

use serde_json::{Value, json};

use super::support::{Registry, Site, free_port, python_labels};

fn sample(name: &str) -> String {
    format!("{}/../sample-configs/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn a_site_is_set_up_as_the_manual_says() {
    let site = Site::start(false).await;
    let shown = site.ok(&["schema", "show"]).await;
    assert!(shown.starts_with("Current database revision: none"), "{shown}");
    let early = site.fails(&["fixture", "populate", &sample("example-keypairs.json")], 1).await;
    assert!(early.contains("schema oneshot"), "{early}");

    assert!(site.ok(&["schema", "oneshot"]).await.contains("V1__initial"));
    assert_eq!(site.ok(&["schema", "oneshot"]).await, "The schema is up to date.\n");
    let shown: Value =
        serde_json::from_str(&site.ok(&["schema", "show", "--output", "json"]).await).unwrap();
    assert_eq!(shown["current"], shown["head"]);

    for file in ["example-keypairs.json", "example-resource-presets.json"] {
        let populated = site.ok(&["fixture", "populate", &sample(file)]).await;
        assert!(
            populated.contains("Populating fixture") && populated.ends_with("Done\n"),
            "{populated}"
        );
        let again = site.ok(&["fixture", "populate", &sample(file)]).await;
        assert!(again.contains("Some rows were skipped"), "{again}");
    }
    let json = site
        .ok(&["--output", "json", "fixture", "populate", &sample("example-resource-presets.json")])
        .await;
    assert!(json.contains("\"resource_presets\"") && json.contains("\"written\": 0"), "{json}");
    let wrong = site.dir.path().join("wrong.json");
    std::fs::write(&wrong, r#"{"domains": [{"name": "x", "colour": 1}]}"#).unwrap();
    let error = site.fails(&["fixture", "populate", wrong.to_str().unwrap()], 1).await;
    assert!(
        error.contains("wrong.json") && error.contains("domains row 1") && error.contains("colour"),
        "{error}"
    );
    site.fails(&["fixture", "populate", "nowhere.json"], 1).await;
}

#[tokio::test]
async fn images_are_scanned_listed_aliased_limited_and_forgotten() {
    let site = Site::start(true).await;
    let none = site.fails(&["image", "rescan"], 1).await;
    assert!(none.contains("etcd put config/docker/registry"), "{none}");

    let registry = Registry::start(None).await;
    registry.push("stable/python", "3.11", "amd64", python_labels()).await;
    let addr = registry.addr.as_str();
    let key = format!("config/docker/registry/{}", addr.replace(':', "%3A"));
    site.ok(&["etcd", "put", &key, &format!("http://{addr}")]).await;
    let unknown = site.fails(&["image", "rescan", "nowhere:1"], 1).await;
    assert!(unknown.contains("nowhere:1") && unknown.contains(addr), "{unknown}");
    let scanned = site.ok(&["image", "rescan", addr]).await;
    assert_eq!(scanned, "1 images: 1 added, 0 changed, 0 as they were; 0 skipped.\n");
    let again: Value =
        serde_json::from_str(&site.ok(&["--output", "json", "image", "rescan"]).await).unwrap();
    assert_eq!(again["same"], 1);

    let name = format!("{addr}/stable/python:3.11");
    assert_eq!(site.ok(&["image", "list"]).await, format!("{name} (x86_64)\n"));
    let short = site.ok(&["image", "list", "-s"]).await;
    assert!(short.contains("sha256:"), "{short}");
    assert!(!site.ok(&["image", "list", "-i"]).await.contains(&name));

    let aliased = site.ok(&["image", "alias", "python", &name, "x86_64"]).await;
    assert_eq!(aliased, format!("python -> {name} (x86_64)\n"));
    let taken = site.fails(&["image", "alias", "python", &name], 1).await;
    assert!(taken.contains("dealias python"), "{taken}");
    let missing = site.fails(&["image", "alias", "x", "no-such-image:1"], 1).await;
    let expected = "Unknown image references: ref:'index.docker.io/lablup/no-such-image:1', alias:'no-such-image:1'";
    assert!(missing.contains(expected), "{missing}");

    site.ok(&["image", "set-resource-limit", "python", "mem", "512m:2g"]).await;
    site.fails(&["image", "set-resource-limit", "python", "mem", "2g"], 1).await;
    let shown: Value =
        serde_json::from_str(&site.ok(&["image", "inspect", "python"]).await).unwrap();
    assert_eq!(shown["resource_limits"]["mem"], json!({"min": "536870912", "max": "2147483648"}));
    assert_eq!(
        (&shown["canonical_ref"], &shown["reverse_aliases"]),
        (&json!(name), &json!(["python"]))
    );

    site.ok(&["image", "dealias", "python"]).await;
    site.fails(&["image", "dealias", "python"], 1).await;
    site.ok(&["image", "forget", &name]).await;
    site.fails(&["image", "inspect", &name], 1).await;
    assert_eq!(site.ok(&["image", "list"]).await, "");

    let single = site.ok(&["image", "rescan", &name]).await;
    assert!(single.contains("1 added"), "{single}");
    let missing = site.fails(&["image", "rescan", &format!("{addr}/stable/python:9")], 1).await;
    assert!(missing.contains("stable/python:9: not found"), "{missing}");
}

#[tokio::test]
async fn servers_that_are_away_are_named() {
    let site = Site::start(true).await;
    let registry = format!("127.0.0.1:{}", free_port());
    let key = format!("config/docker/registry/{}", registry.replace(':', "%3A"));
    site.ok(&["etcd", "put", &key, &format!("http://{registry}")]).await;
    let away = site.fails(&["image", "rescan", &registry], 1).await;
    assert!(away.contains(&registry) && away.to_lowercase().contains("connect"), "{away}");

    let config = format!("[db]\naddr = \"127.0.0.1:{}\"\nname = \"d\"\n", free_port());
    std::fs::write(site.dir.path().join("manager.toml"), config).unwrap();
    for command in [&["schema", "oneshot"][..], &["schema", "show"], &["image", "list"]] {
        let error = site.fails(command, 1).await;
        assert!(error.contains("database d at 127.0.0.1") && error.contains("db."), "{error}");
    }
}

#[tokio::test]
async fn keys_are_generated() {
    let site = Site::start(false).await;
    let printed = site.ok(&["generate-api-keypair"]).await;
    let lines: Vec<_> = printed.lines().collect();
    assert!(
        lines[0].starts_with("Access Key: AKIA") && lines[0].ends_with("(20 bytes)"),
        "{printed}"
    );
    assert!(lines[1].starts_with("Secret Key: ") && lines[1].ends_with("(40 bytes)"), "{printed}");

    let dir = site.dir.path().join("keys");
    let args = ["generate-rpc-keypair", dir.to_str().unwrap(), "manager"];
    let printed = site.ok(&args).await;
    let pair = backendai_rpc::transport::curve::CurveKeypair::load_certificate(
        dir.join("manager.key_secret"),
    )
    .unwrap();
    assert!(printed.contains(&format!("Public Key: {} (stored at ", pair.public_key)), "{printed}");
    let exists = site.fails(&args, 1).await;
    assert!(exists.contains("exists already"), "{exists}");
}

#[tokio::test]
async fn a_wrong_command_line_is_a_usage_error() {
    let site = Site::start(false).await;
    for args in [&["etcd"][..], &["fixture", "populate"], &["image", "alias", "x"], &["fly"]] {
        site.fails(args, 2).await;
    }
    assert!(site.ok(&["--version"]).await.starts_with("backendai-manager "));
}

/// What a command prints that works and warns that it has another name now.
async fn warned(site: &Site, args: &[&str]) -> String {
    let output = site.run(args).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.starts_with("warning: "), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_seeds_of_older_manuals_work_literally() {
    let site = Site::start(true).await;
    let registry = Registry::start(None).await;
    registry.push("stable/python", "3.11", "amd64", python_labels()).await;
    let key = format!("config/docker/registry/{}", registry.addr.replace(':', "%3A"));
    for (key, value) in [
        ("config/redis/addr", "127.0.0.1:8110"),
        ("config/docker/registry/index.docker.io", "https://registry-1.docker.io"),
        ("config/docker/registry/index.docker.io/username", "lablup"),
        ("volumes/_mount", "/tmp/vfroot"),
        ("volumes/_default_host", "local"),
        ("volumes/_types/user", ""),
        (&key, &format!("http://{}", registry.addr)),
    ] {
        site.ok(&["etcd", "put", key, value]).await;
        assert_eq!(site.ok(&["etcd", "get", key]).await, format!("{value}\n"));
    }
    let scanned = warned(&site, &["etcd", "rescan-images", &registry.addr]).await;
    assert!(scanned.contains("1 added"), "{scanned}");
    let name = format!("{}/stable/python:3.11", registry.addr);
    assert_eq!(warned(&site, &["etcd", "list-images"]).await, format!("{name} (x86_64)\n"));
    warned(&site, &["etcd", "alias", "python", &name, "x86_64"]).await;
    warned(&site, &["etcd", "set-image-resource-limit", "python", "cpu", "1:4", "x86_64"]).await;
    assert!(
        warned(&site, &["etcd", "inspect-image", "python", "x86_64"])
            .await
            .contains("\"max\": \"4\"")
    );
    warned(&site, &["etcd", "dealias", "python"]).await;
    warned(&site, &["etcd", "forget-image", &name, "x86_64"]).await;
    site.ok(&["schema", "oneshot", "--alembic-config", "alembic.ini"]).await;
    warned(&site, &["fixture", "list"]).await;
}

#[tokio::test]
async fn storages_have_scaling_groups_for_sftp() {
    let site = Site::start(false).await;
    let unknown = site.fails(&["etcd", "set-storage-sftp-scaling-group", "nas", "a, b"], 1).await;
    assert!(unknown.contains("volumes/proxies"), "{unknown}");
    site.ok(&["etcd", "put", "volumes/proxies/nas/client_api", "http://127.0.0.1"]).await;
    site.ok(&["etcd", "set-storage-sftp-scaling-group", "nas", "a, b"]).await;
    let key = "volumes/proxies/nas/sftp_scaling_groups";
    assert_eq!(site.ok(&["etcd", "get", key]).await, "a,b\n");
    site.ok(&["etcd", "remove-storage-sftp-scaling-group", "nas"]).await;
    site.fails(&["etcd", "get", key], 1).await;
}

#[tokio::test]
async fn programs_are_told_what_the_api_looks_like() {
    let site = Site::start(false).await;
    let schema = site.ok(&["api", "dump-gql-schema"]).await;
    assert!(schema.contains("type Queries") && schema.contains("rescan_images"), "{schema}");
    assert_eq!(warned(&site, &["gql", "show"]).await, schema);
    let file = site.dir.path().join("spec.json");
    site.ok(&["api", "dump-openapi", "-o", file.to_str().unwrap()]).await;
    let spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(spec["paths"]["/session/{name}"]["delete"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.ok(&["completions", shell]).await.contains("rescan"), "{shell}");
    }
}

#[tokio::test]
async fn old_sessions_are_forgotten_and_servers_are_asked() {
    let site = Site::start(true).await;
    let kept: Value = serde_json::from_str(
        &site.ok(&["--output", "json", "clear-history", "-r", "1mo", "-v", "true"]).await,
    )
    .unwrap();
    assert_eq!((&kept["sessions"], &kept["kernels"]), (&json!(0), &json!(0)));
    site.fails(&["clear-history", "-r", "soon"], 2).await;
    let none = site.fails(&["redis", "ping"], 1).await;
    assert!(none.contains("config/redis/addr"), "{none}");
    let addr = super::support::redis().await;
    site.ok(&["etcd", "put", "config/redis/addr", addr]).await;
    assert_eq!(site.ok(&["redis", "ping"]).await, "Redis is healthy\n");
    let missing = site.fails(&["agent", "ping", "i-none"], 1).await;
    assert!(missing.contains("i-none"), "{missing}");
}
