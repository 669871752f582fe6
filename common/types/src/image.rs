//! Names of kernel images and what their labels say.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "index.docker.io";
/// The repository of Docker Hub names without a slash.
pub const DEFAULT_REPOSITORY: &str = "lablup";

/// A full image name, `{registry}/{name}:{tag}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageRef {
    /// Registry host, with its port if it has one.
    pub registry: String,
    /// Repository path; may contain slashes.
    pub name: String,
    /// Tag, `latest` if none was given.
    pub tag: String,
}

/// The text is not an image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid image name")]
pub struct InvalidImageRef(pub String);

impl ImageRef {
    /// Parses a name. The first part is a registry if it is [`DEFAULT_REGISTRY`], among
    /// `known_registries`, an IP address, or looks like a host with a port.
    ///
    /// # Errors
    /// A scheme, an empty part, or a tag with characters that tags cannot have.
    pub fn parse(text: &str, known_registries: &[String]) -> Result<Self, InvalidImageRef> {
        let invalid = || InvalidImageRef(text.to_owned());
        if text.contains("://") || text.starts_with("//") || text.is_empty() {
            return Err(invalid());
        }
        let (path, tag) = match text.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (text, "latest"),
        };
        let mut tag_chars = tag.chars();
        let tag_ok = tag_chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && tag.ends_with(|c: char| c.is_ascii_alphanumeric())
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !tag_ok {
            return Err(invalid());
        }
        let (registry, name) = match path.split_once('/') {
            Some((first, rest)) if is_registry(first, known_registries) => {
                (first.to_owned(), rest.to_owned())
            }
            Some(_) => (DEFAULT_REGISTRY.to_owned(), path.to_owned()),
            None => (DEFAULT_REGISTRY.to_owned(), format!("{DEFAULT_REPOSITORY}/{path}")),
        };
        let name_ok = name.split('/').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        });
        if !name_ok {
            return Err(invalid());
        }
        Ok(Self { registry, name, tag: tag.to_owned() })
    }

    /// The canonical text.
    pub fn canonical(&self) -> String {
        self.to_string()
    }
}

fn is_registry(part: &str, known: &[String]) -> bool {
    part == DEFAULT_REGISTRY
        || known.iter().any(|registry| registry == part || registry == "*")
        || part.parse::<std::net::IpAddr>().is_ok()
        || part
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.name, self.tag)
    }
}

/// The spelling of an architecture that the product uses: `amd64` is `x86_64`, `arm64` is `aarch64`.
pub fn normalize_architecture(text: &str) -> String {
    match text {
        "amd64" | "x64" => "x86_64",
        "arm64" => "aarch64",
        "i686" | "x32" => "x86",
        other => other,
    }
    .to_owned()
}

/// A port that a kernel serves, as labels and requests declare it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// The app's name.
    pub name: String,
    /// `http`, `tcp` or `preopen`.
    pub protocol: String,
    /// Ports inside the container.
    pub container_ports: Vec<u16>,
    /// Ports on the agent's host, when there are any.
    #[serde(default)]
    pub host_ports: Vec<Option<u16>>,
    /// True for ports of model services.
    #[serde(default)]
    pub is_inference: bool,
    /// How clients make a URL of it, if the image says; passed on untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_template: Option<String>,
    /// Arguments that users may give, with the defaults: none, one or several values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_arguments: Option<BTreeMap<String, Vec<String>>>,
    /// Environment variables that users may give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_envs: Option<Vec<String>>,
}

/// The `ai.backend.service-ports` label cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service port {0:?} is not name:protocol:port or name:protocol:[port,port]")]
pub struct InvalidServicePort(pub String);

/// Parses the label `ai.backend.service-ports`: `jupyter:http:8080,x:tcp:[9000,9001]`.
///
/// # Errors
/// An entry of another shape, a port outside 1025..65534.
pub fn parse_service_ports(label: &str) -> Result<Vec<ServicePort>, InvalidServicePort> {
    let mut ports = Vec::new();
    let mut rest = label.trim();
    while !rest.is_empty() {
        let invalid = || InvalidServicePort(rest.to_owned());
        let mut parts = rest.splitn(3, ':');
        let (Some(name), Some(protocol), Some(tail)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid());
        };
        let (numbers, next) = match tail.strip_prefix('[') {
            Some(list) => list.split_once(']').ok_or_else(invalid)?,
            None => tail.split_once(',').map_or((tail, ""), |(n, r)| (n, r)),
        };
        let container_ports = numbers
            .split(',')
            .map(|n| n.trim().parse::<u16>().ok().filter(|p| (1025..=65534).contains(p)))
            .collect::<Option<Vec<u16>>>()
            .ok_or_else(invalid)?;
        if !matches!(protocol, "http" | "tcp" | "preopen" | "pty") {
            return Err(invalid());
        }
        if protocol != "pty" {
            ports.push(ServicePort {
                name: name.trim().to_owned(),
                protocol: protocol.to_owned(),
                host_ports: vec![None; container_ports.len()],
                container_ports,
                ..ServicePort::default()
            });
        }
        rest = next.trim_start_matches(',').trim();
    }
    Ok(ports)
}

/// The labels of an image with the product's defaults where one is missing.
#[derive(Clone, Copy, Debug)]
pub struct ImageLabels<'a>(pub &'a BTreeMap<String, String>);

impl<'a> ImageLabels<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(&format!("ai.backend.{name}")).map(String::as_str)
    }

    /// The language runtime: `python` unless labelled; `app` where only batch makes sense.
    pub fn runtime_type(&self) -> &'a str {
        self.get("runtime-type").unwrap_or("python")
    }

    /// The interpreter's absolute path, if labelled.
    pub fn runtime_path(&self) -> Option<&'a str> {
        self.get("runtime-path").filter(|path| !path.is_empty())
    }

    /// True when the image lists a feature: `batch`, `query`, `uid-match`, `user-input`…
    pub fn has_feature(&self, feature: &str) -> bool {
        self.get("features").is_some_and(|list| list.split_whitespace().any(|f| f == feature))
    }

    /// Default shared memory, if labelled.
    pub fn preferred_shmem(&self) -> Option<&'a str> {
        self.get("resource.preferred.shmem")
    }

    /// The raw service port label.
    pub fn service_ports(&self) -> Option<&'a str> {
        self.get("service-ports")
    }

    /// Environment variables that are set to the number of allocated cores.
    pub fn corecount_variables(&self) -> impl Iterator<Item = &'a str> {
        self.get("envs.corecount").unwrap_or("").split(',').map(str::trim).filter(|v| !v.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_parse_into_registry_name_and_tag() {
        let known = vec!["registry.example.com".to_owned()];
        for (text, canonical) in [
            ("python", "index.docker.io/lablup/python:latest"),
            ("lablup/python:3.12", "index.docker.io/lablup/python:3.12"),
            ("127.0.0.1:5000/stable/python:3.11", "127.0.0.1:5000/stable/python:3.11"),
            ("registry.example.com/python", "registry.example.com/python:latest"),
            ("index.docker.io/a/b/c:x", "index.docker.io/a/b/c:x"),
        ] {
            assert_eq!(ImageRef::parse(text, &known).expect(text).canonical(), canonical);
        }
        for text in ["", "http://x/y", "//x", "a:", "a:-b", "a//b", "a b"] {
            assert!(ImageRef::parse(text, &known).is_err(), "{text:?}");
        }
    }

    #[test]
    fn service_port_labels_parse() {
        let ports = parse_service_ports("web:http:8081,multi:tcp:[9000,9001],jupyter:http:8888")
            .expect("ports");
        let names: Vec<_> =
            ports.iter().map(|p| (p.name.as_str(), p.container_ports.clone())).collect();
        assert_eq!(
            names,
            [("web", vec![8081]), ("multi", vec![9000, 9001]), ("jupyter", vec![8888])]
        );
        for bad in ["web", "web:http", "web:http:80", "web:ftp:8080", "x:tcp:[1,2"] {
            assert!(parse_service_ports(bad).is_err(), "{bad}");
        }
    }
}
