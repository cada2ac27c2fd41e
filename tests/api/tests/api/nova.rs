//! What Nova is told of its servers' ports, by a receiver that records it, and that answers badly where a test wants so.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use weft_tests_api::{Api, Session, text};

const PASSWORD: &str = "of-the-service";
const SERVER: &str = "2ae55a75-4d1c-4b96-baf8-41aa700ed7b7";
const DEADLINE: Duration = Duration::from_secs(20);

/// A Nova, and the Keystone whose catalogue names it.
#[derive(Clone)]
struct Receiver {
    address: String,
    events: mpsc::UnboundedSender<Value>,
    /// What the next requests are answered with instead.
    refusals: Arc<Mutex<Vec<StatusCode>>>,
}

async fn login(State(receiver): State<Receiver>, Json(body): Json<Value>) -> Response {
    if body["auth"]["identity"]["password"]["user"]["password"] != PASSWORD {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let endpoint = json!({
        "interface": "public",
        "region_id": "RegionOne",
        "url": format!("http://{}/v2.1", receiver.address),
    });
    let view = json!({ "token": {
        "expires_at": "2999-01-01T00:00:00.000000Z",
        "catalog": [{ "type": "compute", "endpoints": [endpoint] }],
    } });
    (
        StatusCode::CREATED,
        [("x-subject-token", "good")],
        Json(view),
    )
        .into_response()
}

async fn events(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> StatusCode {
    assert_eq!(headers["x-auth-token"], "good");
    if let Some(refusal) = receiver.refusals.lock().expect("the lock").pop() {
        return refusal;
    }
    for event in body["events"].as_array().expect("as the test made it") {
        receiver
            .events
            .send(event.clone())
            .expect("as the test made it");
    }
    StatusCode::OK
}

/// A server that tells a Nova, and what that Nova hears.
struct Told {
    api: Api,
    heard: mpsc::UnboundedReceiver<Value>,
    refusals: Arc<Mutex<Vec<StatusCode>>>,
}

impl Told {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("as the test made it");
        let (events_to, heard) = mpsc::unbounded_channel();
        let receiver = Receiver {
            address: listener
                .local_addr()
                .expect("as the test made it")
                .to_string(),
            events: events_to,
            refusals: Arc::default(),
        };
        let auth_url = format!("http://{}/v3", receiver.address);
        let refusals = receiver.refusals.clone();
        let routes = Router::new()
            .route("/v3/auth/tokens", post(login))
            .route("/v2.1/os-server-external-events", post(events))
            .with_state(receiver);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let api = Api::start_with(|config| {
            config.nova.notify = true;
            config.nova.auth.auth_url = auth_url;
            config.nova.auth.password = PASSWORD.to_owned();
        });
        Self {
            api: api.await,
            heard,
            refusals,
        }
    }

    /// The next event.
    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(DEADLINE, self.heard.recv()).await;
        next.expect("an event in time").expect("an event")
    }

    /// What the host's agent says of a port.
    async fn report(&self, port: &str, status: &str) {
        let host = format!("{}/feed/v1/hosts/h1", self.api.feed_url);
        let mut feed = reqwest::get(format!("{host}/watch"))
            .await
            .expect("as the test made it");
        let line = feed
            .chunk()
            .await
            .expect("as the test made it")
            .expect("as the test made it");
        let line = String::from_utf8_lossy(&line).into_owned();
        let first: Value = serde_json::from_str(line.lines().next().expect("as the test made it"))
            .expect("as the test made it");
        let report = json!({
            "host": "h1",
            "epoch": first["epoch"],
            "revision": first["revision"],
            "full": false,
            "ports": [{ "port_id": port, "status": status }],
        });
        let client = reqwest::Client::new();
        let answer = client
            .post(format!("{host}/report"))
            .json(&report)
            .send()
            .await
            .expect("as the test made it");
        assert_eq!(answer.status().as_u16(), 204);
    }
}

async fn port(admin: &Session, more: Value) -> String {
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/26").await;
    let mut port = json!({ "network_id": network["id"] });
    port.as_object_mut()
        .expect("as the test made it")
        .extend(more.as_object().expect("as the test made it").clone());
    text(&admin.create("port", port).await["id"])
}

#[tokio::test]
async fn a_servers_port_is_followed_from_plug_to_delete() {
    let mut told = Told::start().await;
    let admin = told.api.admin().await;
    let id = port(&admin, json!({})).await;
    let path = format!("/v2.0/ports/{id}");
    // As Nova binds: the answer of its own request comes first, then the event.
    let bind = json!({ "port": {
        "device_id": SERVER,
        "device_owner": "compute:nova",
        "binding:host_id": "h1",
    } });
    admin.put(&path, &bind).await.ok();
    let changed = json!({ "name": "network-changed", "server_uuid": SERVER, "tag": id });
    assert_eq!(told.next().await, changed);
    for (status, name) in [
        ("ACTIVE", "network-vif-plugged"),
        ("DOWN", "network-vif-unplugged"),
    ] {
        told.report(&id, status).await;
        let event =
            json!({ "name": name, "server_uuid": SERVER, "tag": id, "status": "completed" });
        assert_eq!(told.next().await, event);
        // Said again it is no news: what comes next is another event.
        told.report(&id, status).await;
    }
    assert_eq!(admin.delete(&path).await.status, 204);
    let deleted = json!({ "name": "network-vif-deleted", "server_uuid": SERVER, "tag": id });
    assert_eq!(told.next().await, deleted);
}

#[tokio::test]
async fn other_ports_are_nobodys_business() {
    let mut told = Told::start().await;
    let admin = told.api.admin().await;
    let id = port(
        &admin,
        json!({ "device_owner": "baremetal:none", "device_id": SERVER }),
    )
    .await;
    let path = format!("/v2.0/ports/{id}");
    admin
        .put(&path, &json!({ "port": { "name": "other" } }))
        .await
        .ok();
    // A server's id that is none.
    let odd = json!({ "port": { "device_owner": "compute:nova", "device_id": "guest" } });
    admin.put(&path, &odd).await.ok();
    // A change that is refused is not told either.
    let refused =
        json!({ "port": { "device_id": SERVER, "fixed_ips": [{ "ip_address": "198.51.100.1" }] } });
    assert_eq!(admin.put(&path, &refused).await.status, 400);
    let real = json!({ "port": { "device_owner": "compute:nova", "device_id": SERVER } });
    // Nor one that is only tried.
    let tried = admin.put(&format!("{path}?dry_run=true"), &real).await;
    assert_eq!(tried.status, 200, "{}", tried.body);
    admin.put(&path, &real).await.ok();
    assert_eq!(told.next().await["name"], "network-changed");
    assert!(told.heard.try_recv().is_err(), "there was one event only");
}

#[tokio::test]
async fn what_nova_cannot_take_now_is_told_again() {
    let mut told = Told::start().await;
    let admin = told.api.admin().await;
    let owner = json!({ "device_owner": "compute:nova", "device_id": SERVER });
    let id = port(&admin, owner).await;
    let path = format!("/v2.0/ports/{id}");
    let rename = |name: &str| json!({ "port": { "name": name } });
    told.refusals.lock().expect("the lock").extend([
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::UNAUTHORIZED,
    ]);
    admin.put(&path, &rename("a")).await.ok();
    assert_eq!(told.next().await["tag"], id.as_str());
    assert!(told.refusals.lock().expect("the lock").is_empty());
    // What it refuses is not sent again, and does not hold up what follows.
    told.refusals
        .lock()
        .expect("the lock")
        .push(StatusCode::BAD_REQUEST);
    admin.put(&path, &rename("b")).await.ok();
    admin.delete(&path).await;
    let (mut last, deleted) = (told.next().await, "network-vif-deleted");
    while last["name"] != deleted {
        last = told.next().await;
    }
}
