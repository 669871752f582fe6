//! A client of event streams.

use std::net::SocketAddr;
use std::time::Duration;

use backendai_manager::api::auth::{date, signature};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: Option<i64>,
    pub name: String,
    pub data: Value,
    pub retry: Option<u64>,
}

/// An open stream.
pub struct Stream {
    response: reqwest::Response,
    buffer: String,
}

/// Asks for a stream with a keypair; gives the response whatever it is.
pub async fn get(
    addr: SocketAddr,
    key: (&str, &str),
    target: &str,
    last_event_id: Option<i64>,
) -> reqwest::Response {
    let date = chrono::Utc::now().to_rfc3339();
    let host = addr.to_string();
    let signed = signature::Signed {
        method: "GET",
        target,
        date_header: date.as_bytes(),
        date: date::parse(&date).unwrap(),
        host: host.as_bytes(),
        media_type: &signature::media_type(None),
        version_header: "x-backendai-version",
        version: b"v7.20230615",
    };
    let signature = signature::sign_sha256(key.1, &signed);
    let authorization =
        format!("BackendAI signMethod=HMAC-SHA256, credential={}:{signature}", key.0);
    // Without a pool: dropping the response drops the connection.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut request = http
        .get(format!("http://{addr}{target}"))
        .header("date", date)
        .header("x-backendai-version", "v7.20230615")
        .header("authorization", authorization);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    request.send().await.unwrap()
}

/// Opens a stream.
pub async fn open(
    addr: SocketAddr,
    key: (&str, &str),
    target: &str,
    last_event_id: Option<i64>,
) -> Stream {
    let response = get(addr, key, target, last_event_id).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    Stream { response, buffer: String::new() }
}

impl Stream {
    /// The next event; `None` when the server has ended the stream.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((head, rest)) = self.buffer.split_once("\n\n") {
                let (head, rest) = (head.to_owned(), rest.to_owned());
                self.buffer = rest;
                if let Some(event) = parse(&head) {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk());
            match chunk.await.expect("an event in time") {
                Ok(Some(bytes)) => self.buffer.push_str(std::str::from_utf8(&bytes).unwrap()),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next event, which must come.
    pub async fn expect(&mut self) -> Event {
        self.next().await.expect("the stream goes on")
    }
}

/// `None` for a comment.
fn parse(text: &str) -> Option<Event> {
    let mut event = Event { id: None, name: String::new(), data: Value::Null, retry: None };
    let mut is_comment = true;
    for line in text.lines().filter(|line| !line.starts_with(':')) {
        is_comment = false;
        let (field, value) = line.split_once(':').expect("lines are `field: value`");
        let value = value.trim_start();
        match field {
            "id" => event.id = Some(value.parse().unwrap()),
            "event" => event.name = value.into(),
            "data" => event.data = serde_json::from_str(value).unwrap(),
            "retry" => event.retry = Some(value.parse().unwrap()),
            other => panic!("unknown field {other}"),
        }
    }
    (!is_comment).then_some(event)
}
