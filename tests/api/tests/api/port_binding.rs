//! Bindings of ports: where a guest is, where it may move to, and what Nova is told.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

struct Scene {
    _api: Api,
    admin: Session,
    nova: Session,
    port: Value,
    path: String,
}

/// A guest's port on the host h1.
async fn scene() -> Scene {
    let api = Api::start().await;
    let admin = api.admin().await;
    let nova = api.user("service", "service").await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let port = json!({
        "network_id": network["id"],
        "device_owner": "compute:nova",
        "binding:host_id": "h1",
    });
    let port = admin.create("port", port).await;
    let path = format!("/v2.0/ports/{}/bindings", text(&port["id"]));
    Scene {
        _api: api,
        admin,
        nova,
        port,
        path,
    }
}

#[tokio::test]
async fn a_guest_moves_by_an_activated_binding() {
    let Scene {
        admin,
        nova,
        port,
        path,
        ..
    } = &scene().await;
    let new = json!({ "binding": { "host": "h2", "profile": { "migrating_to": "h2" } } });
    let made = nova.post(path, &new).await.expect(201)["binding"].clone();
    assert_eq!(
        made,
        json!({
            "host": "h2", "status": "INACTIVE", "vif_type": "tap",
            "vif_details": { "port_filter": true }, "vnic_type": "normal",
            "profile": { "migrating_to": "h2" },
        })
    );
    let again = nova.post(path, &new).await;
    again.error(409, "PortBindingAlreadyExists");
    let one = format!("{path}/h2");
    let changed = json!({ "binding": { "profile": {} } });
    let changed = nova.put(&one, &changed).await.ok();
    assert_eq!(changed["binding"]["profile"], json!({}));
    let states = |list: Value| -> Vec<(String, String)> {
        let list = list["bindings"].as_array().expect("a list").clone();
        list.iter()
            .map(|b| (text(&b["host"]), text(&b["status"])))
            .collect()
    };
    let pair = |host: &str, status: &str| (host.to_owned(), status.to_owned());
    let list = states(admin.get(path).await.ok());
    assert_eq!(list, [pair("h1", "ACTIVE"), pair("h2", "INACTIVE")]);
    let chosen = states(admin.get(&format!("{path}?status=INACTIVE")).await.ok());
    assert_eq!(chosen, [pair("h2", "INACTIVE")]);

    let active = nova.put(&format!("{one}/activate"), &Value::Null).await;
    assert_eq!(active.ok()["binding"]["status"], "ACTIVE");
    let moved = admin.show("port", &port["id"]).await;
    assert_eq!(moved["binding:host_id"], "h2");
    assert_eq!(moved["status"], "DOWN");
    let again = nova.put(&format!("{one}/activate"), &Value::Null).await;
    again.error(409, "PortBindingAlreadyActive");
    nova.delete(&format!("{path}/h1")).await.expect(204);
    let list = states(admin.get(path).await.ok());
    assert_eq!(list, [pair("h2", "ACTIVE")]);
    nova.delete(&format!("{path}/h1"))
        .await
        .error(404, "PortBindingNotFound");

    nova.delete(&one).await.expect(204);
    let unbound = admin.show("port", &port["id"]).await;
    assert_eq!(unbound["binding:vif_type"], "unbound");
    let first = nova.post(path, &new).await.expect(201);
    assert_eq!(first["binding"]["status"], "ACTIVE");
}

#[tokio::test]
async fn only_services_move_guests_and_only_guests_move() {
    let Scene {
        _api,
        admin,
        nova,
        port,
        path,
    } = &scene().await;
    let member = _api.user("p1", "member").await;
    let new = json!({ "binding": { "host": "h2" } });
    for (session, get) in [(admin, 200), (&member, 403)] {
        assert_eq!(session.get(path).await.status, get);
        let refused = session.post(path, &new).await;
        refused.error(403, "PolicyNotAuthorized");
        let refused = session
            .put(&format!("{path}/h1/activate"), &Value::Null)
            .await;
        refused.error(403, "PolicyNotAuthorized");
        let refused = session.delete(&format!("{path}/h1")).await;
        refused.error(403, "PolicyNotAuthorized");
    }
    for body in [
        json!({}),
        json!({ "binding": {} }),
        json!([]),
        json!({ "binding": 1 }),
    ] {
        assert_eq!(nova.post(path, &body).await.status, 400, "{body}");
    }
    let plain = json!({ "network_id": port["network_id"] });
    let plain = admin.create("port", plain).await;
    let plain = format!("/v2.0/ports/{}/bindings", text(&plain["id"]));
    nova.get(&plain).await.error(400, "BadRequest");
    let nowhere = "/v2.0/ports/x/bindings";
    nova.get(nowhere).await.error(404, "PortNotFound");
}

#[tokio::test]
async fn what_no_engine_serves_is_not_called_bound() {
    let Scene { admin, port, .. } = &scene().await;
    let other = json!({ "binding:vnic_type": "direct" });
    let refused = admin.update("port", &port["id"], other).await;
    refused.error(409, "PortInUse");
    let direct = json!({
        "network_id": port["network_id"],
        "binding:vnic_type": "direct",
        "binding:host_id": "h1",
    });
    let direct = admin.create("port", direct).await;
    assert_eq!(direct["binding:vif_type"], "binding_failed");
}

#[tokio::test]
async fn a_physical_device_lends_its_mac_address() {
    let Scene {
        admin, nova, port, ..
    } = &scene().await;
    let physical = json!({
        "network_id": port["network_id"],
        "binding:vnic_type": "direct-physical",
    });
    let physical = admin.create("port", physical).await;
    let mac = "52:54:00:12:34:56";
    let bound = json!({
        "binding:host_id": "h1",
        "binding:profile": { "device_mac_address": mac },
    });
    let bound = nova.update("port", &physical["id"], bound).await.ok();
    assert_eq!(bound["port"]["mac_address"], mac);
    let unbound = json!({ "binding:host_id": null, "binding:profile": null });
    let unbound = nova.update("port", &physical["id"], unbound).await.ok();
    assert_ne!(unbound["port"]["mac_address"], mac);
    let bad = json!({
        "binding:host_id": "h1",
        "binding:profile": { "device_mac_address": "x" },
    });
    let bad = nova.update("port", &physical["id"], bad).await;
    assert!(bad.error(400, "HTTPBadRequest").contains("binding:profile"));
}
