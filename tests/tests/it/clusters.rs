//! Sessions of several kernels, and sessions that must not reach each other.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use backendai_tests::TestCluster;
use backendai_tests::cluster::docker;
use bollard::query_parameters::KillContainerOptionsBuilder;
use serde_json::{Value, json};

use crate::support::{create_body, execute, wait_nothing_left, wait_status};

/// Each kernel serves its own environment, so that the main one can look at all.
const SERVE_ENVIRONMENT: &str = "mkdir /tmp/served && cd /tmp/served && \
    { env | grep ^BACKENDAI_; hostname | sed s/^/HOSTNAME=/; \
      stat -c KEY_MODE=%a /home/config/ssh/id_cluster; \
      sha256sum < /home/config/ssh/id_cluster.pub | sed s/^/KEY=/; } > environment && \
    { python3 -m http.server 8000 > /dev/null 2>&1 & }";

/// Fetches what a host serves, waiting for it to listen.
const FETCH: &str = "
import time, urllib.request
def fetch(host):
    while True:
        try:
            return urllib.request.urlopen(f'http://{host}:8000/environment').read().decode()
        except OSError:
            time.sleep(0.05)
for host in ['main1', 'sub1', 'sub2']:
    print(f'HOST={host}')
    print(fetch(host))
";

fn cluster_body(name: &str, size: u32, extra: Value) -> Value {
    let mut body = create_body(name, "python", json!({"clusterSize": size}));
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn kernels_of_a_cluster_know_and_reach_each_other() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let body = cluster_body("trio", 3, json!({"bootstrap_script": SERVE_ENVIRONMENT}));
    let created = client.post("/session", body).await?.ok();
    assert_eq!(created["status"], "RUNNING", "{created}");
    let id = created["sessionId"].as_str().context("a session id")?.to_owned();

    let printed = execute(&client, "trio", FETCH).await?;
    let mut seen: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut host = String::new();
    for (name, value) in printed.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "HOST" => host = value.to_owned(),
            _ => drop(seen.entry(host.clone()).or_default().insert(name.into(), value.into())),
        }
    }
    let ranks = [("main1", "main", "1", "0"), ("sub1", "sub", "1", "1"), ("sub2", "sub", "2", "2")];
    for (host, role, index, rank) in ranks {
        let found = &seen[host];
        for (name, value) in [
            ("HOSTNAME", host),
            ("BACKENDAI_CLUSTER_HOST", host),
            ("BACKENDAI_CLUSTER_ROLE", role),
            ("BACKENDAI_CLUSTER_IDX", index),
            ("BACKENDAI_CLUSTER_LOCAL_RANK", rank),
            ("BACKENDAI_CLUSTER_SIZE", "3"),
            ("BACKENDAI_CLUSTER_HOSTS", "main1,sub1,sub2"),
            ("BACKENDAI_CLUSTER_REPLICAS", "main:1,sub:2"),
            ("BACKENDAI_SESSION_ID", &id),
            ("KEY_MODE", "600"),
            ("KEY", &seen["main1"]["KEY"]),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name} of {host}");
        }
    }
    // Each kernel holds its own share.
    let database = cluster.database().await?;
    let held = "SELECT count(DISTINCT kernel_id) FROM allocations \
        WHERE slot = 'cpu' AND amount = 1";
    let kernels: i64 = database.query_one(held, &[]).await?.get(0);
    assert_eq!(kernels, 3);

    let network = format!("bai-singlenode-{id}");
    let made = docker()?.inspect_network(&network, None).await?;
    assert_eq!(made.labels.unwrap_or_default()["ai.backend.cluster-network"], "1");
    client.delete("/session/trio").await?.ok();
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_cluster_ends_whole_when_one_of_its_containers_dies() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for (name, victim) in [("loses-main", "main"), ("loses-sub", "sub")] {
        client.post("/session", cluster_body(name, 2, json!({}))).await?.ok();
        let query = "SELECT k.container_id FROM kernels k JOIN sessions s ON s.id = k.session_id \
            WHERE s.name = $1 AND k.cluster_role = $2";
        let row = cluster.database().await?.query_one(query, &[&name, &victim]).await?;
        let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        docker()?.kill_container(row.get(0), Some(kill)).await?;
        let row = wait_status(&cluster, name, &["TERMINATED"]).await?;
        assert_eq!(row.status_info.as_deref(), Some("self-terminated"), "{row:?}");
        wait_nothing_left(&cluster).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_cluster_that_does_not_start_whole_leaves_nothing() -> Result<()> {
    // One kernel never gets ready, while the others run.
    let config = json!({"container": {"ready-timeout": 3.0}});
    let cluster = TestCluster::builder().agent_config(config).start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let hang = r#"if [ "$BACKENDAI_CLUSTER_HOST" = sub2 ]; then sleep 600; fi"#;
    let body = cluster_body("torn", 3, json!({"bootstrap_script": hang, "enqueueOnly": true}));
    client.post("/session", body).await?.ok();
    let row = wait_status(&cluster, "torn", &["CANCELLED"]).await?;
    assert_eq!(row.status_info.as_deref(), Some("failed-to-start"), "{row:?}");
    let reason = row.status_data["error"]["repr"].as_str().unwrap_or_default();
    assert!(reason.contains("did not answer within 3 s"), "{row:?}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

/// Prints the address of the container and serves in the background.
const SERVE: &str = "
import socket, threading, http.server
server = http.server.HTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(socket.gethostbyname(socket.gethostname()))
";

fn connect(host: &str, port: u16) -> String {
    format!(
        "import socket
try:
    socket.create_connection(('{host}', {port}), timeout=2).close()
    print('reached')
except OSError as error:
    print('not reached')
"
    )
}

/// Prints the address of the default gateway.
const GATEWAY: &str = "
import socket, struct
rows = [line.split() for line in open('/proc/net/route')]
gateway = next(int(row[2], 16) for row in rows if row[1] == '00000000')
print(socket.inet_ntoa(struct.pack('<L', gateway)))
";

#[tokio::test]
async fn sessions_reach_the_outside_and_not_each_other() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    for name in ["plain-1", "plain-2"] {
        client.post("/session", create_body(name, "python", json!({}))).await?.ok();
    }
    client.post("/session", cluster_body("pair", 2, json!({}))).await?.ok();
    let mut addresses = BTreeMap::new();
    for name in ["plain-1", "plain-2", "pair"] {
        let printed = execute(&client, name, SERVE).await?;
        addresses.insert(name, printed.trim().to_owned());
    }
    // The servers do serve.
    for address in addresses.values() {
        tokio::net::TcpStream::connect((address.as_str(), 8000)).await?;
    }
    for (from, to) in
        [("plain-1", "plain-2"), ("plain-2", "plain-1"), ("plain-1", "pair"), ("pair", "plain-2")]
    {
        let printed = execute(&client, from, &connect(&addresses[to], 8000)).await?;
        assert_eq!(printed, "not reached\n", "{to} from {from}");
    }
    // Beyond the bridge everything is as before.
    let outside = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    let port = outside.local_addr()?.port();
    for name in ["plain-1", "pair"] {
        let gateway = execute(&client, name, GATEWAY).await?;
        let printed = execute(&client, name, &connect(gateway.trim(), port)).await?;
        assert_eq!(printed, "reached\n", "{gateway} from {name}");
    }
    for name in ["plain-1", "plain-2", "pair"] {
        client.delete(&format!("/session/{name}")).await?.ok();
    }
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_multi_node_session_without_a_swarm_says_what_is_missing() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let client = cluster.signed(&cluster.identities.user1);
    let body = cluster_body("spread", 2, json!({ "clusterMode": "multi-node" }));
    client.post("/session", body).await?;
    let row = wait_status(&cluster, "spread", &["CANCELLED"]).await?;
    let error = row.status_data["error"]["repr"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("Docker swarm"), "{row:?}");
    wait_nothing_left(&cluster).await?;
    cluster.stop().await
}
