//! Who may call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backendai_rpc::call::{CallError, Client, ErrorKind, Service};
use backendai_rpc::transport::{
    CurveKeypair, PeerDirectory, RpcConnector, RpcServer, RpcServerOptions, TransportError,
};
use parking_lot::Mutex;

use crate::support::{PATIENCE, Probe, connect, curve_server, plain_server};

/// Several attempts of a handshake on loopback; what is right succeeds in a tenth of it.
const REFUSED: Duration = Duration::from_millis(700);

/// A directory that changes.
#[derive(Default)]
struct Known(Mutex<HashMap<String, String>>);

impl PeerDirectory for Known {
    fn peer_of(&self, public_key: &str) -> Option<String> {
        self.0.lock().get(public_key).cloned()
    }
}

async fn peer(client: &Client, timeout: Duration) -> Result<Option<String>, CallError> {
    client.call("context", &(), timeout).await
}

#[tokio::test]
async fn an_unknown_key_is_refused_until_it_is_known() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let known = Arc::new(Known::default());
    let keys = CurveKeypair::generate();
    let server_key = keys.public_key.clone();
    let server = curve_server(&service, keys, known.clone());

    let mine = CurveKeypair::generate();
    let connector = RpcConnector::new(Some(mine.clone())).unwrap();
    let client = Client::new(connector.connect(&server.endpoint(), Some(&server_key)));
    let error = peer(&client, REFUSED).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout { method: "context", .. }), "{error}");
    assert_eq!(*probe.started.borrow(), 0);

    known.0.lock().insert(mine.public_key.clone(), "i-agent".into());
    assert_eq!(peer(&client, PATIENCE).await.unwrap().as_deref(), Some("i-agent"));

    // Taking the key away counts at once, on the connection that stands.
    known.0.lock().clear();
    let error = peer(&client, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, CallError::Remote(e) if e.message.contains("key")), "{error}");
    assert_eq!(*probe.started.borrow(), 1);
}

#[tokio::test]
async fn nothing_passes_without_the_right_keys() {
    let probe = Probe::new();
    let service: Arc<dyn Service> = probe.clone();
    let mine = CurveKeypair::generate();
    let known = HashMap::from([(mine.public_key.clone(), "manager".to_owned())]);
    let keys = CurveKeypair::generate();
    let server_key = keys.public_key.clone();
    let server = curve_server(&service, keys, Arc::new(known));
    let endpoint = server.endpoint();

    let with_keys = RpcConnector::new(Some(mine.clone())).unwrap();
    let without = RpcConnector::new(None).unwrap();
    let other_server = CurveKeypair::generate().public_key;
    // Somebody else's public key does not help without its secret.
    let stolen =
        CurveKeypair::from_parts(mine.public_key.clone(), CurveKeypair::generate().secret_key());
    let thief = RpcConnector::new(Some(stolen.unwrap())).unwrap();
    let wrong = [
        ("wrong server", Client::new(with_keys.connect(&endpoint, Some(&other_server)))),
        ("plain", Client::new(without.connect(&endpoint, None))),
        ("no key", Client::new(without.connect(&endpoint, Some(&server_key)))),
        ("thief", Client::new(thief.connect(&endpoint, Some(&server_key)))),
    ];
    for (name, client) in &wrong {
        let error = peer(client, REFUSED).await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{name}: {error}");
    }
    assert_eq!(*probe.started.borrow(), 0);

    let right = Client::new(with_keys.connect(&endpoint, Some(&server_key)));
    assert_eq!(peer(&right, PATIENCE).await.unwrap().as_deref(), Some("manager"));
}

#[tokio::test]
async fn each_server_has_its_own_directory() {
    let service: Arc<dyn Service> = Probe::new();
    let mine = CurveKeypair::generate();
    let connector = RpcConnector::new(Some(mine.clone())).unwrap();
    let mut servers = Vec::new();
    for name in ["red", "green"] {
        let keys = CurveKeypair::generate();
        let server_key = keys.public_key.clone();
        let known = HashMap::from([(mine.public_key.clone(), name.to_owned())]);
        let server = curve_server(&service, keys, Arc::new(known));
        let client = Client::new(connector.connect(&server.endpoint(), Some(&server_key)));
        servers.push((name, server, client));
    }
    for (name, _server, client) in &servers {
        assert_eq!(peer(client, PATIENCE).await.unwrap().as_deref(), Some(*name));
    }
}

#[tokio::test]
async fn a_server_without_keys_stays_on_this_host() {
    let service: Arc<dyn Service> = Probe::new();
    for bind in ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0", "tcp://192.0.2.1:0"] {
        let options = RpcServerOptions { bind: bind.into(), ..RpcServerOptions::default() };
        let error = RpcServer::bind(options, Arc::clone(&service)).err().unwrap();
        assert!(matches!(error, TransportError::PlainNotLoopback { .. }), "{bind}: {error}");
        assert!(error.to_string().contains("configure a CURVE key pair"), "{error}");
    }
    // Nor does a client talk to another host in the clear.
    let connector = RpcConnector::new(None).unwrap();
    let client = Client::new(connector.connect("tcp://192.0.2.1:6001", None));
    assert!(matches!(peer(&client, PATIENCE).await, Err(CallError::Closed)));
}

#[tokio::test]
async fn a_unix_socket_serves_without_keys() {
    let dir = tempfile::tempdir().unwrap();
    let service: Arc<dyn Service> = Probe::new();
    let bind = format!("ipc://{}", dir.path().join("rpc.sock").display());
    let server = plain_server(&service, &bind);
    assert_eq!(server.endpoint(), bind);
    let (client, _connector) = connect(&server);
    assert_eq!(peer(&client, PATIENCE).await.unwrap(), None);
    let error = client.call::<_, ()>("nothing", &(), PATIENCE).await.unwrap_err();
    assert!(matches!(&error, CallError::Remote(e) if e.kind == ErrorKind::UnknownMethod));
}
