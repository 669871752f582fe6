//! Layered configuration: defaults < the first file found < its drop-ins < environment <
//! command line.
//!
//! A daemon declares its sections as structs with `deny_unknown_fields` and a [`Schema`]
//! that names its file and environment variables; [`Schema::load`] gives the value and
//! where each key came from. Errors name file, line and key.

pub mod agent_file;
mod diagnose;
pub mod reference;
mod values;

use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use diagnose::ConfigError;
pub use values::{HostPort, Secret, text};

/// Where a daemon's configuration comes from.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// File stem: `manager` reads `manager.toml` and `manager.d/*.toml`.
    pub name: &'static str,
    /// Prefix of variables that can set any key: `BACKENDAI_MANAGER` makes
    /// `BACKENDAI_MANAGER__DB__POOL_SIZE` set `db.pool-size`.
    pub env_prefix: &'static str,
    /// The product's own variables and the keys they set: `("BACKEND_DB_ADDR", "db.addr")`.
    pub env_names: &'static [(&'static str, &'static str)],
}

/// A loaded configuration and the origin of every value.
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Keys of the files that were dropped, as [`Schema::load_ignoring`] was told to.
    pub ignored: Vec<String>,
    figment: Figment,
}

/// One line of `config show`.
#[derive(Clone, Debug, Serialize)]
pub struct ShownValue {
    /// Dotted key.
    pub key: String,
    /// Value as TOML; `(secret)` for secrets.
    pub value: String,
    /// `default`, a file, or an environment variable.
    pub origin: String,
}

impl Schema {
    /// Loads the configuration. `explicit` is the file of the command line; otherwise
    /// `$BACKEND_CONFIG_FILE`, then the usual places. `overrides` are keys set by the
    /// command line.
    ///
    /// # Errors
    /// No or unreadable explicit file, unknown keys, wrong types, missing values.
    pub fn load<T: DeserializeOwned + Serialize + Default>(
        &self,
        explicit: Option<&Path>,
        overrides: &[(&str, String)],
    ) -> Result<Loaded<T>, ConfigError> {
        self.load_ignoring(explicit, overrides, &[])
    }

    /// As [`Schema::load`], dropping `ignored` keys of the files: keys and sections that
    /// other implementations of the product have and that mean nothing here, so that their
    /// files can be used as they are.
    ///
    /// # Errors
    /// As [`Schema::load`].
    pub fn load_ignoring<T: DeserializeOwned + Serialize + Default>(
        &self,
        explicit: Option<&Path>,
        overrides: &[(&str, String)],
        ignored: &'static [&'static str],
    ) -> Result<Loaded<T>, ConfigError> {
        let file = self.find_file(explicit)?;
        let mut dropped = Vec::new();
        let mut figment = Figment::from(Serialized::defaults(T::default()));
        for path in file.iter().cloned().chain(file.iter().flat_map(|path| drop_ins(path))) {
            diagnose::check_syntax(&path)?;
            let file = TomlFile { file: Toml::file_exact(&path), ignored };
            dropped.extend(file.dropped());
            figment = figment.merge(file);
        }
        let environment = self.environment();
        for (name, key, text) in environment {
            figment =
                figment.merge(Variable::new(format!("environment variable {name}"), &key, &text));
        }
        for (key, text) in overrides {
            figment = figment.merge(Variable::new("command line".to_owned(), key, text));
        }
        match figment.extract::<T>() {
            Ok(value) => Ok(Loaded { value, file, ignored: dropped, figment }),
            Err(error) => Err(diagnose::explain(error, file.as_deref(), self.name)),
        }
    }

    fn find_file(&self, explicit: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
        let from_env = std::env::var_os("BACKEND_CONFIG_FILE").map(PathBuf::from);
        if let Some(path) = explicit.map(Path::to_owned).or(from_env) {
            if !path.is_file() {
                return Err(ConfigError::NoFile { path });
            }
            return Ok(Some(path));
        }
        Ok(self.search_path().into_iter().find(|path| path.is_file()))
    }

    /// The files looked for when none is named, in order.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let file = format!("{}.toml", self.name);
        let mut places = vec![PathBuf::from(format!("./{file}"))];
        if let Some(home) = std::env::var_os("HOME") {
            places.push(Path::new(&home).join(".config/backend.ai").join(&file));
        }
        places.push(Path::new("/etc/backend.ai").join(&file));
        places
    }

    /// (variable, key, text) for every variable that is set.
    fn environment(&self) -> Vec<(String, String, String)> {
        let mut found: Vec<_> = self
            .env_names
            .iter()
            .filter_map(|(name, key)| {
                std::env::var(name).ok().map(|text| ((*name).to_owned(), (*key).to_owned(), text))
            })
            .collect();
        let prefix = format!("{}__", self.env_prefix);
        let mut general: Vec<_> = std::env::vars()
            .filter_map(|(name, text)| {
                let rest = name.strip_prefix(&prefix)?;
                let key = rest.split("__").map(|part| part.to_lowercase().replace('_', "-"));
                let key = key.collect::<Vec<_>>().join(".");
                Some((name, key, text))
            })
            .collect();
        general.sort();
        found.extend(general);
        found
    }
}

impl<T> Loaded<T> {
    /// Runs a check of the whole and adds to its error where in which file the key stands
    /// with which the error's text begins.
    ///
    /// # Errors
    /// The check's.
    pub fn check(
        &self,
        check: impl FnOnce(&T) -> Result<(), ConfigError>,
    ) -> Result<(), ConfigError> {
        match check(&self.value) {
            Err(ConfigError::Contradiction(message)) => {
                let key = message.split([':', ' ']).next().unwrap_or_default();
                let metadata = self.figment.find_metadata(key);
                match metadata.and_then(|m| m.source.as_ref()).and_then(|s| s.file_path()) {
                    Some(file) => {
                        let parts: Vec<_> = key.split('.').map(str::to_owned).collect();
                        Err(ConfigError::Value { place: diagnose::locate(file, &parts), message })
                    }
                    None => Err(ConfigError::Contradiction(message)),
                }
            }
            result => result,
        }
    }
}

impl<T: Serialize> Loaded<T> {
    /// Every value with its origin, in order of the key. Secrets are not shown.
    pub fn show(&self) -> Vec<ShownValue> {
        let mut lines = Vec::new();
        if let Ok(Value::Dict(_, dict)) = Value::serialize(&self.value) {
            self.show_dict("", &dict, &mut lines);
        }
        lines
    }

    fn show_dict(&self, prefix: &str, dict: &Dict, lines: &mut Vec<ShownValue>) {
        for (name, value) in dict {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Dict(_, inner) if !inner.is_empty() => self.show_dict(&key, inner, lines),
                other => {
                    let origin = self
                        .figment
                        .find_metadata(&key)
                        .map_or_else(|| "default".to_owned(), origin_of);
                    lines.push(ShownValue { value: print_value(other), key, origin });
                }
            }
        }
    }
}

fn origin_of(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(figment::Source::file_path) {
        Some(path) => path.display().to_string(),
        None if metadata.name.starts_with("environment") || metadata.name == "command line" => {
            metadata.name.to_string()
        }
        None => "default".to_owned(),
    }
}

fn print_value(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Empty(..) => "(none)".to_owned(),
        other => match serde_json::to_string(other) {
            Ok(text) => text,
            Err(error) => format!("({error})"),
        },
    }
}

/// `X.d/*.toml` beside `X.toml`, by name.
fn drop_ins(file: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(file.with_extension("d")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

/// A file without the keys that are ignored.
struct TomlFile {
    file: figment::providers::Data<Toml>,
    ignored: &'static [&'static str],
}

impl TomlFile {
    /// The ignored keys that the file has. A file that cannot be read has none; figment
    /// reports it.
    fn dropped(&self) -> Vec<String> {
        let Ok(mut profiles) = self.file.data() else { return Vec::new() };
        let has = |key: &&&str| profiles.values_mut().any(|dict| remove(dict, key));
        self.ignored.iter().filter(has).map(ToString::to_string).collect()
    }
}

impl Provider for TomlFile {
    fn metadata(&self) -> Metadata {
        self.file.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut profiles = self.file.data()?;
        for dict in profiles.values_mut() {
            for key in self.ignored {
                remove(dict, key);
            }
        }
        Ok(profiles)
    }
}

/// Removes a dotted key; true if it was there.
fn remove(dict: &mut Dict, key: &str) -> bool {
    match key.split_once('.') {
        None => dict.remove(key).is_some(),
        Some((section, rest)) => match dict.get_mut(section) {
            Some(Value::Dict(_, inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

/// One key with one value from somewhere outside the files.
struct Variable {
    origin: String,
    key: String,
    value: Value,
}

impl Variable {
    fn new(origin: String, key: &str, text: &str) -> Self {
        // Like figment's own environment provider: numbers, booleans, arrays and tables are
        // recognised; everything else is text.
        let value = text.parse::<Value>().unwrap_or_else(|_| Value::from(text));
        Self { origin, key: key.to_owned(), value }
    }
}

impl Provider for Variable {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = figment::util::nest(&self.key, self.value.clone());
        let dict = dict.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        db: Db,
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Db {
        addr: HostPort,
        pool_size: u32,
        password: Secret,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                db: Db {
                    addr: HostPort::new("127.0.0.1", 5432),
                    pool_size: 8,
                    password: Secret::default(),
                },
            }
        }
    }

    const SCHEMA: Schema =
        Schema { name: "sample", env_prefix: "BACKENDAI_SAMPLE_TEST", env_names: &[] };

    fn load(text: &str) -> Result<Loaded<Sample>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        std::fs::write(&path, text).unwrap();
        SCHEMA.load(Some(&path), &[])
    }

    #[test]
    fn a_file_overrides_defaults_and_its_drop_ins_override_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        std::fs::create_dir(dir.path().join("sample.d")).unwrap();
        std::fs::write(&path, "[db]\naddr = \"db.example:1\"\npassword = \"hidden\"\n").unwrap();
        std::fs::write(dir.path().join("sample.d/10.toml"), "db.addr = [\"two\", 2]\n").unwrap();
        let overrides = [("db.pool-size", "9".to_owned())];
        let loaded = SCHEMA.load::<Sample>(Some(&path), &overrides).unwrap();
        assert_eq!(loaded.value.db.addr, HostPort::new("two", 2));
        assert_eq!(loaded.value.db.pool_size, 9);
        let shown = loaded.show();
        let find = |key: &str| shown.iter().find(|line| line.key == key).unwrap().clone();
        assert!(find("db.addr").origin.ends_with("10.toml"), "{shown:?}");
        assert_eq!(find("db.pool-size").origin, "command line");
        assert!(!find("db.password").value.contains("hidden"), "{shown:?}");
    }

    #[test]
    fn ignored_keys_are_dropped_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.toml");
        std::fs::write(&path, "[db]\ntype = \"x\"\npool-size = 3\n[debug]\na = 1\n").unwrap();
        let ignored = &["db.type", "debug", "db.other"];
        let loaded = SCHEMA.load_ignoring::<Sample>(Some(&path), &[], ignored).unwrap();
        assert_eq!(loaded.ignored, ["db.type", "debug"]);
        assert_eq!(loaded.value.db.pool_size, 3);
        assert!(SCHEMA.load::<Sample>(Some(&path), &[]).is_err());
        let wrong = || Err(ConfigError::Contradiction("db.pool-size: odd".into()));
        let error = loaded.check(|_| wrong()).unwrap_err().to_string();
        assert!(error.contains("sample.toml:3:1: db.pool-size: odd"), "{error}");
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = load("[db]\naddr = \"a:1\"\n\naddrs = 1\n").err().unwrap().to_string();
        assert!(unknown.contains("sample.toml:4:1") && unknown.contains("addrs"), "{unknown}");
        let wrong = load("[db]\npool-size = \"many\"\n").err().unwrap().to_string();
        assert!(wrong.contains("sample.toml:2") && wrong.contains("db.pool-size"), "{wrong}");
        let syntax = load("[db\n").err().unwrap().to_string();
        assert!(syntax.contains("sample.toml:1"), "{syntax}");
        let port = load("[db]\naddr = \"nowhere\"\n").err().unwrap().to_string();
        assert!(port.contains("host:port"), "{port}");
    }
}
