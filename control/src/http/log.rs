//! What can be logged.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::log;
use futures_util::future::BoxFuture;
use std::sync::Arc;

pub(super) fn loggable_resources(
    server: Arc<Server>,
    request: Request,
) -> BoxFuture<'static, Result<Reply, HttpError>> {
    boxed(async move {
        Ok(Reply::ok(log::loggable_resources(
            &server.app,
            &request.caller,
        )?))
    })
}
