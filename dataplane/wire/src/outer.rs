//! The headers in front of a tunnelled frame as one piece: made once for a tunnel, finished for each frame that goes into it.
//!
//! Guarantees: what is finished is what the protocols' own files emit for the same frame. Knows Ethernet, IPv4 without options,
//! IPv6, and UDP or GRE behind it, with whatever follows up to the frame.

use crate::bytes::{get, put, u16_at};
use crate::ethernet::{self, ethertype};
use crate::{Mac, checksum, geneve, gre, ipv4, ipv6, protocol, udp, vxlan};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of all headers at most: Ethernet, IPv6, UDP and VXLAN or GENEVE without options.
pub const BYTES_MAX: usize =
    ethernet::HEADER_BYTES + ipv6::HEADER_BYTES + udp::HEADER_BYTES + vxlan::HEADER_BYTES;

const IP: usize = ethernet::HEADER_BYTES;

/// The headers of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    bytes: [u8; BYTES_MAX],
    length: usize,
    v6: bool,
    udp: bool,
    /// The sum of IPv4's header without its length and checksum.
    sum: u64,
}

/// What differs from frame to frame of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// Bytes of the frame inside.
    pub frame_bytes: usize,
    /// UDP's source port; over IPv6 without UDP the flow label.
    pub entropy: u16,
    /// Where it goes.
    pub destination: Mac,
    /// Where it comes from.
    pub source: Mac,
}

impl Outer {
    /// The headers at the start of a tunnelled frame that this crate emitted, and how long they are; none if they are not
    /// known here.
    #[must_use]
    pub fn of(tunnelled: &[u8]) -> Option<Self> {
        let v6 = match u16_at(tunnelled.get(..IP)?, 12) {
            ethertype::IPV4 => false,
            ethertype::IPV6 => true,
            _ => return None,
        };
        let header_bytes = if v6 {
            ipv6::HEADER_BYTES
        } else {
            ipv4::HEADER_BYTES_MIN
        };
        let number = *tunnelled.get(IP + if v6 { 6 } else { 9 })?;
        let behind = match number {
            protocol::UDP => udp::HEADER_BYTES + vxlan::HEADER_BYTES.max(geneve::HEADER_BYTES),
            protocol::GRE => gre::HEADER_BYTES,
            _ => return None,
        };
        let length = IP + header_bytes + behind;
        let mut bytes = [0; BYTES_MAX];
        bytes
            .get_mut(..length)?
            .copy_from_slice(tunnelled.get(..length)?);
        let sum = if v6 {
            0
        } else {
            put(&mut bytes, IP + 2, [0; 2]);
            put(&mut bytes, IP + 10, [0; 2]);
            checksum::sum(&bytes[IP..IP + ipv4::HEADER_BYTES_MIN])
        };
        Some(Self {
            bytes,
            length,
            v6,
            udp: number == protocol::UDP,
            sum,
        })
    }

    /// Their length.
    #[inline]
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The other end.
    #[must_use]
    pub fn remote(&self) -> IpAddr {
        if self.v6 {
            Ipv6Addr::from(get::<16>(&self.bytes, IP + 24)).into()
        } else {
            Ipv4Addr::from(get::<4>(&self.bytes, IP + 16)).into()
        }
    }

    /// What tells flows apart: as [`Finish::entropy`].
    #[must_use]
    pub fn entropy(&self) -> u16 {
        match (self.udp, self.v6) {
            (true, false) => u16_at(&self.bytes, IP + ipv4::HEADER_BYTES_MIN),
            (true, true) => u16_at(&self.bytes, IP + ipv6::HEADER_BYTES),
            (false, true) => u16_at(&self.bytes, IP + 2),
            (false, false) => 0,
        }
    }

    /// The headers in front of one frame; the first [`Self::length`] bytes of them.
    #[inline]
    #[must_use]
    pub fn finish(&self, finish: &Finish) -> [u8; BYTES_MAX] {
        let mut bytes = self.bytes;
        let field = |length: usize| u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let entropy = finish.entropy.to_be_bytes();
        let packet = self.length - IP + finish.frame_bytes;
        put(&mut bytes, 0, finish.destination);
        put(&mut bytes, 6, finish.source);
        if self.v6 {
            let payload = packet - ipv6::HEADER_BYTES;
            put(&mut bytes, IP + 4, field(payload));
            if self.udp {
                put(&mut bytes, IP + ipv6::HEADER_BYTES, entropy);
                put(&mut bytes, IP + ipv6::HEADER_BYTES + 4, field(payload));
            } else {
                put(&mut bytes, IP + 2, entropy);
            }
        } else {
            let length = field(packet);
            let sum = self.sum + u64::from(u16::from_be_bytes(length));
            put(&mut bytes, IP + 2, length);
            put(&mut bytes, IP + 10, (!checksum::fold(sum)).to_be_bytes());
            if self.udp {
                let at = IP + ipv4::HEADER_BYTES_MIN;
                put(&mut bytes, at, entropy);
                put(&mut bytes, at + 4, field(packet - ipv4::HEADER_BYTES_MIN));
            }
        }
        bytes
    }
}

/// The outer headers of a frame in VXLAN, the most frequent kind, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InVxlan {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// The virtual network's number.
    pub vni: u32,
    /// Bytes in front of the frame.
    pub header_bytes: usize,
}

impl InVxlan {
    /// Reads the first bytes of a frame of `frame_bytes`; none if it is anything but a frame in VXLAN whose lengths fit each
    /// other, with at least an Ethernet header inside.
    #[inline]
    #[must_use]
    pub fn parse(first: &[u8; BYTES_MAX], frame_bytes: usize) -> Option<Self> {
        let (ip_bytes, payload_bytes, number) = match u16_at(first, 12) {
            ethertype::IPV4 => {
                let whole = first[IP] == 0x45 && u16_at(first, IP + 6) & 0x3fff == 0;
                let total = usize::from(u16_at(first, IP + 2));
                let payload = total
                    .checked_sub(ipv4::HEADER_BYTES_MIN)
                    .filter(|_| whole)?;
                (ipv4::HEADER_BYTES_MIN, payload, first[IP + 9])
            }
            ethertype::IPV6 if first[IP] >> 4 == 6 => {
                let payload = usize::from(u16_at(first, IP + 4));
                (ipv6::HEADER_BYTES, payload, first[IP + 6])
            }
            _ => return None,
        };
        let at = IP + ip_bytes;
        let header_bytes = at + udp::HEADER_BYTES + vxlan::HEADER_BYTES;
        let length = usize::from(u16_at(first, at + 4));
        let least = udp::HEADER_BYTES + vxlan::HEADER_BYTES + ethernet::HEADER_BYTES;
        let fits = number == protocol::UDP
            && u16_at(first, at + 2) == vxlan::UDP_PORT
            && (least..=payload_bytes).contains(&length)
            && at + payload_bytes <= frame_bytes
            && first[at + udp::HEADER_BYTES] & vxlan::HAS_VNI != 0;
        if !fits {
            return None;
        }
        let (source, destination) = if ip_bytes == ipv4::HEADER_BYTES_MIN {
            let address = |at| IpAddr::V4(Ipv4Addr::from(get::<4>(first, at)));
            (address(IP + 12), address(IP + 16))
        } else {
            let address = |at| IpAddr::V6(Ipv6Addr::from(get::<16>(first, at)));
            (address(IP + 8), address(IP + 24))
        };
        let [a, b, c] = get(first, at + udp::HEADER_BYTES + 4);
        Some(Self {
            source,
            destination,
            vni: u32::from_be_bytes([0, a, b, c]),
            header_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Ip, Link};

    const LINK: Link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
    };

    fn addresses(v6: bool) -> Ip {
        if v6 {
            Ip::new(
                "fd00::1".parse::<Ipv6Addr>().unwrap(),
                "fd00::2".parse::<Ipv6Addr>().unwrap(),
            )
        } else {
            Ip::new(Ipv4Addr::new(172, 16, 0, 1), Ipv4Addr::new(172, 16, 0, 2))
        }
    }

    /// A frame in a tunnel as the protocols' own files emit it.
    fn tunnelled(v6: bool, in_gre: bool, entropy: u16, inner: &[u8]) -> Vec<u8> {
        let (number, payload) = if in_gre {
            (protocol::GRE, gre::Repr { key: 7 }.emit(inner))
        } else {
            let ports = udp::Repr {
                source_port: entropy,
                destination_port: vxlan::UDP_PORT,
            };
            let inside = vxlan::Repr { vni: 7 }.emit(inner);
            (protocol::UDP, ports.emit_without_checksum(&inside))
        };
        frame::ip(LINK, addresses(v6), number, &payload)
    }

    #[test]
    fn finished_headers_are_those_that_are_emitted() {
        for (v6, in_gre) in [(false, false), (true, false), (false, true), (true, true)] {
            let outer = Outer::of(&tunnelled(v6, in_gre, 50_000, b"")).unwrap();
            assert_eq!(outer.remote(), addresses(v6).destination);
            for length in [0, 1, 64, 1_500] {
                let inner = vec![0x5a; length];
                let mut whole = tunnelled(v6, in_gre, 60_000, &inner);
                let entropy = match (in_gre, v6) {
                    (true, false) => 0,
                    (true, true) => {
                        whole[IP + 2..IP + 4].copy_from_slice(&60_000u16.to_be_bytes());
                        60_000
                    }
                    (false, _) => 60_000,
                };
                assert_eq!(Outer::of(&whole).unwrap().entropy(), entropy);
                let bytes = outer.finish(&Finish {
                    frame_bytes: length,
                    entropy,
                    destination: LINK.destination,
                    source: LINK.source,
                });
                let made = [&bytes[..outer.length()], &inner[..]].concat();
                assert_eq!(made, whole, "v6 {v6} gre {in_gre} {length}");
            }
        }
    }

    #[test]
    fn vxlan_is_read_in_place_and_all_else_is_not() {
        for v6 in [false, true] {
            let whole = tunnelled(v6, false, 50_000, &[0; 60]);
            let read = |frame: &[u8]| {
                let mut first = [0xa5; BYTES_MAX];
                let bytes = frame.len().min(BYTES_MAX);
                first[..bytes].copy_from_slice(&frame[..bytes]);
                InVxlan::parse(&first, frame.len())
            };
            let header_bytes = Outer::of(&whole).unwrap().length();
            let Ip {
                source,
                destination,
                ..
            } = addresses(v6);
            let seen = InVxlan {
                source,
                destination,
                vni: 7,
                header_bytes,
            };
            assert_eq!(read(&whole), Some(seen));
            assert_eq!(
                read(&[&whole[..], &[0; 9]].concat()),
                Some(seen),
                "a trailer"
            );
            assert_eq!(read(&whole[..whole.len() - 1]), None, "cut");
            assert_eq!(read(&tunnelled(v6, true, 0, &[0; 60])), None, "GRE");
            assert_eq!(
                read(&tunnelled(v6, false, 1, &[0; 13])),
                None,
                "no Ethernet"
            );
            let udp = header_bytes - udp::HEADER_BYTES - vxlan::HEADER_BYTES;
            for (at, byte) in [(12, 9), (udp + 2, 1), (udp + 8, 0), (IP, 0x46)] {
                let mut wrong = whole.clone();
                wrong[at] = byte;
                assert!(read(&wrong).is_none_or(|_| v6 && at == IP), "byte {at}");
            }
        }
    }
}
