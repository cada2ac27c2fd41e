//! Subnet pools' own operations.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::subnetpool;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn add_prefixes(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = subnetpool::add_prefixes(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn remove_prefixes(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let done = subnetpool::remove_prefixes(&server.app, &request.caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}

pub(super) fn onboard_network_subnets(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (body, caller) = (request.json()?, &request.caller);
        let done = subnetpool::onboard_network_subnets(&server.app, caller, request.id(0), &body);
        Ok(Reply::ok(done.await?))
    })
}
