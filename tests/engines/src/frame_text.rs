//! Frames as vectors write them, one line each:
//!
//! ```text
//! eth a>r1@blue ip 192.0.2.11>198.51.100.7 ttl 64 tcp 1000>22 S data 5
//! eth a>bcast arp ask 192.0.2.1 from 192.0.2.11
//! eth gw>f1 ip 203.0.113.9>203.0.113.20 icmp 3/1 about (ip 203.0.113.20>203.0.113.50 udp 1000>53 cut 28)
//! eth a>b hex 0800450000...
//! eth zero>zero ip 10.0.0.2>10.0.0.1 udp 50000>4789 nosum vxlan 7 (eth far>a ip 192.0.2.40>192.0.2.11 udp 1>2)
//! ```
//!
//! Lengths and checksums are right unless a word says otherwise. `with WORDS` in an expected frame is the frame sent, with
//! these words instead of its own.
//!
//! Words: `frame HEX` (all of it), `eth S>D`, `vlan N` (priority · 8192 + VLAN id), `tag N` (a second one behind it), `type HEX`, `hex BYTES` (behind both MACs), `pad N`, `cut N`, `poke
//! AT:HEX` (bytes overwritten at last); `arp ask|tell TARGET from SENDER
//! [hw MAC] [to MAC]`; `ip S>D`, `ttl N`, `options N` (IPv4, bytes), `ext N,N` (IPv6 headers of 8 bytes), `frag ID:OFFSET[+]`,
//! `total N`; `tcp S>D FLAGS`, `udp|udplite|sctp|dccp S>D`, `echo ID`, `pong ID`, `icmp TYPE/CODE [id N] [rest N]`, `ns|na
//! TARGET [lladdr MAC] [flags rso]`, `rs`, `ra`, `proto N`; `data N`, `nosum`, `about (…)`, `bytes HEX` (layer 4, raw); `df`,
//! `label N` (IPv6), `vxlan VNI (…)`, `gre KEY[:FLAGS] (…)`, `geneve VNI[:OPTIONS] (…)` (a frame; in an expected one `(same)` is the frame sent, `(with WORDS)` that with these words instead).

use crate::snapshot_text::{Names, protocol_number};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use weft_wire::{
    arp, checksum, ethernet, geneve, gre, icmpv4, icmpv6, ipv4, ipv6, ndisc, protocol, tcp, udp,
    vxlan,
};

/// ARP's part of a line.
#[derive(Clone, Debug)]
struct ArpText {
    operation: u16,
    target: Ipv4Addr,
    sender: Ipv4Addr,
    hardware: Option<[u8; 6]>,
    to: [u8; 6],
}

/// Layer 4 of a line.
#[derive(Clone, Debug)]
enum L4 {
    Tcp(u16, u16, u8),
    /// UDP, UDP-Lite, SCTP, DCCP.
    Ports(u8, u16, u16),
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    Neighbour {
        kind: u8,
        target: Ipv6Addr,
        mac: Option<[u8; 6]>,
        flags: u8,
    },
    Plain(u8),
}

/// The kind of a tunnel.
#[derive(Clone, Debug)]
enum TunnelKind {
    Vxlan,
    /// With options.
    Geneve(Vec<u8>),
    /// With other flags than that of the key.
    Gre(Vec<u8>),
}

/// A frame in a tunnel.
#[derive(Clone, Debug)]
struct Tunnelled {
    vni: u32,
    kind: TunnelKind,
    inner: Rc<FrameText>,
}

/// A frame in words. Build it with [`FrameText::build`].
#[derive(Clone, Debug, Default)]
pub struct FrameText {
    macs: Option<([u8; 6], [u8; 6])>,
    vlan: Option<u16>,
    tag: Option<u16>,
    ethertype: Option<u16>,
    raw: Option<Vec<u8>>,
    arp: Option<ArpText>,
    addresses: Option<(IpAddr, IpAddr)>,
    ttl: Option<u8>,
    tos: u8,
    label: u32,
    options: usize,
    extensions: Vec<u8>,
    fragment: Option<(u32, u16, bool)>,
    total: Option<u16>,
    l4: Option<L4>,
    l4_bytes: Option<Vec<u8>>,
    about: Option<Vec<u8>>,
    tunnelled: Option<Tunnelled>,
    dont_fragment: bool,
    data: usize,
    no_sum: bool,
    pad: usize,
    cut: Option<usize>,
    frame: Option<Vec<u8>>,
    pokes: Vec<(usize, Vec<u8>)>,
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = hex.chars().filter(|c| *c != '_').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok())
        .collect()
}

fn mac_of(names: &Names, word: &str) -> Option<[u8; 6]> {
    names
        .get(word)
        .copied()
        .or_else(|| word.parse().ok())
        .map(|mac| mac.0)
}

fn ends<T>(word: &str, parse: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    let (a, b) = word.split_once('>')?;
    Some((parse(a)?, parse(b)?))
}

/// Parses a line onto a frame (an empty one, or the one that was sent).
///
/// # Errors
/// The word that is wrong.
pub fn parse(line: &str, onto: FrameText, names: &Names) -> Result<FrameText, String> {
    parse_beside(line, onto, &FrameText::default(), names)
}

/// The text up to the parenthesis that ends it, and what follows.
fn parenthesized(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start().strip_prefix('(')?;
    let mut open = 1;
    for (at, letter) in text.char_indices() {
        open += match letter {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if open == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// As [`parse`]; what stands inside of a tunnel may speak of `sent`.
///
/// # Errors
/// The word that is wrong.
pub fn parse_beside(
    line: &str,
    onto: FrameText,
    sent: &FrameText,
    names: &Names,
) -> Result<FrameText, String> {
    let mut frame = onto;
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let wrong = || format!("cannot read {rest:?}");
        if matches!(word, "vxlan" | "geneve" | "gre") {
            let (vni, behind) = behind.trim_start().split_once(' ').ok_or_else(wrong)?;
            let (inner, behind) = parenthesized(behind).ok_or_else(wrong)?;
            let inner = match (inner, inner.strip_prefix("with ")) {
                ("same", _) => sent.clone(),
                (_, Some(words)) => parse(words, sent.clone(), names)?,
                (words, None) => parse(words, FrameText::default(), names)?,
            };
            let (vni, options) = vni.split_once(':').unwrap_or((vni, ""));
            let options = bytes_of(options).ok_or_else(wrong)?;
            frame.tunnelled = Some(Tunnelled {
                vni: vni.parse().map_err(|_number| wrong())?,
                kind: match word {
                    "geneve" => TunnelKind::Geneve(options),
                    "gre" => TunnelKind::Gre(options),
                    _ => TunnelKind::Vxlan,
                },
                inner: Rc::new(inner),
            });
            rest = behind.trim_start();
            continue;
        }
        if word == "about" {
            let (inner, behind) = parenthesized(behind).ok_or_else(wrong)?;
            let inner = parse(inner, FrameText::default(), names)?;
            frame.about = Some(inner.build()?[ethernet::HEADER_BYTES..].to_vec());
            rest = behind.trim_start();
            continue;
        }
        let mut words = behind.split_whitespace();
        let used = frame.word(word, &mut words, names).ok_or_else(wrong)?;
        rest = behind.trim_start();
        for _ in 0..used {
            rest = rest
                .split_once(char::is_whitespace)
                .map_or("", |(_, behind)| behind.trim_start());
        }
    }
    Ok(frame)
}

impl FrameText {
    /// Takes one word and its arguments; says how many arguments.
    fn word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
        names: &Names,
    ) -> Option<usize> {
        // A word belongs to one of these; the others take nothing.
        self.link_word(word, words, names)
            .or_else(|| self.arp_word(word, words, names))
            .or_else(|| self.ip_word(word, words))
            .or_else(|| self.transport_word(word, words))
            .or_else(|| self.icmp_word(word, words, names))
    }

    /// Words about the frame as such.
    fn link_word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
        names: &Names,
    ) -> Option<usize> {
        let mut next = || words.next();
        match word {
            "eth" => self.macs = Some(ends(next()?, |w| mac_of(names, w))?),
            "frame" => self.frame = Some(bytes_of(next()?)?),
            "poke" => {
                let (at, hex) = next()?.split_once(':')?;
                self.pokes.push((at.parse().ok()?, bytes_of(hex)?));
            }
            "vlan" => self.vlan = Some(next()?.parse().ok()?),
            "tag" => self.tag = Some(next()?.parse().ok()?),
            "type" => self.ethertype = Some(u16::from_str_radix(next()?, 16).ok()?),
            "hex" => self.raw = Some(bytes_of(next()?)?),
            "pad" => self.pad = next()?.parse().ok()?,
            "cut" => self.cut = Some(next()?.parse().ok()?),
            _ => return None,
        }
        Some(1)
    }

    /// Words about ARP.
    fn arp_word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
        names: &Names,
    ) -> Option<usize> {
        let mut next = || words.next();
        match word {
            "arp" => {
                let operation = match next()? {
                    "ask" => arp::REQUEST,
                    "tell" => arp::REPLY,
                    _ => return None,
                };
                let (target, from, sender) = (next()?.parse().ok()?, next()?, next()?);
                let sender = sender.parse().ok().filter(|_| from == "from")?;
                let arp = ArpText {
                    operation,
                    target,
                    sender,
                    hardware: None,
                    to: [0; 6],
                };
                self.arp = Some(arp);
                return Some(4);
            }
            "hw" => self.arp.as_mut()?.hardware = Some(mac_of(names, next()?)?),
            "to" => self.arp.as_mut()?.to = mac_of(names, next()?)?,
            _ => return None,
        }
        Some(1)
    }

    /// Words about the IP header.
    fn ip_word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Option<usize> {
        let mut next = || words.next();
        match word {
            "ip" => self.addresses = Some(ends(next()?, |w| w.parse().ok())?),
            "ttl" => self.ttl = Some(next()?.parse().ok()?),
            "tos" => self.tos = next()?.parse().ok()?,
            "label" => self.label = next()?.parse().ok()?,
            "options" => self.options = next()?.parse().ok()?,
            "total" => self.total = Some(next()?.parse().ok()?),
            "data" => self.data = next()?.parse().ok()?,
            "ext" => {
                self.extensions = next()?
                    .split(',')
                    .map(|n| n.parse().ok())
                    .collect::<Option<_>>()?;
            }
            "frag" => {
                let (id, offset) = next()?.split_once(':')?;
                let more = offset.ends_with('+');
                let offset = offset.trim_end_matches('+').parse().ok()?;
                self.fragment = Some((id.parse().ok()?, offset, more));
            }
            _ => return None,
        }
        Some(1)
    }

    /// Words about layer 4, but for ICMP.
    fn transport_word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Option<usize> {
        let mut next = || words.next();
        match word {
            "nosum" => {
                self.no_sum = true;
                return Some(0);
            }
            "df" => {
                self.dont_fragment = true;
                return Some(0);
            }
            "bytes" => self.l4_bytes = Some(bytes_of(next()?)?),
            "proto" => self.l4 = Some(L4::Plain(next()?.parse().ok()?)),
            "udp" | "udplite" | "sctp" | "dccp" => {
                let (source, destination) = ends(next()?, |w| w.parse().ok())?;
                self.l4 = Some(L4::Ports(protocol_number(word)?, source, destination));
            }
            "tcp" => {
                let (source, destination) = ends(next()?, |w| w.parse().ok())?;
                self.l4 = Some(L4::Tcp(source, destination, flags_of(next()?)?));
                return Some(2);
            }
            _ => return None,
        }
        Some(1)
    }

    /// Words about ICMP and ND.
    fn icmp_word<'a>(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = &'a str>,
        names: &Names,
    ) -> Option<usize> {
        let mut next = || words.next();
        match word {
            "rs" | "ra" => {
                let kind = if word == "rs" { 133 } else { 134 };
                self.l4 = Some(L4::Icmp {
                    kind,
                    code: 0,
                    rest: [0; 4],
                });
                self.ttl.get_or_insert(255);
                return Some(0);
            }
            "echo" | "pong" => {
                let [high, low] = next()?.parse::<u16>().ok()?.to_be_bytes();
                let v6 = self.addresses?.0.is_ipv6();
                let kind = match (v6, word) {
                    (false, "echo") => 8,
                    (false, _) => 0,
                    (true, "echo") => 128,
                    (true, _) => 129,
                };
                self.l4 = Some(L4::Icmp {
                    kind,
                    code: 0,
                    rest: [high, low, 0, 1],
                });
            }
            "icmp" => {
                let (kind, code) = next()?.split_once('/')?;
                let (kind, code) = (kind.parse().ok()?, code.parse().ok()?);
                self.l4 = Some(L4::Icmp {
                    kind,
                    code,
                    rest: [0; 4],
                });
            }
            "id" | "rest" => {
                let value: u32 = next()?.parse().ok()?;
                let Some(L4::Icmp { rest, .. }) = &mut self.l4 else {
                    return None;
                };
                *rest = if word == "id" { value << 16 } else { value }.to_be_bytes();
            }
            "ns" | "na" => {
                let kind = if word == "ns" { 135 } else { 136 };
                let target = next()?.parse().ok()?;
                self.l4 = Some(L4::Neighbour {
                    kind,
                    target,
                    mac: None,
                    flags: 0,
                });
                self.ttl.get_or_insert(255);
            }
            "lladdr" => {
                let told = mac_of(names, next()?)?;
                let Some(L4::Neighbour { mac, .. }) = &mut self.l4 else {
                    return None;
                };
                *mac = Some(told);
            }
            "flags" => {
                let letters = next()?;
                let Some(L4::Neighbour { flags, .. }) = &mut self.l4 else {
                    return None;
                };
                for (letter, bit) in [('r', 0x80), ('s', 0x40), ('o', 0x20)] {
                    *flags |= if letters.contains(letter) { bit } else { 0 };
                }
            }
            _ => return None,
        }
        Some(1)
    }

    /// The frame that it carries, if it is a tunnel's.
    #[must_use]
    pub fn inner(&self) -> Option<&Self> {
        self.tunnelled.as_ref().map(|tunnelled| &*tunnelled.inner)
    }

    /// The frame's bytes.
    ///
    /// # Errors
    /// Something is missing.
    pub fn build(&self) -> Result<Vec<u8>, String> {
        let mut frame = self.frame.clone().map_or_else(|| self.parts_build(), Ok)?;
        for (at, bytes) in &self.pokes {
            for (to, byte) in frame.iter_mut().skip(*at).zip(bytes) {
                *to = *byte;
            }
        }
        Ok(frame)
    }

    fn parts_build(&self) -> Result<Vec<u8>, String> {
        let (source, destination) = self.macs.unwrap_or_default();
        let mut frame = [destination, source].concat();
        if let Some(raw) = &self.raw {
            frame.extend(raw);
            return Ok(self.trim(frame));
        }
        for vlan in [self.vlan, self.tag].into_iter().flatten() {
            frame.extend(ethernet::ethertype::VLAN.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        let (ethertype, payload) = match (&self.arp, self.addresses) {
            (Some(arp), _) => (ethernet::ethertype::ARP, self.arp_build(arp, source)),
            (None, Some((a, b))) => self.ip_build(a, b)?,
            (None, None) => (
                self.ethertype.ok_or("neither arp, ip, hex nor type")?,
                vec![],
            ),
        };
        frame.extend(self.ethertype.unwrap_or(ethertype).to_be_bytes());
        frame.extend(payload);
        Ok(self.trim(frame))
    }

    fn trim(&self, mut frame: Vec<u8>) -> Vec<u8> {
        frame.extend(std::iter::repeat_n(0, self.pad));
        if let Some(cut) = self.cut {
            // What stands inside of an ICMP error is cut as a packet, without its link header.
            let link = if self.macs.is_some() {
                0
            } else {
                ethernet::HEADER_BYTES
            };
            frame.truncate(cut + link);
        }
        frame
    }

    fn arp_build(&self, text: &ArpText, source: [u8; 6]) -> Vec<u8> {
        arp::Repr {
            operation: text.operation,
            sender_mac: text.hardware.unwrap_or(source),
            sender_ip: text.sender,
            target_mac: text.to,
            target_ip: text.target,
        }
        .emit()
        .to_vec()
    }

    fn l4_build(&self, source: IpAddr, destination: IpAddr) -> (u8, Vec<u8>) {
        let tunnelled = self.tunnelled.as_ref().and_then(|tunnelled| {
            let (vni, inner) = (tunnelled.vni, tunnelled.inner.build().ok()?);
            Some(match tunnelled.kind.clone() {
                TunnelKind::Geneve(options) => geneve::Repr { vni, options }.emit(&inner),
                TunnelKind::Vxlan => vxlan::Repr { vni }.emit(&inner),
                TunnelKind::Gre(flags) => {
                    let mut packet = gre::Repr { key: vni }.emit(&inner);
                    let own = packet.iter_mut().zip(flags);
                    own.for_each(|(own, flags)| *own ^= flags);
                    packet
                }
            })
        });
        let data: Vec<u8> = self
            .about
            .clone()
            .or(tunnelled)
            .unwrap_or_default()
            .into_iter()
            .chain((0..self.data).map(pattern))
            .collect();
        let v6 = source.is_ipv6();
        let is_gre =
            (self.tunnelled.as_ref()).is_some_and(|t| matches!(t.kind, TunnelKind::Gre(_)));
        let plain = L4::Plain(if is_gre { protocol::GRE } else { 253 });
        let (number, message) = match self.l4.as_ref().unwrap_or(&plain) {
            L4::Tcp(source_port, destination_port, flags) => {
                let header = tcp::Repr {
                    source_port: *source_port,
                    destination_port: *destination_port,
                    sequence: 1,
                    acknowledgment: 1,
                    flags: *flags,
                    window: 1024,
                };
                (protocol::TCP, header.emit(source, destination, &data))
            }
            L4::Ports(protocol::UDP, source_port, destination_port) => {
                let header = udp::Repr {
                    source_port: *source_port,
                    destination_port: *destination_port,
                };
                (protocol::UDP, header.emit(source, destination, &data))
            }
            L4::Ports(number, a, b) => (
                *number,
                ports_build(*number, [*a, *b], &data, source, destination),
            ),
            L4::Icmp { kind, code, rest } if v6 => {
                let header = icmpv6::Repr {
                    kind: *kind,
                    code: *code,
                    rest: *rest,
                };
                let (IpAddr::V6(a), IpAddr::V6(b)) = (source, destination) else {
                    return (protocol::ICMPV6, vec![]);
                };
                (protocol::ICMPV6, header.emit(a, b, &data))
            }
            L4::Icmp { kind, code, rest } => {
                let header = icmpv4::Repr {
                    kind: *kind,
                    code: *code,
                    identifier: u16::from_be_bytes([rest[0], rest[1]]),
                    sequence: u16::from_be_bytes([rest[2], rest[3]]),
                };
                (protocol::ICMP, header.emit(&data))
            }
            L4::Neighbour {
                kind,
                target,
                mac,
                flags,
            } => {
                let header = ndisc::NeighbourRepr {
                    kind: *kind,
                    flags: *flags,
                    target: *target,
                    mac: *mac,
                };
                let (IpAddr::V6(a), IpAddr::V6(b)) = (source, destination) else {
                    return (protocol::ICMPV6, vec![]);
                };
                (protocol::ICMPV6, header.emit(a, b))
            }
            L4::Plain(number) => (*number, data.clone()),
        };
        let message = match &self.l4_bytes {
            Some(bytes) => bytes.clone(),
            None if self.fragment.is_some_and(|(_, offset, _)| offset != 0) => data,
            None => message,
        };
        (number, message)
    }

    fn ip_build(&self, source: IpAddr, destination: IpAddr) -> Result<(u16, Vec<u8>), String> {
        let (number, mut message) = self.l4_build(source, destination);
        if self.no_sum && message.len() >= 8 {
            message[6..8].fill(0);
        }
        let ttl = self.ttl.unwrap_or(64);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (id, offset, more) = self.fragment.unwrap_or_default();
                let header = ipv4::Repr {
                    ttl,
                    identification: u16::try_from(id).map_err(|_id| "an IPv4 id has 16 bits")?,
                    fragment_offset: offset,
                    more_fragments: more,
                    dont_fragment: self.dont_fragment,
                    ..ipv4::Repr::new(source, destination, number)
                };
                let options = vec![1; self.options.next_multiple_of(4)];
                let mut packet = header.emit(&[options.as_slice(), &message].concat());
                packet[0] +=
                    u8::try_from(options.len() / 4).map_err(|_long| "40 bytes of options")?;
                packet[1] = self.tos;
                if let Some(total) = self.total {
                    packet[2..4].copy_from_slice(&total.to_be_bytes());
                }
                packet[10..12].fill(0);
                let sum = checksum::checksum(&packet[..20 + options.len()]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                Ok((ethernet::ethertype::IPV4, packet))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain = self.extensions.clone();
                chain.extend(self.fragment.map(|_| protocol::FRAGMENT));
                let nexts: Vec<u8> = chain.iter().skip(1).copied().chain([number]).collect();
                let mut payload = Vec::new();
                for (header, next) in chain.iter().zip(nexts) {
                    payload.extend(extension_build(*header, next, self.fragment));
                }
                payload.extend(message);
                let next_header = chain.first().copied().unwrap_or(number);
                let header = ipv6::Repr {
                    source,
                    destination,
                    next_header,
                    hop_limit: ttl,
                };
                let mut packet = header.emit_labelled(&payload, self.label);
                packet[0] |= self.tos >> 4;
                packet[1] |= self.tos << 4;
                if let Some(total) = self.total {
                    packet[4..6].copy_from_slice(&total.to_be_bytes());
                }
                Ok((ethernet::ethertype::IPV6, packet))
            }
            _ => Err("addresses of two families".to_owned()),
        }
    }
}

fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap_or_default()
}

fn flags_of(letters: &str) -> Option<u8> {
    letters.chars().try_fold(0, |flags, letter| {
        Some(
            flags
                | match letter {
                    'F' => tcp::FIN,
                    'S' => tcp::SYN,
                    'R' => tcp::RST,
                    'P' => tcp::PSH,
                    'A' => tcp::ACK,
                    '.' => 0,
                    _ => return None,
                },
        )
    })
}

fn extension_build(header: u8, next: u8, fragment: Option<(u32, u16, bool)>) -> [u8; 8] {
    match (header, fragment) {
        (protocol::FRAGMENT, Some((identification, offset, more))) => ipv6::fragment_header(
            next,
            ipv6::Fragment {
                offset,
                more,
                identification,
            },
        ),

        (protocol::ROUTING, _) => [next, 0, 0, 0, 0, 0, 0, 0],
        (_, _) => [next, 0, 1, 4, 0, 0, 0, 0],
    }
}

/// UDP-Lite and DCCP have their checksum where UDP has it; SCTP has a CRC, left at a fixed value.
fn ports_build(
    number: u8,
    ports: [u16; 2],
    data: &[u8],
    source: IpAddr,
    destination: IpAddr,
) -> Vec<u8> {
    let mut message: Vec<u8> = ports.iter().flat_map(|p| p.to_be_bytes()).collect();
    if number == protocol::SCTP {
        message.extend([0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
        message.extend(data);
        return message;
    }
    message.extend([0; 4]);
    if number == protocol::DCCP {
        message.extend([0, 0, 0, 1]);
    }
    message.extend(data);
    let sum = checksum::transport(source, destination, number, &message);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}
