//! What agents serve, and which agents serve it: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Route, Server, boxed, route};
use crate::app::agent_scheduler::{self as scheduler, Dhcp, L3Routers, Scheduled};
use axum::http::Method;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let get = |path, handler| route(Method::GET, path, Access::Token, handler);
    let post = |path, handler| route(Method::POST, path, Access::Token, handler);
    let delete = |path, handler| route(Method::DELETE, path, Access::Token, handler);
    let (networks, network) = (
        "/v2.0/agents/{id}/dhcp-networks",
        "/v2.0/agents/{id}/dhcp-networks/{network}",
    );
    let (routers, router) = (
        "/v2.0/agents/{id}/l3-routers",
        "/v2.0/agents/{id}/l3-routers/{router}",
    );
    vec![
        get(networks, served::<Dhcp>),
        post(networks, give::<Dhcp>),
        delete(network, take::<Dhcp>),
        get("/v2.0/networks/{id}/dhcp-agents", agents::<Dhcp>),
        get(routers, served::<L3Routers>),
        post(routers, give::<L3Routers>),
        delete(router, take::<L3Routers>),
        get("/v2.0/routers/{id}/l3-agents", agents::<L3Routers>),
    ]
}

fn served<S: Scheduled>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, query) = (&request.caller, &request.query);
        let listed = scheduler::served::<S>(&server.app, caller, request.id(0), query).await?;
        Ok(Reply::json(listed.body(None)))
    })
}

fn agents<S: Scheduled>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, query) = (&request.caller, &request.query);
        let agents = scheduler::agents::<S>(&server.app, caller, request.id(0), query).await?;
        Ok(Reply::ok(json!({ "agents": agents })))
    })
}

fn give<S: Scheduled>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        scheduler::give::<S>(&server.app, &request.caller, request.id(0), &body).await?;
        Ok(Reply::created(Value::Null).warning(vec![scheduler::WARNING]))
    })
}

fn take<S: Scheduled>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, agent, served) = (&request.caller, request.id(0), request.id(1));
        scheduler::take::<S>(&server.app, caller, agent, served).await?;
        Ok(Reply::no_content().warning(vec![scheduler::WARNING]))
    })
}
