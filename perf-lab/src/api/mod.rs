//! The bars of the API: a release `weft server` on a folder of its own, real HTTP on loopback, durable writes.
//!
//! The same load can be put on any Networking API (`load --endpoint URL --token TOKEN`).

pub(crate) mod http;
pub(crate) mod load;
mod pages;
mod peer;
mod scene;
pub(crate) mod seed;
pub(crate) mod server;
mod tries;

use crate::figures::{Bar, quantile, spread};
use anyhow::Result;
use http::{Client, Target};
use load::{Requests, Round, closed_loop, timed};
pub(crate) use pages::{pages, pages_postgresql};
use peer::Peer;
use scene::Scene;
use server::Server;
use std::time::Duration;
pub(crate) use tries::tries;

/// Of a round.
const ROUND: Duration = Duration::from_secs(2);
/// Callers at once.
const WAYS: usize = 8;
/// Lists, pages and bulk requests of a round.
const LISTS: usize = 10;
/// Where the load goes, if it is no bar.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The Networking API, without /v2.0: http://host:port
    #[arg(long)]
    endpoint: String,
    /// A token of an administrator whose project has no quota on networks, ports and security group rules.
    #[arg(long)]
    token: String,
    /// Seconds of a round.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Rounds of each figure.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only figures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// One JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

/// What is measured by callers in a closed loop.
struct Loop {
    name: &'static str,
    ways: usize,
    per_s_min: f64,
    p99_ms_max: Option<f64>,
    /// Whether it waits for the disk.
    durable: bool,
    /// Makes what a round needs, and answers how its n-th request is made.
    prepare: fn(&mut Scene) -> Result<Requests>,
}

const LOOPS: &[Loop] = &[
    Loop {
        name: "get a network, 8-way",
        ways: WAYS,
        per_s_min: 10_000.0,
        p99_ms_max: None,
        durable: false,
        prepare: Scene::get_network,
    },
    Loop {
        name: "create port, sequential",
        ways: 1,
        per_s_min: 1_000.0,
        p99_ms_max: None,
        durable: true,
        prepare: Scene::create_port,
    },
    Loop {
        name: "create port, 8-way",
        ways: WAYS,
        per_s_min: 2_500.0,
        p99_ms_max: None,
        durable: true,
        prepare: Scene::create_port,
    },
    Loop {
        name: "create rule in one group, 8-way",
        ways: WAYS,
        per_s_min: 1_000.0,
        p99_ms_max: Some(50.0),
        durable: true,
        prepare: Scene::create_rule,
    },
];

/// The closed loops on one server, round by round in turn.
pub(crate) fn loops(rounds: usize) -> Result<Vec<Bar>> {
    let server = Server::start()?;
    let flush = quantile(&server::flushes_ms(server.folder())?, 0.5);
    let mut bars = loops_on(&server.target, rounds, ROUND, "")?;
    for (bar, of) in bars.iter_mut().zip(LOOPS) {
        if of.durable {
            bar.figure = format!("{}; a flush of this disk takes {flush:.2} ms", bar.figure);
        }
    }
    Ok(bars)
}

fn loops_on(target: &Target, rounds: usize, time: Duration, only: &str) -> Result<Vec<Bar>> {
    let mut scene = Scene::new(target)?;
    let chosen: Vec<&Loop> = LOOPS.iter().filter(|of| of.name.contains(only)).collect();
    let mut taken: Vec<Vec<Round>> = chosen.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (of, taken) in chosen.iter().zip(&mut taken) {
            let request = (of.prepare)(&mut scene)?;
            taken.push(closed_loop(target, of.ways, time, &*request)?);
        }
    }
    Ok(chosen
        .iter()
        .zip(&taken)
        .map(|(of, taken)| of.bar(taken))
        .collect())
}

impl Loop {
    fn bar(&self, rounds: &[Round]) -> Bar {
        let per_s: Vec<f64> = rounds.iter().map(|round| round.per_s).collect();
        let p99: Vec<f64> = rounds.iter().map(Round::p99_ms).collect();
        let (per_s_of, p99_of) = (spread(&per_s), spread(&p99).median);
        let p99_bar = self
            .p99_ms_max
            .map_or_else(String::new, |max| format!(", p99 ≤ {max} ms"));
        Bar {
            name: self.name.to_owned(),
            bar: format!("≥ {}/s{p99_bar}", self.per_s_min),
            figure: format!("{per_s_of}/s, p99 {p99_of:.1} ms"),
            holds: per_s_of.median >= self.per_s_min
                && self.p99_ms_max.is_none_or(|max| p99_of <= max),
            rounds: per_s,
        }
    }
}

/// A bar on milliseconds.
fn ms_bar(name: &str, ms_max: f64, ms: Vec<f64>) -> Bar {
    let of = spread(&ms);
    Bar {
        name: name.to_owned(),
        bar: format!("≤ {ms_max} ms"),
        figure: format!("{:.1} ms ({:.1} to {:.1})", of.median, of.low, of.high),
        holds: of.median <= ms_max,
        rounds: ms,
    }
}

/// The same load on a server of ours and on neutron-server, in turn; what the one does more often, or sooner.
pub(crate) fn beside_neutron(rounds: usize) -> Result<Vec<Bar>> {
    let (ours, peer) = (Server::start()?, Peer::start()?);
    let targets = [&ours.target, &peer.target];
    let mut scenes = [Scene::new(targets[0])?, Scene::new(targets[1])?];
    let mut bars = Vec::new();
    for of in LOOPS {
        let mut per_s = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for ((target, scene), per_s) in targets.iter().zip(&mut scenes).zip(&mut per_s) {
                let request = (of.prepare)(scene)?;
                per_s.push(closed_loop(target, of.ways, ROUND, &*request)?.per_s);
            }
        }
        let [ours, theirs] = per_s.map(|per_s| spread(&per_s));
        eprintln!(
            "{}: {:.0}/s, neutron-server {:.1}/s",
            of.name, ours.median, theirs.median
        );
        bars.push(beside(
            of.name,
            ours.median / theirs.median,
            &format!("{ours}/s and {:.1}/s", theirs.median),
        ));
    }
    // One round: neutron-server takes minutes to fill the subnet.
    let (mut bulk, mut list) = ([0.0; 2], [0.0; 2]);
    for (at, (target, scene)) in targets.iter().zip(&mut scenes).enumerate() {
        let network = scene.network_with_ports(900)?;
        bulk[at] = timed(|| scene.ports(&network, 100))?.1;
        let mut client = Client::new(target);
        let path = format!("/v2.0/ports?network_id={network}");
        let ms = (0..LISTS).map(|_| Ok(timed(|| client.get(&path))?.1));
        list[at] = spread(&ms.collect::<Result<Vec<f64>>>()?).median;
    }
    for (name, [ours, theirs]) in [
        ("bulk of 100 ports on a subnet of 900", bulk),
        ("list 1,000 ports", list),
    ] {
        bars.push(beside(
            name,
            theirs / ours,
            &format!("{ours:.1} and {theirs:.0} ms"),
        ));
    }
    let theirs = peer.memory()?;
    let sum: f64 = theirs.iter().map(|(_, mib)| mib).sum();
    let parts: Vec<String> = theirs
        .iter()
        .map(|(name, mib)| format!("{name} {mib:.0}"))
        .collect();
    let mib = ours.memory_mib()?;
    let figure = format!("{mib:.1} and {sum:.0} MiB ({})", parts.join(", "));
    bars.push(beside("memory after all that", sum / mib, &figure));
    Ok(bars)
}

fn beside(name: &str, times: f64, figure: &str) -> Bar {
    Bar {
        name: format!("{name}, beside neutron-server"),
        bar: "better".to_owned(),
        figure: format!("{times:.0}×: {figure}"),
        holds: times > 1.0,
        rounds: vec![times],
    }
}

/// Bulk requests on subnets that hold 1,000 ports.
pub(crate) fn bulk(rounds: usize) -> Result<Vec<Bar>> {
    bulk_on(&Server::start()?.target, rounds)
}

fn bulk_on(target: &Target, rounds: usize) -> Result<Vec<Bar>> {
    let mut scene = Scene::new(target)?;
    let (mut hundred, mut thousand) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (count, ms) in [(100, &mut hundred), (1_000, &mut thousand)] {
            let network = scene.network_with_ports(1_000)?;
            ms.push(timed(|| scene.ports(&network, count))?.1);
        }
    }
    Ok(vec![
        ms_bar("bulk of 100 ports on a subnet of 1,000", 100.0, hundred),
        ms_bar("bulk of 1,000 ports on a subnet of 1,000", 500.0, thousand),
    ])
}

/// Lists of 1,000 and 5,000 ports, and what the server holds of memory then.
pub(crate) fn lists(rounds: usize) -> Result<Vec<Bar>> {
    let server = Server::start()?;
    let mut bars = lists_on(&server.target, rounds)?;
    let mib = server.memory_mib()?;
    bars.push(Bar {
        name: "memory of the server at 5,000 ports".to_owned(),
        bar: "≤ 80 MiB".to_owned(),
        figure: format!("{mib:.1} MiB, after the lists above"),
        holds: mib <= 80.0,
        rounds: vec![mib],
    });
    Ok(bars)
}

fn lists_on(target: &Target, rounds: usize) -> Result<Vec<Bar>> {
    let mut scene = Scene::new(target)?;
    let small = scene.network_with_ports(1_000)?;
    let large = scene.network_with_ports(4_000)?;
    scene.ports(&large, 1_000)?;
    let mut client = Client::new(target);
    let mut list = |network: &str| -> Result<Vec<f64>> {
        let path = format!("/v2.0/ports?network_id={network}");
        let mut ms = Vec::new();
        for _ in 0..rounds * LISTS {
            let (answer, took) = timed(|| client.send("GET", &path, ""))?;
            anyhow::ensure!(answer.status == 200, "{path}: {}", answer.status);
            ms.push(took);
        }
        Ok(ms)
    };
    Ok(vec![
        ms_bar("list 1,000 ports", 10.0, list(&small)?),
        ms_bar("list 5,000 ports", 50.0, list(&large)?),
    ])
}

/// Every figure that needs no server of our own, of any API.
pub(crate) fn load(arguments: &Arguments) -> Result<Vec<Bar>> {
    let target = Target::new(&arguments.endpoint, &arguments.token)?;
    let time = Duration::from_secs(arguments.seconds);
    let mut bars = loops_on(&target, arguments.rounds, time, &arguments.only)?;
    if "bulk".contains(&arguments.only) {
        bars.extend(bulk_on(&target, arguments.rounds)?);
    }
    if "list".contains(&arguments.only) {
        bars.extend(lists_on(&target, arguments.rounds)?);
    }
    Ok(bars)
}

impl Arguments {
    pub(crate) fn json(&self) -> bool {
        self.json
    }
}
