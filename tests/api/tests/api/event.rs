//! The event stream: what a caller may see, from where it left off.

use futures_util::StreamExt;
use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

/// An open stream, read event by event.
struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = String> + Send>>,
    rest: String,
}

impl Events {
    async fn open(session: &Session, query: &str) -> Self {
        let response = session.open(&format!("/v2.0/events{query}")).await;
        assert_eq!(response.status().as_u16(), 200);
        let kind = response.headers()["content-type"].to_str().expect("a text");
        assert_eq!(kind, "text/event-stream");
        let bytes = response
            .bytes_stream()
            .map(|chunk| String::from_utf8(chunk.expect("a chunk").to_vec()).expect("a text"));
        Self {
            bytes: Box::pin(bytes),
            rest: String::new(),
        }
    }

    /// The next event: its kind, and its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let line = lines.find_map(|line| line.strip_prefix(name));
                    line.expect("a field").to_owned()
                };
                let (id, kind, data) = (field("id: "), field("event: "), field("data: "));
                let data: Value = serde_json::from_str(&data).expect("JSON");
                assert_eq!(data["revision"].to_string(), id);
                self.rest = rest.to_owned();
                return (kind, data);
            }
            let more = self.bytes.next().await.expect("the stream goes on");
            self.rest.push_str(&more);
        }
    }

    /// The next changes, as pairs of resource and what happened.
    async fn changes(&mut self) -> Vec<Value> {
        loop {
            let (kind, data) = self.next().await;
            if kind == "changes" {
                return data["changes"].as_array().expect("a list").clone();
            }
            assert_eq!(kind, "heartbeat");
        }
    }

    /// Reads until a resource of this name is told of; answers the change.
    async fn of(&mut self, resource: &str) -> Value {
        loop {
            let changes = self.changes().await;
            if let Some(change) = changes.iter().find(|change| change["resource"] == resource) {
                return change.clone();
            }
        }
    }
}

#[tokio::test]
async fn a_project_hears_of_its_own_and_of_what_it_is_given() {
    let api = Api::start().await;
    let owner = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let (mut mine, mut theirs) = (
        Events::open(&owner, "").await,
        Events::open(&other, "").await,
    );
    let network = owner.create("network", json!({ "name": "n" })).await;
    let made = mine.of("network").await;
    assert_eq!(
        (&made["id"], &made["change"]),
        (&network["id"], &json!("created"))
    );
    assert_eq!(made["network"]["name"], "n");
    let share = json!({
        "object_type": "network",
        "object_id": network["id"],
        "action": "access_as_shared",
        "target_tenant": other.project_id,
    });
    let policy = owner.create("rbac_policy", share).await;
    // The first that the other hears of is that the network is there for it.
    let shared = theirs.of("network").await;
    assert_eq!(
        (&shared["id"], &shared["network"]["shared"]),
        (&network["id"], &json!(true))
    );
    owner.remove("rbac_policy", &policy["id"]).await;
    owner.remove("network", &network["id"]).await;
    loop {
        let change = mine.of("network").await;
        if change["change"] == "deleted" {
            assert_eq!(change["id"], network["id"]);
            assert!(change.get("network").is_none());
            break;
        }
    }
    // Another's deletion is not told, before what is the other's own. (A stream that is late may tell of the network twice
    // while it is there.)
    let own = other.create("network", json!({ "name": "own" })).await;
    loop {
        let change = theirs.of("network").await;
        if change["id"] == own["id"] {
            break;
        }
        assert_ne!(change["change"], "deleted");
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was_left() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let mut first = Events::open(&member, "").await;
    let (kind, data) = first.next().await;
    assert_eq!(kind, "heartbeat");
    let start = data["revision"].clone();
    drop(first);
    let router = member.create("router", json!({ "name": "a" })).await;
    member
        .update("router", &router["id"], json!({ "name": "b" }))
        .await
        .ok();
    let mut again = Events::open(&member, &format!("?after={start}")).await;
    assert_eq!(again.of("router").await["change"], "created");
    let changed = again.of("router").await;
    assert_eq!(
        (&changed["change"], &changed["router"]["name"]),
        (&json!("changed"), &json!("b"))
    );
    // Ahead of the database, nothing can be told but where it is.
    let mut ahead = Events::open(&member, "?after=1000000").await;
    ahead.next().await;
    assert_eq!(ahead.next().await.0, "resync");
    for query in ["?after=x", "?nonsense=1"] {
        let refused = member.get(&format!("/v2.0/events{query}")).await;
        refused.error(400, "HTTPBadRequest");
    }
}

#[tokio::test]
async fn streams_of_one_project_are_bounded() {
    const STREAMS_PER_PROJECT_MAX: usize = 8;
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let other = api.user("p2", "member").await;
    let mut open = Vec::new();
    for _ in 0..STREAMS_PER_PROJECT_MAX {
        open.push(Events::open(&member, "").await);
    }
    let refused = member.get("/v2.0/events").await;
    let why = refused.error(503, "ServiceUnavailable");
    assert!(why.contains("8 event streams of this project"), "{why}");
    Events::open(&other, "").await;
    assert_eq!(text(&json!("x")), "x");
}
