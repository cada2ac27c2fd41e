//! Quotas: one object a project.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::quota;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { Ok(Reply::ok(quota::list(&server.app, &request.caller).await?)) })
}

pub(super) fn show(server: Arc<Server>, request: Request) -> Answer {
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

pub(super) fn show_default(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(quota::show_default(
            &server.app,
            &request.caller,
            request.id(0),
        )?))
    })
}

pub(super) fn show_details(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(
            quota::show_details(&server.app, &request.caller, request.id(0)).await?,
        ))
    })
}

pub(super) fn update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = quota::update(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        quota::delete(&server.app, &request.caller, request.id(0)).await?;
        Ok(Reply::no_content())
    })
}
