//! How many addresses networks have: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::network_ip_availability;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (app, caller) = (&server.app, &request.caller);
        let text = network_ip_availability::list(app, caller, &request.query);
        Ok(Reply::json(text.await?))
    })
}

pub(super) fn show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (app, caller) = (&server.app, &request.caller);
        let text = network_ip_availability::show(app, caller, request.id(0), &request.query);
        Ok(Reply::json(text.await?))
    })
}
