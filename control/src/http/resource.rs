//! The five operations of every resource: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::resource::{self, Resource};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

pub(super) fn create<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let parent = request.parent();
        let done = resource::create::<R>(&server.app, &request.caller, parent, body).await?;
        Ok(Reply::created(done.body).warning(done.warnings))
    })
}

pub(super) fn list<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (parent, query) = (request.parent(), &request.query);
        let listed = resource::list::<R>(&server.app, &request.caller, parent, query).await?;
        let mut body = Map::new();
        if listed.asked.paged {
            let links = links(&server, &request, &listed);
            if !links.is_empty() {
                body.insert(format!("{}_links", R::COLLECTION), links.into());
            }
        }
        body.insert(R::COLLECTION.to_owned(), listed.items.into());
        Ok(Reply::ok(Value::Object(body)))
    })
}

/// Links to the pages behind and before this one: the next one if this one is full, the previous one if there is a
/// marker.
fn links(server: &Server, request: &Request, listed: &resource::Listed) -> Vec<Value> {
    let Some((first, last)) = &listed.ends else {
        return Vec::new();
    };
    let asked = &listed.asked.list;
    let full = asked
        .limit
        .is_some_and(|limit| listed.items.len() >= limit as usize);
    let link = |rel: &str, marker: &str, reverse: bool| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &request.query {
            if name != "marker" && name != "page_reverse" {
                query.append_pair(name, value);
            }
        }
        query.append_pair("marker", marker);
        if reverse {
            query.append_pair("page_reverse", "True");
        }
        let href = format!(
            "{}{}?{}",
            server.origin(request),
            request.uri_path,
            query.finish()
        );
        json!({ "rel": rel, "href": href })
    };
    let mut links = Vec::new();
    let (more_behind, more_before) = match asked.page_reverse {
        false => (full, asked.marker.is_some()),
        true => (asked.marker.is_some(), full),
    };
    if more_behind {
        links.push(link("next", last, false));
    }
    if more_before {
        links.push(link("previous", first, true));
    }
    links
}

pub(super) fn show<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let shown = resource::show::<R>(
            &server.app,
            &request.caller,
            request.place(),
            &request.query,
        );
        Ok(Reply::ok(shown.await?))
    })
}

pub(super) fn update<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let (body, if_match) = (request.json()?, request.if_match()?);
        let place = request.place();
        let done = resource::update::<R>(&server.app, &request.caller, place, if_match, body);
        let done = done.await?;
        Ok(Reply::ok(done.body).warning(done.warnings))
    })
}

pub(super) fn delete<R: Resource>(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let if_match = request.if_match()?;
        resource::delete::<R>(&server.app, &request.caller, request.place(), if_match).await?;
        Ok(Reply::no_content())
    })
}
