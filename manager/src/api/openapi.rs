//! The OpenAPI document of the REST API, made from the route table and from nothing else, so
//! that it cannot tell of a path, a method or a rule that is not there.

use serde_json::{Map, Value, json};

use super::routes::{Body, Guard, Level, ROUTES, Route};
use crate::{API_VERSION, PRODUCT_VERSION};

/// The document, OpenAPI 3.0.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| path_item(route.path));
        for method in route.methods {
            path[method.to_ascii_lowercase()] = operation(route, method);
        }
    }
    let (major, date) = API_VERSION;
    json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Backend.AI Manager API",
            "version": PRODUCT_VERSION,
            "description": format!("API version v{major}.{date}"),
        },
        "paths": paths,
        "components": { "securitySchemes": security_schemes(), "schemas": schemas() },
    })
}

fn path_item(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true,
                    "schema": { "type": "string", "minLength": 1 } })
        })
        .collect();
    match parameters.is_empty() {
        true => json!({}),
        false => json!({ "parameters": parameters }),
    }
}

fn operation(route: &Route, method: &str) -> Value {
    let mut operation = json!({
        "operationId": format!("{}.{}", method.to_ascii_lowercase(), route.name.replace("::", ".")),
        "tags": [route.path.split('/').nth(1).filter(|tag| !tag.is_empty()).unwrap_or("manager")],
        "description": description(route),
        "responses": responses(route),
        "x-level": format!("{:?}", route.level),
        "x-guard": format!("{:?}", route.guard),
    });
    if route.level != Level::Public {
        operation["security"] = json!([{ "signature": [], "date": [] }]);
    }
    // Clients send parameters as a JSON body with every method; not all tools can describe
    // that of GET, for which the query says the same.
    if matches!(method, "POST" | "PUT" | "PATCH" | "DELETE") {
        let content = match route.body {
            Body::Whole => {
                json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Parameters" } } })
            }
            Body::Streamed => json!({ "multipart/form-data": { "schema": { "type": "object" } } }),
        };
        operation["requestBody"] = json!({ "required": false, "content": content });
    }
    operation
}

fn description(route: &Route) -> String {
    let who = match route.level {
        Level::Public => "Open to everybody",
        Level::User => "Needs a signature",
        Level::Admin => "Needs the signature of an administrator's keypair",
        Level::Superadmin => "Needs the signature of a superadmin",
    };
    let when = match route.guard {
        Guard::Any => "works always",
        Guard::All => "works while the manager is running",
        Guard::Read => "works while the manager is running or frozen",
    };
    format!("{who}; {when}.")
}

fn responses(route: &Route) -> Value {
    let problem = json!({
        "description": "A failure",
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let mut responses = json!({
        "2XX": { "description": "What was asked for" },
        "400": problem, "404": problem,
    });
    if route.level != Level::Public {
        responses["401"] = problem.clone();
        responses["403"] = problem.clone();
        responses["429"] = problem.clone();
    }
    responses["default"] = problem;
    responses
}

fn security_schemes() -> Value {
    json!({
        "signature": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "BackendAI signMethod=HMAC-SHA256, credential=ACCESS_KEY:SIGNATURE",
        },
        "date": {
            "type": "apiKey", "in": "header", "name": "X-BackendAI-Date",
            "description": "The time the request was signed at, ISO 8601; `Date` serves as well",
        },
    })
}

fn schemas() -> Value {
    json!({
        "Parameters": { "type": "object", "additionalProperties": true },
        "Problem": {
            "type": "object",
            "required": ["type", "title"],
            "properties": {
                "type": { "type": "string" },
                "title": { "type": "string" },
                "msg": { "type": "string" },
                "data": {},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::routes::{Lookup, Table};
    use super::*;

    /// Both ways: each operation of the document is found by the dispatcher with its rule,
    /// and each route is in the document.
    #[test]
    fn the_document_and_the_dispatcher_tell_the_same() {
        let (document, table) = (document(), Table::prepare());
        let mut operations = 0;
        let mut ids = std::collections::HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let sample = path.replace(['{', '}'], "");
            for (method, operation) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let Lookup::Found(route, _) = table.find(&method.to_ascii_uppercase(), &sample)
                else {
                    panic!("{method} {path} is in the document and not answered")
                };
                assert_eq!(route.path, path);
                assert_eq!(operation["x-level"], format!("{:?}", route.level), "{method} {path}");
                assert_eq!(operation["security"].is_null(), route.level == Level::Public);
                assert!(ids.insert(format!("{} {path}", operation["operationId"])), "{path}");
                operations += 1;
            }
        }
        assert_eq!(operations, ROUTES.iter().map(|route| route.methods.len()).sum::<usize>());
    }

    #[test]
    fn parameters_of_paths_are_described() {
        let document = document();
        let item = &document["paths"]["/session/{name}/logs"];
        assert_eq!(item["parameters"][0]["name"], "name");
        assert_eq!(item["get"]["operationId"], "get.session_logs.logs");
    }
}
