//! Address scopes.

use serde_json::{Value, json};
use weft_tests_api::Api;

#[tokio::test]
async fn made_changed_and_gone() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let scope = member
        .create("address_scope", json!({ "name": "s", "ip_version": 4 }))
        .await;
    assert_eq!(
        (&scope["ip_version"], &scope["shared"]),
        (&json!(4), &json!(false))
    );
    assert_eq!(scope["project_id"], member.project_id.as_str());
    let changed = member
        .update("address_scope", &scope["id"], json!({ "name": "t" }))
        .await
        .ok();
    assert_eq!(changed["address_scope"]["name"], "t");
    for wrong in [json!({ "ip_version": 6 }), json!({ "nonsense": 1 })] {
        let refused = member.update("address_scope", &scope["id"], wrong).await;
        refused.error(400, "HTTPBadRequest");
    }
    for wrong in [
        json!({}),
        json!({ "ip_version": 5 }),
        json!({ "ip_version": "x" }),
    ] {
        let refused = member.create_refused("address_scope", wrong).await;
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
    assert_eq!(
        member.remove("address_scope", &scope["id"]).await.status,
        204
    );
    let gone = member.remove("address_scope", &scope["id"]).await;
    gone.error(404, "AddressScopeNotFound");
}

#[tokio::test]
async fn only_who_may_sees_and_shares_it() {
    let api = Api::start().await;
    let (admin, owner) = (api.admin().await, api.user("p1", "member").await);
    let (other, reader) = (
        api.user("p2", "member").await,
        api.user("p1", "reader").await,
    );
    let body = json!({ "name": "s", "ip_version": 4 });
    let scope = owner.create("address_scope", body.clone()).await;
    reader
        .create_refused("address_scope", body)
        .await
        .error(403, "PolicyNotAuthorized");
    for session in [&other, &api.user("p2", "reader").await] {
        let hidden = session.remove("address_scope", &scope["id"]).await;
        hidden.error(404, "AddressScopeNotFound");
        assert_eq!(session.list("address_scope", "").await, Vec::<Value>::new());
    }
    let shared = json!({ "shared": true });
    owner
        .update("address_scope", &scope["id"], shared.clone())
        .await
        .error(403, "PolicyNotAuthorized");
    admin
        .update("address_scope", &scope["id"], shared)
        .await
        .ok();
    assert_eq!(
        other.show("address_scope", &scope["id"]).await["shared"],
        true
    );
    assert_eq!(other.list("address_scope", "shared=true").await.len(), 1);
    let refused = other.remove("address_scope", &scope["id"]).await;
    refused.error(403, "PolicyNotAuthorized");
    let unshared = json!({ "shared": false });
    admin
        .update("address_scope", &scope["id"], unshared)
        .await
        .error(400, "AddressScopeUpdateError");
}
