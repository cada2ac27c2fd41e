//! A member joins a large remote group: what that costs on each host with a rule that names the group. And what it costs a host
//! that knows many ports elsewhere that one of them comes or goes.
//!
//! The agent's part from the parsed delta on: the delta is applied to the host's snapshot, and the snapshot by the kernel
//! engine, or made ready for the user engine, whose workers go on meanwhile. What control and the feed cost is in the bars of `simulate`.

use crate::figures::{Bar, quantile, spread};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;
use weft_ebpf::{Engine, EngineConfig};
use weft_kit::snapshot::{self, OverlayGuest, SnapshotGuest};
use weft_kit::{Lab, clock};
use weft_model::{
    HostSnapshot, MacAddress, Remote, Revision, SecurityGroup, SecurityGroupId,
    SecurityGroupMember, SnapshotDelta,
};
use weft_vhost::engine::{Compiler, Seeds};

/// Members before.
const MEMBERS: u32 = 10_000;
/// Ports of the host under the rule.
const PORTS: u8 = 100;
/// Members that join one after the other, for every round asked for.
const JOIN_A_ROUND: u32 = 10;
const MS_MAX: f64 = 5.0;
/// Networks of the host that knows many ports elsewhere, and ports elsewhere on each.
const NETWORKS: u8 = 20;
const ELSEWHERE: u16 = 1_000;
/// Hosts they are on.
const HOSTS: u8 = 20;
/// What no bar of an issue says: less than a guest's DHCP takes.
const ELSEWHERE_MS_MAX: f64 = 50.0;

fn member(group: SecurityGroupId, number: u32) -> SecurityGroupMember {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + number);
    SecurityGroupMember {
        security_group_id: group,
        address: IpAddr::V4(address).into(),
    }
}

/// A host whose ports are all under a rule that names a group of [`MEMBERS`].
fn start() -> Result<(HostSnapshot, SecurityGroupId)> {
    let guest = |n: u8| SnapshotGuest {
        tap: format!("tap-members-{n}"),
        mac: MacAddress([0xfa, 0x16, 0x3e, 0, 2, n]),
        address: Ipv4Addr::new(10, 0, 0, n),
    };
    let guests: Vec<_> = (1..=PORTS).map(guest).collect();
    let mut snapshot = snapshot::guests(&guests, 1, 10, 7)?;
    let group = SecurityGroupId::random();
    snapshot
        .security_groups
        .insert(group, SecurityGroup { stateful: true });
    let rules = snapshot.security_group_rules.values_mut();
    let mut inward = rules.filter(|rule| rule.direction == weft_model::Direction::Ingress);
    let rule = inward.next().context("the snapshot has a rule inwards")?;
    rule.remote = Remote::Group(group);
    for n in 0..MEMBERS {
        snapshot.security_group_members.insert(member(group, n));
    }
    Ok((snapshot, group))
}

/// A host of [`PORTS`] that knows many ports elsewhere.
fn start_large() -> Result<HostSnapshot> {
    let tunnel_ips: Vec<IpAddr> = (0..HOSTS)
        .map(|n| Ipv4Addr::new(10, 255, 0, n + 1).into())
        .collect();
    let mut guests = Vec::new();
    let each = u16::from(PORTS / NETWORKS) + ELSEWHERE;
    for network in 1..=NETWORKS {
        for n in 0..each {
            let [high, low] = n.to_be_bytes();
            let elsewhere = u8::try_from(n % u16::from(HOSTS - 1))? + 1;
            let guest = SnapshotGuest {
                tap: format!("tap-{network}-{n}"),
                mac: MacAddress([0xfa, 0x16, 0x3e, network, high, low]),
                address: Ipv4Addr::new(10, network, 1 + high, low),
            };
            guests.push(OverlayGuest {
                guest,
                host: if n < ELSEWHERE { elsewhere } else { 0 },
                network,
            });
        }
    }
    snapshot::overlay(0, &tunnel_ips, &guests, (10, 7))
}

/// The kernel engine, with a snapshot in force.
fn engine(lab: &Lab, snapshot: &HostSnapshot) -> Result<Engine> {
    let mistakes = snapshot.validate();
    ensure!(mistakes.is_empty(), "the snapshot: {mistakes:?}");
    let mut config = EngineConfig::new(lab.run());
    config.ports_max = 1_024;
    let mut engine = Engine::open(config)?;
    engine.apply(snapshot)?;
    Ok(engine)
}

/// Both engines of a host, and how long each delta took them.
struct Engines {
    snapshot: HostSnapshot,
    kernel: Engine,
    user: Compiler,
    kernel_ms: Vec<f64>,
    user_ms: Vec<f64>,
    /// Writes of the kernel engine.
    writes: Vec<usize>,
}

impl Engines {
    fn new(lab: &Lab, snapshot: HostSnapshot) -> Result<Self> {
        let mut user = Compiler::new(Seeds([1, 2, 3, 4]));
        // What was there before.
        let _first = user.prepare(&Arc::new(snapshot.clone()));
        Ok(Self {
            kernel: engine(lab, &snapshot)?,
            snapshot,
            user,
            kernel_ms: Vec::new(),
            user_ms: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// The delta from the snapshot in force to the next one.
    fn step(&mut self, mut after: HostSnapshot) -> Result<()> {
        after.revision = Revision(self.snapshot.revision.0 + 1);
        let delta = SnapshotDelta::between(&self.snapshot, &after);
        let start = clock::now();
        let next = Arc::new(self.snapshot.apply(delta)?);
        let delta_ms = ms_since(start);
        let start = clock::now();
        let applied = self.kernel.apply(&next)?;
        self.kernel_ms.push(delta_ms + ms_since(start));
        self.writes.push(applied.changes + applied.member_writes);
        let start = clock::now();
        let prepared = self.user.prepare(&next);
        self.user_ms.push(delta_ms + ms_since(start));
        drop(prepared);
        self.snapshot = Arc::unwrap_or_clone(next);
        Ok(())
    }
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1_000.0
}

/// A bar on the 99th percentile.
fn ms_bar(name: String, most_ms: f64, ms: Vec<f64>) -> Bar {
    let p99 = quantile(&ms, 0.99);
    Bar {
        name,
        bar: format!("≤ {most_ms} ms"),
        figure: format!(
            "p50 {:.1} ms, p99 {p99:.1} ms of {}",
            spread(&ms).median,
            ms.len()
        ),
        holds: p99 <= most_ms,
        rounds: ms,
    }
}

/// What a delta of one port elsewhere costs.
fn elsewhere(rounds: usize) -> Result<[Bar; 2]> {
    let lab = Lab::new("weft-elsewhere")?;
    let mut engines = Engines::new(&lab, start_large()?)?;
    let known = engines.snapshot.remote_ports.len();
    let mut away = None;
    for _ in 0..2 * rounds.max(1) * JOIN_A_ROUND as usize {
        let mut after = engines.snapshot.clone();
        away = match away {
            Some((id, port)) => {
                after.remote_ports.insert(id, port);
                None
            }
            None => after.remote_ports.pop_last(),
        };
        engines.step(after)?;
    }
    ensure!(!engines.writes.contains(&0), "nothing was written");
    engines.kernel.close(true)?;
    let name = |engine: &str| {
        format!(
            "a port elsewhere comes or goes: a host of {PORTS} ports that knows {known}, {engine} engine"
        )
    };
    Ok([
        ms_bar(name("kernel"), ELSEWHERE_MS_MAX, engines.kernel_ms),
        ms_bar(name("user"), ELSEWHERE_MS_MAX, engines.user_ms),
    ])
}

/// The bars: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let lab = Lab::new("weft-members")?;
    let (snapshot, group) = start()?;
    let mut engines = Engines::new(&lab, snapshot)?;
    let joins = u32::try_from(rounds.max(1))? * JOIN_A_ROUND;
    for n in 0..joins {
        let mut after = engines.snapshot.clone();
        after
            .security_group_members
            .insert(member(group, MEMBERS + n));
        engines.step(after)?;
    }
    engines.kernel.close(true)?;
    let most = engines.writes.iter().copied().max().unwrap_or(usize::MAX);
    let name = |engine: &str| {
        format!(
            "adding a member to a 10,000-member remote group: a host of {PORTS} ports, {engine} engine"
        )
    };
    let mut kernel = ms_bar(name("kernel"), MS_MAX, engines.kernel_ms);
    kernel.bar = format!("one map write, {}", kernel.bar);
    kernel.figure = format!("{most} map write, {}", kernel.figure);
    kernel.holds &= most == 1;
    let user = ms_bar(name("user"), MS_MAX, engines.user_ms);
    Ok([kernel, user]
        .into_iter()
        .chain(elsewhere(rounds)?)
        .collect())
}
