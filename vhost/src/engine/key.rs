//! Places, and keys of sessions as numbers that are quick to compare and to hash.
//!
//! A [`Place`] stands for a port or an uplink as long as the engine runs: sessions keep it over changes of the snapshot.

use super::map::fold;
use std::net::IpAddr;
use weft_dataplane::{GuestVlan, Tuple};

/// Where frames enter and leave, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place(pub u16);

impl Place {
    /// The interface towards other hosts. No session names it.
    pub const UNDERLAY: Self = Self(0);

    /// As an index.
    #[inline]
    #[must_use]
    pub(crate) fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// The numbers behind a key's addresses: ports, place, protocol, family. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Meta(pub(super) u64);

const FAMILY_V4: u64 = 1 << 56;
const FAMILY_V6: u64 = 2 << 56;
/// In a VLAN of the guests' own.
const TAGGED: u64 = 4 << 56;

impl Meta {
    /// Of these parts.
    #[inline]
    #[must_use]
    pub(super) fn new(v6: bool, protocol: u8, place: Place, ports: [u16; 2]) -> Self {
        let family = if v6 { FAMILY_V6 } else { FAMILY_V4 };
        let ports = u64::from(ports[0]) | u64::from(ports[1]) << 16;
        Self(ports | u64::from(place.0) << 32 | u64::from(protocol) << 48 | family)
    }

    /// Whether the addresses are IPv6.
    #[inline]
    #[must_use]
    pub(super) fn is_ipv6(self) -> bool {
        self.0 & FAMILY_V6 != 0
    }

    /// The same in a VLAN of the guests' own.
    #[must_use]
    fn tagged(self) -> Self {
        Self(self.0 | TAGGED)
    }

    /// Whether it is in a VLAN of the guests' own.
    #[inline]
    #[must_use]
    pub(super) fn is_tagged(self) -> bool {
        self.0 & TAGGED != 0
    }

    /// Whether the addresses are kept beside: they are IPv6, or there is more of them.
    #[inline]
    #[must_use]
    pub(super) fn is_wide(self) -> bool {
        self.0 & (FAMILY_V6 | TAGGED) != 0
    }

    /// Where the packets enter.
    #[inline]
    #[must_use]
    pub(super) fn place(self) -> Place {
        let [.., a, b, _, _] = self.0.to_le_bytes();
        Place(u16::from_le_bytes([a, b]))
    }

    /// The IP protocol.
    #[inline]
    #[must_use]
    pub(super) fn protocol(self) -> u8 {
        self.0.to_le_bytes()[6]
    }

    /// The same with this destination port.
    #[inline]
    #[must_use]
    pub(super) fn with_destination_port(self, port: u16) -> Self {
        Self(self.0 & !(0xffff << 16) | u64::from(port) << 16)
    }

    /// Whether nothing but the source port differs.
    #[inline]
    #[must_use]
    pub(super) fn is_alike(self, other: Self) -> bool {
        (self.0 ^ other.0) & !0xffff == 0
    }

    /// Source and destination port.
    #[inline]
    #[must_use]
    pub(super) fn ports(self) -> [u16; 2] {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
    }
}

/// Source and destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// IPv4: the source in the lower half, the destination in the upper.
    V4(u64),
    /// IPv6: source, destination.
    V6([u128; 2]),
    /// Of either family, IPv4 as mapped addresses, in a VLAN of the guests' own.
    Tagged([u128; 2], GuestVlan),
}

/// A session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Who speaks to whom.
    pub(super) addresses: Addresses,
    /// Everything else.
    pub(super) meta: Meta,
}

/// Both IPv4 addresses in one number.
#[inline]
#[must_use]
pub(super) fn pair(source: u32, destination: u32) -> u64 {
    u64::from(source) | u64::from(destination) << 32
}

/// The two halves of such a number.
#[inline]
#[must_use]
pub(super) fn unpair(addresses: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

impl Key {
    /// The key of a tuple that enters at a place.
    #[must_use]
    pub(super) fn new(tuple: &Tuple, place: Place) -> Self {
        let ports = [tuple.source_port, tuple.destination_port];
        let wide = || {
            [tuple.source, tuple.destination].map(|address| match address {
                IpAddr::V4(a) => u128::from(a.to_ipv6_mapped()),
                IpAddr::V6(a) => u128::from(a),
            })
        };
        let meta = |v6| Meta::new(v6, tuple.protocol, place, ports);
        let (addresses, meta) = match (tuple.source, tuple.destination) {
            (source, _) if !tuple.vlan.is_none() => (
                Addresses::Tagged(wide(), tuple.vlan),
                meta(source.is_ipv6()).tagged(),
            ),
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let both = pair(u32::from(source), u32::from(destination));
                (Addresses::V4(both), meta(false))
            }
            (_, _) => (Addresses::V6(wide()), meta(true)),
        };
        Self { addresses, meta }
    }

    /// Whether what has this key is answered by what has the other one as it came: nothing is translated.
    #[inline]
    #[must_use]
    pub(super) fn mirrors(&self, other: &Self) -> bool {
        let [source, destination] = self.meta.ports();
        let addresses = match (self.addresses, other.addresses) {
            (Addresses::V4(one), Addresses::V4(other)) => one.rotate_left(32) == other,
            (Addresses::V6([source, destination]), Addresses::V6(other)) => {
                [destination, source] == other
            }
            (Addresses::Tagged([source, destination], one), Addresses::Tagged(both, other)) => {
                [destination, source] == both && one == other
            }
            _ => false,
        };
        addresses && other.meta.ports() == [destination, source]
    }

    /// Its tuple.
    #[must_use]
    pub(super) fn tuple(&self) -> Tuple {
        let vlan = match self.addresses {
            Addresses::Tagged(_, vlan) => vlan,
            _ => GuestVlan::default(),
        };
        let (source, destination) = match self.addresses {
            Addresses::V4(both) => {
                let [source, destination] = unpair(both);
                (IpAddr::V4(source.into()), IpAddr::V4(destination.into()))
            }
            Addresses::Tagged(both, _) if !self.meta.is_ipv6() => {
                let [source, destination] = both.map(|mapped| {
                    let [.., a, b, c, d] = mapped.to_be_bytes();
                    IpAddr::V4([a, b, c, d].into())
                });
                (source, destination)
            }
            Addresses::V6([source, destination]) | Addresses::Tagged([source, destination], _) => {
                (IpAddr::V6(source.into()), IpAddr::V6(destination.into()))
            }
        };
        let [source_port, destination_port] = self.meta.ports();
        Tuple {
            protocol: self.meta.protocol(),
            source,
            destination,
            source_port,
            destination_port,
            vlan,
        }
    }
}

/// Secrets of a hash, so that nobody outside can choose keys that meet.
#[derive(Clone, Copy, Debug)]
pub struct Seeds(pub [u64; 4]);

impl Seeds {
    /// A number that comes of them and tells nothing about them.
    #[must_use]
    pub(crate) fn salt(&self) -> u64 {
        let [a, b, c, d] = self.0;
        fold(fold(a ^ 1, b ^ 2) ^ 3, fold(c ^ 4, d ^ 5) ^ 6)
    }

    /// The hash of an IPv4 key.
    #[inline]
    #[must_use]
    pub(super) fn hash_v4(&self, addresses: u64, meta: Meta) -> u64 {
        let [a, b, c, _] = self.0;
        fold(fold(addresses ^ a, meta.0 ^ b) ^ c, 0x9e37_79b9_7f4a_7c15)
    }

    /// The hash of a key.
    #[inline]
    #[must_use]
    pub(super) fn hash(&self, key: &Key) -> u64 {
        match key.addresses {
            Addresses::V4(addresses) => self.hash_v4(addresses, key.meta),
            Addresses::Tagged([source, destination], vlan) => {
                let both = [source ^ u128::from(vlan.0) << 64, destination];
                self.hash_v6(both, key.meta)
            }
            Addresses::V6(both) => self.hash_v6(both, key.meta),
        }
    }

    #[inline]
    fn hash_v6(&self, both: [u128; 2], meta: Meta) -> u64 {
        let [a, b, c, d] = self.0;
        let [[s, t], [u, v]] = both.map(|address| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.to_le_bytes();
            [
                u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                u64::from_le_bytes([i, j, k, l, m, n, o, p]),
            ]
        });
        let addresses = fold(s ^ a, t ^ b) ^ fold(u ^ c, v ^ d).rotate_left(32);
        self.hash_v4(addresses, meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_tuple_again() {
        let pairs = [("192.0.2.1", "198.51.100.2"), ("fd00::1", "fd00::2")];
        let vlans = [0, 7, 4094].map(GuestVlan);
        for ((source, destination), vlan) in pairs.into_iter().flat_map(|p| vlans.map(|v| (p, v))) {
            let tuple = Tuple {
                protocol: 6,
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                source_port: 1000,
                destination_port: 0xfffe,
                vlan,
            };
            let key = Key::new(&tuple, Place(0xabcd));
            assert_eq!(key.tuple(), tuple);
            assert_eq!(
                (key.meta.place(), key.meta.is_ipv6()),
                (Place(0xabcd), source.len() < 9)
            );
            let other = Key::new(&tuple.reversed(), Place(0xabcd));
            let seeds = Seeds([1, 2, 3, 4]);
            assert_ne!(seeds.hash(&key), seeds.hash(&other));
            let elsewhere = Key::new(
                &Tuple {
                    vlan: GuestVlan(8),
                    ..tuple
                },
                Place(0xabcd),
            );
            assert_ne!((seeds.hash(&key), key), (seeds.hash(&elsewhere), elsewhere));
            assert!(!key.mirrors(&elsewhere) && !elsewhere.mirrors(&other) && key.mirrors(&other));
        }
    }
}
