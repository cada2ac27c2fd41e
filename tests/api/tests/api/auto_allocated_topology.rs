//! A network, with all it needs to reach outside, by one request.

use serde_json::json;
use weft_tests_api::{Api, text};

#[tokio::test]
async fn a_project_gets_one_network_that_leads_outside() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let path = format!("/v2.0/auto-allocated-topology/{}", member.project_id);
    let early = member.get(&format!("{path}?fields=dry-run")).await;
    let missing = early.error(409, "AutoAllocationFailure");
    assert!(missing.contains("No default router:external"), "{missing}");
    let external = json!({ "name": "out", "router:external": true, "is_default": true });
    let external = admin.create("network", external).await;
    let subnet = json!({ "network_id": external["id"], "ip_version": 4, "cidr": "203.0.113.0/24" });
    admin.create("subnet", subnet).await;
    let refused = member.get(&path).await;
    refused.error(409, "AutoAllocationFailure");
    assert_eq!(
        member.list("router", "").await.len(),
        0,
        "nothing half-made"
    );
    for (name, prefix, length) in [("four", "10.64.0.0/16", 24), ("six", "fd00:64::/48", 64)] {
        let pool = json!({
            "name": name, "prefixes": [prefix], "default_prefixlen": length,
            "is_default": true, "shared": true,
        });
        admin.create("subnetpool", pool).await;
    }
    let possible = member.get(&format!("{path}?fields=dry-run")).await.ok();
    assert_eq!(possible["auto_allocated_topology"]["id"], "dry-run=pass");
    assert_eq!(member.list("router", "").await.len(), 0);
    let made = member.get(&path).await.ok();
    let network = made["auto_allocated_topology"]["id"].clone();
    assert_eq!(member.get(&path).await.ok(), made, "once");
    let network = member.show("network", &network).await;
    assert_eq!(network["project_id"], member.project_id);
    assert_eq!(network["subnets"].as_array().expect("a list").len(), 2);
    let routers = member.list("router", "").await;
    assert_eq!(routers.len(), 1);
    assert_eq!(
        routers[0]["external_gateway_info"]["network_id"],
        external["id"]
    );
    let legs = format!(
        "device_owner=network:router_interface&device_id={}",
        text(&routers[0]["id"])
    );
    assert_eq!(admin.list("port", &legs).await.len(), 2, "one a subnet");
    let stranger = api.user("p2", "member").await;
    stranger.get(&path).await.error(403, "PolicyNotAuthorized");
    assert_eq!(member.delete(&path).await.status, 204);
    assert_eq!(member.list("router", "").await.len(), 0);
    assert_eq!(
        member.list("network", "router:external=False").await.len(),
        0
    );
    assert_eq!(member.delete(&path).await.status, 204, "as Neutron has it");
}
