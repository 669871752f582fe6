//! What a registry says of one image, and what of it is kept.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use backendai_datastore::image::{NewImage, SlotRange};
use backendai_types::image::{normalize_architecture, parse_service_ports};
use backendai_types::resource_slot::parse_amount;
use backendai_types::{ByteCount, ImageRef, SlotName};

/// The only version of the contract between images and agents.
const KERNELSPEC: &str = "1";
/// What a kernel needs at least, for images that do not say.
const DEFAULT_MINIMUMS: [(&str, &str); 2] = [("cpu", "1"), ("mem", "1g")];
const PREFIX: &str = "ai.backend.";

/// Media types of manifests that hold one image.
pub(super) const SINGLE: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
];
/// Media types of manifests that list images of several platforms.
pub(super) const INDEX: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];

/// A reference to content by its digest.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Descriptor {
    pub digest: String,
    #[serde(default)]
    pub size: i64,
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Present for signatures and attestations, which are no images.
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, Value>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Platform {
    pub architecture: String,
    #[serde(default)]
    pub os: String,
}

impl Descriptor {
    /// The architecture of an image that could run here; `None` for what is no image.
    pub(super) fn architecture(&self) -> Option<String> {
        let is_attestation = self.annotations.as_ref().is_some_and(|annotations| {
            annotations.keys().any(|key| key.starts_with("vnd.docker.reference."))
        });
        let platform = self.platform.as_ref().filter(|_| !is_attestation)?;
        let is_linux = platform.os.is_empty() || platform.os == "linux";
        (is_linux && platform.architecture != "unknown")
            .then(|| normalize_architecture(&platform.architecture))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// That of an image that an engine has: its id is the digest of its configuration.
    pub(super) fn of_engine(id: String, size: i64) -> Self {
        let config = Descriptor { digest: id, size, platform: None, annotations: None };
        Self { config, layers: Vec::new() }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Index {
    pub manifests: Vec<Descriptor>,
}

/// The image's configuration, as far as it matters.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    config: Option<RunConfig>,
    #[serde(default)]
    container_config: Option<RunConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RunConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

impl ImageConfig {
    /// That of an image that an engine has.
    pub(super) fn of_engine(
        architecture: String,
        labels: Option<BTreeMap<String, String>>,
    ) -> Self {
        Self { architecture, config: Some(RunConfig { labels }), container_config: None }
    }
}

/// One image of one platform.
#[derive(Clone, Debug)]
pub struct ImageManifest {
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

impl ImageManifest {
    /// Its architecture in the product's spelling.
    pub fn architecture(&self) -> String {
        normalize_architecture(&self.config.architecture)
    }

    /// The digest of its configuration.
    pub(super) fn config_digest(&self) -> &str {
        &self.manifest.config.digest
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let labels = |config: &Option<RunConfig>| {
            config.as_ref().and_then(|c| c.labels.clone()).filter(|labels| !labels.is_empty())
        };
        // Older builders wrote only the second.
        labels(&self.config.config)
            .or_else(|| labels(&self.config.container_config))
            .unwrap_or_default()
    }

    /// The row to store. An image without our labels gets the product's defaults.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn into_image(
        self,
        registry: &str,
        repository: &str,
        tag: &str,
    ) -> Result<NewImage, String> {
        let name = format!("{registry}/{repository}:{tag}");
        let reference =
            ImageRef::parse(&name, &[registry.to_owned()]).map_err(|e| e.to_string())?;
        let labels = self.labels();
        check_labels(&labels)?;
        let accelerators = labels.get("ai.backend.accelerators").map(|list| list.trim());
        let sizes = self.manifest.layers.iter().map(|layer| layer.size);
        Ok(NewImage {
            reference,
            architecture: self.architecture(),
            config_digest: self.manifest.config.digest.clone(),
            size_bytes: sizes.fold(self.manifest.config.size, i64::saturating_add),
            accelerators: accelerators.filter(|list| !list.is_empty()).map(str::to_owned),
            resources: limits(&labels)?,
            is_local: false,
            labels,
        })
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), String> {
    let get = |name: &str| labels.get(&format!("{PREFIX}{name}")).map(String::as_str);
    if let Some(version) = get("kernelspec")
        && version != KERNELSPEC
    {
        return Err(format!("kernelspec {version:?} is unknown; only {KERNELSPEC} is"));
    }
    if let Some(role) = get("role")
        && !["COMPUTE", "INFERENCE", "SYSTEM"].contains(&role)
    {
        return Err(format!("role {role:?} is unknown"));
    }
    if let Some(ports) = get("service-ports") {
        parse_service_ports(ports).map_err(|error| error.to_string())?;
    }
    if let Some(size) = get("resource.preferred.shmem") {
        size.parse::<ByteCount>().map_err(|_| format!("preferred.shmem {size:?} is not a size"))?;
    }
    Ok(())
}

/// Limits by slot from `ai.backend.resource.{min,max}.{slot}`.
fn limits(labels: &BTreeMap<String, String>) -> Result<BTreeMap<SlotName, SlotRange>, String> {
    let mut limits = BTreeMap::new();
    let amount = |slot: &SlotName, text: &str| {
        parse_amount(slot, text).map_err(|error| format!("resource limit: {error}"))
    };
    let labelled = |side: &str| {
        let prefix = format!("{PREFIX}resource.{side}.");
        labels.iter().filter_map(move |(name, text)| {
            let slot = name.strip_prefix(&prefix)?.to_owned();
            Some((SlotName(slot), text.trim()))
        })
    };
    let mins = DEFAULT_MINIMUMS.into_iter().map(|(slot, text)| (SlotName::from(slot), text));
    for (slot, text) in mins.chain(labelled("min")) {
        let min = amount(&slot, text)?;
        limits.insert(slot, SlotRange { min, max: None });
    }
    for (slot, text) in labelled("max").filter(|(_, text)| !text.is_empty()) {
        let max = amount(&slot, text)?;
        let range = limits.entry(slot).or_insert(SlotRange { min: Decimal::ZERO, max: None });
        range.max = Some(max);
    }
    match limits.iter().find(|(_, range)| range.max.is_some_and(|max| max < range.min)) {
        Some((slot, range)) => {
            let max = range.max.unwrap_or_default();
            Err(format!("the maximum of {slot} ({max}) is below its minimum ({})", range.min))
        }
        None => Ok(limits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(labels: Value) -> Result<NewImage, String> {
        let manifest = json!({
            "config": {"digest": "sha256:c", "size": 10},
            "layers": [{"digest": "sha256:l", "size": 100}, {"digest": "sha256:m", "size": 1}],
        });
        let config = json!({
            "architecture": "amd64",
            "config": {"Labels": null},
            "container_config": {"Labels": labels},
        });
        ImageManifest {
            manifest: serde_json::from_value(manifest).unwrap(),
            config: serde_json::from_value(config).unwrap(),
        }
        .into_image("127.0.0.1:5000", "stable/python", "3.11")
    }

    #[test]
    fn labels_become_limits() {
        let image = image(json!({
            "ai.backend.kernelspec": "1",
            "ai.backend.resource.min.cpu": "2",
            "ai.backend.resource.min.mem": "256m",
            "ai.backend.resource.min.cuda.shares": "0.5",
            "ai.backend.resource.max.cuda.shares": "4",
            "ai.backend.accelerators": "cuda",
            "x": "kept",
        }))
        .unwrap();
        assert_eq!(image.reference.canonical(), "127.0.0.1:5000/stable/python:3.11");
        assert_eq!((image.architecture.as_str(), image.size_bytes), ("x86_64", 111));
        assert_eq!(image.accelerators.as_deref(), Some("cuda"));
        assert_eq!(image.labels["x"], "kept");
        let limit = |slot: &str| image.resources[&SlotName::from(slot)];
        assert_eq!(limit("cpu"), SlotRange { min: Decimal::TWO, max: None });
        assert_eq!(limit("mem").min, Decimal::from(256 << 20));
        assert_eq!(limit("cuda.shares").max, Some(Decimal::from(4)));
    }

    #[test]
    fn an_image_without_labels_has_defaults() {
        let image = image(json!(null)).unwrap();
        assert_eq!(image.resources[&SlotName::mem()].min, Decimal::from(1 << 30));
        assert_eq!((image.accelerators, image.labels.len()), (None, 0));
    }

    #[test]
    fn labels_that_make_no_sense_are_told() {
        for (labels, why) in [
            (json!({"ai.backend.kernelspec": "2"}), "kernelspec"),
            (json!({"ai.backend.role": "KING"}), "KING"),
            (json!({"ai.backend.service-ports": "web:http:80"}), "web:http:80"),
            (json!({"ai.backend.resource.min.mem": "lots"}), "lots"),
            (
                json!({"ai.backend.resource.min.cpu": "4", "ai.backend.resource.max.cpu": "2"}),
                "below",
            ),
            (json!({"ai.backend.resource.preferred.shmem": "x"}), "shmem"),
        ] {
            let error = image(labels).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn attestations_and_other_systems_are_no_images() {
        let of = |value: Value| serde_json::from_value::<Descriptor>(value).unwrap().architecture();
        let platform = json!({"architecture": "arm64", "os": "linux"});
        assert_eq!(of(json!({"digest": "d", "platform": platform})).as_deref(), Some("aarch64"));
        let annotations = json!({"vnd.docker.reference.type": "attestation-manifest"});
        for other in [
            json!({"digest": "d"}),
            json!({"digest": "d", "platform": platform, "annotations": annotations}),
            json!({"digest": "d", "platform": {"architecture": "unknown", "os": "unknown"}}),
            json!({"digest": "d", "platform": {"architecture": "amd64", "os": "windows"}}),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
    }
}
