//! The texts of templates: JSON or YAML in, one canonical spelling out.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::call::has_nul;
use super::super::params::{Checked, Params, rules};
use super::super::problem::Problem;
use crate::app::template::Draft;
use backendai_datastore::template::TemplateKind;

/// Reads a payload: a template, a list of them, or several documents; each as it is or as
/// `{"name", "group_id", "user_uuid", "template"}`.
///
/// # Errors
/// It is neither JSON nor YAML, or one of them is no template.
pub fn read(kind: TemplateKind, payload: &str) -> Result<Vec<Draft>, Problem> {
    let malformed = || Problem::invalid_params("Malformed payload");
    let items = parse(payload).ok_or_else(malformed)?;
    if items.is_empty() {
        return Err(malformed());
    }
    items.into_iter().map(|item| draft(kind, item).map_err(Problem::invalid_fields)).collect()
}

/// Items in order; lists are taken apart.
fn parse(payload: &str) -> Option<Vec<Value>> {
    let documents = match serde_json::from_str(payload) {
        Ok(document) => vec![document],
        Err(_) => serde_saphyr::from_multiple::<Value>(payload).ok()?,
    };
    if documents.iter().any(has_nul) {
        return None;
    }
    let items = documents.into_iter().flat_map(|document| match document {
        Value::Array(items) => items,
        document => vec![document],
    });
    // An empty document follows a closing separator.
    Some(items.filter(|item| !item.is_null()).collect())
}

fn draft(kind: TemplateKind, item: Value) -> Checked<Draft> {
    let read = |value| match kind {
        TemplateKind::Task => task(value),
        TemplateKind::Cluster => cluster(value),
    };
    if item.get("template").is_none() {
        let template = read(item)?;
        return Ok(Draft { name: None, group_id: None, user_id: None, template });
    }
    rules::nested(|params| Draft {
        name: params.optional(&["name"], None, rules::null_or(rules::text)),
        group_id: params.optional(&["group_id"], None, rules::null_or(rules::uuid)),
        user_id: params.optional::<Option<Uuid>>(&["user_uuid"], None, rules::null_or(rules::uuid)),
        template: params.required(&["template"], read),
    })(item)
}

/// A task template.
fn task(value: Value) -> Checked<Value> {
    open(value, |params| {
        let mut template = head(params, &["taskTemplate", "task_template"]);
        template["spec"] = params.required(&["spec"], rules::nested(task_spec));
        template
    })
}

/// A cluster template.
fn cluster(value: Value) -> Checked<Value> {
    open(value, |params| {
        let mut template = head(params, &["clusterTemplate", "cluster_template"]);
        let mode: String =
            params.required(&["mode"], rules::choice(&["single-node", "multi-node"]));
        template["mode"] = mode.into();
        template["spec"] = params.required(&["spec"], cluster_spec);
        template
    })
}

/// An object that may have other keys besides.
fn open(value: Value, read: impl FnOnce(&mut Params) -> Value) -> Checked<Value> {
    let mut params = Params::new(rules::object(value)?);
    let template = read(&mut params);
    params.into_result_ignoring_others()?;
    Ok(template)
}

fn head(params: &mut Params, kinds: &'static [&'static str]) -> Value {
    let version: String = params.required(&["api_version", "apiVersion"], rules::text);
    let kind: String = params.required(&["kind"], rules::choice(kinds));
    let metadata: Value = params.required(
        &["metadata"],
        rules::nested(|params| {
            let name: String = params.required(&["name"], rules::text);
            let tag: Option<String> =
                params.optional(&["tag"], None, rules::null_or(rules::any_text));
            json!({ "name": name, "tag": tag })
        }),
    );
    json!({ "api_version": version, "kind": kind, "metadata": metadata })
}

fn task_spec(params: &mut Params) -> Value {
    let types = &["interactive", "batch", "inference"];
    let session_type = params.optional(
        &["session_type", "type", "sessionType"],
        "interactive".to_owned(),
        rules::choice(types),
    );
    let kernel: Value = params.required(&["kernel"], rules::nested(kernel));
    let scaling_group: Option<String> =
        params.optional(&["scaling_group", "scalingGroup"], None, rules::null_or(rules::text));
    let mounts = params.optional(&["mounts"], None, rules::null_or(mounts));
    let resources = params.optional(&["resources"], None, rules::null_or(rules::object));
    let agents: Option<Vec<String>> = params.optional(
        &["agent_list", "agentList"],
        None,
        rules::null_or(rules::list(rules::text)),
    );
    json!({
        "session_type": session_type,
        "kernel": kernel,
        "scaling_group": scaling_group,
        "mounts": mounts.unwrap_or_default(),
        "resources": resources,
        "agent_list": agents,
    })
}

/// Paths by folder; an empty one is the default place.
fn mounts(value: Value) -> Checked<Map<String, Value>> {
    let nullable = |value: Value| match value {
        Value::Null => Ok(String::new()),
        value => rules::any_text(value),
    };
    let mounts = rules::map(nullable)(value)?;
    Ok(mounts.into_iter().map(|(folder, path)| (folder, path.into())).collect())
}

fn environ(params: &mut Params) -> Value {
    let environ = params.optional(&["environ"], None, rules::null_or(rules::map(rules::text)));
    json!(environ.unwrap_or_default())
}

fn kernel(params: &mut Params) -> Value {
    let image: String = params.required(&["image"], rules::text);
    let architecture = params.optional(&["architecture"], "x86_64".to_owned(), rules::text);
    let environ = environ(params);
    let run = params.optional(&["run"], None, rules::null_or(rules::nested(run)));
    let git = params.optional(&["git"], None, rules::null_or(rules::nested(git)));
    json!({
        "image": image,
        "architecture": architecture,
        "environ": environ,
        "run": run,
        "git": git,
    })
}

fn optional_text(params: &mut Params, names: &[&str]) -> Option<String> {
    params.optional(names, None, rules::null_or(rules::any_text))
}

fn run(params: &mut Params) -> Value {
    json!({
        "bootstrap": optional_text(params, &["bootstrap"]),
        "startup_command":
            optional_text(params, &["startup_command", "startup", "startupCommand"]),
    })
}

fn git(params: &mut Params) -> Value {
    let repository: String = params.required(&["repository"], rules::text);
    let credential = params.optional(
        &["credential"],
        None,
        rules::null_or(rules::nested(|params| {
            let username: String = params.required(&["username"], rules::text);
            let password: String = params.required(&["password"], rules::text);
            json!({ "username": username, "password": password })
        })),
    );
    json!({
        "repository": repository,
        "commit": optional_text(params, &["commit"]),
        "branch": optional_text(params, &["branch"]),
        "credential": credential,
        "dest_dir": optional_text(params, &["dest_dir", "destination_dir", "destinationDir"]),
    })
}

fn cluster_spec(value: Value) -> Checked<Value> {
    let spec = rules::nested(|params| {
        let nodes: Vec<Value> = params.required(
            &["nodes"],
            rules::list(|value| {
                rules::nested(|params| {
                    let role: String = params.required(&["role"], rules::text);
                    let template: Uuid =
                        params.required(&["session_template", "sessionTemplate"], rules::uuid);
                    let replicas = params.optional(&["replicas"], 1, rules::int_within(1, 1 << 16));
                    json!({ "role": role, "session_template": template, "replicas": replicas })
                })(value)
            }),
        );
        json!({ "environ": environ(params), "mounts": mounts_of(params), "nodes": nodes })
    })(value)?;
    let main = |node: &&Value| node["role"] == "main";
    let count: i64 = spec["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(main)
        .filter_map(|node| node["replicas"].as_i64())
        .sum();
    match count {
        1 => Ok(spec),
        _ => Err(json!({ "nodes": "exactly one node must have the role main" })),
    }
}

fn mounts_of(params: &mut Params) -> Map<String, Value> {
    params.optional(&["mounts"], None, rules::null_or(mounts)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
apiVersion: v1
kind: taskTemplate
metadata: {name: train}
spec:
  type: batch
  kernel:
    image: python
    run: {startup: 'python train.py'}
    git: {repository: 'https://x/y', destinationDir: here}
  mounts: {data: null, models: /models}
  resources: {cpu: 2, mem: 1g}
";

    #[test]
    fn all_ways_to_write_templates_mean_the_same() {
        let one = read(TemplateKind::Task, YAML).unwrap().pop().unwrap().template;
        assert_eq!(one["spec"]["session_type"], "batch");
        assert_eq!(one["spec"]["kernel"]["architecture"], "x86_64");
        assert_eq!(one["spec"]["kernel"]["run"]["startup_command"], "python train.py");
        assert_eq!(one["spec"]["kernel"]["git"]["dest_dir"], "here");
        assert_eq!(one["spec"]["mounts"], json!({"data": "", "models": "/models"}));
        let item = json!({"name": "other", "template": one});
        for payload in [
            format!("[{one}, {one}]"),
            format!("---{YAML}---{YAML}---\n"),
            format!("[{item}, {one}]"),
        ] {
            let drafts = read(TemplateKind::Task, &payload).unwrap();
            assert_eq!(drafts.len(), 2, "{payload}");
            assert!(drafts.iter().all(|draft| draft.template == one), "{payload}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for payload in ["", "[]", "{", "a: b: c", "\"\\u0000\""] {
            assert!(read(TemplateKind::Task, payload).is_err(), "{payload:?}");
        }
        let error = task(json!({"kind": "x", "metadata": {"name": ""}, "spec": {"kernel": {}}}));
        assert_eq!(
            error.unwrap_err(),
            json!({
                "api_version": "is required",
                "kind": "value doesn't match any variant",
                "metadata": {"name": "blank value is not allowed"},
                "spec": {"kernel": {"image": "is required"}},
            })
        );
        let nodes = |role: &str| {
            json!({"apiVersion": "v1", "kind": "clusterTemplate", "mode": "multi-node",
                   "metadata": {"name": "c"}, "spec": {"nodes": [
                {"role": role, "sessionTemplate": Uuid::nil()}]}})
        };
        assert!(cluster(nodes("main")).is_ok());
        assert!(cluster(nodes("sub")).is_err());
    }
}
