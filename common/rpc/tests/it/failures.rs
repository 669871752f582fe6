//! Callers, services and servers that go away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backendai_rpc::call::{CallError, Client, ErrorKind, Service};
use backendai_rpc::transport::{RpcConnector, RpcServer, RpcServerOptions};

use crate::support::{
    PATIENCE, Probe, connect, every_carrier, over_curve, over_plain, plain_server, reached, spawn,
};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_dropped_call_is_aborted_at_the_far_side() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    for (done, reach) in every_carrier(&service).into_iter().enumerate() {
        let client = reach.client.clone();
        let call = spawn(async move { client.call::<_, ()>("hold", &(), PATIENCE).await });
        reached(&probe.started, done + 1).await;
        call.abort();
        reached(&probe.aborted, done + 1).await;
    }
}

#[tokio::test]
async fn a_call_out_of_time_is_aborted_at_the_far_side() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    for (done, reach) in every_carrier(&service).into_iter().enumerate() {
        let error = reach.client.call::<_, ()>("hold", &(), SHORT).await.unwrap_err();
        assert!(
            matches!(error, CallError::Timeout { method: "hold", after } if after == SHORT),
            "{}: {error}",
            reach.name
        );
        reached(&probe.aborted, done + 1).await;
    }
}

#[tokio::test]
async fn a_panic_is_an_error_and_nothing_more() {
    let service: Arc<dyn Service> = Probe::new();
    for reach in every_carrier(&service) {
        let error = reach.client.call::<_, ()>("panic", &(), PATIENCE).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::Internal),
            "{}: {error}",
            reach.name
        );
        assert_eq!(reach.client.call::<_, u8>("echo", &7, PATIENCE).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn calls_in_flight_end_with_their_server_and_the_next_one_finds_the_new() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let server = plain_server(&service, "tcp://127.0.0.1:*");
    let endpoint = server.endpoint();
    let (client, _connector) = connect(&server);
    let held = {
        let client = client.clone();
        spawn(async move { client.call::<_, ()>("hold", &(), PATIENCE).await })
    };
    reached(&probe.started, 1).await;
    drop(server);
    let error = held.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Closed), "{error}");
    reached(&probe.aborted, 1).await;

    let server = plain_server(&service, &endpoint);
    assert_eq!(server.endpoint(), endpoint);
    assert_eq!(client.call::<_, u8>("echo", &1, PATIENCE).await.unwrap(), 1);
}

#[tokio::test]
async fn a_restarted_curve_server_is_found_again() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    for round in 1..=3u8 {
        let mut reach = over_curve(&service);
        assert_eq!(reach.client.call::<_, u8>("echo", &round, PATIENCE).await.unwrap(), round);
        reach.server.take().unwrap().shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn what_timed_out_before_there_was_a_server_is_never_carried_out() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let server = plain_server(&service, "tcp://127.0.0.1:*");
    let endpoint = server.endpoint();
    server.shutdown(Duration::ZERO).await;

    let connector = RpcConnector::new(None).unwrap();
    let client = Client::new(connector.connect(&endpoint, None));
    let error = client.call::<_, u8>("echo", &1, SHORT).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");

    let _server = plain_server(&service, &endpoint);
    assert_eq!(client.call::<_, u8>("echo", &2, PATIENCE).await.unwrap(), 2);
    assert_eq!(probe.echoed.load(Ordering::SeqCst), 1);
}

/// libzmq's client gives up for good on a peer that speaks another mechanism.
#[tokio::test]
async fn a_server_of_another_kind_may_be_replaced_by_the_right_one() {
    let service: Arc<dyn Service> = Probe::new();
    let mut wrong = over_curve(&service);
    let wrong_server = wrong.server.take().unwrap();
    let endpoint = wrong_server.endpoint();
    let connector = RpcConnector::new(None).unwrap();
    let client = Client::new(connector.connect(&endpoint, None));
    let error = client.call::<_, u8>("echo", &1, SHORT).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    wrong_server.shutdown(Duration::ZERO).await;

    let _server = plain_server(&service, &endpoint);
    assert_eq!(client.call::<_, u8>("echo", &2, PATIENCE).await.unwrap(), 2);
}

#[tokio::test]
async fn a_shutdown_waits_for_calls_and_refuses_new_ones() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let mut reach = over_plain(&service, "tcp://127.0.0.1:*");
    let server = reach.server.take().unwrap();
    let held = {
        let client = reach.client.clone();
        spawn(async move { client.call::<_, ()>("hold", &(), PATIENCE).await })
    };
    reached(&probe.started, 1).await;
    let shutdown = spawn(server.shutdown(PATIENCE));
    loop {
        match reach.client.call::<_, u8>("echo", &1, PATIENCE).await {
            // The shutdown has not begun yet.
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                assert!(error.to_string().contains("shutting down"), "{error}");
                break;
            }
        }
    }
    assert!(!shutdown.is_finished());
    probe.release.add_permits(1);
    held.await.unwrap().unwrap();
    shutdown.await.unwrap();
}

#[tokio::test]
async fn a_shutdown_aborts_what_takes_too_long() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let mut reach = over_plain(&service, "tcp://127.0.0.1:*");
    let client = reach.client.clone();
    let held = spawn(async move { client.call::<_, ()>("hold", &(), PATIENCE).await });
    reached(&probe.started, 1).await;
    reach.server.take().unwrap().shutdown(Duration::from_millis(10)).await;
    assert!(matches!(held.await.unwrap(), Err(CallError::Closed)));
    reached(&probe.aborted, 1).await;
}

#[tokio::test]
async fn a_connection_outlives_its_connector() {
    let service: Arc<dyn Service> = Probe::new();
    let server = plain_server(&service, "tcp://127.0.0.1:*");
    let (client, connector) = connect(&server);
    drop(connector);
    assert_eq!(client.call::<_, u8>("echo", &3, PATIENCE).await.unwrap(), 3);
}

#[tokio::test]
async fn an_address_in_use_is_an_error() {
    let service: Arc<dyn Service> = Probe::new();
    let server = plain_server(&service, "tcp://127.0.0.1:*");
    let options = RpcServerOptions { bind: server.endpoint(), ..RpcServerOptions::default() };
    let error = RpcServer::bind(options, service).err().unwrap();
    assert_eq!(error.to_string(), format!("bind {}", server.endpoint()));
}

#[test]
fn a_server_needs_a_runtime() {
    let service: Arc<dyn Service> = Probe::new();
    assert!(RpcServer::bind(RpcServerOptions::default(), service).is_err());
}
