//! Images, as administrators change them.

use std::collections::BTreeMap;

use backendai_types::{ImageId, SlotName};
use serde_json::Value;

use crate::error::Result;
use crate::image::{SlotRange, resources_json};
use crate::tx::Transaction;

/// What of an image is to be changed; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct ImageChange {
    /// Canonical name.
    pub name: Option<String>,
    /// Registry host.
    pub registry: Option<String>,
    /// Repository path.
    pub image: Option<String>,
    /// Tag.
    pub tag: Option<String>,
    /// `x86_64`…
    pub architecture: Option<String>,
    /// True for images that only agents have.
    pub is_local: Option<bool>,
    /// Compressed size.
    pub size_bytes: Option<i64>,
    /// `compute`, `system` or `service`.
    pub image_type: Option<String>,
    /// `sha256:…` of the image's configuration.
    pub config_digest: Option<String>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Accelerators, separated by commas.
    pub accelerators: Option<String>,
    /// Limits of these slots; others stay.
    pub resources: Option<BTreeMap<SlotName, SlotRange>>,
}

impl Transaction {
    /// Changes an image; false if there is none.
    ///
    /// # Errors
    /// Another image has its new name and architecture.
    pub async fn image_modify(&self, id: ImageId, change: &ImageChange) -> Result<bool> {
        let rows = self
            .execute(
                "-- image_modify
                UPDATE images SET
                    name = coalesce($2, name), registry = coalesce($3, registry),
                    image = coalesce($4, image), tag = coalesce($5, tag),
                    architecture = coalesce($6, architecture),
                    is_local = coalesce($7, is_local), size_bytes = coalesce($8, size_bytes),
                    type = coalesce($9, type), config_digest = coalesce($10, config_digest),
                    labels = coalesce($11, labels), accelerators = coalesce($12, accelerators),
                    resources = resources || coalesce($13, '{}'::jsonb)
                WHERE id = $1",
                &[
                    &id.0,
                    &change.name,
                    &change.registry,
                    &change.image,
                    &change.tag,
                    &change.architecture,
                    &change.is_local,
                    &change.size_bytes,
                    &change.image_type,
                    &change.config_digest,
                    &change.labels.clone().map(Value::from_iter),
                    &change.accelerators,
                    &change.resources.as_ref().map(resources_json),
                ],
            )
            .await?;
        Ok(rows == 1)
    }

    /// Forgets all images of a registry with their aliases; their number.
    ///
    /// # Errors
    /// PostgreSQL failed.
    pub async fn images_clear(&self, registry: &str) -> Result<u64> {
        let sql = "-- images_clear
                   DELETE FROM images WHERE registry = $1";
        self.execute(sql, &[&registry]).await
    }
}
