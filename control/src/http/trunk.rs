//! Trunks' own operations.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::trunk;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn add_subports(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = trunk::add_subports(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn remove_subports(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = trunk::remove_subports(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn get_subports(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let subports = trunk::get_subports(&server.app, &request.caller, request.id(0));
        Ok(Reply::ok(subports.await?))
    })
}
