//! Quotas: one object a project.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Route, Server, boxed, route};
use crate::app::quota;
use axum::http::Method;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        route(Method::GET, "/v2.0/quotas", Access::Token, list),
        route(Method::GET, "/v2.0/quotas/{project}", Access::Token, show),
        route(
            Method::GET,
            "/v2.0/quotas/{project}/default",
            Access::Token,
            show_default,
        ),
        route(
            Method::GET,
            "/v2.0/quotas/{project}/details",
            Access::Token,
            show_details,
        ),
        // The stock client's older form.
        route(
            Method::GET,
            "/v2.0/quotas/{project}/details.json",
            Access::Token,
            show_details,
        ),
        route(Method::PUT, "/v2.0/quotas/{project}", Access::Token, update),
        route(
            Method::DELETE,
            "/v2.0/quotas/{project}",
            Access::Token,
            delete,
        ),
    ]
}

fn list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { Ok(Reply::ok(quota::list(&server.app, &request.caller).await?)) })
}

fn show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        // /quotas/project and /quotas/tenant name the caller's own project.
        if matches!(request.id(0), "project" | "tenant") {
            let id = &request.caller.project_id;
            let body = serde_json::json!({ "tenant": { "tenant_id": id, "project_id": id } });
            return Ok(Reply::ok(body));
        }
        Ok(Reply::ok(
            quota::show(&server.app, &request.caller, request.id(0)).await?,
        ))
    })
}

fn show_default(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(quota::show_default(
            &server.app,
            &request.caller,
            request.id(0),
        )?))
    })
}

fn show_details(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(
            quota::show_details(&server.app, &request.caller, request.id(0)).await?,
        ))
    })
}

fn update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = quota::update(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

fn delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        quota::delete(&server.app, &request.caller, request.id(0)).await?;
        Ok(Reply::no_content())
    })
}
