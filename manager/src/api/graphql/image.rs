//! `Image`.

use std::collections::BTreeMap;

use async_graphql::{Object, Result, SimpleObject};
use backendai_datastore::image::ImageRow;
use backendai_types::ImageId;

use super::guard::{Asker, IntoGraphql};
use super::scalars::{BigInt, Uuid};
use crate::app;

/// An image.
pub struct Image {
    row: ImageRow,
    aliases: Vec<String>,
    holders: Vec<String>,
    /// Agents are shown to superadmins only, unless the site says otherwise.
    shows_agents: bool,
}

/// A label.
#[derive(SimpleObject)]
#[graphql(name = "KVPair", rename_fields = "snake_case")]
struct Label {
    key: Option<String>,
    value: Option<String>,
}

/// Least and most of one slot.
#[derive(SimpleObject)]
#[graphql(name = "ResourceLimit", rename_fields = "snake_case")]
struct Limit {
    key: Option<String>,
    min: Option<String>,
    max: Option<String>,
}

impl Image {
    /// The images the caller may use.
    pub async fn visible(asker: &Asker) -> Result<Vec<Self>> {
        let app = &asker.app;
        let db = app.datastore.autocommit().await.map_err(IntoGraphql::into_graphql)?;
        let load = async {
            let allowed = match asker.context.is_superadmin() {
                true => None,
                false => Some(db.domain_active(&asker.context.domain_name).await?),
            };
            Ok((allowed, db.images().await?, db.image_aliases().await?, db.image_holders().await?))
        };
        let (allowed, rows, mut aliases, holders) = load
            .await
            .map_err(|error: backendai_datastore::DatastoreError| error.into_graphql())?;
        let registries =
            allowed.map(|domain| domain.map_or(Vec::new(), |d| d.allowed_docker_registries));
        Ok(rows
            .into_iter()
            .filter(|row| registries.as_ref().is_none_or(|allowed| allowed.contains(&row.registry)))
            .map(|row| Self::new(asker, row, &mut aliases, &holders))
            .collect())
    }

    /// The image of a canonical name or alias.
    pub async fn named(asker: &Asker, reference: &str, architecture: &str) -> Result<Self> {
        let app = &asker.app;
        let load = async {
            let db = app.datastore.autocommit().await?;
            let registries = match asker.context.is_superadmin() {
                true => None,
                false => {
                    let domain = db.domain_active(&asker.context.domain_name).await?;
                    Some(domain.map_or(Vec::new(), |d| d.allowed_docker_registries))
                }
            };
            let known = app.shared.registry_names().await?;
            let row = app::image::resolve::find(
                &app.datastore,
                &known,
                reference,
                architecture,
                |name| registries.as_ref().is_none_or(|allowed| allowed.iter().any(|a| a == name)),
            )
            .await?;
            Ok((row, db.image_aliases().await?, db.image_holders().await?))
        };
        let (row, mut aliases, holders) =
            load.await.map_err(|error: app::Error| error.into_graphql())?;
        Ok(Self::new(asker, row, &mut aliases, &holders))
    }

    fn new(
        asker: &Asker,
        row: ImageRow,
        aliases: &mut BTreeMap<ImageId, Vec<String>>,
        holders: &BTreeMap<String, Vec<String>>,
    ) -> Self {
        Self {
            aliases: aliases.remove(&row.id).unwrap_or_default(),
            holders: holders.get(&row.name).cloned().unwrap_or_default(),
            shows_agents: asker.context.is_superadmin() || !asker.app.config.manager.hide_agents,
            row,
        }
    }

    /// True when an agent has it.
    pub fn is_installed(&self) -> bool {
        !self.holders.is_empty()
    }

    /// True for images that do operators' work.
    pub fn is_operation(&self) -> bool {
        self.row.labels().has_feature("operation")
    }
}

/// An image.
#[Object(rename_fields = "snake_case")]
impl Image {
    async fn id(&self) -> Option<Uuid> {
        Some(Uuid(self.row.id.0))
    }

    async fn name(&self) -> Option<&str> {
        Some(&self.row.image)
    }

    async fn humanized_name(&self) -> Option<&str> {
        Some(&self.row.image)
    }

    async fn tag(&self) -> Option<&str> {
        Some(&self.row.tag)
    }

    async fn registry(&self) -> Option<&str> {
        Some(&self.row.registry)
    }

    async fn architecture(&self) -> Option<&str> {
        Some(&self.row.architecture)
    }

    async fn is_local(&self) -> Option<bool> {
        Some(self.row.is_local)
    }

    async fn digest(&self) -> Option<&str> {
        Some(&self.row.config_digest)
    }

    async fn hash(&self) -> Option<&str> {
        Some(&self.row.config_digest)
    }

    async fn labels(&self) -> Option<Vec<Option<Label>>> {
        let label = |(key, value): (&String, &String)| {
            Some(Label { key: Some(key.clone()), value: Some(value.clone()) })
        };
        Some(self.row.labels.iter().map(label).collect())
    }

    async fn aliases(&self) -> Option<Vec<Option<&str>>> {
        Some(self.aliases.iter().map(|alias| Some(alias.as_str())).collect())
    }

    async fn size_bytes(&self) -> Option<BigInt> {
        Some(BigInt(self.row.size_bytes))
    }

    async fn resource_limits(&self) -> Option<Vec<Option<Limit>>> {
        let limits = self.row.resources.iter().map(|(slot, range)| {
            Some(Limit {
                key: Some(slot.0.clone()),
                min: Some(range.min.normalize().to_string()),
                max: range.max.map(|max| max.normalize().to_string()),
            })
        });
        Some(limits.collect())
    }

    async fn supported_accelerators(&self) -> Option<Vec<Option<&str>>> {
        let list = self.row.accelerators.as_deref().unwrap_or_default();
        Some(list.split(',').map(str::trim).filter(|a| !a.is_empty()).map(Some).collect())
    }

    async fn installed(&self) -> Option<bool> {
        Some(self.is_installed())
    }

    async fn installed_agents(&self) -> Option<Vec<Option<&str>>> {
        let agents = if self.shows_agents { self.holders.as_slice() } else { &[] };
        Some(agents.iter().map(|agent| Some(agent.as_str())).collect())
    }
}
