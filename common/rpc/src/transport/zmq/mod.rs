//! Calls between processes, over ZeroMQ.
//!
//! A server is one ROUTER socket with one thread of its own; a connector is one thread
//! with one DEALER socket per peer. Their threads sleep until a socket or the tokio side
//! has something, and only move frames: calls run as tokio tasks.
//!
//! # Being connected
//! Sockets queue nothing while there is no connection (`ZMQ_IMMEDIATE`): a call waits on our
//! side until the handshake is done, and a caller that gives up before has never called.
//! A DEALER is writable exactly while it is connected, as its own queue has no limit, so
//! no socket monitor is needed (two more sockets per peer, and one that is not read in time
//! stops libzmq's I/O thread). When a connection is lost, the calls in flight on it fail with
//! [`CallError::Closed`](crate::call::CallError::Closed) at once: the far side knows us
//! by the connection, so no answer can come any more. They may have been carried out.
//!
//! Also lost is what libzmq has received but not handed out when the far end closes. So a
//! server that shuts down says goodbye and waits for the echo before it closes.
//!
//! libzmq tries to connect again after 100 ms, then less and less often, every 2 s in the
//! end. A call that finds no connection does not wait for that but makes a new attempt.
//!
//! # Keys
//! With CURVE, a wrong key on either side is silence for the client: its calls time out, and
//! a warning names the address. The server logs each refused key. Refused clients keep
//! trying (ZAP status 300), so one whose key is registered later needs no restart.
//!
//! # Dead peers
//! Clients send a ZMTP ping every 10 s. A host that vanished is noticed in at most 30 s by
//! both sides, however long the calls; idle connections stay up.

mod client;
mod context;
mod inbox;
mod link;
mod server;
mod server_loop;
mod zap;

pub use self::client::RpcConnector;
pub use self::server::{RpcServer, RpcServerOptions};

use std::net::IpAddr;

use super::{MAX_BODY, TransportError};

/// Room for what CURVE adds to a message.
const MAX_FRAME: i64 = MAX_BODY as i64 + 1024;
/// How often a client pings, milliseconds.
const HEARTBEAT_MS: i32 = 10_000;
/// How long a ping may stay without any traffic in return, milliseconds. Leaves a slow line
/// time for one large message.
const HEARTBEAT_TIMEOUT_MS: i32 = 20_000;
/// After how long without a ping the server drops a client, milliseconds.
const HEARTBEAT_TTL_MS: i32 = 30_000;
/// First pause before connecting again, milliseconds.
const RECONNECT_MS: i32 = 100;
/// Longest pause before connecting again, milliseconds.
const RECONNECT_MAX_MS: i32 = 2_000;
/// TCP and CURVE handshakes that take longer are started anew, milliseconds. TCP's own
/// patience is two minutes.
const HANDSHAKE_MS: i32 = 5_000;

/// Sets what sockets of both sides have in common.
fn set_common_options(socket: &zmq::Socket, address: &Address) -> zmq::Result<()> {
    socket.set_linger(0)?;
    socket.set_maxmsgsize(MAX_FRAME)?;
    socket.set_handshake_ivl(HANDSHAKE_MS)?;
    socket.set_ipv6(address.is_ipv6)?;
    socket.set_tcp_keepalive(1)?;
    socket.set_tcp_keepalive_idle(60)?;
    socket.set_tcp_keepalive_intvl(20)?;
    socket.set_tcp_keepalive_cnt(3)
}

/// An address as libzmq wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    text: String,
    /// False when other hosts could be at the other end.
    is_local: bool,
    is_ipv6: bool,
}

impl Address {
    /// Reads `tcp://HOST:PORT` (the scheme may be left out), `ipc://PATH` or `inproc://NAME`.
    /// Port 0 means any, as `*` does.
    fn parse(text: &str) -> Result<Self, TransportError> {
        let error = |reason| TransportError::Address { address: text.to_owned(), reason };
        let rest = match text.split_once("://") {
            Some(("tcp", rest)) => rest,
            Some(("ipc" | "inproc", rest)) if !rest.is_empty() => {
                return Ok(Self { text: text.to_owned(), is_local: true, is_ipv6: false });
            }
            Some(_) => return Err(error("expected tcp://, ipc:// or inproc://")),
            None => text,
        };
        let (host, port) = rest.rsplit_once(':').ok_or(error("expected HOST:PORT"))?;
        let port = match port {
            "*" | "0" => "*",
            port if port.parse::<u16>().is_ok() => port,
            _ => return Err(error("the port is not a number up to 65535")),
        };
        // Binding does not look names up, and this one is needed.
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_ipv6 = matches!(ip, Some(IpAddr::V6(_)));
        let host =
            if is_ipv6 { format!("[{}]", host.trim_matches(['[', ']'])) } else { host.into() };
        Ok(Self {
            text: format!("tcp://{host}:{port}"),
            is_local: ip.is_some_and(|ip| ip.is_loopback()),
            is_ipv6,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            ("tcp://127.0.0.1:6001", "tcp://127.0.0.1:6001", true, false),
            ("127.0.0.1:0", "tcp://127.0.0.1:*", true, false),
            ("tcp://localhost:*", "tcp://127.0.0.1:*", true, false),
            ("tcp://0.0.0.0:5002", "tcp://0.0.0.0:5002", false, false),
            ("tcp://*:5002", "tcp://*:5002", false, false),
            ("tcp://[::1]:5002", "tcp://[::1]:5002", true, true),
            ("tcp://[::]:5002", "tcp://[::]:5002", false, true),
            ("manager.example:5002", "tcp://manager.example:5002", false, false),
            ("ipc:///run/agent.sock", "ipc:///run/agent.sock", true, false),
            ("inproc://agent", "inproc://agent", true, false),
        ];
        for (given, text, is_local, is_ipv6) in cases {
            let expected = Address { text: text.into(), is_local, is_ipv6 };
            assert_eq!(Address::parse(given).unwrap(), expected, "{given}");
        }
        for wrong in ["", "tcp://", "127.0.0.1", ":6001", "tcp://h:65536", "udp://h:1", "ipc://"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
