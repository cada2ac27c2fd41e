//! Every route that is not public refuses whoever has no valid token, before it looks at anything else.

use weft_control::http::{Access, routes};
use weft_tests_api::Api;

#[tokio::test]
async fn every_route_wants_a_token() {
    let api = Api::start().await;
    let nobody = api.anonymous();
    let mut liar = api.anonymous();
    liar.token = "0".repeat(64);
    let mut asked = 0;
    for route in routes()
        .into_iter()
        .filter(|route| route.access == Access::Token)
    {
        let path = route.path.replace(['{', '}'], "");
        for session in [&nobody, &liar] {
            let answer = session
                .send(route.method.as_str(), &path, b"nonsense".to_vec())
                .await;
            assert_eq!(answer.status, 401, "{} {}", route.method, route.path);
        }
        asked += 1;
    }
    assert!(asked > 60, "{asked}");
}

#[tokio::test]
async fn only_these_routes_are_public() {
    let mut public: Vec<&str> = routes()
        .into_iter()
        .filter(|route| route.access == Access::Public)
        .map(|route| route.path)
        .collect();
    public.sort_unstable();
    let expected = [
        "/",
        "/identity",
        "/identity/",
        "/identity/v3",
        "/identity/v3/",
        "/identity/v3/auth/tokens",
        "/openapi",
        "/openapi.json",
        "/v2.0",
        "/v2.0/",
    ];
    assert_eq!(public, expected);
}

#[tokio::test]
async fn readers_read_only() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let reader = api.user("p1", "reader").await;
    let network = member
        .create("network", serde_json::json!({ "name": "n" }))
        .await;
    assert_eq!(reader.list("network", "").await.len(), 1);
    for (name, body) in [
        ("network", serde_json::json!({})),
        ("router", serde_json::json!({})),
        ("security_group", serde_json::json!({ "name": "g" })),
        ("port", serde_json::json!({ "network_id": network["id"] })),
        (
            "subnet",
            serde_json::json!({ "network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24" }),
        ),
    ] {
        let refused = reader.create_refused(name, body).await;
        refused.error(403, "PolicyNotAuthorized");
    }
    let change = serde_json::json!({ "name": "x" });
    let refused = reader.update("network", &network["id"], change).await;
    refused.error(403, "PolicyNotAuthorized");
    reader
        .remove("network", &network["id"])
        .await
        .error(403, "PolicyNotAuthorized");
}
