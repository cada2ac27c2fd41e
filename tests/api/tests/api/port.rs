//! Ports.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

fn ips(port: &Value) -> Vec<String> {
    let list = port["fixed_ips"].as_array().expect("a list");
    list.iter().map(|ip| text(&ip["ip_address"])).collect()
}

#[tokio::test]
async fn a_port_gets_mac_addresses_and_the_default_group() {
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
    admin.create("subnet", slaac).await;
    let port = admin
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    assert!(
        text(&port["mac_address"]).starts_with("fa:16:3e:"),
        "{port}"
    );
    assert_eq!(ips(&port)[0], "192.0.2.2");
    assert!(ips(&port)[1].starts_with("fd00:1::f816:3eff:fe"), "{port}");
    assert_eq!(port["status"], "DOWN");
    assert_eq!(port["binding:vif_type"], "unbound");
    let groups = admin.list("security_group", "name=default").await;
    assert_eq!(port["security_groups"], json!([groups[0]["id"]]));

    let bound = admin
        .update("port", &port["id"], json!({ "binding:host_id": "h1" }))
        .await
        .ok();
    assert_eq!(bound["port"]["binding:vif_type"], "tap");
    let change =
        json!({ "fixed_ips": [{ "subnet_id": subnet["id"], "ip_address": "192.0.2.50" }] });
    let moved = admin.update("port", &port["id"], change).await.ok();
    assert_eq!(ips(&moved["port"])[0], "192.0.2.50");
    assert_eq!(
        admin
            .list("port", "fixed_ips=ip_address%3D192.0.2.50")
            .await
            .len(),
        1
    );
    assert_eq!(
        admin
            .list("port", "fixed_ips=ip_address%3D192.0.2.2")
            .await
            .len(),
        0
    );
    let none = admin
        .update("port", &port["id"], json!({ "fixed_ips": [] }))
        .await
        .ok();
    assert_eq!(ips(&none["port"]), [""; 0]);
    assert_eq!(admin.remove("port", &port["id"]).await.status, 204);
}

#[tokio::test]
async fn addresses_that_cannot_be_are_refused() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let (_, elsewhere) = admin.network_with_subnet("m", "198.51.100.0/24").await;
    let with = |ips: Value| json!({ "network_id": network["id"], "fixed_ips": ips });
    let named = with(json!([{ "subnet_id": subnet["id"], "ip_address": "192.0.2.9" }]));
    let port = admin.create("port", named.clone()).await;
    assert_eq!(ips(&port), ["192.0.2.9"]);
    for (ips, status, kind) in [
        (
            json!([{ "ip_address": "192.0.2.9" }]),
            409,
            "IpAddressAlreadyAllocated",
        ),
        (
            json!([{ "ip_address": "10.0.0.1" }]),
            400,
            "InvalidIpForNetwork",
        ),
        (
            json!([{ "subnet_id": subnet["id"], "ip_address": "10.0.0.1" }]),
            400,
            "InvalidIpForSubnet",
        ),
        (
            json!([{ "ip_address": "192.0.2.255" }]),
            400,
            "InvalidIpForSubnet",
        ),
        (
            json!([{ "subnet_id": elsewhere["id"] }]),
            400,
            "InvalidInput",
        ),
        (json!([{}]), 400, "InvalidInput"),
        (json!([{ "ip_address": "nonsense" }]), 400, "HTTPBadRequest"),
        (json!({}), 400, "HTTPBadRequest"),
    ] {
        admin
            .create_refused("port", with(ips))
            .await
            .error(status, kind);
    }
    let mac = json!({ "network_id": network["id"], "mac_address": port["mac_address"] });
    admin
        .create_refused("port", mac)
        .await
        .error(409, "MacAddressInUse");
    let nowhere = json!({ "network_id": "00000000-0000-4000-8000-000000000000" });
    admin
        .create_refused("port", nowhere)
        .await
        .error(404, "NetworkNotFound");
    let missing = admin
        .create_refused("port", json!({}))
        .await
        .error(400, "HTTPBadRequest");
    assert!(missing.contains("network_id"), "{missing}");
}

#[tokio::test]
async fn a_full_subnet_says_so() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/29").await;
    let new = json!({ "network_id": network["id"] });
    let mut ports = Vec::new();
    for n in 2..=6 {
        let port = admin.create("port", new.clone()).await;
        assert_eq!(ips(&port), [format!("192.0.2.{n}")]);
        ports.push(port);
    }
    let full = admin.create_refused("port", new.clone()).await;
    full.error(409, "IpAddressGenerationFailure");
    assert_eq!(admin.remove("port", &ports[1]["id"]).await.status, 204);
    assert_eq!(ips(&admin.create("port", new).await), ["192.0.2.3"]);
}

#[tokio::test]
async fn port_security_and_groups_go_together() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({})).await["id"].clone();
    let group = admin.create("security_group", json!({ "name": "g" })).await["id"].clone();
    let open = json!({ "network_id": network, "port_security_enabled": false });
    let port = admin.create("port", open.clone()).await;
    assert_eq!(port["security_groups"], json!([]));
    let mut with_group = open.clone();
    with_group["security_groups"] = json!([group]);
    let refused = admin.create_refused("port", with_group).await;
    refused.error(400, "PortSecurityAndIPRequiredForSecurityGroups");
    let mut with_pair = open;
    with_pair["allowed_address_pairs"] = json!([{ "ip_address": "192.0.2.9" }]);
    let refused = admin.create_refused("port", with_pair).await;
    refused.error(409, "AddressPairAndPortSecurityRequired");

    let guarded = admin.create("port", json!({ "network_id": network })).await;
    let disable = json!({ "port_security_enabled": false });
    let refused = admin.update("port", &guarded["id"], disable).await;
    refused.error(409, "PortSecurityPortHasSecurityGroup");
    let disable = json!({ "port_security_enabled": false, "security_groups": [] });
    assert_eq!(
        admin.update("port", &guarded["id"], disable).await.status,
        200
    );
    let unknown = json!({
        "network_id": network,
        "security_groups": ["00000000-0000-4000-8000-000000000000"],
    });
    admin
        .create_refused("port", unknown)
        .await
        .error(404, "SecurityGroupNotFound");
    let pairs = json!({
        "network_id": network,
        "allowed_address_pairs": [{ "ip_address": "192.0.2.0/25" }, { "ip_address": "192.0.2.200", "mac_address": "fa:16:3e:00:00:01" }],
    });
    let port = admin.create("port", pairs).await;
    assert_eq!(
        port["allowed_address_pairs"][0]["mac_address"],
        port["mac_address"]
    );
}

#[tokio::test]
async fn members_bind_nothing_and_name_no_addresses_on_foreign_networks() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let shared = admin.create("network", json!({ "shared": true })).await;
    let subnet = json!({ "network_id": shared["id"], "ip_version": 4, "cidr": "192.0.2.0/24" });
    admin.create("subnet", subnet).await;
    let port = member
        .create("port", json!({ "network_id": shared["id"] }))
        .await;
    assert!(port.get("binding:host_id").is_none(), "{port}");
    assert_eq!(port["binding:vnic_type"], "normal");
    for (name, value) in [
        ("binding:host_id", json!("h1")),
        ("binding:profile", json!({ "a": 1 })),
        ("mac_address", json!("fa:16:3e:00:00:09")),
        ("fixed_ips", json!([{ "ip_address": "192.0.2.9" }])),
        ("device_owner", json!("network:dhcp")),
        ("port_security_enabled", json!(false)),
        (
            "allowed_address_pairs",
            json!([{ "ip_address": "192.0.2.9" }]),
        ),
    ] {
        let refused = member
            .create_refused("port", json!({ "network_id": shared["id"], name: value }))
            .await;
        assert!(
            refused.error(403, "PolicyNotAuthorized").contains(name),
            "{name}"
        );
    }
    let other = api.user("p2", "member").await;
    let path = format!("/v2.0/ports/{}", text(&port["id"]));
    other.get(&path).await.error(404, "PortNotFound");
    let theirs = member.create("network", json!({})).await;
    for hidden in [
        &theirs["id"],
        &json!("00000000-0000-4000-8000-000000000000"),
    ] {
        let refused = other
            .create_refused("port", json!({ "network_id": hidden }))
            .await;
        refused.error(404, "NetworkNotFound");
    }
}

#[tokio::test]
async fn bulk_is_all_or_nothing() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let port =
        |ip: &str| json!({ "network_id": network["id"], "fixed_ips": [{ "ip_address": ip }] });
    let good = json!({ "ports": [port("192.0.2.5"), port("192.0.2.6")] });
    let made = admin.post("/v2.0/ports", &good).await.expect(201);
    assert_eq!(made["ports"].as_array().expect("a list").len(), 2);
    let bad = json!({ "ports": [port("192.0.2.7"), port("192.0.2.5")] });
    admin
        .post("/v2.0/ports", &bad)
        .await
        .error(409, "IpAddressAlreadyAllocated");
    assert_eq!(admin.list("port", "").await.len(), 2);
    assert_eq!(
        admin
            .post("/v2.0/ports", &json!({ "ports": [] }))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn if_match_guards_a_change() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({})).await;
    let path = format!("/v2.0/networks/{}", text(&network["id"]));
    let body = || {
        json!({ "network": { "name": "x" } })
            .to_string()
            .into_bytes()
    };
    let stale = [("if-match", "revision_number=7")];
    let refused = admin.send_with("PUT", &path, body(), &stale).await;
    refused.error(412, "RevisionNumberConstraintFailed");
    let current = [("if-match", "revision_number=1")];
    assert_eq!(
        admin.send_with("PUT", &path, body(), &current).await.status,
        200
    );
    assert_eq!(
        admin
            .send_with("DELETE", &path, Vec::new(), &current)
            .await
            .status,
        412
    );
    assert_eq!(
        admin
            .send_with("PUT", &path, body(), &[("if-match", "x")])
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn extensions_know_more_of_a_port() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let new = json!({
        "network_id": network["id"],
        "device_profile": "gpu",
        "hardware_offload_type": "switchdev",
        "hints": { "openvswitch": { "other_config": { "tx-steering": "hash" } } },
        "numa_affinity_policy": "socket",
        "propagate_uplink_status": false,
        "trusted": true,
    });
    let port = admin.create("port", new.clone()).await;
    for (name, value) in new.as_object().expect("an object") {
        assert_eq!(port[name], *value, "{name}");
    }
    let profile = json!({ "capabilities": ["switchdev"], "trusted": true });
    assert_eq!(port["binding:profile"], profile);
    assert_eq!(port["data_plane_status"], Value::Null);
    assert_eq!(port["ip_allocation"], "immediate");
    let change =
        json!({ "hints": null, "numa_affinity_policy": null, "data_plane_status": "DOWN" });
    let port = admin.update("port", &port["id"], change).await.ok()["port"].clone();
    assert_eq!(port["hints"], Value::Null);
    assert_eq!(port["data_plane_status"], "DOWN");
    let plain = json!({ "network_id": network["id"], "fixed_ips": [] });
    let plain = admin.create("port", plain).await;
    assert_eq!(plain["ip_allocation"], "none");
    assert_eq!(plain["propagate_uplink_status"], true);
    assert_eq!(plain["trusted"], Value::Null);
    assert_eq!(plain["binding:profile"], json!({}));
    for wrong in [
        json!({ "hints": { "other": {} } }),
        json!({ "hints": { "openvswitch": { "other_config": { "tx-steering": "x" } } } }),
        json!({ "numa_affinity_policy": "near" }),
        json!({ "device_profile": "x" }),
        json!({ "trusted": null }),
        json!({ "data_plane_status": "BROKEN" }),
    ] {
        let refused = admin.update("port", &port["id"], wrong.clone()).await;
        let message = refused.error(400, "HTTPBadRequest");
        let name = wrong.as_object().expect("an object").keys().next().cloned();
        assert!(message.contains(&name.unwrap_or_default()), "{message}");
    }
    let member = api.user("p1", "member").await;
    let own = member.create("network", json!({})).await;
    let hidden = member
        .create("port", json!({ "network_id": own["id"] }))
        .await;
    for name in ["hints", "trusted", "binding:profile", "resource_request"] {
        assert!(hidden.get(name).is_none(), "{name}");
    }
    let mine = json!({ "network_id": own["id"], "trusted": true });
    let refused = member.create_refused("port", mine).await;
    refused.error(403, "PolicyNotAuthorized");
}

#[tokio::test]
async fn ports_have_names_in_dns() {
    let api = Api::start_with(|config| config.network.dns_domain = "example.org".to_owned()).await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let port = json!({ "network_id": network["id"] });
    let port = admin.create("port", port).await;
    let fqdn = |port: &Value| text(&port["dns_assignment"][0]["fqdn"]);
    assert_eq!(fqdn(&port), "host-192-0-2-2.example.org.");
    let named = json!({ "dns_name": "Web" });
    let named = admin.update("port", &port["id"], named).await.ok();
    assert_eq!(named["port"]["dns_name"], "web");
    assert_eq!(fqdn(&named["port"]), "web.example.org.");
    let own = json!({ "dns_domain": "example.com." });
    admin.update("port", &port["id"], own).await.ok();
    let shown = admin.show("port", &port["id"]).await;
    assert_eq!(fqdn(&shown), "web.example.com.");
    for wrong in [
        json!({ "dns_name": "web_1" }),
        json!({ "dns_name": "web.example.net." }),
        json!({ "dns_domain": "example.com" }),
    ] {
        let refused = admin.update("port", &port["id"], wrong).await;
        refused.error(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn options_of_dhcp_are_changed_one_by_one() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let option = |name: &str, value: Value, version: i64| json!({ "opt_name": name, "opt_value": value, "ip_version": version });
    let new = json!({ "network_id": network["id"], "extra_dhcp_opts": [
        option("bootfile-name", json!("a"), 4),
        option("bootfile-name", json!("b"), 6),
        { "opt_name": "router", "opt_value": "" },
    ] });
    let port = admin.create("port", new).await;
    let change = json!({ "extra_dhcp_opts": [
        option("bootfile-name", Value::Null, 4),
        option("router", json!("192.0.2.9"), 4),
    ] });
    let port = admin.update("port", &port["id"], change).await.ok()["port"].clone();
    let expected = json!([
        option("bootfile-name", json!("b"), 6),
        option("router", json!("192.0.2.9"), 4),
    ]);
    assert_eq!(port["extra_dhcp_opts"], expected);
    for wrong in [
        json!([{ "opt_name": "router" }]),
        json!([{ "opt_name": "", "opt_value": "x" }]),
        json!([{ "opt_name": "server-ip-address", "opt_value": "" }]),
        json!([{ "opt_name": "x", "opt_value": "a\nb" }]),
        json!([option("x", json!("y"), 5)]),
    ] {
        let refused = json!({ "extra_dhcp_opts": wrong });
        let refused = admin.update("port", &port["id"], refused).await;
        refused.error(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn an_address_that_a_floating_ip_leads_to_stays() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (external, _) = admin.external_network().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let router = json!({ "external_gateway_info": { "network_id": external["id"] } });
    let router = admin.create("router", router).await;
    let leg = json!({ "subnet_id": subnet["id"] });
    let path = format!("/v2.0/routers/{}/add_router_interface", text(&router["id"]));
    admin.put(&path, &leg).await.ok();
    let port = json!({ "network_id": network["id"] });
    let port = admin.create("port", port).await;
    let fip = json!({ "floating_network_id": external["id"], "port_id": port["id"] });
    admin.create("floatingip", fip).await;
    let address = ips(&port).remove(0);
    for lost in [json!([]), json!([{ "ip_address": "192.0.2.77" }])] {
        let lost = json!({ "fixed_ips": lost });
        let refused = admin.update("port", &port["id"], lost).await;
        refused.error(400, "BadRequest");
    }
    let more = json!({ "fixed_ips": [{ "ip_address": address }, { "ip_address": "192.0.2.77" }] });
    let more = admin.update("port", &port["id"], more).await.ok();
    assert_eq!(ips(&more["port"]), [address, "192.0.2.77".to_owned()]);
}

#[tokio::test]
async fn roles_in_a_private_vlan_are_kept_and_said_not_to_be_enforced() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let plain = member.create("network", json!({})).await;
    assert_eq!(plain["pvlan"], false);
    let isolated = json!({ "network_id": plain["id"], "pvlan_type": "isolated" });
    let refused = member.create_refused("port", isolated.clone()).await;
    refused.error(400, "BadRequest");
    let network = member
        .post("/v2.0/networks", &json!({ "network": { "pvlan": true } }))
        .await;
    let network = network.expect(201)["network"].clone();
    let body = json!({ "port": { "network_id": network["id"] } });
    let port = member.post("/v2.0/ports", &body).await;
    assert_eq!(port.warning(), "");
    let port = port.expect(201)["port"].clone();
    assert_eq!(
        (&port["pvlan_type"], &port["pvlan_community"]),
        (&json!("promiscuous"), &Value::Null)
    );
    let role = json!({ "pvlan_type": "community", "pvlan_community": "a" });
    let changed = member.update("port", &port["id"], role).await;
    assert_eq!(changed.ok()["port"]["pvlan_community"], "a");
    assert_eq!(member.list("port", "pvlan_type=community").await.len(), 1);
    let ordinary = json!({ "pvlan": false });
    let refused = member.update("network", &network["id"], ordinary.clone());
    refused.await.error(409, "NetworkInUse");
    assert_eq!(member.remove("port", &port["id"]).await.status, 204);
    let done = member
        .update("network", &network["id"], ordinary)
        .await
        .ok();
    assert_eq!(done["network"]["pvlan"], false);
}

#[tokio::test]
async fn a_port_that_is_bound_nowhere_gets_another_mac_address() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({})).await;
    let port = json!({ "network_id": network["id"] });
    let port = admin.create("port", port).await;
    let again = json!({ "mac_address": null });
    let changed = admin.update("port", &port["id"], again.clone()).await.ok();
    let mac = text(&changed["port"]["mac_address"]);
    assert_ne!(mac, text(&port["mac_address"]));
    assert!(mac.starts_with("fa:16:3e:"), "{mac}");
    let bound = json!({ "binding:host_id": "h1" });
    admin.update("port", &port["id"], bound).await.ok();
    let refused = admin.update("port", &port["id"], again).await;
    refused.error(409, "PortBound");
}
