//! A client that signs requests by itself (`rest-auth.md` §3).

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::site::Identity;

/// The version of the API that is spoken.
pub const API_VERSION: &str = "v7.20230615";

/// Signs and sends requests for one key pair.
#[derive(Clone, Debug)]
pub struct SignedClient {
    endpoint: String,
    access_key: String,
    secret_key: String,
    http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body: JSON where it is, text otherwise, null if empty.
    pub body: Value,
}

impl Reply {
    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// The status is not 2xx.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.body
    }

    /// The problem's kind: the last part of `type`, e.g. `auth-failed`.
    pub fn problem(&self) -> Option<&str> {
        self.body["type"].as_str()?.rsplit('/').next()
    }
}

impl SignedClient {
    /// A client of the API at `endpoint` (`http://host:port`).
    pub fn new(endpoint: &str, identity: &Identity) -> Self {
        Self::with_keys(endpoint, &identity.access_key, &identity.secret_key)
    }

    /// A client with any key pair, valid or not.
    pub fn with_keys(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            http: crate::http(),
        }
    }

    /// Where it sends requests.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The headers of a signed request. `target` is the path with its query as on the wire.
    pub fn sign(
        &self,
        method: &Method,
        target: &str,
        content_type: &str,
        date: DateTime<Utc>,
    ) -> HeaderMap {
        let host = self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, host)| host);
        let stamp = date.to_rfc3339_opts(SecondsFormat::Micros, false);
        let text = format!(
            "{method}\n{target}\n{stamp}\nhost:{host}\ncontent-type:{content_type}\n\
             x-backendai-version:{API_VERSION}\n{}",
            hex::encode(Sha256::digest(b""))
        );
        let day = date.format("%Y%m%d").to_string();
        let key = mac(self.secret_key.as_bytes(), day.as_bytes());
        let key = mac(&key, host.as_bytes());
        let signature = hex::encode(mac(&key, text.as_bytes()));
        let credential =
            format!("BackendAI signMethod=HMAC-SHA256, credential={}:{signature}", self.access_key);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("date", stamp.as_str()),
            ("x-backendai-version", API_VERSION),
            ("x-backendai-domain", "default"),
            ("content-type", content_type),
            ("authorization", &credential),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Sends a signed request; `null` sends no body.
    ///
    /// # Errors
    /// No answer comes; any answer is fine.
    pub async fn send(&self, method: Method, target: &str, body: Value) -> Result<Reply> {
        let content_type = if body.is_null() { "text/plain" } else { "application/json" };
        let headers = self.sign(&method, target, content_type, Utc::now());
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
        self.send_raw(method, target, headers, bytes).await
    }

    /// Sends a request with exactly these headers and this body.
    ///
    /// # Errors
    /// No answer comes.
    pub async fn send_raw(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply> {
        let what = format!("{method} {}{target}", self.endpoint);
        let url = format!("{}{target}", self.endpoint);
        let request = self.http.request(method, url).headers(headers).body(body);
        let answer = request.send().await.with_context(|| what.clone())?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.context(what)?;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        };
        Ok(Reply { status, headers, body })
    }

    /// Signed `GET`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn get(&self, target: &str) -> Result<Reply> {
        self.send(Method::GET, target, Value::Null).await
    }

    /// Signed `POST` of JSON.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn post(&self, target: &str, body: Value) -> Result<Reply> {
        self.send(Method::POST, target, body).await
    }

    /// Signed `DELETE`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn delete(&self, target: &str) -> Result<Reply> {
        self.send(Method::DELETE, target, Value::Null).await
    }

    /// Sends a GraphQL query and returns the data.
    ///
    /// # Errors
    /// No answer comes, or it has another status than 200, or errors.
    pub async fn gql(&self, query: &str, variables: Value) -> Result<Value> {
        let body = json!({ "query": query, "variables": variables });
        let reply = self.post("/admin/gql", body).await?;
        anyhow::ensure!(
            reply.status == 200,
            "{query} is answered {}: {}",
            reply.status,
            reply.body
        );
        anyhow::ensure!(reply.body["errors"].is_null(), "{query}: {}", reply.body["errors"]);
        Ok(reply.body["data"].clone())
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_equal_those_of_the_stock_client() {
        let client = SignedClient::with_keys(
            "http://127.0.0.1:8081",
            "AKIAEXAMPLEKEY000001",
            "ExampleSecretKey-0123456789abcdefghijklm",
        );
        let date = "2023-11-21T03:19:22.123456+00:00".parse().unwrap();
        for (method, target, content_type, signature) in [
            (
                Method::GET,
                "/session/mysess?owner_access_key=AKIAOTHER",
                "text/plain",
                "522e05fba2d60c91606615468ad0478ae2c4e24cfacf2c6efc7bee3c21837f24",
            ),
            (
                Method::POST,
                "/session",
                "application/json",
                "9013e38215df6530307dd2ab8e36e5fcf958e3433cb46bfc5ac6219c003ec71b",
            ),
        ] {
            let headers = client.sign(&method, target, content_type, date);
            let authorization = headers["authorization"].to_str().unwrap();
            assert!(authorization.ends_with(&format!("AKIAEXAMPLEKEY000001:{signature}")));
        }
    }
}
