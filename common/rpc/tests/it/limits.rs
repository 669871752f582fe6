//! Sizes, numbers and messages out of bounds.

use std::sync::Arc;

use backendai_rpc::call::{CallContext, CallError, Connection, ErrorKind, Service};
use backendai_rpc::transport::{CurveKeypair, RpcServerOptions};
use backendai_rpc::transport::{MAX_BODY, MemoryConnection, RpcConnector, RpcServer};

use crate::support::{PATIENCE, Probe, connect, plain_server, reached};

async fn bytes(
    connection: &dyn Connection,
    method: &'static str,
    body: Vec<u8>,
) -> Result<Vec<u8>, CallError> {
    connection.call(&CallContext::default(), method, body, PATIENCE).await
}

#[tokio::test]
async fn bodies_may_be_large_but_not_larger_than_the_limit() {
    let service: Arc<dyn Service> = Probe::new();
    let (mine, keys) = (CurveKeypair::generate(), CurveKeypair::generate());
    let known = [(mine.public_key.clone(), "me".to_owned())].into_iter().collect();
    let server_key = keys.public_key.clone();
    let directory: std::collections::HashMap<String, String> = known;
    let options = RpcServerOptions {
        security: Some((keys, Arc::new(directory))),
        ..RpcServerOptions::default()
    };
    let secured = RpcServer::bind(options, Arc::clone(&service)).unwrap();
    let plain = plain_server(&service, "tcp://127.0.0.1:*");
    let connector = RpcConnector::new(Some(mine)).unwrap();
    let connections = [
        ("memory", MemoryConnection::new(Arc::clone(&service), None)),
        ("plain", connector.connect(&plain.endpoint(), None)),
        ("curve", connector.connect(&secured.endpoint(), Some(&server_key))),
    ];
    for (name, connection) in &connections {
        for size in [0, 1, 10 << 20, MAX_BODY] {
            let body: Vec<u8> = (0..size).map(|index| (index % 253) as u8).collect();
            let echoed = bytes(&**connection, "echo", body.clone()).await.unwrap();
            assert!(echoed == body, "{name}: {size}");
        }
        let error = bytes(&**connection, "echo", vec![0; MAX_BODY + 1]).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::InvalidInput),
            "{name}: {error}"
        );
        let error = bytes(&**connection, "huge", Vec::new()).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Remote(e) if e.message.contains("33554433 bytes")),
            "{name}: {error}"
        );
        assert_eq!(bytes(&**connection, "echo", vec![1]).await.unwrap(), [1], "{name}");
    }
}

#[tokio::test]
async fn a_busy_server_says_so() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let options = RpcServerOptions { max_in_flight: 2, ..RpcServerOptions::default() };
    let server = RpcServer::bind(options, service).unwrap();
    let (client, _connector) = connect(&server);
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        held.spawn(async move { client.call::<_, ()>("hold", &(), PATIENCE).await });
    }
    reached(&probe.started, 2).await;
    let error = client.call::<_, u8>("echo", &1, PATIENCE).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("busy"), "{error}");
    // Places of cancelled calls are free again, and so are those of answered ones.
    probe.release.add_permits(2);
    for answer in held.join_all().await {
        answer.unwrap();
    }
    assert_eq!(client.call::<_, u8>("echo", &1, PATIENCE).await.unwrap(), 1);
}

#[tokio::test]
async fn many_servers_and_connections_live_in_one_process() {
    let service: Arc<dyn Service> = Probe::new();
    let connector = RpcConnector::new(None).unwrap();
    let mut peers = Vec::new();
    for _ in 0..100 {
        let server = plain_server(&service, "tcp://127.0.0.1:*");
        let connections: Vec<_> =
            (0..12).map(|_| connector.connect(&server.endpoint(), None)).collect();
        peers.push((server, connections));
    }
    for connection in peers.iter().flat_map(|(_, connections)| connections) {
        assert_eq!(bytes(&**connection, "echo", vec![5]).await.unwrap(), [5]);
    }
}

#[tokio::test]
async fn nonsense_does_not_disturb_others() {
    let service: Arc<dyn Service> = Probe::new();
    let server = plain_server(&service, "tcp://127.0.0.1:*");
    let context = zmq::Context::new();
    let socket = context.socket(zmq::DEALER).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(&server.endpoint()).unwrap();
    let request: &[u8] = b"\x83\xa2id\x05\xa4kind\xa7request\xa6method\xa4echo";
    let nonsense: [&[&[u8]]; 7] = [
        &[b""],
        &[b"", b"", b""],
        &[b"\xc1", b"x"],
        &[b"\x81\xa2id\x01", b"x"],
        &[b"\x82\xa2id\x01\xa4kind\xa5reply", b"x"],
        &[b"\x82\xa2id\x01\xa4kind\xa6cancel", b""],
        &[request],
    ];
    for frames in nonsense {
        socket.send_multipart(frames.iter().copied(), 0).unwrap();
    }
    // No name of a limit means that there is none.
    socket.send_multipart([request, b"hello"], 0).unwrap();
    let answer = tokio::task::spawn_blocking(move || socket.recv_multipart(0)).await.unwrap();
    assert_eq!(answer.unwrap(), [&b"\x82\xa2id\x05\xa4kind\xa5reply"[..], b"hello"]);

    let (client, _connector) = connect(&server);
    assert_eq!(client.call::<_, u8>("echo", &1, PATIENCE).await.unwrap(), 1);
}
