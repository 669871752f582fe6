//! Images made of containers.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerConfig;
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use super::{about, failed, status};
use crate::backend::{BackendError, labels};

/// Longer than copying the largest container takes on a slow disk: neither call answers
/// before that is done.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Makes an image `repository:tag` of a container. The container is paused meanwhile, so
/// that its files fit together.
pub async fn make(docker: &Docker, container: &str, image: &str) -> Result<(), BackendError> {
    let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let options = CommitContainerOptionsBuilder::new()
        .container(container)
        .repo(repository)
        .tag(tag)
        .pause(true)
        .build();
    let docker = docker.clone().with_timeout(TIMEOUT);
    match docker.commit_container(options, ContainerConfig::default()).await {
        Ok(_) => Ok(()),
        Err(error) => Err(about(container, "make an image of container", error)),
    }
}

/// An image in pieces.
pub fn export(docker: &Docker, image: &str) -> BoxStream<'static, Result<Bytes, BackendError>> {
    let docker = docker.clone().with_timeout(TIMEOUT);
    docker.export_image(image).map_err(|error| failed("export image", error)).boxed()
}

/// Removes an image by name.
pub async fn remove(docker: &Docker, image: &str) -> Result<(), BackendError> {
    let options = RemoveImageOptionsBuilder::new().build();
    match docker.remove_image(image, Some(options), None).await {
        Ok(_) => Ok(()),
        Err(error) if status(&error) == Some(404) => Ok(()),
        Err(error) => Err(failed("remove image", error)),
    }
}

/// Names of a repository's images that carry the owner's label.
pub async fn list(
    docker: &Docker,
    repository: &str,
    owner: &str,
) -> Result<Vec<String>, BackendError> {
    let filters = HashMap::from([
        ("reference", vec![repository.to_owned()]),
        ("label", vec![format!("{}={owner}", labels::OWNER)]),
    ]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let found =
        docker.list_images(Some(options)).await.map_err(|error| failed("list images", error))?;
    let prefix = format!("{repository}:");
    let names = found.into_iter().flat_map(|image| image.repo_tags);
    Ok(names.filter(|name| name.starts_with(&prefix)).collect())
}
