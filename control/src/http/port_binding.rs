//! Bindings of ports: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::port_binding;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, query) = (&request.caller, &request.query);
        let bindings = port_binding::list(&server.app, caller, request.id(0), query);
        Ok(Reply::ok(bindings.await?))
    })
}

pub(super) fn show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, port, host) = (&request.caller, request.id(0), request.id(1));
        Ok(Reply::ok(
            port_binding::show(&server.app, caller, port, host).await?,
        ))
    })
}

pub(super) fn create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let made = port_binding::create(&server.app, &request.caller, request.id(0), body);
        Ok(Reply::created(made.await?))
    })
}

pub(super) fn update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let (caller, port, host) = (&request.caller, request.id(0), request.id(1));
        let changed = port_binding::change(&server.app, caller, port, host, body);
        Ok(Reply::ok(changed.await?))
    })
}

pub(super) fn delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, port, host) = (&request.caller, request.id(0), request.id(1));
        port_binding::delete(&server.app, caller, port, host).await?;
        Ok(Reply::no_content())
    })
}

pub(super) fn activate(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (caller, port, host) = (&request.caller, request.id(0), request.id(1));
        Ok(Reply::ok(
            port_binding::activate(&server.app, caller, port, host).await?,
        ))
    })
}
