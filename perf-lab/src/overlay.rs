//! Guest to guest over two hosts, by VXLAN under security groups: Weft against Linux's vxlan device, bridge and stateful
//! iptables, in the same namespaces, in interleaved rounds of one run; and Weft's routed way against its bridged one.
//!
//! ```text
//!   a ── tap ─ host 0 ─ eth0 ════ eth0 ─ host 1 ─ tap ── b (a's network)
//!                                               └ tap ── c (another network, behind a router)
//! ```
//! Packets a second are the lab's sender's, in all: sender, two hosts and wire share one processor, as they do for the
//! peer. TCP is one connection between two threads.

use crate::figures::{Bar, spread};
use crate::process::{Held, WeftRun, send};
use crate::traffic::Stream;
use anyhow::{Context, Result, anyhow, ensure};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_kit::snapshot::{self, OverlayGuest, SnapshotGuest};
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, Namespace, clock};
use weft_model::MacAddress;

/// The port that the policies allow, of UDP and TCP.
const SERVICE_PORT: u16 = 7;
/// Ingress rules of every guest.
const RULES: usize = 10;
pub(crate) const GUEST_DEVICE: &str = "eth0";
pub(crate) const UNDERLAY: &str = "eth0";
/// What fits into a tunnel over a wire of 1,500.
const MTU: u32 = 1_450;
/// How long one measured stream lasts, and one before it that opens the flow.
const STREAM_MS: u64 = 400;
const WARM_MS: u64 = 20;
/// How long one measured connection sends.
const TCP_TIME: Duration = Duration::from_millis(800);
const TCP_BYTES: usize = 128 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which guest, by its place among all of them.
const A: usize = 0;
pub(crate) const B: usize = 1;
const C: usize = 2;

/// What one path gave in one round.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// Nanoseconds a frame in all.
    ns: f64,
    /// The share of frames that arrived.
    arrived: f64,
    /// Gbit/s of one TCP connection.
    gbit_s: f64,
}

/// Two hosts, three guests, and whatever joins them.
pub(crate) struct Bench {
    lab: Lab,
    pub(crate) hosts: [Namespace; 2],
    pub(crate) guests: Vec<(Namespace, OverlayGuest)>,
}

fn tunnel_ip(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 1 + host).into()
}

fn guest(number: u8, host: u8, network: u8) -> OverlayGuest {
    OverlayGuest {
        guest: SnapshotGuest {
            tap: format!("tap-lab-{number}"),
            mac: MacAddress([0xfa, 0x16, 0x3e, 0, 0, 10 + number]),
            address: Ipv4Addr::new(10, network, 0, 10 + number),
        },
        host,
        network,
    }
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        let lab = Lab::new("weft-overlay")?;
        let hosts = [lab.namespace("h0")?, lab.namespace("h1")?];
        lab.veth((&hosts[0], UNDERLAY), (&hosts[1], UNDERLAY))?;
        for (n, host) in (0..).zip(&hosts) {
            let address = tunnel_ip(n);
            host.run(&format!("ip address add {address}/24 dev {UNDERLAY}"))?;
        }
        let mut guests = Vec::new();
        for of in [guest(0, 0, 0), guest(1, 1, 0), guest(2, 1, 1)] {
            let namespace = lab.namespace(&format!("g{}", guests.len()))?;
            namespace.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
            let host = &hosts[usize::from(of.host)];
            lab.veth((host, &of.guest.tap), (&namespace, GUEST_DEVICE))?;
            let (mac, address) = (of.guest.mac, of.guest.address);
            for line in [
                format!("ip link set {GUEST_DEVICE} address {mac} mtu {MTU}"),
                format!("ip address add {address}/16 dev {GUEST_DEVICE}"),
            ] {
                namespace.run(&line)?;
            }
            guests.push((namespace, of));
        }
        let bench = Self { lab, hosts, guests };
        // Neighbours are written, so that the peer needs no flooding.
        for (from, to) in [(A, B), (B, A)] {
            let of = &bench.guests[to].1.guest;
            let line = format!(
                "ip neighbour add {} lladdr {} dev {GUEST_DEVICE}",
                of.address, of.mac
            );
            bench.guests[from].0.run(&line)?;
        }
        Ok(bench)
    }

    /// One round from a to `to` over whatever joins the hosts now.
    fn round(&self, to: usize) -> Result<Round> {
        let (ns, arrived) = self.packets(to)?;
        let gbit_s = if to == B { self.tcp()? } else { 0.0 };
        Ok(Round {
            ns,
            arrived,
            gbit_s,
        })
    }

    /// Both directions once, so that all have an established flow, then the measured stream.
    pub(crate) fn packets(&self, to: usize) -> Result<(f64, f64)> {
        // What an XDP redirect leads to a veth needs a program at the other end.
        let mut holds = Vec::new();
        for (_, of) in &self.guests {
            let host = &self.hosts[usize::from(of.host)];
            holds.push(Held::start(host, &of.guest.tap, "pass")?);
        }
        let _back = Held::start(&self.guests[A].0, GUEST_DEVICE, "sink")?;
        let mut sink = Held::start(&self.guests[to].0, GUEST_DEVICE, "sink")?;
        for (from, milliseconds) in [(A, WARM_MS), (to, WARM_MS), (A, WARM_MS)] {
            self.stream(from, if from == A { to } else { A }, milliseconds)?;
        }
        let before = sink.count()?;
        let sent = self.stream(A, to, STREAM_MS)?;
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let arrived = (sink.count()? - before) as f64 / sent.frames.max(1) as f64;
        Ok((sent.ns(), arrived))
    }

    fn stream(&self, from: usize, to: usize, milliseconds: u64) -> Result<crate::traffic::Sent> {
        let (namespace, source) = &self.guests[from];
        let destination = &self.guests[to].1;
        let destination_mac = if source.network == destination.network {
            destination.guest.mac
        } else {
            snapshot::overlay_router_mac(source.network)
        };
        let stream = Stream {
            device: GUEST_DEVICE.to_owned(),
            source_mac: source.guest.mac,
            destination_mac,
            source: source.guest.address,
            destination: destination.guest.address,
            service_port: SERVICE_PORT,
            flows: 1,
            milliseconds,
            reply: from != A,
        };
        send(namespace, &stream)
    }

    /// One connection from a to b.
    pub(crate) fn tcp(&self) -> Result<f64> {
        let (server, of) = &self.guests[B];
        let to = SocketAddr::new(of.guest.address.into(), SERVICE_PORT);
        let listener = server.tcp_listen(to.ip(), to.port())?;
        let mut stream = self.guests[A].0.tcp_connect(to, CONNECT_TIMEOUT)?;
        let (mut taken, _) = listener.accept()?;
        let reader = std::thread::spawn(move || -> std::io::Result<u64> {
            let (mut bytes, mut buffer) = (0, vec![0; TCP_BYTES]);
            loop {
                match taken.read(&mut buffer)? {
                    0 => return Ok(bytes),
                    count => bytes += count as u64,
                }
            }
        });
        let (start, buffer) = (clock::now(), vec![0; TCP_BYTES]);
        while start.elapsed() < TCP_TIME {
            stream.write_all(&buffer)?;
        }
        drop(stream);
        let bytes = reader
            .join()
            .map_err(|_panic| anyhow!("the reader panicked"))??;
        #[allow(clippy::cast_precision_loss, reason = "bytes of a second")]
        Ok(bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9)
    }

    /// Joins a and b by Linux: bridges, a vxlan device without learning, and a stateful firewall.
    fn with_linux<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        for (n, host) in (0..).zip(&self.hosts) {
            let (own, other) = (tunnel_ip(n), tunnel_ip(1 - n));
            for line in [
                "ip link add br0 type bridge".to_owned(),
                format!(
                    "ip link add vx0 mtu {MTU} type vxlan id 5001 local {own} remote {other} dev {UNDERLAY} \
                     dstport 4789 nolearning noudpcsum"
                ),
                "ip link set vx0 master br0 up".to_owned(),
                format!("ip link set tap-lab-{n} master br0"),
                "ip link set br0 up".to_owned(),
                "iptables -P FORWARD DROP".to_owned(),
                "iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
                    .to_owned(),
                format!("iptables -A FORWARD -p udp --dport {SERVICE_PORT} -j ACCEPT"),
                format!("iptables -A FORWARD -p tcp --dport {SERVICE_PORT} -j ACCEPT"),
            ] {
                host.run(&line)?;
            }
            host.sysctl("bridge/bridge-nf-call-iptables", "1")?;
        }
        let result = work(self);
        for host in &self.hosts {
            for line in [
                "iptables -F FORWARD",
                "iptables -P FORWARD ACCEPT",
                "ip link del vx0",
                "ip link del br0",
            ] {
                host.run(line)?;
            }
        }
        result
    }

    /// Joins all guests by Weft, and takes it away.
    pub(crate) fn with_weft<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let guests: Vec<OverlayGuest> = self.guests.iter().map(|(_, of)| of.clone()).collect();
        let tunnel_ips = [tunnel_ip(0), tunnel_ip(1)];
        let mut running = Vec::new();
        for (n, host) in (0..).zip(&self.hosts) {
            let snapshot = snapshot::overlay(n, &tunnel_ips, &guests, (RULES, SERVICE_PORT))?;
            let path = self.lab.directory().join(format!("snapshot-{n}.json"));
            std::fs::write(&path, serde_json::to_vec(&snapshot)?)?;
            let mut options = WeftOptions::new(None)?;
            options.physical_networks.clear();
            options.underlay = Some((UNDERLAY.to_owned(), tunnel_ip(n)));
            let site = Site::of_host(&self.lab, host, &format!("h{n}"), &options)?;
            let ports = snapshot.ports.len();
            running.push(WeftRun::start(&self.lab, &site, &path, ports)?);
        }
        let result = work(self);
        running.into_iter().try_for_each(WeftRun::stop)?;
        result
    }
}

/// The bars: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let bench = Bench::new()?;
    let (mut linux, mut bridged, mut routed) = (vec![], vec![], vec![]);
    for round in 1..=rounds {
        let by_weft = |bench: &Bench| {
            let bridged = bench.round(B).context("bridged")?;
            Ok((bridged, bench.round(C).context("routed")?))
        };
        let (one, other) = bench.with_weft(by_weft).context("by weft")?;
        bridged.push(one);
        routed.push(other);
        linux.push(bench.with_linux(|b| b.round(B)).context("by Linux")?);
        eprintln!(
            "two hosts, round {round} of {rounds}: weft {:.0} ns and {:.1} Gbit/s, routed {:.0} ns, Linux {:.0} ns and {:.1} Gbit/s",
            one.ns,
            one.gbit_s,
            other.ns,
            linux[round - 1].ns,
            linux[round - 1].gbit_s,
        );
    }
    for (name, path) in [
        ("weft", &bridged),
        ("weft, routed", &routed),
        ("Linux", &linux),
    ] {
        let worst = path.iter().map(|r| r.arrived).fold(f64::INFINITY, f64::min);
        let percent = worst * 100.0;
        ensure!(
            worst > 0.95,
            "{name}: only {percent:.0} % of the frames arrived"
        );
    }
    let ns = |path: &[Round]| path.iter().map(|r| r.ns).collect::<Vec<_>>();
    let gbit_s = |path: &[Round]| path.iter().map(|r| r.gbit_s).collect::<Vec<_>>();
    let median = |sample: &[f64]| spread(sample).median;
    let speed = median(&ns(&linux)) / median(&ns(&bridged));
    let tcp = median(&gbit_s(&bridged)) / median(&gbit_s(&linux));
    let route = median(&ns(&bridged)) / median(&ns(&routed));
    let against = "two hosts, VXLAN and security groups, against Linux vxlan + bridge + iptables";
    Ok(vec![
        Bar {
            name: format!("{against}: packets a second"),
            bar: "≥ 2.5×".to_owned(),
            figure: format!(
                "{speed:.2}× ({} against {} ns a packet)",
                spread(&ns(&bridged)),
                spread(&ns(&linux))
            ),
            holds: speed >= 2.5,
            rounds: ns(&bridged),
        },
        Bar {
            name: format!("{against}: TCP"),
            bar: "≥ 1×".to_owned(),
            figure: format!(
                "{tcp:.2}× ({:.1} against {:.1} Gbit/s)",
                median(&gbit_s(&bridged)),
                median(&gbit_s(&linux))
            ),
            holds: tcp >= 1.0,
            rounds: gbit_s(&bridged),
        },
        Bar {
            name: "two hosts: routed east-west against the same bridged".to_owned(),
            bar: "≥ 0.95×".to_owned(),
            figure: format!(
                "{route:.2}× ({} against {} ns a packet)",
                spread(&ns(&routed)),
                spread(&ns(&bridged))
            ),
            holds: route >= 0.95,
            rounds: ns(&routed),
        },
    ])
}
