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
use weft_dataplane::stage::vlan;
use weft_dataplane::{Outcome, Reference, ReferenceConfig, Verdict, Way};
use weft_model::{HostSnapshot, MacAddress, NetworkId, NetworkType, PortInterface};
use weft_wire::ethernet::{self, HEADER_BYTES as ETHERNET};
use weft_wire::protocol;

/// A random case: a vector without verdicts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The snapshot in words.
    pub snapshot: toml::Table,
    /// The lines.
    pub lines: Vec<String>,
}

/// A frame that came out, and where.
pub(crate) struct Emitted {
    pub(crate) output: Ingress,
    pub(crate) source_mac: MacAddress,
    pub(crate) destination_mac: MacAddress,
    pub(crate) tuple: Tuple,
    pub(crate) kind: Option<u8>,
    /// The guest's own tag.
    pub(crate) tag: Option<u16>,
}

pub(crate) struct Generator<'a> {
    pub(crate) chance: &'a mut Chance,
    pub(crate) script: Script,
    pub(crate) engine: Reference,
    pub(crate) lines: Vec<String>,
    pub(crate) emitted: Vec<Emitted>,
    pub(crate) fragment: u32,
    /// A guest's own tag, on all frames of this step.
    pub(crate) tag: Option<u16>,
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
        tag: None,
    };
    for _ in 0..frames {
        generator.step();
    }
    History {
        snapshot,
        lines: generator.lines,
    }
}

impl Generator<'_> {
    fn step(&mut self) {
        // Two VLANs, one with a priority; the tag of a network; what is no VLAN.
        self.tag = match self.chance.below(40) {
            0..=6 => Some(7),
            7 | 8 => Some(40_967),
            9 | 10 => Some(8),
            11 => self.chance.one(&[0, 4095, 101, 4094, 12_288]).copied(),
            _ => None,
        };
        let line = match self.chance.below(100) {
            0..=7 => generate_snapshot::change(self.chance, self.script.table()),
            8..=11 => Some(self.time()),
            12..=14 => self.neighbour(),
            15..=34 => self.answer(),
            35..=40 => self.error(),
            41..=48 => self.arp_or_nd(),
            49..=54 => self.fragments(),
            55..=62 => self.lines.iter().rfind(|l| l.contains(": eth")).cloned(),
            63..=70 => self.outsider(),
            71..=76 => self.crowd(),
            77..=81 => self.tunnelled(),
            82..=87 => self.multicast(),
            88..=90 => self.shared(),
            91..=93 => self.forwarded(),
            94 => self.flood(),
            _ => self.opener(),
        };
        if let Some(line) = line {
            let line = self.damaged(line);
            self.play(line);
        }
    }

    /// A frame of a subport, as it comes by its trunk's port.
    fn by_trunk(&self, line: String) -> String {
        let Some((name, frame)) = line.split_once(": eth ") else {
            return line;
        };
        let ports = &self.snapshot().ports;
        let port = ports.iter().find(|(id, _)| name_of(id.0) == name);
        match port.map(|(_, port)| &port.interface) {
            Some(PortInterface::Subport { parent, vlan_id }) => {
                let parent = name_of(parent.0);
                format!("{parent}: vlan {vlan_id} eth {frame}")
            }
            _ => line,
        }
    }

    /// The same with the step's tag: the last one of the frame, and of the frame in a tunnel.
    fn tagged(&self, line: String) -> String {
        let Some(tag) = self.tag.filter(|_| line.contains("eth ")) else {
            return line;
        };
        let inner = line
            .strip_suffix(')')
            .filter(|_| line.starts_with("underlay"));
        match inner {
            Some(inner) => format!("{inner} tag {tag})"),
            None => format!("{line} tag {tag}"),
        }
    }

    pub(crate) fn play(&mut self, line: String) {
        let line = self.tagged(self.by_trunk(line));
        match self.script.read(&line) {
            Ok(Action::Apply(snapshot)) => self.engine.apply(snapshot),
            Ok(Action::Neighbour(network, address, mac)) => {
                self.engine.neighbour_put(network, address, mac);
            }
            Ok(Action::Packet(packet)) => {
                let outcome = self
                    .engine
                    .process(packet.ingress, &packet.bytes, self.script.now_s);
                self.remember(outcome, &packet.bytes);
            }
            Ok(_) => {}
            // A change that would not be valid, a frame of a port that is gone: not part of the history.
            Err(_) => return,
        }
        self.lines.push(line);
    }

    fn remember(&mut self, outcome: Outcome, sent: &[u8]) {
        let vlan = outcome.tuple.map(|tuple| tuple.vlan.0 & 0xfff);
        let (output, mut frame, sender) = match (outcome.verdict, outcome.session) {
            (Verdict::Deliver { port, frame }, _) => (Ingress::Port(port), frame, None),
            (Verdict::Uplink { network, frame }, _) => (Ingress::Network(network), frame, None),
            // The answer comes by the tunnel that the session waits for it at, to whoever sent this.
            (Verdict::Tunnel { frame }, Some(note)) => {
                let output = match note.way {
                    Way::Forward => note.reply.ingress,
                    Way::Reply => note.forward.ingress,
                };
                let ip = if frame[12] == 0x08 { 20 } else { 40 };
                let is_gre = frame[ETHERNET + if ip == 20 { 9 } else { 6 }] == protocol::GRE;
                let outer = ETHERNET + ip + if is_gre { 8 } else { 16 };
                let sender = sent[6..12].try_into().map(MacAddress).ok();
                (output, frame[outer..].to_vec(), sender)
            }
            _ => return,
        };
        while let Some((_, behind)) = ethernet::untag(&frame) {
            frame = behind;
        }
        if let Ok(packet) = decode::process(&frame)
            && let Body::Ip(ip) = packet.body
            && !ip.is_later_fragment()
        {
            self.emitted.push(Emitted {
                output,
                source_mac: sender.unwrap_or(packet.source_mac),
                destination_mac: packet.destination_mac,
                tuple: ip.tuple,
                kind: ip.icmp.map(|(kind, _)| kind),
                tag: vlan.filter(|vlan| *vlan != 0),
            });
        }
    }

    pub(crate) fn snapshot(&self) -> &HostSnapshot {
        self.script.snapshot()
    }

    /// The line of a frame that enters there.
    pub(crate) fn line(&mut self, ingress: Ingress, frame: &str) -> Option<String> {
        let network = match ingress {
            Ingress::Port(id) => return Some(format!("{}: {frame}", name_of(id.0))),
            Ingress::Network(id) => id,
            Ingress::Underlay => return None,
        };
        let segment = self.snapshot().networks.get(&network)?.segment.clone();
        if segment.network_type.is_physical() {
            return Some(self.by_uplink(network, frame));
        }
        let local = self.snapshot().tunnel_ip()?;
        let senders: Vec<IpAddr> = (self.snapshot().tunnel_hosts.values())
            .map(|host| host.tunnel_ip)
            .filter(|ip| ip.is_ipv6() == local.is_ipv6() && *ip != local)
            .collect();
        let sender = match self.chance.one(&senders) {
            Some(sender) if self.chance.percent(97) => sender.to_string(),
            _ if local.is_ipv6() => "fd00:55::9".to_owned(),
            _ => "198.51.100.9".to_owned(),
        };
        let vni = segment.segmentation_id.unwrap_or(77);
        let vni = if self.chance.percent(97) {
            vni
        } else {
            vni + 1
        };
        let options = [":00010003", ":0001030109090909", ":00018300", ":00010302"];
        let (port, word, options) = match segment.network_type {
            NetworkType::Geneve if self.chance.percent(20) => {
                (6081, "geneve", self.chance.word(&options))
            }
            NetworkType::Geneve => (6081, "geneve", ""),
            _ => (4789, "vxlan", ""),
        };
        if segment.network_type == NetworkType::Gre {
            let flags = self
                .chance
                .word(&["", "", "", "", "", "", ":80", ":10", ":0001"]);
            return Some(format!(
                "underlay: eth gw>host ip {sender}>{local} gre {vni}{flags} ({frame})"
            ));
        }
        Some(format!(
            "underlay: eth gw>host ip {sender}>{local} udp 50000>{port} nosum {word} {vni}{options} ({frame})"
        ))
    }

    /// The line of a frame that enters by the uplink of a network, mostly with the right tag.
    pub(crate) fn by_uplink(&mut self, network: NetworkId, frame: &str) -> String {
        if let Some(line) = self.by_transit(network, frame) {
            return line;
        }
        let right = vlan::id_of(self.snapshot(), network);
        let tag = match self.chance.below(30) {
            0 => self
                .chance
                .word(&["vlan 0 ", "vlan 101 ", "vlan 7 ", ""])
                .to_owned(),
            1 => self
                .chance
                .word(&["vlan 57445 ", "vlan 102 ", "vlan 4095 "])
                .to_owned(),
            _ => right.map_or_else(String::new, |id| format!("vlan {id} ")),
        };
        format!("uplink {}: {tag}{frame}", name_of(network.0))
    }

    /// The same, now and then by the network's transit: for this host, or to be brought outside.
    fn by_transit(&mut self, network: NetworkId, frame: &str) -> Option<String> {
        let transit = self.snapshot().networks.get(&network)?.transit?;
        let local = self.snapshot().tunnel_ip()?;
        let others = self.snapshot().tunnel_hosts.values();
        let senders: Vec<IpAddr> = others
            .map(|host| host.tunnel_ip)
            .filter(|ip| ip.is_ipv6() == local.is_ipv6() && *ip != local)
            .collect();
        let sender = *self.chance.one(&senders)?;
        if self.chance.percent(if transit.uplink { 60 } else { 10 }) {
            return None;
        }
        let mut frame = frame.to_owned();
        if self.chance.percent(40) {
            // `eth FROM>TO …`
            let (link, rest) = frame.strip_prefix("eth ")?.split_once(' ')?;
            let outsides: Vec<String> = self.script.names().keys().cloned().collect();
            let outsides: Vec<&String> = outsides
                .iter()
                .filter(|name| name.ends_with("@ext") || name.starts_with('f'))
                .collect();
            let from = match self.chance.one(&outsides) {
                Some(name) if self.chance.percent(90) => (*name).clone(),
                _ => link.split_once('>')?.0.to_owned(),
            };
            frame = format!("eth {from}>zero {rest}");
        }
        let vni = transit.vni;
        Some(format!(
            "underlay: eth gw>host ip {sender}>{local} udp 50000>4789 nosum vxlan {vni} ({frame})"
        ))
    }

    /// The line of a frame that enters by the external network, if there is one.
    pub(crate) fn by_ext(&mut self, frame: &str) -> Option<String> {
        let mut networks = self.snapshot().networks.keys().copied();
        let ext = networks.find(|id| name_of(id.0) == "ext")?;
        Some(self.by_uplink(ext, frame))
    }

    pub(crate) fn mac_word(&self, mac: MacAddress) -> String {
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

    /// Sometimes a word that spoils the frame, the outer one of a tunnel's.
    fn damaged(&mut self, line: String) -> String {
        if !line.contains("eth ") || !self.chance.percent(9) {
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
    pub(crate) fn guest(&mut self, v6: bool) -> Option<(String, MacAddress, IpAddr, Arc<str>)> {
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

    pub(crate) fn address(&mut self, v6: bool) -> String {
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
            .chain(
                self.snapshot()
                    .forwarded_ips
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
            "10.1.2.4",
            "10.1.2.5",
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

    pub(crate) fn port_number(&mut self) -> u16 {
        *self
            .chance
            .one(&[
                22, 22, 53, 80, 1000, 1001, 40_000, 40_001, 65_535, 0, 23, 79, 67, 68, 546, 547,
            ])
            .unwrap_or(&22)
    }

    pub(crate) fn layer4(&mut self, v6: bool) -> String {
        let (a, b) = (self.port_number(), self.port_number());
        match self.chance.below(24) {
            0..=8 => format!("tcp {a}>{b} S"),
            9 => format!(
                "tcp {a}>{b} {}",
                self.chance.word(&["A", "SA", "F", "R", "SF", "PA", "FA"])
            ),
            10..=13 => format!("udp {a}>{b}"),
            14 => format!("udp {a}>{b} nosum"),
            18 => format!("icmp {}/1 id 1", if v6 { 128 } else { 8 }),
            15..=17 => format!(
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

    pub(crate) fn tail(&mut self) -> String {
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
}
