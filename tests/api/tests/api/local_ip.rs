//! Local IPs and the ports that stand for them.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

async fn post(session: &Session, attributes: Value) -> Answer {
    session
        .post("/v2.0/local_ips", &json!({ "local_ip": attributes }))
        .await
}

async fn associate(session: &Session, local_ip: &Value, attributes: Value) -> Answer {
    let path = format!(
        "/v2.0/local_ips/{}/port_associations",
        text(&local_ip["id"])
    );
    session
        .post(&path, &json!({ "port_association": attributes }))
        .await
}

#[tokio::test]
async fn ports_stand_for_a_local_ip() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let other = api.user("p2", "member").await;
    let (network, _) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let made = post(&member, json!({ "network_id": network["id"], "name": "l" })).await;
    assert_eq!(made.warning(), "");
    let made = made.expect(201)["local_ip"].clone();
    assert_eq!(made["ip_mode"], "translate");
    let held = admin.show("port", &made["local_port_id"]).await;
    assert_eq!(held["device_owner"], "network:local_ip");
    assert_eq!(held["device_id"], made["id"]);
    assert_eq!(held["fixed_ips"][0]["ip_address"], made["local_ip_address"]);
    let refused = member.remove("port", &made["local_port_id"]).await;
    refused.error(409, "ServicePortInUse");

    let ips = json!([{ "ip_address": "192.0.2.50" }, { "ip_address": "192.0.2.51" }]);
    let port = json!({ "network_id": network["id"], "fixed_ips": ips, "binding:host_id": "h1" });
    let port = admin.create("port", port).await;
    let refused = associate(&admin, &made, json!({ "fixed_port_id": port["id"] })).await;
    refused.error(400, "LocalIPNoRequestedIP");
    let far = json!({ "fixed_port_id": port["id"], "fixed_ip": "192.0.2.99" });
    let refused = associate(&admin, &made, far).await;
    refused.error(400, "LocalIPRequestedIPNotFound");
    let new = json!({ "fixed_port_id": port["id"], "fixed_ip": "192.0.2.51" });
    let tie = associate(&admin, &made, new.clone()).await.expect(201);
    let tie = &tie["port_association"];
    assert_eq!(tie["host"], "h1");
    assert_eq!(tie["local_ip_address"], made["local_ip_address"]);
    assert_eq!(associate(&admin, &made, new).await.status, 409);

    let path = format!("/v2.0/local_ips/{}", text(&made["id"]));
    let one = format!("{path}/port_associations/{}", text(&port["id"]));
    assert_eq!(member.get(&one).await.ok()["port_association"], *tie);
    other.get(&one).await.error(404, "LocalIPNotFound");
    other.get(&path).await.error(404, "LocalIPNotFound");
    member.delete(&path).await.error(409, "LocalIPInUse");
    assert_eq!(member.delete(&one).await.status, 204);
    member
        .get(&one)
        .await
        .error(404, "LocalIPAssociationNotFound");
    assert_eq!(member.delete(&path).await.status, 204);
    let gone = admin
        .get(&format!("/v2.0/ports/{}", text(&made["local_port_id"])))
        .await;
    gone.error(404, "PortNotFound");
}

#[tokio::test]
async fn a_port_that_is_there_may_hold_it() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let (network, _) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let port = member
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    let with_port = json!({ "local_port_id": port["id"], "ip_mode": "passthrough" });
    let made = post(&member, with_port).await.expect(201)["local_ip"].clone();
    assert_eq!(made["network_id"], network["id"]);
    for (wrong, kind) in [
        (json!({}), "LocalIPPortOrNetworkRequired"),
        (json!({ "local_port_id": network["id"] }), "BadRequest"),
        (
            json!({ "local_port_id": port["id"], "local_ip_address": "192.0.2.99" }),
            "LocalIPRequestedIPNotFound",
        ),
        (
            json!({ "network_id": network["id"], "ip_mode": "tea" }),
            "HTTPBadRequest",
        ),
        (
            json!({ "network_id": network["id"], "local_ip_address": "fd00::1" }),
            "HTTPBadRequest",
        ),
    ] {
        post(&member, wrong).await.error(400, kind);
    }
    member
        .remove("port", &port["id"])
        .await
        .error(409, "ServicePortInUse");
    let path = format!("/v2.0/local_ips/{}", text(&made["id"]));
    assert_eq!(member.delete(&path).await.status, 204);
    assert_eq!(member.remove("port", &port["id"]).await.status, 204);
}
