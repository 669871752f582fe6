//! A headless Chromium, driven over its DevTools protocol: a person in front of a web page.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::process::find_program;
use crate::wait::wait_until;

/// How long the browser may take for one answer.
const LIMIT: Duration = Duration::from_secs(60);
/// Names of the program: Debian's small package, then whole browsers.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];
/// What it prints before the address of its DevTools.
const LISTENING: &str = "DevTools listening on ";
/// So many looks in a row see no request under way before a page counts as settled: scripts
/// think a little between an answer and their next request.
const CALM: usize = 25;
/// Put before the scripts of every page.
const SCRIPT: &str = include_str!("browser.js");

/// A browser with one page. It is killed when dropped.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Value,
    last_id: u64,
    /// Answers of servers that say no: their status and address.
    refused: Vec<(u64, String)>,
    /// Errors of GraphQL with their queries, which come in answers of 200.
    graphql_errors: Vec<String>,
    /// Requests without an answer yet: their id and address.
    under_way: HashMap<String, String>,
    _process: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser and opens a page.
    ///
    /// # Errors
    /// None is installed, or it does not come up.
    pub async fn open(url: &str) -> Result<Self> {
        let program = find_program(&PROGRAMS, &[PathBuf::from("/usr/lib/chromium")])
            .context("no Chromium: `./halfstack test` installs one on Debian")?;
        let profile = tempfile::tempdir()?;
        let mut process = Command::new(program)
            // Its sandbox needs more than containers and CI machines grant.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--remote-debugging-port=0", "--window-size=1400,1000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start Chromium")?;
        let mut lines =
            BufReader::new(process.stderr.take().context("its standard error")?).lines();
        let address = tokio::time::timeout(LIMIT, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix(LISTENING) {
                    return Ok(address.to_owned());
                }
            }
            anyhow::bail!("Chromium ended at once")
        })
        .await
        .context("Chromium did not come up")??;
        // A full pipe would stop it.
        crate::background(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = tokio_tungstenite::connect_async(address).await?;
        let mut browser = Self {
            socket,
            session: Value::Null,
            last_id: 0,
            refused: Vec::new(),
            graphql_errors: Vec::new(),
            under_way: HashMap::new(),
            _process: process,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].clone();
        browser.call("Network.enable", json!({})).await?;
        browser.call("Page.enable", json!({})).await?;
        browser.call("Runtime.enable", json!({})).await?;
        browser.call("Runtime.addBinding", json!({ "name": "__report" })).await?;
        let script = json!({ "source": SCRIPT });
        browser.call("Page.addScriptToEvaluateOnNewDocument", script).await?;
        browser.go(url).await?;
        Ok(browser)
    }

    /// Goes to another page.
    ///
    /// # Errors
    /// There is nothing at this address.
    pub async fn go(&mut self, url: &str) -> Result<()> {
        // What the page before still waited for ends with it.
        self.under_way.clear();
        let gone = self.call("Page.navigate", json!({ "url": url })).await?;
        anyhow::ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        Ok(())
    }

    /// The value of a JavaScript expression; promises are waited for.
    ///
    /// # Errors
    /// It throws.
    pub async fn value(&mut self, expression: &str) -> Result<Value> {
        let what = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", what).await?;
        let thrown = &answer["exceptionDetails"];
        anyhow::ensure!(thrown.is_null(), "{expression}: {}", thrown["exception"]["description"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until a JavaScript expression is true.
    ///
    /// # Errors
    /// It is not within `limit`; the message holds the page's text.
    pub async fn expect(&mut self, expression: &str, limit: Duration) -> Result<()> {
        let what = format!("{expression} in the browser");
        let shown = wait_until(limit, &what, async || {
            // While a page loads there may be no document yet.
            Ok(self.value(expression).await.is_ok_and(|value| value == Value::Bool(true)))
        })
        .await;
        match shown {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = self.value("document.body?.innerText").await.unwrap_or_default();
                Err(error).with_context(|| format!("the page shows:\n{text}"))
            }
        }
    }

    /// All text of the page that can be seen, also within its components.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn text(&mut self) -> Result<String> {
        Ok(self.value("window.__text?.()").await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until the page shows a text, also within its components.
    ///
    /// # Errors
    /// It does not within `limit`; the message holds what it shows.
    pub async fn shows(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("the page to show {text:?}");
        match wait_until(limit, &what, async || Ok(self.text().await?.contains(text))).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = self.text().await.unwrap_or_default();
                Err(error).with_context(|| format!("the page shows:\n{text}"))
            }
        }
    }

    /// Waits for an element, also within components, and clicks it: the first one that can be
    /// seen of a CSS selector, and whose whole text this is, if one is given.
    ///
    /// # Errors
    /// There is none within `limit`; the message holds what the page shows.
    pub async fn click(&mut self, what: &str, text: Option<&str>, limit: Duration) -> Result<()> {
        self.with_element(what, text, "click()", limit).await
    }

    /// Waits for an element as [`click`](Self::click) does, and gives it the focus.
    ///
    /// # Errors
    /// As there.
    pub async fn focus(&mut self, what: &str, limit: Duration) -> Result<()> {
        self.with_element(what, None, "focus()", limit).await
    }

    async fn with_element(
        &mut self,
        selector: &str,
        text: Option<&str>,
        action: &str,
        limit: Duration,
    ) -> Result<()> {
        let text = text.map_or_else(|| "undefined".to_owned(), |text| json!(text).to_string());
        let found = format!("__find({}, {text})", json!(selector));
        let done = wait_until(limit, &found, async || {
            let acted = format!("{{ const e = {found}; e?.{action}; !!e }}");
            Ok(self.value(&acted).await? == Value::Bool(true))
        });
        match done.await {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = self.text().await.unwrap_or_default();
                Err(error).with_context(|| format!("the page shows:\n{text}"))
            }
        }
    }

    /// Waits until no request is under way, and none has been for `CALM` looks.
    ///
    /// # Errors
    /// There still are some after `limit`; the message names them.
    pub async fn settle(&mut self, limit: Duration) -> Result<()> {
        let mut calm = 0;
        wait_until(limit, "the page to settle", async || {
            // Takes in what the browser has told meanwhile.
            self.value("1").await?;
            calm = if self.under_way.is_empty() { calm + 1 } else { 0 };
            anyhow::ensure!(calm >= CALM, "under way: {:?}", self.under_way.values());
            Ok(true)
        })
        .await
    }

    /// Types text where the focus is.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn type_text(&mut self, text: &str) -> Result<()> {
        for letter in text.chars() {
            let key =
                json!({ "type": "keyDown", "key": letter.to_string(), "text": letter.to_string() });
            self.call("Input.dispatchKeyEvent", key).await?;
            let key = json!({ "type": "keyUp", "key": letter.to_string() });
            self.call("Input.dispatchKeyEvent", key).await?;
        }
        Ok(())
    }

    /// Presses the Enter key.
    ///
    /// # Errors
    /// The browser is gone.
    pub async fn press_enter(&mut self) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13,
                "text": if kind == "keyDown" { "\r" } else { "" },
            });
            self.call("Input.dispatchKeyEvent", key).await?;
        }
        Ok(())
    }

    /// Keeps a picture of the page as PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn screenshot(&mut self, path: &Path) -> Result<()> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        let png = BASE64.decode(shot["data"].as_str().context("a picture")?)?;
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        std::fs::write(path, png).with_context(|| path.display().to_string())
    }

    /// What servers refused so far: status and address of each answer of 400 and above.
    pub fn refused(&self) -> &[(u64, String)] {
        &self.refused
    }

    /// What GraphQL refused so far: errors with their queries.
    pub fn graphql_errors(&self) -> &[String] {
        &self.graphql_errors
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let id = || params["requestId"].as_str().unwrap_or_default().to_owned();
        match message["method"].as_str().unwrap_or_default() {
            // Streams of events last as long as their page.
            "Network.requestWillBeSent" if params["type"] != "EventSource" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.under_way.insert(id(), url.to_owned());
            }
            "Network.loadingFailed" => {
                self.under_way.remove(&id());
            }
            // The end of a body that no script reads is never told.
            "Network.responseReceived" => {
                self.under_way.remove(&id());
                let response = &params["response"];
                let status = response["status"].as_u64().unwrap_or_default();
                let url = response["url"].as_str().unwrap_or_default();
                if status >= 400 {
                    self.refused.push((status, url.to_owned()));
                }
            }
            "Runtime.bindingCalled" => {
                let payload = params["payload"].as_str().unwrap_or_default();
                self.graphql_errors.push(payload.to_owned());
            }
            _ => {}
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut request = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_null() {
            request["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(request.to_string())).await?;
        let answer = async {
            while let Some(message) = self.socket.next().await {
                let Message::Text(text) = message? else { continue };
                let message: Value = serde_json::from_str(&text)?;
                if message["id"] == id {
                    return Ok(message);
                }
                self.note(&message);
            }
            anyhow::bail!("the browser has gone")
        };
        let mut answer = tokio::time::timeout(LIMIT, answer).await.context(method.to_owned())??;
        anyhow::ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        Ok(answer["result"].take())
    }
}
