//! The web terminal: a page and a websocket, over streams that somebody else accepted.
//!
//! It speaks the protocol of the program of the same name, so its page and others made for
//! it work. All its tabs show the kernel's one [`Terminal`].

mod session;

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL,
};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::terminal::Terminal;

const PAGE: &str = include_str!("page.html");
const SCREEN: &str = include_str!("screen.js");
const CLIENT: &str = include_str!("client.js");
/// The websocket's protocol.
const SUBPROTOCOL: &str = "tty";

/// Serves one connection to its end.
pub async fn serve<S>(stream: S, terminal: Rc<Terminal>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrade = RefCell::new(None);
    let service = service_fn(|request| {
        let response = answer(request, &upgrade);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    let upgrade: Option<OnUpgrade> = upgrade.take();
    // A peer that breaks off or speaks something else gets nothing more.
    if let (Ok(()), Some(upgrade)) = (connection, upgrade)
        && let Ok(upgraded) = upgrade.await
    {
        session::serve(TokioIo::new(upgraded), &terminal).await;
    }
}

/// Longest head of a request: browsers send every cookie of the host.
const MAX_HEAD: usize = 64 << 10;

fn answer(
    mut request: Request<Incoming>,
    upgrade: &RefCell<Option<OnUpgrade>>,
) -> Response<String> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    match request.uri().path() {
        "/" => document("text/html; charset=utf-8", PAGE),
        "/screen.js" => document("text/javascript; charset=utf-8", SCREEN),
        "/client.js" => document("text/javascript; charset=utf-8", CLIENT),
        // Whoever reaches this has been let in by the manager.
        "/token" => document("application/json", r#"{"token":""}"#),
        "/ws" => {
            if is_foreign(&request) {
                return refusal(StatusCode::FORBIDDEN);
            }
            let Ok(mut response) = create_response_with_body(&request, String::new) else {
                return refusal(StatusCode::BAD_REQUEST);
            };
            if request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL) {
                let protocol = HeaderValue::from_static(SUBPROTOCOL);
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
            }
            upgrade.replace(Some(hyper::upgrade::on(&mut request)));
            response
        }
        _ => refusal(StatusCode::NOT_FOUND),
    }
}

/// True for a request that another site's page makes a browser send: through a local proxy
/// it would reach the user's terminal.
fn is_foreign(request: &Request<Incoming>) -> bool {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(ORIGIN) else { return false };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none_or(|host| text(HOST).is_none_or(|own| !own.eq_ignore_ascii_case(host)))
}

fn document(kind: &'static str, text: &str) -> Response<String> {
    let mut response = Response::new(text.to_owned());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // The next runner may be another version at the same address.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(status: StatusCode) -> Response<String> {
    let mut response = Response::new(format!("{status}\n"));
    *response.status_mut() = status;
    response
}
