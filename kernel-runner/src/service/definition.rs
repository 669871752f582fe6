//! What the image says about its services: a JSON file each.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value as Json};

use super::action::Step;
use super::template::Template;
use crate::log::log;

/// Definitions of what is common, in the same language; used where an image has the program
/// and no definition of its own.
const BUILT_IN: &str = include_str!("built_in.json");
/// A larger file is none.
const MAX_FILE: u64 = 1 << 20;

/// How a service is started.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// The program and its arguments.
    pub command: Vec<Template>,
    /// There is nothing to start.
    pub noop: bool,
    /// How clients make a URL; not a template of ours.
    pub url_template: Option<String>,
    /// What is done before.
    #[serde(alias = "prestart_actions")]
    pub prestart: Vec<Step>,
    /// Variables of the program.
    pub env: BTreeMap<String, Template>,
    /// Variables that users may add.
    pub allowed_envs: Vec<String>,
    /// Arguments that users may add.
    pub allowed_arguments: Vec<String>,
    /// Arguments that are added unless users give others.
    pub default_arguments: Arguments,
}

/// Flags with none, one or several values, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(pub Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            One(String),
            Several(Vec<String>),
        }
        let mut arguments = Vec::new();
        for (flag, values) in Map::<String, Json>::deserialize(deserializer)? {
            let values: Option<Values> =
                serde_json::from_value(values).map_err(serde::de::Error::custom)?;
            let values = match values {
                None => Vec::new(),
                Some(Values::One(value)) => vec![value],
                Some(Values::Several(values)) => values,
            };
            arguments.push((flag, values));
        }
        Ok(Self(arguments))
    }
}

/// The definitions in a folder, by the names of their files. A file that cannot be used is
/// left out, and the container's log says why.
pub fn load(folder: &Path) -> BTreeMap<String, Definition> {
    let mut definitions = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return definitions };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        match read(&path) {
            Ok(definition) => {
                definitions.insert(name.to_owned(), definition);
            }
            Err(error) => log!("the service {name} is left out: {}: {error}", path.display()),
        }
    }
    definitions
}

fn read(path: &Path) -> Result<Definition, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("{length} bytes are too many"));
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let definition: Definition =
        serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if definition.command.is_empty() && !definition.noop {
        return Err("there is neither a command nor noop".to_owned());
    }
    Ok(definition)
}

/// Our own definition of a service of Python images.
pub fn built_in(name: &str) -> Option<Definition> {
    // What it is called has changed over the years.
    let name = if matches!(name, "ipython" | "notebook") { "jupyter" } else { name };
    let mut all: BTreeMap<String, Definition> = match serde_json::from_str(BUILT_IN) {
        Ok(all) => all,
        Err(error) => {
            log!("the services that are built in: {error}");
            return None;
        }
    };
    all.remove(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Definition, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn a_whole_definition_is_read() {
        let definition = parse(
            r#"{
                "command": ["{runtime_path}", "-m", "http.server", "{ports[0]}"],
                "url_template": "{protocol}://{host}:{port}/lab",
                "prestart_actions": [
                    {"action": "mkdir", "args": {"path": "/home/work/x"}},
                    {"action": "run_command", "args": {"command": ["id"]}, "ref": "id"}
                ],
                "env": {"TOKEN": "{id[out]}"},
                "allowed_envs": ["A"],
                "allowed_arguments": ["--dir"],
                "default_arguments": {"--quiet": null, "--dir": "x", "--bind": ["a", "b"]}
            }"#,
        )
        .unwrap();
        assert_eq!(definition.prestart.len(), 2);
        assert_eq!(definition.url_template.unwrap(), "{protocol}://{host}:{port}/lab");
        let flags: Vec<_> = definition.default_arguments.0;
        assert_eq!(
            flags,
            [
                ("--quiet".into(), vec![]),
                ("--dir".into(), vec!["x".into()]),
                ("--bind".into(), vec!["a".into(), "b".into()]),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_name() {
        for (text, expected) in [
            (r#"{"command": ["a"], "comand": []}"#, "comand"),
            (r#"{"command": ["{a.b}"]}"#, "{a.b}"),
            (r#"{"command": ["a"], "prestart": [{"action": "rm", "args": {}}]}"#, "rm"),
            (
                r#"{"command": ["a"], "prestart": [{"action": "mkdir", "args": {"dir": "x"}}]}"#,
                "dir",
            ),
            (
                r#"{"command": ["a"], "prestart": [{"action": "mkdir", "args": {"path": "x"}, "when": 1}]}"#,
                "when",
            ),
            (r#"{"command": ["a"], "default_arguments": {"-x": 5}}"#, "did not match"),
            (r#"{"url_template": "x"}"#, "neither a command nor noop"),
            ("[]]", "trailing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(parse(r#"{"noop": true}"#).unwrap().noop);
    }

    #[test]
    fn the_built_in_definitions_are_whole() {
        let all: BTreeMap<String, Definition> = serde_json::from_str(BUILT_IN).unwrap();
        assert!(all.values().all(|definition| !definition.command.is_empty()));
        assert!(built_in("jupyter").is_some() && built_in("x").is_none());
    }
}
