//! Port forwardings of floating IPs.

use crate::floating_ip::{Scene, scene};
use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

fn path(fip: &Value) -> String {
    format!("/v2.0/floatingips/{}/port_forwardings", text(&fip["id"]))
}

async fn post(session: &Session, fip: &Value, attributes: Value) -> weft_tests_api::Answer {
    let body = json!({ "port_forwarding": attributes });
    session.post(&path(fip), &body).await
}

async fn free(session: &Session, scene: &Scene) -> Value {
    let new = json!({ "floating_network_id": scene.external["id"] });
    session.create("floatingip", new).await
}

fn tcp(scene: &Scene, internal: u16, external: u16) -> Value {
    json!({
        "protocol": "TCP",
        "internal_port_id": scene.port["id"],
        "internal_ip_address": scene.port["fixed_ips"][0]["ip_address"],
        "internal_port": internal,
        "external_port": external,
    })
}

#[tokio::test]
async fn ports_of_a_floating_ip_lead_to_a_guest() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let fip = free(&member, &s).await;
    assert_eq!(fip["port_forwardings"], json!([]));
    let answer = post(&member, &fip, tcp(&s, 22, 2_022)).await;
    assert_eq!(answer.warning(), "");
    let made = answer.expect(201);
    let made = &made["port_forwarding"];
    assert_eq!(made["protocol"], "tcp");
    assert_eq!(made["external_port_range"], "2022:2022");
    let shown = member.show("floatingip", &fip["id"]).await;
    assert_eq!(shown["router_id"], s.router["id"]);
    assert_eq!(shown["status"], "ACTIVE");
    assert_eq!(shown["port_forwardings"][0]["id"], made["id"]);
    assert_eq!(shown["port_forwardings"][0]["internal_port"], 22);

    let refused = member.remove("floatingip", &fip["id"]).await;
    refused.error(409, "FipInUseByPortForwarding");
    let to_port = json!({ "port_id": s.port["id"] });
    let refused = member.update("floatingip", &fip["id"], to_port).await;
    refused.error(409, "FipInUseByPortForwarding");
    let described = member
        .update("floatingip", &fip["id"], json!({ "description": "d" }))
        .await
        .ok();
    assert_eq!(described["floatingip"]["router_id"], s.router["id"]);

    let one = format!("{}/{}", path(&fip), text(&made["id"]));
    let change = json!({ "port_forwarding": { "internal_port": 2_222 } });
    let changed = member.put(&one, &change).await.ok();
    assert_eq!(changed["port_forwarding"]["external_port"], 2_022);
    assert_eq!(changed["port_forwarding"]["internal_port"], 2_222);
    assert_eq!(member.delete(&one).await.status, 204);
    member.get(&one).await.error(404, "PortForwardingNotFound");
    let shown = member.show("floatingip", &fip["id"]).await;
    assert_eq!(shown["router_id"], Value::Null);
    assert_eq!(member.remove("floatingip", &fip["id"]).await.status, 204);
}

#[tokio::test]
async fn forwardings_do_not_collide() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let (fip, other) = (free(&member, &s).await, free(&member, &s).await);
    let with = |more: Value| {
        let mut new = tcp(&s, 80, 8_080);
        new.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        new
    };
    assert_eq!(post(&member, &fip, with(json!({}))).await.status, 201);
    let null = Value::Null;
    for more in [
        json!({ "internal_port": 81 }),
        json!({ "external_port": 81 }),
        json!({ "external_port": null, "external_port_range": "8000:9000", "internal_port": 90 }),
        json!({ "external_port": 70_000 }),
        json!({ "external_port": null }),
        json!({ "internal_port": 81, "external_port": null, "external_port_range": "9:8" }),
        json!({ "internal_port": null, "internal_port_range": "90:91", "external_port": 90 }),
        json!({ "internal_port": 81, "internal_port_range": "82:82", "external_port": 81 }),
        json!({ "protocol": "ospf" }),
        json!({ "internal_ip_address": "192.0.2.99", "internal_port": 1, "external_port": 1 }),
        json!({ "project": null }),
    ] {
        let refused = post(&member, &fip, with(more.clone())).await;
        assert_eq!(refused.status, 400, "{more}: {}", refused.body);
    }
    // The same ports of another protocol, and the same external port of another floating IP, are free.
    let udp = with(json!({ "protocol": 17 }));
    let made = post(&member, &fip, udp).await.expect(201);
    assert_eq!(made["port_forwarding"]["protocol"], "udp");
    let elsewhere = with(json!({
        "internal_port": null, "internal_port_range": "90:99",
        "external_port": null, "external_port_range": "8080:8089",
    }));
    let made = post(&member, &other, elsewhere).await.expect(201);
    let made = &made["port_forwarding"];
    assert_eq!(
        (&made["external_port"], &made["internal_port"]),
        (&null, &null)
    );
    assert_eq!(made["internal_port_range"], "90:99");
    let list = member
        .get(&format!("{}?protocol=udp", path(&fip)))
        .await
        .ok();
    assert_eq!(list["port_forwardings"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn forwardings_go_with_their_port_and_its_addresses() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let fip = free(&member, &s).await;
    post(&member, &fip, tcp(&s, 22, 22)).await.expect(201);
    let ips = json!({ "fixed_ips": [{ "ip_address": "192.0.2.77" }] });
    let moved = member.update("port", &s.port["id"], ips).await;
    assert_eq!(moved.status, 200, "{}", moved.body);
    let shown = member.show("floatingip", &fip["id"]).await;
    assert_eq!(shown["port_forwardings"], json!([]));
    let mut new = tcp(&s, 22, 22);
    new["internal_ip_address"] = "192.0.2.77".into();
    post(&member, &fip, new).await.expect(201);
    assert_eq!(member.remove("port", &s.port["id"]).await.status, 204);
    let shown = member.show("floatingip", &fip["id"]).await;
    assert_eq!(shown["port_forwardings"], json!([]));
    assert_eq!(shown["status"], "DOWN");
}

#[tokio::test]
async fn others_neither_see_nor_make_them() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let (reader, other) = (
        api.user("p1", "reader").await,
        api.user("p2", "member").await,
    );
    let s = scene(&admin, &member).await;
    let fip = free(&member, &s).await;
    let made = post(&member, &fip, tcp(&s, 22, 22)).await.expect(201);
    let one = format!("{}/{}", path(&fip), text(&made["port_forwarding"]["id"]));
    assert_eq!(reader.get(&one).await.status, 200);
    reader.delete(&one).await.error(403, "PolicyNotAuthorized");
    let new = tcp(&s, 23, 23);
    let refused = post(&reader, &fip, new.clone()).await;
    refused.error(403, "PolicyNotAuthorized");
    other.get(&one).await.error(404, "FloatingIPNotFound");
    other.delete(&one).await.error(404, "FloatingIPNotFound");
    let refused = post(&other, &fip, new).await;
    refused.error(404, "FloatingIPNotFound");
    let list = other.get(&path(&fip)).await;
    list.error(404, "FloatingIPNotFound");
}
