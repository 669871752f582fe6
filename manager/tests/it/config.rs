//! The configuration file and its reference.

use backendai_manager::config::{IGNORED, ManagerConfig, SCHEMA, load};
use backendai_service::config::reference::reference;

use super::support::Site;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config/manager.toml");
const SOURCES: [&str; 2] =
    [include_str!("../../src/config.rs"), include_str!("../../../common/service/src/metrics.rs")];
const HEAD: &str = "\
# manager.toml: every key with its default. Made from manager/src/config.rs; when that changes,
#     UPDATE_REFERENCE=1 cargo test -p backendai-manager the_reference
#
# Looked for as ./manager.toml, ~/.config/backend.ai/manager.toml, /etc/backend.ai/manager.toml,
# or where --config or $BACKEND_CONFIG_FILE says; manager.d/*.toml beside it add to it.
# BACKENDAI_MANAGER__DB__POOL_SIZE=4 sets db.pool-size, and so for every key.

";

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let defaults = toml::Table::try_from(ManagerConfig::default()).unwrap();
    let expected =
        format!("{HEAD}{}", reference(&SOURCES.concat(), "ManagerConfig", &defaults).unwrap());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(REFERENCE, &expected).unwrap();
    }
    let actual = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        actual == expected,
        "{REFERENCE} is not up to date: \
         UPDATE_REFERENCE=1 cargo test -p backendai-manager the_reference"
    );
    let loaded = load(Some(REFERENCE.as_ref())).unwrap();
    assert!(loaded.ignored.is_empty());
    let value = |config: &ManagerConfig| serde_json::to_value(config).unwrap();
    assert_eq!(value(&loaded.value), value(&ManagerConfig::default()));
}

#[test]
fn no_key_is_both_known_and_ignored() {
    let defaults = toml::Value::try_from(ManagerConfig::default()).unwrap();
    for key in IGNORED {
        let known = key.split('.').try_fold(&defaults, |value, part| value.get(part));
        assert!(known.is_none(), "{key}");
    }
    assert_eq!(SCHEMA.name, "manager");
}

#[tokio::test]
async fn check_tells_file_line_and_key() {
    let site = Site::start(false).await;
    let file = site.dir.path().join("x.toml");
    let path = file.to_str().unwrap();
    for (text, code, why) in [
        ("[db]\naddr = \"a:1\"\nadress = 1\n", 78, "x.toml:3:1: db.adress"),
        ("[db]\n\npool-size = \"many\"\n", 78, "x.toml:3:1: db.pool-size"),
        ("[db]\npool-size = 0\n", 78, "x.toml:2:1: db.pool-size"),
        ("[manager]\nssl-enabled = true\n", 78, "x.toml:2:1: manager.ssl-enabled"),
        ("[etcd\n", 78, "x.toml:1:"),
        ("[db]\npassword = \"a\"\npassword-file = \"b\"\n", 78, "db.password"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = site.fails(&["config", "check", path], code).await;
        assert!(error.contains(why), "{text}: {error}");
    }
    let missing = site.fails(&["config", "check", "nowhere.toml"], 78).await;
    assert!(missing.contains("nowhere.toml"), "{missing}");

    // A file of the original has sections that mean nothing here.
    std::fs::write(&file, "[db]\ntype = \"postgresql\"\naddr = [\"h\", 1]\n[docker-registry]\nssl-verify = false\n[debug]\nenabled = true\n").unwrap();
    let checked = site.ok(&["config", "check", path]).await;
    assert!(
        checked.contains("docker-registry has no meaning") && checked.ends_with("x.toml: ok\n"),
        "{checked}"
    );
}

#[tokio::test]
async fn show_tells_where_values_come_from_and_no_secret() {
    let site = Site::start(false).await;
    let config = "[db]\npassword = \"hidden-one\"\nname = \"here\"\n";
    std::fs::write(site.dir.path().join("manager.toml"), config).unwrap();
    let shown = site.ok(&["config", "show"]).await;
    let line = shown.lines().find(|line| line.contains("db.name")).unwrap();
    assert!(line.contains("here") && line.contains("manager.toml"), "{line}");
    assert!(!shown.contains("hidden-one"), "{shown}");
    let values: serde_json::Value =
        serde_json::from_str(&site.ok(&["config", "show", "--output", "json"]).await).unwrap();
    assert!(
        values
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["key"] == "db.pool-size" && v["origin"] == "default")
    );
}
