//! Documents that clients look at before they ask for anything: versions, extensions, availability zones.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::{availability_zone, extension};
use futures_util::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn root(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let href = format!("{}/v2.0/", server.origin(&request));
        Ok(Reply::ok(json!({ "versions": [{
            "id": "v2.0",
            "status": "CURRENT",
            "links": [{ "rel": "self", "href": href }],
        }] })))
    })
}

pub(super) fn v2(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let origin = server.origin(&request);
        let mut collections: Vec<&str> = super::routes()
            .iter()
            .filter_map(|route| route.path.strip_prefix("/v2.0/"))
            .filter(|path| !path.is_empty() && !path.contains('/'))
            .collect();
        collections.dedup();
        let resources: Vec<_> = collections
            .into_iter()
            .map(|path| {
                let collection = path.replace('-', "_");
                let name = match collection.strip_suffix("ies") {
                    Some(stem) => format!("{stem}y"),
                    None => collection.trim_end_matches('s').to_owned(),
                };
                json!({
                    "name": name,
                    "collection": collection,
                    "links": [{ "rel": "self", "href": format!("{origin}/v2.0/{path}") }],
                })
            })
            .collect();
        Ok(Reply::ok(json!({ "resources": resources })))
    })
}

pub(super) fn extensions(_server: Arc<Server>, _request: Request) -> Answer {
    boxed(async move { Ok(Reply::ok(extension::list())) })
}

pub(super) fn extension(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { Ok(Reply::ok(extension::show(request.id(0))?)) })
}

pub(super) fn availability_zones(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let zones = availability_zone::list(&server.app, &request.caller, &request.query);
        Ok(Reply::ok(zones.await?))
    })
}
