//! Mutations of resource presets.

use async_graphql::{Context, InputObject, Object, Result};
use backendai_types::{ByteCount, ResourceSlots};

use super::super::scalars::JsonString;
use super::super::site::ResourcePreset;
use super::door::{self, payloads};
use crate::app::{self, preset};

/// Mutations of resource presets.
#[derive(Default)]
pub struct PresetMutations;

payloads! {
    /// A preset was made, or not.
    CreateResourcePreset(resource_preset: ResourcePreset);
    /// A preset was changed, or not.
    ModifyResourcePreset;
    /// A preset was removed, or not.
    DeleteResourcePreset;
}

/// A preset to be made.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct CreateResourcePresetInput {
    resource_slots: JsonString,
    /// A size such as `1g`.
    shared_memory: Option<String>,
}

/// What of a preset is to be changed; null leaves it as it is.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
struct ModifyResourcePresetInput {
    resource_slots: Option<JsonString>,
    /// A size such as `1g`.
    shared_memory: Option<String>,
}

fn slots(value: JsonString) -> app::Result<ResourceSlots> {
    serde_json::from_value(value.0)
        .map_err(|error| app::Error::invalid(format!("resource_slots: {error}")))
}

/// Bytes of a size; an empty text is none.
fn size(text: Option<String>) -> app::Result<Option<i64>> {
    let parse = |text: String| {
        let bytes = text.parse::<ByteCount>().ok().map(ByteCount::bytes);
        bytes.and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(|| {
            app::Error::invalid(format!("shared_memory: {text:?} is not a size such as 1g"))
        })
    };
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Mutations of resource presets.
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PresetMutations {
    async fn create_resource_preset(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: CreateResourcePresetInput,
    ) -> Result<Option<CreateResourcePreset>> {
        let done = door::pass(ctx, &name, async |asker| {
            let (slots, shared) = (slots(props.resource_slots)?, size(props.shared_memory)?);
            preset::create(&asker.app, &name, &slots, shared).await
        });
        Ok(Some(done.await?.map(ResourcePreset).into()))
    }

    async fn modify_resource_preset(
        &self,
        ctx: &Context<'_>,
        name: String,
        props: ModifyResourcePresetInput,
    ) -> Result<Option<ModifyResourcePreset>> {
        let done = door::pass(ctx, &name, async |asker| {
            let slots = props.resource_slots.map(slots).transpose()?;
            preset::modify(&asker.app, &name, slots.as_ref(), size(props.shared_memory)?).await
        });
        Ok(Some(done.await?.into()))
    }

    async fn delete_resource_preset(
        &self,
        ctx: &Context<'_>,
        name: String,
    ) -> Result<Option<DeleteResourcePreset>> {
        let done = door::pass(ctx, &name, async |asker| preset::delete(&asker.app, &name).await);
        Ok(Some(done.await?.into()))
    }
}
