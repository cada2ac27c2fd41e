//! NDP proxies, and the routers that answer for them.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

struct Scene {
    pool: Value,
    external: Value,
    router: Value,
    subnet: Value,
    port: Value,
}

async fn subnet(session: &Session, network: &Value, cidr: &str, pool: Option<&Value>) -> Value {
    let mut new = json!({ "network_id": network["id"], "ip_version": 6, "cidr": cidr });
    if let Some(pool) = pool {
        new["subnetpool_id"] = pool["id"].clone();
    }
    session.create("subnet", new).await
}

async fn interface(session: &Session, router: &Value, action: &str, subnet: &Value) -> u16 {
    let path = format!(
        "/v2.0/routers/{}/{action}_router_interface",
        text(&router["id"])
    );
    let body = json!({ "subnet_id": subnet["id"] });
    session.put(&path, &body).await.status
}

/// A shared pool of an address scope, with a subnet outside and one inside.
async fn scene(admin: &Session, member: &Session) -> Scene {
    let scope = json!({ "name": "s", "ip_version": 6, "shared": true });
    let scope = admin.create("address_scope", scope).await;
    let pool = json!({
        "name": "p", "prefixes": ["2001:db8::/48"], "default_prefixlen": 64,
        "address_scope_id": scope["id"], "shared": true,
    });
    let pool = admin.create("subnetpool", pool).await;
    let external = json!({ "router:external": true });
    let external = admin.create("network", external).await;
    subnet(admin, &external, "2001:db8:0:1::/64", Some(&pool)).await;
    let info = json!({ "external_gateway_info": { "network_id": external["id"] } });
    let router = member.create("router", info).await;
    let network = member.create("network", json!({})).await;
    let inside = subnet(member, &network, "2001:db8:0:2::/64", Some(&pool)).await;
    assert_eq!(interface(member, &router, "add", &inside).await, 200);
    let port = json!({ "network_id": network["id"] });
    let port = member.create("port", port).await;
    Scene {
        pool,
        external,
        router,
        subnet: inside,
        port,
    }
}

async fn post(session: &Session, router: &Value, more: Value) -> weft_tests_api::Answer {
    let mut new = json!({ "router_id": router["id"] });
    new.as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let new = json!({ "ndp_proxy": new });
    session.post("/v2.0/ndp_proxies", &new).await
}

#[tokio::test]
async fn a_router_answers_outside_for_addresses_inside() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    assert_eq!(s.router["enable_ndp_proxy"], false);
    let of_port = json!({ "port_id": s.port["id"] });
    let refused = post(&member, &s.router, of_port.clone()).await;
    refused.error(409, "RouterNDPProxyNotEnable");
    let on = json!({ "enable_ndp_proxy": true });
    let router = member.update("router", &s.router["id"], on).await.ok();
    assert_eq!(router["router"]["enable_ndp_proxy"], true);
    let made = post(&member, &s.router, of_port).await;
    assert_eq!(made.warning(), "");
    let made = made.expect(201)["ndp_proxy"].clone();
    assert_eq!(made["ip_address"], s.port["fixed_ips"][0]["ip_address"]);

    let none = json!({ "external_gateway_info": null });
    let refused = member.update("router", &s.router["id"], none.clone()).await;
    refused.error(409, "RouterGatewayInUseByNDPProxy");
    let refused = interface(&member, &s.router, "remove", &s.subnet).await;
    assert_eq!(refused, 409);
    let wrong = json!({ "port_id": s.port["id"], "ip_address": "2001:db8::99" });
    let refused = post(&member, &s.router, wrong).await;
    refused.error(400, "InvalidAddress");

    let path = format!("/v2.0/ndp_proxies/{}", text(&made["id"]));
    let named = json!({ "ndp_proxy": { "name": "n" } });
    assert_eq!(
        member.put(&path, &named).await.ok()["ndp_proxy"]["name"],
        "n"
    );
    assert_eq!(member.remove("port", &s.port["id"]).await.status, 204);
    member.get(&path).await.error(404, "NDPProxyNotFound");
    let off = member.update("router", &s.router["id"], none).await.ok();
    assert_eq!(off["router"]["enable_ndp_proxy"], false);
}

#[tokio::test]
async fn inside_and_outside_must_be_of_one_scope() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let s = scene(&admin, &member).await;
    let on = json!({ "enable_ndp_proxy": true });
    member.update("router", &s.router["id"], on).await.ok();
    let network = member.create("network", json!({})).await;
    let other = subnet(&member, &network, "fd00::/64", None).await;
    let port = member
        .create("port", json!({ "network_id": network["id"] }))
        .await;
    let of_port = json!({ "port_id": port["id"] });
    let refused = post(&member, &s.router, of_port.clone()).await;
    refused.error(409, "PortUnreachableRouter");
    assert_eq!(interface(&member, &s.router, "add", &other).await, 200);
    let refused = post(&member, &s.router, of_port).await;
    refused.error(409, "AddressScopeConflict");

    let unscoped = admin
        .create("network", json!({ "router:external": true }))
        .await;
    subnet(&admin, &unscoped, "2001:db8:1::/64", None).await;
    for network in [Value::Null, unscoped["id"].clone()] {
        let info = match &network {
            Value::Null => Value::Null,
            id => json!({ "network_id": id }),
        };
        let new = json!({ "enable_ndp_proxy": true, "external_gateway_info": info });
        let refused = member.create_refused("router", new).await;
        refused.error(409, "RouterGatewayNotValid");
    }
    let good = json!({
        "enable_ndp_proxy": true, "external_gateway_info": { "network_id": s.external["id"] },
    });
    let router = member.create("router", good).await;
    assert_eq!(router["enable_ndp_proxy"], true);
    assert_eq!(router["revision_number"], 1);
    assert!(s.pool["id"].is_string());
}

#[tokio::test]
async fn others_do_not_see_them() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let other = api.user("p2", "member").await;
    let s = scene(&admin, &member).await;
    let on = json!({ "enable_ndp_proxy": true });
    member.update("router", &s.router["id"], on).await.ok();
    let of_port = json!({ "port_id": s.port["id"] });
    let refused = post(&other, &s.router, of_port.clone()).await;
    refused.error(404, "PortNotFound");
    let made = post(&member, &s.router, of_port).await.expect(201);
    let path = format!("/v2.0/ndp_proxies/{}", text(&made["ndp_proxy"]["id"]));
    other.get(&path).await.error(404, "NDPProxyNotFound");
    other.delete(&path).await.error(404, "NDPProxyNotFound");
    let list = other.get("/v2.0/ndp_proxies").await.ok();
    assert_eq!(list["ndp_proxies"], json!([]));
    assert_eq!(member.delete(&path).await.status, 204);
}
