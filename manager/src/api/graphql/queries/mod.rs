//! The root of all queries. Each begins with its rule, see [`guard`](super::guard).

mod cluster;
mod compute;
mod people;
mod policy;
mod relay;
mod site;
mod storage;

use async_graphql::{Error, MergedObject, Result};
use backendai_datastore::agent_list_view::AGENT_STATUS_NAMES;
use backendai_datastore::list_view::{Field, Slice};
use backendai_types::SessionStatus;

use super::filter::{parse_filter, parse_order};
use crate::context::RequestContext;

/// The root of all queries.
#[derive(MergedObject, Default)]
pub struct Queries(
    cluster::ClusterQueries,
    compute::ComputeQueries,
    people::PeopleQueries,
    site::SiteQueries,
    policy::PolicyQueries,
    relay::RelayQueries,
    storage::StorageQueries,
);

fn own_key(context: &RequestContext) -> String {
    context.access_key.0.clone()
}

fn own_email(context: &RequestContext) -> String {
    context.email.clone()
}

/// What a list query asks for.
///
/// # Errors
/// Filter or order cannot be understood.
pub fn slice(
    limit: i32,
    offset: i32,
    filter: Option<String>,
    order: Option<String>,
    fields: &'static [Field],
) -> Result<Slice> {
    let filter = filter.filter(|text| !text.trim().is_empty());
    Ok(Slice {
        filter: filter.map(|text| parse_filter(&text, fields)).transpose().map_err(Error::new)?,
        order: parse_order(&order.unwrap_or_default(), fields).map_err(Error::new)?,
        limit: limit.into(),
        offset: offset.into(),
    })
}

/// Names of session statuses, separated by commas.
pub fn parse_statuses(text: &str) -> Result<Vec<SessionStatus>> {
    text.split(',').map(|name| name.trim().parse().map_err(|_| unknown_status(name))).collect()
}

fn parse_agent_statuses(text: &str) -> Result<Vec<String>> {
    text.split(',')
        .map(|name| {
            let known =
                AGENT_STATUS_NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.trim()));
            known.map(|(_, stored)| (*stored).to_owned()).ok_or_else(|| unknown_status(name))
        })
        .collect()
}

fn unknown_status(name: &str) -> Error {
    Error::new(format!("Missing or invalid API parameters. (Unknown status {name:?})"))
}
