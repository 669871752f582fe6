//! What each kernel gets: the request, completed and checked against the image.

use std::collections::BTreeMap;

use backendai_datastore::image::ImageRow;
use backendai_types::{ByteCount, ResourceSlots, SlotName, SlotType};
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::app::{Error, Result};

/// Shared memory where neither request nor image says anything.
const DEFAULT_SHMEM: ByteCount = ByteCount(64 << 20);
/// Memory of kernels of images that say nothing, beside the shared memory.
const DEFAULT_MEM: ByteCount = ByteCount(64 << 20);

/// Reads amounts as users write them; every slot must be known to the cluster.
pub(super) fn parse(
    resources: &Map<String, Value>,
    slot_types: &BTreeMap<SlotName, SlotType>,
) -> Result<ResourceSlots> {
    let slots = ResourceSlots::parse_map(resources)
        .map_err(|error| Error::invalid(format!("Invalid resource allocation: {error}")))?;
    match slots.0.keys().find(|slot| !slot_types.contains_key(*slot)) {
        Some(slot) => Err(Error::invalid(format!(
            "Invalid resource allocation: Unknown requested resource slot: {slot}"
        ))),
        None => Ok(slots),
    }
}

/// The slots and options of one kernel.
pub(super) fn for_kernel(
    asked: &ResourceSlots,
    options: &Map<String, Value>,
    image: &ImageRow,
) -> Result<(ResourceSlots, Value)> {
    let shmem = shmem(options, image)?;
    let (cpu, mem) = (SlotName::cpu(), SlotName::mem());
    let least = least(image, shmem);

    let mut slots = asked.clone();
    slots.0.retain(|_, amount| !amount.is_zero());
    for slot in [&cpu, &mem] {
        if slots.get(slot).is_zero() {
            let default = match least.get(slot) {
                amount if !amount.is_zero() => amount,
                _ if *slot == cpu => Decimal::ONE,
                _ => Decimal::from(DEFAULT_MEM.0),
            };
            slots.set(slot.clone(), default);
        }
    }
    if Decimal::from(shmem.0) >= slots.get(&mem) {
        return Err(Error::invalid(format!(
            "Shared memory should be less than the main memory. (s:{}, m:{})",
            shmem.humanize(),
            ByteCount(slots.mem_bytes()).humanize(),
        )));
    }
    if !least.fits_in(&slots) {
        return Err(Error::invalid(format!(
            "Your resource request is smaller than the minimum required by the image. ({})",
            least.humanize()
        )));
    }
    for (slot, amount) in slots.iter() {
        if let Some(most) = image.maximum(slot)
            && amount > most
        {
            let most = ResourceSlots::from_iter([(slot.clone(), most)]);
            return Err(Error::invalid(format!(
                "Your resource request is larger than the maximum allowed by the image. ({})",
                most.humanize()
            )));
        }
    }
    let mut options = options.clone();
    options.insert("shmem".into(), json!(shmem.0.to_string()));
    Ok((slots, options.into()))
}

/// The image's minimum; its memory does not include the shared part.
fn least(image: &ImageRow, shmem: ByteCount) -> ResourceSlots {
    let mut least: ResourceSlots =
        image.resources.iter().map(|(slot, range)| (slot.clone(), range.min)).collect();
    let mem = match least.get(&SlotName::mem()) {
        amount if amount.is_zero() => Decimal::from(DEFAULT_MEM.0),
        amount => amount,
    };
    least.set(SlotName::mem(), mem.saturating_add(Decimal::from(shmem.0)));
    least
}

fn shmem(options: &Map<String, Value>, image: &ImageRow) -> Result<ByteCount> {
    let asked = match options.get("shmem") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    match asked.as_deref().or(image.labels().preferred_shmem()) {
        None => Ok(DEFAULT_SHMEM),
        Some(text) => text
            .parse()
            .map_err(|error| Error::invalid(format!("Invalid resource option: shmem: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backendai_datastore::image::SlotRange;
    use backendai_types::ImageId;

    fn image(limits: &[(&str, &str, Option<&str>)]) -> ImageRow {
        let amount = |text: &str| text.parse::<Decimal>().unwrap();
        ImageRow {
            id: ImageId::random(),
            name: "r/i:t".into(),
            registry: "r".into(),
            image: "i".into(),
            tag: "t".into(),
            architecture: "x86_64".into(),
            created_at: chrono::Utc::now(),
            config_digest: "sha256:0".into(),
            size_bytes: 1,
            is_local: false,
            image_type: "compute".into(),
            accelerators: None,
            labels: BTreeMap::new(),
            resources: limits
                .iter()
                .map(|(slot, min, max)| {
                    let range = SlotRange { min: amount(min), max: max.map(amount) };
                    (SlotName::from(*slot), range)
                })
                .collect(),
        }
    }

    fn kernel(request: Value, options: Value, image: &ImageRow) -> Result<String, String> {
        let slots = serde_json::from_value(request).unwrap();
        let options = options.as_object().unwrap().clone();
        for_kernel(&slots, &options, image)
            .map(|(slots, _)| slots.humanize())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_asked_for_is_the_images_minimum() {
        let image = image(&[("cpu", "2", None), ("mem", "134217728", None)]);
        let got = kernel(json!({}), json!({}), &image);
        assert_eq!(got, Ok("cpu=2 mem=192m".into()), "128m and 64m shared");
        let got = kernel(json!({"cpu": 4, "mem": "1g", "gpu": 0}), json!({}), &image);
        assert_eq!(got, Ok("cpu=4 mem=1g".into()));
    }

    #[test]
    fn each_slot_is_held_against_the_images_limits() {
        let image = image(&[("cpu", "2", Some("4")), ("mem", "134217728", None)]);
        for (request, options, text) in [
            (json!({"cpu": 1, "mem": "1g"}), json!({}), "smaller than the minimum"),
            (json!({"cpu": 8, "mem": "1g"}), json!({}), "larger than the maximum"),
            (json!({"mem": "1g"}), json!({"shmem": "1g"}), "Shared memory should be less"),
            (json!({"mem": "1g"}), json!({"shmem": "much"}), "shmem"),
        ] {
            let error = kernel(request, options, &image).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
