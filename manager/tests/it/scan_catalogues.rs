//! Registries with catalogues of their own: Harbor, Docker Hub, and an engine. Small servers
//! speak their documented interfaces; the images lie in a real registry behind them.

use std::collections::BTreeMap;
use std::sync::Arc;

use backendai_datastore::testing;
use backendai_manager::app::image::scan::{ScanReport, Target, scan};
use backendai_manager::shared_config::{Registry as Configured, RegistryKind};
use backendai_service::config::Secret;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};

use super::support::{Registry, python_labels};

/// Answers a path with its query; `None` is 404.
type Answer = Arc<dyn Fn(&str, &HeaderMap) -> Option<(Value, Option<String>)> + Send + Sync>;

/// A server whose own interface is `answer`, with the content of a registry behind it.
async fn front(registry: &str, answer: Answer) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let registry = registry.to_owned();
    let route = warp::path::full()
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::header::headers_cloned())
        .then(move |path: warp::path::FullPath, query: String, headers: HeaderMap| {
            let (answer, registry) = (Arc::clone(&answer), registry.clone());
            async move {
                let target = match query.is_empty() {
                    true => path.as_str().to_owned(),
                    false => format!("{}?{query}", path.as_str()),
                };
                if let Some((body, link)) = answer(&target, &headers) {
                    let mut response =
                        Response::builder().header("content-type", "application/json");
                    if let Some(link) = link {
                        response = response.header("link", link);
                    }
                    return response.body(body.to_string().into_bytes()).unwrap();
                }
                if !target.starts_with("/v2/") {
                    return not_found();
                }
                let url = format!("http://{registry}{target}");
                let accept = headers.get("accept").unwrap().clone();
                let reply = reqwest::Client::new().get(url).header("accept", accept);
                let reply = reply.send().await.unwrap();
                let kind = reply.headers().get("content-type").cloned();
                let mut response = Response::builder().status(reply.status().as_u16());
                if let Some(kind) = kind {
                    response = response.header("content-type", kind.as_bytes());
                }
                response.body(reply.bytes().await.unwrap().to_vec()).unwrap()
            }
        });
    let mut server = JoinSet::new();
    server.spawn(warp::serve(route).incoming(listener).run());
    (addr, server)
}

fn not_found() -> Response<Vec<u8>> {
    Response::builder().status(StatusCode::NOT_FOUND).body(Vec::new()).unwrap()
}

fn configured(name: &str, url: &str, kind: RegistryKind) -> Configured {
    Configured {
        name: name.to_owned(),
        url: url.to_owned(),
        kind,
        username: Some("robot".to_owned()),
        password: Some(Secret::new("pw")),
        projects: vec![],
        ssl_verify: true,
    }
}

async fn scan_one(registry: Configured) -> (ScanReport, Vec<String>) {
    let database = testing::database().await;
    let registries = BTreeMap::from([(registry.name.clone(), registry)]);
    let report = scan(&database.datastore, &registries, &Target::All, |_| {}).await.unwrap();
    let rows = database.datastore.autocommit().await.unwrap().images().await.unwrap();
    (report, rows.into_iter().map(|row| row.name).collect())
}

async fn content() -> Registry {
    let registry = Registry::start(None).await;
    for (repository, tag) in [("ours/python", "3.11"), ("ours/deep/er", "1"), ("other/x", "1")] {
        registry.push(repository, tag, "amd64", python_labels()).await;
    }
    registry
}

/// The account travels with every question to the interface.
fn is_authorized(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == "Basic cm9ib3Q6cHc=")
}

#[tokio::test]
async fn harbor_2_tells_projects_repositories_and_tagged_artifacts_page_by_page() {
    let registry = content().await;
    let answer: Answer = Arc::new(|target, headers| {
        let api = target.strip_prefix("/api/v2.0/")?;
        assert!(is_authorized(headers), "{target}");
        let link = |path: &str| Some(format!("</api/v2.0/{path}>; rel=\"next\""));
        Some(match api {
            "projects?page_size=30" => (json!([{"name": "ours"}, {"name": "empty"}]), None),
            "projects/ours/repositories?page_size=30" => (
                json!([{"name": "ours/python"}]),
                link("projects/ours/repositories?page_size=30&page=2"),
            ),
            "projects/ours/repositories?page_size=30&page=2" => {
                (json!([{"name": "ours/deep/er"}]), None)
            }
            "projects/empty/repositories?page_size=30" => (Value::Null, None),
            "projects/ours/repositories/python/artifacts?with_tag=true&page_size=30" => {
                (json!([{"digest": "sha256:0", "tags": null}, {"tags": [{"name": "3.11"}]}]), None)
            }
            "projects/ours/repositories/deep%252Fer/artifacts?with_tag=true&page_size=30" => {
                (json!([{"tags": [{"name": "1"}, {"name": "gone"}]}]), None)
            }
            _ => return None,
        })
    });
    let (addr, _server) = front(&registry.addr, answer).await;
    let harbor = configured(&addr, &format!("http://{addr}"), RegistryKind::Harbor2);
    let (report, names) = scan_one(harbor.clone()).await;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(names, [format!("{addr}/ours/deep/er:1"), format!("{addr}/ours/python:3.11")]);

    let (report, names) = scan_one(Configured { projects: vec!["nowhere".into()], ..harbor }).await;
    assert!(report.failed[0].1.contains("project nowhere: not found"), "{report:?}");
    assert!(names.is_empty());
}

#[tokio::test]
async fn harbor_1_tells_the_repositories_of_the_configured_projects() {
    let registry = content().await;
    let answer: Answer = Arc::new(|target, headers| {
        let api = target.strip_prefix("/api/")?;
        assert!(is_authorized(headers), "{target}");
        Some(match api {
            "projects?page_size=30" => (
                json!([{"project_id": 1, "name": "ours"}, {"project_id": 2, "name": "other"}]),
                None,
            ),
            "repositories?project_id=1&page_size=30" => (json!([{"name": "ours/python"}]), None),
            "repositories?project_id=2&page_size=30" => (json!([{"name": "other/x"}]), None),
            _ => return None,
        })
    });
    let (addr, _server) = front(&registry.addr, answer).await;
    let harbor = configured(&addr, &format!("http://{addr}"), RegistryKind::Harbor);
    let (_, names) = scan_one(Configured { projects: vec!["ours".into()], ..harbor.clone() }).await;
    assert_eq!(names, [format!("{addr}/ours/python:3.11")]);
    let (_, names) = scan_one(harbor).await;
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn the_hub_tells_the_repositories_of_an_account() {
    let registry = content().await;
    let answer: Answer = Arc::new(|target, headers| {
        let api = target.strip_prefix("/v2/repositories/ours/")?;
        // A name without a password is no account.
        assert!(headers.get("authorization").is_none());
        let host = headers["host"].to_str().unwrap();
        Some(match api {
            "?page_size=30" => (
                json!({"next": format!("http://{host}/v2/repositories/ours/?page_size=30&page=2"),
                       "results": [{"name": "python"}]}),
                None,
            ),
            "?page_size=30&page=2" => {
                (json!({"next": null, "results": [{"name": "kernel-python"}]}), None)
            }
            _ => return None,
        })
    });
    let (addr, _server) = front(&registry.addr, answer).await;
    let hub = configured("index.docker.io", &format!("http://{addr}"), RegistryKind::Docker);
    let hub = Configured { username: Some("ours".into()), password: None, ..hub };
    let (report, names) = scan_one(hub.clone()).await;
    assert_eq!(names, ["index.docker.io/ours/python:3.11"], "{report:?}");

    let (report, _) = scan_one(Configured { username: None, ..hub }).await;
    assert!(report.failed[0].1.contains("username"), "{report:?}");
}

#[tokio::test]
async fn an_engine_tells_the_images_that_are_made_for_us() {
    let answer: Answer = Arc::new(|target, _| {
        Some(match target {
            "/images/json" => (
                json!([
                    {"RepoTags": ["mine:1", "127.0.0.1:1/a/b:2"], "Labels": python_labels()},
                    {"RepoTags": ["debian:12"], "Labels": null},
                    {"RepoTags": null, "Labels": python_labels()},
                ]),
                None,
            ),
            "/images/mine:1/json" | "/images/127.0.0.1:1/a/b:2/json" => (
                json!({"Id": "sha256:1", "Architecture": "arm64", "Size": 9,
                       "Config": {"Labels": python_labels()}}),
                None,
            ),
            _ => return None,
        })
    });
    let (addr, _server) = front("127.0.0.1:1", answer).await;
    let engine = configured("local", &format!("tcp://{addr}"), RegistryKind::Local);
    let (report, names) = scan_one(engine).await;
    assert_eq!(report.added, 2, "{report:?}");
    assert_eq!(names, ["127.0.0.1:1/a/b:2", "index.docker.io/library/mine:1"]);
}
