//! Scanning registries: real ones, and one with a token service and odd content.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use backendai_datastore::testing;
use backendai_manager::app::image::scan::{ScanReport, Step, Target, scan};
use backendai_manager::shared_config::{Registry as Configured, RegistryKind};
use backendai_service::config::Secret;
use serde_json::json;
use sha2::{Digest, Sha256};
use warp::Filter;

use super::support::{Registry, python_labels};

fn configured(addr: &str, account: Option<(&str, &str)>) -> BTreeMap<String, Configured> {
    let registry = Configured {
        name: addr.to_owned(),
        url: format!("http://{addr}"),
        kind: RegistryKind::Docker,
        username: account.map(|(user, _)| user.to_owned()),
        password: account.map(|(_, password)| Secret::new(password)),
        projects: vec![],
        ssl_verify: true,
    };
    BTreeMap::from([(addr.to_owned(), registry)])
}

async fn scan_all(
    database: &testing::TestDatabase,
    registries: &BTreeMap<String, Configured>,
) -> (ScanReport, Vec<Step>) {
    let mut steps = Vec::new();
    let report = scan(&database.datastore, registries, &Target::All, |step| steps.push(step)).await;
    (report.unwrap(), steps)
}

#[tokio::test]
async fn single_images_indexes_and_plain_images_are_recorded_and_bad_ones_told() {
    let registry = Registry::start(None).await;
    // More tags and repositories than fit on a page.
    for n in 0..12 {
        registry.push("many/tags", &format!("1.{n}"), "amd64", python_labels()).await;
    }
    for n in 0..31 {
        registry.push(&format!("r{n}/x"), "1", "amd64", json!(null)).await;
    }
    registry.push("bad/spec", "1", "amd64", json!({"ai.backend.kernelspec": "9"})).await;
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let mut manifest = registry.push("multi/arch", "", architecture, python_labels()).await;
        manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
        manifests.push(manifest);
    }
    let mut attestation = registry.push("multi/arch", "", "unknown", json!({"a": "b"})).await;
    attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    manifests.push(attestation);
    registry.push_index("multi/arch", "2.0", manifests).await;

    let database = testing::database().await;
    let registries = configured(&registry.addr, None);
    let (report, steps) = scan_all(&database, &registries).await;
    assert_eq!((report.added, report.failed.len()), (12 + 31 + 2, 0), "{report:?}");
    let (name, reason) = &report.skipped[0];
    assert!(name == "bad/spec:1/x86_64" && reason.contains("kernelspec"), "{report:?}");
    let last = steps.last().unwrap();
    assert_eq!((last.done, last.total, steps.len()), (46, 46, 46));
    assert!(steps.iter().any(|s| s.message.starts_with("Updated multi/arch:2.0/aarch64 (sha256:")));

    let tx = database.datastore.autocommit().await.unwrap();
    let rows = tx.images_named(&format!("{}/multi/arch:2.0", registry.addr)).await.unwrap();
    assert_eq!(
        rows.iter().map(|r| r.architecture.as_str()).collect::<Vec<_>>(),
        ["aarch64", "x86_64"]
    );
    let (again, _) = scan_all(&database, &registries).await;
    assert_eq!((again.added, again.changed, again.same), (0, 0, 45));
}

#[tokio::test]
async fn an_account_is_used_and_asked_for() {
    let registry = Registry::start(Some(("robot", "pa:ss"))).await;
    registry.push("stable/python", "3.11", "amd64", python_labels()).await;
    let database = testing::database().await;
    for (account, hint) in [(None, "give it an account"), (Some(("robot", "wrong")), "check")] {
        let (report, _) = scan_all(&database, &configured(&registry.addr, account)).await;
        assert_eq!(report.failed.len(), 1);
        assert!(report.failed[0].1.contains(hint), "{report:?}");
    }
    let (report, _) =
        scan_all(&database, &configured(&registry.addr, Some(("robot", "pa:ss")))).await;
    assert_eq!((report.added, report.failed.len()), (1, 0), "{report:?}");
}

#[tokio::test]
async fn tokens_are_fetched_by_scope_and_renewed_and_odd_tags_are_skipped() {
    static TOKENS: AtomicUsize = AtomicUsize::new(0);
    let config = br#"{"architecture": "amd64", "config": {}}"#;
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(config)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();

    let reply = |status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>| {
        let mut reply = warp::http::Response::builder().status(status);
        for (name, value) in headers {
            reply = reply.header(name, value);
        }
        reply.body(body).unwrap()
    };
    let challenge =
        format!(r#"Bearer realm="http://{addr}/token",service="the registry",scope="x""#);
    let single = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
    let manifest = json!({"config": {"digest": digest, "size": 5}, "layers": []});
    let forged = json!({"config": {"digest": format!("sha256:{}", "0".repeat(64)), "size": 5}});
    let served = warp::path::full()
        .and(warp::header::optional::<String>("authorization"))
        .and(warp::query::<BTreeMap<String, String>>())
        .map(
            move |path: warp::path::FullPath,
                  auth: Option<String>,
                  query: BTreeMap<String, String>| {
                if path.as_str() == "/token" {
                    assert_eq!(query["service"], "the registry");
                    let number = TOKENS.fetch_add(1, Ordering::SeqCst);
                    let token = json!({"access_token": format!("{}#{number}", query["scope"])});
                    return reply(200, vec![], token.to_string().into_bytes());
                }
                let allowed =
                    auth.as_deref().and_then(|a| a.strip_prefix("Bearer ")).is_some_and(|token| {
                        // The first token for the repository has run out already.
                        let scope = token.split('#').next().unwrap_or_default();
                        token != "repository:odd/tags:pull#1"
                            && ["registry:catalog:*", "repository:odd/tags:pull"].contains(&scope)
                    });
                if !allowed {
                    return reply(401, vec![("WWW-Authenticate", challenge.clone())], vec![]);
                }
                let json_reply = |kind: &str, body: serde_json::Value| {
                    reply(
                        200,
                        vec![("Content-Type", kind.to_owned())],
                        body.to_string().into_bytes(),
                    )
                };
                match path.as_str() {
                    "/v2/_catalog" => {
                        json_reply("application/json", json!({"repositories": ["odd/tags"]}))
                    }
                    "/v2/odd/tags/tags/list" => {
                        let tags = ["good", "forged", "ancient", "garbled", "gone", "-bad"];
                        json_reply("application/json", json!({"tags": tags}))
                    }
                    "/v2/odd/tags/manifests/good" | "/v2/odd/tags/manifests/-bad" => {
                        json_reply(&single, manifest.clone())
                    }
                    "/v2/odd/tags/manifests/forged" => json_reply(&single, forged.clone()),
                    "/v2/odd/tags/manifests/ancient" => json_reply(
                        "application/vnd.docker.distribution.manifest.v1+prettyjws",
                        json!({}),
                    ),
                    "/v2/odd/tags/manifests/garbled" => json_reply(&single, json!({"config": 1})),
                    path if path.starts_with("/v2/odd/tags/blobs/") => {
                        reply(200, vec![], config.to_vec())
                    }
                    _ => reply(404, vec![], vec![]),
                }
            },
        );
    let server = warp::serve(served).incoming(listener).run();
    let database = testing::database().await;
    let registries = configured(&addr, None);
    let scanning = scan_all(&database, &registries);
    let (report, _) = tokio::select! {
        result = scanning => result,
        () = server => panic!("the server ended"),
    };
    assert_eq!((report.added, report.failed.len()), (1, 0), "{report:?}");
    for (tag, why) in [
        ("forged", "another digest"),
        ("ancient", "manifest.v1"),
        ("garbled", "malformed manifest"),
        ("-bad", "not a valid image name"),
    ] {
        let skipped = report.skipped.iter().find(|(name, _)| name.contains(&format!(":{tag}/")));
        assert!(skipped.is_some_and(|(_, reason)| reason.contains(why)), "{tag}: {report:?}");
    }
    assert_eq!(report.skipped.len(), 4, "{report:?}");
}

#[tokio::test]
async fn names_and_aliases_find_images_of_allowed_registries() {
    use backendai_manager::app::image::{manage, resolve::find};
    let registry = Registry::start(None).await;
    registry.push("stable/python", "3.11", "amd64", python_labels()).await;
    let database = testing::database().await;
    let (datastore, addr) = (&database.datastore, registry.addr.as_str());
    scan_all(&database, &configured(addr, None)).await;
    let known = [addr.to_owned()];
    let name = format!("{addr}/stable/python:3.11");
    let row = find(datastore, &known, &name, "x86_64", |_| true).await.unwrap();
    assert_eq!(
        (row.name.as_str(), row.minimum(&"mem".into()).to_string()),
        (name.as_str(), "268435456".into())
    );
    manage::alias(datastore, "python", &row).await.unwrap();
    // The only architecture there is serves every request.
    for (reference, architecture) in [("python", "amd64"), ("python", "aarch64"), (&name, "arm64")]
    {
        let found = find(datastore, &known, reference, architecture, |r| r == addr).await.unwrap();
        assert_eq!(found.id, row.id);
    }
    for (reference, is_allowed) in
        [("python", false), (name.as_str(), false), ("pyth", true), ("a b", true)]
    {
        let error = find(datastore, &known, reference, "x86_64", |_| is_allowed).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("alias:'{reference}'")), "{text}");
    }
}
