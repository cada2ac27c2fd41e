//! Hosts as agents, and what agents are given.

use serde_json::{Value, json};
use weft_tests_api::{Api, text};

#[tokio::test]
async fn a_host_that_reports_has_three_agents() {
    let api = Api::start().await;
    let admin = api.admin().await;
    assert_eq!(admin.list("agent", "").await.len(), 0);
    let agents = api.host("h1", &["one", "two"]).await;
    let types = agents.each_ref().map(|agent| text(&agent["agent_type"]));
    assert_eq!(types, ["Weft agent", "L3 agent", "DHCP agent"]);
    let zones = agents
        .each_ref()
        .map(|agent| agent["availability_zone"].clone());
    assert_eq!(zones, [Value::Null, json!("nova"), json!("nova")]);
    for agent in &agents {
        assert_eq!(agent["host"], "h1");
        assert_eq!(agent["alive"], true);
        assert_eq!(agent["admin_state_up"], true);
        assert_eq!(agent["binary"], "weft");
        let at = text(&agent["heartbeat_timestamp"]);
        assert_eq!(at.len(), "2026-01-01 00:00:00".len(), "{at}");
        assert_eq!(admin.show("agent", &agent["id"]).await["id"], agent["id"]);
    }
    assert_eq!(agents[1]["configurations"]["agent_mode"], "dvr_snat");
    // What the host says of itself may change.
    let again = api.host("h1", &["one"]).await;
    assert_eq!(again[0]["id"], agents[0]["id"]);
    api.host("h2", &[]).await;
    for (query, count) in [
        ("", 6),
        ("host=h1", 3),
        // As Neutron's database compares words.
        ("agent_type=dhcp%20AGENT", 2),
        ("alive=true&agent_type=L3+agent", 2),
        ("alive=false", 0),
        ("binary=weft", 6),
        ("binary=ovn-controller", 0),
        ("availability_zone=nova", 4),
    ] {
        assert_eq!(admin.list("agent", query).await.len(), count, "{query}");
    }
    let sorted = admin.list(
        "agent",
        "sort_key=host&sort_key=agent_type&sort_dir=desc&sort_dir=asc",
    );
    let first = &sorted.await[0];
    assert_eq!(
        (&first["host"], &first["agent_type"]),
        (&json!("h2"), &json!("DHCP agent"))
    );
}

#[tokio::test]
async fn agents_are_described_and_come_again() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let [agent, ..] = api.host("h1", &[]).await;
    let id = &agent["id"];
    let done = admin.update("agent", id, json!({ "description": "of the first rack" }));
    let done = done.await;
    assert_eq!(done.warning(), "");
    assert_eq!(done.ok()["agent"]["description"], "of the first rack");
    let down = admin.update("agent", id, json!({ "admin_state_up": false }));
    let down = down.await;
    assert!(
        down.warning().contains("marked as down"),
        "{}",
        down.warning()
    );
    assert_eq!(down.ok()["agent"]["admin_state_up"], false);
    let refused = admin.update("agent", id, json!({ "host": "h2" })).await;
    refused.error(400, "HTTPBadRequest");
    let made = admin.create_refused("agent", json!({})).await;
    made.error(400, "HTTPBadRequest");
    assert_eq!(admin.remove("agent", id).await.status, 204);
    admin
        .get(&format!("/v2.0/agents/{}", text(id)))
        .await
        .error(404, "AgentNotFound");
    let [again, ..] = api.host("h1", &[]).await;
    assert_ne!(again["id"], *id);
    assert_eq!(again["admin_state_up"], true);
}

#[tokio::test]
async fn a_zone_is_available_while_an_agent_works() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let zones = async |query: &str| {
        let path = format!("/v2.0/availability_zones?{query}");
        let zones = member.get(&path).await.ok()["availability_zones"].take();
        let zones = zones.as_array().expect("a list").clone();
        let shown = zones
            .iter()
            .map(|zone| format!("{} {}", text(&zone["resource"]), text(&zone["state"])));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        zones("").await,
        ["network unavailable", "router unavailable"]
    );
    let [_, l3, _] = api.host("h1", &[]).await;
    assert_eq!(
        zones("name=nova").await,
        ["network available", "router available"]
    );
    assert_eq!(zones("name=other").await, [""; 0]);
    let down = json!({ "admin_state_up": false });
    admin.update("agent", &l3["id"], down).await.ok();
    assert_eq!(zones("state=available").await, ["network available"]);
    assert_eq!(zones("resource=router").await, ["router unavailable"]);
}

#[tokio::test]
async fn dhcp_agents_serve_what_has_dhcp_and_what_they_are_given() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let [l2, _, dhcp] = api.host("h1", &[]).await;
    api.host("h2", &[]).await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/24").await;
    let bare = admin.create("network", json!({ "name": "bare" })).await;
    let of_agent = format!("/v2.0/agents/{}/dhcp-networks", text(&dhcp["id"]));
    let names = async || {
        let networks = admin.get(&format!("{of_agent}?sort_key=name")).await.ok();
        let networks = networks["networks"].as_array().expect("a list").clone();
        let names = networks.iter().map(|network| text(&network["name"]));
        names.collect::<Vec<_>>()
    };
    let agents = async |network: &Value| {
        let path = format!("/v2.0/networks/{}/dhcp-agents", text(&network["id"]));
        let agents = admin.get(&path).await.ok();
        agents["agents"].as_array().expect("a list").len()
    };
    assert_eq!(names().await, ["n"]);
    assert_eq!((agents(&network).await, agents(&bare).await), (2, 0));

    let wish = json!({ "network_id": bare["id"] });
    let given = admin.post(&of_agent, &wish).await;
    assert!(
        given.warning().contains("serves its own guests"),
        "{}",
        given.warning()
    );
    assert_eq!(given.status, 201);
    assert_eq!(names().await, ["bare", "n"]);
    assert_eq!(agents(&bare).await, 1);
    let again = admin.post(&of_agent, &wish).await;
    again.error(409, "NetworkHostedByDHCPAgent");
    for network in [&network, &bare] {
        let path = format!("{of_agent}/{}", text(&network["id"]));
        let taken = admin.delete(&path).await;
        assert!(taken.warning().contains("serves its own guests"));
        assert_eq!(taken.status, 204);
        admin
            .delete(&path)
            .await
            .error(409, "NetworkNotHostedByDhcpAgent");
    }
    assert_eq!(names().await, [""; 0]);
    assert_eq!((agents(&network).await, agents(&bare).await), (1, 0));

    let of_other = format!("/v2.0/agents/{}/dhcp-networks", text(&l2["id"]));
    let none = admin.get(&of_other).await.ok();
    assert_eq!(none, json!({ "networks": [] }));
    admin
        .post(&of_other, &wish)
        .await
        .error(409, "InvalidDHCPAgent");
    let nobody = "/v2.0/agents/00000000-0000-4000-8000-000000000000/dhcp-networks";
    admin.get(nobody).await.error(404, "AgentNotFound");
    let nothing = json!({ "network_id": dhcp["id"] });
    admin
        .post(&of_agent, &nothing)
        .await
        .error(404, "NetworkNotFound");
    let wrong = json!({ "network_id": 7 });
    admin
        .post(&of_agent, &wrong)
        .await
        .error(400, "HTTPBadRequest");
    // A wish goes with its network.
    admin.post(&of_agent, &wish).await.expect(201);
    assert_eq!(admin.remove("network", &bare["id"]).await.status, 204);
    assert_eq!(names().await, [""; 0]);
}

#[tokio::test]
async fn l3_agents_serve_all_routers_but_those_taken_from_them() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let [_, l3, dhcp] = api.host("h1", &[]).await;
    let router = admin
        .create("router", json!({ "name": "r", "ha": true }))
        .await;
    let of_agent = format!("/v2.0/agents/{}/l3-routers", text(&l3["id"]));
    let of_router = format!("/v2.0/routers/{}/l3-agents", text(&router["id"]));
    let routers = admin.get(&of_agent).await.ok();
    assert_eq!(routers["routers"][0]["name"], "r");
    let agents = admin.get(&of_router).await.ok();
    assert_eq!(agents["agents"][0]["id"], l3["id"]);
    assert_eq!(agents["agents"][0]["ha_state"], "active");

    let one = format!("{of_agent}/{}", text(&router["id"]));
    let taken = admin.delete(&one).await;
    assert!(taken.warning().contains("serves its own guests"));
    assert_eq!(taken.status, 204);
    admin
        .delete(&one)
        .await
        .error(409, "RouterNotHostedByL3Agent");
    assert_eq!(admin.get(&of_router).await.ok(), json!({ "agents": [] }));
    assert_eq!(admin.get(&of_agent).await.ok(), json!({ "routers": [] }));
    let wish = json!({ "router_id": router["id"] });
    admin.post(&of_agent, &wish).await.expect(201);
    admin.post(&of_agent, &wish).await.expect(201);
    assert_eq!(
        admin.get(&of_router).await.ok()["agents"][0]["id"],
        l3["id"]
    );
    let of_other = format!("/v2.0/agents/{}/l3-routers", text(&dhcp["id"]));
    admin
        .post(&of_other, &wish)
        .await
        .error(409, "InvalidL3Agent");
}
