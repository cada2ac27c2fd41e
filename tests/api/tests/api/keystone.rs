//! Tokens of a Keystone that says what each test wants. (tests/conformance has a real one.)

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use weft_control::identity::IdentityMode;
use weft_tests_api::{Api, Session};

/// Looks at a condition, and the pause between two: more than ten seconds.
const LOOKS: usize = 500;
const PAUSE: Duration = Duration::from_millis(20);
const PASSWORD: &str = "of-the-service";

/// What the Keystone knows, and what it was asked.
#[derive(Default)]
struct Known {
    /// By token: its project, its roles, its end.
    tokens: HashMap<String, Value>,
    /// Tokens of Weft's own user that are good.
    own: Vec<String>,
    logins: usize,
    questions: usize,
    /// What every question is answered with instead.
    broken: Option<(StatusCode, Value)>,
}

#[derive(Clone, Default)]
struct Keystone(Arc<Mutex<Known>>);

impl Keystone {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no test panicked with it")
    }

    /// A token for a project, with these roles, that ends then.
    fn give(&self, token: &str, roles: &[&str], expires_at: &str) {
        let roles: Vec<Value> = roles
            .iter()
            .map(|name| json!({ "id": name, "name": name }))
            .collect();
        let view = json!({
            "user": { "id": "u1", "name": "somebody" },
            "project": { "id": "p1", "name": "one" },
            "roles": roles,
            "expires_at": expires_at,
        });
        self.known().tokens.insert(token.to_owned(), view);
    }
}

async fn login(State(keystone): State<Keystone>, Json(body): Json<Value>) -> Response {
    let user = &body["auth"]["identity"]["password"]["user"];
    if user["password"] != PASSWORD {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut known = keystone.known();
    known.logins += 1;
    let token = format!("own-{}", known.logins);
    known.own.push(token.clone());
    let view = json!({ "token": { "expires_at": "2999-01-01T00:00:00.000000Z" } });
    (
        StatusCode::CREATED,
        [("x-subject-token", token)],
        Json(view),
    )
        .into_response()
}

async fn question(
    State(keystone): State<Keystone>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().expect("a text").to_owned())
    };
    let mut known = keystone.known();
    known.questions += 1;
    if let Some((status, body)) = known.broken.clone() {
        return (status, Json(body)).into_response();
    }
    if !known.own.contains(&text("x-auth-token").expect("a token")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let found = known.tokens.get(&text("x-subject-token").expect("a token"));
    let ended = |view: &&Value| {
        view["expires_at"]
            .as_str()
            .expect("a text")
            .starts_with("2000")
    };
    let good = found.filter(|view| !ended(view) || query.contains_key("allow_expired"));
    match good {
        Some(view) => Json(json!({ "token": view })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

const LATER: &str = "2999-01-01T00:00:00.000000Z";
const LONG_AGO: &str = "2000-01-01T00:00:00.000000Z";

/// A server that asks a Keystone, and that Keystone.
async fn start(token_cache_s: u32, password: &str) -> (Api, Keystone) {
    let keystone = Keystone::default();
    let routes = Router::new()
        .route("/v3/auth/tokens", post(login).get(question))
        .with_state(keystone.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let auth_url = format!("http://{}/v3", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let api = Api::start_with(|config| {
        config.identity.mode = IdentityMode::Keystone;
        config.identity.keystone.auth_url = auth_url;
        config.identity.keystone.password = password.to_owned();
        config.identity.keystone.token_cache_s = token_cache_s;
    });
    (api.await, keystone)
}

fn session(api: &Api, token: &str) -> Session {
    let mut session = api.anonymous();
    session.token = token.to_owned();
    session
}

async fn status(api: &Api, token: &str) -> u16 {
    session(api, token).get("/v2.0/networks").await.status
}

async fn status_for_service(api: &Api, token: &str, service: &str) -> u16 {
    let headers = [("x-service-token", service)];
    let session = session(api, token);
    session
        .send_with("GET", "/v2.0/networks", Vec::new(), &headers)
        .await
        .status
}

/// Waits until the API answers this token with `wanted`.
async fn until(api: &Api, token: &str, wanted: u16) {
    for _ in 0..LOOKS {
        if status(api, token).await == wanted {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    assert_eq!(status(api, token).await, wanted);
}

#[tokio::test]
async fn many_requests_are_one_question() {
    let (api, keystone) = start(300, PASSWORD).await;
    keystone.give("good", &["member", "reader"], LATER);
    let asked = (0..20).map(|_| status(&api, "good"));
    let statuses = futures_util::future::join_all(asked).await;
    assert_eq!(statuses, [200; 20]);
    assert_eq!(status(&api, "good").await, 200);
    let asked = {
        let known = keystone.known();
        (known.questions, known.logins)
    };
    assert_eq!(asked, (1, 1));
    // A reader may not write, whatever was asked before.
    keystone.give("reader", &["reader"], LATER);
    let new = json!({ "network": { "name": "n" } });
    let made = session(&api, "reader").post("/v2.0/networks", &new).await;
    made.error(403, "PolicyNotAuthorized");
    let made = session(&api, "good")
        .post("/v2.0/networks", &new)
        .await
        .expect(201);
    assert_eq!(made["network"]["project_id"], "p1");
}

#[tokio::test]
async fn a_revoked_token_is_served_no_longer_than_said() {
    let (api, keystone) = start(1, PASSWORD).await;
    keystone.give("good", &["reader"], LATER);
    assert_eq!(status(&api, "good").await, 200);
    keystone.known().tokens.clear();
    until(&api, "good", 401).await;

    let (api, keystone) = start(0, PASSWORD).await;
    keystone.give("good", &["reader"], LATER);
    assert_eq!(status(&api, "good").await, 200);
    keystone.known().tokens.clear();
    assert_eq!(status(&api, "good").await, 401);
}

#[tokio::test]
async fn nothing_outlives_its_end() {
    let (api, keystone) = start(300, PASSWORD).await;
    // By a Keystone whose clock is wrong, or by the cache: an end is an end.
    keystone.give("late", &["reader"], "2001-01-01T00:00:00.000000Z");
    assert_eq!(status(&api, "late").await, 401);
    assert_eq!(status(&api, "late").await, 401);
    assert_eq!(keystone.known().questions, 2, "a refusal is not remembered");
}

#[tokio::test]
async fn its_own_token_is_renewed() {
    let (api, keystone) = start(0, PASSWORD).await;
    keystone.give("good", &["reader"], LATER);
    assert_eq!(status(&api, "good").await, 200);
    keystone.known().own.clear();
    assert_eq!(status(&api, "good").await, 200);
    assert_eq!(keystone.known().logins, 2);
}

#[tokio::test]
async fn what_keystone_does_not_answer_is_not_the_callers_fault() {
    let (api, keystone) = start(0, PASSWORD).await;
    keystone.give("good", &["reader"], LATER);
    for (status_code, body) in [
        (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({ "error": { "message": "x" } }),
        ),
        (StatusCode::OK, json!({ "token": {} })),
        (StatusCode::OK, json!([])),
        (StatusCode::FORBIDDEN, json!({})),
        (StatusCode::TOO_MANY_REQUESTS, json!({})),
    ] {
        keystone.known().broken = Some((status_code, body));
        assert_eq!(status(&api, "good").await, 503, "{status_code}");
    }
    keystone.known().broken = None;
    assert_eq!(status(&api, "good").await, 200);

    let (api, keystone) = start(0, "wrong").await;
    keystone.give("good", &["reader"], LATER);
    assert_eq!(status(&api, "good").await, 503, "our own password is wrong");

    let nobody = Api::start_with(|config| {
        config.identity.mode = IdentityMode::Keystone;
        config.identity.keystone.auth_url = "http://127.0.0.1:1/v3".to_owned();
        config.identity.keystone.password = PASSWORD.to_owned();
    });
    let nobody = nobody.await;
    let refused = session(&nobody, "good").get("/v2.0/networks").await;
    assert_eq!(
        (refused.status, &refused.body["error"]["code"]),
        (503, &json!(503))
    );
}

#[tokio::test]
async fn what_is_no_token_is_not_asked_about() {
    let (api, keystone) = start(0, PASSWORD).await;
    assert_eq!(status(&api, "").await, 401);
    assert_eq!(status(&api, &"x".repeat(5_000)).await, 401);
    assert_eq!(status(&api, "with blanks").await, 401);
    assert_eq!(keystone.known().questions, 0);
    assert_eq!(status(&api, "unknown").await, 401);
    assert_eq!(session(&api, "x").get("/identity/v3").await.status, 404);
}

#[tokio::test]
async fn a_service_may_finish_what_an_expired_token_began() {
    let (api, keystone) = start(300, PASSWORD).await;
    keystone.give("ended", &["reader"], LONG_AGO);
    keystone.give("service", &["service"], LATER);
    keystone.give("no-service", &["admin"], LATER);
    keystone.give("ended-service", &["service"], LONG_AGO);
    assert_eq!(status(&api, "ended").await, 401);
    assert_eq!(status_for_service(&api, "ended", "service").await, 200);
    assert_eq!(
        status(&api, "ended").await,
        401,
        "what a service may is not remembered for others"
    );
    assert_eq!(status_for_service(&api, "ended", "no-service").await, 401);
    assert_eq!(
        status_for_service(&api, "ended", "ended-service").await,
        401
    );
    keystone.give("good", &["reader"], LATER);
    assert_eq!(status_for_service(&api, "good", "no-service").await, 200);
    assert_eq!(status_for_service(&api, "good", "nonsense").await, 401);
    assert_eq!(status_for_service(&api, "nonsense", "service").await, 401);
}

#[tokio::test]
async fn only_projects_have_networks() {
    let (api, keystone) = start(0, PASSWORD).await;
    for (name, scope, wanted) in [
        ("system", json!({ "system": { "all": true } }), 403),
        (
            "domain",
            json!({ "domain": { "id": "d", "name": "D" } }),
            403,
        ),
        // Without a role nothing is seen.
        ("unscoped", json!({}), 200),
    ] {
        let mut view = json!({ "user": { "id": "u" }, "expires_at": LATER });
        view.as_object_mut()
            .expect("an object")
            .extend(scope.as_object().expect("an object").clone());
        keystone.known().tokens.insert(name.to_owned(), view);
        let answer = session(&api, name).get("/v2.0/networks").await;
        assert_eq!(answer.status, wanted, "{name}: {}", answer.body);
    }
}
