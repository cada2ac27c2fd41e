//! The built-in identity in Keystone v3's form, as far as the stock client and SDK ask for it.

mod catalogue;
mod project;
mod role;
mod token;
mod user;

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Route, route};
use crate::app::policy::Caller;
use crate::identity::IdentityError;
use axum::http::Method;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// Characters of a name.
const NAME_MAX: usize = 255;

pub(super) fn routes() -> Vec<Route> {
    use Access::{Public, Token};
    const TOKENS: &str = "/identity/v3/auth/tokens";
    let mut routes = vec![
        route(Method::GET, "/identity", Public, catalogue::versions),
        route(Method::GET, "/identity/", Public, catalogue::versions),
        route(Method::GET, "/identity/v3", Public, catalogue::version),
        route(Method::GET, "/identity/v3/", Public, catalogue::version),
        route(Method::POST, TOKENS, Public, token::token_create),
        route(Method::GET, TOKENS, Token, token::token_show),
        route(Method::HEAD, TOKENS, Token, token::token_check),
        route(Method::DELETE, TOKENS, Token, token::token_delete),
        route(
            Method::GET,
            "/identity/v3/auth/catalog",
            Token,
            catalogue::catalogue_show,
        ),
        route(
            Method::GET,
            "/identity/v3/domains",
            Token,
            catalogue::domain_list,
        ),
        route(
            Method::GET,
            "/identity/v3/domains/{id}",
            Token,
            catalogue::domain_show,
        ),
        route(
            Method::GET,
            "/identity/v3/services",
            Token,
            catalogue::service_list,
        ),
        route(
            Method::GET,
            "/identity/v3/services/{id}",
            Token,
            catalogue::service_show,
        ),
        route(
            Method::GET,
            "/identity/v3/endpoints",
            Token,
            catalogue::endpoint_list,
        ),
        route(
            Method::GET,
            "/identity/v3/regions",
            Token,
            catalogue::region_list,
        ),
    ];
    routes.extend(project::routes());
    routes.extend(user::routes());
    routes.extend(role::routes());
    routes
}

fn invalid(message: impl Into<String>) -> HttpError {
    HttpError::Identity(IdentityError::Invalid(message.into()))
}

fn admin_only(caller: &Caller) -> Result<(), HttpError> {
    if caller.is_admin() {
        Ok(())
    } else {
        Err(HttpError::Identity(IdentityError::Forbidden))
    }
}

/// A list in Keystone's form, filtered by `name` and `enabled` as the client asks.
fn listed(request: &Request, key: &str, items: Vec<Value>) -> Reply {
    let wanted = |item: &Value| {
        request
            .query
            .iter()
            .all(|(name, value)| match name.as_str() {
                "name" | "type" | "service_id" | "interface" => {
                    item[name].as_str() == Some(value.as_str())
                }
                _ => true,
            })
    };
    let items: Vec<Value> = items.into_iter().filter(wanted).collect();
    Reply::ok(json!({ key: items, "links": { "next": null, "previous": null, "self": "" } }))
}

fn object(request: &Request, key: &str) -> Result<Map<String, Value>, HttpError> {
    match request.json()?.get_mut(key).map(Value::take) {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(invalid(format!("Expecting to find '{key}' in the body"))),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, HttpError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= NAME_MAX && !text.contains('\0') => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(invalid(format!(
            "{key}: expected a string of at most {NAME_MAX} characters"
        ))),
    }
}

fn name(object: &Map<String, Value>) -> Result<String, HttpError> {
    let name = text(object, "name")?.filter(|name| !name.trim().is_empty());
    name.ok_or_else(|| invalid("name: expected a string of 1 to 255 characters"))
}

fn truth(object: &Map<String, Value>, key: &str) -> Result<Option<bool>, HttpError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(invalid(format!("{key}: expected true or false"))),
    }
}
