//! `bench api`.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use comfy_table::{Table, presets};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;

use backendai_tests::ports::Ports;
use backendai_tests::process::{Launch, Lifetime};
use backendai_tests::progress::Progress;
use backendai_tests::wait::wait_until;
use backendai_tests::{Layout, TestCluster};

use super::Options;
use super::stats::ms;
use super::target::Target;
use super::wrk::{self, Load, Request};

const SESSIONS: usize = 100;
const SESSION: &str = "bench-one";
const LIST: &str = "query($limit: Int!, $offset: Int!) { compute_session_list(limit: $limit, \
    offset: $offset) { items { id session_id name type status image created_at } total_count } }";
const CONNECTIONS: [usize; 2] = [1, 16];

struct Case {
    name: &'static str,
    method: Method,
    path: String,
    body: Option<String>,
    signed: bool,
    floor: String,
}

pub async fn run(
    layout: &Layout,
    cluster: &TestCluster,
    ours: &Target,
    original: Option<&Target>,
    options: &Options,
) -> Result<()> {
    for target in std::iter::once(ours).chain(original) {
        prepare(target).await?;
    }
    let mut ports = Ports::default();
    let port = ports.choose(&layout.cache)?;
    let floor_url = format!("http://127.0.0.1:{port}");
    let postgres = cluster.servers.postgres_url(&cluster.plan.database);
    let launch = Launch::new("floor", std::env::current_exe()?, cluster.dir().join("floor.log"))
        .args(["bench", "floor", "--postgres", &postgres, "--port", &port.to_string()]);
    let mut floor = launch.start(Lifetime::Caller)?;
    wait_until(Duration::from_secs(20), "the floor to serve", async || {
        floor.ensure_alive()?;
        Ok(backendai_tests::http().get(&floor_url).send().await?.status().is_success())
    })
    .await?;

    let key = &cluster.identities.superadmin.access_key;
    let list = json!({"query": LIST, "variables": {"limit": SESSIONS, "offset": 0}}).to_string();
    let cases = [
        Case {
            name: "GET /",
            method: Method::GET,
            path: "/".into(),
            body: None,
            signed: false,
            floor: "/".into(),
        },
        Case {
            name: "GET /session/{name} (signed)",
            method: Method::GET,
            path: format!("/session/{SESSION}"),
            body: None,
            signed: true,
            floor: format!("/session/{key}/{SESSION}"),
        },
        Case {
            name: "POST /admin/gql, 100 sessions (signed)",
            method: Method::POST,
            path: "/admin/gql".into(),
            body: Some(list),
            signed: true,
            floor: "/list".into(),
        },
    ];

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "request",
        "connections",
        "ours /s (p50, p99)",
        "original /s (p50, p99)",
        "times the original",
        "bare warp /s (p50, p99)",
        "part of bare warp",
    ]);
    let mut step = Progress::shown().step("measuring");
    for case in &cases {
        check(ours, case).await?;
        for connections in CONNECTIONS {
            step.note(&format!("{} with {connections} connections", case.name));
            let (seconds, runs) = (options.seconds, options.runs);
            let mine = wrk::median(|| request(ours, case), connections, seconds, runs).await?;
            let theirs = match original {
                Some(target) => {
                    check(target, case).await?;
                    let sign = || request(target, case);
                    Some(wrk::median(sign, connections, seconds, runs).await?)
                }
                None => None,
            };
            let bare = Request {
                method: "GET".into(),
                url: format!("{floor_url}{}", case.floor),
                headers: HeaderMap::new(),
                body: None,
            };
            let bare = wrk::median(|| bare.clone(), connections, seconds, runs).await?;
            table.add_row([
                case.name.to_owned(),
                connections.to_string(),
                show(&mine),
                theirs.as_ref().map_or("-".to_owned(), show),
                theirs.map_or("-".to_owned(), |t| format!("{:.0}", mine.per_second / t.per_second)),
                show(&bare),
                format!("{:.0} %", 100.0 * mine.per_second / bare.per_second),
            ]);
        }
    }
    step.done("");
    floor.kill_now();
    println!("{table}");
    Ok(())
}

/// One running session, and a hundred in all.
async fn prepare(target: &Target) -> Result<()> {
    let mut step = Progress::shown().step("sessions to list");
    target.create(SESSION, json!({"reuseIfExists": true})).await?;
    for number in target.count().await?..SESSIONS {
        step.note(&number.to_string());
        let name = format!("bench-{:08x}", rand::random::<u32>());
        // More than any agent has, so that it waits until it is cancelled.
        let config = json!({"resources": {"cpu": "1", "mem": "900g"}});
        target.create(&name, json!({"enqueueOnly": true, "config": config})).await?;
        target.destroy(&name).await?;
    }
    step.done(target.client.endpoint());
    Ok(())
}

/// A benchmark of error answers would be fast and worthless.
async fn check(target: &Target, case: &Case) -> Result<()> {
    let body = match &case.body {
        Some(body) => serde_json::from_str(body)?,
        None => serde_json::Value::Null,
    };
    let reply = target.client.send(case.method.clone(), &case.path, body).await?;
    anyhow::ensure!(reply.status == 200, "{} is answered {reply:?}", case.name);
    if case.path == "/admin/gql" {
        let data = reply.body.get("data").unwrap_or(&reply.body);
        let items = data["compute_session_list"]["items"].as_array();
        let count = items.context("a list of sessions")?.len();
        anyhow::ensure!(count == SESSIONS, "the list has {count} sessions");
    }
    Ok(())
}

fn request(target: &Target, case: &Case) -> Request {
    let content_type = if case.body.is_some() { "application/json" } else { "text/plain" };
    let headers = if case.signed {
        target.client.sign(&case.method, &case.path, content_type, Utc::now())
    } else {
        HeaderMap::new()
    };
    Request {
        method: case.method.to_string(),
        url: format!("{}{}", target.client.endpoint(), case.path),
        headers,
        body: case.body.clone(),
    }
}

fn show(load: &Load) -> String {
    let errors = if load.errors > 0 { format!(", {} errors", load.errors) } else { String::new() };
    format!("{:.0} ({}, {}{errors})", load.per_second, ms(load.p50), ms(load.p99))
}
