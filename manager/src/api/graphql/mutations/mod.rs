//! The root of all mutations. Each passes the [`door`], and calls the rule of
//! [`app`](crate::app) that the command line calls too.

mod agent;
mod container_registry;
mod domain;
pub mod door;
mod group;
mod image;
mod keypair;
mod preset;
mod resource_policy;
mod scaling_group;
mod user;

use async_graphql::MergedObject;
use backendai_datastore::policy::{Caps, parse_host_permissions};
use serde_json::Value;

use super::scalars::JsonString;
use crate::app;

/// The root of all mutations.
#[derive(MergedObject, Default)]
pub struct Mutations(
    domain::DomainMutations,
    group::GroupMutations,
    user::UserMutations,
    keypair::KeypairMutations,
    resource_policy::PolicyMutations,
    preset::PresetMutations,
    scaling_group::ScalingGroupMutations,
    container_registry::RegistryMutations,
    agent::AgentMutations,
    image::ImageMutations,
);

/// Caps by slot.
fn caps(name: &str, value: JsonString) -> app::Result<Caps> {
    Caps::parse(&value.0).map_err(|why| app::Error::invalid(format!("{name}: {why}")))
}

/// Permissions by host.
fn hosts(value: JsonString) -> app::Result<Value> {
    parse_host_permissions(value.0)
        .map_err(|why| app::Error::invalid(format!("allowed_vfolder_hosts: {why}")))
}

/// A list of texts; nulls in it are left out.
fn texts(list: Vec<Option<String>>) -> Vec<String> {
    list.into_iter().flatten().collect()
}

/// Ids in a list of texts.
fn ids<T: std::str::FromStr>(name: &str, list: Vec<Option<String>>) -> app::Result<Vec<T>> {
    texts(list)
        .iter()
        .map(|text| {
            text.parse().map_err(|_| app::Error::invalid(format!("{name}: {text:?} is not a UUID")))
        })
        .collect()
}
