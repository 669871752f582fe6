//! `/stream/session/{name}/tcpproxy` and `/httpproxy`: one websocket is one TCP connection
//! to a service of the session. Binary frames carry its bytes; each side is read only as
//! fast as the other takes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use warp::reply::Response;

use backendai_rpc::agent_api::StreamTarget;

use super::super::call::Call;
use super::super::params::{Checked, Params, rules};
use super::super::problem::Problem;
use super::socket::{self, GOING_AWAY, INTERNAL, TRY_AGAIN};
use crate::app::session::service::{self, ServiceRequest};
use crate::app::session::stream::is_refused;

/// `GET /stream/session/{name}/tcpproxy`, `GET /stream/session/{name}/httpproxy`
pub async fn proxy(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let request = read_service(&mut params);
    params.finish()?;
    let (kernel, port) = service::start(&call.app, &context, call.segment(0), request).await?;
    let state = Arc::clone(&call.state);
    socket::tunnel(call, async move |mut tunnel| {
        let end = match kernel.open_stream(StreamTarget::Port(port)).await {
            Ok(mut stream) => tokio::select! {
                end = tunnel.carry(&mut stream) => end,
                () = state.stopping.cancelled() => {
                    (GOING_AWAY, "the manager is stopping".to_owned())
                }
            },
            Err(error) if is_refused(&error) => (TRY_AGAIN, format!("port {port} does not accept")),
            Err(error) => {
                tracing::warn!(
                    session.id = %kernel.session_id,
                    port,
                    "a service was not reached: {}",
                    backendai_service::telemetry::chain(&error)
                );
                (INTERNAL, "the service was not reached".to_owned())
            }
        };
        tunnel.close(end).await;
    })
}

/// The service that is meant, as query and body name it.
pub fn read_service(params: &mut Params) -> ServiceRequest {
    ServiceRequest {
        name: params.required(&["app", "service"], rules::text),
        port: params.optional(&["port"], None, rules::null_or(port)),
        arguments: params.optional(&["arguments"], BTreeMap::new(), arguments),
        envs: params.optional(&["envs"], BTreeMap::new(), envs),
    }
}

fn port(value: Value) -> Checked<u16> {
    // The bounds are those of u16.
    rules::int_within(1024, 65535)(value).map(|port| port as u16)
}

/// A JSON object in a string: of texts.
fn envs(value: Value) -> Checked<BTreeMap<String, String>> {
    match nested(value)? {
        Some(Value::Object(map)) => map
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name, text)),
                Value::Number(number) => Ok((name, number.to_string())),
                _ => Err(Value::from("value is not a string")),
            })
            .collect(),
        None => Ok(BTreeMap::new()),
        Some(_) => Err(Value::from("value is not a dict")),
    }
}

/// A JSON object in a string: each value null, a text or a list of texts.
fn arguments(value: Value) -> Checked<BTreeMap<String, Vec<String>>> {
    let Some(Value::Object(map)) = nested(value)? else { return Ok(BTreeMap::new()) };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Value::from("value is not a string")),
    };
    map.into_iter()
        .map(|(flag, value)| {
            let values = match value {
                Value::Null => Vec::new(),
                Value::Array(values) => values.into_iter().map(text).collect::<Checked<_>>()?,
                value => vec![text(value)?],
            };
            Ok((flag, values))
        })
        .collect()
}

fn nested(value: Value) -> Checked<Option<Value>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => {
            serde_json::from_str(&text).map(Some).map_err(|_| Value::from("value is not JSON"))
        }
        value => Ok(Some(value)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_read_from_a_query() {
        let mut params = Params::new(
            json!({"app": "jupyter", "port": "8081", "envs": r#"{"A": "1"}"#,
                   "arguments": r#"{"--token": "x", "--debug": null, "--dir": ["a", "b"]}"#})
            .as_object()
            .unwrap()
            .clone(),
        );
        let request = read_service(&mut params);
        params.finish().unwrap();
        assert_eq!(request.name, "jupyter");
        assert_eq!(request.port, Some(8081));
        assert_eq!(request.envs["A"], "1");
        assert_eq!(request.arguments["--dir"], ["a", "b"]);
        assert!(request.arguments["--debug"].is_empty());

        let mut params = Params::new(
            json!({"service": "x", "port": "80", "envs": "no", "arguments": r#"{"a": {}}"#})
                .as_object()
                .unwrap()
                .clone(),
        );
        read_service(&mut params);
        let problem: Value =
            serde_json::from_slice(&params.finish().unwrap_err().to_bytes()).unwrap();
        assert_eq!(problem["data"]["envs"], "value is not JSON");
        assert_eq!(problem["data"]["arguments"], "value is not a string");
        assert!(problem["data"].get("port").is_some(), "{problem}");
    }
}
