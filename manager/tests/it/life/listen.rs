//! Listening to what happens to sessions, over HTTP, with interruptions.

use std::net::SocketAddr;
use std::sync::Arc;

use backendai_manager::api;
use backendai_manager::app::session::CreateSession;
use backendai_types::SessionStatus;
use serde_json::json;
use tokio::net::TcpListener;

use super::world::{USER, World, eventually, request};
use crate::sse;

/// The secret of every keypair of this site.
const SECRET: &str = "0123456789012345678901234567890123456789";

async fn serve(world: &World) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (app, lifecycle) = (Arc::clone(world.app()), world.lifecycle.clone());
    world.lifecycle.spawn_vital("api", api::serve(app, listener, lifecycle));
    addr
}

/// What the stream should have shown: every streamed event in order.
async fn recorded(world: &World) -> Vec<(i64, String)> {
    let sql = format!(
        "SELECT coalesce(jsonb_agg(jsonb_build_array(seq, event) ORDER BY seq), '[]')
         FROM transitions WHERE event = ANY('{{{}}}')",
        backendai_datastore::transition::STREAMED_EVENTS.join(",")
    );
    serde_json::from_str(&world.value(&sql).await).unwrap()
}

#[tokio::test]
async fn a_listener_cut_off_fifty_times_hears_everything_once_and_in_order() {
    const SESSIONS: usize = 20;
    const CUTS: usize = 50;
    let world = World::new(&[8, 8, 8]).await;
    let addr = serve(&world).await;
    let key = (USER, SECRET);
    let target = "/events/session?scope=*";
    let mut stream = sse::open(addr, key, target, None).await;

    let work = async {
        let life = async |n: usize| {
            let name = format!("sess-{n:02}");
            world.create(request(&name)).await.unwrap();
            world.destroy(&name, false).await.unwrap();
        };
        futures::future::join_all((0..SESSIONS).map(life)).await;
        let over = "SELECT count(*) FROM transitions WHERE event = 'session_terminated'";
        world.until(over, |count| count == SESSIONS.to_string()).await;
    };
    let listen = async {
        let mut heard: Vec<(i64, String)> = Vec::new();
        let mut ended = 0;
        let mut cuts = 0;
        while ended < SESSIONS {
            let event = stream.expect().await;
            ended += usize::from(event.name == "session_terminated");
            heard.push((event.id.unwrap(), event.name));
            // A session has nine events or more, so there is room for all the cuts.
            if cuts < CUTS && rand::random::<f32>() < 0.5 {
                cuts += 1;
                // By the header, or by the parameter for clients that cannot set it.
                let last = heard.last().unwrap().0;
                stream = if rand::random() {
                    sse::open(addr, key, target, Some(last)).await
                } else {
                    let target = format!("{target}&lastEventId={last}");
                    sse::open(addr, key, &target, None).await
                };
            }
        }
        (heard, cuts)
    };
    let ((heard, cuts), ()) = futures::join!(listen, work);
    assert_eq!(cuts, CUTS);
    assert_eq!(heard, recorded(&world).await);
    world.lifecycle.kill().await;
}

#[tokio::test]
async fn events_tell_what_the_reference_promises() {
    let world = World::new(&[4]).await;
    let addr = serve(&world).await;
    let mut stream = sse::open(addr, (USER, SECRET), "/events/session?name=told", None).await;
    let created = world.create(request("told")).await.unwrap();
    world.create(CreateSession { ..request("other") }).await.unwrap();
    world.destroy("told", false).await.unwrap();
    world.until_status(created.session_id, SessionStatus::Terminated).await;
    let mut names = Vec::new();
    loop {
        let event = stream.expect().await;
        assert_eq!(event.data["sessionName"], "told");
        assert_eq!(event.data["sessionId"], created.session_id.to_string());
        assert_eq!(event.data["ownerAccessKey"], USER);
        let of_kernel = event.name.starts_with("kernel_");
        assert_eq!(event.data.get("clusterRole"), of_kernel.then_some(&json!("main")));
        assert_eq!(event.data.get("clusterIdx"), of_kernel.then_some(&json!(1)));
        let exit_code = match event.name.as_str() {
            "kernel_terminating" => json!(-1),
            "kernel_terminated" => json!(137),
            _ => json!(null),
        };
        assert_eq!(event.data["exitCode"], exit_code, "{}", event.name);
        names.push(event.name);
        if names.last().unwrap() == "session_terminated" {
            break;
        }
    }
    let expected = [
        "session_enqueued",
        "session_scheduled",
        "kernel_preparing",
        "kernel_pulling",
        "kernel_creating",
        "kernel_started",
        "session_started",
        "kernel_terminating",
        "session_terminating",
        "kernel_terminated",
        "session_terminated",
    ];
    assert_eq!(names, expected);

    // Replayed from the beginning, but only what concerns kernels.
    let id = created.session_id;
    let target = format!("/events/session?sessionId={id}&scope=kernel&lastEventId=0");
    let mut again = sse::open(addr, (USER, SECRET), &target, None).await;
    for name in expected.iter().filter(|name| name.starts_with("kernel_")) {
        assert_eq!(again.expect().await.name, *name);
    }
    world.lifecycle.kill().await;
}

#[tokio::test]
async fn streams_end_when_the_manager_stops_and_when_the_client_leaves() {
    let world = World::new(&[]).await;
    let addr = serve(&world).await;
    let feed = &world.app().feed;
    let target = "/events/session";
    let mut stays = sse::open(addr, (USER, SECRET), target, None).await;
    let leaves = sse::open(addr, (USER, SECRET), target, None).await;
    eventually("two listeners", || async { feed.listeners() == 2 }).await;
    drop(leaves);
    eventually("one listener", || async { feed.listeners() == 1 }).await;
    world.lifecycle.stop();
    assert_eq!(stays.next().await, None);
}
