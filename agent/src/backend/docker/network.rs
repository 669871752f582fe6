//! Networks of the Docker engine.

use bollard::Docker;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::{failed, status};
use crate::backend::{BackendError, NetworkReach, NetworkSpec, labels};

/// The overlay driver's option for the largest packet.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// Makes a network unless there is one of its name.
pub async fn create(docker: &Docker, network: &NetworkSpec) -> Result<(), BackendError> {
    // Older engines make a second network of the same name.
    if !ids(docker, "name", &network.name).await?.is_empty() {
        return Ok(());
    }
    match docker.create_network(request(network)).await {
        Ok(_) => Ok(()),
        Err(error) if status(&error) == Some(409) => Ok(()),
        // Docker answers 503 where it is no manager of a swarm, and 500 up to version 20.10.
        Err(error) if matches!(network.reach, NetworkReach::Swarm { .. }) => {
            let is_no_manager =
                status(&error) == Some(503) || error.to_string().contains("not a swarm manager");
            match failed("create network", error) {
                BackendError::Failed { source, .. } if is_no_manager => {
                    Err(BackendError::NoSwarm(source.to_string()))
                }
                other => Err(other),
            }
        }
        Err(error) => Err(failed("create network", error)),
    }
}

/// Removes all networks of a name.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), BackendError> {
    for id in ids(docker, "name", name).await? {
        match docker.remove_network(&id).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => return Err(failed("remove network", error)),
        }
    }
    Ok(())
}

/// Names of the networks with this owner.
pub async fn list(docker: &Docker, owner: &str) -> Result<Vec<String>, BackendError> {
    let found = search(docker, "label", &format!("{}={owner}", labels::OWNER)).await?;
    Ok(found.into_iter().filter_map(|network| network.name).collect())
}

/// Ids of the networks that a filter lets through, names whole.
pub async fn ids(docker: &Docker, filter: &str, value: &str) -> Result<Vec<String>, BackendError> {
    let found = search(docker, filter, value).await?;
    // Docker takes a part of a name for the name.
    let is_meant = |name: &Option<String>| filter != "name" || name.as_deref() == Some(value);
    Ok(found.into_iter().filter(|n| is_meant(&n.name)).filter_map(|n| n.id).collect())
}

async fn search(
    docker: &Docker,
    filter: &str,
    value: &str,
) -> Result<Vec<bollard::models::Network>, BackendError> {
    let filters = [(filter.to_owned(), vec![value.to_owned()])].into();
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    docker.list_networks(Some(options)).await.map_err(|error| failed("list networks", error))
}

fn request(network: &NetworkSpec) -> NetworkCreateRequest {
    let (driver, options) = match network.reach {
        NetworkReach::Host => ("bridge", None),
        NetworkReach::Swarm { mtu } => {
            ("overlay", mtu.map(|mtu| [(MTU_OPTION.to_owned(), mtu.to_string())].into()))
        }
    };
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: Some(driver.to_owned()),
        // Containers that are no service of the swarm may join.
        attachable: matches!(network.reach, NetworkReach::Swarm { .. }).then_some(true),
        options,
        labels: Some(network.labels.clone().into_iter().collect()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_a_swarm_is_attachable_and_has_its_mtu() {
        let spec = |reach| NetworkSpec {
            name: "n".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            reach,
        };
        let overlay = request(&spec(NetworkReach::Swarm { mtu: Some(1400) }));
        assert_eq!(overlay.driver.as_deref(), Some("overlay"));
        assert_eq!(overlay.attachable, Some(true));
        assert_eq!(overlay.options.unwrap()[MTU_OPTION], "1400");
        assert_eq!(overlay.labels.unwrap()["a"], "b");
        let bridge = request(&spec(NetworkReach::Host));
        assert_eq!(bridge.driver.as_deref(), Some("bridge"));
        assert!(bridge.attachable.is_none() && bridge.options.is_none());
    }
}
