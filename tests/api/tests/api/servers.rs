//! Several servers on one PostgreSQL, with no state of their own.

use crate::write_options::{Agent, port_body};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use weft_tests_api::postgresql::Database;
use weft_tests_api::{Api, Storage, text};

const DEADLINE: Duration = Duration::from_secs(20);

struct Two {
    a: Api,
    b: Api,
    // Dropped last.
    _storage: Storage,
}

async fn two() -> Two {
    let storage = Storage::Postgresql(Database::create());
    // At the same time: only one migrates, and only one makes the administrator.
    let (a, b) = tokio::join!(Api::start_on(&storage), Api::start_on(&storage));
    Two {
        a,
        b,
        _storage: storage,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_on_one_is_seen_on_the_other() {
    let two = two().await;
    let (a, b) = (two.a.admin().await, two.b.admin().await);
    assert_eq!(a.project_id, b.project_id);
    // A token of one is good for the other.
    let a = a.at(&two.b);
    let (network, subnet) = a.network_with_subnet("n", "192.0.2.0/26").await;
    assert_eq!(b.show("network", &network["id"]).await["name"], "n");
    let changed = b
        .update("subnet", &subnet["id"], json!({ "name": "s" }))
        .await;
    assert_eq!(changed.status, 200);
    assert_eq!(a.show("subnet", &subnet["id"]).await["name"], "s");
    assert_eq!(a.remove("network", &network["id"]).await.status, 204);
    assert!(b.list("network", "name=n").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_by_both() {
    let two = two().await;
    let (a, b) = (two.a.admin().await, two.b.admin().await);
    let (network, _) = a.network_with_subnet("n", "192.0.2.0/26").await;
    let new = json!({ "port": { "network_id": network["id"] } });
    let answers =
        join_all((0..80).map(|n| if n % 2 == 0 { &a } else { &b }.post("/v2.0/ports", &new))).await;
    let made: Vec<&Value> = answers
        .iter()
        .filter(|a| a.status == 201)
        .map(|a| &a.body)
        .collect();
    let addresses: BTreeSet<String> = made
        .iter()
        .map(|body| text(&body["port"]["fixed_ips"][0]["ip_address"]))
        .collect();
    // All of them, each once; the gateway has the 62nd.
    assert_eq!((made.len(), addresses.len()), (61, 61));
    assert!(answers.iter().all(|a| a.status == 201 || a.status == 409));
    assert_eq!(b.list("port", "").await.len(), 61);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_bound_on_one_reaches_an_agent_of_the_other() {
    let two = two().await;
    let a = two.a.admin().await;
    let (network, _) = a.network_with_subnet("n", "192.0.2.0/26").await;
    let watch = format!("{}/feed/v1/hosts/h1/watch", two.b.feed_url);
    let mut feed = reqwest::get(watch).await.expect("a stream");
    let first = feed.chunk().await.expect("a message").expect("a message");
    let port = json!({
        "network_id": network["id"],
        "device_owner": "compute:nova",
        "device_id": "guest",
        "binding:host_id": "h1",
    });
    let port = text(&a.create("port", port).await["id"]);
    let mut said = String::from_utf8_lossy(&first).into_owned();
    assert!(!said.contains(&port));
    let told = async {
        while !said.contains(&port) {
            let more = feed
                .chunk()
                .await
                .expect("a message")
                .expect("an open stream");
            said.push_str(&String::from_utf8_lossy(&more));
        }
    };
    tokio::time::timeout(DEADLINE, told)
        .await
        .expect("the agent is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_one_waits_for_an_agent_of_the_other() {
    let two = two().await;
    let a = two.a.admin().await;
    // Its stream stays open: it follows the second server.
    let watch = format!("{}/feed/v1/hosts/h1/watch", two.b.feed_url);
    let _feed = reqwest::get(watch).await.expect("a stream");
    let agent = Agent::new(&two.b, "h1").await;
    let body = port_body(&a, "h1").await;
    let write = a.post("/v2.0/ports?wait_for=enforced&wait_timeout=20", &body);
    let answer = tokio::select! {
        answer = write => answer,
        () = agent.obey() => unreachable!("it obeys for ever"),
    };
    assert_eq!(answer.header("weft-enforced"), "true");
    let port = answer.expect(201)["port"].clone();
    // What does not concern its host is waited for as long as the servers need to say so.
    let path = "/v2.0/networks?wait_for=enforced&wait_timeout=20";
    let answer = a.post(path, &json!({ "network": {} })).await;
    assert_eq!(answer.header("weft-enforced"), "true");
    // It says nothing of a change that concerns it.
    let one = format!(
        "/v2.0/ports/{}?wait_for=enforced&wait_timeout=1",
        text(&port["id"])
    );
    let down = json!({ "port": { "admin_state_up": false } });
    let answer = a.put(&one, &down).await;
    assert_eq!(answer.header("weft-enforced"), "false");
    assert_eq!(answer.header("weft-not-enforced"), "h1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_concern_the_hosts_of_a_dead_server_is_not_waited_for() {
    let Two {
        a: api,
        b,
        _storage,
    } = two().await;
    let a = api.admin().await;
    // One host follows each; that of the server that dies counts as alive for a while.
    let watch = |api: &Api, host| format!("{}/feed/v1/hosts/{host}/watch", api.feed_url);
    let _feed = reqwest::get(watch(&api, "h1")).await.expect("a stream");
    let feed = reqwest::get(watch(&b, "h2")).await.expect("a stream");
    let mine = Agent::new(&api, "h1").await;
    Agent::new(&b, "h2").await;
    let alive = async || {
        let agents = a.list("agent", "").await;
        let alive = agents.iter().filter(|agent| agent["alive"] == true);
        alive
            .map(|agent| text(&agent["host"]))
            .collect::<BTreeSet<_>>()
    };
    let both = async {
        while alive().await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, both).await.expect("agents");
    drop(feed);
    drop(b);
    let (network, _) = a.network_with_subnet("n", "198.51.100.0/24").await;
    let port = |host: &str| json!({ "port": { "network_id": network["id"], "device_owner": "compute:nova", "binding:host_id": host } });
    let path = "/v2.0/ports?wait_for=enforced&wait_timeout=20";
    let (own, dead) = (port("h1"), port("h2"));
    let begun = tokio::time::Instant::now();
    let answer = tokio::select! {
        answer = a.post(path, &own) => answer,
        () = mine.obey() => unreachable!("it obeys for ever"),
    };
    assert_eq!(answer.header("weft-enforced"), "true");
    assert!(begun.elapsed() < DEADLINE, "nobody else was waited for");
    let path = "/v2.0/ports?wait_for=enforced&wait_timeout=1";
    let answer = a.post(path, &dead).await;
    assert_eq!(answer.header("weft-enforced"), "false");
    // The first one's host hears of the other guest of its network, and says nothing.
    let late = answer.header("weft-not-enforced");
    assert!(late.contains("h2"), "{late}");
}
