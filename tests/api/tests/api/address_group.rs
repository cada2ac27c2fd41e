//! Address groups: their ranges, and the rules that refer to them.

use serde_json::{Value, json};
use weft_model::limits::ADDRESS_GROUP_ADDRESSES_MAX;
use weft_tests_api::{Answer, Api, Session, text};

async fn change(session: &Session, group: &Value, verb: &str, addresses: Value) -> Answer {
    let path = format!("/v2.0/address-groups/{}/{verb}", text(&group["id"]));
    session.put(&path, &json!({ "addresses": addresses })).await
}

#[tokio::test]
async fn ranges_are_normalized_and_changed_one_by_one() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let group =
        json!({ "name": "a", "addresses": ["192.168.0.10/24", "10.0.0.3/32", "2001:db8::f/64"] });
    let group = member.create("address_group", group).await;
    let expected = json!(["10.0.0.3/32", "192.168.0.0/24", "2001:db8::/64"]);
    assert_eq!(group["addresses"], expected);
    let more = change(&member, &group, "add_addresses", json!(["198.51.100.1/32"])).await;
    let more = more.ok();
    let have = more["address_group"]["addresses"]
        .as_array()
        .expect("a list");
    assert_eq!(have.len(), 4);
    let again = change(&member, &group, "add_addresses", json!(["10.0.0.3/32"])).await;
    again.error(400, "AddressesAlreadyExist");
    let less = change(
        &member,
        &group,
        "remove_addresses",
        json!(["198.51.100.1", "10.0.0.3"]),
    )
    .await;
    assert_eq!(
        less.ok()["address_group"]["addresses"],
        json!(["192.168.0.0/24", "2001:db8::/64"])
    );
    let missing = change(
        &member,
        &group,
        "remove_addresses",
        json!(["10.200.200.200"]),
    )
    .await;
    missing.error(404, "AddressesNotFound");
    for bad in [
        json!(["nonsense"]),
        json!("10.0.0.0/8"),
        json!([7]),
        Value::Null,
    ] {
        for verb in ["add_addresses", "remove_addresses"] {
            let refused = change(&member, &group, verb, bad.clone()).await;
            assert!(refused.error(400, "HTTPBadRequest").contains("addresses"));
        }
    }
    let bare = member
        .create_refused("address_group", json!({ "addresses": ["10.20.30.40"] }))
        .await;
    bare.error(400, "HTTPBadRequest");
    let shown = member.show("address_group", &group["id"]).await;
    assert_eq!(shown["revision_number"], 3);
}

#[tokio::test]
async fn a_group_has_a_bound() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let ranges = |count: usize| -> Vec<String> {
        (0..count)
            .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
            .collect()
    };
    let full = json!({ "addresses": ranges(ADDRESS_GROUP_ADDRESSES_MAX) });
    let group = member.create("address_group", full).await;
    let over = json!({ "addresses": ranges(ADDRESS_GROUP_ADDRESSES_MAX + 1) });
    let refused = member.create_refused("address_group", over).await;
    refused.error(400, "HTTPBadRequest");
    let refused = change(&member, &group, "add_addresses", json!(["192.0.2.0/24"])).await;
    refused.error(400, "InvalidInput");
}

#[tokio::test]
async fn rules_refer_to_groups_that_they_may_see() {
    let api = Api::start().await;
    let owner = api.user("p1", "member").await;
    let guest = api.user("p2", "member").await;
    let group = json!({ "name": "a", "addresses": ["192.0.2.0/24"] });
    let group = owner.create("address_group", group).await;
    let own = guest.create("security_group", json!({ "name": "g" })).await;
    let rule = json!({
        "security_group_id": own["id"],
        "direction": "ingress",
        "remote_address_group_id": group["id"],
    });
    let refused = guest
        .create_refused("security_group_rule", rule.clone())
        .await;
    refused.error(404, "AddressGroupNotFound");
    let policy = json!({
        "object_type": "address_group",
        "object_id": group["id"],
        "action": "access_as_shared",
        "target_tenant": guest.project_id,
    });
    let policy = owner.create("rbac_policy", policy).await;
    assert_eq!(
        guest.show("address_group", &group["id"]).await["shared"],
        true
    );
    let refused = guest
        .update("address_group", &group["id"], json!({ "name": "mine" }))
        .await;
    refused.error(404, "AddressGroupNotFound");
    let refused = change(&guest, &group, "add_addresses", json!(["10.0.0.0/8"])).await;
    refused.error(404, "AddressGroupNotFound");
    let made = guest.create("security_group_rule", rule.clone()).await;
    assert_eq!(made["remote_address_group_id"], group["id"]);
    let mut both = rule;
    both["remote_ip_prefix"] = json!("10.0.0.0/8");
    let refused = guest.create_refused("security_group_rule", both).await;
    refused.error(400, "SecurityGroupMultipleRemoteEntites");
    let refused = owner.remove("rbac_policy", &policy["id"]).await;
    refused.error(409, "RbacPolicyInUse");
    let refused = owner.remove("address_group", &group["id"]).await;
    refused.error(409, "AddressGroupInUse");
    let gone = guest.remove("security_group_rule", &made["id"]).await;
    assert_eq!(gone.status, 204);
    assert_eq!(
        owner.remove("address_group", &group["id"]).await.status,
        204
    );
    // With the object its policies go.
    let shown = format!("/v2.0/rbac-policies/{}", text(&policy["id"]));
    assert_eq!(owner.get(&shown).await.status, 404);
}
