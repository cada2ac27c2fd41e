//! Forwarding between two guests of one host: Weft's tcx path against Linux bridge + iptables with conntrack (what
//! Neutron's hybrid firewall does), in the same namespaces, in interleaved rounds of one run.
//!
//! The *forwarding cost* is the time a frame takes in all, less what the sender takes alone (measured in every round
//! with the frames dropped by XDP where they arrive). Both directions are seen before a round, so that conntrack and
//! Weft both have an established flow.

use crate::figures::{Bar, spread};
use crate::process::{Held, WeftRun, send, site};
use crate::traffic::{Sent, Stream};
use anyhow::{Result, ensure};
use weft_kit::snapshot::{self, SnapshotGuest};
use weft_kit::{Lab, Namespace};

/// The port that both policies allow.
const SERVICE_PORT: u16 = 7;
const MACS: [&str; 2] = ["fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b"];
const ADDRESSES: [&str; 2] = ["10.0.0.11", "10.0.0.12"];
const TAPS: [&str; 2] = ["tap-lab-a", "tap-lab-b"];
/// How many rules are many.
const RULES_MANY: usize = 10_000;
const GUEST_DEVICE: &str = "eth0";

/// The two guests and the host between them.
pub(crate) struct Bench {
    lab: Lab,
    host: Namespace,
    guests: [Namespace; 2],
    /// A namespace in which what is sent is dropped where it arrives.
    alone: Namespace,
    _holds: [Held; 3],
    sinks: [Held; 2],
}

/// What one round of one path gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Nanoseconds a frame in all.
    pub(crate) ns: f64,
    /// The share of frames that arrived.
    pub(crate) arrived: f64,
}

impl Bench {
    /// Two guests on taps of one host, each with its MAC address; no stack of theirs speaks.
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new("weft-lab")?;
        let host = lab.namespace("host")?;
        let guests = [lab.namespace("a")?, lab.namespace("b")?];
        for (n, guest) in guests.iter().enumerate() {
            guest.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
            lab.veth((&host, TAPS[n]), (guest, GUEST_DEVICE))?;
            guest.run(&format!("ip link set {GUEST_DEVICE} address {}", MACS[n]))?;
        }
        let alone = lab.namespace("alone")?;
        alone.run(&format!(
            "ip link add {GUEST_DEVICE} type veth peer name drop"
        ))?;
        alone.run(&format!("ip link set {GUEST_DEVICE} up"))?;
        alone.run("ip link set drop up")?;
        let holds = [
            Held::start(&host, TAPS[0], "pass")?,
            Held::start(&host, TAPS[1], "pass")?,
            Held::start(&alone, "drop", "drop")?,
        ];
        let sinks = [
            Held::start(&guests[0], GUEST_DEVICE, "sink")?,
            Held::start(&guests[1], GUEST_DEVICE, "sink")?,
        ];
        Ok(Self {
            lab,
            host,
            guests,
            alone,
            _holds: holds,
            sinks,
        })
    }

    fn send(
        &self,
        namespace: &Namespace,
        from: usize,
        flows: u32,
        milliseconds: u64,
    ) -> Result<Sent> {
        let to = 1 - from;
        let stream = Stream {
            device: GUEST_DEVICE.to_owned(),
            source_mac: MACS[from].parse()?,
            destination_mac: MACS[to].parse()?,
            source: ADDRESSES[from].parse()?,
            destination: ADDRESSES[to].parse()?,
            service_port: SERVICE_PORT,
            flows,
            milliseconds,
            reply: from == 1,
        };
        send(namespace, &stream)
    }

    /// One round over whatever joins the taps now: both directions once, then the measured stream.
    pub(crate) fn round(&mut self, flows: u32) -> Result<Round> {
        self.send(&self.guests[0], 0, flows, 20)?;
        self.send(&self.guests[1], 1, flows, 20)?;
        self.send(&self.guests[0], 0, flows, 20)?;
        let before = self.sinks[1].count()?;
        let sent = self.send(&self.guests[0], 0, flows, 400)?;
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let arrived = (self.sinks[1].count()? - before) as f64 / sent.frames.max(1) as f64;
        Ok(Round {
            ns: sent.ns(),
            arrived,
        })
    }

    /// What the sender takes alone: nanoseconds a frame.
    pub(crate) fn sender(&self) -> Result<f64> {
        Ok(self.send(&self.alone, 0, 1, 400)?.ns())
    }

    /// Joins the taps by a bridge with a stateful iptables firewall of `rules` rules, runs `work`, and takes it away.
    pub(crate) fn with_bridge<T>(
        &mut self,
        rules: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let host = self.host.clone();
        host.run("ip link add br0 type bridge")?;
        for tap in TAPS {
            host.run(&format!("ip link set {tap} master br0"))?;
        }
        host.run("ip link set br0 up")?;
        host.sysctl("bridge/bridge-nf-call-iptables", "1")?;
        host.run("iptables -P FORWARD DROP")?;
        host.run("iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")?;
        for n in 1..rules {
            host.run(&format!("iptables -A FORWARD -p tcp --dport {n} -j ACCEPT"))?;
        }
        host.run(&format!(
            "iptables -A FORWARD -p udp --dport {SERVICE_PORT} -j ACCEPT"
        ))?;
        let result = work(self);
        host.run("iptables -F FORWARD")?;
        host.run("iptables -P FORWARD ACCEPT")?;
        host.run("ip link del br0")?;
        result
    }

    /// Joins the taps by Weft with a stateful policy of `rules` ingress rules, runs `work`, and takes it away.
    pub(crate) fn with_weft<T>(
        &mut self,
        rules: usize,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let path = self.lab.directory().join("snapshot.json");
        let guests = guests()?;
        let snapshot = snapshot::guests(&guests, 1, rules, SERVICE_PORT)?;
        std::fs::write(&path, serde_json::to_vec(&snapshot)?)?;
        let site = site(&self.lab, &self.host)?;
        let weft = WeftRun::start(&self.lab, &site, &path, guests.len())?;
        let result = work(self);
        weft.stop()?;
        result
    }
}

fn guests() -> Result<Vec<SnapshotGuest>> {
    (0..2)
        .map(|n| {
            let (mac, address) = (MACS[n].parse()?, ADDRESSES[n].parse()?);
            Ok(SnapshotGuest {
                tap: TAPS[n].to_owned(),
                mac,
                address,
            })
        })
        .collect()
}

/// The bars of forwarding: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let mut bench = Bench::new()?;
    let (mut sender, mut one, mut many, mut bridge) = (vec![], vec![], vec![], vec![]);
    for round in 1..=rounds {
        sender.push(bench.sender()?);
        one.push(bench.with_weft(1, |b| b.round(1))?);
        bridge.push(bench.with_bridge(1, |b| b.round(1))?);
        many.push(bench.with_weft(RULES_MANY, |b| b.round(1))?);
        eprintln!(
            "forwarding, round {round} of {rounds}: sender {:.0} ns, weft {:.0}, weft with {RULES_MANY} rules {:.0}, bridge + iptables {:.0}",
            sender[round - 1],
            one[round - 1].ns,
            many[round - 1].ns,
            bridge[round - 1].ns
        );
    }
    for (name, path) in [
        ("weft", &one),
        ("weft, many rules", &many),
        ("bridge", &bridge),
    ] {
        let worst = path.iter().map(|r| r.arrived).fold(f64::INFINITY, f64::min);
        ensure!(
            worst > 0.95,
            "{name}: only {:.0} % of the frames arrived",
            worst * 100.0
        );
    }
    let ns = |path: &[Round]| path.iter().map(|r| r.ns).collect::<Vec<_>>();
    let base = spread(&sender).median;
    let cost = |path: &[Round]| spread(&ns(path)).median - base;
    let (ours, ours_many, theirs) = (cost(&one), cost(&many), cost(&bridge));
    let ratio = ours_many / ours;
    let speed = spread(&ns(&bridge)).median / spread(&ns(&one)).median;
    let share = ours / theirs;
    Ok(vec![
        Bar {
            name: "established flow, 10,000 rules against 1".to_owned(),
            bar: "equal within noise (10 %)".to_owned(),
            figure: format!("{ratio:.2}× ({ours:.0} and {ours_many:.0} ns a packet)"),
            holds: (0.9..=1.1).contains(&ratio) || ratio < 1.0,
            rounds: ns(&many),
        },
        Bar {
            name: "tcx path against bridge + iptables conntrack, packets a second".to_owned(),
            bar: "≥ 2×".to_owned(),
            figure: format!(
                "{speed:.2}× ({} against {} ns a packet with the sender's {base:.0})",
                spread(&ns(&one)),
                spread(&ns(&bridge))
            ),
            holds: speed >= 2.0,
            rounds: ns(&one),
        },
        Bar {
            name: "tcx path against bridge + iptables conntrack, forwarding cost".to_owned(),
            bar: "≤ 0.4×".to_owned(),
            figure: format!("{share:.2}× ({ours:.0} against {theirs:.0} ns a packet)"),
            holds: share <= 0.4,
            rounds: ns(&bridge),
        },
    ])
}
