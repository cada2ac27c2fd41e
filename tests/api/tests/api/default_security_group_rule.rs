//! What new security groups begin with: rules, and whether they keep state.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session};

async fn rules(session: &Session, group: &Value) -> usize {
    let query = format!("security_group_id={}", group["id"].as_str().expect("an id"));
    session.list("security_group_rule", &query).await.len()
}

#[tokio::test]
async fn templates_become_rules_of_groups_that_are_made_later() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let before = member.create("security_group", json!({ "name": "g" })).await;
    assert_eq!(admin.list("default_security_group_rule", "").await.len(), 4);
    let ssh = json!({
        "direction": "ingress",
        "protocol": "tcp",
        "port_range_min": 22,
        "port_range_max": 22,
        "remote_group_id": "PARENT",
        "description": "ssh",
    });
    let refused = member
        .create_refused("default_security_group_rule", ssh.clone())
        .await;
    refused.error(403, "PolicyNotAuthorized");
    let template = admin.create("default_security_group_rule", ssh.clone()).await;
    assert_eq!(template["used_in_default_sg"], false);
    assert_eq!(template["used_in_non_default_sg"], true);
    assert!(template.get("project_id").is_none(), "{template}");
    let refused = admin.create_refused("default_security_group_rule", ssh).await;
    refused.error(409, "DefaultSecurityGroupRuleExists");
    assert_eq!(rules(&member, &before).await, 2);
    let after = member.create("security_group", json!({ "name": "h" })).await;
    let made = after["security_group_rules"].as_array().expect("a list");
    let rule = made.iter().find(|rule| rule["protocol"] == "tcp");
    let rule = rule.expect("the rule of the template");
    assert_eq!(rule["remote_group_id"], after["id"]);
    assert_eq!(rule["description"], "ssh");
    assert_eq!(made.len(), 3);
    let shown = member.list("default_security_group_rule", "used_in_default_sg=True").await;
    assert_eq!(shown.len(), 4);
    for template in admin.list("default_security_group_rule", "").await {
        let gone = admin.remove("default_security_group_rule", &template["id"]).await;
        assert_eq!(gone.status, 204);
    }
    let bare = member.create("security_group", json!({ "name": "i" })).await;
    assert_eq!(bare["security_group_rules"], json!([]));
}

#[tokio::test]
async fn templates_are_checked_as_rules_are() {
    let api = Api::start().await;
    let admin = api.admin().await;
    for (more, status, kind) in [
        (json!({ "protocol": "nonsense" }), 400, "SecurityGroupRuleInvalidProtocol"),
        (json!({ "remote_group_id": "nothing" }), 404, "SecurityGroupNotFound"),
        (json!({ "remote_address_group_id": "nothing" }), 404, "AddressGroupNotFound"),
        (json!({ "remote_ip_prefix": "fd00::/8" }), 400, "SecurityGroupRuleParameterConflict"),
    ] {
        let mut template = json!({ "direction": "ingress" });
        let object = template.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        let refused = admin.create_refused("default_security_group_rule", template).await;
        refused.error(status, kind);
    }
}

#[tokio::test]
async fn a_quota_of_rules_bounds_what_a_group_begins_with() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let path = format!("/v2.0/quotas/{}", member.project_id);
    let quota = json!({ "quota": { "security_group_rule": 5 } });
    admin.put(&path, &quota).await.ok();
    let refused = member.create_refused("security_group", json!({ "name": "g" })).await;
    refused.error(409, "OverQuota");
    assert_eq!(member.list("security_group", "name=g").await.len(), 0);
}

#[tokio::test]
async fn statefulness_has_defaults_for_a_project_and_for_all() {
    const PATH: &str = "/v2.0/security-groups-default-statefulness";
    const NAME: &str = "security_groups_default_statefulness";
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let stateful = async |session: &Session| {
        let group = session.create("security_group", json!({ "name": "g" })).await;
        group["stateful"].clone()
    };
    assert_eq!(stateful(&member).await, true);
    let all = json!({ NAME: { "project_id": null, "stateful": false } });
    assert_eq!(member.post(PATH, &all).await.status, 400);
    let all = admin.post(PATH, &all).await.expect(201)[NAME].clone();
    assert_eq!(all["project_id"], Value::Null);
    let own = json!({ NAME: { "project_id": member.project_id, "stateful": true } });
    member.post(PATH, &own).await.error(403, "PolicyNotAuthorized");
    let made = admin.post(PATH, &own).await.expect(201)[NAME].clone();
    let twice = admin.post(PATH, &own).await;
    twice.error(409, "SecurityGroupDefaultStatefulnessAlreadyExists");
    assert_eq!(stateful(&member).await, true);
    assert_eq!(stateful(&other).await, false);
    let seen = member.get(PATH).await.ok()[NAME].clone();
    assert_eq!(seen, json!([made]));
    let one = |row: &Value| format!("{PATH}/{}", row["id"].as_str().expect("an id"));
    assert_eq!(other.get(&one(&made)).await.status, 404);
    let change = json!({ NAME: { "stateful": false } });
    let changed = admin.put(&one(&made), &change).await.ok();
    assert_eq!(changed[NAME]["stateful"], false);
    assert_eq!(stateful(&member).await, false);
    for row in [made, all] {
        assert_eq!(admin.delete(&one(&row)).await.status, 204);
    }
    assert_eq!(stateful(&member).await, true);
}
