//! `bench admin`: lists as administrators ask for them, on a large site.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{Table, presets};
use serde_json::json;

use backendai_tests::TestCluster;
use backendai_tests::progress::{Progress, say};

use super::stats::{ms, quantile};
use super::target::Target;

const SESSIONS: usize = 100_000;
const USERS: usize = 10_000;
const AGENTS: usize = 1_000;
/// Requests of each case. The first few, which fill caches, count as well.
const REQUESTS: usize = 100;

/// A large site: people, agents, and sessions of which one in ten lives.
const POPULATE: &str = "
INSERT INTO users (uuid, username, email, domain_name, resource_policy, created_at)
SELECT gen_random_uuid(), 'u' || n, 'u' || n || '@bench.example', 'default', 'default',
       now() - n * interval '1 minute'
FROM generate_series(1, USERS) n;
INSERT INTO keypairs (access_key, secret_key, \"user\", user_id, resource_policy, created_at)
SELECT 'AKIABENCH' || lpad(substr(username, 2), 11, '0'), 's', uuid, email, 'default', created_at
FROM users WHERE email LIKE '%@bench.example';
UPDATE users u SET main_access_key = k.access_key FROM keypairs k
WHERE k.\"user\" = u.uuid AND u.email LIKE '%@bench.example';
INSERT INTO association_groups_users (user_id, group_id)
SELECT u.uuid, g.id FROM users u JOIN groups g ON g.name = 'default' AND g.domain_name = 'default'
WHERE u.email LIKE '%@bench.example';
INSERT INTO agents (id, region, scaling_group, available_slots, addr, version, architecture)
SELECT 'i-bench' || n, 'local', 'default', '{\"cpu\": \"64\", \"mem\": \"274877906944\"}',
       'tcp://127.0.0.1:1', '1', 'x86_64' FROM generate_series(1, AGENTS) n;
INSERT INTO sessions (id, name, domain_name, group_id, user_uuid, access_key, scaling_group, image,
    architecture, requested_slots, created_at, status, terminated_at)
SELECT gen_random_uuid(), 'bench-' || n, 'default', g.id, u.uuid, u.main_access_key, 'default',
       'index.docker.io/stable/python:3', 'x86_64', '{\"cpu\": \"1\"}',
       now() - n * interval '1 second',
       CASE WHEN n % 10 = 0 THEN 'RUNNING' ELSE 'TERMINATED' END,
       CASE WHEN n % 10 = 0 THEN NULL ELSE now() - n * interval '1 second' END
FROM generate_series(1, SESSIONS) n
JOIN users u ON u.username = 'u' || (n % USERS + 1)
JOIN groups g ON g.name = 'default' AND g.domain_name = 'default';
INSERT INTO kernels (id, session_id, cluster_hostname, image, architecture, registry, agent,
    requested_slots, status, created_at)
SELECT gen_random_uuid(), s.id, 'main1', s.image, s.architecture, 'index.docker.io',
       'i-bench' || (1 + substr(s.name, 7)::int % AGENTS), s.requested_slots, s.status, s.created_at
FROM sessions s WHERE s.name LIKE 'bench-%';
INSERT INTO allocations (kernel_id, slot, amount, agent, access_key, user_uuid, group_id, domain_name)
SELECT k.id, 'cpu', 1, k.agent, s.access_key, s.user_uuid, s.group_id, s.domain_name
FROM kernels k JOIN sessions s ON s.id = k.session_id WHERE s.name LIKE 'bench-%' AND k.status = 'RUNNING';
ANALYZE;";

/// Name, and the query.
const CASES: [(&str, &str); 10] = [
    (
        "sessions, first page",
        "{ compute_session_list(limit: 20, offset: 0) { items { id name status containers { id } occupying_slots } total_count } }",
    ),
    (
        "sessions, live, by name",
        "{ compute_session_list(limit: 20, offset: 0, status: \"RUNNING\", order: \"name\") { items { id name } total_count } }",
    ),
    (
        "sessions, filter by user",
        "{ compute_session_list(limit: 20, offset: 0, filter: \"user_email == \\\"u77@bench.example\\\"\") { items { id name } total_count } }",
    ),
    (
        "sessions, page 4000",
        "{ compute_session_list(limit: 20, offset: 80000) { items { id name } total_count } }",
    ),
    (
        "agents, first page",
        "{ agent_list(limit: 20, offset: 0) { items { id status occupied_slots container_count } total_count } }",
    ),
    (
        "agents, by occupied slots",
        "{ agent_list(limit: 20, offset: 0, order: \"-occupied_slots\") { items { id occupied_slots } total_count } }",
    ),
    (
        "users, first page",
        "{ user_list(limit: 20, offset: 0) { items { uuid email groups { name } } total_count } }",
    ),
    (
        "users, filter and order",
        "{ user_list(limit: 20, offset: 0, filter: \"email like \\\"u9%\\\"\", order: \"-username\") { items { uuid email } total_count } }",
    ),
    (
        "keypairs, first page",
        "{ keypair_list(limit: 20, offset: 0) { items { access_key projects concurrency_used } total_count } }",
    ),
    ("projects", "{ groups { id name } }"),
];

pub async fn run(cluster: &mut TestCluster, ours: &Target) -> Result<()> {
    let progress = Progress::shown();
    let step = progress.step(&format!("{SESSIONS} sessions, {USERS} users, {AGENTS} agents"));
    let database = cluster.database().await?;
    let sql = POPULATE
        .replace("SESSIONS", &SESSIONS.to_string())
        .replace("USERS", &USERS.to_string())
        .replace("AGENTS", &AGENTS.to_string());
    database.batch_execute(&sql).await.context("populate the site")?;
    database.batch_execute("UPDATE keypairs SET rate_limit = 1000000").await?;
    step.done("");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["list", "p50", "p99"]);
    for (name, query) in CASES {
        let mut took: Vec<Duration> = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let started = Instant::now();
            let data = ours.client.gql(query, json!({})).await?;
            took.push(started.elapsed());
            ensure!(!data.is_null(), "{name}: no data");
        }
        table.add_row([name.to_owned(), ms(quantile(&took, 0.5)), ms(quantile(&took, 0.99))]);
    }
    say(&table.to_string());
    let pid = cluster.manager.process.pid().context("the manager has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?");
    say(&format!("peak memory of the manager: {}", peak.trim()));
    Ok(())
}
