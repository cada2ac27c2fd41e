//! Many agents on one control plane: a release `weft server` on a cloud of many projects, its feed, and an agent for
//! every host whose engine stops before the kernel.
//!
//! The server is the program itself, the agents use the agent's own client of the feed; the network between them is
//! loopback, and all of them share this machine's processors, which is said beside the figures.

mod agents;
mod churn;
mod cloud;

use crate::api::http::{Client, Target, first_line};
use crate::api::server::Server;
use crate::figures::{Bar, quantile};
use agents::Agents;
use anyhow::{Context, Result, bail, ensure};
use churn::Churn;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use weft_model::{FeedMessage, HostSnapshot, Revision};

/// Projects that the churn works on.
const PROJECTS: u32 = 50;
/// Hosts whose snapshots are compared each time.
const COMPARED: u32 = 20;
/// Ports at which realize is measured.
const SIZES: &[u32] = &[1_000, 10_000, 100_000, 1_000_000];
/// Between two looks at what the server heard.
const POLL: Duration = Duration::from_millis(100);
/// Columns of the longest bar of a chart.
const CHART_COLUMNS: usize = 40;

/// What to simulate.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Hosts, each with an agent.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    hosts: u32,
    /// Guests' ports, a hundred to a project.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    ports: u32,
    /// Seconds of steady changes.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Changes a second.
    #[arg(long, default_value_t = 20.0)]
    per_s: f64,
    /// How often, between changes, snapshots are compared with those of a server that computes them from scratch.
    #[arg(long, default_value_t = 3)]
    checks: u32,
    /// Then measure realize at 1,000 ports up to this many.
    #[arg(long, default_value_t = 0)]
    sizes_up_to: u32,
}

#[allow(clippy::disallowed_methods, reason = "the lab measures time")]
fn now() -> Instant {
    Instant::now()
}

/// Says how far it is, on one line if somebody watches.
fn progress(text: &str) {
    let mut out = std::io::stderr().lock();
    // Nobody may be listening.
    let _closed = if out.is_terminal() {
        write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
    } else {
        writeln!(out, "{text}")
    };
}

/// Milliseconds that a small request takes, on a connection of its own.
fn ask(target: &Target) -> Result<f64> {
    let begin = now();
    Client::new(target).get("/v2.0/networks?limit=1&fields=id")?;
    Ok(begin.elapsed().as_secs_f64() * 1_000.0)
}

/// A running cloud.
struct Cloud {
    server: Server,
    _agents: Agents,
    hosts: u32,
    /// From the server's start to the last host's word that it enforces its first snapshot.
    all_s: f64,
    /// Milliseconds of requests to the API meanwhile, each on a connection of its own.
    api_ms: Vec<f64>,
}

impl Cloud {
    fn start(hosts: u32, ports: u32) -> Result<Self> {
        progress(&format!("writing {ports} ports on {hosts} hosts"));
        let server = cloud::start(hosts, ports)?;
        let begin = now();
        let server = server.restart(|_| Ok(()))?;
        let names: Vec<String> = (0..hosts).map(cloud::host).collect();
        let agents = Agents::start(&server.feed, &names)?;
        let mut api_ms = Vec::new();
        let mut asked = Ok(());
        agents.all_enforce(|done, all| {
            progress(&format!("{done} of {all} hosts enforce"));
            if asked.is_ok() {
                asked = ask(&server.target).map(|ms| api_ms.push(ms));
            }
        });
        asked.context("the API while all hosts come")?;
        let mut cloud = Self {
            server,
            _agents: agents,
            hosts,
            all_s: 0.0,
            api_ms,
        };
        while !cloud.all_said()? {
            progress("waiting for the last reports");
            cloud.api_ms.push(ask(&cloud.server.target)?);
            #[allow(clippy::disallowed_methods, reason = "the lab waits for others")]
            std::thread::sleep(POLL);
        }
        cloud.all_s = begin.elapsed().as_secs_f64();
        Ok(cloud)
    }

    /// What the API's answers took while the hosts came.
    fn api(&self) -> String {
        let (p50, p99) = (quantile(&self.api_ms, 0.5), quantile(&self.api_ms, 0.99));
        let most = quantile(&self.api_ms, 1.0);
        format!("p50 {p50:.1} ms, p99 {p99:.1} ms, most {most:.1} ms")
    }

    /// Whether the server has heard every host say what it enforces.
    fn all_said(&self) -> Result<bool> {
        let view = self.view()?;
        let hosts = view["hosts"].as_array().context("no hosts")?;
        let said = hosts.iter().filter(|host| !host["enforced"].is_null());
        Ok(said.count() >= self.hosts as usize)
    }

    /// What the feed's server says of itself.
    fn view(&self) -> Result<Value> {
        let target = Target::new(&format!("http://{}", self.server.feed), "")?;
        Client::new(&target).get("/feed/v1/hosts")
    }

    fn churn(&self, per_s: f64, time: Duration) -> Result<Churn> {
        let projects = cloud::projects(&self.server, PROJECTS)?;
        let told = |done| {
            progress(&format!(
                "{done} changes of {:.0}",
                per_s * time.as_secs_f64()
            ))
        };
        churn::run(
            &self.server.target,
            &projects,
            self.hosts,
            (per_s, time),
            told,
        )
    }

    /// Compares some hosts' snapshots with those of a server that reads everything anew.
    fn compare(&self, from: u32) -> Result<usize> {
        progress("comparing with a server that starts from scratch");
        let fresh = self.server.beside()?;
        let mut entries = 0;
        for n in 0..COMPARED.min(self.hosts) {
            let host = cloud::host((from + n * 53) % self.hosts);
            let (kept, new) = (
                snapshot(&self.server.feed, &host)?,
                snapshot(&fresh.feed, &host)?,
            );
            ensure!(kept == new, "host {host}: incremental and full differ");
            entries += new.ports.len() + new.security_group_members.len() + new.remote_ports.len();
        }
        Ok(entries)
    }
}

/// A host's snapshot on a server, without its revision.
fn snapshot(feed: &str, host: &str) -> Result<HostSnapshot> {
    let line = first_line(feed, &format!("/feed/v1/hosts/{host}/watch"))?;
    match serde_json::from_slice(&line)? {
        FeedMessage::Snapshot(snapshot) => Ok(HostSnapshot {
            revision: Revision(0),
            ..*snapshot
        }),
        other => bail!("expected a snapshot, not {other:?}"),
    }
}

fn number(view: &Value, path: &[&str]) -> Result<f64> {
    let found = path.iter().fold(view, |view, name| &view[*name]);
    found.as_f64().with_context(|| format!("no {path:?}"))
}

/// Microseconds of rounds of realize.
#[derive(Clone, Debug, Default)]
struct Realize {
    read: Vec<f64>,
    made: Vec<f64>,
    total: Vec<f64>,
}

impl Realize {
    /// Adds the rounds that a server had after the first so many.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of rounds"
    )]
    fn add(&mut self, view: &Value, before: f64) -> Result<()> {
        let new = number(view, &["realize", "rounds"])? - before;
        let recent = view["realize"]["recent_us"].as_array();
        let recent = recent.context("no recent_us")?;
        for round in recent.iter().rev().take(new as usize) {
            let us = |n: usize| round[n].as_f64().context("no microseconds");
            let (read, made) = (us(0)?, us(1)?);
            self.read.push(read);
            self.made.push(made);
            self.total.push(read + made);
        }
        Ok(())
    }

    fn p50(&self) -> f64 {
        quantile(&self.total, 0.5)
    }

    fn p99(&self) -> f64 {
        quantile(&self.total, 0.99)
    }
}

/// Runs it, and prints what was found.
#[allow(clippy::cast_precision_loss, reason = "a sum of bytes of one run")]
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let cloud = Cloud::start(arguments.hosts, arguments.ports)?;
    let whole = number(&cloud.view()?, &["sent_bytes"])?;
    let (mut realize, mut bytes) = (Realize::default(), 0.0);
    let mut all = Churn::default();
    let parts = arguments.checks.max(1);
    let time = Duration::from_secs(arguments.seconds) / parts;
    let mut compared = 0;
    for part in 0..parts {
        let before = cloud.view()?;
        let churn = cloud.churn(arguments.per_s, time)?;
        let after = cloud.view()?;
        realize.add(&after, number(&before, &["realize", "rounds"])?)?;
        bytes += number(&after, &["sent_bytes"])? - number(&before, &["sent_bytes"])?;
        all.port_ms.extend(churn.port_ms);
        all.member_ms.extend(churn.member_ms);
        all.rule_ms.extend(churn.rule_ms);
        if part < arguments.checks {
            compared += cloud.compare(part * 101)?;
        }
    }
    let changes = (all.port_ms.len() + all.member_ms.len() + all.rule_ms.len()) as f64;
    progress("");
    println!(
        "{} hosts, {} ports, one machine",
        arguments.hosts, arguments.ports
    );
    println!(
        "all hosts from scratch: {:.1} s; the API meanwhile: {}",
        cloud.all_s,
        cloud.api()
    );
    for (what, ms) in [
        ("a port made or taken", &all.port_ms),
        ("a member to or from a group", &all.member_ms),
        ("a rule made or taken", &all.rule_ms),
    ] {
        let (p50, p99) = (quantile(ms, 0.5), quantile(ms, 0.99));
        let count = ms.len();
        println!("API to enforced, {what}: p50 {p50:.1} ms, p99 {p99:.1} ms ({count} changes)");
    }
    println!(
        "realize: p50 {:.0} us (read {:.0}, made {:.0}), p99 {:.0} us",
        realize.p50(),
        quantile(&realize.read, 0.5),
        quantile(&realize.made, 0.5),
        realize.p99()
    );
    println!(
        "the feed: {:.1} MiB whole, {:.0} bytes a change",
        whole / 1_048_576.0,
        bytes / changes
    );
    println!(
        "memory of the server: {:.0} MiB",
        cloud.server.memory_mib()?
    );
    println!(
        "incremental and full agree at {} points ({compared} entries)",
        arguments.checks
    );
    drop(cloud);
    let sizes: Vec<u32> = SIZES
        .iter()
        .copied()
        .filter(|ports| *ports <= arguments.sizes_up_to)
        .collect();
    let measured = realize_at(&sizes)?;
    chart(&measured);
    Ok(())
}

/// Realize at so many ports, on as many hosts as are usual here.
fn realize_at(sizes: &[u32]) -> Result<Vec<(u32, Realize)>> {
    let measure = |ports: &u32| {
        let cloud = Cloud::start((*ports / 10).min(1_000), *ports)?;
        let before = number(&cloud.view()?, &["realize", "rounds"])?;
        cloud.churn(40.0, Duration::from_secs(10))?;
        let mut realize = Realize::default();
        realize.add(&cloud.view()?, before)?;
        Ok((*ports, realize))
    };
    sizes.iter().map(measure).collect()
}

/// A bar for each size.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a few columns"
)]
fn chart(measured: &[(u32, Realize)]) {
    let longest = measured.iter().map(|(_, of)| of.p99());
    let longest = longest.fold(1.0, f64::max);
    for (ports, of) in measured {
        let columns = |us: f64| (us / longest * CHART_COLUMNS as f64).ceil() as usize;
        let (half, most) = (columns(of.p50()), columns(of.p99()));
        let bar = format!(
            "{}{}",
            "█".repeat(half),
            "░".repeat(most.saturating_sub(half))
        );
        println!(
            "{ports:>9} ports  {bar:<CHART_COLUMNS$}  p50 {:.0} us, p99 {:.0} us",
            of.p50(),
            of.p99()
        );
    }
}

/// The bars of a cloud of 100,000 ports on 1,000 hosts.
pub(crate) fn bars(_rounds: usize) -> Result<Vec<Bar>> {
    let cloud = Cloud::start(1_000, 100_000)?;
    let churn = cloud.churn(20.0, Duration::from_secs(30))?;
    cloud.compare(7)?;
    let mib = cloud.server.memory_mib()?;
    let p99 = quantile(&churn.port_ms, 0.99);
    let p50 = quantile(&churn.port_ms, 0.5);
    Ok(vec![
        Bar {
            name: "API to enforced on every host concerned, one port, 100,000 ports, 1,000 hosts"
                .to_owned(),
            bar: "p99 ≤ 100 ms".to_owned(),
            figure: format!("p50 {p50:.1} ms, p99 {p99:.1} ms; the server has {mib:.0} MiB"),
            holds: p99 <= 100.0,
            rounds: churn.port_ms,
        },
        Bar {
            name: "all hosts from scratch after a full restart, 1,000 hosts, 100,000 ports"
                .to_owned(),
            bar: "≤ 60 s".to_owned(),
            figure: format!("{:.1} s; the API meanwhile: {}", cloud.all_s, cloud.api()),
            holds: cloud.all_s <= 60.0,
            rounds: vec![cloud.all_s],
        },
    ])
}

/// Realize against the number of ports.
pub(crate) fn realize_bars(_rounds: usize) -> Result<Vec<Bar>> {
    let measured = realize_at(&[1_000, 1_000_000])?;
    let [(_, few), (_, many)] = &measured[..] else {
        bail!("two sizes were asked for");
    };
    let times = many.p50() / few.p50();
    Ok(vec![Bar {
        name: "realize for one port's change at 1,000,000 ports".to_owned(),
        bar: "≤ 5 ms, within 2× of the cost at 1,000".to_owned(),
        figure: format!(
            "p50 {:.2} ms, p99 {:.2} ms; p50 {times:.1}× that of 1,000",
            many.p50() / 1_000.0,
            many.p99() / 1_000.0
        ),
        holds: many.p99() <= 5_000.0 && times <= 2.0,
        rounds: vec![few.p50(), many.p50()],
    }])
}
