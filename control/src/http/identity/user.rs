//! Users.

use super::super::error::HttpError;
use super::super::request::{Reply, Request};
use super::super::{Access, Route, Server, boxed, route};
use super::{Answer, admin_only, invalid, listed, name, object, text, truth};
use crate::identity::{DOMAIN_ID, NewUser, UserChange};
use crate::store::identity::UserRow;
use axum::http::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route> {
    use Access::Token;
    vec![
        route(Method::GET, "/identity/v3/users", Token, user_list),
        route(Method::POST, "/identity/v3/users", Token, user_create),
        route(Method::GET, "/identity/v3/users/{id}", Token, user_show),
        route(Method::PATCH, "/identity/v3/users/{id}", Token, user_update),
        route(
            Method::DELETE,
            "/identity/v3/users/{id}",
            Token,
            user_delete,
        ),
    ]
}

fn user_view(row: &UserRow) -> Value {
    let mut user = json!({
        "id": row.id,
        "name": row.name,
        "domain_id": DOMAIN_ID,
        "enabled": row.enabled,
        "password_expires_at": null,
        "options": {},
        "links": {},
    });
    if let Some(project) = &row.default_project_id {
        user["default_project_id"] = project.clone().into();
    }
    user
}

fn user_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let users = server.identity()?.user_list().await?;
        Ok(listed(
            &request,
            "users",
            users.iter().map(user_view).collect(),
        ))
    })
}

fn user_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        if request.id(0) != request.caller.user_id {
            admin_only(&request.caller)?;
        }
        let row = server.identity()?.user_get(request.id(0)).await?;
        Ok(Reply::ok(json!({ "user": user_view(&row) })))
    })
}

fn password(object: &Map<String, Value>) -> Result<Option<String>, HttpError> {
    match object.get("password") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(password)) if !password.is_empty() => Ok(Some(password.clone())),
        Some(_) => Err(invalid("password: expected a string that is not empty")),
    }
}

fn user_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let user = object(&request, "user")?;
        let new = NewUser {
            name: name(&user)?,
            password: password(&user)?,
            default_project_id: text(&user, "default_project_id")?,
            enabled: truth(&user, "enabled")?.unwrap_or(true),
        };
        let row = server.identity()?.user_create(new).await?;
        Ok(Reply::created(json!({ "user": user_view(&row) })))
    })
}

fn user_update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let user = object(&request, "user")?;
        let change = UserChange {
            name: text(&user, "name")?,
            password: password(&user)?,
            enabled: truth(&user, "enabled")?,
            default_project_id: text(&user, "default_project_id")?,
        };
        let row = server
            .identity()?
            .user_update(request.id(0), change)
            .await?;
        Ok(Reply::ok(json!({ "user": user_view(&row) })))
    })
}

fn user_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server.identity()?.user_delete(request.id(0)).await?;
        Ok(Reply::no_content())
    })
}
