//! Routers, their legs and gateways.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

async fn leg(session: &Session, router: &Value, action: &str, body: Value) -> Answer {
    session
        .put(
            &format!("/v2.0/routers/{}/{action}_router_interface", text(router)),
            &body,
        )
        .await
}

#[tokio::test]
async fn legs_come_and_go() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let (network, subnet) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let router = member.create("router", json!({ "name": "r" })).await["id"].clone();
    let by_subnet = json!({ "subnet_id": subnet["id"] });
    let added = leg(&member, &router, "add", by_subnet.clone()).await.ok();
    assert_eq!(added["subnet_id"], subnet["id"]);
    let port = member.show("port", &added["port_id"]).await;
    assert_eq!(port["device_owner"], "network:router_interface");
    assert_eq!(port["fixed_ips"][0]["ip_address"], "192.0.2.1");
    assert_eq!(port["security_groups"], json!([]));
    let twice = leg(&member, &router, "add", by_subnet.clone()).await;
    twice.error(400, "BadRequest");
    member
        .remove("router", &router)
        .await
        .error(409, "RouterInUse");
    member
        .remove("port", &added["port_id"])
        .await
        .error(409, "ServicePortInUse");
    member
        .remove("subnet", &subnet["id"])
        .await
        .error(409, "SubnetInUse");
    let gateway = json!({ "gateway_ip": "192.0.2.254" });
    member
        .update("subnet", &subnet["id"], gateway)
        .await
        .error(409, "GatewayIpInUse");

    let (_, overlapping) = member.network_with_subnet("m", "192.0.2.128/25").await;
    let refused = leg(
        &member,
        &router,
        "add",
        json!({ "subnet_id": overlapping["id"] }),
    )
    .await;
    assert!(refused.error(400, "BadRequest").contains("overlaps"));
    assert_eq!(
        leg(&member, &router, "remove", by_subnet.clone())
            .await
            .status,
        200
    );
    let again = leg(&member, &router, "remove", by_subnet).await;
    again.error(404, "RouterInterfaceNotFoundForSubnet");

    let own = json!({ "network_id": network["id"], "fixed_ips": [{ "ip_address": "192.0.2.77" }] });
    let own = member.create("port", own).await;
    let by_port = json!({ "port_id": own["id"] });
    assert_eq!(
        leg(&member, &router, "add", by_port.clone()).await.status,
        200
    );
    leg(&member, &router, "add", by_port.clone())
        .await
        .error(409, "PortInUse");
    assert_eq!(leg(&member, &router, "remove", by_port).await.status, 200);
    assert_eq!(leg(&member, &router, "add", json!({})).await.status, 400);
    assert_eq!(member.remove("router", &router).await.status, 204);
}

#[tokio::test]
async fn ipv6_subnets_of_a_network_share_a_leg() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({})).await["id"].clone();
    let router = admin.create("router", json!({})).await["id"].clone();
    let mut ports = Vec::new();
    let mut subnets = Vec::new();
    for cidr in ["fd00:1::/64", "fd00:2::/64"] {
        let subnet = json!({ "network_id": network, "ip_version": 6, "cidr": cidr });
        let subnet = admin.create("subnet", subnet).await["id"].clone();
        let added = leg(&admin, &router, "add", json!({ "subnet_id": subnet }))
            .await
            .ok();
        ports.push(added["port_id"].clone());
        subnets.push(subnet);
    }
    assert_eq!(ports[0], ports[1]);
    let one = leg(
        &admin,
        &router,
        "remove",
        json!({ "subnet_id": subnets[0] }),
    )
    .await;
    assert_eq!(one.status, 200);
    let port = admin.show("port", &ports[0]).await;
    assert_eq!(
        port["fixed_ips"],
        json!([{ "subnet_id": subnets[1], "ip_address": "fd00:2::1" }])
    );
}

#[tokio::test]
async fn the_gateway_is_a_port_outside() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let (external, subnet) = admin.external_network().await;
    let info = json!({ "network_id": external["id"] });
    let router = member
        .create("router", json!({ "external_gateway_info": info }))
        .await;
    let shown = &router["external_gateway_info"];
    assert_eq!(shown["enable_snat"], true);
    let ips = json!([{ "subnet_id": subnet["id"], "ip_address": "203.0.113.2" }]);
    assert_eq!(shown["external_fixed_ips"], ips);
    let ports = admin
        .list("port", "device_owner=network:router_gateway")
        .await;
    assert_eq!((ports.len(), &ports[0]["device_id"]), (1, &router["id"]));
    assert_eq!(
        member.list("port", "").await.len(),
        0,
        "the port is not the project's"
    );

    let no_snat =
        json!({ "external_gateway_info": { "network_id": external["id"], "enable_snat": false } });
    let refused = member
        .update("router", &router["id"], no_snat.clone())
        .await;
    refused.error(403, "PolicyNotAuthorized");
    let changed = admin.update("router", &router["id"], no_snat).await.ok();
    assert_eq!(
        changed["router"]["external_gateway_info"]["enable_snat"],
        false
    );
    let moved = json!({ "external_gateway_info": {
        "network_id": external["id"],
        "external_fixed_ips": [{ "ip_address": "203.0.113.99" }],
    } });
    let moved = admin.update("router", &router["id"], moved).await.ok();
    let ip = &moved["router"]["external_gateway_info"]["external_fixed_ips"][0]["ip_address"];
    assert_eq!(ip, "203.0.113.99");
    let cleared = json!({ "external_gateway_info": {} });
    let cleared = member.update("router", &router["id"], cleared).await.ok();
    assert_eq!(cleared["router"]["external_gateway_info"], Value::Null);
    assert_eq!(admin.list("port", "").await.len(), 0);
    let inside = member.create("network", json!({})).await;
    let wrong = json!({ "external_gateway_info": { "network_id": inside["id"] } });
    member
        .update("router", &router["id"], wrong)
        .await
        .error(400, "BadRequest");
}

#[tokio::test]
async fn routes_need_a_neighbour() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (_, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let router = admin.create("router", json!({})).await["id"].clone();
    assert_eq!(
        leg(&admin, &router, "add", json!({ "subnet_id": subnet["id"] }))
            .await
            .status,
        200
    );
    let routes =
        |nexthop: &str| json!({ "routes": [{ "destination": "10.0.0.0/8", "nexthop": nexthop }] });
    for nexthop in ["198.51.100.1", "192.0.2.1"] {
        admin
            .update("router", &router, routes(nexthop))
            .await
            .error(400, "InvalidRoutes");
    }
    assert_eq!(
        admin
            .update("router", &router, routes("192.0.2.9"))
            .await
            .status,
        200
    );
    let remove = leg(
        &admin,
        &router,
        "remove",
        json!({ "subnet_id": subnet["id"] }),
    )
    .await;
    remove.error(409, "RouterInterfaceInUseByRoute");
    assert_eq!(
        admin
            .update("router", &router, json!({ "routes": null }))
            .await
            .status,
        200
    );
}
