//! Auto-allocated topologies: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::auto_allocated_topology;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (app, caller) = (&server.app, &request.caller);
        let shown = auto_allocated_topology::show(app, caller, request.id(0), &request.query);
        Ok(Reply::ok(shown.await?))
    })
}

pub(super) fn delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        auto_allocated_topology::delete(&server.app, &request.caller, request.id(0)).await?;
        Ok(Reply::no_content())
    })
}
