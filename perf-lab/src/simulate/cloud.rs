//! A cloud of many projects, written straight into SQLite's file while no server runs.
//!
//! Each project has a network with a subnet, a security group whose members may reach each other, and a hundred guests
//! on twenty hosts. All of it is copied from one project that was made by the API.

use crate::api::http::Client;
use crate::api::seed::copy;
use crate::api::server::{self, Server};
use anyhow::{Context, Result};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Guests of a project.
pub(crate) const GUESTS: u32 = 100;
/// Hosts that a project's guests are on.
const SPREAD: u32 = 20;

/// What the copies are made from.
struct Template {
    network: String,
    subnet: String,
    group: String,
    port: String,
}

/// The name of the n-th host.
pub(crate) fn host(n: u32) -> String {
    format!("sim-{n:05}")
}

/// The n-th host's address in the underlay.
pub(crate) fn tunnel_ip(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + n).into()
}

/// A project that the churn may use.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) network: String,
    pub(crate) group: String,
}

/// Starts a server on a cloud of so many hosts and guests.
pub(crate) fn start(hosts: u32, ports: u32) -> Result<Server> {
    let server = Server::start()?;
    let template = template(&mut Client::new(&server.target))?;
    server.restart(|folder| write(&server::file(folder), &template, hosts, ports))
}

/// Some of its projects, spread evenly.
pub(crate) fn projects(server: &Server, count: u32) -> Result<Vec<Project>> {
    let conn = Connection::open(server::file(server.folder()))?;
    let mut found = conn.prepare(
        "SELECT network, security_group FROM (SELECT n.id AS network, g.id AS security_group, \
         ntile(?1) OVER (ORDER BY n.id) AS tile FROM networks n JOIN security_groups g ON g.name = n.name \
         WHERE n.name LIKE 'sim-%') GROUP BY tile",
    )?;
    let project = |row: &rusqlite::Row<'_>| {
        Ok(Project {
            network: row.get(0)?,
            group: row.get(1)?,
        })
    };
    let projects = found.query_map([count], project)?;
    Ok(projects.collect::<Result<_, _>>()?)
}

fn template(client: &mut Client) -> Result<Template> {
    let mut create = |path: &str, name: &str, body: Value| -> Result<String> {
        let made = client.post(path, &json!({ name: body }))?;
        let id = made[name]["id"].as_str();
        Ok(id.with_context(|| format!("no id of a {name}"))?.to_owned())
    };
    let network = create("/v2.0/networks", "network", json!({ "name": "template" }))?;
    let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": "10.64.0.0/16" });
    let subnet = create("/v2.0/subnets", "subnet", subnet)?;
    let group = json!({ "name": "template" });
    let group = create("/v2.0/security-groups", "security_group", group)?;
    let rule =
        json!({ "security_group_id": group, "direction": "ingress", "remote_group_id": group });
    create("/v2.0/security-group-rules", "security_group_rule", rule)?;
    let port = json!({ "network_id": network, "security_groups": [group], "device_owner": "compute:nova",
        "binding:host_id": "template" });
    let port = create("/v2.0/ports", "port", port)?;
    Ok(Template {
        network,
        subnet,
        group,
        port,
    })
}

fn write(file: &Path, template: &Template, hosts: u32, ports: u32) -> Result<()> {
    let mut conn = Connection::open(file)?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    let tx = conn.transaction()?;
    let networks = ports.div_ceil(GUESTS);
    // Ids in no order, as random ones are: the multiplier is odd, so no two are the same.
    tx.execute_batch(&format!(
        "CREATE TEMP TABLE seed_projects AS WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {networks})
         SELECT n, printf('%08x-5eed-4000-8000-%012x', (n * 2654435761) % 4294967296, n) AS id FROM n;
         CREATE TEMP TABLE seed_guests AS WITH RECURSIVE p (p) AS (SELECT 0 UNION ALL SELECT p + 1 FROM p WHERE p + 1 < {ports})
         SELECT p, p / {GUESTS} AS n, p % {GUESTS} AS i,
             printf('%08x-5eed-4001-8000-%012x', (p * 2654435761) % 4294967296, p) AS id,
             printf('%08x-5eed-4000-8000-%012x', (p / {GUESTS} * 2654435761) % 4294967296, p / {GUESTS}) AS project,
             printf('sim-%05d', ((p / {GUESTS}) * 7 + (p % {SPREAD}) * 37) % {hosts}) AS host FROM p;"
    ))?;
    let projects = |id| ("seed_projects", id);
    let name = ("name", "printf('sim-%d', s.n)");
    let network = &projects(template.network.as_str());
    copy(&tx, "networks", "id", network, &[("id", "s.id"), name])?;
    let segment = [
        ("id", "'e' || substr(s.id, 2)"),
        ("network_id", "s.id"),
        ("segmentation_id", "1000000 + s.n"),
    ];
    copy(&tx, "network_segments", "network_id", network, &segment)?;
    let subnet = &projects(template.subnet.as_str());
    let columns = [("id", "s.id"), ("network_id", "s.id")];
    copy(&tx, "subnets", "id", subnet, &columns)?;
    let group = &projects(template.group.as_str());
    let columns = [("id", "s.id"), name, ("is_default", "0")];
    copy(&tx, "security_groups", "id", group, &columns)?;
    let rule = [
        ("id", "lower(hex(randomblob(4))) || substr(s.id, 9)"),
        ("security_group_id", "s.id"),
        (
            "remote_group_id",
            "CASE WHEN t.remote_group_id IS NULL THEN NULL ELSE s.id END",
        ),
        ("match_key", "t.id"),
    ];
    copy(
        &tx,
        "security_group_rules",
        "security_group_id",
        group,
        &rule,
    )?;
    write_guests(&tx, &template.port)?;
    for n in 0..hosts {
        let place = (host(n), tunnel_ip(n).to_string());
        tx.execute(
            "INSERT INTO tunnel_hosts (host, tunnel_ip) VALUES (?1, ?2)",
            place,
        )?;
    }
    tx.commit()?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); ANALYZE;")?;
    Ok(())
}

fn write_guests(tx: &rusqlite::Transaction<'_>, port: &str) -> Result<()> {
    let port = &("seed_guests", port);
    let mac = "printf('fa:16:%02x:%02x:%02x:%02x', (s.p >> 24) & 255, (s.p >> 16) & 255, (s.p >> 8) & 255, s.p & 255)";
    let columns = [
        ("id", "s.id"),
        ("network_id", "s.project"),
        ("mac_address", mac),
        ("binding_host_id", "s.host"),
        // The cloud was running: its hosts have nothing new to say of most ports.
        ("status", "'ACTIVE'"),
    ];
    copy(tx, "ports", "id", port, &columns)?;
    let columns = [
        ("port_id", "s.id"),
        ("subnet_id", "s.project"),
        // 10.64.1.0 and on: the API gives the first ones.
        (
            "ip_key",
            "printf('00000000000000000000ffff%08x', 171966720 + s.i)",
        ),
        ("ip_address", "printf('10.64.1.%d', s.i)"),
    ];
    copy(tx, "port_fixed_ips", "port_id", port, &columns)?;
    let columns = [("port_id", "s.id"), ("security_group_id", "s.project")];
    copy(tx, "port_security_groups", "port_id", port, &columns)?;
    Ok(())
}
