//! Segments, networks of several of them, and routed networks.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

fn vlan(physical: &str, number: Option<u32>) -> Value {
    json!({
        "provider:network_type": "vlan",
        "provider:physical_network": physical,
        "provider:segmentation_id": number,
    })
}

async fn segments(session: &Session, network: &Value) -> Vec<Value> {
    let query = format!("network_id={}&sort_key=segmentation_id", text(network));
    session.list("segment", &query).await
}

#[tokio::test]
async fn a_network_of_several_segments() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let both = json!([vlan("left", Some(7)), vlan("right", Some(8))]);
    let network = admin.create("network", json!({ "segments": both })).await;
    assert_eq!(network["segments"], both);
    assert!(network.get("provider:network_type").is_none(), "{network}");
    let listed = segments(&admin, &network["id"]).await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0]["physical_network"], "left");
    assert_eq!(listed[1]["segmentation_id"], 8);

    let same = json!({ "segments": both });
    admin.update("network", &network["id"], same).await.ok();
    let other = json!({ "segments": [vlan("left", Some(9))] });
    admin
        .update("network", &network["id"], other)
        .await
        .error(400, "InvalidInput");
    let mut mixed = vlan("left", Some(10));
    mixed["segments"] = json!([vlan("left", Some(11))]);
    for (body, kind) in [
        (mixed, "SegmentsSetInConjunctionWithProviders"),
        (
            json!({ "segments": [vlan("left", Some(9)), vlan("left", Some(9))] }),
            "SegmentsContainDuplicateEntry",
        ),
        (json!({ "segments": [] }), "HTTPBadRequest"),
        (json!({ "segments": "x" }), "HTTPBadRequest"),
        (
            json!({ "segments": [{ "network_type": "vlan" }] }),
            "HTTPBadRequest",
        ),
        (
            json!({ "segments": [{ "provider:physical_network": "left" }] }),
            "InvalidInput",
        ),
    ] {
        admin.create_refused("network", body).await.error(400, kind);
    }
    let taken = json!({ "segments": [vlan("new", Some(1)), vlan("right", Some(8))] });
    admin
        .create_refused("network", taken)
        .await
        .error(409, "VlanIdInUse");
    // Nothing is left of what was refused.
    assert_eq!(
        admin.list("segment", "physical_network=new").await,
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn segments_one_by_one() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", vlan("left", Some(7))).await;
    let id = &network["id"];
    let body = json!({
        "network_id": id,
        "network_type": "vxlan",
        "name": "second",
        "description": "d",
    });
    let second = admin.create("segment", body).await;
    assert_eq!(
        (&second["name"], &second["physical_network"]),
        (&json!("second"), &Value::Null)
    );
    assert!(second["segmentation_id"].is_number() && second["created_at"].is_string());
    assert!(
        second.get("project_id").is_none() && second.get("tags").is_none(),
        "{second}"
    );
    // All segments carry what the network promises.
    assert_eq!(admin.show("network", id).await["mtu"], 1450);
    let changed = admin
        .update(
            "segment",
            &second["id"],
            json!({ "name": null, "description": "e" }),
        )
        .await
        .ok();
    assert_eq!(
        (
            &changed["segment"]["name"],
            &changed["segment"]["description"]
        ),
        (&Value::Null, &json!("e"))
    );
    assert_eq!(changed["segment"]["revision_number"], 2);
    let fixed = json!({ "network_type": "gre" });
    admin
        .update("segment", &second["id"], fixed)
        .await
        .error(400, "HTTPBadRequest");

    let nowhere =
        json!({ "network_id": "00000000-0000-4000-8000-000000000000", "network_type": "gre" });
    admin
        .create_refused("segment", nowhere)
        .await
        .error(404, "NetworkNotFound");
    let taken = json!({ "network_id": id, "network_type": "vlan", "physical_network": "left", "segmentation_id": 7 });
    admin
        .create_refused("segment", taken)
        .await
        .error(409, "VlanIdInUse");
    assert_eq!(admin.remove("segment", &second["id"]).await.status, 204);
    admin
        .remove("segment", &second["id"])
        .await
        .error(404, "SegmentNotFound");
}

#[tokio::test]
async fn only_administrators_see_segments() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let network = member.create("network", json!({})).await;
    let admin = api.admin().await;
    let segment = segments(&admin, &network["id"]).await[0].clone();
    assert!(member.list("segment", "").await.is_empty());
    member
        .remove("segment", &segment["id"])
        .await
        .error(404, "SegmentNotFound");
    let body = json!({ "network_id": network["id"], "network_type": "gre" });
    member
        .create_refused("segment", body)
        .await
        .error(403, "PolicyNotAuthorized");
    let body = json!({ "segments": [vlan("left", Some(7))] });
    member
        .create_refused("network", body)
        .await
        .error(403, "PolicyNotAuthorized");
}

#[tokio::test]
async fn all_subnets_are_on_segments_or_none() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let both = json!({ "segments": [vlan("left", Some(7)), vlan("right", Some(8))] });
    let network = admin.create("network", both).await;
    assert_eq!(network["l2_adjacency"], true);
    let listed = segments(&admin, &network["id"]).await;
    let on = |cidr: &str, segment: &Value| json!({ "network_id": network["id"], "ip_version": 4, "cidr": cidr, "segment_id": segment });
    let left = admin
        .create("subnet", on("10.0.1.0/24", &listed[0]["id"]))
        .await;
    assert_eq!(left["segment_id"], listed[0]["id"]);
    admin
        .create_refused("subnet", on("10.0.3.0/24", &Value::Null))
        .await
        .error(400, "SubnetsNotAllAssociatedWithSegments");
    let mut routed = on("10.0.3.0/24", &Value::Null);
    routed["service_types"] = json!(["network:routed"]);
    admin.create("subnet", routed).await;

    // Each tells its guests the way to the other.
    let right = admin
        .create("subnet", on("10.0.2.0/24", &listed[1]["id"]))
        .await;
    let route = |to: &str, by: &str| json!({ "destination": to, "nexthop": by });
    let has = |subnet: &Value, route: Value| {
        subnet["host_routes"]
            .as_array()
            .expect("a list")
            .contains(&route)
    };
    assert!(has(&right, route("10.0.1.0/24", "10.0.2.1")), "{right}");
    let left = admin.show("subnet", &left["id"]).await;
    assert!(has(&left, route("10.0.2.0/24", "10.0.1.1")), "{left}");
    let moved = json!({ "gateway_ip": "10.0.2.254", "allocation_pools": [{ "start": "10.0.2.2", "end": "10.0.2.99" }] });
    let moved = admin.update("subnet", &right["id"], moved).await.ok();
    assert!(
        has(&moved["subnet"], route("10.0.1.0/24", "10.0.2.254")),
        "{moved}"
    );
    assert!(
        !has(&moved["subnet"], route("10.0.1.0/24", "10.0.2.1")),
        "{moved}"
    );

    let shown = admin.show("network", &network["id"]).await;
    assert_eq!(shown["l2_adjacency"], false);
    let refused = admin.remove("segment", &listed[0]["id"]).await;
    refused.error(409, "SegmentInUse");
    assert_eq!(admin.remove("subnet", &right["id"]).await.status, 204);
    let left = admin.show("subnet", &left["id"]).await;
    assert!(!has(&left, route("10.0.2.0/24", "10.0.1.1")), "{left}");
    assert_eq!(admin.remove("network", &network["id"]).await.status, 204);
}

#[tokio::test]
async fn a_subnet_goes_onto_the_only_segment() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let (others, _) = admin.network_with_subnet("m", "192.0.2.0/24").await;
    let segment = segments(&admin, &network["id"]).await[0].clone();
    let foreign = segments(&admin, &others["id"]).await[0].clone();
    let put =
        |segment: &Value| admin.update("subnet", &subnet["id"], json!({ "segment_id": segment }));
    put(&foreign["id"]).await.error(400, "NetworkIdsDontMatch");
    put(&json!("00000000-0000-4000-8000-000000000000"))
        .await
        .error(404, "SegmentNotFound");
    assert_eq!(
        put(&segment["id"]).await.ok()["subnet"]["segment_id"],
        segment["id"]
    );
    put(&Value::Null)
        .await
        .error(400, "SubnetSegmentAssociationChangeNotAllowed");
}

/// A network of two segments, on the physical networks `one` and `two`, each with a subnet: its id, and the subnets'.
async fn routed(admin: &Session) -> (Value, [Value; 2]) {
    let network = json!({
        "provider:network_type": "flat", "provider:physical_network": "one",
    });
    let network = admin.create("network", network).await["id"].clone();
    let query = format!("network_id={}", text(&network));
    let first = admin.list("segment", &query).await[0]["id"].clone();
    let second =
        json!({ "network_id": network, "network_type": "flat", "physical_network": "two" });
    let second = admin.create("segment", second).await["id"].clone();
    let mut subnets = [Value::Null, Value::Null];
    for (n, segment) in [first, second].into_iter().enumerate() {
        let subnet = json!({
            "network_id": network, "ip_version": 4, "cidr": format!("192.0.{}.0/24", n + 2),
            "segment_id": segment,
        });
        subnets[n] = admin.create("subnet", subnet).await["id"].clone();
    }
    (network, subnets)
}

#[tokio::test]
async fn a_ports_addresses_wait_for_its_host_in_a_routed_network() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, [first, second]) = routed(&admin).await;
    for (host, networks) in [
        ("h1", ["one"].as_slice()),
        ("h2", &["two"]),
        ("h3", &[]),
        ("h4", &["one", "two"]),
    ] {
        api.host(host, networks).await;
    }
    let port = admin.create("port", json!({ "network_id": network })).await;
    assert_eq!(port["ip_allocation"], "deferred");
    assert_eq!(port["fixed_ips"], json!([]));
    assert_eq!(port["revision_number"], 1);
    assert_eq!(
        admin.show("port", &port["id"]).await["ip_allocation"],
        "deferred"
    );
    let bind = async |host: &str| {
        let host = json!({ "binding:host_id": host });
        admin.update("port", &port["id"], host).await
    };
    for host in ["h3", "unknown"] {
        bind(host).await.error(409, "HostNotConnectedToAnySegment");
    }
    bind("h4")
        .await
        .error(409, "HostConnectedToMultipleSegments");
    let bound = bind("h2").await.ok()["port"].clone();
    assert_eq!(bound["ip_allocation"], "immediate");
    assert_eq!(bound["fixed_ips"][0]["subnet_id"], second);
    // It keeps its addresses, and so cannot go where they lead nowhere.
    bind("h1").await.error(409, "HostNotCompatibleWithFixedIps");
    bind("").await.ok();
    let again = bind("h2").await.ok()["port"].clone();
    assert_eq!(again["fixed_ips"], bound["fixed_ips"]);

    // With a host it has them at once; and who names a subnet has that.
    for (host, given, subnet) in [
        ("h1", Value::Null, &first),
        ("h2", Value::Null, &second),
        ("", json!([{ "subnet_id": first }]), &first),
    ] {
        let mut new = json!({ "network_id": network, "binding:host_id": host });
        if !given.is_null() {
            new["fixed_ips"] = given;
        }
        let port = admin.create("port", new).await;
        assert_eq!(port["ip_allocation"], "immediate", "{host}");
        assert_eq!(port["fixed_ips"][0]["subnet_id"], *subnet, "{host}");
    }
    let elsewhere = json!({
        "network_id": network, "binding:host_id": "h1", "fixed_ips": [{ "subnet_id": second }],
    });
    let refused = admin.create_refused("port", elsewhere).await;
    refused.error(400, "InvalidInput");
}

#[tokio::test]
async fn a_guest_that_moves_gets_its_addresses_with_its_first_binding() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let service = api.user("service", "service").await;
    let (network, [first, _]) = routed(&admin).await;
    api.host("h1", &["one"]).await;
    api.host("h2", &["two"]).await;
    let port = json!({ "network_id": network, "device_owner": "compute:nova" });
    let port = admin.create("port", port).await;
    let path = format!("/v2.0/ports/{}/bindings", text(&port["id"]));
    for host in ["h1", "h2"] {
        let body = json!({ "binding": { "host": host } });
        service.post(&path, &body).await.expect(201);
    }
    let shown = admin.show("port", &port["id"]).await;
    assert_eq!(shown["fixed_ips"][0]["subnet_id"], first);
    let refused = service
        .put(&format!("{path}/h2/activate"), &Value::Null)
        .await;
    refused.error(409, "HostNotCompatibleWithFixedIps");
}
