//! What a handler gets, and how it answers.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use hyper::upgrade::OnUpgrade;
use serde::Serialize;
use serde_json::{Map, Value};
use warp::http::header::{CONTENT_TYPE, HeaderValue};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::ApiState;
use super::auth::credential::Credential;
use super::params::Params;
use super::problem::Problem;
use crate::app::SharedApp;
use crate::context::RequestContext;

/// A body, chunk by chunk as it comes.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send + Sync>>;

/// A request to become a websocket.
pub struct Handshake {
    /// Does what becoming one takes.
    pub ws: warp::ws::Ws,
    /// Gives the connection once the answer is sent, to who does not leave it to `ws`.
    pub switched: OnUpgrade,
}

/// A request that has passed every check of its route.
pub struct Call {
    /// What rules may use.
    pub app: SharedApp,
    /// What the API keeps for itself.
    pub state: Arc<ApiState>,
    /// Names the request in logs.
    pub request_id: String,
    /// Who asks; `None` on public routes and for unsigned requests.
    pub caller: Option<Caller>,
    /// Values of the path's parameters, in order.
    pub path: Vec<String>,
    /// The query string, as on the wire.
    pub query: Option<String>,
    /// Headers.
    pub headers: HeaderMap,
    /// The body; empty if there is none, or if the route streams it.
    pub body: Bytes,
    /// The body of a route that streams it.
    pub stream: Option<BodyStream>,
    /// The websocket handshake, if the request is one.
    pub upgrade: Option<Handshake>,
    /// Address of the other end of the connection, if there is a connection.
    pub peer: Option<IpAddr>,
}

/// An authenticated caller.
#[derive(Clone)]
pub struct Caller {
    /// As rules see them.
    pub context: Arc<RequestContext>,
    /// The keypair that signed.
    pub credential: Arc<Credential>,
}

impl Call {
    /// Who asks.
    ///
    /// # Errors
    /// Nobody we know: only where the route table admits that.
    pub fn user(&self) -> Result<Arc<RequestContext>, Problem> {
        self.caller
            .as_ref()
            .map(|caller| Arc::clone(&caller.context))
            .ok_or_else(Problem::unauthorized)
    }

    /// A parameter of the path. Empty if the route's pattern has fewer, which the table's
    /// tests exclude.
    pub fn segment(&self, index: usize) -> &str {
        self.path.get(index).map_or("", String::as_str)
    }

    /// The parameters to validate: the body's object if there is a body, else the query's
    /// values as strings. Never both.
    ///
    /// # Errors
    /// The body is not JSON, or not an object.
    pub fn params(&self) -> Result<Params, Problem> {
        if self.body.is_empty() {
            let map = query_map(self.query.as_deref().unwrap_or_default());
            if map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
                return Err(malformed());
            }
            return Ok(Params::new(map));
        }
        match self.json()? {
            Value::Object(map) => Ok(Params::new(map)),
            _ => Err(Problem::invalid_fields(Value::from("value is not a dict"))),
        }
    }

    /// The body as JSON, whatever its content type says.
    ///
    /// # Errors
    /// It is not, or has a NUL character, which no text of the product may have.
    pub fn json(&self) -> Result<Value, Problem> {
        let value = serde_json::from_slice(&self.body).map_err(|_| malformed())?;
        if has_nul(&value) {
            return Err(malformed());
        }
        Ok(value)
    }
}

fn malformed() -> Problem {
    Problem::invalid_params("Malformed body")
}

/// True if a text in it has a NUL character.
pub fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Query parameters as an object of strings; of a repeated name the first counts.
fn query_map(query: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        map.entry(decode(name)).or_insert_with(|| Value::String(decode(value)));
    }
    map
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers have string keys, so they always encode");
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// The usual answer: 200 with JSON.
pub fn ok(body: &impl Serialize) -> Response {
    json(StatusCode::OK, body)
}

/// 204.
pub fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_the_first_of_a_name_counts() {
        let map = query_map("a=1&b=x%20y+z&a=2&c&%ED%95%9C=%EA%B8%80");
        assert_eq!(Value::Object(map).to_string(), r#"{"a":"1","b":"x y z","c":"","한":"글"}"#);
    }

    #[test]
    fn nul_is_found_wherever_it_hides() {
        for text in [r#"["\u0000"]"#, r#"{"a": {"b": "x\u0000"}}"#, r#"{"\u0000": 1}"#] {
            assert!(has_nul(&serde_json::from_str(text).unwrap()), "{text}");
        }
        assert!(!has_nul(&serde_json::from_str(r#"["\\u0000", 1, null]"#).unwrap()));
    }
}
