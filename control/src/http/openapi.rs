//! The API's description in OpenAPI 3.1, made from what serves it: the route table and the resources' attribute tables.
//!
//! Guarantees: every route is there; what a resource accepts, filters and sorts by is what its table says; whoever makes
//! a resource is told by links where its id goes.
//!
//! An attribute of a shape of its own (a list of objects) is described as any value: its table has a function there.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Operation, Route, Server, boxed, routes};
use crate::app::attribute::{Attribute, Kind, find};
use crate::app::resource::Shape;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// A page to read it, with nothing from elsewhere.
const PAGE: &str = include_str!("openapi.html");

pub(super) fn show(_server: Arc<Server>, _request: Request) -> Answer {
    boxed(async move { Ok(Reply::ok(document())) })
}

pub(super) fn page(_server: Arc<Server>, _request: Request) -> Answer {
    boxed(async move { Ok(Reply::page(PAGE)) })
}

/// The whole description.
#[must_use]
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: Map<String, Value> = Map::new();
    let routes = routes();
    for route in &routes {
        if let Some((_, shape)) = route.shape {
            schemas.insert(shape.policy.to_owned(), shown(&shape));
            schemas.insert(format!("{}_create", shape.policy), accepted(&shape, true));
            schemas.insert(format!("{}_update", shape.policy), accepted(&shape, false));
        }
        let methods = paths
            .entry(route.path)
            .or_insert_with(|| json!({}))
            .as_object_mut();
        if let Some(methods) = methods {
            methods.insert(
                route.method.as_str().to_ascii_lowercase(),
                operation(route, &routes),
            );
        }
    }
    schemas.insert("error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Weft: the OpenStack Networking API v2.0",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "X-Auth-Token" },
            },
        },
    })
}

/// Neutron's errors, and for a missing token Keystone's.
fn error_schema() -> Value {
    let text = json!({ "type": "string" });
    json!({ "anyOf": [
        { "type": "object", "required": ["NeutronError"], "properties": { "NeutronError": {
            "type": "object", "required": ["type", "message", "detail"],
            "properties": { "type": text, "message": text, "detail": text },
        } } },
        { "type": "object", "required": ["error"], "properties": { "error": {
            "type": "object", "required": ["code", "message", "title"],
            "properties": { "code": { "type": "integer" }, "message": text, "title": text },
        } } },
    ] })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn object_of(key: &str, schema: &Value) -> Value {
    json!({ "type": "object", "required": [key], "properties": { key: schema } })
}

/// The body of one, or of many.
fn one_or_many(shape: &Shape, schema: &Value, bulk: bool) -> Value {
    let one = object_of(shape.name, schema);
    if !bulk {
        return one;
    }
    let many = object_of(
        shape.collection,
        &json!({ "type": "array", "items": schema }),
    );
    json!({ "anyOf": [one, many] })
}

fn operation(route: &Route, routes: &[Route]) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [tag_of(route)],
        "parameters": parameters(route),
        "responses": {
            "default": { "description": "An error", "content": {
                "application/json": { "schema": reference("error") } } },
        },
    });
    if route.access == Access::Token {
        operation["security"] = json!([{ "token": [] }]);
    }
    let any = json!({ "type": "object" });
    let (status, answer, body) = match &route.shape {
        Some((Operation::List, shape)) => {
            let list = json!({ "type": "array", "items": reference(shape.policy) });
            ("200", Some(object_of(shape.collection, &list)), None)
        }
        Some((Operation::Create, shape)) => {
            let new = reference(&format!("{}_create", shape.policy));
            let made = one_or_many(shape, &reference(shape.policy), true);
            ("201", Some(made), Some(one_or_many(shape, &new, true)))
        }
        Some((Operation::Show, shape)) => (
            "200",
            Some(object_of(shape.name, &reference(shape.policy))),
            None,
        ),
        Some((Operation::Update, shape)) => {
            let change = reference(&format!("{}_update", shape.policy));
            let changed = object_of(shape.name, &reference(shape.policy));
            ("200", Some(changed), Some(object_of(shape.name, &change)))
        }
        Some((Operation::Delete, _)) => ("204", None, None),
        None => match route.method.as_str() {
            "GET" | "HEAD" => ("2XX", None, None),
            "DELETE" => ("2XX", None, None),
            _ => ("2XX", None, Some(any)),
        },
    };
    operation["responses"][status] = match answer {
        Some(schema) => json!({ "description": "Done", "content": {
            "application/json": { "schema": schema } } }),
        None => json!({ "description": "Done" }),
    };
    if matches!(route.path, "/identity" | "/identity/") {
        // As Keystone does: a choice is no error.
        operation["responses"]["300"] = json!({ "description": "The versions to choose from" });
    }
    if let Some((Operation::Create, shape)) = &route.shape {
        operation["responses"][status]["links"] = links(route, shape, routes);
    }
    if let Some(schema) = body {
        let required = route.shape.is_some();
        operation["requestBody"] = json!({ "required": required, "content": {
            "application/json": { "schema": schema } } });
    }
    operation
}

/// Where the id of what a route makes goes: into the paths below its collection's.
fn links(made_by: &Route, shape: &Shape, routes: &[Route]) -> Value {
    let mut links = Map::new();
    for route in routes {
        let below = route.path.strip_prefix(made_by.path);
        let Some(parameter) = below.and_then(|below| below.strip_prefix("/{")) else {
            continue;
        };
        let parameter = parameter.split('}').next().unwrap_or_default();
        let mut parameters = Map::new();
        if made_by.path.contains("{parent}") {
            parameters.insert("parent".to_owned(), "$request.path.parent".into());
        }
        let id = format!("$response.body#/{}/id", shape.name);
        parameters.insert(parameter.to_owned(), id.into());
        let name = operation_id(route);
        let link = json!({ "operationId": name, "parameters": parameters });
        links.insert(name, link);
    }
    Value::Object(links)
}

/// A resource's attributes; its own stand before the standard ones of the same name.
fn attributes(shape: &Shape) -> impl Iterator<Item = &'static Attribute> {
    let own = shape.attributes;
    let standard = shape.standard.iter();
    let standard = standard.filter(|known| own.iter().all(|own| own.name != known.name));
    own.iter().chain(standard)
}

/// `network_list` and the like; for other routes the method and the path.
fn operation_id(route: &Route) -> String {
    let path: String = route
        .path
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    match &route.shape {
        Some((Operation::List, shape)) => format!("{}_list", shape.policy),
        Some((Operation::Create, shape)) => format!("{}_create", shape.policy),
        Some((Operation::Show, shape)) => format!("{}_show", shape.policy),
        Some((Operation::Update, shape)) => format!("{}_update", shape.policy),
        Some((Operation::Delete, shape)) => format!("{}_delete", shape.policy),
        None => format!("{}_{path}", route.method.as_str().to_ascii_lowercase()),
    }
}

/// The resource that a path is about: its first word behind the version.
fn tag_of(route: &Route) -> &'static str {
    let mut words = route.path.trim_start_matches('/').split('/');
    match (words.next(), words.next(), words.next()) {
        (Some("identity"), ..) => "identity",
        (Some("v2.0"), Some("qos" | "log" | "metering"), Some(word)) if !word.is_empty() => word,
        (Some("v2.0"), Some(word), _) if !word.is_empty() => word,
        _ => "versions",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let names = route
        .path
        .split('/')
        .filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        })
        .collect();
    let query =
        |name: &str, schema: Value| json!({ "name": name, "in": "query", "schema": schema });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    match &route.shape {
        Some((Operation::List, shape)) => {
            for attribute in attributes(shape).filter(|attribute| attribute.filter) {
                parameters.push(query(attribute.name, texts()));
            }
            if find(shape.attributes, shape.standard, "tags").is_some() {
                for name in ["tags", "tags-any", "not-tags", "not-tags-any"] {
                    parameters.push(query(name, texts()));
                }
            }
            let sortable: Vec<&str> = attributes(shape)
                .filter(|a| a.sort)
                .map(|a| a.name)
                .collect();
            let sort = json!({ "type": "array", "items": { "enum": sortable } });
            let directions = json!({ "type": "array", "items": { "enum": ["asc", "desc"] } });
            parameters.push(query("sort_key", sort));
            parameters.push(query("sort_dir", directions));
            parameters.push(query("limit", json!({ "type": "integer", "minimum": 0 })));
            parameters.push(query("marker", json!({ "type": "string" })));
            parameters.push(query("page_reverse", json!({ "type": "boolean" })));
            parameters.push(query("fields", texts()));
        }
        Some((Operation::Show, _)) => parameters.push(query("fields", texts())),
        _ => {}
    }
    parameters
}

/// What a request's body may hold.
fn accepted(shape: &Shape, create: bool) -> Value {
    use crate::app::attribute::Default::Required;
    let mut properties = Map::new();
    let mut required = Vec::new();
    for attribute in attributes(shape) {
        let allowed = if create {
            attribute.post
        } else {
            attribute.put
        };
        if !allowed {
            continue;
        }
        properties.insert(
            attribute.name.to_owned(),
            value(attribute, attribute.nullable),
        );
        if create && matches!(attribute.default, Required) {
            required.push(attribute.name);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// What an answer holds. Only what a caller may also write is of a known type: the rest is the server's to shape.
fn shown(shape: &Shape) -> Value {
    let mut properties = Map::new();
    for attribute in attributes(shape) {
        let schema = match attribute.kind {
            _ if !attribute.post && !attribute.put => json!({}),
            // Neutron shows some of its numbers as texts, and so do we.
            Kind::Int(..) => json!({ "type": ["integer", "string", "null"] }),
            _ => value(attribute, true),
        };
        properties.insert(attribute.name.to_owned(), schema);
    }
    json!({ "type": "object", "properties": properties })
}

fn value(attribute: &Attribute, nullable: bool) -> Value {
    let typed = |name: &str| {
        if nullable {
            json!([name, "null"])
        } else {
            json!(name)
        }
    };
    match attribute.kind {
        Kind::Bool => json!({ "type": typed("boolean") }),
        Kind::Int(min, max) if !nullable => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Kind::Int(..) => json!({ "type": typed("integer") }),
        Kind::Text(max) => json!({ "type": typed("string"), "maxLength": max }),
        Kind::Uuid | Kind::Ip | Kind::Mac => json!({ "type": typed("string") }),
        Kind::OneOf(_) if nullable => json!({ "type": typed("string") }),
        Kind::OneOf(values) => json!({ "enum": values }),
        Kind::UuidList => json!({ "type": typed("array"), "items": { "type": "string" } }),
        Kind::Custom(_) => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `control/openapi.json` is for those who read it without a server. `cargo xtask gen` writes it anew.
    #[test]
    fn the_committed_description_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("WEFT_REGENERATE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text,
            "{path} is not what the tables say: run `cargo xtask gen`"
        );
    }

    #[test]
    fn no_two_operations_have_one_name() {
        let document = document();
        let mut names: Vec<&str> = Vec::new();
        for methods in document["paths"].as_object().unwrap().values() {
            for operation in methods.as_object().unwrap().values() {
                names.push(operation["operationId"].as_str().unwrap());
            }
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
