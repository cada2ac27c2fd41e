//! Metering labels and their rules.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

const LABELS: &str = "/v2.0/metering/metering-labels";
const RULES: &str = "/v2.0/metering/metering-label-rules";

async fn label(session: &Session) -> Value {
    let new = json!({ "metering_label": { "name": "web" } });
    session.post(LABELS, &new).await.expect(201)["metering_label"]["id"].clone()
}

async fn rule(session: &Session, label: &Value, more: Value) -> Answer {
    let mut new = json!({ "metering_label_id": label, "direction": "ingress" });
    new.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let new = json!({ "metering_label_rule": new });
    session.post(RULES, &new).await
}

#[tokio::test]
async fn rules_say_what_a_label_counts() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let label = label(&admin).await;
    let made = rule(&admin, &label, json!({ "remote_ip_prefix": "10.0.0.0/24" })).await;
    assert_eq!(made.warning(), "");
    let made = made.expect(201)["metering_label_rule"].clone();
    assert_eq!(made["excluded"], false);
    for (more, status, kind) in [
        (
            json!({ "remote_ip_prefix": "10.0.0.128/25" }),
            409,
            "MeteringLabelRuleOverlaps",
        ),
        (json!({}), 400, "Invalid"),
        (
            json!({ "remote_ip_prefix": "fd00::/64", "source_ip_prefix": "fd01::/64" }),
            400,
            "Invalid",
        ),
        (json!({ "source_ip_prefix": "web" }), 400, "HTTPBadRequest"),
        (
            json!({ "metering_label_id": made["id"], "source_ip_prefix": "fd00::1" }),
            404,
            "MeteringLabelNotFound",
        ),
    ] {
        rule(&admin, &label, more).await.error(status, kind);
    }
    let ends = json!({ "source_ip_prefix": "10.0.0.0/24", "destination_ip_prefix": "10.1.0.1" });
    rule(&admin, &label, ends).await.expect(201);
    let list = admin
        .get(&format!("{RULES}?metering_label_id={}", text(&label)))
        .await
        .ok();
    assert_eq!(
        list["metering_label_rules"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(
        admin
            .delete(&format!("{LABELS}/{}", text(&label)))
            .await
            .status,
        204
    );
    let gone = admin.get(&format!("{RULES}/{}", text(&made["id"]))).await;
    gone.error(404, "MeteringLabelRuleNotFound");
}

#[tokio::test]
async fn members_only_read_their_own() {
    let api = Api::start().await;
    let (manager, member) = (
        api.user("p1", "manager").await,
        api.user("p1", "member").await,
    );
    let other = api.user("p2", "manager").await;
    let new = json!({ "metering_label": {} });
    member
        .post(LABELS, &new)
        .await
        .error(403, "PolicyNotAuthorized");
    let label = label(&manager).await;
    let path = format!("{LABELS}/{}", text(&label));
    assert_eq!(member.get(&path).await.status, 200);
    member.delete(&path).await.error(403, "PolicyNotAuthorized");
    other.get(&path).await.error(404, "MeteringLabelNotFound");
    let refused = rule(&other, &label, json!({ "source_ip_prefix": "10.0.0.1" })).await;
    refused.error(404, "MeteringLabelNotFound");
    assert_eq!(manager.delete(&path).await.status, 204);
}
