//! Pages of 100 in a cloud of a million ports, beside the same in one of ten thousand: of all, of a network, and as
//! projects see them, on SQLite and on a PostgreSQL of the lab's own.

use super::http::{Client, Target};
use super::load::timed;
use super::scene::Scene;
use super::seed;
use super::server::{self, Server};
use super::{LISTS, ms_bar};
use crate::figures::{Bar, spread};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests_api::postgresql;

/// Ports of the large cloud, and its networks.
const MANY: u32 = 1_000_000;
const NETWORKS: u32 = 1_000;
/// Ports of the small cloud that it must not be slower than.
const FEW: u32 = 10_000;
/// The project that has nearly all ports, the one that has a ten thousandth of them, all in networks of others, and the one
/// that has half of the networks, where all ports are the others'.
const LARGE: &str = "lab-large";
const SMALL: &str = "lab-small";
const OWNER: &str = "lab-owner";
const PREFIX: &str = "many-";
/// Milliseconds for which one kind of page is read at most.
const PAGES_MS_MAX: f64 = 10_000.0;

/// Milliseconds of a page, and how often it was read.
type Figures = Vec<(&'static str, Vec<f64>)>;

/// The bars.
pub(crate) fn pages(rounds: usize) -> Result<Vec<Bar>> {
    let few = pages_at(Server::start()?, FEW, rounds)?;
    let many = pages_at(Server::start()?, MANY, rounds)?;
    Ok(bars("", few, many))
}

/// The same on PostgreSQL, which flushes nothing: what is measured is reading.
pub(crate) fn pages_postgresql(rounds: usize) -> Result<Vec<Bar>> {
    let figures = |ports| {
        let database = postgresql::Database::create();
        let url = seed::Database::Postgresql(database.url.clone());
        // The server ends before its database is dropped.
        pages_at(Server::start_on(url)?, ports, rounds)
    };
    let (few, many) = (figures(FEW)?, figures(MANY)?);
    Ok(bars("on PostgreSQL, ", few, many))
}

fn bars(on: &str, few: Figures, many: Figures) -> Vec<Bar> {
    let mut bars = Vec::new();
    for ((name, few), (_, many)) in few.into_iter().zip(many) {
        let before = spread(&few).median;
        let name = format!("page of 100 of {MANY} ports, {on}{name}");
        let mut bar = ms_bar(&name, 10.0, many);
        bar.figure = format!("{}; {before:.1} ms at {FEW}", bar.figure);
        bars.push(bar);
    }
    bars
}

fn id<'a>(made: &'a Value, name: &str) -> Result<&'a str> {
    made[name]["id"]
        .as_str()
        .with_context(|| format!("no id of a {name}"))
}

/// A new project with a member of the same name; its id.
fn project(client: &mut Client, name: &str) -> Result<String> {
    let project = json!({ "project": { "name": name, "domain_id": "default" } });
    let project = client.post("/identity/v3/projects", &project)?;
    let project = id(&project, "project")?.to_owned();
    let user =
        json!({ "user": { "name": name, "domain_id": "default", "password": server::PASSWORD } });
    let user = client.post("/identity/v3/users", &user)?;
    let user = id(&user, "user")?;
    let roles = client.get("/identity/v3/roles?name=member")?;
    let role = roles["roles"][0]["id"].as_str().context("no role")?;
    let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
    let given = client.send("PUT", &path, "")?;
    ensure!(given.status == 204, "{path}: {}", given.status);
    Ok(project)
}

/// A caller of the project `name`.
fn member(target: &Target, name: &str) -> Result<Client> {
    let mut target = target.clone();
    target.token = server::token(&target, "/identity/v3", name, server::PASSWORD)?;
    Ok(Client::new(&target))
}

/// A cloud of so many ports, on a server that was started anew, and a network in it.
fn seeded(server: Server, ports: u32) -> Result<(Server, String)> {
    let mut scene = Scene::new(&server.target)?;
    let template = scene.network_with_ports(1)?;
    let mut client = Client::new(&server.target);
    let first = client.get(&format!("/v2.0/ports?network_id={template}"))?;
    let port = first["ports"][0]["id"]
        .as_str()
        .context("no port")?
        .to_owned();
    let (large, small) = (project(&mut client, LARGE)?, project(&mut client, SMALL)?);
    let owner = project(&mut client, OWNER)?;
    let networks: Vec<_> = (0..NETWORKS)
        .map(|n| {
            let project = [&large, &owner][usize::from(n % 2 == 1)];
            json!({ "name": format!("{PREFIX}{n}"), "project_id": project })
        })
        .collect();
    let quota = json!({ "quota": server::unlimited() });
    for project in [&large, &owner] {
        client.put(&format!("/v2.0/quotas/{project}"), &quota)?;
    }
    let made = client.post("/v2.0/networks", &json!({ "networks": networks }))?;
    let network = made["networks"][0]["id"]
        .as_str()
        .context("no network")?
        .to_owned();
    drop(client);
    let projects = [large.as_str(), small.as_str()];
    let database = server.database().clone();
    let server = server.restart(|_| seed::ports(&database, &port, PREFIX, projects, ports))?;
    Ok((server, network))
}

/// Who reads pages.
#[derive(Clone, Copy)]
enum Reader {
    Admin,
    Large,
    Owner,
    Small,
}

/// Which pages are read: their names, by whom, and what is asked for.
const PAGES: &[(&str, Reader, &str)] = &[
    ("by a marker in the middle", Reader::Admin, "marker=MIDDLE"),
    (
        "of a network, by a marker in its middle",
        Reader::Admin,
        "network_id=NETWORK&marker=WITHIN",
    ),
    (
        "by name, by a marker in the middle",
        Reader::Admin,
        "marker=MIDDLE&sort_key=name",
    ),
    (
        "by name, backwards",
        Reader::Admin,
        "marker=MIDDLE&sort_key=name&sort_dir=desc&page_reverse=True",
    ),
    (
        "by status",
        Reader::Admin,
        "marker=MIDDLE&sort_key=status&sort_key=id",
    ),
    (
        "by MAC address, the last first",
        Reader::Admin,
        "marker=MIDDLE&sort_key=mac_address&sort_dir=desc",
    ),
    (
        "as the project of nearly all sees them",
        Reader::Large,
        "marker=MIDDLE",
    ),
    (
        "as that project sees them, by name",
        Reader::Large,
        "marker=MIDDLE&sort_key=name",
    ),
    (
        "as that project sees them, by network",
        Reader::Large,
        "sort_key=network_id",
    ),
    (
        "as that project sees a network's",
        Reader::Large,
        "network_id=NETWORK&marker=WITHIN",
    ),
    (
        "as the owner of half of the networks sees others' there",
        Reader::Owner,
        "marker=MIDDLE",
    ),
    (
        "as that owner sees them, by name",
        Reader::Owner,
        "marker=MIDDLE&sort_key=name",
    ),
    (
        "as a project of a ten thousandth sees them",
        Reader::Small,
        "",
    ),
    (
        "as that small project sees them, by name",
        Reader::Small,
        "sort_key=name",
    ),
];

fn pages_at(server: Server, ports: u32, rounds: usize) -> Result<Figures> {
    let (server, network) = seeded(server, ports)?;
    let mut admin = Client::new(&server.target);
    let mut large = member(&server.target, LARGE)?;
    let mut owner = member(&server.target, OWNER)?;
    let mut small = member(&server.target, SMALL)?;
    let middle = seed::middle(server.database(), ports)?;
    let half = ports / NETWORKS / 2;
    let half = admin.get(&format!(
        "/v2.0/ports?network_id={network}&limit={half}&fields=id"
    ))?;
    let half = half["ports"].as_array().and_then(|half| half.last());
    let within = half
        .and_then(|port| port["id"].as_str())
        .context("no marker")?
        .to_owned();
    let mut figures = Vec::new();
    for (name, reader, asked) in PAGES {
        let client = match reader {
            Reader::Admin => &mut admin,
            Reader::Large => &mut large,
            Reader::Owner => &mut owner,
            Reader::Small => &mut small,
        };
        let asked = asked
            .replace("MIDDLE", &middle)
            .replace("NETWORK", &network)
            .replace("WITHIN", &within);
        let path = format!("/v2.0/ports?limit=100&{asked}");
        let mut ms: Vec<f64> = Vec::new();
        // One that falls short by far has shown it by then.
        while ms.len() < rounds * LISTS && ms.iter().sum::<f64>() < PAGES_MS_MAX {
            ms.push(timed(|| client.get(&path))?.1);
        }
        figures.push((*name, ms));
    }
    Ok(figures)
}
