//! Network segment ranges.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

fn range(minimum: u32, maximum: u32) -> Value {
    json!({ "name": "r", "network_type": "vxlan", "minimum": minimum, "maximum": maximum })
}

#[tokio::test]
async fn the_configuration_s_ranges_are_there_and_stay() {
    let api = Api::start_with(|config| {
        let vlans = weft_control::app::config::IdRange {
            first: 100,
            last: 110,
        };
        config
            .network
            .vlan_ranges
            .insert("physnet1".to_owned(), vlans);
    })
    .await;
    let admin = api.admin().await;
    let all = admin.list("network_segment_range", "").await;
    let kinds = ["geneve", "gre", "vlan", "vxlan"];
    assert_eq!(all.len(), kinds.len());
    let vlan = &admin
        .list("network_segment_range", "network_type=vlan")
        .await[0];
    assert_eq!(
        (&vlan["default"], &vlan["shared"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (&vlan["project_id"], &vlan["physical_network"]),
        (&Value::Null, &json!("physnet1"))
    );
    assert_eq!(vlan["available"].as_array().expect("a list").len(), 11);
    for answer in [
        admin.remove("network_segment_range", &vlan["id"]).await,
        admin
            .update(
                "network_segment_range",
                &vlan["id"],
                json!({ "maximum": 120 }),
            )
            .await,
    ] {
        answer.error(400, "NetworkSegmentRangeDefaultReadOnly");
    }
    let network = json!({ "provider:network_type": "vlan" });
    let network = admin.create("network", network).await;
    assert_eq!(network["provider:physical_network"], "physnet1");
    assert_eq!(network["provider:segmentation_id"], 100);
    let vlan = admin.show("network_segment_range", &vlan["id"]).await;
    assert_eq!(vlan["used"], json!({ "100": admin.project_id }));
}

#[tokio::test]
async fn a_project_takes_from_its_own_range_and_others_do_not() {
    let api = Api::start_with(|config| config.network.tunnel_id_range.last = 5).await;
    let admin = api.admin().await;
    let (one, two) = (
        api.user("p1", "member").await,
        api.user("p2", "member").await,
    );
    let mut own = range(2, 3);
    own["shared"] = false.into();
    own["project_id"] = one.project_id.clone().into();
    let own = admin.create("network_segment_range", own).await;
    assert_eq!(
        (&own["shared"], &own["default"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(own["project_id"], one.project_id.as_str());
    let number = |network: Value| {
        let admin = admin.clone();
        async move { admin.show("network", &network["id"]).await["provider:segmentation_id"].clone() }
    };
    for expected in [1, 4, 5] {
        let network = two.create("network", json!({})).await;
        assert_eq!(number(network).await, expected);
    }
    let full = two.create_refused("network", json!({})).await;
    full.error(503, "NoNetworkAvailable");
    let mut networks = Vec::new();
    for expected in [2, 3] {
        let network = one.create("network", json!({})).await;
        assert_eq!(number(network.clone()).await, expected);
        networks.push(network);
    }
    let id = &own["id"];
    let shrunk = admin
        .update("network_segment_range", id, json!({ "minimum": 3 }))
        .await;
    shrunk.error(409, "NetworkSegmentRangeReferencedByProject");
    let refused = admin.remove("network_segment_range", id).await;
    refused.error(409, "NetworkSegmentRangeReferencedByProject");
    assert_eq!(one.remove("network", &networks[0]["id"]).await.status, 204);
    let shrunk = admin
        .update(
            "network_segment_range",
            id,
            json!({ "minimum": 3, "name": "s" }),
        )
        .await;
    assert_eq!(shrunk.ok()["network_segment_range"]["minimum"], 3);
    assert_eq!(one.remove("network", &networks[1]["id"]).await.status, 204);
    assert_eq!(admin.remove("network_segment_range", id).await.status, 204);
}

#[tokio::test]
async fn what_cannot_be_a_range_is_refused() {
    let api = Api::start().await;
    let admin = api.admin().await;
    admin.create("network_segment_range", range(100, 200)).await;
    for (body, status, kind) in [
        (range(150, 300), 409, "NetworkSegmentRangeOverlaps"),
        (range(10, 9), 400, "NetworkSegmentRangeError"),
        (range(1, 0x100_0000), 400, "NetworkSegmentRangeError"),
        (
            json!({ "network_type": "vlan", "minimum": 1, "maximum": 2 }),
            400,
            "BadRequest",
        ),
        (
            json!({ "network_type": "flat", "minimum": 1, "maximum": 2 }),
            400,
            "HTTPBadRequest",
        ),
        (
            json!({ "network_type": "vxlan", "minimum": 0, "maximum": 2 }),
            400,
            "HTTPBadRequest",
        ),
        (json!({ "network_type": "vxlan" }), 400, "HTTPBadRequest"),
    ] {
        let refused = admin.create_refused("network_segment_range", body).await;
        refused.error(status, kind);
    }
}

#[tokio::test]
async fn only_administrators_see_ranges() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let made = admin.create("network_segment_range", range(100, 200)).await;
    assert!(member.list("network_segment_range", "").await.is_empty());
    let path = format!("/v2.0/network-segment-ranges/{}", text(&made["id"]));
    member
        .get(&path)
        .await
        .error(404, "NetworkSegmentRangeNotFound");
    let refused = member
        .create_refused("network_segment_range", range(300, 400))
        .await;
    refused.error(403, "PolicyNotAuthorized");
}
