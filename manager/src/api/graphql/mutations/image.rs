//! Mutations of images.

use async_graphql::{Context, Object, Result, SimpleObject};

use super::super::guard::{self, IntoGraphql};
use super::super::scalars::Uuid;
use crate::app::image::rescan;

/// Mutations of images.
#[derive(Default)]
pub struct ImageMutations;

/// What came of a request to read registries anew.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
struct RescanImages {
    ok: Option<bool>,
    msg: Option<String>,
    /// The background task that does it.
    task_id: Option<Uuid>,
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
        let asker = guard::administrator(ctx)?;
        let task = rescan::rescan(&asker.app, &asker.context, registry.as_deref()).await;
        let task = task.map_err(IntoGraphql::into_graphql)?;
        Ok(Some(RescanImages {
            ok: Some(true),
            msg: Some(String::new()),
            task_id: Some(Uuid(task.0)),
        }))
    }
}
