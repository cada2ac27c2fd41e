//! Projects.

use super::super::request::{Reply, Request};
use super::super::{Access, Route, Server, boxed, route};
use super::{Answer, admin_only, listed, name, object, text, truth};
use crate::identity::DOMAIN_ID;
use crate::store::identity::ProjectRow;
use axum::http::Method;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route> {
    use Access::Token;
    vec![
        route(
            Method::GET,
            "/identity/v3/auth/projects",
            Token,
            project_list_own,
        ),
        route(
            Method::GET,
            "/identity/v3/users/{id}/projects",
            Token,
            project_list_own,
        ),
        route(Method::GET, "/identity/v3/projects", Token, project_list),
        route(Method::POST, "/identity/v3/projects", Token, project_create),
        route(
            Method::GET,
            "/identity/v3/projects/{id}",
            Token,
            project_show,
        ),
        route(
            Method::PATCH,
            "/identity/v3/projects/{id}",
            Token,
            project_update,
        ),
        route(
            Method::DELETE,
            "/identity/v3/projects/{id}",
            Token,
            project_delete,
        ),
    ]
}

fn project_view(row: &ProjectRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "enabled": row.enabled,
        "domain_id": DOMAIN_ID,
        "parent_id": DOMAIN_ID,
        "is_domain": false,
        "tags": [],
        "options": {},
        "links": {},
    })
}

fn project_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let projects = server.identity()?.project_list().await?;
        Ok(listed(
            &request,
            "projects",
            projects.iter().map(project_view).collect(),
        ))
    })
}

/// The projects where the caller (or for an admin another user) has a role.
fn project_list_own(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let user = match request.id(0) {
            "" => request.caller.user_id.clone(),
            user if user == request.caller.user_id => user.to_owned(),
            user => {
                admin_only(&request.caller)?;
                user.to_owned()
            }
        };
        let assignments = server.identity()?.assignment_list().await?;
        let own = |project: &&ProjectRow| {
            assignments
                .iter()
                .any(|a| a.user_id == user && a.project_id == project.id)
        };
        let projects = server.identity()?.project_list().await?;
        Ok(listed(
            &request,
            "projects",
            projects.iter().filter(own).map(project_view).collect(),
        ))
    })
}

fn project_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        if request.id(0) != request.caller.project_id {
            admin_only(&request.caller)?;
        }
        let row = server.identity()?.project_get(request.id(0)).await?;
        Ok(Reply::ok(json!({ "project": project_view(&row) })))
    })
}

fn project_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let project = object(&request, "project")?;
        let row = ProjectRow {
            id: String::new(),
            name: name(&project)?,
            description: text(&project, "description")?.unwrap_or_default(),
            enabled: truth(&project, "enabled")?.unwrap_or(true),
        };
        let row = server.identity()?.project_create(row).await?;
        Ok(Reply::created(json!({ "project": project_view(&row) })))
    })
}

fn project_update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let project = object(&request, "project")?;
        let mut row = server.identity()?.project_get(request.id(0)).await?;
        row.name = text(&project, "name")?.unwrap_or(row.name);
        row.description = text(&project, "description")?.unwrap_or(row.description);
        row.enabled = truth(&project, "enabled")?.unwrap_or(row.enabled);
        let row = server.identity()?.project_update(row).await?;
        Ok(Reply::ok(json!({ "project": project_view(&row) })))
    })
}

fn project_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server.identity()?.project_delete(request.id(0)).await?;
        Ok(Reply::no_content())
    })
}
