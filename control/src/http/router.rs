//! Routers' own operations, and what hangs on routers and their services without being a resource.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Route, Server, boxed, route};
use crate::app::extra_route::{self, Change};
use crate::app::{flavor, floating_ip_pool, router_interface, service_provider};
use axum::http::Method;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let put = |path, handler| route(Method::PUT, path, Access::Token, handler);
    let get = |path, handler| route(Method::GET, path, Access::Token, handler);
    vec![
        put("/v2.0/routers/{id}/add_router_interface", add_interface),
        put(
            "/v2.0/routers/{id}/remove_router_interface",
            remove_interface,
        ),
        put("/v2.0/routers/{id}/add_extraroutes", add_routes),
        put("/v2.0/routers/{id}/remove_extraroutes", remove_routes),
        get("/v2.0/flavors/{id}/next_providers", next_providers),
        get("/v2.0/floatingip_pools", floating_ip_pools),
        get("/v2.0/floatingip-pools", floating_ip_pools),
        get("/v2.0/service-providers", service_providers),
    ]
}

fn add_interface(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let (app, caller) = (&server.app, &request.caller);
        let done = router_interface::add_interface(app, caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

fn remove_interface(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let (app, caller) = (&server.app, &request.caller);
        let done = router_interface::remove_interface(app, caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

fn add_routes(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { routes_change(&server, &request, Change::Add).await })
}

fn remove_routes(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { routes_change(&server, &request, Change::Remove).await })
}

async fn routes_change(
    server: &Server,
    request: &Request,
    change: Change,
) -> Result<Reply, HttpError> {
    let (body, id) = (request.json()?, request.id(0));
    let done = extra_route::change(&server.app, &request.caller, id, change, body);
    Ok(Reply::ok(done.await?))
}

fn next_providers(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let done = flavor::next_providers(&server.app, &request.caller, request.id(0));
        Ok(Reply::ok(done.await?))
    })
}

fn floating_ip_pools(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let done = floating_ip_pool::list(&server.app, &request.caller, &request.query);
        Ok(Reply::ok(done.await?))
    })
}

fn service_providers(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let done = service_provider::list(&server.app, &request.caller, &request.query);
        Ok(Reply::ok(done?))
    })
}
