//! No request makes the server fail: mangled bodies, wrong types, long texts, at every route.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use weft_control::http::{Operation, Route, routes};
use weft_tests_api::{Api, Session, text};

/// Bodies for one route.
const CASES: usize = 24;

/// Any JSON, with the kinds of values that break careless code.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!("")),
        Just(json!("\u{0}")),
        Just(json!("x".repeat(300))),
        Just(json!("00000000-0000-4000-8000-000000000000")),
        Just(json!("::ffff:192.0.2.1")),
        Just(json!("255.255.255.255/32")),
        Just(json!("192.0.2.0/24")),
        Just(json!("fd00::/64")),
        Just(json!("ff:ff:ff:ff:ff:ff")),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "subnet_id",
        "ip_address",
        "mac_address",
        "start",
        "end",
        "destination",
        "nexthop",
        "network_id",
        "enable_snat",
        "external_fixed_ips",
        "opt_name",
        "opt_value",
        "ip_version",
        "id",
        "name",
        "domain",
        "password",
        "project",
        "methods",
        "user",
    ])
    .prop_map(str::to_owned)
}

/// The attributes that a route's bodies may have, and one that they may not.
fn attributes(route: &Route, name: &str, ids: &Map<String, Value>) -> Vec<(String, Value)> {
    let own: Vec<&str> = match (&route.shape, name) {
        (Some((_, shape)), _) => shape.attributes.iter().map(|a| a.name).collect(),
        (None, "quota") => vec!["network", "port", "check_limit"],
        (None, "auth") => vec!["identity", "scope"],
        (None, "subnetpool") => vec!["prefixes", "network_id"],
        (None, "address_group") => vec!["addresses"],
        (None, _) => vec!["name", "description", "enabled", "password", "tags"],
    };
    own.iter()
        .chain(&["project_id", "description", "nonsense"])
        .map(|name| {
            (
                (*name).to_owned(),
                ids.get(*name).cloned().unwrap_or(Value::Null),
            )
        })
        .collect()
}

/// What is there already, so that bodies reach deep: by the attribute that names it.
async fn scene(admin: &Session) -> (Map<String, Value>, Map<String, Value>) {
    let (external, _) = admin.external_network().await;
    let (network, subnet) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let router = admin.create("router", json!({})).await;
    let group = admin.create("security_group", json!({ "name": "g" })).await;
    let rule = json!({ "security_group_id": group["id"], "direction": "ingress" });
    let rule = admin.create("security_group_rule", rule).await;
    let port = admin
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    let fip = admin
        .create(
            "floatingip",
            json!({ "floating_network_id": external["id"] }),
        )
        .await;
    let policies = "/v2.0/qos/policies";
    let policy = admin.post(policies, &json!({ "policy": {} })).await;
    let policy = policy.expect(201)["policy"].clone();
    let rules = format!("{policies}/{}/bandwidth_limit_rules", text(&policy["id"]));
    let limit = json!({ "bandwidth_limit_rule": { "max_kbps": 1 } });
    let limit = admin.post(&rules, &limit).await.expect(201)["bandwidth_limit_rule"].clone();
    let pool = json!({ "name": "p", "prefixes": ["10.0.0.0/16"] });
    let pool = admin.create("subnetpool", pool).await;
    let scope = json!({ "name": "s", "ip_version": 4 });
    let scope = admin.create("address_scope", scope).await;
    let addresses = json!({ "addresses": ["198.51.100.0/24"] });
    let addresses = admin.create("address_group", addresses).await;
    let profile = json!({ "service_profile": { "metainfo": "{}" } });
    let profile = admin.post("/v2.0/service_profiles", &profile).await;
    let profile = profile.expect(201)["service_profile"].clone();
    let flavor = json!({ "service_type": "L3_ROUTER_NAT" });
    let flavor = admin.create("flavor", flavor).await;
    let label = json!({ "metering_label": {} });
    let label = admin.post("/v2.0/metering/metering-labels", &label).await;
    let label = label.expect(201)["metering_label"].clone();
    let range = json!({ "network_type": "vxlan", "minimum": 5_000, "maximum": 5_010 });
    let range = admin.create("network_segment_range", range).await;
    let segments = format!("network_id={}", text(&network["id"]));
    let segment = admin.list("segment", &segments).await[0].clone();
    let references = json!({
        "internal_port_id": port["id"],
        "internal_port": 22,
        "external_port": 22,
        "helper": "ftp",
        "port": 21,
        "service_type": "L3_ROUTER_NAT",
        "metainfo": "{}",
        "metering_label_id": label["id"],
        "source_ip_prefix": "198.51.100.0/24",
        "prefixes": ["203.0.113.0/24"],
        "network_type": "vxlan",
        "segmentation_id": 6_000,
        "minimum": 7_000,
        "maximum": 7_010,
        "qos_policy_id": policy["id"],
        "max_kbps": 100,
        "max_kpps": 100,
        "min_kbps": 10,
        "min_kpps": 10,
        "dscp_mark": 8,
        "network_id": network["id"],
        "floating_network_id": external["id"],
        "security_group_id": group["id"],
        "direction": "ingress",
        "ip_version": 4,
        "cidr": "198.51.100.0/24",
        "protocol": "tcp",
        "name": "n",
        "enabled": true,
        "network": 100,
        "object_type": "network",
        "object_id": network["id"],
        "action": "access_as_shared",
        "target_tenant": "p9",
        "addresses": ["192.0.2.0/24"],
        "resource_type": "security_group",
        "resource_id": group["id"],
    });
    let targets = json!({
        "network": network["id"],
        "subnet": subnet["id"],
        "port": port["id"],
        "router": router["id"],
        "floatingip": fip["id"],
        "security_group": group["id"],
        "security_group_rule": rule["id"],
        "subnetpool": pool["id"],
        "address_scope": scope["id"],
        "segment": segment["id"],
        "network_segment_range": range["id"],
        "policy": policy["id"],
        "bandwidth_limit_rule": limit["id"],
        "alias_bandwidth_limit_rule": limit["id"],
        "address_group": addresses["id"],
        "flavor": flavor["id"],
        "service_profile": profile["id"],
    });
    let object = |value: Value| value.as_object().expect("an object").clone();
    (object(references), object(targets))
}

fn body(
    runner: &mut TestRunner,
    route: &Route,
    name: &str,
    references: &Map<String, Value>,
) -> Value {
    let mut draw = |n: u32| (0..n).new_tree(runner).expect("a number").current();
    let mut object = Map::new();
    let mut wild = Vec::new();
    for (attribute, good) in attributes(route, name, references) {
        match draw(12) {
            0 => wild.push(attribute),
            1..=8 if !good.is_null() => {
                object.insert(attribute, good);
            }
            _ => {}
        }
    }
    let shape = draw(16);
    for attribute in wild {
        object.insert(
            attribute,
            anything().new_tree(runner).expect("a value").current(),
        );
    }
    match shape {
        0 => anything().new_tree(runner).expect("a value").current(),
        1 => json!({ format!("{name}s"): [object.clone(), object] }),
        2 => Value::Object(object),
        _ => json!({ name: object }),
    }
}

#[tokio::test]
async fn no_body_makes_the_server_fail() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (references, targets) = scene(&admin).await;
    let mut runner = TestRunner::deterministic();
    let (mut sent, mut accepted) = (0, 0);
    for route in routes()
        .into_iter()
        .filter(|r| matches!(r.method.as_str(), "POST" | "PUT" | "PATCH"))
    {
        let words = route.path.split('/').filter(|word| !word.starts_with('{'));
        let singular = |word: &str| match word.strip_suffix("ies") {
            Some(stem) => format!("{stem}y"),
            None => word.trim_end_matches('s').replace('-', "_"),
        };
        let name = match (&route.shape, words.clone().next_back().unwrap_or_default()) {
            (Some((_, shape)), _) => shape.name.to_owned(),
            (None, "tokens") => "auth".to_owned(),
            (None, "add_addresses" | "remove_addresses") => "address_group".to_owned(),
            (
                None,
                "add_router_interface"
                | "remove_router_interface"
                | "add_extraroutes"
                | "remove_extraroutes",
            ) => "router".to_owned(),
            (None, "add_prefixes" | "remove_prefixes" | "onboard_network_subnets") => {
                "subnetpool".to_owned()
            }
            (None, collection) => singular(collection),
        };
        let id_of = |name: &str| targets.get(name).map_or_else(|| "x".to_owned(), text);
        let parent = route.path.split("/{parent}").next().unwrap_or_default();
        let parent = singular(parent.rsplit('/').next().unwrap_or_default());
        let path = route.path.replace("{id}", &id_of(&name));
        let path = path
            .replace("{parent}", &id_of(&parent))
            .replace(['{', '}'], "");
        for _ in 0..CASES {
            let body = body(&mut runner, &route, &name, &references);
            let answer = admin
                .send(route.method.as_str(), &path, body.to_string().into_bytes())
                .await;
            assert!(
                answer.status < 500,
                "{} {path} {body}: {}",
                route.method,
                answer.body
            );
            sent += 1;
            accepted += usize::from(answer.status < 300);
        }
    }
    // Mangling must leave enough whole for the rules behind the checks to be reached.
    assert!(
        sent >= 20 * CASES && accepted >= 2 * CASES,
        "{sent} {accepted}"
    );
    assert_eq!(admin.get("/v2.0/networks").await.status, 200);
}

#[tokio::test]
async fn no_query_makes_the_server_fail() {
    let api = Api::start().await;
    let admin = api.admin().await;
    scene(&admin).await;
    let names = [
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "fields",
        "page_reverse",
        "fixed_ips",
        "id",
        "name",
        "mtu",
        "changed_since",
    ];
    let values = [
        "",
        "-1",
        "0",
        "1e9",
        "99999999999999999999",
        "%00",
        "id",
        "name",
        "'",
        "ip_address=x",
        "true",
        "2026-13-99",
        "%ff",
    ];
    for route in routes() {
        // Those under another's path are found empty, or not at all.
        let (Some((Operation::List, _)), collection) = (route.shape, route.path) else {
            continue;
        };
        let collection = collection.replace(['{', '}'], "");
        for name in names {
            for value in values {
                let path = format!("{collection}?{name}={value}&limit=2");
                let answer = admin.get(&path).await;
                assert!(answer.status < 500, "{path}: {}", answer.body);
            }
        }
        assert_eq!(admin.get(&format!("{collection}/%00")).await.status, 404);
    }
}

#[tokio::test]
async fn bodies_and_paths_have_bounds() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let long = admin
        .send("POST", "/v2.0/networks", vec![b' '; (8 << 20) + 1])
        .await;
    long.error(413, "HTTPRequestEntityTooLarge");
    for body in [
        &b""[..],
        b"{",
        b"\xff",
        b"null",
        b"[]",
        b"\"x\"",
        b"1e999",
        &b"[".repeat(100_000),
    ] {
        let answer = admin.send("POST", "/v2.0/networks", body.to_vec()).await;
        answer.error(400, "HTTPBadRequest");
    }
    admin.get("/v2.0/nothing").await.error(404, "HTTPNotFound");
    admin
        .send("PATCH", "/v2.0/networks", Vec::new())
        .await
        .error(405, "HTTPMethodNotAllowed");
    let name = admin
        .create_refused("network", json!({ "name": "x".repeat(256) }))
        .await;
    assert!(name.error(400, "HTTPBadRequest").contains("name"));
    admin
        .create("network", json!({ "name": "x".repeat(255) }))
        .await;
}

#[tokio::test]
async fn what_stands_beside_a_resource_is_named_and_every_answer_has_a_number() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let body = json!({ "network": { "name": "n" }, "x": 1 });
    let refused = member.post("/v2.0/networks", &body).await;
    let numbers: Vec<String> = [
        &refused,
        &member.get("/v2.0/networks").await,
        &member.get("/none").await,
    ]
    .iter()
    .map(|answer| answer.header("x-openstack-request-id").to_owned())
    .collect();
    for number in &numbers {
        let id = number.strip_prefix("req-").unwrap_or_default();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{numbers:?}");
    }
    assert!(
        numbers[0] != numbers[1] && numbers[1] != numbers[2],
        "{numbers:?}"
    );
    let why = refused.error(400, "HTTPBadRequest");
    assert!(why.contains("'x' stands beside"), "{why}");
}
