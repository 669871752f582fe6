//! Kernel images and their aliases as rows.

use std::collections::BTreeMap;

use backendai_types::image::ImageLabels;
use backendai_types::resource_slot::parse_amount;
use backendai_types::{ImageId, ImageRef, SlotName};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Map, Value, json};
use tokio_postgres::Row;

use crate::error::Result;
use crate::row::{json, malformed};
use crate::tx::Transaction;

/// Columns in the order [`read`] expects, of a table called `i`.
const COLUMNS: &str = "i.id, i.name, i.registry, i.image, i.tag, i.architecture, i.created_at, \
                       i.config_digest, i.size_bytes, i.is_local, i.type, i.accelerators, \
                       i.labels, i.resources";

/// How much of a slot a kernel of an image may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// At least this.
    pub min: Decimal,
    /// At most this; `None` is without limit.
    pub max: Option<Decimal>,
}

/// Everything of an image that a registry tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// Registry, repository and tag.
    pub reference: ImageRef,
    /// `x86_64`, `aarch64`…
    pub architecture: String,
    /// `sha256:…` of the image's configuration, which is the id Docker gives it.
    pub config_digest: String,
    /// Compressed size: configuration and layers.
    pub size_bytes: i64,
    /// Accelerators the image is made for, separated by commas; `None` if not labelled.
    pub accelerators: Option<String>,
    /// All labels, verbatim.
    pub labels: BTreeMap<String, String>,
    /// Limits by slot.
    pub resources: BTreeMap<SlotName, SlotRange>,
    /// True for images that only an engine has and no registry.
    pub is_local: bool,
}

/// An image of one architecture, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Its id.
    pub id: ImageId,
    /// Canonical name, `registry/image:tag`.
    pub name: String,
    /// Registry host, with its port if it has one.
    pub registry: String,
    /// Repository path.
    pub image: String,
    /// Tag.
    pub tag: String,
    /// `x86_64`, `aarch64`…
    pub architecture: String,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
    /// `sha256:…` of the image's configuration.
    pub config_digest: String,
    /// Compressed size.
    pub size_bytes: i64,
    /// True for images that only agents have.
    pub is_local: bool,
    /// `compute`, `system` or `service`.
    pub image_type: String,
    /// Accelerators the image is made for, separated by commas.
    pub accelerators: Option<String>,
    /// All labels, verbatim.
    pub labels: BTreeMap<String, String>,
    /// Limits by slot.
    pub resources: BTreeMap<SlotName, SlotRange>,
}

impl ImageRow {
    /// What the labels say, with the product's defaults.
    pub fn labels(&self) -> ImageLabels<'_> {
        ImageLabels(&self.labels)
    }

    /// The least a kernel of this image needs of a slot; zero if nothing is said.
    pub fn minimum(&self, slot: &SlotName) -> Decimal {
        self.resources.get(slot).map(|range| range.min).unwrap_or_default()
    }

    /// The most a kernel of this image may have of a slot; `None` is without limit.
    pub fn maximum(&self, slot: &SlotName) -> Option<Decimal> {
        self.resources.get(slot).and_then(|range| range.max)
    }
}

/// What [`Transaction::image_upsert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upserted {
    /// The image was not known.
    Added,
    /// It was known and has changed.
    Changed,
    /// It was known just so.
    Same,
}

impl Transaction {
    /// Adds an image or brings its row up to date.
    ///
    /// Limits an operator set are kept: only slots the row does not have are taken from
    /// `image` when the row exists and its configuration is the same.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_upsert(&self, image: &NewImage) -> Result<Upserted> {
        let labels = Value::from_iter(image.labels.clone());
        let resources = resources_json(&image.resources);
        let name = image.reference.canonical();
        let row = self
            .query_opt(
                "-- image_upsert
                 WITH old AS (
                     SELECT config_digest, size_bytes, labels, resources FROM images
                     WHERE name = $1 AND architecture = $5
                 ), new AS (
                     INSERT INTO images (name, registry, image, tag, architecture, config_digest,
                                         size_bytes, accelerators, labels, resources, is_local)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                     ON CONFLICT (name, architecture) DO UPDATE SET
                         registry = excluded.registry, image = excluded.image,
                         tag = excluded.tag, config_digest = excluded.config_digest,
                         size_bytes = excluded.size_bytes, accelerators = excluded.accelerators,
                         labels = excluded.labels, is_local = excluded.is_local,
                         resources = CASE
                             WHEN images.config_digest = excluded.config_digest
                             THEN excluded.resources || images.resources
                             ELSE excluded.resources END
                     RETURNING config_digest, size_bytes, labels, resources
                 )
                 SELECT old.config_digest IS NULL AS added,
                        old IS NOT DISTINCT FROM new AS same
                 FROM new LEFT JOIN old ON true",
                &[
                    &name,
                    &image.reference.registry,
                    &image.reference.name,
                    &image.reference.tag,
                    &image.architecture,
                    &image.config_digest,
                    &image.size_bytes,
                    &image.accelerators,
                    &labels,
                    &resources,
                    &image.is_local,
                ],
            )
            .await?;
        let Some(row) = row else { return Ok(Upserted::Same) };
        Ok(match (row.try_get("added")?, row.try_get("same")?) {
            (true, _) => Upserted::Added,
            (false, true) => Upserted::Same,
            (false, false) => Upserted::Changed,
        })
    }

    /// True if an image of a registry has this configuration.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_is_remote(&self, config_digest: &str) -> Result<bool> {
        let row = self
            .query_opt(
                "-- image_is_remote
                SELECT 1 FROM images WHERE config_digest = $1 AND NOT is_local LIMIT 1",
                &[&config_digest],
            )
            .await?;
        Ok(row.is_some())
    }

    /// The images of a canonical name, one per architecture.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn images_named(&self, canonical: &str) -> Result<Vec<ImageRow>> {
        let sql = format!(
            "-- images_named
             SELECT {COLUMNS} FROM images i WHERE i.name = $1 ORDER BY i.architecture"
        );
        self.query(&sql, &[&canonical]).await?.iter().map(read).collect()
    }

    /// The image an alias stands for, and the same name in other architectures. The aliased
    /// one comes first. Empty if there is no such alias.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn images_aliased(&self, alias: &str) -> Result<Vec<ImageRow>> {
        let sql = format!(
            "-- images_aliased
             SELECT {COLUMNS} FROM image_aliases a
             JOIN images target ON target.id = a.image
             JOIN images i ON i.name = target.name
             WHERE a.alias = $1 ORDER BY i.id <> target.id, i.architecture"
        );
        self.query(&sql, &[&alias]).await?.iter().map(read).collect()
    }

    /// All images by name and architecture.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn images(&self) -> Result<Vec<ImageRow>> {
        let sql = format!(
            "-- images
             SELECT {COLUMNS} FROM images i ORDER BY i.name, i.architecture"
        );
        self.query(&sql, &[]).await?.iter().map(read).collect()
    }

    /// Forgets an image and its aliases; true if it was there.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_delete(&self, id: ImageId) -> Result<bool> {
        let sql = "-- image_delete
                   DELETE FROM images WHERE id = $1";
        Ok(self.execute(sql, &[&id.0]).await? > 0)
    }

    /// Replaces the limits of one slot.
    ///
    /// # Errors
    /// There is no such image, or PostgreSQL is not available.
    pub async fn image_set_limit(
        &self,
        id: ImageId,
        slot: &SlotName,
        range: &SlotRange,
    ) -> Result<()> {
        let value = range_json(range);
        self.execute_one(
            "image",
            "-- image_set_limit
             UPDATE images SET resources = resources || jsonb_build_object($2::text, $3::jsonb)
             WHERE id = $1",
            &[&id.0, &slot.0, &value],
        )
        .await
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// [`DatastoreError::Conflict`](crate::DatastoreError::Conflict) if the alias is taken.
    pub async fn image_alias_add(&self, alias: &str, image: ImageId) -> Result<()> {
        self.execute_one(
            "alias",
            "-- image_alias_add
             INSERT INTO image_aliases (alias, image) VALUES ($1, $2)",
            &[&alias, &image.0],
        )
        .await
    }

    /// Removes an alias; true if it was there.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_alias_remove(&self, alias: &str) -> Result<bool> {
        let sql = "-- image_alias_remove
                   DELETE FROM image_aliases WHERE alias = $1";
        Ok(self.execute(sql, &[&alias]).await? > 0)
    }

    /// All aliases by image.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_aliases(&self) -> Result<BTreeMap<ImageId, Vec<String>>> {
        let sql = "-- image_aliases
                   SELECT image, alias FROM image_aliases ORDER BY alias";
        let mut aliases = BTreeMap::<_, Vec<String>>::new();
        for row in self.query(sql, &[]).await? {
            aliases.entry(ImageId(row.try_get("image")?)).or_default().push(row.try_get("alias")?);
        }
        Ok(aliases)
    }

    /// Ids of the agents that have each image, by canonical name.
    ///
    /// # Errors
    /// PostgreSQL is not available.
    pub async fn image_holders(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let sql = "-- image_holders
                   SELECT image, id FROM agents, unnest(images) AS image
                   WHERE status = 'ALIVE' ORDER BY image, id";
        let mut holders = BTreeMap::<_, Vec<String>>::new();
        for row in self.query(sql, &[]).await? {
            holders.entry(row.try_get("image")?).or_default().push(row.try_get("id")?);
        }
        Ok(holders)
    }
}

fn read(row: &Row) -> Result<ImageRow> {
    Ok(ImageRow {
        id: ImageId(row.try_get("id")?),
        name: row.try_get("name")?,
        registry: row.try_get("registry")?,
        image: row.try_get("image")?,
        tag: row.try_get("tag")?,
        architecture: row.try_get("architecture")?,
        created_at: row.try_get("created_at")?,
        config_digest: row.try_get("config_digest")?,
        size_bytes: row.try_get("size_bytes")?,
        is_local: row.try_get("is_local")?,
        image_type: row.try_get("type")?,
        accelerators: row.try_get("accelerators")?,
        labels: json(row, "labels")?,
        resources: read_resources(&json(row, "resources")?)?,
    })
}

/// Reads `{slot: {"min": text or null, "max": text or null}}`. Sizes are understood, since a
/// fixture may have written them.
///
/// # Errors
/// An amount that is none.
pub fn read_resources(object: &Map<String, Value>) -> Result<BTreeMap<SlotName, SlotRange>> {
    let mut ranges = BTreeMap::new();
    for (name, range) in object {
        let slot = SlotName(name.clone());
        let amount = |side: &str| -> Result<Option<Decimal>> {
            let text = match &range[side] {
                Value::Null => return Ok(None),
                Value::String(text) if text.is_empty() => return Ok(None),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            parse_amount(&slot, &text).map(Some).map_err(|e| malformed("images.resources", e))
        };
        let range = SlotRange { min: amount("min")?.unwrap_or_default(), max: amount("max")? };
        ranges.insert(slot, range);
    }
    Ok(ranges)
}

/// Limits as the `resources` column and the API show them.
pub fn resources_json(ranges: &BTreeMap<SlotName, SlotRange>) -> Value {
    ranges.iter().map(|(slot, range)| (slot.0.clone(), range_json(range))).collect()
}

fn range_json(range: &SlotRange) -> Value {
    json!({
        "min": range.min.normalize().to_string(),
        "max": range.max.map(|max| max.normalize().to_string()),
    })
}
