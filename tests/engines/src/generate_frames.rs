//! The frames of random histories: openers, crowds, strangers, replies, errors, ARP and ND, fragments. Each is a script's
//! line, or nothing where the snapshot has no place for it.

use crate::differential::LIMITS;
use crate::generate::{Emitted, Generator};
use crate::snapshot_text::name_of;
use std::net::IpAddr;
use weft_dataplane::Ingress;
use weft_model::MacAddress;

impl Generator<'_> {
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

    pub(crate) fn opener(&mut self) -> Option<String> {
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
    pub(crate) fn crowd(&mut self) -> Option<String> {
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
            "icmp 8/1 id 3",
            "udp 1000>53 nosum",
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

    /// A guest that opens more sessions than a port may have, unless the first frames end otherwise.
    pub(crate) fn flood(&mut self) -> Option<String> {
        let v6 = self.chance.percent(35);
        let (name, _, source, network) = self.guest(v6)?;
        let to = self.address(v6);
        let hop = self.next_hop(&network, &to);
        let port = self.chance.word(&["22", "53", "80"]);
        for number in 0..=LIMITS.sessions_per_port_max {
            let before = self.emitted.len();
            self.play(format!(
                "{name}: eth {name}>{hop} ip {source}>{to} udp {}>{port}",
                2_000 + number
            ));
            if self.emitted.len() == before {
                break;
            }
        }
        None
    }

    pub(crate) fn outsider(&mut self) -> Option<String> {
        let v6 = self.chance.percent(30);
        let (from, to) = (self.address(v6), self.address(v6));
        let from = if self.chance.percent(70) {
            (if v6 { "2001:db8:99::9" } else { "9.9.9.9" }).to_owned()
        } else {
            from
        };
        let hop = self.next_hop("ext", &to);
        let (l4, tail) = (self.layer4(v6), self.tail());
        self.by_ext(&format!("eth gw>{hop} ip {from}>{to} {l4} {tail}"))
    }

    /// To an address that several hosts share, or about a packet from it.
    pub(crate) fn shared(&mut self) -> Option<String> {
        let snapshot = self.snapshot();
        let gateways = snapshot.routers.values().filter_map(|r| r.gateway.as_ref());
        let gateways = gateways.flat_map(|g| &g.addresses).map(|a| a.ip_address);
        let gateways: Vec<IpAddr> = gateways.filter(IpAddr::is_ipv4).collect();
        let floating = snapshot.remote_floating_ips.values();
        let floating = floating.map(|f| f.floating_ip_address.into());
        let forwarded = snapshot.forwarded_ips.values();
        let forwarded = forwarded.map(|f| f.floating_ip_address.into());
        let floating: Vec<IpAddr> = floating.chain(forwarded).collect();
        let all: Vec<IpAddr> = gateways.into_iter().chain(floating).collect();
        let to = self.chance.one(&all)?.to_string();
        let from = self
            .chance
            .word(&["9.9.9.9", "203.0.110.77", "203.0.110.10", "203.0.110.90"]);
        let hop = self.next_hop("ext", &to);
        let port = self.chance.word(&[
            "50000", "49152", "57343", "57344", "8200", "8256", "40001", "22", "80", "53",
        ]);
        let l4 = match self.chance.below(8) {
            0 => format!("tcp 443>{port} A"),
            1 => format!("udp 53>{port}"),
            2 => format!("pong {port}"),
            3 => "proto 47".to_owned(),
            4 => format!("icmp 11/0 about (ip {to}>{from} udp {port}>53)"),
            5 => format!("icmp 3/3 about (ip {to}>{from} echo {port})"),
            6 => format!("sctp 5000>{port}"),
            _ => format!("frag 78:0+ udp 53>{port} data 24"),
        };
        self.by_ext(&format!("eth gw>{hop} ip {from}>{to} {l4}"))
    }

    /// To a forwarded port, from outside or from a guest.
    pub(crate) fn forwarded(&mut self) -> Option<String> {
        let forwarded = self.snapshot().forwarded_ips.values().next()?;
        let to = forwarded.floating_ip_address.to_string();
        let words = [
            "tcp 40000>22 S",
            "tcp 40000>79 S",
            "tcp 40000>81 S",
            "tcp 40000>1003 S",
            "tcp 40000>1011 S",
            "udp 40000>53",
            "udp 1000>1001 nosum",
            "sctp 40000>22",
            "sctp 40000>80",
            "dccp 40000>7",
            "echo 22",
        ];
        let l4 = self.chance.word(&words);
        if self.chance.percent(50) {
            let (name, _, source, network) = self.guest(false)?;
            let hop = self.next_hop(&network, &to);
            return Some(format!("{name}: eth {name}>{hop} ip {source}>{to} {l4}"));
        }
        let hop = match self.chance.percent(80) {
            true => "fwd".to_owned(),
            false => self.next_hop("ext", &to),
        };
        let from = self
            .chance
            .word(&["9.9.9.9", "9.9.9.9", "203.0.110.77", "203.0.110.70"]);
        self.by_ext(&format!("eth gw>{hop} ip {from}>{to} {l4}"))
    }

    /// From a guest of another host, bridged or routed there.
    pub(crate) fn tunnelled(&mut self) -> Option<String> {
        let v6 = self.chance.percent(35);
        let (name, _, to, network) = self.guest(v6)?;
        let network_id = self
            .snapshot()
            .networks
            .keys()
            .find(|id| name_of(id.0) == *network);
        let ingress = Ingress::Network(*network_id?);
        let remotes: Vec<(String, Vec<IpAddr>)> = self
            .snapshot()
            .remote_ports
            .iter()
            .map(|(id, port)| {
                let ips = port.fixed_ips.iter().map(|f| f.ip_address);
                (name_of(id.0), ips.filter(|ip| ip.is_ipv6() == v6).collect())
            })
            .collect();
        let (remote, ips) = self.chance.one(&remotes)?.clone();
        let from = match self.chance.one(&ips) {
            Some(ip) if self.chance.percent(90) => ip.to_string(),
            _ => self.address(v6),
        };
        let mac = match self.chance.below(10) {
            0..=4 => remote,
            5 => "gw".to_owned(),
            _ => self.next_hop(&network, &from),
        };
        let to_mac = if self.chance.percent(93) {
            name
        } else {
            self.next_hop(&network, &from)
        };
        let (l4, tail) = (self.layer4(v6), self.tail());
        let part = match self.chance.below(20) {
            0 => "frag 77:0+ ",
            1 => "frag 77:3 ",
            _ => "",
        };
        let frame = format!("eth {mac}>{to_mac} ip {from}>{to} {part}{l4} {tail}");
        self.line(ingress, &frame)
    }

    /// To everybody, from a guest, from outside, or out of a tunnel.
    pub(crate) fn multicast(&mut self) -> Option<String> {
        let v6 = self.chance.percent(35);
        let (name, _, source, network) = self.guest(v6)?;
        let mac = self
            .chance
            .word(&["bcast", "01:00:5e:00:00:fb", "33:33:00:00:00:01"]);
        let to = match (v6, self.chance.below(3)) {
            (true, _) => "ff02::1".to_owned(),
            (false, 0) => "224.0.0.251".to_owned(),
            (false, 1) => "255.255.255.255".to_owned(),
            (false, _) => self.address(false),
        };
        let (l4, tail) = (self.layer4(v6), self.tail());
        if self.chance.percent(60) {
            return Some(format!(
                "{name}: eth {name}>{mac} ip {source}>{to} {l4} {tail}"
            ));
        }
        let physical = (self.snapshot().networks.iter()).find(|(id, _)| name_of(id.0) == *network);
        let (id, physical) = physical.map(|(id, n)| (*id, n.segment.network_type.is_physical()))?;
        if physical {
            let from = if v6 { "2001:db8:0::1" } else { "203.0.110.1" };
            return Some(self.by_uplink(id, &format!("eth gw>{mac} ip {from}>{to} {l4} {tail}")));
        }
        let remotes = self.snapshot().remote_ports.keys().map(|id| name_of(id.0));
        let remotes: Vec<String> = remotes.collect();
        let remote = self.chance.one(&remotes)?.clone();
        let from = self.address(v6);
        let frame = format!("eth {remote}>{mac} ip {from}>{to} {l4} {tail}");
        self.line(Ingress::Network(id), &frame)
    }

    fn recent(&mut self) -> Option<Emitted> {
        let window = self.emitted.len().min(8);
        let back = self.chance.below(window.max(1));
        let at = self.emitted.len().checked_sub(1 + back)?;
        (window > 0).then(|| self.emitted.swap_remove(at))
    }

    /// What the receiver of a frame might send back.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let seen = self.recent()?;
        if self.chance.percent(95) {
            self.tag = seen.tag;
        }
        let t = seen.tuple;
        let l4 = match (t.protocol, seen.kind) {
            (6, _) => {
                let flags = self
                    .chance
                    .word(&["SA", "A", "A", "A", "FA", "R", "S", "PA"]);
                format!("tcp {}>{} {flags}", t.destination_port, t.source_port)
            }
            // Now and then the reply, or another query, of another exchange.
            (1, Some(8)) if self.chance.percent(15) => format!("icmp 14/0 id {}", t.source_port),
            (1, Some(0)) if self.chance.percent(15) => {
                format!("icmp 13/0 id {}", t.destination_port)
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
        let tail = self.tail();
        let (source, destination) = (t.destination, t.source);
        let frame = format!("eth {from}>{to} ip {source}>{destination} {l4} {tail}");
        self.line(seen.output, &frame)
    }

    /// An ICMP error about a frame that came out.
    pub(crate) fn error(&mut self) -> Option<String> {
        let seen = self.recent()?;
        if self.chance.percent(95) {
            self.tag = seen.tag;
        }
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
        let (ttl, to_ip) = (self.chance.word(&["64", "64", "2", "1"]), t.source);
        let frame =
            format!("eth {from}>{to} ip {by}>{to_ip} icmp {kind} about ({inner}) ttl {ttl}");
        self.line(seen.output, &frame)
    }

    pub(crate) fn arp_or_nd(&mut self) -> Option<String> {
        let v6 = self.chance.percent(50);
        let uplink = self.chance.percent(30);
        let (name, _, source, _) = self.guest(v6)?;
        let (mac, source) = if uplink {
            let outside = if v6 { "2001:db8:0::1" } else { "203.0.110.1" };
            ("gw".to_owned(), outside.to_owned())
        } else {
            (name.clone(), source.to_string())
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
        let frame = match (v6, self.chance.below(8)) {
            (false, 0) => {
                format!("eth {mac}>{to} arp tell {target} from {source} to {to}")
            }
            (false, 1) => format!("eth {mac}>{to} arp ask {target} from {source} hw gw"),
            (false, 2) => {
                format!("eth {mac}>bcast ip 0.0.0.0>255.255.255.255 udp 68>67 data 240")
            }
            (false, 3) => format!("eth {mac}>{to} arp ask {target} from {target}"),
            (true, 6) => {
                format!("eth {mac}>{to} ip {source}>ff02::1 na {target} lladdr {mac} flags o")
            }
            (true, 5) => {
                format!("eth {mac}>{to} ip {source}>ff02::1:2 udp 546>547 data 20")
            }
            (false, _) => format!("eth {mac}>{to} arp ask {target} from {source}"),
            (true, 0) => format!("eth {mac}>{to} ip {source}>ff02::2 rs"),
            (true, 1) => {
                let told = if self.chance.percent(50) {
                    &source
                } else {
                    &target
                };
                format!("eth {mac}>{to} ip {source}>{target} na {told} lladdr {mac} flags so")
            }
            (true, 2) => {
                format!("eth {mac}>{to} ip {source}>ff02::16 icmp 143/0 data 20 ttl 1")
            }
            (true, 3) => {
                format!("eth {mac}>{to} ip {source}>ff02::1 ns {target} ttl 254")
            }
            (true, 4) => format!(
                "eth {mac}>{to} ip {source}>ff02::1 ns {}",
                self.link_local()?
            ),
            (true, _) => {
                format!("eth {mac}>{to} ip {source}>ff02::1:ff00:1 ns {target} lladdr {mac}")
            }
        };
        if uplink {
            self.by_ext(&frame)
        } else {
            Some(format!("{name}: {frame}"))
        }
    }

    fn link_local(&mut self) -> Option<IpAddr> {
        let macs: Vec<MacAddress> = self.script.names().values().copied().collect();
        self.chance
            .one(&macs)
            .map(|mac| weft_model::eui64_link_local(*mac).into())
    }

    /// A first fragment now, and a later one of the same packet, sometimes the other way round.
    pub(crate) fn fragments(&mut self) -> Option<String> {
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
