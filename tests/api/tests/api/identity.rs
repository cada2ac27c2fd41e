//! The built-in identity, as Keystone's clients use it.

use serde_json::{Value, json};
use weft_tests_api::{Api, PASSWORD, text};

fn auth(user: &Value, scope: &Value) -> Value {
    json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": scope,
    } })
}

#[tokio::test]
async fn versions_lead_to_the_api() {
    let api = Api::start().await;
    let anybody = api.anonymous();
    let root = anybody.get("/").await.ok();
    assert_eq!(
        root["versions"][0]["links"][0]["href"],
        format!("{}/v2.0/", api.url)
    );
    assert_eq!(anybody.get("/identity").await.status, 300);
    assert_eq!(
        anybody.get("/identity/v3").await.ok()["version"]["status"],
        "stable"
    );
    assert_eq!(anybody.get("/v2.0/").await.status, 200);
}

#[tokio::test]
async fn a_token_says_who_and_where() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let subject = [("x-subject-token", admin.token.as_str())];
    let path = "/identity/v3/auth/tokens";
    let shown = admin
        .send_with("GET", path, Vec::new(), &subject)
        .await
        .ok();
    let token = &shown["token"];
    assert_eq!(token["project"]["name"], "admin");
    let roles: Vec<String> = token["roles"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|role| text(&role["name"]))
        .collect();
    assert_eq!(roles, ["admin", "manager", "member", "reader"]);
    let catalogue = token["catalog"].as_array().expect("a list");
    let urls: Vec<String> = catalogue
        .iter()
        .map(|service| text(&service["endpoints"][0]["url"]))
        .collect();
    assert_eq!(urls, [api.url.clone(), format!("{}/identity", api.url)]);
    assert_eq!(
        admin
            .send_with("HEAD", path, Vec::new(), &subject)
            .await
            .status,
        200
    );
    assert_eq!(
        admin
            .send_with("DELETE", path, Vec::new(), &subject)
            .await
            .status,
        204
    );
    assert_eq!(admin.get("/v2.0/networks").await.status, 401);
}

#[tokio::test]
async fn what_is_wrong_at_login_is_not_told() {
    let api = Api::start().await;
    let anybody = api.anonymous();
    let domain = json!({ "id": "default" });
    let user = |name: &str, password: &str| json!({ "name": name, "domain": domain, "password": password });
    let project = |name: &str| json!({ "project": { "name": name, "domain": domain } });
    let mut answers = Vec::new();
    for (user, scope) in [
        (user("admin", "wrong"), project("admin")),
        (user("nobody", PASSWORD), project("admin")),
        (user("admin", PASSWORD), project("nothing")),
        (
            json!({ "name": "admin", "domain": { "name": "Other" }, "password": PASSWORD }),
            project("admin"),
        ),
    ] {
        answers.push(
            anybody
                .post("/identity/v3/auth/tokens", &auth(&user, &scope))
                .await,
        );
    }
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (401, &answers[0].body));
    }
    for body in [
        json!({}),
        json!({ "auth": 1 }),
        json!({ "auth": { "identity": { "methods": ["password"] } } }),
    ] {
        assert_eq!(
            anybody.post("/identity/v3/auth/tokens", &body).await.status,
            400
        );
    }
    let unscoped = auth(&user("admin", PASSWORD), &json!("unscoped"));
    let token = anybody
        .post("/identity/v3/auth/tokens", &unscoped)
        .await
        .expect(201);
    assert!(token["token"].get("project").is_none());
}

#[tokio::test]
async fn only_admins_manage_and_changes_hold_at_once() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    for path in [
        "projects",
        "users",
        "roles",
        "role_assignments",
        "services",
        "endpoints",
    ] {
        assert_eq!(
            member.get(&format!("/identity/v3/{path}")).await.status,
            403,
            "{path}"
        );
        assert_eq!(
            admin.get(&format!("/identity/v3/{path}")).await.status,
            200,
            "{path}"
        );
    }
    let new = json!({ "project": { "name": "x" } });
    assert_eq!(member.post("/identity/v3/projects", &new).await.status, 403);
    assert_eq!(admin.post("/identity/v3/projects", &new).await.status, 201);
    assert_eq!(admin.post("/identity/v3/projects", &new).await.status, 409);
    assert_eq!(member.get("/v2.0/networks").await.status, 200);
    let users = admin.get("/identity/v3/users?name=p1-member").await.ok();
    let path = format!("/identity/v3/users/{}", text(&users["users"][0]["id"]));
    let disable = json!({ "user": { "enabled": false } })
        .to_string()
        .into_bytes();
    assert_eq!(admin.send("PATCH", &path, disable).await.status, 200);
    assert_eq!(member.get("/v2.0/networks").await.status, 401);
    assert_eq!(admin.delete(&path).await.status, 204);
    assert_eq!(admin.delete(&path).await.status, 404);
}
