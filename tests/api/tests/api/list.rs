//! Lists: filters, order, pages, fields.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

async fn networks(session: &Session, names: &[&str]) {
    let networks: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let made = session
        .post("/v2.0/networks", &json!({ "networks": networks }))
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
}

fn names(list: &[Value]) -> Vec<String> {
    list.iter().map(|item| text(&item["name"])).collect()
}

#[tokio::test]
async fn order_and_filters() {
    let api = Api::start().await;
    let admin = api.admin().await;
    networks(&admin, &["b", "a", "c", "a"]).await;
    assert_eq!(
        names(&admin.list("network", "sort_key=name").await),
        ["a", "a", "b", "c"]
    );
    let down = admin.list("network", "sort_key=name&sort_dir=desc").await;
    assert_eq!(names(&down), ["c", "b", "a", "a"]);
    assert_eq!(admin.list("network", "name=a").await.len(), 2);
    assert_eq!(admin.list("network", "name=a&name=c").await.len(), 3);
    assert_eq!(admin.list("network", "name=").await.len(), 0);
    assert_eq!(admin.list("network", "name=a&shared=True").await.len(), 0);
    assert_eq!(
        admin.list("network", "name=%27%20OR%201=1--").await.len(),
        0
    );
    assert_eq!(
        admin
            .list("network", "changed_since=2000-01-01T00:00:00Z")
            .await
            .len(),
        4
    );
    assert_eq!(
        admin
            .list("network", "changed_since=2100-01-01T00:00:00")
            .await
            .len(),
        0
    );
    let fields = admin.list("network", "name=c&fields=name&fields=id").await;
    assert_eq!(fields[0].as_object().expect("an object").len(), 2);
    for query in [
        "nonsense=1",
        "sort_key=nonsense",
        "limit=x",
        "marker=nothing",
    ] {
        let refused = admin.get(&format!("/v2.0/networks?{query}")).await;
        assert!(
            [400, 404].contains(&refused.status),
            "{query}: {}",
            refused.status
        );
    }
}

#[tokio::test]
async fn pages_lead_through_all_and_back() {
    let api = Api::start().await;
    let admin = api.admin().await;
    networks(&admin, &["e", "a", "d", "b", "c", "a", "b"]).await;
    let mut path = "/v2.0/networks?sort_key=name&limit=3".to_owned();
    let mut seen: Vec<String> = Vec::new();
    let mut before = None;
    loop {
        let page = admin.get(&path).await.ok();
        seen.extend(names(page["networks"].as_array().expect("a list")));
        let link = |rel: &str| {
            let links = page["networks_links"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let link = links.into_iter().find(|link| link["rel"] == rel)?;
            Some(text(&link["href"]).replace(&api.url, ""))
        };
        before = link("previous").or(before);
        match link("next") {
            Some(next) => path = next,
            None => break,
        }
    }
    assert_eq!(seen, ["a", "a", "b", "b", "c", "d", "e"]);
    let page = admin.get(&before.expect("a link back")).await.ok();
    assert_eq!(
        names(page["networks"].as_array().expect("a list")),
        ["b", "c", "d"]
    );
}

#[tokio::test]
async fn an_empty_page_leads_back_and_the_first_one_to_an_empty_one() {
    let api = Api::start().await;
    let admin = api.admin().await;
    networks(&admin, &["a", "b"]).await;
    let rels = |page: &Value| -> Vec<(String, String)> {
        let links = page["networks_links"].as_array().expect("links");
        links
            .iter()
            .map(|link| {
                (
                    text(&link["rel"]),
                    text(&link["href"]).replace(&api.url, ""),
                )
            })
            .collect()
    };
    let first = admin.get("/v2.0/networks?sort_key=name&limit=2").await.ok();
    let links = rels(&first);
    assert_eq!(
        (links[0].0.as_str(), links[1].0.as_str()),
        ("next", "previous")
    );
    let behind = admin.get(&links[0].1).await.ok();
    assert_eq!(behind["networks"], json!([]));
    let links = rels(&behind);
    assert_eq!((links.len(), links[0].0.as_str()), (1, "previous"));
    let back = admin.get(&links[0].1).await.ok();
    assert_eq!(
        names(back["networks"].as_array().expect("a list")),
        ["a", "b"]
    );
}

#[tokio::test]
async fn fields_are_exactly_those_asked_for() {
    let api = Api::start().await;
    let admin = api.admin().await;
    networks(&admin, &["a"]).await;
    for (query, keys) in [
        ("fields=project_id", vec!["project_id"]),
        ("fields=tenant_id", vec!["tenant_id"]),
        ("fields=id,nonsense", vec!["id"]),
    ] {
        let listed = admin.list("network", query).await;
        let have: Vec<&String> = listed[0].as_object().expect("an object").keys().collect();
        assert_eq!(have, keys, "{query}");
    }
}

#[tokio::test]
async fn items_of_a_bulk_request_may_name_their_resource_again() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let body = json!({ "networks": [{ "network": { "name": "a" } }, { "name": "b" }] });
    let made = admin.post("/v2.0/networks", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(
        names(&admin.list("network", "sort_key=name").await),
        ["a", "b"]
    );
    let mixed = json!({ "networks": [{ "network": { "name": "a" }, "name": "b" }] });
    admin
        .post("/v2.0/networks", &mixed)
        .await
        .error(400, "HTTPBadRequest");
}
