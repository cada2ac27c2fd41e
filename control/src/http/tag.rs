//! Tags of any resource: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::resource::Resource;
use crate::app::tag::{self, Change};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn list<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let tags = tag::list::<R>(&server.app, &request.caller, request.id(0));
        Ok(Reply::ok(tags.await?))
    })
}

pub(super) fn show<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (id, tag) = (request.id(0), request.id(1));
        tag::show::<R>(&server.app, &request.caller, id, tag).await?;
        Ok(Reply::no_content())
    })
}

pub(super) fn replace<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let change = Change::Replace(request.json()?);
        Ok(Reply::ok(changed::<R>(&server, &request, change).await?))
    })
}

pub(super) fn add<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let change = Change::Add(request.json()?);
        Ok(Reply::created(
            changed::<R>(&server, &request, change).await?,
        ))
    })
}

pub(super) fn add_one<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let change = Change::AddOne(request.id(1).to_owned());
        changed::<R>(&server, &request, change).await?;
        Ok(Reply {
            status: StatusCode::CREATED,
            ..Reply::default()
        })
    })
}

pub(super) fn remove_one<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let change = Change::RemoveOne(request.id(1).to_owned());
        changed::<R>(&server, &request, change).await?;
        Ok(Reply::no_content())
    })
}

pub(super) fn remove_all<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        changed::<R>(&server, &request, Change::RemoveAll).await?;
        Ok(Reply::no_content())
    })
}

async fn changed<R: Resource>(
    server: &Server,
    request: &Request,
    change: Change,
) -> Result<Value, HttpError> {
    Ok(tag::change::<R>(&server.app, &request.caller, request.id(0), change).await?)
}
