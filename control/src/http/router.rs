//! Routers' own operations.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::router;
use futures_util::future::BoxFuture;
use std::sync::Arc;

pub(super) fn add_interface(
    server: Arc<Server>,
    request: Request,
) -> BoxFuture<'static, Result<Reply, HttpError>> {
    boxed(async move {
        let body = request.json()?;
        let done = router::add_interface(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn remove_interface(
    server: Arc<Server>,
    request: Request,
) -> BoxFuture<'static, Result<Reply, HttpError>> {
    boxed(async move {
        let body = request.json()?;
        let done = router::remove_interface(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}
