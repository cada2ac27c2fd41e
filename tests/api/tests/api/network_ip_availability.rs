//! How many addresses networks have.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

#[tokio::test]
async fn addresses_are_counted_by_subnet_and_network() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/29").await;
    let pools = json!({ "allocation_pools": [{ "start": "192.0.2.3", "end": "192.0.2.5" }] });
    admin.update("subnet", &subnet["id"], pools).await.ok();
    let port = json!({ "network_id": network["id"] });
    admin.create("port", port.clone()).await;
    let mut outside = port;
    outside["fixed_ips"] = json!([{ "ip_address": "192.0.2.6" }]);
    admin.create("port", outside).await;
    let path = format!("/v2.0/network-ip-availabilities/{}", text(&network["id"]));
    let answer = admin.get(&path).await.ok()["network_ip_availability"].clone();
    let details = json!({
        "total_ips_in_subnet": 6,
        "total_ips_in_allocation_pool": 3,
        "used_ips_in_subnet": 2,
        "used_ips_in_allocation_pool": 1,
    });
    let expected = json!({
        "network_id": network["id"],
        "network_name": "n",
        "project_id": admin.project_id,
        "tenant_id": admin.project_id,
        "total_ips": 3,
        "used_ips": 2,
        "ip_availability_details": details,
        "subnet_ip_availability": [{
            "subnet_id": subnet["id"],
            "subnet_name": subnet["name"],
            "cidr": "192.0.2.0/29",
            "ip_version": 4,
            "total_ips": 3,
            "used_ips": 2,
            "ip_availability_details": details,
        }],
    });
    assert_eq!(answer, expected);
    let fields = admin.get(&format!("{path}?fields=used_ips")).await.ok();
    assert_eq!(fields["network_ip_availability"], json!({ "used_ips": 2 }));
}

#[tokio::test]
async fn ipv6_is_larger_than_numbers_usually_are() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({ "name": "six" })).await;
    let body = json!({ "network_id": network["id"], "ip_version": 6, "cidr": "fd00:1::/48" });
    admin.create("subnet", body).await;
    admin.network_with_subnet("four", "192.0.2.0/24").await;
    let path = "/v2.0/network-ip-availabilities?ip_version=6";
    let answer = admin.get(path).await.ok();
    let list = answer["network_ip_availabilities"]
        .as_array()
        .expect("a list")
        .clone();
    assert_eq!(list.len(), 1, "{answer}");
    // 2^80 less the gateway and the subnet-router anycast address, which no 64-bit number holds.
    let total = list[0]["total_ips"].as_f64().expect("a number");
    assert!((total / 2_f64.powi(80) - 1.0).abs() < 1e-9, "{total}");
}

#[tokio::test]
async fn only_administrators_see_it() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let network = member.create("network", json!({})).await;
    let all = "/v2.0/network-ip-availabilities";
    let one = format!("{all}/{}", text(&network["id"]));
    assert_eq!(
        member.get(all).await.ok()["network_ip_availabilities"],
        Value::Array(Vec::new())
    );
    member.get(&one).await.error(404, "NetworkNotFound");
    admin.get(&one).await.ok();
    let nowhere = format!("{all}/00000000-0000-4000-8000-000000000000");
    admin.get(&nowhere).await.error(404, "NetworkNotFound");
    for query in ["nonsense=1", "total_ips=1", "ip_version=x"] {
        admin
            .get(&format!("{all}?{query}"))
            .await
            .error(400, "HTTPBadRequest");
    }
    for query in ["network_name=x", "network_id=x", "project_id=x"] {
        let answer = admin.get(&format!("{all}?{query}")).await.ok();
        assert_eq!(answer["network_ip_availabilities"], json!([]), "{query}");
    }
}
