//! Floating IPs.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

pub(crate) struct Scene {
    pub(crate) external: Value,
    network: Value,
    subnet: Value,
    pub(crate) router: Value,
    pub(crate) port: Value,
}

pub(crate) async fn scene(admin: &Session, member: &Session) -> Scene {
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
async fn a_floating_ip_tells_of_its_port() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let new = json!({
        "floating_network_id": s.external["id"],
        "port_id": s.port["id"],
        "dns_name": "Web",
        "dns_domain": "example.org.",
    });
    let fip = member.create("floatingip", new).await;
    assert_eq!(fip["port_details"]["mac_address"], s.port["mac_address"]);
    assert_eq!(fip["dns_name"], "web");
    let ips = json!({ "fixed_ips": [{ "ip_address": "192.0.2.77" }] });
    let refused = member.update("port", &s.port["id"], ips).await;
    refused.error(400, "BadRequest");
    // A body that says nothing lets go; one that says something else does not.
    let told = json!({ "description": "d" });
    let kept = member.update("floatingip", &fip["id"], told).await.ok();
    assert_eq!(kept["floatingip"]["port_id"], s.port["id"]);
    let off = member.update("floatingip", &fip["id"], json!({})).await;
    let off = off.ok();
    assert_eq!(off["floatingip"]["port_details"], Value::Null);
    assert_eq!(off["floatingip"]["description"], "d");
}

#[tokio::test]
async fn the_router_between_may_be_chosen() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let info = json!({ "external_gateway_info": { "network_id": s.external["id"] } });
    let second = member.create("router", info).await;
    let with = |router: &Value| json!({ "floating_network_id": s.external["id"], "port_id": s.port["id"], "router_id": router });
    let refused = member
        .create_refused("floatingip", with(&second["id"]))
        .await;
    refused.error(404, "ExternalGatewayForFloatingIPNotFound");
    let inside = member.create("router", json!({})).await;
    let refused = member
        .create_refused("floatingip", with(&inside["id"]))
        .await;
    refused.error(409, "ExternalGatewayForFloatingIPConflict");
    let leg = member
        .create("port", json!({ "network_id": s.network["id"] }))
        .await;
    let path = format!("/v2.0/routers/{}/add_router_interface", text(&second["id"]));
    member
        .put(&path, &json!({ "port_id": leg["id"] }))
        .await
        .ok();
    let fip = member.create("floatingip", with(&second["id"])).await;
    assert_eq!(fip["router_id"], second["id"]);
    let default = json!({ "port_id": s.port["id"] });
    let moved = member.update("floatingip", &fip["id"], default).await.ok();
    assert_eq!(moved["floatingip"]["router_id"], s.router["id"]);
}

#[tokio::test]
async fn pools_are_the_external_subnets_that_one_may_use() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let (external, subnet) = admin.external_network().await;
    member.network_with_subnet("n", "192.0.2.0/24").await;
    let pools = member.get("/v2.0/floatingip-pools").await.ok();
    let pools = pools["floatingip_pools"].as_array().expect("a list");
    assert_eq!(pools.len(), 1);
    assert_eq!(pools[0]["subnet_id"], subnet["id"]);
    assert_eq!(pools[0]["network_id"], external["id"]);
    assert_eq!(pools[0]["cidr"], subnet["cidr"]);
    let other = member
        .get("/v2.0/floatingip-pools?cidr=10.0.0.0/8")
        .await
        .ok();
    assert_eq!(other["floatingip_pools"], json!([]));
    let unknown = member.get("/v2.0/floatingip-pools?colour=red").await;
    unknown.error(400, "HTTPBadRequest");
}
