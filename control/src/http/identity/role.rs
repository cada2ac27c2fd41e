//! Roles, and who has which one where.

use super::super::error::HttpError;
use super::super::request::{Reply, Request};
use super::super::{Access, Route, Server, boxed, route};
use super::{Answer, admin_only, listed, name, object};
use crate::identity::{Assignment, DOMAIN_ID, DOMAIN_NAME, IdentityError};
use crate::store::identity::RoleRow;
use axum::http::Method;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route> {
    use Access::Token;
    const ROLE: &str = "/identity/v3/projects/{project}/users/{user}/roles/{role}";
    vec![
        route(Method::GET, "/identity/v3/roles", Token, role_list),
        route(Method::POST, "/identity/v3/roles", Token, role_create),
        route(Method::GET, "/identity/v3/roles/{id}", Token, role_show),
        route(
            Method::GET,
            "/identity/v3/role_assignments",
            Token,
            assignment_list,
        ),
        route(
            Method::GET,
            "/identity/v3/projects/{project}/users/{user}/roles",
            Token,
            role_list_of,
        ),
        route(Method::PUT, ROLE, Token, assignment_create),
        route(Method::HEAD, ROLE, Token, assignment_check),
        route(Method::DELETE, ROLE, Token, assignment_delete),
    ]
}

fn role_view(row: &RoleRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "domain_id": null,
        "description": null,
        "options": {},
        "links": {},
    })
}

fn role_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let roles = server.identity()?.role_list().await?;
        Ok(listed(
            &request,
            "roles",
            roles.iter().map(role_view).collect(),
        ))
    })
}

fn role_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let row = server
            .identity()?
            .role_create(&name(&object(&request, "role")?)?)
            .await?;
        Ok(Reply::created(json!({ "role": role_view(&row) })))
    })
}

fn role_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let roles = server.identity()?.role_list().await?;
        let row = roles.iter().find(|role| role.id == request.id(0));
        let shown = request.id(0).chars().take(64).collect();
        let row = row.ok_or(IdentityError::NotFound("role", shown))?;
        Ok(Reply::ok(json!({ "role": role_view(row) })))
    })
}

fn role_list_of(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let assignments = server.identity()?.assignment_list().await?;
        let roles = server.identity()?.role_list().await?;
        let (project, user) = (request.id(0), request.id(1));
        let has = |role: &&RoleRow| {
            assignments
                .iter()
                .any(|a| a.role_id == role.id && a.user_id == user && a.project_id == project)
        };
        Ok(listed(
            &request,
            "roles",
            roles.iter().filter(has).map(role_view).collect(),
        ))
    })
}

fn assignment_of(request: &Request) -> Assignment {
    Assignment {
        project_id: request.id(0).to_owned(),
        user_id: request.id(1).to_owned(),
        role_id: request.id(2).to_owned(),
    }
}

fn assignment_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server
            .identity()?
            .assignment_create(&assignment_of(&request))
            .await?;
        Ok(Reply::no_content())
    })
}

fn assignment_check(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let wanted = assignment_of(&request);
        if server
            .identity()?
            .assignment_list()
            .await?
            .contains(&wanted)
        {
            return Ok(Reply::no_content());
        }
        Err(
            IdentityError::NotFound("role assignment", wanted.role_id.chars().take(64).collect())
                .into(),
        )
    })
}

fn assignment_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server
            .identity()?
            .assignment_delete(&assignment_of(&request))
            .await?;
        Ok(Reply::no_content())
    })
}

fn assignment_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let asked = |key: &str| {
            request
                .query
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, v)| v)
        };
        let fits = |key: &str, value: &String| asked(key).is_none_or(|wanted| wanted == value);
        let named = asked("include_names").is_some();
        let mut views = Vec::new();
        for a in server.identity()?.assignment_list().await? {
            if fits("user.id", &a.user_id)
                && fits("scope.project.id", &a.project_id)
                && fits("role.id", &a.role_id)
            {
                views.push(assignment_view(&server, &a, named).await?);
            }
        }
        Ok(Reply::ok(json!({ "role_assignments": views, "links": {} })))
    })
}

async fn assignment_view(server: &Server, a: &Assignment, named: bool) -> Result<Value, HttpError> {
    let mut view = json!({
        "user": { "id": a.user_id },
        "role": { "id": a.role_id },
        "scope": { "project": { "id": a.project_id } },
        "links": {},
    });
    if named {
        let domain = json!({ "id": DOMAIN_ID, "name": DOMAIN_NAME });
        let roles = server.identity()?.role_list().await?;
        let role = roles.into_iter().find(|role| role.id == a.role_id);
        view["role"]["name"] = role.map(|role| role.name).into();
        view["user"]["name"] = server.identity()?.user_get(&a.user_id).await?.name.into();
        view["user"]["domain"] = domain.clone();
        let project = server.identity()?.project_get(&a.project_id).await?;
        view["scope"]["project"]["name"] = project.name.into();
        view["scope"]["project"]["domain"] = domain;
    }
    Ok(view)
}
