//! The five operations of every resource: decode, app, encode.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Server, boxed};
use crate::app::resource::{self, Resource};
use crate::app::resource_list::{self, Listed};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
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
        let listed = resource_list::list::<R>(&server.app, &request.caller, parent, query).await?;
        let links = listed.asked.paged.then(|| {
            let links = links(&server, &request, &listed);
            (format!("{}_links", R::COLLECTION), links.into())
        });
        Ok(Reply::json(listed.body(links)))
    })
}

/// Links to the pages behind and before this one. As in Neutron, only a page that is not full has no link in the
/// direction in which it was read: there is nothing more. An empty page leads back to where it came from.
fn links(server: &Server, request: &Request, listed: &Listed) -> Vec<Value> {
    let asked = &listed.asked.list;
    let full = asked
        .limit
        .is_some_and(|limit| listed.count >= limit as usize);
    let link = |rel: &str, marker: Option<&String>, reverse: bool| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in &request.query {
            if name != "marker" && name != "page_reverse" {
                query.append_pair(name, value);
            }
        }
        if let Some(marker) = marker {
            query.append_pair("marker", marker);
        }
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
    let (first, last) = listed
        .ends
        .as_ref()
        .map_or((None, None), |(first, last)| (Some(first), Some(last)));
    let mut links = Vec::new();
    if full || asked.page_reverse {
        links.push(link("next", last, false));
    }
    if full || !asked.page_reverse {
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
        Ok(Reply::json(shown.await?))
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
