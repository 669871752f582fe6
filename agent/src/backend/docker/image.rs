//! Images of the Docker engine.

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use futures::TryStreamExt;

use super::{failed, status};
use crate::backend::{BackendError, LocalImage, Progress, PullImage};

/// Docker's spelling of an unnamed image.
const NO_NAME: &str = "<none>";

/// All images that have a name.
pub async fn list(docker: &Docker) -> Result<Vec<LocalImage>, BackendError> {
    let options = ListImagesOptionsBuilder::new().build();
    let found =
        docker.list_images(Some(options)).await.map_err(|error| failed("list images", error))?;
    let mut images: Vec<LocalImage> = found
        .into_iter()
        .flat_map(|image| {
            let id = image.id;
            image
                .repo_tags
                .into_iter()
                .filter(|tag| !tag.contains(NO_NAME))
                .map(move |tag| LocalImage { name: full_name(&tag), id: id.clone() })
        })
        .collect();
    images.sort();
    Ok(images)
}

/// One image by name.
pub async fn find(docker: &Docker, name: &str) -> Result<Option<LocalImage>, BackendError> {
    match docker.inspect_image(name).await {
        Ok(image) => {
            Ok(Some(LocalImage { name: name.to_owned(), id: image.id.unwrap_or_default() }))
        }
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(failed("inspect image", error)),
    }
}

/// Pulls one image and waits until it is there.
pub async fn pull(
    docker: &Docker,
    pull: &PullImage,
    progress: &Progress,
) -> Result<(), BackendError> {
    let options = CreateImageOptionsBuilder::new()
        .from_image(&pull.name)
        .platform(&format!("linux/{}", docker_architecture(&pull.architecture)))
        .build();
    let credentials = pull.credentials.as_ref().map(|(user, password)| DockerCredentials {
        username: Some(user.clone()),
        password: Some(password.clone()),
        serveraddress: pull.registry_url.clone(),
        ..Default::default()
    });
    let mut messages = Box::pin(docker.create_image(Some(options), None, credentials));
    loop {
        match messages.try_next().await {
            Ok(Some(message)) => {
                if let Some(text) = message.status {
                    match message.id {
                        Some(layer) => progress(&format!("{layer}: {text}")),
                        None => progress(&text),
                    }
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => return Err(cannot_be_had(&pull.name, error)),
        }
    }
}

fn cannot_be_had(name: &str, error: DockerError) -> BackendError {
    match failed("pull image", error) {
        BackendError::Failed { source, .. } => {
            BackendError::ImageNotAvailable { name: name.to_owned(), source }
        }
        other => other,
    }
}

fn docker_architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Docker leaves its own registry out of names; the product spells it out.
fn full_name(tag: &str) -> String {
    let rest = match tag.split_once('/') {
        None => return format!("index.docker.io/library/{tag}"),
        Some(("docker.io", rest)) => rest,
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
            return tag.to_owned();
        }
        Some(_) => tag,
    };
    format!("index.docker.io/{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_out() {
        for (tag, full) in [
            ("python:3.12", "index.docker.io/library/python:3.12"),
            ("lablup/python:3.12", "index.docker.io/lablup/python:3.12"),
            ("docker.io/a/b:1", "index.docker.io/a/b:1"),
            ("127.0.0.1:5000/stable/python:1", "127.0.0.1:5000/stable/python:1"),
            ("localhost/x:1", "localhost/x:1"),
            ("registry.example.com/x:1", "registry.example.com/x:1"),
        ] {
            assert_eq!(full_name(tag), full);
        }
    }
}
