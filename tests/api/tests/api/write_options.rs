//! What may be asked of any write: to try it only, or to wait until hosts enforce it.

use serde_json::{Value, json};
use weft_tests_api::{Api, Session, text};

/// A host's agent, as far as the server can tell.
pub(crate) struct Agent {
    session: Session,
    host: &'static str,
}

impl Agent {
    /// One that has asked for its host's duty.
    pub(crate) async fn new(api: &Api, host: &'static str) -> Self {
        let session = api.agent();
        let agent = Self { session, host };
        agent.report(0).await;
        agent
    }

    /// What the server knows of all hosts.
    async fn hosts(&self) -> Value {
        self.session.get("/feed/v1/hosts").await.ok()
    }

    async fn report(&self, revision: u64) {
        let epoch = self.hosts().await["epoch"].clone();
        let report = json!({
            "host": self.host,
            "epoch": epoch,
            "revision": revision,
            "ports": [],
            "full": false,
        });
        let path = format!("/feed/v1/hosts/{}/report", self.host);
        let answer = self.session.post(&path, &report).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    /// Says that it enforces what it was told, as often as it is told something new, for ever.
    pub(crate) async fn obey(&self) {
        let mut told = 0;
        loop {
            let hosts = self.hosts().await;
            let hosts = hosts["hosts"].as_array().expect("a list");
            let own = hosts.iter().find(|host| host["host"] == self.host);
            let revision = own.and_then(|own| own["revision"].as_u64()).unwrap_or(0);
            if revision > told {
                self.report(revision).await;
                told = revision;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// A guest's port on a new network.
pub(crate) async fn port_body(admin: &Session, host: &str) -> Value {
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    json!({ "port": {
        "network_id": network["id"],
        "binding:host_id": host,
        "device_owner": "compute:nova",
    } })
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_what_would_change() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let body = port_body(&admin, "h1").await;
    let before = admin.list("port", "").await.len();
    let tried = admin.post("/v2.0/ports?dry_run=true", &body).await.ok();
    assert_eq!(tried["dry_run"]["hosts"], json!(["h1"]));
    assert!(tried["port"]["fixed_ips"][0]["ip_address"].is_string());
    let resources = tried["dry_run"]["resources"].as_array().expect("a list");
    let port = json!({ "resource": "port", "id": tried["port"]["id"], "change": "created" });
    assert!(resources.contains(&port), "{tried}");
    assert_eq!(admin.list("port", "").await.len(), before);
    let made = admin.post("/v2.0/ports", &body).await.expect(201)["port"].clone();
    // No address was taken by the try.
    assert_eq!(
        made["fixed_ips"][0]["ip_address"],
        tried["port"]["fixed_ips"][0]["ip_address"]
    );
    let one = format!("/v2.0/ports/{}", text(&made["id"]));
    let rename = json!({ "port": { "name": "x" } });
    let renamed = admin
        .put(&format!("{one}?dry_run=true"), &rename)
        .await
        .ok();
    assert_eq!(renamed["port"]["name"], "x");
    assert_eq!(
        renamed["dry_run"]["hosts"],
        json!([]),
        "a name is no host's duty"
    );
    assert_eq!(admin.show("port", &made["id"]).await["name"], "");
    let gone = admin.delete(&format!("{one}?dry_run=true")).await.ok();
    let port = json!({ "resource": "port", "id": made["id"], "change": "deleted" });
    assert_eq!(gone["dry_run"]["resources"], json!([port]));
    assert_eq!(gone["dry_run"]["hosts"], json!(["h1"]));
    admin.show("port", &made["id"]).await;
}

#[tokio::test]
async fn a_dry_run_is_refused_as_the_write_would_be_and_shows_members_no_hosts() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let body = port_body(&admin, "h1").await;
    let made = admin.post("/v2.0/ports", &body).await.expect(201)["port"].clone();
    let foreign = format!("/v2.0/ports/{}?dry_run=true", text(&made["id"]));
    member.delete(&foreign).await.error(404, "PortNotFound");
    let wrong = json!({ "network": { "mtu": "wide" } });
    let refused = member.post("/v2.0/networks?dry_run=true", &wrong).await;
    refused.error(400, "HTTPBadRequest");
    let network = json!({ "network": { "name": "n" } });
    let tried = member
        .post("/v2.0/networks?dry_run=true", &network)
        .await
        .ok();
    assert_eq!(tried["dry_run"]["hosts_count"], 0);
    assert!(tried["dry_run"].get("hosts").is_none(), "{tried}");
    assert_eq!(member.list("network", "").await.len(), 0);
    for query in [
        "dry_run=perhaps",
        "wait_for=rain",
        "dry_run=true&wait_for=enforced",
    ] {
        let refused = member
            .post(&format!("/v2.0/networks?{query}"), &network)
            .await;
        refused.error(400, "HTTPBadRequest");
    }
    // Other operations than the five can be tried too.
    let router = member.create("router", json!({})).await;
    let own = json!({ "network": {} });
    let own = member.post("/v2.0/networks", &own).await.expect(201)["network"].clone();
    let subnet = json!({ "network_id": own["id"], "ip_version": 4, "cidr": "198.51.100.0/24" });
    let subnet = member.create("subnet", subnet).await;
    let path = format!(
        "/v2.0/routers/{}/add_router_interface?dry_run=true",
        text(&router["id"])
    );
    let leg = json!({ "subnet_id": subnet["id"] });
    let tried = member.put(&path, &leg).await.ok();
    assert!(
        !tried["dry_run"]["resources"]
            .as_array()
            .expect("a list")
            .is_empty()
    );
    assert_eq!(member.list("port", "").await.len(), 0);
}

#[tokio::test]
async fn a_write_can_wait_until_its_host_enforces_it() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let member = api.user("p1", "member").await;
    let agent = Agent::new(&api, "h1").await;
    let body = port_body(&admin, "h1").await;
    let write = admin.post("/v2.0/ports?wait_for=enforced&wait_timeout=20", &body);
    let answer = tokio::select! {
        answer = write => answer,
        () = agent.obey() => unreachable!("it obeys for ever"),
    };
    assert_eq!(answer.header("weft-enforced"), "true");
    let port = answer.expect(201)["port"].clone();
    // A host that says nothing is named when the time is over; the write is done all the same.
    let one = format!(
        "/v2.0/ports/{}?wait_for=enforced&wait_timeout=0",
        text(&port["id"])
    );
    let down = json!({ "port": { "admin_state_up": false } });
    let answer = admin.put(&one, &down).await;
    assert_eq!(answer.header("weft-enforced"), "false");
    assert_eq!(answer.header("weft-not-enforced"), "h1");
    assert_eq!(answer.ok()["port"]["admin_state_up"], false);
    // What no host is concerned by does not wait for it.
    let network = json!({ "network": {} });
    let path = "/v2.0/networks?wait_for=enforced&wait_timeout=20";
    let answer = member.post(path, &network).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.header("weft-enforced"), "true");
    assert_eq!(answer.header("weft-not-enforced"), "");
}

#[tokio::test]
async fn a_host_whose_agent_never_came_does_not_enforce() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let body = port_body(&admin, "h9").await;
    let path = "/v2.0/ports?wait_for=enforced&wait_timeout=1";
    let answer = admin.post(path, &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.header("weft-enforced"), "false");
    assert_eq!(answer.header("weft-not-enforced"), "h9");
}
