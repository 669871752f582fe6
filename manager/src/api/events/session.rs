//! `GET /events/session`: what happens to sessions and their kernels.
//!
//! Each event has the number of its transition as `id`. A client that was cut off goes on
//! where it was by giving the last one as `Last-Event-ID` (browsers do it by themselves),
//! or as the query parameter `lastEventId` if it cannot set headers.

use backendai_datastore::transition_view::TransitionView;
use backendai_service::telemetry::chain;
use backendai_types::SessionId;
use serde_json::{Value, json};
use warp::reply::Response;
use warp::sse::Event;

use super::super::call::Call;
use super::super::params::{Params, rules};
use super::super::problem::Problem;
use super::{Gone, Sink, stream};
use crate::app::session::events::{EventScope, ListenToSessions, Listener, listen};

const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /events/session`
pub async fn session(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let mut request = read(&mut params);
    params.finish()?;
    // What a browser sends when it reconnects is newer than what is in its URL.
    if let Some(value) = call.headers.get(LAST_EVENT_ID) {
        let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
        request.after =
            Some(id.ok_or_else(|| Problem::invalid_params("Last-Event-ID is no event's id."))?);
    }
    let listener = listen(&call.app, &context, request).await?;
    Ok(stream(&call, |sink| feed(listener, sink)))
}

fn read(params: &mut Params) -> ListenToSessions {
    let any = || "*".to_owned();
    ListenToSessions {
        session_name: params.optional(&["name", "sessionName"], any(), rules::text),
        owner_access_key: params.optional(
            &["ownerAccessKey", "owner_access_key"],
            None,
            rules::null_or(rules::text),
        ),
        session_id: params
            .optional(&["sessionId"], None, rules::null_or(rules::uuid))
            .map(SessionId),
        group_name: params.optional(&["group", "groupName"], any(), rules::text),
        scope: params.optional(
            &["scope"],
            EventScope::All,
            rules::member("EventScope", EventScope::ALL, EventScope::as_str),
        ),
        after: params.optional(&["lastEventId", "last_event_id"], None, rules::null_or(rules::int)),
    }
}

async fn feed(mut listener: Listener, sink: Sink) -> Result<(), Gone> {
    loop {
        match listener.next().await {
            Ok(events) => {
                for event in &events {
                    sink.send(encode(event)).await?;
                }
            }
            Err(error) => {
                // The client reconnects and goes on after the last id it has.
                tracing::warn!(error = chain(&error), "a stream of events was cut");
                return Ok(());
            }
        }
    }
}

fn encode(transition: &TransitionView) -> Event {
    Event::default()
        .id(transition.seq.to_string())
        .event(transition.event.as_str())
        .data(view(transition).to_string())
}

fn view(transition: &TransitionView) -> Value {
    let exit_code = match transition.event.as_str() {
        "kernel_terminating" | "kernel_terminated" => Some(transition.exit_code.unwrap_or(-1)),
        "session_success" | "session_failure" => transition.exit_code,
        _ => None,
    };
    let mut view = json!({
        "reason": transition.reason,
        "sessionName": transition.session_name,
        "ownerAccessKey": transition.access_key,
        "sessionId": transition.session_id,
        "exitCode": exit_code,
    });
    if let Some(kernel) = &transition.kernel {
        view["kernelId"] = json!(kernel.id);
        view["clusterRole"] = json!(kernel.cluster_role);
        view["clusterIdx"] = json!(kernel.cluster_idx);
    }
    view
}
