//! The request for a session that a template stands for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use backendai_datastore::template::Template;

/// What a creation takes from a task template, by the canonical names of its fields. Only
/// what the template says is there.
pub fn task_base(template: &Template) -> Map<String, Value> {
    let body = &template.template;
    let at = |pointer: &str| body.pointer(pointer).cloned().filter(|value| !value.is_null());
    let mounts = body.pointer("/spec/mounts").and_then(Value::as_object);
    let mount_map: Map<String, Value> = mounts
        .into_iter()
        .flatten()
        .filter(|(_, path)| path.as_str().is_some_and(|path| !path.is_empty()))
        .map(|(folder, path)| (folder.clone(), path.clone()))
        .collect();
    let config = object([
        ("scaling_group", at("/spec/scaling_group")),
        ("mounts", mounts.map(|mounts| mounts.keys().cloned().collect())),
        ("mount_map", (!mount_map.is_empty()).then_some(mount_map.into())),
        ("environ", at("/spec/kernel/environ")),
        ("resources", at("/spec/resources")),
        ("agent_list", at("/spec/agent_list")),
    ]);
    let group = template.group_id.map(|id| json!(id));
    object([
        ("image", at("/spec/kernel/image")),
        ("architecture", at("/spec/kernel/architecture")),
        ("session_type", at("/spec/session_type")),
        ("tag", at("/metadata/tag")),
        ("startup_command", at("/spec/kernel/run/startup_command")),
        ("bootstrap_script", bootstrap(body).map(Value::from)),
        ("domain", Some(template.domain_name.as_str().into())),
        ("group", group),
        ("config", Some(config.into())),
    ])
}

/// As [`task_base`] for a cluster: its main node's template with the cluster's size, mode and
/// environment. `nodes` are the nodes' templates in order. `None` if no node is the main
/// one, or the nodes are not all alike: a session has one image for all of its kernels.
pub fn cluster_base(cluster: &Template, nodes: &[Template]) -> Option<Map<String, Value>> {
    let body = &cluster.template;
    let spec_nodes = body.pointer("/spec/nodes")?.as_array()?;
    let main = spec_nodes.iter().position(|node| node["role"] == "main")?;
    let kernel = |template: &Template| template.template.pointer("/spec/kernel/image").cloned();
    let main = nodes.get(main)?;
    if nodes.len() != spec_nodes.len() || nodes.iter().any(|node| kernel(node) != kernel(main)) {
        return None;
    }
    let size: i64 = spec_nodes.iter().filter_map(|node| node["replicas"].as_i64()).sum();
    let mut base = task_base(main);
    base.insert("cluster_size".into(), size.into());
    base.insert("cluster_mode".into(), body["mode"].clone());
    let environ = body.pointer("/spec/environ").and_then(Value::as_object);
    if let Some(Value::Object(config)) = base.get_mut("config") {
        let known = config.entry("environ").or_insert_with(|| json!({}));
        if let Value::Object(known) = known {
            known.extend(environ.cloned().unwrap_or_default());
        }
    }
    Some(base)
}

fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Map<String, Value> {
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The template's script, with a clone of its repository at the end.
fn bootstrap(body: &Value) -> Option<String> {
    let script = body.pointer("/spec/kernel/run/bootstrap").and_then(Value::as_str);
    let script = script.map(decoded);
    let git = body.pointer("/spec/kernel/git").filter(|git| !git.is_null()).and_then(clone_of);
    match (script, git) {
        (Some(script), Some(git)) => Some(format!("{}\n{git}", script.trim_end())),
        (script, git) => script.or(git),
    }
}

/// Scripts in templates are base64 by convention; plain ones are taken as they are.
fn decoded(script: &str) -> String {
    let compact: String = script.split_whitespace().collect();
    let text = STANDARD.decode(compact).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| script.to_owned())
}

/// The commands that clone a repository.
fn clone_of(git: &Value) -> Option<String> {
    let text = |name: &str| git[name].as_str().filter(|text| !text.is_empty());
    let mut url = text("repository")?.to_owned();
    if let Some(credential) = git["credential"].as_object()
        && let Some((scheme, rest)) = url.split_once("://")
    {
        let part = |name: &str| {
            let text = credential.get(name).and_then(Value::as_str).unwrap_or_default();
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        url = format!("{scheme}://{}:{}@{rest}", part("username"), part("password"));
    }
    let mut command = "git clone".to_owned();
    if let Some(branch) = text("branch") {
        command += &format!(" -b {}", quoted(branch));
    }
    command += &format!(" -- {}", quoted(&url));
    let folder = text("dest_dir").map(str::to_owned).unwrap_or_else(|| {
        let path = url.trim_end_matches('/');
        let name = path.rsplit('/').next().unwrap_or(path);
        name.strip_suffix(".git").unwrap_or(name).to_owned()
    });
    command += &format!(" {}\n", quoted(&folder));
    if let Some(commit) = text("commit") {
        command += &format!("git -C {} checkout {}\n", quoted(&folder), quoted(commit));
    }
    Some(command)
}

/// A word for the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_cloned_after_the_script() {
        let body = json!({"spec": {"kernel": {
            "run": {"bootstrap": STANDARD.encode("echo hi\n")},
            "git": {"repository": "https://git.example.org/a/b.git", "branch": "it's",
                    "commit": "c0ffee", "credential": {"username": "u", "password": "p@s"}},
        }}});
        assert_eq!(
            bootstrap(&body).unwrap(),
            "echo hi\ngit clone -b 'it'\\''s' -- 'https://u:p%40s@git.example.org/a/b.git' 'b'\n\
             git -C 'b' checkout 'c0ffee'\n"
        );
        let plain = json!({"spec": {"kernel": {"run": {"bootstrap": "echo plain text"}}}});
        assert_eq!(bootstrap(&plain).as_deref(), Some("echo plain text"));
        assert_eq!(bootstrap(&json!({"spec": {"kernel": {"git": null}}})), None);
    }
}
