//! Random histories: frames that mostly make sense, some that do not, replies and errors to what came out, fragments, and
//! changes of policy, neighbours and time in between. A history is a vector's script over a snapshot in words.
//!
//! The generator plays what it makes on a reference engine, to know what a reply would have to look like.

use crate::chance::Chance;
use crate::generate_snapshot;
use crate::script::{Action, Script, expand};
use crate::snapshot_text::name_of;
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::flow::key::{Ingress, Tuple};
use weft_dataplane::stage::decode::{self, Body};
use weft_dataplane::{Reference, ReferenceConfig, Verdict};
use weft_model::{HostSnapshot, MacAddress};

/// A random case: a vector without verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The snapshot in words.
    pub snapshot: toml::Table,
    /// The lines.
    pub lines: Vec<String>,
}

/// A frame that came out, and where.
struct Emitted {
    output: Ingress,
    source_mac: MacAddress,
    destination_mac: MacAddress,
    tuple: Tuple,
    kind: Option<u8>,
}

struct Generator<'a> {
    chance: &'a mut Chance,
    script: Script,
    engine: Reference,
    lines: Vec<String>,
    emitted: Vec<Emitted>,
    fragment: u32,
}

/// A history from a seed, with about so many frames.
#[must_use]
pub fn history(seed: u64, frames: usize, config: ReferenceConfig) -> History {
    let mut chance = Chance::new(seed);
    let snapshot = loop {
        let candidate = generate_snapshot::snapshot(&mut chance);
        if expand(&candidate, 1).is_ok() {
            break candidate;
        }
    };
    let Ok((script, first)) = Script::new(snapshot.clone()) else {
        return History {
            snapshot,
            lines: vec![],
        };
    };
    let mut engine = Reference::new(config);
    engine.apply(first);
    let mut generator = Generator {
        chance: &mut chance,
        script,
        engine,
        lines: vec![],
        emitted: vec![],
        fragment: 1,
    };
    for _ in 0..frames {
        generator.step();
    }
    History {
        snapshot,
        lines: generator.lines,
    }
}

fn ingress_word(ingress: Ingress) -> String {
    match ingress {
        Ingress::Port(id) => name_of(id.0),
        Ingress::Network(id) => format!("uplink {}", name_of(id.0)),
    }
}

impl Generator<'_> {
    fn step(&mut self) {
        let line = match self.chance.below(100) {
            0..=7 => generate_snapshot::change(self.chance, self.script.table()),
            8..=11 => Some(self.time()),
            12..=14 => self.neighbour(),
            15..=34 => self.answer(),
            35..=40 => self.error(),
            41..=48 => self.arp_or_nd(),
            49..=54 => self.fragments(),
            55..=62 => self.lines.iter().rfind(|l| l.contains(": eth")).cloned(),
            63..=72 => self.outsider(),
            73..=79 => self.crowd(),
            _ => self.opener(),
        };
        if let Some(line) = line {
            let line = self.damaged(line);
            self.play(line);
        }
    }

    fn play(&mut self, line: String) {
        match self.script.read(&line) {
            Ok(Action::Apply(snapshot)) => self.engine.apply(snapshot),
            Ok(Action::Neighbour(network, address, mac)) => {
                self.engine.neighbour_put(network, address, mac);
            }
            Ok(Action::Packet(packet)) => {
                let outcome = self
                    .engine
                    .process(packet.ingress, &packet.bytes, self.script.now_s);
                self.remember(outcome.verdict);
            }
            Ok(_) => {}
            // A change that would not be valid, a frame of a port that is gone: not part of the history.
            Err(_) => return,
        }
        self.lines.push(line);
    }

    fn remember(&mut self, verdict: Verdict) {
        let (output, frame) = match verdict {
            Verdict::Deliver { port, frame } => (Ingress::Port(port), frame),
            Verdict::Uplink { network, frame } => (Ingress::Network(network), frame),
            _ => return,
        };
        if let Ok(packet) = decode::process(&frame)
            && let Body::Ip(ip) = packet.body
            && !ip.is_later_fragment()
        {
            self.emitted.push(Emitted {
                output,
                source_mac: packet.source_mac,
                destination_mac: packet.destination_mac,
                tuple: ip.tuple,
                kind: ip.icmp.map(|(kind, _)| kind),
            });
        }
    }

    fn snapshot(&self) -> &HostSnapshot {
        self.script.snapshot()
    }

    fn mac_word(&self, mac: MacAddress) -> String {
        let known = self.script.names().iter().find(|(_, m)| **m == mac);
        known.map_or_else(|| mac.to_string(), |(name, _)| name.clone())
    }

    fn time(&mut self) -> String {
        let steps = [1, 1, 2, 29, 30, 31, 60, 61, 300, 301, 7_441];
        format!(
            "now {}",
            self.script.now_s + *self.chance.one(&steps).unwrap_or(&1)
        )
    }

    fn neighbour(&mut self) -> Option<String> {
        self.snapshot()
            .networks
            .keys()
            .find(|id| name_of(id.0) == "ext")?;
        let station = self.chance.word(&["gw", "host"]);
        let address =
            self.chance
                .word(&["203.0.110.1", "203.0.110.77", "2001:db8:0::1", "9.9.9.9"]);
        Some(format!("neighbour ext {address} {station}"))
    }

    /// Sometimes a word that spoils the frame.
    fn damaged(&mut self, line: String) -> String {
        if !line.contains(": eth") || !self.chance.percent(9) {
            return line;
        }
        let spoil = match self.chance.below(7) {
            6 => "vlan 7".to_owned(),
            0 => format!("cut {}", 14 + self.chance.below(60)),
            1 => format!("pad {}", 1 + self.chance.below(30)),
            2 => format!("total {}", self.chance.below(80)),
            3 | 4 => {
                let at = 12 + self.chance.below(60);
                format!("poke {at}:{:02x}", self.chance.below(256))
            }
            _ => format!("ttl {}", self.chance.below(4)),
        };
        format!("{line} {spoil}")
    }

    /// A port of the snapshot: name, MAC, an address of this family.
    fn guest(&mut self, v6: bool) -> Option<(String, MacAddress, IpAddr, Arc<str>)> {
        let ports: Vec<_> = self
            .snapshot()
            .ports
            .iter()
            .map(|(id, p)| (*id, p.clone()))
            .collect();
        let (id, port) = self.chance.one(&ports)?;
        let ips: Vec<IpAddr> = port
            .fixed_ips
            .iter()
            .map(|f| f.ip_address)
            .filter(|ip| ip.is_ipv6() == v6)
            .collect();
        let ip = *self.chance.one(&ips)?;
        Some((
            name_of(id.0),
            port.mac_address,
            ip,
            name_of(port.network_id.0).into(),
        ))
    }

    fn address(&mut self, v6: bool) -> String {
        let guest = self.guest(v6).map(|(_, _, ip, _)| ip.to_string());
        let owned: Vec<String> = self
            .snapshot()
            .routers
            .values()
            .flat_map(|r| {
                let inside = r.interfaces.iter().flat_map(|i| &i.addresses);
                inside
                    .chain(r.gateway.iter().flat_map(|g| &g.addresses))
                    .map(|a| a.ip_address)
            })
            .chain(
                self.snapshot()
                    .floating_ips
                    .values()
                    .map(|f| f.floating_ip_address.into()),
            )
            .filter(|ip| ip.is_ipv6() == v6)
            .map(|ip| ip.to_string())
            .collect();
        let strange4 = [
            "9.9.9.9",
            "8.8.8.8",
            "10.1.2.3",
            "10.9.9.9",
            "192.0.3.99",
            "192.0.2.40",
            "203.0.110.77",
            "224.0.0.5",
            "255.255.255.255",
            "169.254.169.254",
            "127.0.0.1",
            "0.0.0.0",
            "192.0.2.255",
        ];
        let strange6 = [
            "2001:db8:99::9",
            "fd00:2::99",
            "fd00:1::40",
            "ff02::1",
            "fe80::1",
            "::1",
            "::",
            "fd00:aaaa::9",
        ];
        match self.chance.below(10) {
            0..=4 => guest.unwrap_or_else(|| "9.9.9.9".into()),
            5..=7 if !owned.is_empty() => self.chance.one(&owned).cloned().unwrap_or_default(),
            _ if v6 => self.chance.word(&strange6).to_owned(),
            _ => self.chance.word(&strange4).to_owned(),
        }
    }

    fn port_number(&mut self) -> u16 {
        *self
            .chance
            .one(&[
                22, 22, 53, 80, 1000, 1001, 40_000, 40_001, 65_535, 0, 23, 79, 67, 68, 546, 547,
            ])
            .unwrap_or(&22)
    }

    fn layer4(&mut self, v6: bool) -> String {
        let (a, b) = (self.port_number(), self.port_number());
        match self.chance.below(24) {
            0..=8 => format!("tcp {a}>{b} S"),
            9 => format!(
                "tcp {a}>{b} {}",
                self.chance.word(&["A", "SA", "F", "R", "SF", "PA", "FA"])
            ),
            10..=13 => format!("udp {a}>{b}"),
            14 => format!("udp {a}>{b} nosum"),
            15..=18 => format!(
                "echo {}",
                self.chance.word(&["1", "2", "40000", "0", "65535"])
            ),
            19 => format!("pong {}", self.chance.word(&["1", "2", "0"])),
            20 if v6 => format!(
                "icmp {}",
                self.chance
                    .word(&["128/1 id 1", "1/0", "200/0", "137/0", "134/0"])
            ),
            20 => format!(
                "icmp {}",
                self.chance
                    .word(&["8/1 id 1", "13/0 id 3", "5/0", "3/0", "17/0 id 1"])
            ),
            21 => format!("{} {a}>{b}", self.chance.word(&["sctp", "udplite", "dccp"])),
            22 => format!(
                "proto {}",
                self.chance.word(&["47", "50", "1", "58", "2", "59"])
            ),
            _ => "udp 68>67".to_owned(),
        }
    }

    fn tail(&mut self) -> String {
        let data = self
            .chance
            .one(&[0, 0, 1, 7, 8, 40, 1200, 1232, 1252, 1300, 1380, 1440])
            .copied()
            .unwrap_or(0);
        let ttl = self
            .chance
            .one(&[64, 64, 64, 255, 3, 2, 1, 0])
            .copied()
            .unwrap_or(64);
        let mut words = format!("ttl {ttl} data {data}");
        if self.chance.percent(4) {
            words += self.chance.word(&[
                " options 4",
                " options 12",
                " ext 0",
                " ext 0,60",
                " ext 60,43",
                " ext 0,0,0,0,0",
            ]);
        }
        words
    }

    /// The MAC that a frame to this address is sent to, mostly.
    fn next_hop(&mut self, network: &str, to: &str) -> String {
        let here = self.snapshot().ports.iter().find(|(_, p)| {
            name_of(p.network_id.0) == network
                && p.fixed_ips.iter().any(|f| f.ip_address.to_string() == to)
        });
        let here = here.map(|(id, _)| name_of(id.0));
        if let Some(here) = here
            && self.chance.percent(85)
        {
            return here;
        }
        let legs: Vec<String> = self
            .script
            .names()
            .keys()
            .filter(|name| {
                name.ends_with(&format!("@{network}"))
                    || (network == "ext" && name.starts_with('f'))
            })
            .cloned()
            .collect();
        match self.chance.one(&legs) {
            Some(leg) if self.chance.percent(93) => leg.clone(),
            _ => {
                let all: Vec<String> = self.script.names().keys().cloned().collect();
                self.chance.one(&all).cloned().unwrap_or_default()
            }
        }
    }

    fn opener(&mut self) -> Option<String> {
        let v6 = self.chance.percent(35);
        let (name, _, source, network) = self.guest(v6)?;
        let to = self.address(v6);
        let hop = self.next_hop(&network, &to);
        let source_mac = if self.chance.percent(97) {
            name.clone()
        } else {
            self.mac_word(MacAddress([2, 0, 0, 0, 0, 0xaa]))
        };
        let source = if self.chance.percent(95) {
            source.to_string()
        } else {
            self.address(v6)
        };
        let (l4, tail) = (self.layer4(v6), self.tail());
        Some(format!(
            "{name}: eth {source_mac}>{hop} ip {source}>{to} {l4} {tail}"
        ))
    }

    /// One of many that ask the same stranger from the same port (what SNAT has to tell apart), or a floating IP or a
    /// guest outside (who see a translated source).
    fn crowd(&mut self) -> Option<String> {
        let floating = self
            .snapshot()
            .floating_ips
            .values()
            .map(|f| IpAddr::V4(f.floating_ip_address));
        let outside = self
            .snapshot()
            .ports
            .values()
            .filter(|p| name_of(p.network_id.0) == "ext");
        let outside = outside
            .flat_map(|p| &p.fixed_ips)
            .map(|f| f.ip_address)
            .filter(IpAddr::is_ipv4);
        let targets: Vec<String> = floating.chain(outside).map(|ip| ip.to_string()).collect();
        let to = match self.chance.one(&targets) {
            Some(target) if self.chance.percent(60) => target.clone(),
            _ => "9.9.9.9".to_owned(),
        };
        let words = [
            "udp 40000>53",
            "tcp 40000>22 S",
            "echo 40000",
            "udp 1000>53",
            "proto 47",
        ];
        let l4 = self.chance.word(&words);
        for _ in 0..3 {
            let (name, _, source, network) = self.guest(false)?;
            let hop = self.next_hop(&network, &to);
            self.play(format!("{name}: eth {name}>{hop} ip {source}>{to} {l4}"));
        }
        None
    }

    fn outsider(&mut self) -> Option<String> {
        self.snapshot()
            .networks
            .keys()
            .find(|id| name_of(id.0) == "ext")?;
        let v6 = self.chance.percent(30);
        let (from, to) = (self.address(v6), self.address(v6));
        let from = if self.chance.percent(70) {
            (if v6 { "2001:db8:99::9" } else { "9.9.9.9" }).to_owned()
        } else {
            from
        };
        let hop = self.next_hop("ext", &to);
        let (l4, tail) = (self.layer4(v6), self.tail());
        Some(format!(
            "uplink ext: eth gw>{hop} ip {from}>{to} {l4} {tail}"
        ))
    }

    fn recent(&mut self) -> Option<Emitted> {
        let window = self.emitted.len().min(8);
        let back = self.chance.below(window.max(1));
        let at = self.emitted.len().checked_sub(1 + back)?;
        (window > 0).then(|| self.emitted.swap_remove(at))
    }

    /// What the receiver of a frame might send back.
    fn answer(&mut self) -> Option<String> {
        let seen = self.recent()?;
        let t = seen.tuple;
        let l4 = match (t.protocol, seen.kind) {
            (6, _) => {
                let flags = self
                    .chance
                    .word(&["SA", "A", "A", "A", "FA", "R", "S", "PA"]);
                format!("tcp {}>{} {flags}", t.destination_port, t.source_port)
            }
            (1 | 58, Some(8 | 128)) => format!("pong {}", t.source_port),
            (1 | 58, Some(0 | 129)) => format!("echo {}", t.destination_port),
            (1 | 58, _) => return None,
            (17 | 33 | 132 | 136, _) => {
                let name = match t.protocol {
                    17 => "udp",
                    33 => "dccp",
                    132 => "sctp",
                    _ => "udplite",
                };
                format!("{name} {}>{}", t.destination_port, t.source_port)
            }
            (number, _) => format!("proto {number}"),
        };
        let (from, to) = (
            self.mac_word(seen.destination_mac),
            self.mac_word(seen.source_mac),
        );
        let to = if self.chance.percent(95) {
            to
        } else {
            "gw".to_owned()
        };
        let from = if from == "zero" {
            "gw".to_owned()
        } else {
            from
        };
        let (ingress, tail) = (ingress_word(seen.output), self.tail());
        Some(format!(
            "{ingress}: eth {from}>{to} ip {}>{} {l4} {tail}",
            t.destination, t.source
        ))
    }

    /// An ICMP error about a frame that came out.
    fn error(&mut self) -> Option<String> {
        let seen = self.recent()?;
        let t = seen.tuple;
        let l4 = match (t.protocol, seen.kind) {
            (6, _) => format!("tcp {}>{} S", t.source_port, t.destination_port),
            (17, _) => format!("udp {}>{}", t.source_port, t.destination_port),
            (1 | 58, Some(8 | 128)) => format!("echo {}", t.source_port),
            (1 | 58, Some(0 | 129)) => format!("pong {}", t.destination_port),
            (1 | 58, _) => return None,
            (132, _) => format!("sctp {}>{}", t.source_port, t.destination_port),
            (number, _) => format!("proto {number}"),
        };
        let v6 = t.source.is_ipv6();
        let kind = if v6 {
            self.chance.word(&["1/4", "2/0 rest 1280", "3/0"])
        } else {
            self.chance.word(&["3/3", "3/4 rest 1300", "11/0"])
        };
        let by = if self.chance.percent(60) {
            t.destination.to_string()
        } else {
            self.address(v6)
        };
        let whole = if v6 { 48 } else { 28 };
        let cut = *self
            .chance
            .one(&[whole, whole, whole + 12, whole - 1, whole + 9])
            .unwrap_or(&whole);
        let (from, to) = (
            self.mac_word(seen.destination_mac),
            self.mac_word(seen.source_mac),
        );
        let inner = format!(
            "ip {}>{} ttl 3 {l4} data 24 cut {cut}",
            t.source, t.destination
        );
        let (ingress, ttl) = (
            ingress_word(seen.output),
            self.chance.word(&["64", "64", "2", "1"]),
        );
        Some(format!(
            "{ingress}: eth {from}>{to} ip {by}>{} icmp {kind} about ({inner}) ttl {ttl}",
            t.source
        ))
    }

    fn arp_or_nd(&mut self) -> Option<String> {
        let v6 = self.chance.percent(50);
        let uplink = self.chance.percent(30);
        let (name, _, source, _) = self.guest(v6)?;
        let (ingress, mac, source) = if uplink {
            let outside = if v6 { "2001:db8:0::1" } else { "203.0.110.1" };
            ("uplink ext".to_owned(), "gw".to_owned(), outside.to_owned())
        } else {
            (name.clone(), name, source.to_string())
        };
        let source = match self.chance.below(10) {
            0 if v6 => "::".to_owned(),
            0 => "0.0.0.0".to_owned(),
            1 => self.address(v6),
            _ => source,
        };
        let target = self.address(v6);
        let names: Vec<String> = self.script.names().keys().cloned().collect();
        let to = if self.chance.percent(60) {
            "bcast".to_owned()
        } else {
            self.chance.one(&names)?.clone()
        };
        Some(match (v6, self.chance.below(8)) {
            (false, 0) => {
                format!("{ingress}: eth {mac}>{to} arp tell {target} from {source} to {to}")
            }
            (false, 1) => format!("{ingress}: eth {mac}>{to} arp ask {target} from {source} hw gw"),
            (false, 2) => {
                format!("{ingress}: eth {mac}>bcast ip 0.0.0.0>255.255.255.255 udp 68>67 data 240")
            }
            (true, 5) => {
                format!("{ingress}: eth {mac}>{to} ip {source}>ff02::1:2 udp 546>547 data 20")
            }
            (false, _) => format!("{ingress}: eth {mac}>{to} arp ask {target} from {source}"),
            (true, 0) => format!("{ingress}: eth {mac}>{to} ip {source}>ff02::2 rs"),
            (true, 1) => {
                let told = if self.chance.percent(50) {
                    &source
                } else {
                    &target
                };
                format!(
                    "{ingress}: eth {mac}>{to} ip {source}>{target} na {told} lladdr {mac} flags so"
                )
            }
            (true, 2) => {
                format!("{ingress}: eth {mac}>{to} ip {source}>ff02::16 icmp 143/0 data 20 ttl 1")
            }
            (true, 3) => {
                format!("{ingress}: eth {mac}>{to} ip {source}>ff02::1 ns {target} ttl 254")
            }
            (true, 4) => format!(
                "{ingress}: eth {mac}>{to} ip {source}>ff02::1 ns {}",
                self.link_local()?
            ),
            (true, _) => format!(
                "{ingress}: eth {mac}>{to} ip {source}>ff02::1:ff00:1 ns {target} lladdr {mac}"
            ),
        })
    }

    fn link_local(&mut self) -> Option<IpAddr> {
        let macs: Vec<MacAddress> = self.script.names().values().copied().collect();
        self.chance
            .one(&macs)
            .map(|mac| weft_model::eui64_link_local(*mac).into())
    }

    /// A first fragment now, and a later one of the same packet, sometimes the other way round.
    fn fragments(&mut self) -> Option<String> {
        let v6 = self.chance.percent(40);
        let (name, _, source, network) = self.guest(v6)?;
        let to = self.address(v6);
        let hop = self.next_hop(&network, &to);
        let l4 = self.layer4(v6);
        self.fragment += 1;
        let (id, known) = (self.fragment, self.chance.percent(85));
        let frame = |part: &str, source: String| {
            format!("{name}: eth {name}>{hop} ip {source}>{to} frag {id}:{part} {l4} data 24")
        };
        let (first, later) = (
            frame("0+", source.to_string()),
            frame("3", source.to_string()),
        );
        if known {
            self.play(first);
        }
        if self.chance.percent(10) {
            let spoofed = self.address(v6);
            return Some(frame("5+", spoofed));
        }
        Some(later)
    }
}
