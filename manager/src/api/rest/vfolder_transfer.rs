//! Uploads (TUS 1.0) and downloads: asked for with a signature, carried out with a token.

use backendai_storage::{Archive, Chunks};
use chrono::{DateTime, Utc};
use futures::stream;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use warp::Reply;
use warp::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use warp::http::{Method, StatusCode};
use warp::reply::Response;

use super::super::call::{Call, no_content, ok};
use super::super::params::{Checked, Params, rules};
use super::super::problem::Problem;
use crate::app::Error;
use crate::app::error::VfolderError;
use crate::app::vfolder::transfer::{self, Content, MAX_SIZE, UploadState};

/// Where bodies of files are sent to.
pub const UPLOAD_PATH: &str = "/storage/upload";
/// Where they are fetched.
const DOWNLOAD_PATH: &str = "/storage/download";
/// Headers of the protocol, for browsers.
const TUS_HEADERS: &str =
    "Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Content-Type";

/// `POST /folders/{name}/request-upload`
pub async fn request_upload(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: String = params.required(&["path"], rules::text);
    let size = params.required(&["size"], rules::int);
    params.finish()?;
    let name = call.segment(0);
    let token = transfer::request_upload(&call.app, &context, name, &path, size).await?;
    Ok(ok(&json!({ "token": token, "url": url(&call.headers, UPLOAD_PATH) })))
}

/// `POST /folders/{name}/request-download`
pub async fn request_download(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: String = params.required(&["path", "file"], rules::text);
    let archive = params.optional(&["archive"], false, rules::lenient_bool);
    params.finish()?;
    let name = call.segment(0);
    let token = transfer::request_download(&call.app, &context, name, &path, archive).await?;
    Ok(ok(&json!({ "token": token, "url": url(&call.headers, DOWNLOAD_PATH) })))
}

/// An URL of the server that the client has reached, as the client knows it.
fn url(headers: &HeaderMap, path: &str) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = text("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or("http");
    format!("{scheme}://{}{path}", text("host").unwrap_or("localhost"))
}

/// What the query of a transfer says.
struct Transfer {
    token: String,
    directory: Option<String>,
}

impl Transfer {
    fn read(params: &mut Params) -> Self {
        Self {
            token: params.required(&["token"], rules::text),
            directory: params.optional(&["dst_dir"], None, rules::null_or(rules::any_text)),
        }
    }
}

/// `HEAD /storage/upload`: how far an upload is.
pub async fn upload_state(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let Transfer { token, directory } = Transfer::read(&mut params);
    params.finish_ignoring_others()?;
    let state = transfer::upload_state(&call.app, &token, directory.as_deref()).await?;
    Ok(tus(Response::default(), Some(state)))
}

/// `PATCH /storage/upload`: some bytes of a file.
pub async fn upload(mut call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let Transfer { token, directory } = Transfer::read(&mut params);
    params.finish_ignoring_others()?;
    let offset = call.headers.get("upload-offset").and_then(|value| value.to_str().ok());
    let offset = offset
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("The header Upload-Offset must say where the bytes go."))?;
    let body = call.stream.take().ok_or_else(Problem::bad_request)?;
    let directory = directory.as_deref();
    let state = transfer::upload(&call.app, &token, directory, offset, body).await?;
    Ok(tus(no_content(), Some(state)))
}

fn wrong(message: &str) -> Problem {
    Error::from(VfolderError::Transfer(message.to_owned())).into()
}

/// Adds what TUS wants in every answer.
pub fn tus(mut response: Response, state: Option<UploadState>) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    };
    set("tus-resumable", "1.0.0");
    set("access-control-allow-origin", "*");
    set("access-control-allow-methods", "*");
    set("access-control-allow-headers", TUS_HEADERS);
    set("access-control-expose-headers", TUS_HEADERS);
    set("cache-control", "no-store");
    match state {
        Some(state) => {
            headers.insert("upload-offset", state.offset.into());
            headers.insert("upload-length", state.size.into());
        }
        None => {
            headers.insert("tus-version", HeaderValue::from_static("1.0.0"));
            headers.insert("tus-max-size", MAX_SIZE.into());
            headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        }
    }
    response
}

/// `GET /storage/download`
pub async fn download(call: Call) -> Result<Response, Problem> {
    let mut params = call.params()?;
    let Transfer { token, directory } = Transfer::read(&mut params);
    let archive = params.optional(&["archive"], None, archive);
    let inline = params.optional(&["inline"], false, rules::lenient_bool);
    let no_cache = params.optional(&["no_cache"], false, rules::lenient_bool);
    params.finish_ignoring_others()?;
    let content = transfer::download(&call.app, &token, directory.as_deref(), archive).await?;
    let (mut response, name) = match content {
        Content::File(file) => {
            let name = file.entry.name.clone();
            (send_file(&call.headers, file), name)
        }
        Content::Archive(chunks, name) => {
            let (kind, ending) = match archive {
                Some(Archive::Tar) => ("application/x-tar", "tar"),
                _ => ("application/zip", "zip"),
            };
            let mut response = stream_of(chunks);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            (response, format!("{name}.{ending}"))
        }
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&disposition(&name, inline)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if no_cache {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// `zip`, `tar`, or whether there shall be one.
fn archive(value: Value) -> Checked<Option<Archive>> {
    match value.as_str() {
        Some("zip") => Ok(Some(Archive::Zip)),
        Some("tar") => Ok(Some(Archive::Tar)),
        _ => Ok(rules::lenient_bool(value)?.then_some(Archive::Zip)),
    }
}

/// A file, or the part of it that is asked for.
fn send_file(request: &HeaderMap, file: backendai_storage::OpenFile) -> Response {
    let size = file.entry.size;
    let modified = http_date(file.entry.modified);
    let etag = format!("\"{:x}-{size:x}\"", file.entry.modified.timestamp_micros());
    let text = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_same = text(header::IF_RANGE).is_none_or(|known| known == modified || known == etag);
    let range = text(header::RANGE).filter(|_| is_same).and_then(|range| parse_range(range, size));
    let mut response = match range {
        None => {
            let mut response = stream_of(file.chunks(0, size));
            response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
            response
        }
        Some(Some((first, last))) => {
            let length = last - first + 1;
            let mut response = stream_of(file.chunks(first, length));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{size}"));
            response
        }
        Some(None) => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            response
        }
    };
    insert(&mut response, header::LAST_MODIFIED, &modified);
    insert(&mut response, header::ETAG, &etag);
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::CONTENT_TYPE, "application/octet-stream");
    response
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn stream_of(chunks: Chunks) -> Response {
    let body = stream::unfold(chunks, async |mut chunks| {
        let chunk = chunks.recv().await?;
        // The answer breaks off, for its length has been said.
        let chunk = chunk.map_err(Error::from);
        if let Err(error) = &chunk {
            let error = backendai_service::telemetry::chain(error);
            tracing::warn!(error, "a download was cut");
        }
        Some((chunk, chunks))
    });
    warp::reply::stream(body).into_response()
}

/// The first and last byte that a range asks for. `None` where it asks for what we do not
/// serve in parts: all of it is sent then. `Some(None)` where there is no such part.
fn parse_range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    if first.is_empty() {
        let length: u64 = last.parse().ok()?;
        let within = (length > 0 && size > 0).then(|| (size.saturating_sub(length), size - 1));
        return Some(within);
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| (first, last.min(size - 1))))
}

fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// How a file is named where it is saved.
fn disposition(name: &str, inline: bool) -> String {
    let odd = |c: char| !c.is_ascii() || c.is_control() || matches!(c, '"' | '\\' | '%');
    let ascii: String = name.chars().map(|c| if odd(c) { '_' } else { c }).collect();
    let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let kind = if inline { "inline" } else { "attachment" };
    format!("{kind};filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// What a browser asks before it uploads, and what tells TUS clients what we can do.
pub fn is_upload_preflight(method: &Method, path: &str) -> bool {
    method == Method::OPTIONS && path == UPLOAD_PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parts_of_the_file() {
        assert_eq!(parse_range("bytes=0-", 10), Some(Some((0, 9))));
        assert_eq!(parse_range("bytes=3-5", 10), Some(Some((3, 5))));
        assert_eq!(parse_range("bytes=3-50", 10), Some(Some((3, 9))));
        assert_eq!(parse_range("bytes=-4", 10), Some(Some((6, 9))));
        assert_eq!(parse_range("bytes=-40", 10), Some(Some((0, 9))));
        assert_eq!(parse_range("bytes=10-", 10), Some(None));
        assert_eq!(parse_range("bytes=0-", 0), Some(None));
        for whole in ["bytes=5-3", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "bytes"] {
            assert_eq!(parse_range(whole, 10), None, "{whole}");
        }
    }

    #[test]
    fn names_of_downloads_are_quoted() {
        assert_eq!(
            disposition("a \"b\"\r\n한.txt", false),
            "attachment;filename=\"a _b____.txt\"; \
             filename*=UTF-8''a%20%22b%22%0D%0A%ED%95%9C%2Etxt"
        );
    }
}
