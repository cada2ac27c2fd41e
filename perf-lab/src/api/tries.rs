//! What it costs to try a write (`dry_run=true`), beside the write, in a cloud of a hundred thousand ports that a host's
//! agent follows, and in one of a thousand.

use super::http::Client;
use super::load::timed;
use super::scene::Scene;
use super::seed;
use super::server::Server;
use super::{LISTS, ms_bar};
use crate::figures::{Bar, spread};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use weft_tests_conformance::agent::Agent;

const MANY: u32 = 100_000;
const FEW: u32 = 1_000;
const NETWORKS: usize = 100;
const PREFIX: &str = "many-";
const HOST: &str = "lab-1";

/// The bar.
pub(crate) fn tries(rounds: usize) -> Result<Vec<Bar>> {
    let (few, _) = tries_at(FEW, rounds)?;
    let (many, writes) = tries_at(MANY, rounds)?;
    let (few, writes) = (spread(&few).median, spread(&writes).median);
    let mut bar = ms_bar(
        &format!("a port's creation tried at {MANY} ports"),
        10.0,
        many,
    );
    bar.figure = format!(
        "{}; {few:.1} ms at {FEW}; the write {writes:.1} ms",
        bar.figure
    );
    Ok(vec![bar])
}

/// Milliseconds of tries, and of writes.
fn tries_at(ports: u32, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let server = Server::start()?;
    let mut scene = Scene::new(&server.target)?;
    let network = scene.network_with_ports(1)?;
    let mut client = Client::new(&server.target);
    let first = client.get(&format!("/v2.0/ports?network_id={network}"))?;
    let first = &first["ports"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let (port, project) = (text(&first["id"])?, text(&first["project_id"])?);
    let networks: Vec<_> = (0..NETWORKS)
        .map(|n| json!({ "name": format!("{PREFIX}{n}") }))
        .collect();
    client.post("/v2.0/networks", &json!({ "networks": networks }))?;
    drop(client);
    let database = server.database().clone();
    let projects = [project.as_str(), project.as_str()];
    let server = server.restart(|_| seed::ports(&database, &port, PREFIX, projects, ports))?;
    let _agent = Agent::start(&format!("http://{}", server.feed), HOST)?;
    let mut client = Client::new(&server.target);
    let body = json!({ "port": {
        "network_id": network, "device_owner": "compute:lab", "binding:host_id": HOST,
    } });
    let tried = "/v2.0/ports?dry_run=true";
    // The agent is told of the first one by then.
    client.post("/v2.0/ports?wait_for=enforced&wait_timeout=50", &body)?;
    let said = client.post(tried, &body)?;
    anyhow::ensure!(said["dry_run"]["hosts"] == json!([HOST]), "{said}");
    let (mut tries, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..rounds * LISTS {
        tries.push(timed(|| client.post(tried, &body))?.1);
        writes.push(timed(|| client.post("/v2.0/ports", &body))?.1);
    }
    Ok((tries, writes))
}
