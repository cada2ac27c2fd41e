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
        self.report_with(
            json!({ "full": false, "ports": [{ "port_id": port, "status": status }] }),
        )
        .await;
    }

    /// What the host's agent says.
    async fn report_with(&self, more: Value) {
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
        let mut report = more;
        for (key, value) in [
            ("host", json!("h1")),
            ("epoch", first["epoch"].clone()),
            ("revision", first["revision"].clone()),
        ] {
            report[key] = value;
        }
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

/// A GET of Nova's, and what is under a pointer in its answer.
async fn nova_reads(nova: &Session, reads: &[(String, &str, Value)]) {
    for (path, pointer, expected) in reads {
        let answer = nova.get(&format!("/v2.0/{path}")).await;
        let answer = answer.ok();
        let found = answer.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(found, expected, "{path}: {answer}");
    }
}

/// The calls of a stock Nova (34) that boots a guest on a port that is there, and deletes it, in their order; what it makes
/// of each answer is what is compared.
#[tokio::test]
async fn a_guest_is_booted_and_deleted_as_nova_does_it() {
    let mut told = Told::start().await;
    // Nova reads as an administrator and writes as a service: its user is both.
    let admin = told.api.admin().await;
    let nova = told.api.user("service", "service").await;
    let vhost_user = json!({ "socket_folder": "/run/weft/vhost", "mode": "server" });
    told.report_with(json!({ "full": true, "ports": [], "vhost_user": vhost_user }))
        .await;
    let (network, subnet) = admin.network_with_subnet("labnet", "192.0.2.0/24").await;
    let (network, subnet) = (text(&network["id"]), text(&subnet["id"]));
    let port = admin
        .create("port", json!({ "name": "p", "network_id": network }))
        .await;
    let (id, group) = (text(&port["id"]), port["security_groups"][0].clone());
    let address = text(&port["fixed_ips"][0]["ip_address"]);
    let project = &admin.project_id;
    // What Nova's API and conductor look at.
    let extensions = admin.get("/v2.0/extensions").await.ok();
    for alias in [
        "binding",
        "binding-extended",
        "port-resource-request",
        "dns-integration",
    ] {
        let list = extensions["extensions"].as_array().expect("a list");
        assert!(list.iter().any(|known| known["alias"] == alias), "{alias}");
    }
    let of_port = "fields=binding%3Avnic_type&fields=binding%3Aprofile&fields=network_id\
                   &fields=resource_request&fields=numa_affinity_policy&fields=device_profile";
    let asked = json!({
        "binding:vnic_type": "normal", "binding:profile": {}, "network_id": network,
        "resource_request": null, "numa_affinity_policy": null, "device_profile": null,
    });
    let of_device = format!("ports?fields=security_groups&fields=device_id&device_id={SERVER}");
    let provider = "fields=provider%3Aphysical_network&fields=provider%3Anetwork_type";
    let types = json!({ "provider:network_type": "vxlan", "provider:physical_network": null });
    nova_reads(
        &admin,
        &[
            (format!("ports/{id}"), "/port/device_id", json!("")),
            (format!("ports/{id}?{of_port}"), "/port", asked),
            (
                format!("networks/{network}?fields=segments"),
                "/network",
                json!({}),
            ),
            (format!("networks/{network}?{provider}"), "/network", types),
            (of_device.clone(), "/ports", json!([])),
            (
                format!("networks?id={network}"),
                "/networks/0/port_security_enabled",
                json!(true),
            ),
        ],
    )
    .await;
    let bind = json!({ "port": {
        "device_id": SERVER, "device_owner": "compute:nova", "binding:host_id": "h1", "dns_name": "vm",
    } });
    let bound = nova.put(&format!("/v2.0/ports/{id}"), &bind).await.ok()["port"].clone();
    assert_eq!(bound["binding:vif_type"], "vhostuser");
    let details = json!({
        "port_filter": true, "vhostuser_mode": "server", "vhostuser_ovs_plug": false,
        "vhostuser_socket": format!("/run/weft/vhost/vhu{:.11}", id),
    });
    assert_eq!(bound["binding:vif_details"], details);
    assert_eq!(bound["dns_assignment"][0]["hostname"], "vm");
    assert_eq!(told.next().await["name"], "network-changed");
    // What it tells the guest's metadata, when it hears of the change.
    let of_address = format!("floatingips?fixed_ip_address={address}&port_id={id}");
    nova_reads(
        &admin,
        &[
            (
                format!("ports?tenant_id={project}&device_id={SERVER}"),
                "/ports/0/id",
                json!(id),
            ),
            (of_address, "/floatingips", json!([])),
            (
                format!("subnets?id={subnet}"),
                "/subnets/0/gateway_ip",
                json!("192.0.2.1"),
            ),
            (
                format!("ports?network_id={network}&device_owner=network%3Adhcp"),
                "/ports",
                json!([]),
            ),
        ],
    )
    .await;
    told.report(&id, "ACTIVE").await;
    assert_eq!(told.next().await["name"], "network-vif-plugged");
    let groups = format!("security-groups?id={}&fields=id&fields=name", text(&group));
    let default = json!({ "id": group, "name": "default" });
    nova_reads(
        &admin,
        &[
            (
                of_device,
                "/ports/0",
                json!({ "device_id": SERVER, "security_groups": [group] }),
            ),
            (groups, "/security_groups/0", default),
            // And now it goes.
            (
                format!("ports?device_id={SERVER}"),
                "/ports/0/status",
                json!("ACTIVE"),
            ),
            (
                format!("ports/{id}?fields=binding%3Aprofile&fields=network_id"),
                "/port",
                json!({ "binding:profile": {}, "network_id": network }),
            ),
            (
                format!("networks/{network}?fields=dns_domain"),
                "/network",
                json!({ "dns_domain": "" }),
            ),
        ],
    )
    .await;
    let unbind = json!({ "port": {
        "binding:host_id": null, "device_id": "", "device_owner": "", "binding:profile": {},
        "dns_name": "",
    } });
    let unbound = nova.put(&format!("/v2.0/ports/{id}"), &unbind).await.ok()["port"].clone();
    assert_eq!(unbound["binding:vif_type"], "unbound");
    assert_eq!(unbound["binding:vif_details"], json!({}));
    assert_eq!(
        (&unbound["status"], &unbound["device_id"]),
        (&json!("DOWN"), &json!(""))
    );
    assert_eq!(unbound["fixed_ips"][0]["ip_address"], json!(address));
}

#[tokio::test]
async fn a_binding_in_force_that_changes_is_told() {
    let mut told = Told::start().await;
    let (admin, service) = (
        told.api.admin().await,
        told.api.user("service", "service").await,
    );
    let owner = json!({ "device_owner": "compute:nova", "device_id": SERVER });
    let id = port(&admin, owner).await;
    let path = format!("/v2.0/ports/{id}/bindings");
    let changed = json!({ "name": "network-changed", "server_uuid": SERVER, "tag": id });
    let host = |host: &str| json!({ "binding": { "host": host } });
    service.post(&path, &host("h1")).await.expect(201);
    assert_eq!(told.next().await, changed);
    // Where the guest may go to is no news; where it goes is.
    service.post(&path, &host("h2")).await.expect(201);
    service
        .put(&format!("{path}/h2/activate"), &Value::Null)
        .await
        .ok();
    assert_eq!(told.next().await, changed);
    assert!(told.heard.try_recv().is_err(), "there were two events only");
}
