//! What operators do to single images.

use backendai_datastore::image::{ImageRow, SlotRange};
use backendai_datastore::image_change::ImageChange;
use backendai_datastore::{Datastore, DatastoreError};
use backendai_types::resource_slot::parse_amount;
use backendai_types::{ImageId, SlotName};
use serde_json::{Value, json};

use crate::app::{Error, Result};

/// What images are for.
const IMAGE_TYPES: [&str; 3] = ["compute", "system", "service"];

/// Gives an image another name.
///
/// # Errors
/// The alias is taken or cannot be one.
pub async fn alias(datastore: &Datastore, alias: &str, image: &ImageRow) -> Result<()> {
    if alias.is_empty() || alias.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("{alias:?} cannot be an alias")));
    }
    let tx = datastore.autocommit().await?;
    match tx.image_alias_add(alias, image.id).await {
        Err(DatastoreError::Conflict { .. }) => {
            let taken = tx.images_aliased(alias).await?.into_iter().next();
            let by = taken.map_or("another image".to_owned(), |row| {
                format!("{} ({})", row.name, row.architecture)
            });
            Err(Error::invalid(format!(
                "the alias {alias} is taken by {by}; `image dealias {alias}` would free it"
            )))
        }
        result => Ok(result?),
    }
}

/// Removes an alias.
///
/// # Errors
/// There is no such alias.
pub async fn dealias(datastore: &Datastore, alias: &str) -> Result<()> {
    if datastore.autocommit().await?.image_alias_remove(alias).await? {
        return Ok(());
    }
    Err(Error::NotFound { object: "image alias", message: Some(alias.to_owned()) })
}

/// Forgets an image with its aliases. Sessions that use it go on.
///
/// # Errors
/// It is gone already.
pub async fn forget(datastore: &Datastore, image: &ImageRow) -> Result<()> {
    if datastore.autocommit().await?.image_delete(image.id).await? {
        return Ok(());
    }
    Err(Error::NotFound { object: "environment image", message: Some(image.name.clone()) })
}

/// Changes what is known of an image.
///
/// # Errors
/// It is gone, a value makes no sense, or another image has its new name.
pub async fn modify(datastore: &Datastore, image: &ImageRow, change: ImageChange) -> Result<()> {
    if let Some(kind) = &change.image_type
        && !IMAGE_TYPES.contains(&kind.as_str())
    {
        let known = IMAGE_TYPES.join(", ");
        return Err(Error::invalid(format!("type: {kind:?} is none of {known}")));
    }
    if change.size_bytes.is_some_and(|size| size < 0) {
        return Err(Error::invalid("size_bytes: must not be negative"));
    }
    if datastore.autocommit().await?.image_modify(image.id, &change).await? {
        return Ok(());
    }
    Err(Error::NotFound { object: "environment image", message: Some(image.name.clone()) })
}

/// Forgets all images of a registry with their aliases. Sessions that use them go on.
///
/// # Errors
/// There are none.
pub async fn clear(datastore: &Datastore, registry: &str) -> Result<()> {
    match datastore.autocommit().await?.images_clear(registry).await? {
        0 => Err(Error::BadRequest(format!("there are no images of the registry {registry}"))),
        _ => Ok(()),
    }
}

/// A least and a most of a slot, as people write them; an absent least is zero, an absent
/// most is without limit.
///
/// # Errors
/// One of them is no amount, or the most is below the least.
pub fn slot_range(slot: &SlotName, min: Option<&str>, max: Option<&str>) -> Result<SlotRange> {
    let text = |side: Option<&str>| match side {
        Some("Infinity") | None => String::new(),
        Some(text) => text.to_owned(),
    };
    parse_range(slot, &format!("{}:{}", text(min), text(max)), None)
}

/// Sets how much of a slot kernels of an image may have, and returns it. `range` is
/// `MIN:MAX`; an empty side stays as it is for the minimum and is without limit for the
/// maximum.
///
/// # Errors
/// The range is none.
pub async fn set_resource_limit(
    datastore: &Datastore,
    image: &ImageRow,
    slot: &str,
    range: &str,
) -> Result<SlotRange> {
    let slot = SlotName::from(slot);
    let known = image.resources.get(&slot).copied();
    let range = parse_range(&slot, range, known)?;
    datastore.autocommit().await?.image_set_limit(image.id, &slot, &range).await?;
    Ok(range)
}

fn parse_range(slot: &SlotName, text: &str, known: Option<SlotRange>) -> Result<SlotRange> {
    let invalid = |why: String| Error::invalid(format!("the limit {text:?} of {slot}: {why}"));
    let (min, max) = text
        .split_once(':')
        .ok_or_else(|| invalid("must be MIN:MAX, either side may be empty".into()))?;
    let amount = |text: &str| match text.trim() {
        "" => Ok(None),
        text => parse_amount(slot, text).map(Some).map_err(|error| invalid(error.to_string())),
    };
    let kept = known.map(|range| range.min).unwrap_or_default();
    let range = SlotRange { min: amount(min)?.unwrap_or(kept), max: amount(max)? };
    match range.max {
        Some(max) if max < range.min => {
            Err(invalid(format!("the maximum is below the minimum, {}", range.min)))
        }
        _ => Ok(range),
    }
}

/// Everything of an image, as `image inspect` shows it.
///
/// # Errors
/// PostgreSQL is not available.
pub async fn inspect(datastore: &Datastore, image: &ImageRow) -> Result<Value> {
    let aliases = aliases_of(datastore, image.id).await?;
    let accelerators: Vec<&str> = image
        .accelerators
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    Ok(json!({
        "canonical_ref": image.name,
        "name": image.image,
        "humanized_name": image.image,
        "tag": image.tag,
        "architecture": image.architecture,
        "registry": image.registry,
        "digest": image.config_digest,
        "labels": image.labels,
        "size_bytes": image.size_bytes,
        "resource_limits": backendai_datastore::image::resources_json(&image.resources),
        "supported_accelerators": accelerators,
        "reverse_aliases": aliases,
    }))
}

async fn aliases_of(datastore: &Datastore, image: ImageId) -> Result<Vec<String>> {
    let mut aliases = datastore.autocommit().await?.image_aliases().await?;
    Ok(aliases.remove(&image).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;

    use super::*;

    #[test]
    fn ranges_may_lack_a_side() {
        let mem = SlotName::mem();
        let known = Some(SlotRange { min: Decimal::from(1024), max: None });
        let parse = |text: &str| parse_range(&mem, text, known);
        let range = parse("512m:1g").unwrap();
        assert_eq!(
            (range.min, range.max),
            (Decimal::from(512 << 20), Some(Decimal::from(1 << 30)))
        );
        assert_eq!(parse(":2k").unwrap().min, Decimal::from(1024));
        assert_eq!(parse("1:").unwrap().max, None);
        for bad in ["1g", "x:", ":x", "2g:1g", "-1:"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
