//! Security groups and rules.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

#[tokio::test]
async fn every_project_has_a_default_group_with_four_rules() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let groups = member.list("security_group", "").await;
    assert_eq!(groups.len(), 1);
    let group = &groups[0];
    assert_eq!(group["name"], "default");
    let rules = group["security_group_rules"].as_array().expect("a list");
    let mut shapes: Vec<(String, String, Value)> = rules
        .iter()
        .map(|r| {
            (
                text(&r["direction"]),
                text(&r["ethertype"]),
                r["remote_group_id"].clone(),
            )
        })
        .collect();
    shapes.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    let id = &group["id"];
    let expected = [
        ("egress", "IPv4", &Value::Null),
        ("egress", "IPv6", &Value::Null),
        ("ingress", "IPv4", id),
        ("ingress", "IPv6", id),
    ];
    for (have, want) in shapes.iter().zip(expected) {
        assert_eq!((have.0.as_str(), have.1.as_str(), &have.2), want);
    }
    member
        .remove("security_group", id)
        .await
        .error(409, "SecurityGroupCannotRemoveDefault");
    let renamed = member
        .update("security_group", id, json!({ "name": "x" }))
        .await;
    renamed.error(409, "SecurityGroupCannotUpdateDefault");
    let second = member
        .create_refused("security_group", json!({ "name": "default" }))
        .await;
    second.error(409, "SecurityGroupDefaultAlreadyExists");
}

#[tokio::test]
async fn rules_are_checked_and_written_once() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let group = member
        .create("security_group", json!({ "name": "web" }))
        .await;
    assert_eq!(
        group["security_group_rules"]
            .as_array()
            .expect("a list")
            .len(),
        2
    );
    let rule = |more: Value| {
        let mut rule = json!({ "security_group_id": group["id"], "direction": "ingress" });
        let rule_object = rule.as_object_mut().expect("an object");
        rule_object.extend(more.as_object().expect("an object").clone());
        rule
    };
    let ssh = json!({ "protocol": "tcp", "port_range_min": 22, "port_range_max": 22 });
    let made = member
        .create("security_group_rule", rule(ssh.clone()))
        .await;
    assert_eq!(made["ethertype"], "IPv4");
    let same = json!({ "protocol": 6, "port_range_min": "22", "port_range_max": 22, "remote_ip_prefix": "0.0.0.0/0" });
    let refused = member
        .create_refused("security_group_rule", rule(same))
        .await;
    assert!(
        refused
            .error(409, "SecurityGroupRuleExists")
            .contains(&text(&made["id"]))
    );
    let range = rule(json!({ "remote_ip_prefix": "192.0.2.9/24" }));
    let range = member.create("security_group_rule", range).await;
    assert_eq!(range["normalized_cidr"], "192.0.2.0/24");
    assert_eq!(range["remote_ip_prefix"], "192.0.2.9/24");
    for (more, kind) in [
        (
            json!({ "protocol": "tcp", "port_range_min": 22 }),
            "SecurityGroupInvalidPortRange",
        ),
        (
            json!({ "protocol": "icmp", "port_range_max": 1 }),
            "SecurityGroupMissingIcmpType",
        ),
        (
            json!({ "protocol": "nonsense" }),
            "SecurityGroupRuleInvalidProtocol",
        ),
        (
            json!({ "protocol": 41 }),
            "SecurityGroupEthertypeConflictWithProtocol",
        ),
        (
            json!({ "port_range_min": 1, "port_range_max": 2 }),
            "SecurityGroupProtocolRequiredWithPorts",
        ),
        (
            json!({ "protocol": "tcp", "port_range_min": 1, "port_range_max": 65536 }),
            "SecurityGroupInvalidPortValue",
        ),
        (
            json!({ "remote_ip_prefix": "fd00::/64" }),
            "SecurityGroupRuleParameterConflict",
        ),
        (
            json!({ "remote_ip_prefix": "10.0.0.0/8", "remote_group_id": group["id"] }),
            "SecurityGroupMultipleRemoteEntites",
        ),
        (
            json!({ "protocol": "ipv6-icmp" }),
            "SecurityGroupEthertypeConflictWithProtocol",
        ),
        (json!({ "direction": "sideways" }), "HTTPBadRequest"),
    ] {
        member
            .create_refused("security_group_rule", rule(more))
            .await
            .error(400, kind);
    }
    let by_protocol = member.list("security_group_rule", "protocol=tcp").await;
    assert_eq!(by_protocol.len(), 1);
    assert_eq!(
        member
            .remove("security_group_rule", &made["id"])
            .await
            .status,
        204
    );
    member.create("security_group_rule", rule(ssh)).await;
}

#[tokio::test]
async fn a_group_in_use_stays_and_others_are_hidden() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let network = member.create("network", json!({})).await;
    let group = member
        .create("security_group", json!({ "name": "g" }))
        .await;
    let port = json!({ "network_id": network["id"], "security_groups": [group["id"]] });
    let port = member.create("port", port).await;
    member
        .remove("security_group", &group["id"])
        .await
        .error(409, "SecurityGroupInUse");
    let stateless = member
        .update("security_group", &group["id"], json!({ "stateful": false }))
        .await;
    stateless.error(409, "SecurityGroupInUse");
    let path = format!("/v2.0/security-groups/{}", text(&group["id"]));
    other.get(&path).await.error(404, "SecurityGroupNotFound");
    let rule = json!({ "security_group_id": group["id"], "direction": "ingress" });
    let refused = other.create_refused("security_group_rule", rule).await;
    refused.error(404, "SecurityGroupNotFound");
    let theirs = other.create("network", json!({})).await;
    let borrowed = json!({ "network_id": theirs["id"], "security_groups": [group["id"]] });
    other
        .create_refused("port", borrowed)
        .await
        .error(404, "SecurityGroupNotFound");
    assert_eq!(member.remove("port", &port["id"]).await.status, 204);
    assert_eq!(
        member.remove("security_group", &group["id"]).await.status,
        204
    );
}

#[tokio::test]
async fn rules_made_together_are_of_one_group_and_one_project() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let mut groups = Vec::new();
    for name in ["a", "b"] {
        groups.push(
            admin
                .create("security_group", json!({ "name": name }))
                .await["id"]
                .clone(),
        );
    }
    let rule = |group: &Value, port: u16| {
        json!({
            "security_group_id": group, "direction": "ingress", "protocol": "tcp",
            "port_range_min": port, "port_range_max": port,
        })
    };
    let path = "/v2.0/security-group-rules";
    let of_two = json!({ "security_group_rules": [rule(&groups[0], 1), rule(&groups[1], 2)] });
    let refused = admin.post(path, &of_two).await;
    refused.error(400, "SecurityGroupNotSingleGroupRules");
    let mut other = rule(&groups[0], 2);
    other["project_id"] = json!("p9");
    let of_two = json!({ "security_group_rules": [rule(&groups[0], 1), other] });
    let refused = admin.post(path, &of_two).await;
    refused.error(400, "SecurityGroupRulesNotSingleTenant");
    let of_one = json!({ "security_group_rules": [rule(&groups[0], 1), rule(&groups[0], 2)] });
    let made = admin.post(path, &of_one).await.expect(201);
    assert_eq!(
        made["security_group_rules"].as_array().map(Vec::len),
        Some(2)
    );
}
