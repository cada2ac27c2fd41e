//! RBAC policies: what they open, who may make them, and that none is taken away while it is needed.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

fn share(kind: &str, object: &Value, target: &str) -> Value {
    json!({
        "object_type": kind,
        "object_id": object["id"],
        "action": "access_as_shared",
        "target_tenant": target,
    })
}

async fn show_status(session: &Session, path: &str, object: &Value) -> u16 {
    let path = format!("/v2.0/{path}/{}", text(&object["id"]));
    session.get(&path).await.status
}

#[tokio::test]
async fn a_shared_object_is_seen_and_used_until_it_is_not_needed_any_more() {
    let api = Api::start().await;
    let owner = api.user("p1", "member").await;
    let guest = api.user("p2", "member").await;
    let network = owner.create("network", json!({ "name": "n" })).await;
    assert_eq!(show_status(&guest, "networks", &network).await, 404);
    let policy = share("network", &network, &guest.project_id);
    let policy = owner.create("rbac_policy", policy.clone()).await;
    assert_eq!(policy["project_id"], json!(owner.project_id));
    let seen = guest.show("network", &network["id"]).await;
    assert_eq!(seen["shared"], true);
    assert_eq!(owner.show("network", &network["id"]).await["shared"], false);
    // The guest sees the network, and not the policy that opens it.
    assert_eq!(show_status(&guest, "rbac-policies", &policy).await, 404);
    assert_eq!(guest.list("rbac_policy", "").await.len(), 0);
    assert_eq!(guest.remove("rbac_policy", &policy["id"]).await.status, 404);
    let port = json!({ "network_id": network["id"] });
    let port = guest.create("port", port).await;
    owner
        .remove("rbac_policy", &policy["id"])
        .await
        .error(409, "RbacPolicyInUse");
    let elsewhere = json!({ "target_tenant": "another" });
    owner
        .update("rbac_policy", &policy["id"], elsewhere.clone())
        .await
        .error(409, "RbacPolicyInUse");
    assert_eq!(guest.remove("port", &port["id"]).await.status, 204);
    let moved = owner
        .update("rbac_policy", &policy["id"], elsewhere)
        .await
        .ok();
    assert_eq!(moved["rbac_policy"]["target_tenant"], "another");
    assert_eq!(show_status(&guest, "networks", &network).await, 404);
    assert_eq!(owner.remove("rbac_policy", &policy["id"]).await.status, 204);
}

#[tokio::test]
async fn only_admins_share_with_all_and_nobody_shares_what_is_not_theirs() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let owner = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let network = owner.create("network", json!({ "name": "n" })).await;
    let to_all = share("network", &network, "*");
    let refused = owner.create_refused("rbac_policy", to_all.clone()).await;
    refused.error(403, "PolicyNotAuthorized");
    let theirs = share("network", &network, &other.project_id);
    let refused = other.create_refused("rbac_policy", theirs.clone()).await;
    let foreign = refused.error(400, "InvalidInput");
    // Whether there is such an object must not show.
    let nothing = json!({ "id": "00000000-0000-4000-8000-000000000000" });
    let missing = share("network", &nothing, &other.project_id);
    let refused = other.create_refused("rbac_policy", missing).await;
    let missing = refused.error(400, "InvalidInput");
    assert_eq!(
        missing.replace(&text(&nothing["id"]), ""),
        foreign.replace(&text(&network["id"]), "")
    );
    let policy = owner.create("rbac_policy", theirs.clone()).await;
    let refused = owner.create_refused("rbac_policy", theirs).await;
    refused.error(409, "DuplicateRbacPolicy");
    let widened = json!({ "target_tenant": "*" });
    let refused = owner.update("rbac_policy", &policy["id"], widened).await;
    refused.error(403, "PolicyNotAuthorized");
    admin.create("rbac_policy", to_all).await;
    for (attribute, value, kind) in [
        ("object_type", json!("nonsense"), "InvalidInput"),
        (
            "action",
            json!("access_as_nonsense"),
            "RbacPolicyInvalidAction",
        ),
        ("target_tenant", json!(""), "HTTPBadRequest"),
        ("target_tenant", Value::Null, "HTTPBadRequest"),
        ("object_id", json!("x"), "HTTPBadRequest"),
    ] {
        let mut policy = share("network", &network, "p9");
        policy[attribute] = value;
        let refused = admin.create_refused("rbac_policy", policy).await;
        refused.error(400, kind);
    }
}

#[tokio::test]
async fn a_network_is_external_as_long_as_a_policy_says_so() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let network = admin.create("network", json!({ "name": "n" })).await;
    let subnet = json!({ "network_id": network["id"], "ip_version": 4, "cidr": "203.0.113.0/24" });
    admin.create("subnet", subnet).await;
    let external = |target: &str| {
        let mut policy = share("network", &network, target);
        policy["action"] = json!("access_as_external");
        policy
    };
    let gateway = json!({ "external_gateway_info": { "network_id": network["id"] } });
    let refused = member.create_refused("router", gateway.clone()).await;
    assert_eq!(refused.status, 404, "{}", refused.body);
    let policy = admin
        .create("rbac_policy", external(&member.project_id))
        .await;
    let shown = admin.show("network", &network["id"]).await;
    assert_eq!(shown["router:external"], true);
    let router = member.create("router", gateway).await;
    let refused = admin.remove("rbac_policy", &policy["id"]).await;
    refused.error(409, "RbacPolicyInUse");
    // With one for all, the first is not needed any more, but then the second is.
    let to_all = admin.create("rbac_policy", external("*")).await;
    assert_eq!(admin.remove("rbac_policy", &policy["id"]).await.status, 204);
    let refused = admin.remove("rbac_policy", &to_all["id"]).await;
    refused.error(409, "RbacPolicyInUse");
    assert_eq!(member.remove("router", &router["id"]).await.status, 204);
    assert_eq!(admin.remove("rbac_policy", &to_all["id"]).await.status, 204);
    let shown = admin.show("network", &network["id"]).await;
    assert_eq!(shown["router:external"], false);
}

#[tokio::test]
async fn a_shared_security_group_is_for_ports_of_others_too() {
    let api = Api::start().await;
    let owner = api.user("p1", "member").await;
    let guest = api.user("p2", "member").await;
    let group = owner.create("security_group", json!({ "name": "g" })).await;
    let network = guest.create("network", json!({ "name": "n" })).await;
    let port = json!({ "network_id": network["id"], "security_groups": [group["id"]] });
    let refused = guest.create_refused("port", port.clone()).await;
    refused.error(404, "SecurityGroupNotFound");
    let policy = share("security_group", &group, &guest.project_id);
    let policy = owner.create("rbac_policy", policy).await;
    let shared = guest.list("security_group", "shared=True").await;
    assert_eq!((shared.len(), &shared[0]["id"]), (1, &group["id"]));
    let rename = json!({ "name": "mine" });
    let refused = guest.update("security_group", &group["id"], rename).await;
    refused.error(403, "PolicyNotAuthorized");
    let rule = json!({ "security_group_id": group["id"], "direction": "ingress" });
    let refused = guest.create_refused("security_group_rule", rule).await;
    assert!([403, 404].contains(&refused.status), "{}", refused.body);
    let port = guest.create("port", port).await;
    let refused = owner.remove("rbac_policy", &policy["id"]).await;
    refused.error(409, "RbacPolicyInUse");
    assert_eq!(guest.remove("port", &port["id"]).await.status, 204);
    assert_eq!(owner.remove("rbac_policy", &policy["id"]).await.status, 204);
}
