//! What is where: versions, the catalogue, services, endpoints, the region and the one domain.

use super::super::request::{Reply, Request};
use super::super::{Server, boxed};
use super::{Answer, admin_only, listed};
use crate::identity::{DOMAIN_ID, DOMAIN_NAME, IdentityError};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

fn version_view(origin: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{origin}/identity/v3/") }],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

pub(super) fn versions(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let versions =
            json!({ "versions": { "values": [version_view(&server.origin(&request))] } });
        Ok(Reply {
            status: StatusCode::MULTIPLE_CHOICES,
            ..Reply::ok(versions)
        })
    })
}

pub(super) fn version(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(
            json!({ "version": version_view(&server.origin(&request)) }),
        ))
    })
}

/// The two services and where they are. Ids are fixed: there is one of each.
fn services() -> [(&'static str, &'static str, &'static str, &'static str); 2] {
    [
        ("6e6574776f726b000000000000000001", "network", "neutron", ""),
        (
            "6964656e746974790000000000000001",
            "identity",
            "keystone",
            "/identity",
        ),
    ]
}

fn endpoint_view(server: &Server, origin: &str, n: usize, interface: &str) -> Value {
    let (service, _, _, path) = services()[n];
    let kind = match interface {
        "public" => 1,
        "internal" => 2,
        _ => 3,
    };
    json!({
        "id": format!("656e64706f696e740000000000000{n}0{kind}"),
        "interface": interface,
        "region": server.region(),
        "region_id": server.region(),
        "service_id": service,
        "enabled": true,
        "url": format!("{origin}{path}"),
        "links": {},
    })
}

pub(super) fn catalogue(server: &Server, origin: &str) -> Value {
    let entries = services()
        .into_iter()
        .enumerate()
        .map(|(n, (id, kind, name, _))| {
            let endpoints: Vec<Value> = ["public", "internal", "admin"]
                .into_iter()
                .map(|interface| endpoint_view(server, origin, n, interface))
                .collect();
            json!({ "id": id, "type": kind, "name": name, "endpoints": endpoints })
        });
    entries.collect()
}

pub(super) fn catalogue_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let catalogue = catalogue(&server, &server.origin(&request));
        Ok(Reply::ok(json!({ "catalog": catalogue, "links": {} })))
    })
}

fn service_view((id, kind, name, _): (&str, &str, &str, &str)) -> Value {
    json!({ "id": id, "type": kind, "name": name, "enabled": true, "description": "", "links": {} })
}

pub(super) fn service_list(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        Ok(listed(
            &request,
            "services",
            services().into_iter().map(service_view).collect(),
        ))
    })
}

pub(super) fn service_show(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let found = services().into_iter().find(|(id, ..)| *id == request.id(0));
        let shown = request.id(0).chars().take(64).collect();
        let found = found.ok_or(IdentityError::NotFound("service", shown))?;
        Ok(Reply::ok(json!({ "service": service_view(found) })))
    })
}

pub(super) fn endpoint_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let origin = server.origin(&request);
        let mut endpoints = Vec::new();
        for n in 0..services().len() {
            for interface in ["public", "internal", "admin"] {
                endpoints.push(endpoint_view(&server, &origin, n, interface));
            }
        }
        Ok(listed(&request, "endpoints", endpoints))
    })
}

pub(super) fn region_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let region = json!({
            "id": server.region(),
            "description": "",
            "parent_region_id": null,
            "links": {},
        });
        Ok(listed(&request, "regions", vec![region]))
    })
}

fn domain_view() -> Value {
    json!({
        "id": DOMAIN_ID,
        "name": DOMAIN_NAME,
        "description": "The default domain",
        "enabled": true,
        "tags": [],
        "options": {},
        "links": {},
    })
}

pub(super) fn domain_list(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { Ok(listed(&request, "domains", vec![domain_view()])) })
}

pub(super) fn domain_show(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        match request.id(0) {
            DOMAIN_ID => Ok(Reply::ok(json!({ "domain": domain_view() }))),
            other => {
                Err(IdentityError::NotFound("domain", other.chars().take(64).collect()).into())
            }
        }
    })
}
