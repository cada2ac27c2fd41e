//! Neighbour Discovery for IPv6 (RFC 4861): NS, NA, RS, RA and their options, with RDNSS and DNSSL (RFC 8106).
//!
//! Views start at the ICMPv6 type. Messages are bodies for [`crate::icmpv6::Repr::emit`], built here whole.

use crate::bytes::{ipv6_at, put, u16_at};
use crate::{Mac, Malformed, checksum, icmpv6, protocol};
use std::net::{IpAddr, Ipv6Addr};

/// Type: router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Type: router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type: neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Type: redirect.
pub const REDIRECT: u8 = 137;
/// Bytes of NS and NA without options.
pub const NEIGHBOUR_BYTES: usize = 24;
/// Bytes of an RA without options.
pub const ROUTER_ADVERTISEMENT_BYTES: usize = 16;
/// The hop limit that proves that a message crossed no router.
pub const HOP_LIMIT: u8 = 255;
/// ff02::1
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// ff02::2
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// NA flag: the sender is a router.
pub const FLAG_ROUTER: u8 = 0x80;
/// NA flag: the answer to a solicitation.
pub const FLAG_SOLICITED: u8 = 0x40;
/// NA flag: the receiver should replace what it has.
pub const FLAG_OVERRIDE: u8 = 0x20;

/// Option types by number.
pub mod option {
    /// Source link-layer address.
    pub const SOURCE_MAC: u8 = 1;
    /// Target link-layer address.
    pub const TARGET_MAC: u8 = 2;
    /// Prefix information.
    pub const PREFIX: u8 = 3;
    /// MTU.
    pub const MTU: u8 = 5;
    /// Recursive DNS servers (RFC 8106 5.1).
    pub const RDNSS: u8 = 25;
    /// DNS search list (RFC 8106 5.2).
    pub const DNSSL: u8 = 31;
}

/// The solicited-node multicast address of a target (RFC 4291 2.7.1).
#[must_use]
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let t = target.octets();
    let mut a = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    a[13..].copy_from_slice(&t[13..]);
    Ipv6Addr::from(a)
}

/// A checked view of an NS or NA.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour<T>(T);

impl<T: AsRef<[u8]>> Neighbour<T> {
    /// Checks type and length.
    ///
    /// # Errors
    /// Neither NS nor NA, or shorter than 24 bytes.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        let good = b.len() >= NEIGHBOUR_BYTES
            && matches!(b[0], NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT);
        Malformed::unless(good, "ND", "an NS or NA of at least 24 bytes").map(|()| Self(bytes))
    }

    /// Type: NS or NA.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.0.as_ref()[0]
    }

    /// An NA's flags.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0.as_ref()[4]
    }

    /// The address in question.
    #[must_use]
    pub fn target(&self) -> Ipv6Addr {
        ipv6_at(self.0.as_ref(), 8)
    }

    /// The link-layer address that the message tells: the source's of an NS, the target's of an NA.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        let wanted = if self.kind() == NEIGHBOUR_SOLICITATION {
            option::SOURCE_MAC
        } else {
            option::TARGET_MAC
        };
        options(&self.0.as_ref()[NEIGHBOUR_BYTES..])
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, body)| body.get(..6)?.try_into().ok())
    }
}

/// The options in these bytes: type and body behind the two header bytes. Ends at the first one that is malformed.
pub fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(*bytes.get(1)?) * 8;
        if length == 0 || length > bytes.len() {
            return None;
        }
        let (one, rest) = bytes.split_at(length);
        bytes = rest;
        Some((one[0], &one[2..]))
    })
}

fn mac_option(kind: u8, mac: Mac) -> [u8; 8] {
    [kind, 1, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]]
}

/// An NS or NA as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRepr {
    /// NS or NA.
    pub kind: u8,
    /// An NA's flags; 0 in an NS.
    pub flags: u8,
    /// The address in question.
    pub target: Ipv6Addr,
    /// The link-layer address told, if any.
    pub mac: Option<Mac>,
}

impl NeighbourRepr {
    /// The message's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(message: &Neighbour<T>) -> Self {
        Self {
            kind: message.kind(),
            flags: message.flags(),
            target: message.target(),
            mac: message.mac(),
        }
    }

    /// The ICMPv6 message, its checksum right for these addresses.
    #[must_use]
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut body = self.target.octets().to_vec();
        if let Some(mac) = self.mac {
            let solicitation = self.kind == NEIGHBOUR_SOLICITATION;
            body.extend(mac_option(
                if solicitation {
                    option::SOURCE_MAC
                } else {
                    option::TARGET_MAC
                },
                mac,
            ));
        }
        icmpv6::Repr {
            kind: self.kind,
            code: 0,
            rest: [self.flags, 0, 0, 0],
        }
        .emit(source, destination, &body)
    }
}

/// A prefix information option (RFC 4861 4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix; its host bits are zero.
    pub prefix: Ipv6Addr,
    /// Its length in bits, at most 128.
    pub length: u8,
    /// L: addresses in it are neighbours.
    pub on_link: bool,
    /// A: hosts may form addresses in it.
    pub autonomous: bool,
    /// Seconds; `u32::MAX` for ever.
    pub valid_s: u32,
    /// Seconds; `u32::MAX` for ever.
    pub preferred_s: u32,
}

/// A router advertisement as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// The hop limit that hosts should use; 0 says nothing.
    pub hop_limit: u8,
    /// M: addresses by DHCPv6.
    pub managed: bool,
    /// O: other configuration by DHCPv6.
    pub other: bool,
    /// Seconds as a default router; 0 for none.
    pub lifetime_s: u16,
    /// The router's MAC address.
    pub source_mac: Option<Mac>,
    /// The link's MTU in bytes.
    pub mtu: Option<u32>,
    /// The link's prefixes.
    pub prefixes: Vec<Prefix>,
    /// Name servers, at most 127.
    pub rdnss: Vec<Ipv6Addr>,
    /// Seconds that the name servers may be used.
    pub rdnss_lifetime_s: u32,
    /// DNS search domains in text form (`example.org`); labels longer than 63 bytes are left out.
    pub dnssl: Vec<String>,
}

impl RouterAdvertisement {
    /// Parses the message from its ICMPv6 type on. Unknown and malformed options are skipped; DNSSL is not parsed.
    ///
    /// # Errors
    /// Not an RA, or shorter than 16 bytes.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let good =
            message.len() >= ROUTER_ADVERTISEMENT_BYTES && message[0] == ROUTER_ADVERTISEMENT;
        Malformed::unless(good, "ND", "an RA of at least 16 bytes")?;
        let mut ra = Self {
            hop_limit: message[4],
            managed: message[5] & 0x80 != 0,
            other: message[5] & 0x40 != 0,
            lifetime_s: u16_at(message, 6),
            source_mac: None,
            mtu: None,
            prefixes: Vec::new(),
            rdnss: Vec::new(),
            rdnss_lifetime_s: 0,
            dnssl: Vec::new(),
        };
        for (kind, body) in options(&message[ROUTER_ADVERTISEMENT_BYTES..]) {
            ra.parse_option(kind, body);
        }
        Ok(ra)
    }

    fn parse_option(&mut self, kind: u8, body: &[u8]) {
        let u32_of = |at: usize| {
            body.get(at..at + 4)
                .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        match kind {
            option::SOURCE_MAC => self.source_mac = body.get(..6).and_then(|b| b.try_into().ok()),
            option::MTU => self.mtu = u32_of(2),
            option::PREFIX if body.len() == 30 => self.prefixes.push(Prefix {
                prefix: ipv6_at(body, 14),
                length: body[0],
                on_link: body[1] & 0x80 != 0,
                autonomous: body[1] & 0x40 != 0,
                valid_s: u32_of(2).unwrap_or_default(),
                preferred_s: u32_of(6).unwrap_or_default(),
            }),
            option::RDNSS if body.len() >= 6 => {
                self.rdnss_lifetime_s = u32_of(2).unwrap_or_default();
                self.rdnss
                    .extend(body[6..].chunks_exact(16).map(|a| ipv6_at(a, 0)));
            }
            _ => {}
        }
    }

    /// The ICMPv6 message, its checksum right for these addresses.
    #[must_use]
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut m = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, self.hop_limit];
        m.push(u8::from(self.managed) << 7 | u8::from(self.other) << 6);
        m.extend(self.lifetime_s.to_be_bytes());
        m.extend([0; 8]); // reachable time and retransmission timer: unspecified
        m.extend(
            self.source_mac
                .iter()
                .flat_map(|mac| mac_option(option::SOURCE_MAC, *mac)),
        );
        if let Some(mtu) = self.mtu {
            m.extend([option::MTU, 1, 0, 0]);
            m.extend(mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            let flags = u8::from(prefix.on_link) << 7 | u8::from(prefix.autonomous) << 6;
            m.extend([option::PREFIX, 4, prefix.length, flags]);
            m.extend(prefix.valid_s.to_be_bytes());
            m.extend(prefix.preferred_s.to_be_bytes());
            m.extend([0; 4]);
            m.extend(prefix.prefix.octets());
        }
        self.emit_dns(&mut m);
        let sum = checksum::transport(
            IpAddr::V6(source),
            IpAddr::V6(destination),
            protocol::ICMPV6,
            &m,
        );
        put(&mut m, 2, sum.to_be_bytes());
        m
    }

    fn emit_dns(&self, m: &mut Vec<u8>) {
        let servers = &self.rdnss[..self.rdnss.len().min(127)];
        if let Ok(count @ 1..) = u8::try_from(servers.len()) {
            m.extend([option::RDNSS, 1 + 2 * count, 0, 0]);
            m.extend(self.rdnss_lifetime_s.to_be_bytes());
            m.extend(servers.iter().flat_map(Ipv6Addr::octets));
        }
        let mut names = Vec::new();
        for domain in &self.dnssl {
            let labels: Vec<&str> = domain
                .split('.')
                .filter(|l| (1..=63).contains(&l.len()))
                .collect();
            for label in &labels {
                names.extend(u8::try_from(label.len()));
                names.extend(label.as_bytes());
            }
            names.push(0);
        }
        names.resize(names.len().next_multiple_of(8), 0);
        if let Ok(units @ 2..) = u8::try_from(1 + names.len() / 8) {
            m.extend([option::DNSSL, units, 0, 0]);
            m.extend(self.rdnss_lifetime_s.to_be_bytes());
            m.extend(names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_advertisement_round_trip() {
        let ra = RouterAdvertisement {
            hop_limit: 64,
            managed: false,
            other: true,
            lifetime_s: 1800,
            source_mac: Some([0xfa, 0x16, 0x3e, 0, 0, 1]),
            mtu: Some(1450),
            prefixes: vec![Prefix {
                prefix: "fd00:192:0:2::".parse().unwrap(),
                length: 64,
                on_link: true,
                autonomous: true,
                valid_s: 86_400,
                preferred_s: 14_400,
            }],
            rdnss: vec!["2001:db8::53".parse().unwrap()],
            rdnss_lifetime_s: 600,
            dnssl: vec![],
        };
        let source = "fe80::1".parse().unwrap();
        let message = ra.emit(source, ALL_NODES);
        assert_eq!(RouterAdvertisement::parse(&message).unwrap(), ra);
        let sum = checksum::transport(
            IpAddr::V6(source),
            IpAddr::V6(ALL_NODES),
            protocol::ICMPV6,
            &message,
        );
        assert_eq!(sum, 0, "the checksum is right");
    }

    #[test]
    fn search_list_is_padded_to_eight_bytes() {
        let mut m = Vec::new();
        RouterAdvertisement {
            hop_limit: 0,
            managed: false,
            other: false,
            lifetime_s: 0,
            source_mac: None,
            mtu: None,
            prefixes: vec![],
            rdnss: vec![],
            rdnss_lifetime_s: 7,
            dnssl: vec!["example.org".into()],
        }
        .emit_dns(&mut m);
        assert_eq!(m, b"\x1f\x03\0\0\0\0\0\x07\x07example\x03org\0\0\0\0");
    }

    #[test]
    fn solicited_node_takes_the_low_24_bits() {
        let target = "2001:db8::1234:5678".parse().unwrap();
        assert_eq!(
            solicited_node(target),
            "ff02::1:ff34:5678".parse::<Ipv6Addr>().unwrap()
        );
    }
}
