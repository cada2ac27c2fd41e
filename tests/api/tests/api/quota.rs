//! Quotas.

use serde_json::json;
use weft_tests_api::Api;

#[tokio::test]
async fn a_quota_holds_at_its_limit() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let path = format!("/v2.0/quotas/{}", member.project_id);
    assert_eq!(member.get(&path).await.ok()["quota"]["network"], 100);
    let change = json!({ "quota": { "network": 2, "port": -1 } });
    member
        .put(&path, &change)
        .await
        .error(403, "PolicyNotAuthorized");
    assert_eq!(admin.put(&path, &change).await.ok()["quota"]["network"], 2);
    member.create("network", json!({})).await;
    member.create("network", json!({})).await;
    let over = member
        .create_refused("network", json!({}))
        .await
        .error(409, "OverQuota");
    assert!(over.contains("network"), "{over}");
    let bulk = json!({ "networks": [{}, {}] });
    member
        .post("/v2.0/networks", &bulk)
        .await
        .error(409, "OverQuota");
    assert_eq!(member.list("network", "").await.len(), 2);
    let details = member.get(&format!("{path}/details")).await.ok();
    assert_eq!(
        details["quota"]["network"],
        json!({ "limit": 2, "used": 2, "reserved": 0 })
    );
    assert_eq!(
        admin.get("/v2.0/quotas").await.ok()["quotas"]
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(admin.delete(&path).await.status, 404);
    member.create("network", json!({})).await;
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let path = format!("/v2.0/quotas/{}", admin.project_id);
    for (name, value) in [
        ("network", json!(-2)),
        ("network", json!(2_147_483_648_u32)),
        ("network", json!("many")),
        ("nonsense", json!(1)),
    ] {
        let refused = admin.put(&path, &json!({ "quota": { name: value } })).await;
        assert!(refused.error(400, "HTTPBadRequest").contains(name));
    }
}

#[tokio::test]
async fn a_limit_below_what_is_in_use_wants_force() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let path = format!("/v2.0/quotas/{}", member.project_id);
    member.create("network", json!({})).await;
    member.create("network", json!({})).await;
    let below = |more: serde_json::Value| {
        let mut quota = json!({ "network": 1 });
        let (Some(quota), Some(more)) = (quota.as_object_mut(), more.as_object()) else {
            panic!("objects");
        };
        quota.extend(more.clone());
        json!({ "quota": quota })
    };
    for more in [json!({}), json!({ "check_limit": true })] {
        let refused = admin.put(&path, &below(more)).await;
        let said = refused.error(400, "HTTPBadRequest");
        assert!(said.contains("already used 2"), "{said}");
    }
    assert_eq!(member.get(&path).await.ok()["quota"]["network"], 100);
    let forced = admin
        .put(&path, &below(json!({ "force": true })))
        .await
        .ok();
    assert_eq!(forced["quota"]["network"], 1);
    member
        .create_refused("network", json!({}))
        .await
        .error(409, "OverQuota");
}
