//! GraphQL: `POST /admin/gql`, and the older `POST /admin/graphql` that differs in its envelope.
//!
//! Resolvers decode, ask `guard` whether the caller may, read one page of rows, and shape
//! it. What belongs to the rows of a page (kernels of sessions…) is loaded for the whole page
//! at the first field that needs it: see `batch`.

mod agent;
mod agent_summary;
mod audit;
mod batch;
mod container;
mod container_registry;
pub mod field_rules;
pub mod filter;
mod guard;
mod identity;
mod image;
mod keypair;
mod mutations;
mod node;
mod order;
mod queries;
mod relay;
mod resource_policy;
mod scalars;
mod session;
mod site;
mod size;
mod vfolder;

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql::{EmptySubscription, Name, Positioned, Variables};
use serde::Serialize;
use serde_json::Value;
use warp::reply::Response;

use self::guard::Asker;
use self::mutations::Mutations;
use self::order::Shape;
use self::queries::Queries;
use super::call::{Call, ok};
use super::params::rules;
use super::problem::Problem;
use crate::app;

/// The schema.
pub type Schema = async_graphql::Schema<Queries, Mutations, EmptySubscription>;

/// Nesting of selections: that of the usual introspection query, and some more.
const MAX_DEPTH: usize = 20;
/// Fields of one query: several times the largest type.
const MAX_COMPLEXITY: usize = 1000;
/// Key below `config/` that admits introspection.
const INTROSPECTION: &str = "api/allow-graphql-schema-introspection";

/// Builds the schema.
pub fn schema() -> Schema {
    Schema::build(Queries::default(), Mutations::default(), EmptySubscription)
        .limit_depth(MAX_DEPTH)
        .limit_complexity(MAX_COMPLEXITY)
        .disable_suggestions()
        .finish()
}

/// `POST /admin/gql`: always 200, errors beside the data.
pub async fn query(call: Call) -> Result<Response, Problem> {
    Ok(ok(&execute(call).await?))
}

/// `POST /admin/graphql`: bare data, or a problem.
pub async fn legacy_query(call: Call) -> Result<Response, Problem> {
    let reply = execute(call).await?;
    match reply.errors.is_empty() {
        true => Ok(ok(&reply.data)),
        false => {
            let errors = serde_json::to_value(&reply.errors)
                .map_err(|error| app::Error::internal("encode GraphQL errors", error))?;
            Err(Problem::graphql(errors))
        }
    }
}

/// The answer: `data` always, `errors` if there are any.
#[derive(Serialize)]
struct Envelope {
    data: async_graphql::Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<async_graphql::ServerError>,
}

async fn execute(call: Call) -> Result<Envelope, Problem> {
    let context = call.user()?;
    let mut params = call.params()?;
    // The scalar types say what is wrong with an empty query; the contract lets it pass here.
    let query: String = params.required(&["query"], rules::any_text);
    let variables = params.optional(&["variables"], None, rules::null_or(rules::object));
    let operation = params.optional(
        &["operation_name", "operationName"],
        None,
        rules::null_or(rules::any_text),
    );
    params.finish()?;

    let mut request = async_graphql::Request::new(query)
        .variables(Variables::from_json(Value::Object(variables.unwrap_or_default())))
        .data(Asker { app: call.app.clone(), context, client: call.peer });
    if let Some(name) = operation.filter(|name| !name.is_empty()) {
        request = request.operation_name(name);
    }
    if request.parsed_query().is_ok_and(size::is_too_large) {
        let error = async_graphql::ServerError::new("Query is too large.", None);
        return Ok(Envelope { data: async_graphql::Value::Null, errors: vec![error] });
    }
    if let Some(error) = refuse_introspection(&call, &mut request).await? {
        return Ok(Envelope { data: async_graphql::Value::Null, errors: vec![error] });
    }
    let operation = request.operation_name.clone();
    let shape = match request.parsed_query() {
        Ok(document) => Shape::of(document, operation.as_deref(), MAX_COMPLEXITY),
        Err(_) => None,
    };
    let response = call.state.graphql.execute(request).await;
    let mut reply = Envelope { data: response.data, errors: response.errors };
    order::fill_failed(&mut reply.data, &reply.errors);
    if let Some(shape) = shape {
        shape.arrange(&mut reply.data);
    }
    Ok(reply)
}

/// The error of a query that asks about the schema, unless that is allowed.
async fn refuse_introspection(
    call: &Call,
    request: &mut async_graphql::Request,
) -> Result<Option<async_graphql::ServerError>, Problem> {
    // A query that cannot be parsed is refused by its execution.
    let Ok(document) = request.parsed_query() else { return Ok(None) };
    let Some(field) = introspected(document) else { return Ok(None) };
    let allowed = call.app.shared.config_value(INTROSPECTION).await.map_err(app::Error::from)?;
    if allowed.is_some_and(|text| matches!(text.as_str(), "true" | "True" | "1" | "yes")) {
        return Ok(None);
    }
    let message = format!("Cannot query '{}': introspection is disabled.", field.node);
    Ok(Some(async_graphql::ServerError::new(message, Some(field.pos))))
}

/// The first field whose name begins with `__`, anywhere in the document.
fn introspected(document: &ExecutableDocument) -> Option<&Positioned<Name>> {
    let operations = document.operations.iter().map(|(_, operation)| &operation.node.selection_set);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set);
    operations.chain(fragments).find_map(|set| introspected_in(&set.node))
}

/// The parser bounds the nesting, so recursion is bounded too.
fn introspected_in(set: &SelectionSet) -> Option<&Positioned<Name>> {
    set.items.iter().find_map(|item| match &item.node {
        Selection::Field(field) if field.node.name.node.starts_with("__") => Some(&field.node.name),
        Selection::Field(field) => introspected_in(&field.node.selection_set.node),
        Selection::InlineFragment(fragment) => introspected_in(&fragment.node.selection_set.node),
        Selection::FragmentSpread(_) => None,
    })
}

#[cfg(test)]
mod tests {
    /// The schema is a contract: a change of it is seen in review.
    #[test]
    fn the_schema_is_that_of_the_golden_file() {
        crate::api::golden::compare("schema.graphql", &super::schema().sdl());
    }
}
