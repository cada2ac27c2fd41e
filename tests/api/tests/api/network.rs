//! Networks.

use serde_json::json;
use weft_tests_api::{Api, text};

#[tokio::test]
async fn create_show_update_delete() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({ "name": "n1" })).await;
    assert_eq!(network["status"], "ACTIVE");
    assert_eq!(network["mtu"], 1450);
    assert_eq!(network["provider:network_type"], "vxlan");
    assert_eq!(network["provider:segmentation_id"], 1);
    assert_eq!(network["port_security_enabled"], true);
    assert_eq!(network["shared"], false);
    assert_eq!(network["subnets"], json!([]));
    assert_eq!(network["project_id"], admin.project_id);
    assert_eq!(network["tenant_id"], admin.project_id);
    assert_eq!(network["revision_number"], 1);
    assert!(text(&network["created_at"]).ends_with('Z'));
    assert_eq!(admin.show("network", &network["id"]).await, network);

    let change =
        json!({ "name": "n2", "description": "d", "mtu": 1400, "admin_state_up": "false" });
    let changed = admin.update("network", &network["id"], change).await.ok();
    let changed = &changed["network"];
    assert_eq!(
        (&changed["name"], &changed["mtu"]),
        (&json!("n2"), &json!(1400))
    );
    assert_eq!(changed["admin_state_up"], false);
    assert_eq!(changed["revision_number"], 2);
    assert_eq!(admin.remove("network", &network["id"]).await.status, 204);
    let gone = admin
        .get(&format!("/v2.0/networks/{}", text(&network["id"])))
        .await;
    assert!(
        gone.error(404, "NetworkNotFound")
            .contains(&text(&network["id"]))
    );
}

#[tokio::test]
async fn a_segment_is_given_once_and_reused_when_free() {
    let api = Api::start_with(|config| config.network.tunnel_id_range.last = 3).await;
    let admin = api.admin().await;
    let mut networks = Vec::new();
    for id in 1..=3 {
        let network = admin.create("network", json!({})).await;
        assert_eq!(network["provider:segmentation_id"], id);
        networks.push(network);
    }
    let refused = admin.create_refused("network", json!({})).await;
    refused.error(503, "NoNetworkAvailable");
    assert_eq!(
        admin.remove("network", &networks[1]["id"]).await.status,
        204
    );
    let network = admin.create("network", json!({})).await;
    assert_eq!(network["provider:segmentation_id"], 2);
}

#[tokio::test]
async fn networks_of_every_type_that_needs_no_physical_network() {
    let api = Api::start().await;
    let admin = api.admin().await;
    for (kind, number, mtu) in [
        ("local", None, 1500),
        ("vxlan", Some(7), 1450),
        ("geneve", Some(7), 1442),
        ("gre", Some(7), 1458),
    ] {
        let attributes = json!({
            "provider:network_type": kind, "provider:segmentation_id": number,
        });
        let network = admin.create("network", attributes.clone()).await;
        assert_eq!(network["provider:network_type"], kind);
        assert_eq!(network["provider:segmentation_id"], json!(number));
        assert_eq!(network["provider:physical_network"], json!(null));
        assert_eq!(network["mtu"], mtu, "{kind}");
        // Of local ones there may be any number.
        let again = json!({ "network": attributes });
        let again = admin.post("/v2.0/networks", &again).await;
        let status = if kind == "local" { 201 } else { 409 };
        assert_eq!(again.status, status, "{kind}");
    }
    let numbered = json!({ "provider:network_type": "local", "provider:segmentation_id": 7 });
    let refused = admin.create_refused("network", numbered).await;
    refused.error(400, "InvalidInput");
}

#[tokio::test]
async fn provider_attributes_are_checked() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let with = |kind: &str, physical: Option<&str>, id: Option<u32>| {
        json!({
            "provider:network_type": kind,
            "provider:physical_network": physical,
            "provider:segmentation_id": id,
        })
    };
    let flat = admin
        .create("network", with("flat", Some("provider"), None))
        .await;
    assert_eq!(flat["mtu"], 1500);
    admin
        .create("network", with("vlan", Some("provider"), Some(101)))
        .await;
    admin
        .create("network", with("geneve", None, Some(101)))
        .await;
    for (attributes, status, kind) in [
        (
            with("flat", Some("provider"), None),
            409,
            "FlatNetworkInUse",
        ),
        (
            with("vlan", Some("provider"), Some(101)),
            409,
            "VlanIdInUse",
        ),
        (with("geneve", None, Some(101)), 409, "TunnelIdInUse"),
        (with("flat", None, None), 400, "InvalidInput"),
        (with("flat", Some("other"), Some(1)), 400, "InvalidInput"),
        (
            with("vlan", Some("provider"), Some(4095)),
            400,
            "InvalidInput",
        ),
        (with("vxlan", Some("provider"), None), 400, "InvalidInput"),
        (with("vxlan", None, Some(0x100_0000)), 400, "InvalidInput"),
        (with("token-ring", None, None), 400, "InvalidInput"),
    ] {
        admin
            .create_refused("network", attributes)
            .await
            .error(status, kind);
    }
    let moved = json!({ "provider:segmentation_id": 7 });
    admin
        .update("network", &flat["id"], moved)
        .await
        .error(400, "InvalidInput");
}

#[tokio::test]
async fn members_see_what_is_theirs_shared_or_external() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let mine = member.create("network", json!({ "name": "mine" })).await;
    assert!(mine.get("provider:network_type").is_none(), "{mine}");
    let shared = admin
        .create("network", json!({ "name": "shared", "shared": true }))
        .await;
    let (external, _) = admin.external_network().await;
    let hidden = admin.create("network", json!({ "name": "hidden" })).await;
    let mut names: Vec<String> = member
        .list("network", "")
        .await
        .iter()
        .map(|network| text(&network["name"]))
        .collect();
    names.sort();
    assert_eq!(names, ["mine", "provider1", "shared"]);
    assert_eq!(other.list("network", "router:external=True").await.len(), 1);
    member.show("network", &shared["id"]).await;
    member.show("network", &external["id"]).await;
    let path = format!("/v2.0/networks/{}", text(&hidden["id"]));
    member.get(&path).await.error(404, "NetworkNotFound");
    member.delete(&path).await.error(404, "NetworkNotFound");
    let renamed = member
        .update("network", &shared["id"], json!({ "name": "x" }))
        .await;
    renamed.error(403, "PolicyNotAuthorized");
    for attributes in [
        json!({ "shared": true }),
        json!({ "router:external": true }),
        json!({ "provider:network_type": "vxlan" }),
    ] {
        let refused = member.create_refused("network", attributes).await;
        refused.error(403, "PolicyNotAuthorized");
    }
    let foreign = json!({ "project_id": other.project_id });
    member
        .create_refused("network", foreign.clone())
        .await
        .error(400, "HTTPBadRequest");
    assert_eq!(
        admin.create("network", foreign).await["project_id"],
        other.project_id
    );
}

#[tokio::test]
async fn a_network_goes_with_its_subnets_but_not_with_ports() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let port = admin
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    admin
        .remove("network", &network["id"])
        .await
        .error(409, "NetworkInUse");
    assert_eq!(admin.remove("port", &port["id"]).await.status, 204);
    assert_eq!(admin.remove("network", &network["id"]).await.status, 204);
    let path = format!("/v2.0/subnets/{}", text(&subnet["id"]));
    admin.get(&path).await.error(404, "SubnetNotFound");
}

#[tokio::test]
async fn sharing_ends_only_while_nobody_else_uses_it() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let network = admin.create("network", json!({ "shared": true })).await;
    let port = member
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    let unshare = json!({ "shared": false });
    let refused = admin
        .update("network", &network["id"], unshare.clone())
        .await;
    refused.error(409, "InvalidSharedSetting");
    assert_eq!(member.remove("port", &port["id"]).await.status, 204);
    assert_eq!(
        admin
            .update("network", &network["id"], unshare)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn names_zones_and_transparency() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let body = json!({
        "dns_domain": "Example.ORG.",
        "availability_zone_hints": ["nova"],
        "vlan_transparent": true,
        "ha": false,
    });
    let network = admin.create("network", body).await;
    assert_eq!(network["dns_domain"], "example.org.");
    assert_eq!(network["availability_zone_hints"], json!(["nova"]));
    assert_eq!(network["availability_zones"], json!(["nova"]));
    assert_eq!(
        (&network["vlan_transparent"], &network["l2_adjacency"]),
        (&json!(true), &json!(true))
    );
    assert!(network.get("ha").is_none(), "{network}");
    assert_eq!(
        admin.list("network", "vlan_transparent=true").await.len(),
        1
    );
    let changed = admin
        .update("network", &network["id"], json!({ "dns_domain": "d.org." }))
        .await
        .ok();
    assert_eq!(changed["network"]["dns_domain"], "d.org.");
    let fixed = json!({ "vlan_transparent": false });
    admin
        .update("network", &network["id"], fixed)
        .await
        .error(400, "HTTPBadRequest");
    for domain in [
        "example.org",
        "-a.org.",
        "a..org.",
        "under_score.org.",
        "a.123.",
        ".",
    ] {
        let refused = admin
            .create_refused("network", json!({ "dns_domain": domain }))
            .await;
        assert_eq!(refused.status, 400, "{domain}: {}", refused.body);
    }
    let nowhere = json!({ "availability_zone_hints": ["mars"] });
    admin
        .create_refused("network", nowhere)
        .await
        .error(404, "AvailabilityZoneNotFound");
}

#[tokio::test]
async fn a_network_moves_to_another_vlan_only() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let vlan = |number: u32| {
        json!({
            "provider:network_type": "vlan",
            "provider:physical_network": "left",
            "provider:segmentation_id": number,
        })
    };
    let network = admin.create("network", vlan(7)).await;
    admin.create("network", vlan(8)).await;
    let to = |number: u32| {
        let change = json!({ "provider:segmentation_id": number });
        admin.update("network", &network["id"], change)
    };
    assert_eq!(to(9).await.ok()["network"]["provider:segmentation_id"], 9);
    to(8).await.error(409, "VlanIdInUse");
    to(4095).await.error(400, "InvalidInput");
    let elsewhere = json!({ "provider:physical_network": "right" });
    admin
        .update("network", &network["id"], elsewhere)
        .await
        .error(400, "InvalidInput");
}

#[tokio::test]
async fn one_external_network_is_the_default() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let external = json!({ "router:external": true, "is_default": true });
    let first = admin.create("network", external.clone()).await;
    assert_eq!(first["is_default"], true);
    admin
        .create_refused("network", external)
        .await
        .error(409, "DefaultExternalNetworkExists");
    let change = json!({ "description": "still the default" });
    let changed = admin.update("network", &first["id"], change).await.ok();
    assert_eq!(changed["network"]["is_default"], true);
}
