//! What people open in a browser, through the local proxy of the stock client: Jupyter and
//! the web terminal.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use backendai_tests::client::Browser;
use backendai_tests::wait::wait_for;
use backendai_tests::{Layout, TestCluster};

use crate::support::{LIMIT, create_body, local_proxy};

/// A notebook server takes its time on a busy machine.
const JUPYTER_LIMIT: Duration = Duration::from_secs(180);

#[tokio::test]
async fn jupyter_runs_a_cell_through_the_proxy() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let signed = cluster.signed(&cluster.identities.user1);
    let client = cluster.client(&cluster.identities.user1)?;
    let config = json!({ "resources": { "cpu": "1", "mem": "1g" } });
    let body = create_body("notes", "python-ipykernel", json!({ "config": config }));
    signed.post("/session", body).await?.ok();
    let (proxy, port) = local_proxy(&client, "notes", "jupyter").await?;

    // The first request starts the server; it answers when it has come up.
    // The stock client keeps a connection open that it has nothing for, should that be late.
    let http = reqwest::Client::builder().timeout(LIMIT).build()?;
    let base = format!("http://127.0.0.1:{port}");
    let page = wait_for(JUPYTER_LIMIT, "the notebook server", async || {
        let answer = http.get(format!("{base}/tree")).send().await;
        Ok(answer.ok().filter(|answer| answer.status().is_success()))
    })
    .await
    .with_context(|| proxy.screen())?;
    let cookies: Vec<&str> = page
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|cookie| cookie.to_str().ok()?.split(';').next())
        .collect();
    let token = cookies.iter().find_map(|cookie| cookie.strip_prefix("_xsrf="));
    let token = token.with_context(|| format!("{cookies:?}"))?;
    let cookie = cookies.join("; ");

    let version: Value = http.get(format!("{base}/api")).send().await?.json().await?;
    assert!(version["version"].is_string(), "{version}");
    let started = http.post(format!("{base}/api/kernels"));
    let started = started.header("cookie", &cookie).header("x-xsrftoken", token);
    let kernel: Value = started.json(&json!({ "name": "python3" })).send().await?.json().await?;
    let id = kernel["id"].as_str().with_context(|| kernel.to_string())?;

    let channels = format!("ws://127.0.0.1:{port}/api/kernels/{id}/channels");
    let mut request = channels.into_client_request()?;
    request.headers_mut().insert("cookie", cookie.parse()?);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let code = "print('cell', sum(range(101)))";
    let cell = json!({
        "channel": "shell", "buffers": [], "metadata": {}, "parent_header": {},
        "header": { "msg_id": "one", "msg_type": "execute_request", "session": "test",
            "username": "test", "version": "5.3", "date": "2024-01-01T00:00:00Z" },
        "content": { "code": code, "silent": false, "store_history": true,
            "user_expressions": {}, "allow_stdin": false, "stop_on_error": true },
    });
    socket.send(Message::text(cell.to_string())).await?;
    let printed = tokio::time::timeout(JUPYTER_LIMIT, async {
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message? else { continue };
            let message: Value = serde_json::from_str(&text)?;
            if message["msg_type"] == "stream" && message["parent_header"]["msg_id"] == "one" {
                return Ok(message["content"]["text"].as_str().unwrap_or_default().to_owned());
            }
        }
        anyhow::bail!("the notebook server hung up")
    })
    .await??;
    assert_eq!(printed, "cell 5050\n");
    drop(socket);
    proxy.stop(LIMIT).await?;
    cluster.stop().await
}

#[tokio::test]
async fn the_web_terminal_shows_what_is_typed_and_printed() -> Result<()> {
    let cluster = TestCluster::builder().start().await?;
    let signed = cluster.signed(&cluster.identities.user1);
    let client = cluster.client(&cluster.identities.user1)?;
    signed.post("/session", create_body("webterm", "python", json!({}))).await?.ok();
    let (proxy, port) = local_proxy(&client, "webterm", "ttyd").await?;

    let mut browser = Browser::open(&format!("http://127.0.0.1:{port}/")).await?;
    let shows = |text: &str| format!("document.body.innerText.includes({})", json!(text));
    browser.expect(&shows("work@main1[webterm]"), LIMIT).await?;
    browser.type_text("echo seen $((6 * 7)) $(hostname)").await?;
    browser.press_enter().await?;
    browser.expect(&shows("seen 42 main1"), LIMIT).await?;
    browser
        .type_text(
            "printf '\\033[1;32mgreen\\033[0m %s\\n' \"$(tput cols 2>/dev/null || stty size)\"",
        )
        .await?;
    browser.press_enter().await?;
    browser.expect(&shows("green "), LIMIT).await?;
    browser.screenshot(&Layout::discover()?.artefact("web-terminal.png")).await?;
    assert!(browser.refused().is_empty(), "{:?}", browser.refused());
    drop(browser);
    proxy.stop(LIMIT).await?;
    cluster.stop().await
}
