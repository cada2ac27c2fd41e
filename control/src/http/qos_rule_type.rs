//! The types of QoS rules: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::qos_rule_type;
use futures_util::future::BoxFuture;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let types = qos_rule_type::list(&server.app, &request.caller, &request.query);
        Ok(Reply::ok(types?))
    })
}

pub(super) fn show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let shown = qos_rule_type::show(&server.app, &request.caller, request.id(0));
        Ok(Reply::ok(shown?))
    })
}
