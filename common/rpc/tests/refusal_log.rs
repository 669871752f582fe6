//! What an operator reads when a key is refused. Alone in its process, as it takes over
//! the log.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backendai_rpc::call::{CallContext, Client, RemoteError, Service};
use backendai_rpc::transport::{CurveKeypair, RpcConnector, RpcServer, RpcServerOptions};
use parking_lot::Mutex;

struct Nothing;

#[async_trait]
impl Service for Nothing {
    async fn serve(&self, _: CallContext, _: &str, _: &[u8]) -> Result<Vec<u8>, RemoteError> {
        Ok(Vec::new())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refused_key_is_logged_once_and_shortened() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().json().with_writer(move || writer.clone()).init();

    let keys = CurveKeypair::generate();
    let server_key = keys.public_key.clone();
    let directory = Arc::new(HashMap::new());
    let options =
        RpcServerOptions { security: Some((keys, directory)), ..RpcServerOptions::default() };
    let server = RpcServer::bind(options, Arc::new(Nothing)).unwrap();
    let mine = CurveKeypair::generate();
    let connector = RpcConnector::new(Some(mine.clone())).unwrap();
    let client = Client::new(connector.connect(&server.endpoint(), Some(&server_key)));
    // Time for several attempts.
    let refused: Result<(), _> = client.call("nothing", &(), Duration::from_secs(1)).await;
    refused.unwrap_err();

    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["level"] == "WARN")
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert_eq!(lines[0]["fields"]["key"], mine.public_key[..8]);
    assert_eq!(lines[0]["fields"]["address"], "127.0.0.1");
}
