//! Mutations of images.

use std::collections::BTreeMap;

use async_graphql::{Context, InputObject, Object, Result};
use backendai_datastore::image::ImageRow;
use backendai_datastore::image_change::ImageChange;
use backendai_types::{ImageId, SlotName};

use super::super::guard::Asker;
use super::super::scalars::Uuid;
use super::door::{self, payloads};
use super::texts;
use crate::app::image::{manage, rescan, resolve};
use crate::app::{self, Error};

/// Mutations of images.
#[derive(Default)]
pub struct ImageMutations;

payloads! {
    /// Registries are being read anew by the background task, or not.
    RescanImages(task_id: Uuid);
    /// Always refused: agents pull an image when they need it.
    PreloadImage(task_id: Uuid);
    /// Always refused: agents keep the images they have.
    UnloadImage(task_id: Uuid);
    /// An image was forgotten, or not.
    ForgetImage;
    /// An image has another name, or not.
    AliasImage;
    /// An alias was removed, or not.
    DealiasImage;
    /// An image was changed, or not.
    ModifyImage;
    /// The images of a registry were forgotten, or not.
    ClearImages;
}

/// A label.
#[derive(InputObject)]
#[graphql(name = "KVPairInput", rename_fields = "snake_case")]
struct LabelInput {
    key: Option<String>,
    value: Option<String>,
}

/// Least and most of a slot; null is without limit.
#[derive(InputObject)]
#[graphql(name = "ResourceLimitInput", rename_fields = "snake_case")]
struct LimitInput {
    key: Option<String>,
    min: Option<String>,
    max: Option<String>,
}

/// What of an image is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyImageInput {
    name: Option<String>,
    registry: Option<String>,
    image: Option<String>,
    tag: Option<String>,
    architecture: Option<String>,
    is_local: Option<bool>,
    size_bytes: Option<i32>,
    #[graphql(name = "type")]
    kind: Option<String>,
    digest: Option<String>,
    labels: Option<Vec<Option<LabelInput>>>,
    supported_accelerators: Option<Vec<Option<String>>>,
    resource_limits: Option<Vec<Option<LimitInput>>>,
}

impl ModifyImageInput {
    fn into_change(self) -> app::Result<ImageChange> {
        let labels = self.labels.map(|list| {
            let pair = |label: LabelInput| Some((label.key?, label.value.unwrap_or_default()));
            list.into_iter().flatten().filter_map(pair).collect()
        });
        let range = |limit: LimitInput| {
            let slot =
                SlotName(limit.key.ok_or_else(|| Error::invalid("resource_limits: no key"))?);
            let range = manage::slot_range(&slot, limit.min.as_deref(), limit.max.as_deref())?;
            Ok((slot, range))
        };
        let resources = self.resource_limits.map(|list| {
            list.into_iter().flatten().map(range).collect::<app::Result<BTreeMap<_, _>>>()
        });
        Ok(ImageChange {
            name: self.name,
            registry: self.registry,
            image: self.image,
            tag: self.tag,
            architecture: self.architecture,
            is_local: self.is_local,
            size_bytes: self.size_bytes.map(i64::from),
            image_type: self.kind.map(|kind| kind.to_ascii_lowercase()),
            config_digest: self.digest,
            labels,
            accelerators: self.supported_accelerators.map(|list| texts(list).join(",")),
            resources: resources.transpose()?,
        })
    }
}

/// The image of a canonical name or alias, of whatever registry.
async fn find(asker: &Asker, reference: &str, architecture: Option<&str>) -> app::Result<ImageRow> {
    let known = asker.app.shared.registry_names().await?;
    let architecture = architecture.unwrap_or("x86_64");
    resolve::find(&asker.app.datastore, &known, reference, architecture, |_| true).await
}

fn not_implemented() -> app::Result<ImageId> {
    Err(Error::BadRequest("Not implemented.".into()))
}

/// Mutations of images.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageMutations {
    /// Reads a registry or an image anew, or every registry.
    async fn rescan_images(
        &self,
        ctx: &Context<'_>,
        registry: Option<String>,
    ) -> Result<Option<RescanImages>> {
        let target = registry.as_deref().unwrap_or("every registry");
        let done = door::pass(ctx, target, async |asker| {
            rescan::rescan(&asker.app, &asker.context, registry.as_deref()).await
        });
        Ok(Some(done.await?.saying("").map(|task| Uuid(task.0)).into()))
    }

    /// Always refused.
    async fn preload_image(
        &self,
        ctx: &Context<'_>,
        references: Vec<Option<String>>,
        target_agents: Vec<Option<String>>,
    ) -> Result<Option<PreloadImage>> {
        let target = texts(references).into_iter().chain(texts(target_agents));
        let target = target.collect::<Vec<_>>().join(" ");
        let done = door::pass(ctx, target, async |_| not_implemented());
        Ok(Some(done.await?.map(|id| Uuid(id.0)).into()))
    }

    /// Always refused.
    async fn unload_image(
        &self,
        ctx: &Context<'_>,
        references: Vec<Option<String>>,
        target_agents: Vec<Option<String>>,
    ) -> Result<Option<UnloadImage>> {
        let target = texts(references).into_iter().chain(texts(target_agents));
        let target = target.collect::<Vec<_>>().join(" ");
        let done = door::pass(ctx, target, async |_| not_implemented());
        Ok(Some(done.await?.map(|id| Uuid(id.0)).into()))
    }

    async fn forget_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        architecture: String,
    ) -> Result<Option<ForgetImage>> {
        let done = door::pass(ctx, &reference, async |asker| {
            let image = find(asker, &reference, Some(&architecture)).await?;
            manage::forget(&asker.app.datastore, &image).await
        });
        Ok(Some(done.await?.saying("").into()))
    }

    async fn alias_image(
        &self,
        ctx: &Context<'_>,
        alias: String,
        target: String,
        #[graphql(default_with = "Some(\"x86_64\".to_owned())")] architecture: Option<String>,
    ) -> Result<Option<AliasImage>> {
        let done = door::pass(ctx, format!("{alias} -> {target}"), async |asker| {
            let image = find(asker, &target, architecture.as_deref()).await?;
            let given = manage::alias(&asker.app.datastore, &alias, &image).await;
            given.map_err(refused)
        });
        Ok(Some(done.await?.saying("").into()))
    }

    async fn dealias_image(
        &self,
        ctx: &Context<'_>,
        alias: String,
    ) -> Result<Option<DealiasImage>> {
        let done = door::pass(ctx, &alias, async |asker| {
            manage::dealias(&asker.app.datastore, &alias).await
        });
        Ok(Some(done.await?.saying("").into()))
    }

    async fn modify_image(
        &self,
        ctx: &Context<'_>,
        target: String,
        architecture: String,
        props: ModifyImageInput,
    ) -> Result<Option<ModifyImage>> {
        let done = door::pass(ctx, &target, async |asker| {
            let change = props.into_change()?;
            let image = find(asker, &target, Some(&architecture)).await?;
            manage::modify(&asker.app.datastore, &image, change).await
        });
        Ok(Some(done.await?.saying("").into()))
    }

    /// Forgets all images of a registry.
    async fn clear_images(
        &self,
        ctx: &Context<'_>,
        registry: Option<String>,
    ) -> Result<Option<ClearImages>> {
        let registry = registry.unwrap_or_default();
        let done = door::pass(ctx, &registry, async |asker| {
            manage::clear(&asker.app.datastore, &registry).await
        });
        Ok(Some(done.await?.saying("").into()))
    }
}

/// An alias that cannot be given is told in `msg`.
fn refused(error: Error) -> Error {
    match error {
        Error::InvalidParams { message, .. } => Error::BadRequest(message),
        other => other,
    }
}
