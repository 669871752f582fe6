//! From what a user calls an image to the row that describes it.

use backendai_datastore::Datastore;
use backendai_datastore::image::ImageRow;
use backendai_types::ImageRef;
use backendai_types::image::normalize_architecture;

use crate::app::{App, Error, Result};

/// Finds the image of a canonical name or alias for an architecture.
///
/// The name is tried first, then the alias. An image that exists in one architecture only
/// is taken whatever was asked for; the agents then decide. `allowed_registries` are those
/// of the caller's domain; images of others look as if they were not there. Images that no
/// registry has are exempt.
///
/// # Errors
/// No such image; etcd was never reached, or PostgreSQL is not available.
pub async fn resolve(
    app: &App,
    reference: &str,
    architecture: &str,
    allowed_registries: &[String],
) -> Result<ImageRow> {
    let known = app.shared.registry_names().await?;
    find(&app.datastore, &known, reference, architecture, |registry| {
        allowed_registries.iter().any(|allowed| allowed == registry)
    })
    .await
}

/// As [`resolve`], without an application: for the command line. `known_registries` decides
/// which first part of a name is a registry.
///
/// # Errors
/// As [`resolve`].
pub async fn find(
    datastore: &Datastore,
    known_registries: &[String],
    reference: &str,
    architecture: &str,
    is_allowed: impl Fn(&str) -> bool,
) -> Result<ImageRow> {
    let architecture = normalize_architecture(architecture);
    let parsed = ImageRef::parse(reference, known_registries).ok();
    let tx = datastore.autocommit().await?;
    if let Some(canonical) = parsed.as_ref().map(ImageRef::canonical) {
        let rows = tx.images_named(&canonical).await?;
        if let Some(row) = choose(rows, &architecture, &is_allowed) {
            return Ok(row);
        }
    }
    let rows = tx.images_aliased(reference).await?;
    if let Some(row) = choose(rows, &architecture, &is_allowed) {
        return Ok(row);
    }
    let tried = match &parsed {
        Some(parsed) => format!("ref:'{parsed}', alias:'{reference}'"),
        None => format!("alias:'{reference}'"),
    };
    Err(Error::NotFound {
        object: "environment image",
        message: Some(format!("Unknown image references: {tried}")),
    })
}

fn choose(
    rows: Vec<ImageRow>,
    architecture: &str,
    is_allowed: impl Fn(&str) -> bool,
) -> Option<ImageRow> {
    let is_usable = |row: &ImageRow| row.is_local || is_allowed(&row.registry);
    let mut rows: Vec<_> = rows.into_iter().filter(is_usable).collect();
    match rows.iter().position(|row| row.architecture == architecture) {
        Some(index) => Some(rows.swap_remove(index)),
        None if rows.len() == 1 => rows.pop(),
        None => None,
    }
}
