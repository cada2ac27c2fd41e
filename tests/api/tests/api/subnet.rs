//! Subnets.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session};

async fn network(session: &Session) -> Value {
    session.create("network", json!({})).await["id"].clone()
}

fn v4(network: &Value, cidr: &str) -> Value {
    json!({ "network_id": network, "ip_version": 4, "cidr": cidr })
}

#[tokio::test]
async fn defaults_and_changes() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = network(&admin).await;
    let subnet = admin.create("subnet", v4(&network, "192.0.2.7/24")).await;
    assert_eq!(subnet["cidr"], "192.0.2.0/24");
    assert_eq!(subnet["gateway_ip"], "192.0.2.1");
    assert_eq!(subnet["enable_dhcp"], true);
    let pools = json!([{ "start": "192.0.2.2", "end": "192.0.2.254" }]);
    assert_eq!(subnet["allocation_pools"], pools);
    assert_eq!(
        admin.show("network", &network).await["subnets"],
        json!([subnet["id"]])
    );

    let change = json!({
        "name": "s",
        "dns_nameservers": ["198.51.100.53"],
        "host_routes": [{ "destination": "198.51.100.0/24", "nexthop": "192.0.2.9" }],
        "allocation_pools": [{ "start": "192.0.2.20", "end": "192.0.2.30" }],
        "gateway_ip": null,
        "enable_dhcp": false,
    });
    let changed = admin
        .update("subnet", &subnet["id"], change.clone())
        .await
        .ok();
    for (name, value) in change.as_object().expect("an object") {
        assert_eq!(changed["subnet"][name], *value, "{name}");
    }
    let moved = json!({ "cidr": "192.0.3.0/24" });
    let message = admin
        .update("subnet", &subnet["id"], moved)
        .await
        .error(400, "HTTPBadRequest");
    assert!(message.contains("cidr"), "{message}");
}

#[tokio::test]
async fn ipv6_modes() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = network(&admin).await;
    let with = |cidr: &str, ra: Option<&str>, address: Option<&str>| {
        json!({
            "network_id": network,
            "ip_version": 6,
            "cidr": cidr,
            "ipv6_ra_mode": ra,
            "ipv6_address_mode": address,
        })
    };
    let slaac = admin
        .create("subnet", with("fd00:1::/64", Some("slaac"), Some("slaac")))
        .await;
    assert_eq!(slaac["gateway_ip"], "fd00:1::1");
    for (cidr, ra, address) in [
        ("fd00:2::/96", Some("slaac"), Some("slaac")),
        ("fd00:2::/64", Some("slaac"), Some("dhcpv6-stateful")),
        ("fd00:2::/64", Some("nonsense"), None),
    ] {
        let refused = admin
            .create_refused("subnet", with(cidr, ra, address))
            .await;
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
    let mut mixed = v4(&network, "192.0.2.0/24");
    mixed["ipv6_ra_mode"] = "slaac".into();
    admin
        .create_refused("subnet", mixed)
        .await
        .error(400, "InvalidInput");
}

#[tokio::test]
async fn ranges_that_cannot_be_are_refused() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = network(&admin).await;
    admin.create("subnet", v4(&network, "192.0.2.0/24")).await;
    for cidr in [
        "192.0.2.128/25",
        "192.0.0.0/16",
        "224.0.0.0/24",
        "127.0.0.0/24",
        "0.0.0.0/0",
        "10.0.0.0/31",
        "10.0.0.0/33",
        "nonsense",
        "fd00::/64",
    ] {
        let refused = admin.create_refused("subnet", v4(&network, cidr)).await;
        assert_eq!(refused.status, 400, "{cidr}: {}", refused.body);
    }
    let mut outside = v4(&network, "10.0.0.0/24");
    outside["allocation_pools"] = json!([{ "start": "10.0.1.2", "end": "10.0.1.9" }]);
    admin
        .create_refused("subnet", outside.clone())
        .await
        .error(400, "OutOfBoundsAllocationPool");
    outside["allocation_pools"] = json!([{ "start": "10.0.0.9", "end": "10.0.0.2" }]);
    admin
        .create_refused("subnet", outside.clone())
        .await
        .error(400, "InvalidAllocationPool");
    outside["allocation_pools"] = json!([
        { "start": "10.0.0.2", "end": "10.0.0.9" },
        { "start": "10.0.0.9", "end": "10.0.0.12" },
    ]);
    let overlapping = admin.create_refused("subnet", outside.clone()).await;
    overlapping.error(409, "OverlappingAllocationPools");
    outside["allocation_pools"] = json!([{ "start": "10.0.0.1", "end": "10.0.0.9" }]);
    let conflict = admin.create_refused("subnet", outside).await;
    conflict.error(409, "GatewayConflictWithAllocationPools");
    let mut pool = v4(&network, "10.0.0.0/24");
    pool.as_object_mut().expect("an object").remove("cidr");
    assert_eq!(admin.create_refused("subnet", pool).await.status, 400);
}

#[tokio::test]
async fn a_subnet_in_use_stays() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let slaac = json!({
        "network_id": network["id"],
        "ip_version": 6,
        "cidr": "fd00:1::/64",
        "ipv6_ra_mode": "slaac",
        "ipv6_address_mode": "slaac",
    });
    let port = admin
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    admin
        .remove("subnet", &subnet["id"])
        .await
        .error(409, "SubnetInUse");
    // Ports that are there get their address in a new subnet with automatic ones, and lose it with the subnet.
    let slaac = admin.create("subnet", slaac).await;
    let addresses = admin.show("port", &port["id"]).await["fixed_ips"].clone();
    assert_eq!(addresses.as_array().expect("a list").len(), 2);
    assert_eq!(admin.remove("subnet", &slaac["id"]).await.status, 204);
    let addresses = admin.show("port", &port["id"]).await["fixed_ips"].clone();
    assert_eq!(
        addresses,
        json!([{ "subnet_id": subnet["id"], "ip_address": "192.0.2.2" }])
    );
}

#[tokio::test]
async fn ports_take_addresses_by_their_owner() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = network(&admin).await;
    let with = |cidr: &str, types: Value| {
        let mut body = v4(&network, cidr);
        body["service_types"] = types;
        body
    };
    let guests = with("192.0.2.0/24", json!(["compute:nova"]));
    let guests = admin.create("subnet", guests).await;
    let owned = |owner: &str| json!({ "network_id": network, "device_owner": owner });
    let refused = admin.create_refused("port", owned("test:one")).await;
    refused.error(409, "IpAddressGenerationFailureNoMatchingSubnet");
    let mut bare = owned("test:one");
    bare["fixed_ips"] = json!([]);
    assert_eq!(admin.create("port", bare).await["fixed_ips"], json!([]));

    let everybody = admin
        .create("subnet", with("198.51.100.0/24", json!([])))
        .await;
    for (owner, subnet) in [
        ("compute:nova", &guests),
        ("test:one", &everybody),
        ("network:dhcp", &guests),
    ] {
        let port = admin.create("port", owned(owner)).await;
        assert_eq!(port["fixed_ips"][0]["subnet_id"], subnet["id"], "{owner}");
    }
    for types in [
        json!("compute:nova"),
        json!(["nova"]),
        json!(["a:b", "a:b"]),
        json!([7]),
    ] {
        let refused = admin
            .create_refused("subnet", with("203.0.113.0/24", types))
            .await;
        refused.error(400, "HTTPBadRequest");
    }
    let change = json!({ "service_types": [], "dns_publish_fixed_ip": true });
    let changed = admin.update("subnet", &guests["id"], change).await.ok();
    assert_eq!(changed["subnet"]["service_types"], json!([]));
    assert_eq!(changed["subnet"]["dns_publish_fixed_ip"], true);
    assert_eq!(changed["subnet"]["router:external"], false);
}

#[tokio::test]
async fn a_network_carries_what_its_subnets_need() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({ "mtu": 67 })).await["id"].clone();
    let refused = admin
        .create_refused("subnet", v4(&network, "192.0.2.0/24"))
        .await;
    refused.error(409, "NetworkMTUSubnetConflict");
    admin
        .update("network", &network, json!({ "mtu": 1279 }))
        .await
        .ok();
    let v6 = json!({ "network_id": network, "ip_version": 6, "cidr": "fd00:1::/64" });
    let refused = admin.create_refused("subnet", v6).await;
    refused.error(409, "NetworkMTUSubnetConflict");
    admin.create("subnet", v4(&network, "192.0.2.0/24")).await;
    let lower = json!({ "mtu": 67 });
    admin
        .update("network", &network, lower)
        .await
        .error(409, "NetworkMTUSubnetConflict");
}
