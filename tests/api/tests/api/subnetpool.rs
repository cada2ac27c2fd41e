//! Subnet pools, and subnets that are cut from them.

use serde_json::{Value, json};
use weft_tests_api::{Answer, Api, Session, text};

async fn pool(session: &Session, prefixes: Value, more: Value) -> Value {
    let mut body = json!({ "name": "pool", "prefixes": prefixes });
    body.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    session.create("subnetpool", body).await
}

async fn network(session: &Session) -> Value {
    session.create("network", json!({})).await["id"].clone()
}

/// A subnet of a network of its own.
async fn cut(session: &Session, pool: &Value, more: Value) -> Answer {
    let network = network(session).await;
    let mut body = json!({ "network_id": network, "ip_version": 4, "subnetpool_id": pool });
    body.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    session
        .post("/v2.0/subnets", &json!({ "subnet": body }))
        .await
}

#[tokio::test]
async fn prefixes_are_canonical_and_only_grow() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let prefixes = json!([
        "10.0.1.9/24",
        "10.0.0.0/24",
        "10.0.0.128/25",
        "192.0.2.0/24"
    ]);
    let new = pool(&admin, prefixes, json!({ "min_prefixlen": "26" })).await;
    assert_eq!(new["prefixes"], json!(["10.0.0.0/23", "192.0.2.0/24"]));
    assert_eq!(
        (
            &new["min_prefixlen"],
            &new["max_prefixlen"],
            &new["default_prefixlen"]
        ),
        (&json!("26"), &json!("32"), &json!("26"))
    );
    assert_eq!(
        (&new["ip_version"], &new["default_quota"]),
        (&json!(4), &Value::Null)
    );
    let id = &new["id"];
    let change = |prefixes: Value| admin.update("subnetpool", id, json!({ "prefixes": prefixes }));
    change(json!(["10.0.0.0/23"]))
        .await
        .error(400, "IllegalSubnetPoolPrefixUpdate");
    change(json!(["10.0.0.0/23", "192.0.2.0/24", "fd00::/48"]))
        .await
        .error(400, "PrefixVersionMismatch");
    let grown = change(json!(["10.0.0.0/22", "192.0.2.0/24"])).await.ok();
    assert_eq!(
        grown["subnetpool"]["prefixes"],
        json!(["10.0.0.0/22", "192.0.2.0/24"])
    );

    let path = |operation: &str| format!("/v2.0/subnetpools/{}/{operation}", text(id));
    let body = json!({ "prefixes": ["192.0.3.0/24"] });
    let added = admin.put(&path("add_prefixes"), &body).await.ok();
    assert_eq!(added["prefixes"], json!(["10.0.0.0/22", "192.0.2.0/23"]));
    let body = json!({ "prefixes": ["10.0.0.0/23", "198.51.100.0/24"] });
    let left = admin.put(&path("remove_prefixes"), &body).await.ok();
    assert_eq!(left["prefixes"], json!(["10.0.2.0/23", "192.0.2.0/23"]));
    for wrong in [
        json!({}),
        json!({ "prefixes": "10.0.0.0/8" }),
        json!({ "prefixes": ["x"] }),
    ] {
        for operation in ["add_prefixes", "remove_prefixes"] {
            let refused = admin.put(&path(operation), &wrong).await;
            refused.error(400, "HTTPBadRequest");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_a_pool_is_refused() {
    let api = Api::start().await;
    let admin = api.admin().await;
    for (body, kind) in [
        (json!({ "prefixes": ["10.0.0.0/8"] }), "HTTPBadRequest"),
        (
            json!({ "name": " ", "prefixes": ["10.0.0.0/8"] }),
            "HTTPBadRequest",
        ),
        (
            json!({ "name": "p", "prefixes": ["::ffff:0:0/96"] }),
            "HTTPBadRequest",
        ),
        (
            json!({ "name": "p", "prefixes": [] }),
            "EmptySubnetPoolPrefixList",
        ),
        (
            json!({ "name": "p", "prefixes": ["10.0.0.0/8", "fd00::/48"] }),
            "PrefixVersionMismatch",
        ),
        (
            json!({ "name": "p", "prefixes": ["10.0.0.0/8"], "max_prefixlen": 33 }),
            "IllegalSubnetPoolPrefixBounds",
        ),
        (
            json!({ "name": "p", "prefixes": ["10.0.0.0/8"], "min_prefixlen": 24, "default_prefixlen": 20 }),
            "IllegalSubnetPoolPrefixBounds",
        ),
    ] {
        admin
            .create_refused("subnetpool", body)
            .await
            .error(400, kind);
    }
}

#[tokio::test]
async fn subnets_get_the_first_free_block_and_give_it_back() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let pool = pool(
        &admin,
        json!(["10.0.0.0/24"]),
        json!({ "default_prefixlen": 26 }),
    )
    .await;
    let id = &pool["id"];
    let mut subnets = Vec::new();
    for n in 0..3 {
        let subnet = cut(&admin, id, json!({})).await.expect(201)["subnet"].clone();
        assert_eq!(subnet["cidr"], format!("10.0.0.{}/26", n * 64));
        assert_eq!(subnet["subnetpool_id"], *id);
        subnets.push(subnet);
    }
    let small = cut(&admin, id, json!({ "prefixlen": 28 }))
        .await
        .expect(201);
    assert_eq!(small["subnet"]["cidr"], "10.0.0.192/28");
    cut(&admin, id, json!({}))
        .await
        .error(409, "SubnetAllocationError");
    assert_eq!(admin.remove("subnet", &subnets[1]["id"]).await.status, 204);
    let again = cut(&admin, id, json!({})).await.expect(201);
    assert_eq!(again["subnet"]["cidr"], "10.0.0.64/26");

    let named = cut(&admin, id, json!({ "cidr": "10.0.0.224/27" }))
        .await
        .expect(201);
    assert_eq!(named["subnet"]["gateway_ip"], "10.0.0.225");
    for cidr in ["10.0.0.224/27", "10.0.0.192/27", "10.0.1.0/26"] {
        let refused = cut(&admin, id, json!({ "cidr": cidr })).await;
        refused.error(409, "SubnetAllocationError");
    }
    let gone = json!({ "prefixes": ["10.0.0.240/28"] });
    let path = format!("/v2.0/subnetpools/{}/remove_prefixes", text(id));
    admin
        .put(&path, &gone)
        .await
        .error(400, "IllegalSubnetPoolPrefixUpdate");
    admin
        .remove("subnetpool", id)
        .await
        .error(400, "SubnetPoolDeleteError");
}

#[tokio::test]
async fn a_network_gone_gives_its_ranges_back() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let pool = pool(&admin, json!(["fd00::/63"]), json!({})).await;
    for _ in 0..3 {
        let network = network(&admin).await;
        for cidr in ["fd00::/64", "fd00:0:0:1::/64"] {
            let body =
                json!({ "network_id": network, "ip_version": 6, "subnetpool_id": pool["id"] });
            assert_eq!(admin.create("subnet", body).await["cidr"], cidr);
        }
        assert_eq!(admin.remove("network", &network).await.status, 204);
    }
    assert_eq!(admin.remove("subnetpool", &pool["id"]).await.status, 204);
}

#[tokio::test]
async fn lengths_and_quotas_hold() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let bounds = json!({ "min_prefixlen": 24, "max_prefixlen": 28, "default_quota": 48 });
    let pool = pool(&admin, json!(["10.0.0.0/16"]), bounds).await;
    let id = &pool["id"];
    let with = |prefixlen: i64| json!({ "prefixlen": prefixlen });
    cut(&admin, id, with(29))
        .await
        .error(400, "MaxPrefixSubnetAllocationError");
    cut(&admin, id, with(23))
        .await
        .error(400, "MinPrefixSubnetAllocationError");
    cut(&admin, id, with(26))
        .await
        .error(409, "SubnetPoolQuotaExceeded");
    cut(&admin, id, with(27)).await.expect(201);
    cut(&admin, id, with(28)).await.expect(201);
    cut(&admin, id, with(28))
        .await
        .error(409, "SubnetPoolQuotaExceeded");
    // What is wrong with the request is said before anything is taken.
    for (more, kind) in [
        (json!({ "ip_version": 6 }), "BadRequest"),
        (
            json!({ "cidr": "10.0.9.0/28", "prefixlen": 28 }),
            "BadRequest",
        ),
        (json!({ "use_default_subnetpool": true }), "BadRequest"),
        (
            json!({ "allocation_pools": [{ "start": "10.0.0.2", "end": "10.0.0.3" }] }),
            "BadRequest",
        ),
    ] {
        cut(&admin, id, more).await.error(400, kind);
    }
}

#[tokio::test]
async fn the_default_pool_is_one_a_family() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let default = json!({ "is_default": true, "shared": true, "default_prefixlen": 26 });
    let first = pool(&admin, json!(["10.0.0.0/16"]), default.clone()).await;
    let second = json!({ "name": "p", "prefixes": ["10.1.0.0/16"], "is_default": true });
    let refused = admin.create_refused("subnetpool", second.clone()).await;
    refused.error(400, "InvalidInput");
    let refused = member.create_refused("subnetpool", second).await;
    refused.error(403, "PolicyNotAuthorized");
    let body = json!({
        "network_id": network(&member).await,
        "ip_version": 4,
        "use_default_subnetpool": true,
    });
    let subnet = member.create("subnet", body.clone()).await;
    assert_eq!(
        (&subnet["cidr"], &subnet["subnetpool_id"]),
        (&json!("10.0.0.0/26"), &first["id"])
    );
    let mut v6 = body;
    v6["ip_version"] = 6.into();
    member
        .create_refused("subnet", v6)
        .await
        .error(400, "BadRequest");
}

#[tokio::test]
async fn one_network_one_pool_or_scope() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let scope = json!({ "name": "s", "ip_version": 4 });
    let scope = admin.create("address_scope", scope).await["id"].clone();
    let in_scope = json!({ "address_scope_id": scope, "default_prefixlen": 26 });
    let a = pool(&admin, json!(["10.0.0.0/16"]), in_scope.clone()).await;
    let b = pool(&admin, json!(["10.1.0.0/16"]), in_scope).await;
    let apart = pool(
        &admin,
        json!(["10.2.0.0/16"]),
        json!({ "default_prefixlen": 26 }),
    )
    .await;
    let overlapping =
        json!({ "name": "p", "prefixes": ["10.1.2.0/24"], "address_scope_id": scope });
    let refused = admin.create_refused("subnetpool", overlapping).await;
    refused.error(409, "AddressScopePrefixConflict");

    let network = network(&admin).await;
    let from = |pool: &Value| json!({ "network_id": network, "ip_version": 4, "subnetpool_id": pool["id"] });
    admin.create("subnet", from(&a)).await;
    admin.create("subnet", from(&b)).await;
    let shown = admin.show("network", &network).await;
    assert_eq!(
        (&shown["ipv4_address_scope"], &shown["ipv6_address_scope"]),
        (&scope, &Value::Null)
    );
    let refused = admin.create_refused("subnet", from(&apart)).await;
    refused.error(400, "NetworkAddressScopeAffinityError");
    let unscoped = json!({ "address_scope_id": null });
    let refused = admin.update("subnetpool", &a["id"], unscoped).await;
    refused.error(400, "NetworkAddressScopeAffinityError");
    admin
        .remove("address_scope", &scope)
        .await
        .error(409, "AddressScopeInUse");
}

#[tokio::test]
async fn subnets_come_on_board() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let (net, subnet) = member.network_with_subnet("n", "192.0.2.0/24").await;
    let pool = pool(&member, json!(["10.0.0.0/16"]), json!({})).await;
    let path = format!(
        "/v2.0/subnetpools/{}/onboard_network_subnets",
        text(&pool["id"])
    );
    let body = json!({ "network_id": net["id"] });
    let onboarded = member.put(&path, &body).await.ok();
    assert_eq!(
        onboarded,
        json!([{ "id": subnet["id"], "cidr": "192.0.2.0/24" }])
    );
    let shown = member.show("subnet", &subnet["id"]).await;
    assert_eq!(shown["subnetpool_id"], pool["id"]);
    let shown = member.show("subnetpool", &pool["id"]).await;
    assert_eq!(shown["prefixes"], json!(["10.0.0.0/16", "192.0.2.0/24"]));
    let again = member.put(&path, &body).await;
    again.error(400, "IllegalSubnetPoolUpdate");
    let (others, _) = admin.network_with_subnet("m", "198.51.100.0/24").await;
    let body = json!({ "network_id": others["id"] });
    member.put(&path, &body).await.error(404, "NetworkNotFound");
}

#[tokio::test]
async fn only_who_may_uses_it() {
    let api = Api::start().await;
    let (owner, other) = (
        api.user("p1", "member").await,
        api.user("p2", "member").await,
    );
    let reader = api.user("p1", "reader").await;
    let mine = pool(
        &owner,
        json!(["10.0.0.0/16"]),
        json!({ "default_prefixlen": 26 }),
    )
    .await;
    cut(&other, &mine["id"], json!({}))
        .await
        .error(404, "SubnetPoolNotFound");
    other
        .remove("subnetpool", &mine["id"])
        .await
        .error(404, "SubnetPoolNotFound");
    let path = format!("/v2.0/subnetpools/{}/add_prefixes", text(&mine["id"]));
    let body = json!({ "prefixes": ["192.0.2.0/24"] });
    other
        .put(&path, &body)
        .await
        .error(404, "SubnetPoolNotFound");
    reader
        .put(&path, &body)
        .await
        .error(403, "PolicyNotAuthorized");
    reader
        .update("subnetpool", &mine["id"], json!({ "name": "x" }))
        .await
        .error(403, "PolicyNotAuthorized");
    assert!(other.list("subnetpool", "").await.is_empty());
    assert_eq!(reader.list("subnetpool", "ip_version=4").await.len(), 1);
}
