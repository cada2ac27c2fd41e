//! Logs: what they name must be there, and they go with it; all engines write them, and the answer warns of nothing.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

const PATH: &str = "/v2.0/log/logs";

#[tokio::test]
async fn a_log_lives_as_long_as_its_group() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let group = admin.create("security_group", json!({ "name": "g" })).await;
    let log = json!({ "log": { "name": "l", "resource_type": "security_group", "resource_id": group["id"] } });
    member
        .post(PATH, &log)
        .await
        .error(403, "PolicyNotAuthorized");
    let made = admin.post(PATH, &log).await;
    assert_eq!(made.warning(), "");
    let log = made.expect(201)["log"].clone();
    assert_eq!(log["event"], "ALL");
    let one = format!("{PATH}/{}", text(&log["id"]));
    assert_eq!(member.get(&one).await.status, 404);
    assert_eq!(member.get(PATH).await.ok()["logs"], json!([]));
    let change = json!({ "log": { "enabled": false } });
    let changed = admin.put(&one, &change).await;
    assert_eq!(changed.warning(), "");
    assert_eq!(changed.ok()["log"]["enabled"], false);
    assert_eq!(
        admin.remove("security_group", &group["id"]).await.status,
        204
    );
    admin.get(&one).await.error(404, "LogResourceNotFound");
}

#[tokio::test]
async fn what_a_log_names_is_checked() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let nothing = "00000000-0000-4000-8000-000000000000";
    let group = admin.create("security_group", json!({ "name": "g" })).await;
    let network = admin.create("network", json!({ "name": "n" })).await;
    let port = admin
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    for (more, status, kind) in [
        (
            json!({ "resource_type": "nonsense" }),
            400,
            "InvalidLogResourceType",
        ),
        (json!({ "resource_id": nothing }), 404, "ResourceNotFound"),
        (
            json!({ "target_id": nothing }),
            404,
            "TargetResourceNotFound",
        ),
        (
            json!({ "resource_id": group["id"], "target_id": port["id"] }),
            400,
            "InvalidResourceConstraint",
        ),
        (json!({ "event": "NONSENSE" }), 400, "HTTPBadRequest"),
    ] {
        let mut log = json!({ "resource_type": "security_group" });
        let object = log.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        admin
            .post(PATH, &json!({ "log": log }))
            .await
            .error(status, kind);
    }
    let types = admin.get("/v2.0/log/loggable-resources").await.ok();
    assert_eq!(
        types,
        json!({ "loggable_resources": [{ "type": "security_group" }] })
    );
    let member = api.user("p1", "member").await;
    let refused = member.get("/v2.0/log/loggable-resources").await;
    refused.error(403, "PolicyNotAuthorized");
    let _: Value = admin.get(PATH).await.ok();
}
