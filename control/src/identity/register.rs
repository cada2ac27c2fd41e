//! Telling Keystone's catalogue where the Networking API is.

use crate::remote::session::{Credentials, Session};
use crate::remote::{self, RemoteError};
use crate::store::Clock;
use axum::http::Method;
use serde_json::{Value, json};

/// The kinds of endpoints that clients look for.
const INTERFACES: &[&str] = &["public", "internal", "admin"];

/// What is to stand in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The region; made if it is missing.
    pub region: String,
    /// The API's URL, without a version.
    pub url: String,
}

/// What had to be changed, a sentence each; nothing if all stood there.
pub type Changes = Vec<String>;

/// Makes the service `network` and its endpoints in the region, or changes what is there. Needs the right to do so: an admin.
///
/// # Errors
/// [`RemoteError`].
pub async fn register(
    credentials: Credentials,
    registration: &Registration,
    clock: Clock,
) -> Result<Changes, RemoteError> {
    let registrar = Registrar(Session::new(credentials, clock)?);
    let mut changes = Changes::new();
    let Registration { region, url } = registration;
    let url = url.trim_end_matches('/');
    let regions = registrar.list("regions", "").await?;
    if !regions.iter().any(|known| known["id"] == *region) {
        registrar
            .create("regions", "region", &json!({ "id": region }))
            .await?;
        changes.push(format!("made the region {region}"));
    }
    let services = registrar.list("services", "?type=network").await?;
    let service = match services.into_iter().next() {
        Some(service) => service,
        None => {
            changes.push("made the service neutron of type network".to_owned());
            let new = json!({ "type": "network", "name": "neutron", "description": "Weft" });
            registrar.create("services", "service", &new).await?
        }
    };
    let service = text(&service, "id");
    let endpoints = registrar
        .list("endpoints", &format!("?service_id={service}"))
        .await?;
    for interface in INTERFACES {
        let is = |e: &&Value| e["interface"] == *interface && e["region_id"] == *region;
        match endpoints.iter().find(is) {
            Some(endpoint) if text(endpoint, "url").trim_end_matches('/') == url => {}
            Some(endpoint) => {
                let path = format!("/endpoints/{}", text(endpoint, "id"));
                let change = json!({ "endpoint": { "url": url } });
                registrar.call(Method::PATCH, &path, Some(&change)).await?;
                changes.push(format!(
                    "changed the {interface} endpoint from {}",
                    text(endpoint, "url")
                ));
            }
            None => {
                let new = json!({ "service_id": service, "interface": interface, "url": url, "region_id": region });
                registrar.create("endpoints", "endpoint", &new).await?;
                changes.push(format!("made the {interface} endpoint {url}"));
            }
        }
    }
    Ok(changes)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

struct Registrar(Session);

impl Registrar {
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> remote::Result<Value> {
        let url = self.0.keystone(path);
        self.0.send(method, &url, &[], body).await?.good()?.json()
    }

    async fn list(&self, collection: &str, query: &str) -> remote::Result<Vec<Value>> {
        let mut answer = self
            .call(Method::GET, &format!("/{collection}{query}"), None)
            .await?;
        match answer[collection].take() {
            Value::Array(list) => Ok(list),
            _ => Err(RemoteError::Unreadable {
                url: self.0.keystone(&format!("/{collection}")),
                message: format!("there is no list {collection:?}"),
            }),
        }
    }

    async fn create(&self, collection: &str, resource: &str, new: &Value) -> remote::Result<Value> {
        let body = json!({ resource: new });
        let mut answer = self
            .call(Method::POST, &format!("/{collection}"), Some(&body))
            .await?;
        Ok(answer[resource].take())
    }
}
