//! QoS: policies, their rules, who is under which, and what that asks of the scheduler.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

const POLICIES: &str = "/v2.0/qos/policies";

async fn policy(session: &Session, attributes: Value) -> Value {
    let made = session
        .post(POLICIES, &json!({ "policy": attributes }))
        .await;
    made.expect(201)["policy"].clone()
}

fn path(policy: &Value) -> String {
    format!("{POLICIES}/{}", text(&policy["id"]))
}

async fn rule(session: &Session, policy: &Value, kind: &str, attributes: Value) -> Answer {
    let rules = format!("{}/{kind}s", path(policy));
    session.post(&rules, &json!({ kind: attributes })).await
}

#[tokio::test]
async fn policies_are_their_projects_until_shared() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (member, other) = (
        api.user("p1", "member").await,
        api.user("p2", "reader").await,
    );
    let refused = member.post(POLICIES, &json!({ "policy": {} })).await;
    refused.error(403, "PolicyNotAuthorized");
    let gold = policy(
        &admin,
        json!({ "name": "gold", "project_id": member.project_id }),
    )
    .await;
    assert_eq!(member.get(&path(&gold)).await.ok()["policy"], gold);
    let change = json!({ "policy": { "name": "x" } });
    let refused = member.put(&path(&gold), &change).await;
    refused.error(403, "PolicyNotAuthorized");
    other
        .get(&path(&gold))
        .await
        .error(404, "QosPolicyNotFound");
    let refused = other.put(&path(&gold), &change).await;
    refused.error(404, "QosPolicyNotFound");
    assert_eq!(other.get(POLICIES).await.ok()["policies"], json!([]));

    let share = json!({ "policy": { "shared": true } });
    admin.put(&path(&gold), &share).await.ok();
    let seen = other.get(&path(&gold)).await.ok();
    assert_eq!(seen["policy"]["shared"], true);
    let list = other.get(&format!("{POLICIES}?shared=true")).await.ok();
    assert_eq!(list["policies"].as_array().unwrap().len(), 1);
    // The rules stay the owner's.
    let rules = format!("{}/bandwidth_limit_rules", path(&gold));
    assert_eq!(
        other.get(&rules).await.ok()["bandwidth_limit_rules"],
        json!([])
    );
    let new = json!({ "max_kbps": 1 });
    let refused = rule(&other, &gold, "bandwidth_limit_rule", new).await;
    refused.error(403, "PolicyNotAuthorized");
}

#[tokio::test]
async fn rules_are_changes_of_their_policy_and_have_a_path_of_their_own() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let gold = policy(&admin, json!({ "name": "gold" })).await;
    let limit = json!({ "max_kbps": "1000", "max_burst_kbps": 800 });
    let limit = rule(&admin, &gold, "bandwidth_limit_rule", limit).await;
    let limit = limit.expect(201)["bandwidth_limit_rule"].clone();
    assert_eq!(
        limit,
        json!({ "id": limit["id"], "max_kbps": 1000, "max_burst_kbps": 800, "direction": "egress" })
    );
    let now = admin.get(&path(&gold)).await.ok()["policy"].clone();
    assert!(now["revision_number"].as_i64() > gold["revision_number"].as_i64());
    assert_eq!(
        now["rules"],
        json!([{
            "id": limit["id"], "type": "bandwidth_limit", "qos_policy_id": gold["id"],
            "max_kbps": 1000, "max_burst_kbps": 800, "direction": "egress",
        }])
    );

    let id = text(&limit["id"]);
    let alias = format!("/v2.0/qos/alias_bandwidth_limit_rules/{id}");
    let shown = admin.get(&alias).await.ok();
    assert_eq!(shown["alias_bandwidth_limit_rule"], limit);
    let change = json!({ "alias_bandwidth_limit_rule": { "direction": "ingress" } });
    admin.put(&alias, &change).await.ok();
    let nested = format!("{}/bandwidth_limit_rules/{id}", path(&gold));
    let shown = admin.get(&nested).await.ok();
    assert_eq!(shown["bandwidth_limit_rule"]["direction"], "ingress");
    // A rule is found under its own policy and its own type only.
    let silver = policy(&admin, json!({})).await;
    for wrong in [
        format!("{}/bandwidth_limit_rules/{id}", path(&silver)),
        format!("{}/packet_rate_limit_rules/{id}", path(&gold)),
        format!("/v2.0/qos/alias_dscp_marking_rules/{id}"),
    ] {
        admin.get(&wrong).await.error(404, "QosRuleNotFound");
    }
    let nowhere = format!("{POLICIES}/{id}/bandwidth_limit_rules");
    admin.get(&nowhere).await.error(404, "QosPolicyNotFound");
    admin.delete(&alias).await.expect(204);
    admin.get(&nested).await.error(404, "QosRuleNotFound");
}

#[tokio::test]
async fn rules_do_not_contradict_each_other() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let gold = policy(&admin, json!({})).await;
    let one = |kind: &'static str, attributes: Value| rule(&admin, &gold, kind, attributes);
    one("minimum_bandwidth_rule", json!({ "min_kbps": 100 }))
        .await
        .expect(201);
    let again = one("minimum_bandwidth_rule", json!({ "min_kbps": 1 })).await;
    again.error(409, "QoSRulesConflict");
    let below = one("bandwidth_limit_rule", json!({ "max_kbps": 99 })).await;
    below.error(409, "QoSRuleParameterConflict");
    one("bandwidth_limit_rule", json!({ "max_kbps": 100 }))
        .await
        .expect(201);
    let any = json!({ "min_kpps": 1, "direction": "any" });
    one("minimum_packet_rate_rule", any.clone())
        .await
        .expect(201);
    let some = one("minimum_packet_rate_rule", json!({ "min_kpps": 1 })).await;
    some.error(409, "QoSRuleParameterConflict");
    one("dscp_marking_rule", json!({ "dscp_mark": 46 }))
        .await
        .expect(201);
    for wrong in [
        ("dscp_marking_rule", json!({ "dscp_mark": 42 }), "dscp_mark"),
        ("bandwidth_limit_rule", json!({}), "max_kbps"),
        (
            "bandwidth_limit_rule",
            json!({ "max_kbps": 1, "direction": "any" }),
            "direction",
        ),
        (
            "packet_rate_limit_rule",
            json!({ "max_kpps": 2_147_483_648_i64 }),
            "max_kpps",
        ),
        ("dscp_marking_rule", json!({ "max_kbps": 1 }), "max_kbps"),
    ] {
        let message = one(wrong.0, wrong.1).await.error(400, "HTTPBadRequest");
        assert!(message.contains(wrong.2), "{message}");
    }
}

#[tokio::test]
async fn who_is_under_a_policy_keeps_it() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let secret = policy(&admin, json!({})).await;
    let gold = policy(&admin, json!({ "shared": true })).await;
    let (network, _) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let under =
        |policy: &Value| json!({ "network_id": network["id"], "qos_policy_id": policy["id"] });
    let refused = member.create_refused("port", under(&secret)).await;
    refused.error(404, "QosPolicyNotFound");
    let port = member.create("port", under(&gold)).await;
    assert_eq!(port["qos_policy_id"], gold["id"]);

    admin
        .delete(&path(&gold))
        .await
        .error(409, "QosPolicyInUse");
    let unshare = json!({ "policy": { "shared": false } });
    let refused = admin.put(&path(&gold), &unshare).await;
    refused.error(409, "RbacPolicyInUse");
    // What an administrator put on the network is not its owner's to take away.
    let hidden = json!({ "qos_policy_id": secret["id"] });
    admin.update("network", &network["id"], hidden).await.ok();
    let none = json!({ "qos_policy_id": null });
    let refused = member.update("network", &network["id"], none.clone()).await;
    refused.error(403, "PolicyNotAuthorized");
    let shown = member.show("port", &port["id"]).await;
    assert_eq!(shown["qos_network_policy_id"], secret["id"]);

    let changed = member.update("port", &port["id"], none.clone()).await.ok();
    assert_eq!(changed["port"]["qos_policy_id"], Value::Null);
    admin.put(&path(&gold), &unshare).await.ok();
    admin.delete(&path(&gold)).await.expect(204);
}

#[tokio::test]
async fn new_networks_get_the_projects_default() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let gold = policy(&admin, json!({ "is_default": true })).await;
    let second = json!({ "policy": { "is_default": true } });
    admin
        .post(POLICIES, &second)
        .await
        .error(409, "QoSPolicyDefaultAlreadyExists");
    let network = admin.create("network", json!({})).await;
    assert_eq!(network["qos_policy_id"], gold["id"]);
    let other = admin.create("network", json!({ "project_id": "p" })).await;
    assert_eq!(other["qos_policy_id"], Value::Null);
}

#[tokio::test]
async fn floating_ips_and_gateways_are_under_policies_too() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (external, _) = admin.external_network().await;
    let gold = policy(&admin, json!({})).await;
    let fip = json!({ "floating_network_id": external["id"], "qos_policy_id": gold["id"] });
    let fip = admin.create("floatingip", fip).await;
    assert_eq!(fip["qos_policy_id"], gold["id"]);
    let gateway = json!({ "network_id": external["id"], "qos_policy_id": gold["id"] });
    let router = json!({ "external_gateway_info": gateway });
    let router = admin.create("router", router).await;
    let info = &router["external_gateway_info"];
    assert_eq!(info["qos_policy_id"], gold["id"]);
    admin
        .delete(&path(&gold))
        .await
        .error(409, "QosPolicyInUse");

    let snat =
        json!({ "external_gateway_info": { "network_id": external["id"], "enable_snat": false } });
    let kept = admin.update("router", &router["id"], snat).await.ok();
    assert_eq!(
        kept["router"]["external_gateway_info"]["qos_policy_id"],
        gold["id"]
    );
    let none =
        json!({ "external_gateway_info": { "network_id": external["id"], "qos_policy_id": null } });
    admin.update("router", &router["id"], none).await.ok();
    let none = json!({ "qos_policy_id": null });
    admin.update("floatingip", &fip["id"], none).await.ok();
    admin.delete(&path(&gold)).await.expect(204);
}

#[tokio::test]
async fn promises_are_asked_of_the_scheduler_and_stay_while_a_guest_runs() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let gold = policy(&admin, json!({})).await;
    let promise = rule(
        &admin,
        &gold,
        "minimum_bandwidth_rule",
        json!({ "min_kbps": 7 }),
    )
    .await;
    let promise = promise.expect(201)["minimum_bandwidth_rule"].clone();
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let under = json!({ "qos_policy_id": gold["id"] });
    admin.update("network", &network["id"], under).await.ok();
    let port = json!({ "network_id": network["id"], "device_owner": "compute:nova" });
    let port = admin.create("port", port).await;
    let groups = &port["resource_request"]["request_groups"];
    assert_eq!(
        groups[0]["resources"],
        json!({ "NET_BW_EGR_KILOBIT_PER_SEC": 7 })
    );
    assert_eq!(
        groups[0]["required"],
        json!(["CUSTOM_NETWORK_TUNNEL_PROVIDER", "CUSTOM_VNIC_TYPE_NORMAL"])
    );
    let one = format!(
        "{}/minimum_bandwidth_rules/{}",
        path(&gold),
        text(&promise["id"])
    );
    let change = json!({ "minimum_bandwidth_rule": { "min_kbps": 8 } });
    admin
        .put(&one, &change)
        .await
        .error(501, "HTTPNotImplemented");
    admin.delete(&one).await.error(501, "HTTPNotImplemented");
    admin.remove("port", &port["id"]).await.expect(204);
    admin.put(&one, &change).await.ok();
}

#[tokio::test]
async fn rule_types_are_told_to_everybody_and_explained_to_administrators() {
    let api = Api::start().await;
    let reader = api.user("p1", "reader").await;
    let types = reader.get("/v2.0/qos/rule-types?all_rules=true").await.ok();
    assert_eq!(types["rule_types"].as_array().unwrap().len(), 5);
    let wrong = reader.get("/v2.0/qos/rule-types?nonsense=1").await;
    wrong.error(400, "HTTPBadRequest");
    let one = "/v2.0/qos/rule-types/dscp_marking";
    reader.get(one).await.error(403, "PolicyNotAuthorized");
    let shown = api.admin().await.get(one).await.ok();
    let parameters = &shown["rule_type"]["drivers"][0]["supported_parameters"];
    assert_eq!(
        parameters[0]["parameter_values"].as_array().unwrap().len(),
        22
    );
    let unknown = "/v2.0/qos/rule-types/latency";
    let unknown = api.admin().await.get(unknown).await;
    unknown.error(404, "QosRuleTypeNotFound");
}
