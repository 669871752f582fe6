//! Prints how many calls a second one connection carries, with 64 in flight, and how long
//! a call takes when it is the only one.
//!
//! `cargo run --release -p backendai-rpc --features zmq --example throughput`

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backendai_rpc::call::{CallContext, Client, Connection, RemoteError, Service};
use backendai_rpc::transport::{
    CurveKeypair, MemoryConnection, RpcConnector, RpcServer, RpcServerOptions,
};

struct Echo;

#[async_trait]
impl Service for Echo {
    async fn serve(&self, _: CallContext, _: &str, body: &[u8]) -> Result<Vec<u8>, RemoteError> {
        Ok(body.to_vec())
    }
}

const IN_FLIGHT: usize = 64;
const CALLS: usize = 100_000;
const SINGLE_CALLS: usize = 5_000;
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service: Arc<dyn Service> = Arc::new(Echo);
    let (mine, keys) = (CurveKeypair::generate(), CurveKeypair::generate());
    let directory = HashMap::from([(mine.public_key.clone(), "bench".to_owned())]);
    let server_key = keys.public_key.clone();
    let secured = RpcServerOptions {
        security: Some((keys, Arc::new(directory))),
        ..RpcServerOptions::default()
    };
    let secured = RpcServer::bind(secured, Arc::clone(&service))?;
    let plain = RpcServer::bind(RpcServerOptions::default(), Arc::clone(&service))?;
    let connector = RpcConnector::new(Some(mine))?;

    measure("memory", MemoryConnection::new(service, None)).await?;
    measure("zmq plain", connector.connect(&plain.endpoint(), None)).await?;
    measure("zmq CURVE", connector.connect(&secured.endpoint(), Some(&server_key))).await?;
    plain.shutdown(TIMEOUT).await;
    secured.shutdown(TIMEOUT).await;
    Ok(())
}

async fn measure(
    name: &str,
    connection: Arc<dyn Connection>,
) -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(connection);
    let body = "x".repeat(200);
    let _: String = client.call("echo", &body, TIMEOUT).await?;

    let start = Instant::now();
    for _ in 0..SINGLE_CALLS {
        let _: String = client.call("echo", &body, TIMEOUT).await?;
    }
    let single = start.elapsed() / SINGLE_CALLS as u32;

    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, body) = (client.clone(), body.clone());
        callers.spawn(async move {
            for _ in 0..CALLS / IN_FLIGHT {
                let _: String = client.call("echo", &body, TIMEOUT).await?;
            }
            Ok::<_, backendai_rpc::call::CallError>(())
        });
    }
    for done in callers.join_all().await {
        done?;
    }
    let rate = CALLS as f64 / start.elapsed().as_secs_f64();
    println!("{name:10} {rate:9.0} calls/s with {IN_FLIGHT} in flight, {single:?} alone");
    Ok(())
}
