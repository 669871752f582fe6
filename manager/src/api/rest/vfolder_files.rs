//! `/folders/{name}/…`: what is in a folder.

use backendai_rpc::runner::files::mode_text;
use backendai_storage::{Entry, Kind};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use warp::reply::Response;

use super::super::call::{Call, ok};
use super::super::params::rules;
use super::super::problem::Problem;
use super::vfolder::created;
use crate::app::vfolder::files;

/// `GET /folders/{name}/files`
pub async fn list(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: String = params.optional(&["path"], String::new(), rules::any_text);
    params.finish()?;
    let entries = files::list(&call.app, &context, call.segment(0), &path).await?;
    let items: Vec<Value> = entries.iter().map(item).collect();
    let files: Vec<Value> = entries.iter().map(file).collect();
    Ok(ok(&json!({ "items": items, "files": Value::from(files).to_string() })))
}

fn item(entry: &Entry) -> Value {
    let kind = match entry.kind {
        Kind::Directory => "DIRECTORY",
        Kind::Link => "SYMLINK",
        Kind::File | Kind::Special => "FILE",
    };
    let iso = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, false);
    json!({
        "name": entry.name,
        "type": kind,
        "size": entry.size,
        "mode": format!("{:03o}", entry.mode & 0o777),
        "created": iso(entry.created),
        "modified": iso(entry.modified),
    })
}

/// The older form, which the stock client's command line shows.
fn file(entry: &Entry) -> Value {
    let seconds = |at: DateTime<Utc>| at.timestamp_micros() as f64 / 1e6;
    json!({
        "filename": entry.name,
        "size": entry.size,
        "mode": mode_text(entry.mode),
        "ctime": seconds(entry.created),
        "atime": 0,
        "mtime": seconds(entry.modified),
    })
}

/// `POST /folders/{name}/mkdir`
pub async fn make_directory(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let path: String = params.required(&["path"], rules::text);
    let parents = params.optional(&["parents"], true, rules::lenient_bool);
    let exist_ok = params.optional(&["exist_ok"], false, rules::lenient_bool);
    params.finish()?;
    let name = call.segment(0);
    files::make_directory(&call.app, &context, name, &path, parents, exist_ok).await?;
    Ok(created())
}

/// `POST /folders/{name}/rename-file`
pub async fn rename(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let target: String = params.required(&["target_path"], rules::text);
    let new_name: String = params.required(&["new_name"], rules::text);
    params.optional(&["is_dir"], false, rules::lenient_bool);
    params.finish()?;
    files::rename(&call.app, &context, call.segment(0), &target, &new_name).await?;
    Ok(ok(&json!({})))
}

/// `POST /folders/{name}/move-file`
pub async fn move_file(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let from: String = params.required(&["src"], rules::text);
    let to: String = params.required(&["dst"], rules::text);
    params.finish()?;
    files::move_file(&call.app, &context, call.segment(0), &from, &to).await?;
    Ok(ok(&json!({})))
}

/// `DELETE /folders/{name}/delete-files`
pub async fn remove(call: Call) -> Result<Response, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    let paths: Vec<String> = params.required(&["files"], rules::list(rules::text));
    let recursive = params.optional(&["recursive"], false, rules::lenient_bool);
    params.finish()?;
    files::remove(&call.app, &context, call.segment(0), &paths, recursive).await?;
    Ok(ok(&json!({})))
}
