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
async fn tags_that_are_there_and_that_are_not() {
    let api = Api::start().await;
    let admin = api.admin().await;
    for (name, tags) in [
        ("none", &[][..]),
        ("red", &["red"]),
        ("blue", &["blue"]),
        ("both", &["blue", "red"]),
        ("other", &["reddish", "a \"quote\""]),
    ] {
        let network = admin.create("network", json!({ "name": name })).await;
        let path = format!("/v2.0/networks/{}/tags", text(&network["id"]));
        admin.put(&path, &json!({ "tags": tags })).await.ok();
    }
    for (query, expected) in [
        ("tags=red", &["both", "red"][..]),
        ("tags=red,blue", &["both"]),
        ("tags-any=red,blue", &["blue", "both", "red"]),
        ("not-tags=red,blue", &["blue", "none", "other", "red"]),
        ("not-tags-any=red,blue", &["none", "other"]),
        ("tags=red&not-tags=blue", &["red"]),
        ("tags=a%20%22quote%22", &["other"]),
    ] {
        let found = admin
            .list("network", &format!("sort_key=name&{query}"))
            .await;
        assert_eq!(names(&found), expected, "{query}");
    }
}

#[tokio::test]
async fn ports_are_found_by_their_addresses() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, subnet) = admin.network_with_subnet("net", "192.0.2.0/24").await;
    for last in [7, 70, 8] {
        let address = format!("192.0.2.{last}");
        let port = json!({
            "network_id": network["id"], "name": address, "fixed_ips": [{ "ip_address": address }],
        });
        admin.create("port", port).await;
    }
    let subnet = text(&subnet["id"]);
    for (query, expected) in [
        ("fixed_ips=ip_address=192.0.2.7", &["192.0.2.7"][..]),
        (
            "fixed_ips=ip_address_substr=2.7",
            &["192.0.2.7", "192.0.2.70"],
        ),
        (
            &format!("fixed_ips=subnet_id={subnet}&name=192.0.2.8"),
            &["192.0.2.8"],
        ),
        (
            &format!("fixed_ips=subnet_id={subnet}&fixed_ips=ip_address=192.0.2.9"),
            &[],
        ),
    ] {
        for paged in ["", "&limit=10"] {
            let asked = format!("sort_key=name&{query}{paged}");
            let found = admin.list("port", &asked).await;
            assert_eq!(names(&found), expected, "{asked}");
        }
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

/// Reads a list of ports page by page; the ids, in order.
async fn paged(session: &Session, query: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let marker = ids.last().map(|id| format!("&marker={id}"));
        let marker = marker.unwrap_or_default();
        let page = session
            .list("port", &format!("limit=2&{query}{marker}"))
            .await;
        ids.extend(page.iter().map(|port| text(&port["id"])));
        if page.len() < 2 {
            return ids;
        }
    }
}

#[tokio::test]
async fn pages_hold_what_a_project_owns_and_what_others_have_in_its_networks() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (mine, other) = (api.user("a", "member").await, api.user("b", "member").await);
    let (network, _) = mine.network_with_subnet("net", "10.0.0.0/24").await;
    let (foreign, _) = other.network_with_subnet("foreign", "10.0.0.0/24").await;
    for (n, (network, project)) in [
        (&network, &mine.project_id),
        (&network, &other.project_id),
        (&foreign, &mine.project_id),
        (&foreign, &other.project_id),
    ]
    .into_iter()
    .cycle()
    .take(12)
    .enumerate()
    {
        let port = json!({ "network_id": network["id"], "project_id": project, "name": format!("{}", n % 5) });
        admin.create("port", port).await;
    }
    for (query, count) in [
        ("", 9),
        ("sort_key=name&sort_dir=asc", 9),
        ("sort_key=name&sort_dir=desc", 9),
        (
            "sort_key=name&sort_key=mac_address&sort_dir=desc&sort_dir=asc",
            9,
        ),
        ("name=1&name=2&name=4", 5),
        ("sort_key=network_id&sort_dir=asc", 9),
        ("sort_key=mac_address&sort_dir=desc", 9),
        ("sort_key=status&sort_dir=asc", 9),
        ("sort_key=device_owner&sort_dir=desc", 9),
        (&format!("network_id={}", text(&network["id"])), 6),
        (&format!("network_id={}", text(&foreign["id"])), 3),
    ] {
        let whole = mine.list("port", query).await;
        let whole: Vec<String> = whole.iter().map(|port| text(&port["id"])).collect();
        assert_eq!(whole.len(), count, "{query}");
        assert_eq!(paged(&mine, query).await, whole, "{query}");
    }
    assert_eq!(paged(&admin, "sort_key=name").await.len(), 12);
}

#[tokio::test]
async fn a_list_of_several_parts_is_whole_and_in_order() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let network = admin.create("network", json!({ "name": "net" })).await;
    let names_of: Vec<String> = (0..600).map(|n| format!("port-{n:04}")).collect();
    let quota = json!({ "quota": { "port": -1 } });
    let quotas = format!("/v2.0/quotas/{}", admin.project_id);
    admin.put(&quotas, &quota).await.ok();
    for some in names_of.chunks(200) {
        let port = |name: &String| json!({ "network_id": network["id"], "name": name });
        let ports: Vec<Value> = some.iter().map(port).collect();
        let made = admin.post("/v2.0/ports", &json!({ "ports": ports })).await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let listed = admin.list("port", "sort_key=name").await;
    assert_eq!(names(&listed), names_of);
}
