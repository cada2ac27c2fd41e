//! Floating IPs.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

struct Scene {
    external: Value,
    network: Value,
    subnet: Value,
    router: Value,
    port: Value,
}

async fn scene(admin: &Session, member: &Session) -> Scene {
    let (external, _) = admin.external_network().await;
    let (network, subnet) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let info = json!({ "network_id": external["id"] });
    let router = member
        .create("router", json!({ "external_gateway_info": info }))
        .await;
    let path = format!("/v2.0/routers/{}/add_router_interface", text(&router["id"]));
    let added = member
        .put(&path, &json!({ "subnet_id": subnet["id"] }))
        .await;
    assert_eq!(added.status, 200);
    let port = member
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    Scene {
        external,
        network,
        subnet,
        router,
        port,
    }
}

#[tokio::test]
async fn a_floating_ip_leads_to_a_port_and_lets_go() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let new = json!({ "floating_network_id": s.external["id"], "port_id": s.port["id"] });
    let fip = member.create("floatingip", new.clone()).await;
    assert_eq!(
        fip["fixed_ip_address"],
        s.port["fixed_ips"][0]["ip_address"]
    );
    assert_eq!(fip["router_id"], s.router["id"]);
    assert_eq!(fip["status"], "ACTIVE");
    let second = member.create_refused("floatingip", new).await;
    second.error(409, "FloatingIPPortAlreadyAssociated");
    let gateway = json!({ "external_gateway_info": null });
    let refused = member.update("router", &s.router["id"], gateway).await;
    refused.error(409, "RouterExternalGatewayInUseByFloatingIp");
    let path = format!(
        "/v2.0/routers/{}/remove_router_interface",
        text(&s.router["id"])
    );
    let refused = member
        .put(&path, &json!({ "subnet_id": s.subnet["id"] }))
        .await;
    refused.error(409, "RouterInterfaceInUseByFloatingIP");

    let off = member
        .update("floatingip", &fip["id"], json!({ "port_id": null }))
        .await
        .ok();
    let off = &off["floatingip"];
    assert_eq!(
        (&off["port_id"], &off["router_id"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(off["status"], "DOWN");
    let on = json!({ "port_id": s.port["id"] });
    assert_eq!(
        member.update("floatingip", &fip["id"], on).await.status,
        200
    );
    assert_eq!(member.list("floatingip", "status=ACTIVE").await.len(), 1);
    assert_eq!(member.remove("port", &s.port["id"]).await.status, 204);
    assert_eq!(
        member.show("floatingip", &fip["id"]).await["port_id"],
        Value::Null
    );
    assert_eq!(member.remove("floatingip", &fip["id"]).await.status, 204);
    assert_eq!(
        admin
            .list("port", "device_owner=network:floatingip")
            .await
            .len(),
        0
    );
    assert_eq!(member.list("network", "").await.len(), 2, "{}", s.network);
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let (island, _) = member
        .network_with_subnet("island", "198.51.100.0/24")
        .await;
    let alone = member
        .create("port", json!({ "network_id": island["id"] }))
        .await;
    let with = |more: Value| {
        let mut new = json!({ "floating_network_id": s.external["id"] });
        new.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        new
    };
    for (more, status, kind) in [
        (
            json!({ "port_id": alone["id"] }),
            404,
            "ExternalGatewayForFloatingIPNotFound",
        ),
        (
            json!({ "floating_network_id": island["id"] }),
            400,
            "BadRequest",
        ),
        (
            json!({ "fixed_ip_address": "192.0.2.2" }),
            400,
            "BadRequest",
        ),
        (
            json!({ "port_id": s.port["id"], "fixed_ip_address": "192.0.2.99" }),
            400,
            "BadRequest",
        ),
        (
            json!({ "port_id": "00000000-0000-4000-8000-000000000000" }),
            404,
            "PortNotFound",
        ),
        (
            json!({ "floating_ip_address": "203.0.113.200" }),
            403,
            "PolicyNotAuthorized",
        ),
    ] {
        member
            .create_refused("floatingip", with(more))
            .await
            .error(status, kind);
    }
    let named = admin
        .create(
            "floatingip",
            with(json!({ "floating_ip_address": "203.0.113.200" })),
        )
        .await;
    assert_eq!(named["floating_ip_address"], "203.0.113.200");
    let taken = admin
        .create_refused(
            "floatingip",
            with(json!({ "floating_ip_address": "203.0.113.200" })),
        )
        .await;
    taken.error(409, "IpAddressAlreadyAllocated");
    let path = format!("/v2.0/floatingips/{}", text(&named["id"]));
    member.get(&path).await.error(404, "FloatingIPNotFound");
}

#[tokio::test]
async fn a_moved_address_lets_go_too() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let new = json!({ "floating_network_id": s.external["id"], "port_id": s.port["id"] });
    let fip = member.create("floatingip", new).await;
    let moved = json!({ "fixed_ips": [{ "ip_address": "192.0.2.99" }] });
    assert_eq!(
        member.update("port", &s.port["id"], moved).await.status,
        200
    );
    assert_eq!(
        member.show("floatingip", &fip["id"]).await["port_id"],
        Value::Null
    );
}
