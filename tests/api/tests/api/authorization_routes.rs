//! Every route has its place here: who is refused there, and a try that shows it. A route that is not listed makes the
//! test fail, and so does a resource that [`scene`] does not make.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use weft_control::http::{Access, Operation, Route, routes};
use weft_tests_api::{Api, Session, text};

/// Who is refused at a route that is none of the five operations of a resource, nor a tag's.
#[derive(Clone, Copy)]
enum Guard {
    /// Says the same to everybody who has a token.
    Document,
    /// Refuses who may not change the item of this resource; the body is good.
    Item(&'static str, &'static str),
    /// Refuses all but admins.
    Admin,
    /// The same, for an item of this resource; the body is good.
    AdminOf(&'static str, &'static str),
    /// Refuses all but services, and for reading admins; the path is a port's, and the body is good.
    Service(&'static str),
    /// Refuses all but the project itself and admins.
    Project,
    /// The same; and what the cloud lacks for it is said to the project with 409.
    Topology,
    /// Refuses all but admins, for the owner's network.
    Network,
    /// Shows what the caller may see, tried in `event.rs`.
    Seen,
    /// The built-in identity's own rules, tried in `identity.rs`.
    Identity,
}

/// What is no resource's own operation and no tag's, by method and path.
const ROUTES: &[(&str, &str, Guard)] = &[
    (
        "GET",
        "/v2.0/agents/{id}/dhcp-networks",
        Guard::AdminOf("agent", ""),
    ),
    (
        "POST",
        "/v2.0/agents/{id}/dhcp-networks",
        Guard::AdminOf("agent", r#"{"network_id":"NETWORK"}"#),
    ),
    (
        "DELETE",
        "/v2.0/agents/{id}/dhcp-networks/{network}",
        Guard::AdminOf("agent", ""),
    ),
    (
        "GET",
        "/v2.0/agents/{id}/l3-routers",
        Guard::AdminOf("agent", ""),
    ),
    (
        "POST",
        "/v2.0/agents/{id}/l3-routers",
        Guard::AdminOf("agent", r#"{"router_id":"ROUTER"}"#),
    ),
    (
        "DELETE",
        "/v2.0/agents/{id}/l3-routers/{router}",
        Guard::AdminOf("agent", ""),
    ),
    (
        "GET",
        "/v2.0/networks/{id}/dhcp-agents",
        Guard::AdminOf("network", ""),
    ),
    (
        "GET",
        "/v2.0/routers/{id}/l3-agents",
        Guard::AdminOf("router", ""),
    ),
    ("GET", "/v2.0/availability_zones", Guard::Document),
    (
        "GET",
        "/v2.0/auto-allocated-topology/{project}",
        Guard::Topology,
    ),
    (
        "DELETE",
        "/v2.0/auto-allocated-topology/{project}",
        Guard::Project,
    ),
    // Whoever may not see any sees an empty list: tried in `network_ip_availability.rs`.
    ("GET", "/v2.0/network-ip-availabilities", Guard::Document),
    (
        "GET",
        "/v2.0/network-ip-availabilities/{id}",
        Guard::Network,
    ),
    ("GET", "/v2.0/events", Guard::Seen),
    ("GET", "/v2.0/extensions", Guard::Document),
    ("GET", "/v2.0/flavors/{id}/next_providers", Guard::Document),
    ("GET", "/v2.0/floatingip-pools", Guard::Document),
    ("GET", "/v2.0/floatingip_pools", Guard::Document),
    ("GET", "/v2.0/service-providers", Guard::Document),
    ("GET", "/v2.0/extensions/{alias}", Guard::Document),
    ("GET", "/v2.0/log/loggable-resources", Guard::Admin),
    ("GET", "/v2.0/qos/rule-types", Guard::Document),
    ("GET", "/v2.0/qos/rule-types/{type}", Guard::Document),
    ("GET", "/v2.0/quotas", Guard::Admin),
    ("DELETE", "/v2.0/quotas/{project}", Guard::Admin),
    ("GET", "/v2.0/quotas/{project}", Guard::Project),
    ("PUT", "/v2.0/quotas/{project}", Guard::Admin),
    ("GET", "/v2.0/quotas/{project}/default", Guard::Project),
    ("GET", "/v2.0/quotas/{project}/details", Guard::Project),
    ("GET", "/v2.0/quotas/{project}/details.json", Guard::Project),
    (
        "PUT",
        "/v2.0/address-groups/{id}/add_addresses",
        Guard::Item("address_group", r#"{"addresses":["10.0.0.0/8"]}"#),
    ),
    (
        "PUT",
        "/v2.0/address-groups/{id}/remove_addresses",
        Guard::Item("address_group", r#"{"addresses":["192.0.2.0/24"]}"#),
    ),
    ("GET", "/v2.0/ports/{id}/bindings", Guard::Service("")),
    (
        "POST",
        "/v2.0/ports/{id}/bindings",
        Guard::Service(r#"{"binding":{"host":"h"}}"#),
    ),
    (
        "GET",
        "/v2.0/ports/{id}/bindings/{host}",
        Guard::Service(""),
    ),
    (
        "PUT",
        "/v2.0/ports/{id}/bindings/{host}",
        Guard::Service(r#"{"binding":{"profile":{}}}"#),
    ),
    (
        "DELETE",
        "/v2.0/ports/{id}/bindings/{host}",
        Guard::Service(""),
    ),
    (
        "PUT",
        "/v2.0/ports/{id}/bindings/{host}/activate",
        Guard::Service(""),
    ),
    (
        "PUT",
        "/v2.0/routers/{id}/add_extraroutes",
        Guard::Item("router", r#"{"router":{"routes":[]}}"#),
    ),
    (
        "PUT",
        "/v2.0/routers/{id}/remove_extraroutes",
        Guard::Item("router", r#"{"router":{"routes":[]}}"#),
    ),
    (
        "PUT",
        "/v2.0/routers/{id}/add_router_interface",
        Guard::Item("router", r#"{"subnet_id":"SUBNET"}"#),
    ),
    (
        "PUT",
        "/v2.0/routers/{id}/remove_router_interface",
        Guard::Item("router", r#"{"subnet_id":"SUBNET"}"#),
    ),
    (
        "PUT",
        "/v2.0/subnetpools/{id}/add_prefixes",
        Guard::Item("subnetpool", r#"{"prefixes":["203.0.113.0/24"]}"#),
    ),
    (
        "PUT",
        "/v2.0/subnetpools/{id}/remove_prefixes",
        Guard::Item("subnetpool", r#"{"prefixes":["203.0.113.0/24"]}"#),
    ),
    (
        "PUT",
        "/v2.0/subnetpools/{id}/onboard_network_subnets",
        Guard::Item("subnetpool", r#"{"network_id":"NETWORK"}"#),
    ),
    (
        "PUT",
        "/v2.0/trunks/{id}/add_subports",
        Guard::Item("trunk", r#"{"sub_ports":[]}"#),
    ),
    (
        "PUT",
        "/v2.0/trunks/{id}/remove_subports",
        Guard::Item("trunk", r#"{"sub_ports":[]}"#),
    ),
    (
        "GET",
        "/v2.0/trunks/{id}/get_subports",
        Guard::Item("trunk", ""),
    ),
];

/// The resources that everybody may look at; to change them is the admins'.
const GLOBAL: &[&str] = &["default_security_group_rule", "flavor"];

/// What a project has, by its resource's name in bodies: the id, and the parent's.
struct Scene {
    owner: Session,
    stranger: Session,
    admin: Session,
    things: BTreeMap<&'static str, (String, Option<String>)>,
}

impl Scene {
    fn put(&mut self, name: &'static str, thing: &Value) {
        self.things.insert(name, (text(&thing["id"]), None));
    }

    fn id(&self, name: &str) -> &str {
        &self.things[name].0
    }

    /// Makes it as the owner.
    async fn own(&mut self, name: &'static str, attributes: Value) {
        let made = self.owner.create(name, attributes).await;
        self.put(name, &made);
    }

    /// Makes it as an admin, for the owner's project.
    async fn given(&mut self, name: &'static str, path: &str, mut attributes: Value) {
        attributes["project_id"] = json!(self.owner.project_id);
        let body = json!({ name: attributes });
        let made = self.admin.post(path, &body).await.expect(201);
        self.put(name, &made[name]);
    }
}

/// One of every resource, all of them project `p1`'s.
async fn scene(api: &Api) -> Scene {
    let mut scene = Scene {
        owner: api.user("p1", "member").await,
        stranger: api.user("p2", "member").await,
        admin: api.admin().await,
        things: BTreeMap::new(),
    };
    let [_, _, agent] = api.host("h1", &[]).await;
    scene.put("agent", &agent);
    let (external, _) = scene.admin.external_network().await;
    scene.own("network", json!({})).await;
    let network = scene.id("network").to_owned();
    let cidr = json!({ "network_id": network, "ip_version": 4, "cidr": "192.0.2.0/24" });
    scene.own("subnet", cidr).await;
    scene.own("port", json!({ "network_id": network })).await;
    let parent = scene.id("port").to_owned();
    scene.own("trunk", json!({ "port_id": parent })).await;
    scene.own("router", json!({})).await;
    let floating = json!({ "floating_network_id": external["id"] });
    scene.own("floatingip", floating).await;
    let scope_4 = json!({ "name": "s", "ip_version": 4 });
    scene.own("address_scope", scope_4).await;
    let pool = json!({ "name": "p", "prefixes": ["10.0.0.0/16"] });
    scene.own("subnetpool", pool).await;
    let ranges = json!({ "addresses": ["192.0.2.0/24"] });
    scene.own("address_group", ranges).await;
    scene.own("security_group", json!({})).await;
    let group = scene.id("security_group").to_owned();
    let rule = json!({ "security_group_id": group, "direction": "ingress" });
    scene.own("security_group_rule", rule.clone()).await;
    let share = json!({
        "object_type": "network",
        "object_id": network,
        "action": "access_as_shared",
        "target_tenant": "p9",
    });
    scene.own("rbac_policy", share).await;
    let own = format!("/v2.0/segments?network_id={network}");
    let segments = scene.admin.get(&own).await.ok();
    scene.put("segment", &segments["segments"][0]);
    let numbers = json!({
        "shared": false, "network_type": "vxlan", "minimum": 5_000, "maximum": 5_010,
    });
    let ranges = "/v2.0/network-segment-ranges";
    scene.given("network_segment_range", ranges, numbers).await;
    qos(&mut scene).await;
    l3(&mut scene).await;
    ndp(&mut scene).await;
    local_ip(&mut scene).await;
    let log = json!({ "resource_type": "security_group" });
    scene.given("log", "/v2.0/log/logs", log).await;
    let setting = "security_groups_default_statefulness";
    let path = "/v2.0/security-groups-default-statefulness";
    scene.given(setting, path, json!({})).await;
    let template = json!({ "direction": "ingress" });
    let template = scene
        .admin
        .create("default_security_group_rule", template)
        .await;
    scene.put("default_security_group_rule", &template);
    scene
}

/// A QoS policy with a rule of each type, under both their paths.
async fn qos(scene: &mut Scene) {
    let policies = "/v2.0/qos/policies";
    scene.given("policy", policies, json!({})).await;
    let policy = scene.id("policy").to_owned();
    for (name, alias, attribute) in [
        (
            "bandwidth_limit_rule",
            Some("alias_bandwidth_limit_rule"),
            "max_kbps",
        ),
        ("packet_rate_limit_rule", None, "max_kpps"),
        (
            "dscp_marking_rule",
            Some("alias_dscp_marking_rule"),
            "dscp_mark",
        ),
        (
            "minimum_bandwidth_rule",
            Some("alias_minimum_bandwidth_rule"),
            "min_kbps",
        ),
        (
            "minimum_packet_rate_rule",
            Some("alias_minimum_packet_rate_rule"),
            "min_kpps",
        ),
    ] {
        let path = format!("{policies}/{policy}/{name}s");
        let body = json!({ name: { attribute: 8 } });
        let rule = scene.admin.post(&path, &body).await.expect(201)[name].clone();
        let place = (text(&rule["id"]), Some(policy.clone()));
        scene.things.insert(name, place.clone());
        scene.things.extend(alias.map(|alias| (alias, place)));
    }
}

/// What hangs on routers and floating IPs, and the services' flavors and labels.
async fn l3(scene: &mut Scene) {
    let under = async |scene: &Scene, path: String, name: &str, new: Value| {
        let body = json!({ name: new });
        let made = scene.admin.post(&path, &body).await.expect(201);
        text(&made[name]["id"])
    };
    let router = scene.id("router").to_owned();
    let path = format!("/v2.0/routers/{router}/conntrack_helpers");
    let helper = json!({ "helper": "ftp", "protocol": "tcp", "port": 21 });
    let helper = under(scene, path, "conntrack_helper", helper).await;
    let place = (helper, Some(router.clone()));
    scene.things.insert("conntrack_helper", place);

    let external = scene
        .admin
        .show("floatingip", &json!(scene.id("floatingip")))
        .await;
    let info =
        json!({ "external_gateway_info": { "network_id": external["floating_network_id"] } });
    let done = scene.owner.update("router", &json!(router), info).await;
    assert_eq!(done.status, 200, "{}", done.body);
    let (network, subnet) = scene
        .owner
        .network_with_subnet("n", "198.51.100.0/24")
        .await;
    let path = format!("/v2.0/routers/{router}/add_router_interface");
    let leg = json!({ "subnet_id": subnet["id"] });
    scene.owner.put(&path, &leg).await.ok();
    let port = json!({ "network_id": network["id"] });
    let port = scene.owner.create("port", port).await;
    let fip = scene.id("floatingip").to_owned();
    let path = format!("/v2.0/floatingips/{fip}/port_forwardings");
    let forwarding = json!({
        "internal_port_id": port["id"], "protocol": "tcp", "internal_port": 1, "external_port": 1,
    });
    let forwarding = under(scene, path, "port_forwarding", forwarding).await;
    scene
        .things
        .insert("port_forwarding", (forwarding, Some(fip)));

    let labels = "/v2.0/metering/metering-labels";
    scene.given("metering_label", labels, json!({})).await;
    let rule = json!({
        "metering_label_id": scene.id("metering_label"), "direction": "ingress", "source_ip_prefix": "10.0.0.1",
    });
    let rules = "/v2.0/metering/metering-label-rules";
    scene.given("metering_label_rule", rules, rule).await;
    let flavor = json!({ "service_type": "L3_ROUTER_NAT" });
    let flavor = scene.admin.create("flavor", flavor).await;
    scene.put("flavor", &flavor);
    let profile = json!({ "metainfo": "{}" });
    let path = "/v2.0/service_profiles".to_owned();
    let profile = under(scene, path, "service_profile", profile).await;
    let path = format!("/v2.0/flavors/{}/service_profiles", scene.id("flavor"));
    under(scene, path, "service_profile", json!({ "id": profile })).await;
    let place = (profile, Some(text(&flavor["id"])));
    scene.things.insert("service_profile", place);
}

/// An NDP proxy: a router, outside and inside of one address scope.
async fn ndp(scene: &mut Scene) {
    let space = json!({ "name": "s6", "ip_version": 6 });
    let space = scene.admin.create("address_scope", space).await;
    let pool = json!({
        "name": "p6", "prefixes": ["2001:db8::/48"], "default_prefixlen": 64,
        "address_scope_id": space["id"],
    });
    let pool = scene.admin.create("subnetpool", pool).await;
    let mut networks = Vec::new();
    for external in [true, false] {
        let network = json!({ "router:external": external });
        let network = scene.admin.create("network", network).await;
        let subnet =
            json!({ "network_id": network["id"], "ip_version": 6, "subnetpool_id": pool["id"] });
        networks.push((network, scene.admin.create("subnet", subnet).await));
    }
    let info = json!({ "network_id": networks[0].0["id"] });
    let router = json!({ "external_gateway_info": info, "enable_ndp_proxy": true });
    let router = scene.admin.create("router", router).await;
    let path = format!("/v2.0/routers/{}/add_router_interface", text(&router["id"]));
    let leg = json!({ "subnet_id": networks[1].1["id"] });
    scene.admin.put(&path, &leg).await.ok();
    let port = json!({ "network_id": networks[1].0["id"] });
    let port = scene.admin.create("port", port).await;
    let new = json!({ "router_id": router["id"], "port_id": port["id"] });
    scene.given("ndp_proxy", "/v2.0/ndp_proxies", new).await;
}

/// A local IP, and a port that stands for it.
async fn local_ip(scene: &mut Scene) {
    let new = json!({ "network_id": scene.id("network") });
    scene.given("local_ip", "/v2.0/local_ips", new).await;
    let ip = scene.id("local_ip").to_owned();
    let port = scene.id("port").to_owned();
    let body = json!({ "port_association": { "fixed_port_id": port } });
    let path = format!("/v2.0/local_ips/{ip}/port_associations");
    scene.admin.post(&path, &body).await.expect(201);
    scene.things.insert("port_association", (port, Some(ip)));
}

fn name_of(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

fn guard_of(route: &Route) -> Option<Guard> {
    if route.path.starts_with("/identity") {
        return Some(Guard::Identity);
    }
    ROUTES
        .iter()
        .find(|(method, path, _)| *method == route.method.as_str() && *path == route.path)
        .map(|(_, _, guard)| *guard)
}

fn is_tags(route: &Route) -> bool {
    route.path.ends_with("/tags") || route.path.ends_with("/tags/{tag}")
}

#[test]
fn every_route_has_its_place() {
    let guarded: Vec<Route> = routes()
        .into_iter()
        .filter(|route| route.access == Access::Token)
        .collect();
    for route in &guarded {
        assert!(
            route.shape.is_some() || is_tags(route) || guard_of(route).is_some(),
            "{}: list it in ROUTES, and say who is refused there",
            name_of(route)
        );
    }
    let known: BTreeSet<String> = guarded.iter().map(name_of).collect();
    for (method, path, _) in ROUTES {
        assert!(
            known.contains(&format!("{method} {path}")),
            "{method} {path}"
        );
    }
}

/// The path with the thing's own ids; `collection` is whether it ends at the parent.
fn path_to(route: &Route, scene: &Scene, name: &str) -> String {
    let (id, parent) = &scene.things[name];
    let parent = parent.as_deref().unwrap_or_default();
    route
        .path
        .replace("{parent}", parent)
        .replace("{id}", id)
        .replace("{tag}", "t")
}

#[tokio::test]
async fn what_is_not_ones_own_is_not_there() {
    let api = Api::start().await;
    let scene = scene(&api).await;
    let shaped = routes().into_iter().filter(|route| route.shape.is_some());
    for route in shaped {
        let Some((operation, shape)) = route.shape else {
            continue;
        };
        let name = shape.name;
        assert!(
            scene.things.contains_key(name),
            "{name}: let scene() make one"
        );
        let path = path_to(&route, &scene, name);
        let global = GLOBAL.contains(&name);
        let body = json!({ shape.name: {} }).to_string().into_bytes();
        let by = async |session: &Session| {
            session
                .send(route.method.as_str(), &path, body.clone())
                .await
        };
        let refused = match operation {
            Operation::List => {
                let answer = by(&scene.stranger).await;
                let seen = answer.body.to_string().contains(scene.id(name));
                assert!(global || !seen, "{}: {}", name_of(&route), answer.body);
                continue;
            }
            // What it takes to make one differs; those who may only read are tried in `readers_read_only`.
            Operation::Create => continue,
            Operation::Show if global => continue,
            Operation::Show => vec![404],
            Operation::Update | Operation::Delete => vec![403, 404],
        };
        let answer = by(&scene.stranger).await;
        assert!(
            refused.contains(&answer.status),
            "{}: {}",
            name_of(&route),
            answer.body
        );
        // And it is there: the same request is none to refuse for an admin.
        if operation == Operation::Show {
            assert_eq!(by(&scene.admin).await.status, 200, "{}", name_of(&route));
        }
    }
}

#[tokio::test]
async fn tags_of_others_cannot_be_read_or_changed() {
    let api = Api::start().await;
    let scene = scene(&api).await;
    let all = routes();
    for route in all.iter().filter(|route| is_tags(route)) {
        // Tags of QoS policies and segment ranges are under another path too.
        let item = match route.path.split("/tags").next().unwrap_or_default() {
            "/v2.0/policies/{id}" => "/v2.0/qos/policies/{id}",
            "/v2.0/network_segment_ranges/{id}" => "/v2.0/network-segment-ranges/{id}",
            item => item,
        };
        let shape = all
            .iter()
            .find(|other| other.path == item)
            .and_then(|other| other.shape);
        let name = shape.map(|(_, shape)| shape.name).expect("a resource's");
        let path = path_to(route, &scene, name);
        let body = br#"{"tags":["t"]}"#.to_vec();
        let answer = scene
            .stranger
            .send(route.method.as_str(), &path, body)
            .await;
        assert_eq!(answer.status, 404, "{}: {}", name_of(route), answer.body);
    }
}

#[tokio::test]
async fn other_operations_refuse_whom_they_should() {
    let api = Api::start().await;
    let scene = scene(&api).await;
    let (subnet, network) = (scene.id("subnet"), scene.id("network"));
    for (method, path, guard) in ROUTES {
        let project = &scene.owner.project_id;
        let (path, body) = match guard {
            Guard::Document | Guard::Seen | Guard::Identity => continue,
            Guard::Item(name, body) => (path.replace("{id}", scene.id(name)), *body),
            Guard::AdminOf(name, body) => {
                let path = path.replace("{network}", network);
                let path = path.replace("{router}", scene.id("router"));
                (path.replace("{id}", scene.id(name)), *body)
            }
            Guard::Network => (path.replace("{id}", network), ""),
            Guard::Service(body) => (path.replace("{id}", scene.id("port")), *body),
            Guard::Admin | Guard::Project | Guard::Topology => {
                (path.replace("{project}", project), r#"{"quota":{}}"#)
            }
        };
        let body = body.replace("SUBNET", subnet).replace("NETWORK", network);
        let body = body.replace("ROUTER", scene.id("router"));
        let body = body.into_bytes();
        let answer = scene.stranger.send(method, &path, body.clone()).await;
        assert!(
            [403, 404].contains(&answer.status),
            "{method} {path}: {}",
            answer.body
        );
        let answer = scene.owner.send(method, &path, body).await;
        if matches!(guard, Guard::Topology) {
            assert_eq!(answer.status, 409, "{method} {path}: {}", answer.body);
            continue;
        }
        let owner_may = matches!(guard, Guard::Project | Guard::Item(..));
        assert_eq!(
            answer.status < 300,
            owner_may,
            "{method} {path}: {}",
            answer.body
        );
    }
}
