//! Trunks: which ports may be in one, and what follows from being in one.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

async fn port(session: &Session, network: &Value) -> Value {
    let new = json!({ "network_id": network["id"] });
    session.create("port", new).await
}

fn vlan(port: &Value, id: i64) -> Value {
    json!({ "port_id": port["id"], "segmentation_type": "vlan", "segmentation_id": id })
}

async fn subports(session: &Session, trunk: &Value, action: &str, list: Value) -> Answer {
    let path = format!("/v2.0/trunks/{}/{action}", text(&trunk["id"]));
    session.put(&path, &json!({ "sub_ports": list })).await
}

#[tokio::test]
async fn subports_are_added_shown_and_taken_away() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let (network, _) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let (inner, _) = member.network_with_subnet("m", "198.51.100.0/24").await;
    let (parent, one, two) = (
        port(&member, &network).await,
        port(&member, &inner).await,
        port(&member, &inner).await,
    );
    let new = json!({ "port_id": parent["id"], "sub_ports": [vlan(&one, 2)] });
    let trunk = member.create("trunk", new).await;
    assert_eq!(trunk["status"], "DOWN");
    assert_eq!(trunk["sub_ports"], json!([vlan(&one, 2)]));
    assert_eq!(member.show("trunk", &trunk["id"]).await, trunk);

    let changed = subports(&member, &trunk, "add_subports", json!([vlan(&two, 3)])).await;
    assert_eq!(
        changed.ok()["sub_ports"],
        json!([vlan(&one, 2), vlan(&two, 3)])
    );
    let details = member.show("port", &parent["id"]).await["trunk_details"].clone();
    let mut expected = vlan(&one, 2);
    expected["mac_address"] = one["mac_address"].clone();
    assert_eq!(details["trunk_id"], trunk["id"]);
    assert_eq!(details["sub_ports"][0], expected);
    let gone = json!([{ "port_id": one["id"] }]);
    subports(&member, &trunk, "remove_subports", gone.clone())
        .await
        .ok();
    let path = format!("/v2.0/trunks/{}/get_subports", text(&trunk["id"]));
    let left = member.get(&path).await.ok();
    assert_eq!(left, json!({ "sub_ports": [vlan(&two, 3)] }));
    let again = subports(&member, &trunk, "remove_subports", gone).await;
    again.error(404, "SubPortNotFound");

    member
        .remove("port", &two["id"])
        .await
        .error(409, "PortInUseAsSubPort");
    member
        .remove("port", &parent["id"])
        .await
        .error(409, "PortInUseAsTrunkParent");
    member.remove("trunk", &trunk["id"]).await.expect(204);
    let free = member.show("port", &two["id"]).await;
    assert_eq!(free["device_owner"], "");
    member.remove("port", &two["id"]).await.expect(204);
}

#[tokio::test]
async fn a_port_is_in_one_trunk_and_a_vlan_is_of_one_port() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let large = json!({ "name": "m", "mtu": 1400 });
    let small = admin.create("network", large).await;
    let (parent, one, two) = (
        port(&admin, &small).await,
        port(&admin, &small).await,
        port(&admin, &small).await,
    );
    let trunk = json!({ "port_id": parent["id"], "sub_ports": [vlan(&one, 2)] });
    let trunk = admin.create("trunk", trunk).await;
    let busy = port(&admin, &small).await;
    let used = json!({ "device_id": "d" });
    admin.update("port", &busy["id"], used).await.ok();
    let big = port(&admin, &network).await;
    for (subport, status, kind) in [
        (vlan(&parent, 3), 409, "ParentPortInUse"),
        (vlan(&one, 3), 409, "TrunkPortInUse"),
        (vlan(&two, 2), 409, "DuplicateSubPort"),
        (vlan(&busy, 3), 409, "PortInUse"),
        (vlan(&big, 3), 409, "SubPortMtuGreaterThanTrunkPortMtu"),
        (vlan(&trunk, 3), 404, "PortNotFound"),
        (vlan(&two, 0), 400, "InvalidInput"),
        (vlan(&two, 4_095), 400, "InvalidInput"),
        (
            json!({ "port_id": two["id"], "segmentation_type": "vlan" }),
            400,
            "InvalidInput",
        ),
        // The network is none of VLANs: there is nothing to inherit.
        (
            json!({ "port_id": two["id"], "segmentation_type": "inherit" }),
            400,
            "InvalidInput",
        ),
    ] {
        let refused = subports(&admin, &trunk, "add_subports", json!([subport])).await;
        refused.error(status, kind);
    }
    let second = json!({ "port_id": parent["id"] });
    let second = admin.create_refused("trunk", second).await;
    second.error(409, "ParentPortInUse");
    let inner = json!({ "port_id": one["id"] });
    let inner = admin.create_refused("trunk", inner).await;
    inner.error(409, "TrunkPortInUse");

    let closed = json!({ "admin_state_up": false });
    admin.update("trunk", &trunk["id"], closed).await.ok();
    let refused = subports(&admin, &trunk, "add_subports", json!([vlan(&two, 3)])).await;
    refused.error(409, "TrunkDisabled");
    let refused = admin.remove("trunk", &trunk["id"]).await;
    refused.error(409, "TrunkDisabled");
}

#[tokio::test]
async fn subports_go_where_their_parent_goes() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let (parent, one) = (port(&admin, &network).await, port(&admin, &network).await);
    let new = json!({ "port_id": parent["id"], "sub_ports": [vlan(&one, 2)] });
    admin.create("trunk", new).await;
    for host in ["h1", "h2", ""] {
        let bound = json!({ "binding:host_id": host });
        admin.update("port", &parent["id"], bound).await.ok();
        let followed = admin.show("port", &one["id"]).await;
        assert_eq!(followed["binding:host_id"], *host);
        assert_eq!(followed["device_owner"], "trunk:subport");
    }
}

#[tokio::test]
async fn trunks_are_their_projects() {
    let api = Api::start().await;
    let (member, reader, other) = (
        api.user("p1", "member").await,
        api.user("p1", "reader").await,
        api.user("p2", "member").await,
    );
    let (network, _) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let parent = port(&member, &network).await;
    let stolen = json!({ "port_id": parent["id"] });
    let stolen = other.create_refused("trunk", stolen).await;
    stolen.error(404, "PortNotFound");
    let trunk = member
        .create("trunk", json!({ "port_id": parent["id"] }))
        .await;
    assert_eq!(reader.list("trunk", "status=DOWN").await.len(), 1);
    assert_eq!(other.list("trunk", "").await.len(), 0);
    let one = port(&member, &network).await;
    let refused = subports(&reader, &trunk, "add_subports", json!([vlan(&one, 2)])).await;
    refused.error(403, "PolicyNotAuthorized");
    let refused = subports(&other, &trunk, "add_subports", json!([vlan(&one, 2)])).await;
    refused.error(404, "TrunkNotFound");
    other
        .remove("trunk", &trunk["id"])
        .await
        .error(404, "TrunkNotFound");
}
