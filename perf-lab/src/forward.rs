//! Forwarding between two guests of one host: Weft's tcx path against Linux bridge + iptables with conntrack (what
//! Neutron's hybrid firewall does), in the same namespaces, in interleaved rounds of one run.
//!
//! The *forwarding cost* is the time a frame takes in all, less what the sender takes alone (measured in every round
//! with the frames dropped by XDP where they arrive). Both directions are seen before a round, so that conntrack and
//! Weft both have an established flow.

use crate::figures::{Bar, spread};
use crate::traffic::{Sent, Stream};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::snapshot::{self, SnapshotGuest};
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, Namespace, clock};

/// The port that both policies allow.
const SERVICE_PORT: u16 = 7;
const MACS: [&str; 2] = ["fa:16:3e:00:00:0a", "fa:16:3e:00:00:0b"];
const ADDRESSES: [&str; 2] = ["10.0.0.11", "10.0.0.12"];
const TAPS: [&str; 2] = ["tap-lab-a", "tap-lab-b"];
/// How many rules are many.
const RULES_MANY: usize = 10_000;
/// The longest that Weft may take until its ports are active.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The same until it has ended: the kernel waits for RCU at every device.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
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

/// A `hold` process: see [`crate::traffic::hold`].
struct Held {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Held {
    fn start(namespace: &Namespace, device: &str, arrival: &str) -> Result<Self> {
        let lab = std::env::current_exe()?;
        let mut child = namespace
            .command(lab.to_str().context("the lab's own path")?)
            .args(["hold", device, arrival])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?);
        let mut held = Self { child, lines };
        ensure!(
            held.line()? == "ready",
            "hold {device} {arrival} did not start"
        );
        Ok(held)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.lines.read_line(&mut line)? > 0,
            "the lab's own process ended"
        );
        Ok(line.trim().to_owned())
    }

    fn count(&mut self) -> Result<u64> {
        self.child
            .stdin
            .as_mut()
            .context("piped")?
            .write_all(b"\n")?;
        Ok(self.line()?.parse()?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends when its input does; nothing is lost if it is gone already.
        let _ = self.child.wait();
    }
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
        let output = namespace
            .command("chrt")
            .args(["--rr", "1", "taskset", "--cpu-list", "1"])
            .arg(std::env::current_exe()?)
            .args(stream.arguments())
            .output()?;
        if !output.status.success() {
            bail!(
                "the sender failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(serde_json::from_slice(&output.stdout)?)
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
        let weft = WeftRun::start(&self.lab, &self.host, &path, guests.len())?;
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

/// `weft run` on a snapshot file.
pub(crate) struct WeftRun {
    pub(crate) process: Process,
}

impl WeftRun {
    /// Starts it and waits until so many ports are active.
    pub(crate) fn start(
        lab: &Lab,
        host: &Namespace,
        snapshot: &Path,
        ports: usize,
    ) -> Result<Self> {
        let mut options = WeftOptions::new(None)?;
        options.physical_networks.clear();
        let site = Site::new(lab, host, &options)?;
        let log = std::fs::File::create(&site.log)?;
        let mut command = site.command("run")?;
        command
            .arg("--config")
            .arg(&site.config)
            .arg("--snapshot")
            .arg(snapshot);
        let process = lab.spawn(command.stdout(Stdio::null()).stderr(log))?;
        let run = Self { process };
        clock::until("the ports to turn active", READY_TIMEOUT, || {
            let Ok(status) = site.ask("status") else {
                return Ok(None);
            };
            let active = status["ports"].as_array().map_or(0, |ports| {
                ports
                    .iter()
                    .filter(|port| port["status"] == "ACTIVE")
                    .count()
            });
            Ok((active == ports).then_some(()))
        })
        .with_context(|| site.log_end())?;
        Ok(run)
    }

    /// Ends it; its programs go with it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(STOP_TIMEOUT)?;
        ensure!(status.success(), "weft run ended with {status}");
        Ok(())
    }
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
