//! `/session/…/upload`, `/download`, `/download_single` and `/files`.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use uuid::Uuid;
use warp::Reply;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

use backendai_rpc::runner::files::{FileEntry, display_name, mode_text};
use backendai_service::telemetry::chain;

use super::super::call::{Call, no_content};
use super::super::multipart::Parts;
use super::super::params::{Checked, rules};
use super::super::problem::Problem;
use crate::app;
use crate::app::session::files::{self, Download, Listing, Uploads};

/// What an empty or missing path of a listing stands for.
const WORK_FOLDER: &str = ".";

/// `POST /session/{name}/upload`
///
/// Files before one that is refused stay uploaded.
pub async fn upload(mut call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut parts = Parts::of(&mut call)?;
    let mut uploads = files::upload(&call.app, &context, call.segment(0)).await?;
    let received = receive(&mut parts, &mut uploads).await;
    if received.is_err() {
        // A client that still sends would not see the answer.
        parts.skip_rest().await;
    }
    received.map(|()| no_content())
}

async fn receive(parts: &mut Parts, uploads: &mut Uploads) -> Result<(), Problem> {
    while let Some(mut part) = parts.next().await? {
        let name = part.file_name();
        let name =
            name.ok_or_else(|| Problem::invalid_params("A part is no file: it has no name."))?;
        // The stock client writes names as in URLs.
        let path = percent_encoding::percent_decode_str(name).collect();
        let mut upload = uploads.begin(path).await?;
        while let Some(bytes) = part.next().await? {
            upload.write(bytes).await?;
        }
        upload.finish().await?;
    }
    Ok(())
}

/// `GET /session/{name}/download`: an archive for each file, as parts of one body.
pub async fn download(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let paths = params.required(&["files"], one_or_more);
    params.finish()?;
    let files = files::download(&call.app, &context, call.segment(0), paths).await?;
    let boundary = Uuid::new_v4().simple().to_string();
    let mut pieces = VecDeque::new();
    for file in files {
        let length = file.length;
        pieces.push_back(Piece::Text(Bytes::from(format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Encoding: identity\r\nContent-Length: {length}\r\n\r\n"
        ))));
        pieces.push_back(Piece::File(Box::new(file)));
        pieces.push_back(Piece::Text(Bytes::from_static(b"\r\n")));
    }
    pieces.push_back(Piece::Text(Bytes::from(format!("--{boundary}--\r\n"))));
    Ok(send(&format!("multipart/mixed; boundary={boundary}"), pieces))
}

/// `GET /session/{name}/download_single`: the content of a file.
pub async fn download_single(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path = params.required(&["file"], rules::text);
    params.finish()?;
    let file = files::read(&call.app, &context, call.segment(0), path).await?;
    Ok(send("application/octet-stream", [Piece::File(Box::new(file))].into()))
}

/// `GET /session/{name}/files`: what is in a folder.
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let path = match call.json()?.get("path") {
        None => WORK_FOLDER.to_owned(),
        Some(Value::String(path)) => path.clone(),
        Some(_) => return Err(Problem::invalid_fields(json!({ "path": "value is not a string" }))),
    };
    let listing = files::list(&call.app, &context, call.segment(0), path.clone()).await?;
    let body = warp::reply::stream(listing_body(listing, path));
    Ok(warp::reply::with_header(body, CONTENT_TYPE, "application/json; charset=utf-8")
        .into_response())
}

/// A list of texts, or one text as a query has it.
fn one_or_more(value: Value) -> Checked<Vec<String>> {
    match value {
        Value::String(_) => rules::text(value).map(|text| vec![text]),
        _ => rules::list(rules::text)(value),
    }
}

/// A piece of a body.
enum Piece {
    Text(Bytes),
    File(Box<Download>),
}

/// Answers with pieces, one after the other. If a file breaks off, so does the answer, for
/// its length has been said.
fn send(content_type: &str, pieces: VecDeque<Piece>) -> Response {
    let length = |piece: &Piece| match piece {
        Piece::Text(text) => text.len() as u64,
        Piece::File(file) => file.length,
    };
    let length: u64 = pieces.iter().map(length).sum();
    let body = stream::try_unfold(pieces, async |mut pieces| {
        loop {
            match pieces.front_mut() {
                None => return Ok(None),
                Some(Piece::Text(text)) => {
                    let text = std::mem::take(text);
                    pieces.pop_front();
                    return Ok::<_, app::Error>(Some((text, pieces)));
                }
                Some(Piece::File(file)) => match file.next().await {
                    Ok(Some(bytes)) => return Ok(Some((bytes, pieces))),
                    Ok(None) => drop(pieces.pop_front()),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "a download was cut");
                        return Err(error);
                    }
                },
            }
        }
    });
    let mut response = warp::reply::stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    let content_type = HeaderValue::from_str(content_type);
    headers.insert(CONTENT_TYPE, content_type.expect("a boundary is hexadecimal digits"));
    response
}

/// Where the body of a listing stands.
enum Progress {
    Begin(Listing),
    /// And whether an entry has been written.
    Entries(Listing, bool),
    Done,
}

/// The listing as clients want it: a list as JSON in a string in JSON. What goes wrong after
/// the beginning is told in `errors`.
fn listing_body(listing: Listing, path: String) -> impl Stream<Item = Result<Bytes, app::Error>> {
    stream::unfold(Progress::Begin(listing), move |progress| {
        let path = path.clone();
        async move {
            let (text, next) = match progress {
                Progress::Begin(listing) => {
                    (r#"{"files":"["#.to_owned(), Progress::Entries(listing, false))
                }
                Progress::Entries(mut listing, any) => match listing.next().await {
                    Ok(Some(entries)) => {
                        let text = escaped(&entries_text(&entries, any));
                        let any = any || !entries.is_empty();
                        (text, Progress::Entries(listing, any))
                    }
                    Ok(None) => (listing_end("", &path), Progress::Done),
                    Err(error) => {
                        (listing_end(&Problem::from(error).summary(), &path), Progress::Done)
                    }
                },
                Progress::Done => return None,
            };
            Some((Ok(Bytes::from(text)), next))
        }
    })
}

fn entries_text(entries: &[FileEntry], mut any: bool) -> String {
    let mut text = String::new();
    for entry in entries {
        if std::mem::replace(&mut any, true) {
            text.push_str(", ");
        }
        let view = json!({
            "mode": mode_text(entry.mode),
            "size": entry.size,
            "ctime": entry.ctime,
            "mtime": entry.mtime,
            "atime": entry.atime,
            "filename": display_name(&entry.name),
        });
        text.push_str(&view.to_string());
    }
    text
}

fn listing_end(errors: &str, path: &str) -> String {
    let (errors, path) = (Value::from(errors), Value::from(path));
    format!(r#"]","errors":{errors},"abspath":{path}}}"#)
}

/// A text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_json_in_json() {
        let entry = |name: &[u8]| FileEntry {
            name: name.into(),
            mode: 0o041_755,
            size: 7,
            atime: 1.5,
            mtime: 2.0,
            ctime: 3.0,
        };
        let first = entries_text(&[entry(b"a\n\"\\"), entry("한".as_bytes())], false);
        let second = entries_text(&[entry(b"\xff")], true);
        let body = format!(
            r#"{{"files":"[{}{}{}"#,
            escaped(&first),
            escaped(&second),
            listing_end("broke off", ".")
        );
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&body["errors"], &body["abspath"]), (&json!("broke off"), &json!(".")));
        let files: Value = serde_json::from_str(body["files"].as_str().unwrap()).unwrap();
        let names: Vec<_> = files.as_array().unwrap().iter().map(|f| &f["filename"]).collect();
        assert_eq!(names, ["a\n\"\\", "한", "%FF"]);
        assert_eq!(files[0]["mode"], "drwxr-xr-t");
        assert_eq!((&files[0]["size"], &files[0]["atime"]), (&json!(7), &json!(1.5)));
    }
}
