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
async fn a_gateway_gets_its_addresses_with_the_subnets() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let outside = json!({ "router:external": true });
    let outside = admin.create("network", outside).await;
    let info = json!({ "external_gateway_info": { "network_id": outside["id"] } });
    let router = admin.create("router", info).await;
    let ips = async || {
        let router = admin.show("router", &router["id"]).await;
        router["external_gateway_info"]["external_fixed_ips"].clone()
    };
    assert_eq!(ips().await, json!([]));
    let mut expected = Vec::new();
    for (version, cidr, address) in [
        (4, "203.0.113.0/24", Some("203.0.113.2")),
        // It has one of this family.
        (4, "198.51.100.0/24", None),
        (6, "2001:db8::/64", Some("2001:db8::2")),
    ] {
        let subnet = json!({ "network_id": outside["id"], "ip_version": version, "cidr": cidr });
        let subnet = admin.create("subnet", subnet).await;
        let ip = address.map(|ip| json!({ "subnet_id": subnet["id"], "ip_address": ip }));
        expected.extend(ip);
        assert_eq!(ips().await, json!(expected), "{cidr}");
    }
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

#[tokio::test]
async fn routes_are_added_and_removed_one_by_one() {
    let api = Api::start().await;
    let (member, reader) = (
        api.user("p1", "member").await,
        api.user("p1", "reader").await,
    );
    let (_, subnet) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let router = member.create("router", json!({})).await["id"].clone();
    leg(
        &member,
        &router,
        "add",
        json!({ "subnet_id": subnet["id"] }),
    )
    .await
    .ok();
    let change = async |session: &Session, action: &str, routes: &[(&str, &str)]| {
        let routes: Vec<Value> = routes
            .iter()
            .map(|(to, by)| json!({ "destination": to, "nexthop": by }))
            .collect();
        let path = format!("/v2.0/routers/{}/{action}_extraroutes", text(&router));
        session
            .put(&path, &json!({ "router": { "routes": routes } }))
            .await
    };
    let (a, b) = (("10.1.0.0/16", "192.0.2.5"), ("10.2.0.0/16", "192.0.2.6"));
    let two = change(&member, "add", &[a, b]).await.ok();
    assert_eq!(two["router"]["routes"].as_array().map(Vec::len), Some(2));
    let same = change(&member, "add", &[b]).await.ok();
    assert_eq!(same["router"]["routes"].as_array().map(Vec::len), Some(2));
    let one = change(&member, "remove", &[a, ("10.3.0.0/16", "192.0.2.7")]).await;
    assert_eq!(
        one.ok()["router"]["routes"],
        json!([{ "destination": b.0, "nexthop": b.1 }])
    );
    let far = change(&member, "add", &[("10.4.0.0/16", "198.51.100.1")]).await;
    far.error(400, "InvalidRoutes");
    let refused = change(&reader, "add", &[a]).await;
    refused.error(403, "PolicyNotAuthorized");
    let path = format!("/v2.0/routers/{}/add_extraroutes", text(&router));
    for body in [
        json!({}),
        json!({ "router": {} }),
        json!({ "router": { "routes": [], "name": "x" } }),
    ] {
        member.put(&path, &body).await.error(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn modes_change_while_the_router_is_down() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let router = member.create("router", json!({})).await;
    assert!(router.get("ha").is_none() && router.get("distributed").is_none());
    let id = &router["id"];
    for mode in ["ha", "distributed"] {
        let on = json!({ mode: true });
        let refused = member.create_refused("router", on.clone()).await;
        refused.error(403, "PolicyNotAuthorized");
        let refused = admin.update("router", id, on.clone()).await;
        assert!(refused.error(400, "BadRequest").contains("active routers"));
        let down = json!({ "admin_state_up": false });
        admin.update("router", id, down).await.ok();
        let done = admin.update("router", id, on).await.ok();
        assert_eq!(done["router"][mode], true);
        let up = json!({ "admin_state_up": true });
        admin.update("router", id, up).await.ok();
    }
    let both = json!({ "distributed": false, "admin_state_up": false });
    admin
        .update("router", id, both)
        .await
        .error(400, "BadRequest");
    // Neutron's clients look for the network of the heartbeats; it belongs to no project.
    let heartbeats = format!("name=HA network tenant {}", text(&router["project_id"]));
    let heartbeats = heartbeats.replace(' ', "%20");
    assert_eq!(admin.list("network", &heartbeats).await.len(), 1);
    assert_eq!(member.list("network", "").await.len(), 0);
    let off = json!({ "ha": false, "admin_state_up": false });
    admin.update("router", id, off).await.ok();
    assert_eq!(admin.list("network", &heartbeats).await.len(), 0);
    let zone = json!({ "availability_zone_hints": ["mars"] });
    let refused = member.create_refused("router", zone).await;
    refused.error(404, "AvailabilityZoneNotFound");
    let zone = json!({ "availability_zone_hints": ["nova"] });
    let router = member.create("router", zone).await;
    assert_eq!(router["availability_zones"], json!(["nova"]));
}

#[tokio::test]
async fn conntrack_helpers_belong_to_their_router() {
    let api = Api::start().await;
    let (member, other) = (
        api.user("p1", "member").await,
        api.user("p2", "member").await,
    );
    let router = member.create("router", json!({})).await["id"].clone();
    let path = format!("/v2.0/routers/{}/conntrack_helpers", text(&router));
    let helper = |helper: &str, protocol: &str, port: u32| json!({ "conntrack_helper": { "helper": helper, "protocol": protocol, "port": port } });
    let made = member.post(&path, &helper("ftp", "tcp", 21)).await;
    let made = made.expect(201)["conntrack_helper"].clone();
    for (new, kind) in [
        (helper("ftp", "udp", 21), "InvalidProtocolForHelper"),
        (helper("tea", "tcp", 21), "ConntrackHelperNotAllowed"),
        (helper("ftp", "tcp", 21), "BadRequest"),
        (helper("ftp", "tcp", 0), "HTTPBadRequest"),
    ] {
        member.post(&path, &new).await.error(400, kind);
    }
    let shown = member.show("router", &router).await;
    assert_eq!(
        shown["conntrack_helpers"],
        json!([{ "helper": "ftp", "protocol": "tcp", "port": 21 }])
    );
    let one = format!("{path}/{}", text(&made["id"]));
    let moved = json!({ "conntrack_helper": { "port": 2_121 } });
    let moved = member.put(&one, &moved).await.ok();
    assert_eq!(moved["conntrack_helper"]["port"], 2_121);
    other.get(&one).await.error(404, "RouterNotFound");
    let refused = other.post(&path, &helper("tftp", "udp", 69)).await;
    refused.error(404, "RouterNotFound");
    assert_eq!(member.remove("router", &router).await.status, 204);
}
