//! Routes about one session that need no agent, on the sessions of the captures: `capB` runs,
//! `capC` waits for it, `capA` is over.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::world::{Key, World};

const CAP_B: &str = "6f4f0499-5c42-484a-be48-1f36123e2c71";
const KERNEL_A: &str = "baa6cc0f-a899-4510-9935-9b045c167cfd";

async fn world() -> (World, Key) {
    let world = World::start().await;
    super::graphql::insert_sessions(&world).await;
    let key = world.key("admin").await;
    (world, key)
}

async fn ask(world: &World, key: Key, method: &str, target: &str) -> (u16, Value) {
    let reply = world.request(method, target).signed(key).send().await;
    let body = if reply.text.is_empty() { Value::Null } else { reply.json() };
    (reply.status.as_u16(), body)
}

#[tokio::test]
async fn a_running_session_is_renamed() {
    let (world, key) = world().await;
    let rename = async |target: &str| ask(&world, key, "POST", target).await;
    assert_eq!(rename("/session/capB/rename?name=capB2").await, (204, Value::Null));
    assert_eq!(ask(&world, key, "GET", "/session/capB2").await.0, 200);
    assert_eq!(ask(&world, key, "GET", "/session/capB").await.0, 404);
    for (target, status, message) in [
        ("/session/capC/rename?name=other", 400, "Can't change name of not running session"),
        ("/session/capA/rename?name=other", 400, "Can't change name of not running session"),
        ("/session/capB2/rename?name=capC", 400, "Another session has the name capC."),
        ("/session/capB2/rename?name=x", 400, "Input validation error"),
        (
            "/session/capB2/rename?name=from-template",
            400,
            "The session name \"from-template\" is reserved.",
        ),
        ("/session/capB2/rename", 400, "Input validation error"),
        ("/session/nobody/rename?name=other", 404, "Session (id=nobody) does not exist."),
    ] {
        let (got, body) = rename(target).await;
        assert_eq!((got, body["msg"].as_str()), (status, Some(message)), "{target}: {body}");
    }
    // Another's session is none to a stranger.
    let stranger = world.key("user1").await;
    let (status, _) = ask(&world, stranger, "POST", "/session/capB2/rename?name=mine").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_graph_of_dependencies_has_every_branch() {
    let (world, key) = world().await;
    world
        .sql
        .batch_execute(
            "INSERT INTO session_dependencies VALUES \
             ('fbe46514-73ce-4297-869b-2dbf00167223', '62533091-d4f1-47bf-ba89-2bddd2e3b5f6')",
        )
        .await
        .unwrap();
    let (_, graph) = ask(&world, key, "GET", "/session/capC/dependency-graph").await;
    let changed = "2026-11-21 04:03:15.800637+00:00";
    let node = |id: &str, name: &str, status: &str, below: Value| json!({"session_id": id, "session_name": name, "status": status, "status_changed": changed, "depends_on": below});
    assert_eq!(
        graph,
        node(
            "fbe46514-73ce-4297-869b-2dbf00167223",
            "capC",
            "KernelStatus.PENDING",
            json!([
                node(
                    "62533091-d4f1-47bf-ba89-2bddd2e3b5f6",
                    "capA",
                    "KernelStatus.TERMINATED",
                    json!([])
                ),
                node(CAP_B, "capB", "KernelStatus.RUNNING", json!([])),
            ]),
        )
    );
    assert_eq!(ask(&world, key, "GET", "/session/nobody/dependency-graph").await.0, 404);
}

#[tokio::test]
async fn only_system_sessions_are_reached_directly() {
    let (world, key) = world().await;
    let target = "/session/capB/direct-access-info";
    assert_eq!(ask(&world, key, "GET", target).await, (200, json!({})));
    world
        .sql
        .batch_execute(&format!(
            r#"UPDATE sessions SET is_private = true WHERE id = '{CAP_B}';
            UPDATE kernels SET kernel_host = '10.0.0.7', service_ports =
              '[{{"name": "sshd", "protocol": "tcp", "container_ports": [2200], "host_ports": [30022]}},
                {{"name": "sftpd", "protocol": "tcp", "container_ports": [2220], "host_ports": [30023, null]}}]'
            WHERE session_id = '{CAP_B}'"#
        ))
        .await
        .unwrap();
    let access = json!({"kernel_role": "SYSTEM", "public_host": "10.0.0.7", "sshd_ports": [30023]});
    assert_eq!(ask(&world, key, "GET", target).await, (200, access));
    assert_eq!(ask(&world, key, "GET", "/session/nobody/direct-access-info").await.0, 404);
}

#[tokio::test]
async fn nothing_is_reported_as_abuse_and_agents_are_compared_when_asked() {
    let (world, key) = world().await;
    let get = async |target: &str| ask(&world, key, "GET", target).await;
    assert_eq!(get("/session/capB/abusing-report").await, (200, json!({})));
    assert_eq!(get("/session/nobody/abusing-report").await.0, 404);
    assert_eq!(get("/session/capB/abusing-report?x=1").await.0, 400);

    let sync = async |target: &str| ask(&world, key, "POST", target).await;
    let route = "/session/_/sync-agent-registry";
    assert_eq!(sync(&format!("{route}?agent=i-1")).await, (200, json!({})));
    let (status, body) = sync(&format!("{route}?agent=i-9")).await;
    assert_eq!((status, &body["title"]), (404, &json!("No such agent instance.")));
    assert_eq!(sync(route).await.1["data"], json!({"agent": "is required"}));
}

#[tokio::test]
async fn logs_are_those_that_are_kept_and_none_is_no_failure() {
    let (world, key) = world().await;
    let store =
        format!("INSERT INTO kernel_logs (kernel_id, content) VALUES ('{KERNEL_A}', 'the end')");
    world.sql.batch_execute(&store).await.unwrap();
    let get = async |target: &str| ask(&world, key, "GET", target).await;
    assert_eq!(get("/session/capA/logs").await, (200, json!({"result": {"logs": "the end"}})));
    assert_eq!(get("/session/capC/logs").await, (200, json!({"result": {"logs": ""}})));
    assert_eq!(get("/session/nobody/logs").await.0, 404);
    // Its agent is not there.
    assert_eq!(get("/session/capB/logs").await.0, 500);
    let head = world.request("HEAD", "/session/capA/logs").signed(key).send().await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));

    let task = async |method: &str, query: &str| {
        let target = format!("/session/_/logs?{query}");
        world.request(method, &target).signed(key).send().await
    };
    for id in [KERNEL_A, "62533091-d4f1-47bf-ba89-2bddd2e3b5f6", &KERNEL_A.replace('-', "")] {
        let reply = task("GET", &format!("taskId={id}")).await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, "the end"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    let pending = task("GET", "session_name=43d475bd-3fa3-4de2-9734-07c1fdee14b4").await;
    assert_eq!((pending.status, pending.text.as_str()), (StatusCode::OK, ""));
    let head = task("HEAD", &format!("taskId={KERNEL_A}")).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
    assert_eq!(task("GET", &format!("taskId={}", uuid_of_nothing())).await.status, 404);
    assert_eq!(
        task("GET", "taskId=x").await.json()["data"],
        json!({"taskId": "cannot convert value to UUID"})
    );
    let stranger = world.key("user1").await;
    let target = format!("/session/_/logs?taskId={KERNEL_A}");
    assert_eq!(ask(&world, stranger, "GET", &target).await.0, 404);
}

fn uuid_of_nothing() -> &'static str {
    "00000000-0000-4000-8000-000000000000"
}

#[tokio::test]
async fn nul_characters_are_the_callers_mistake() {
    let (world, key) = world().await;
    let body = json!({"name": "abcd", "image": "python", "tag": "a\0b"});
    let reply = world.request("POST", "/session").json(&body).signed(key).send().await;
    assert_eq!(reply.problem(), (400, "invalid-api-params".into(), "Malformed body".into()));
    assert_eq!(ask(&world, key, "GET", "/session/_/match?id=%00").await.0, 400);
    assert_eq!(ask(&world, key, "GET", "/session/%00").await.0, 404);
}
