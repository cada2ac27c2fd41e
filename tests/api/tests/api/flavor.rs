//! Flavors, service profiles and providers, and routers with a flavor.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

const SINGLE: &str = "neutron.services.l3_router.service_providers.single_node.SingleNodeDriver";

async fn profile(admin: &Session, driver: &str) -> Value {
    let new = json!({ "service_profile": { "driver": driver, "metainfo": "{}" } });
    let made = admin.post("/v2.0/service_profiles", &new).await;
    made.expect(201)["service_profile"]["id"].clone()
}

async fn flavor(admin: &Session) -> Value {
    admin
        .create(
            "flavor",
            json!({ "name": "f", "service_type": "L3_ROUTER_NAT" }),
        )
        .await["id"]
        .clone()
}

#[tokio::test]
async fn a_flavor_has_profiles() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let (flavor, profile) = (flavor(&admin).await, profile(&admin, SINGLE).await);
    let path = format!("/v2.0/flavors/{}/service_profiles", text(&flavor));
    let next = format!("/v2.0/flavors/{}/next_providers", text(&flavor));
    let unbound = member.get(&next).await;
    unbound.error(404, "FlavorServiceProfileBindingNotFound");
    let bind = json!({ "service_profile": { "id": profile } });
    member
        .post(&path, &bind)
        .await
        .error(403, "PolicyNotAuthorized");
    assert_eq!(admin.post(&path, &bind).await.status, 201);
    let twice = admin.post(&path, &bind).await;
    twice.error(409, "FlavorServiceProfileBindingExists");
    let next = member.get(&next).await.ok();
    assert_eq!(next["next_providers"][0]["provider"], "single_node");
    let shown = member.show("flavor", &flavor).await;
    assert_eq!(shown["service_profiles"], json!([profile]));
    let used = format!("/v2.0/service_profiles/{}", text(&profile));
    admin.delete(&used).await.error(409, "ServiceProfileInUse");
    member.get(&used).await.error(404, "ServiceProfileNotFound");
    let one = format!("{path}/{}", text(&profile));
    assert_eq!(admin.delete(&one).await.status, 204);
    let gone = admin.delete(&one).await;
    gone.error(404, "FlavorServiceProfileBindingNotFound");
    assert_eq!(admin.delete(&used).await.status, 204);
    assert_eq!(admin.remove("flavor", &flavor).await.status, 204);
}

#[tokio::test]
async fn a_router_with_a_flavor_keeps_to_it() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let (flavor, profile) = (flavor(&admin).await, profile(&admin, SINGLE).await);
    let path = format!("/v2.0/flavors/{}/service_profiles", text(&flavor));
    let bind = json!({ "service_profile": { "id": profile } });
    admin.post(&path, &bind).await.expect(201);
    let wrong = json!({ "flavor_id": flavor, "distributed": true });
    let refused = admin.create_refused("router", wrong).await;
    assert!(refused.error(400, "InvalidInput").contains("single_node"));
    let unknown = json!({ "flavor_id": profile });
    let refused = member.create_refused("router", unknown).await;
    refused.error(404, "FlavorNotFound");
    let router = member
        .create("router", json!({ "flavor_id": flavor }))
        .await;
    assert_eq!(router["flavor_id"], flavor);
    let down = json!({ "admin_state_up": false, "distributed": true });
    let refused = admin.update("router", &router["id"], down).await;
    refused.error(400, "InvalidInput");
    admin
        .remove("flavor", &flavor)
        .await
        .error(409, "FlavorInUse");
    let off = json!({ "enabled": false });
    assert_eq!(admin.update("flavor", &flavor, off).await.status, 200);
    let refused = member
        .create_refused("router", json!({ "flavor_id": flavor }))
        .await;
    refused.error(503, "FlavorDisabled");
}

#[tokio::test]
async fn what_a_profile_must_say() {
    let api = Api::start().await;
    let (admin, reader) = (api.admin().await, api.user("p1", "reader").await);
    for (new, status, kind) in [
        (json!({}), 400, "ServiceProfileEmpty"),
        (
            json!({ "driver": "no.such" }),
            404,
            "ServiceProfileDriverNotFound",
        ),
        (json!({ "metainfo": 1 }), 400, "HTTPBadRequest"),
    ] {
        let new = json!({ "service_profile": new });
        admin
            .post("/v2.0/service_profiles", &new)
            .await
            .error(status, kind);
    }
    let refused = admin
        .create_refused("flavor", json!({ "service_type": "TEA" }))
        .await;
    refused.error(400, "HTTPBadRequest");
    let list = reader
        .get("/v2.0/service-providers?default=true")
        .await
        .ok();
    assert_eq!(
        list["service_providers"],
        json!([{ "name": "weft", "service_type": "L3_ROUTER_NAT", "default": true }])
    );
}
