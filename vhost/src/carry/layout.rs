//! How sessions and names stand in the file, as 64-bit words in little-endian order.
//!
//! A header; then for each number of a port or network whose it is; then for each place of the session table what is there. A
//! name or session begins with a check of the rest, of where it stands and of the file's salt; zero: nothing is there. So one that was
//! half written is none, and with another salt all that came before is none.
//!
//! Guarantees: whatever words are read, they are a session or name whole, or none. Whoever changes what words mean changes
//! [`VERSION`].

use crate::engine::{Carried, Place};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;
use weft_dataplane::{GuestVlan, Ingress, State, Tuple};
use weft_model::MacAddress;

/// How such a file begins.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"weftsess");
/// Of what the words mean.
pub(super) const VERSION: u64 = 1;
/// Words of the header: magic, version, sessions, the boot's id in two, their check, the salt.
pub(super) const HEADER_WORDS: usize = 7;
const HEADER_BYTES: usize = 4_096;
/// Numbers of ports and networks.
pub(super) const NAMES: usize = 1 << 16;
pub(super) const NAME_WORDS: usize = 4;
pub(super) const SESSION_WORDS: usize = 16;
pub(super) const NAMES_AT: usize = HEADER_BYTES;
pub(super) const NAMES_BYTES: usize = NAMES * NAME_WORDS * WORD_BYTES;
pub(super) const SESSIONS_AT: usize = NAMES_AT + NAMES_BYTES;
pub(super) const SESSION_BYTES: usize = SESSION_WORDS * WORD_BYTES;
pub(super) const WORD_BYTES: usize = 8;

/// What stands in the file for a name or session of so many words, of which the first is the check.
pub(super) type Name = [u64; NAME_WORDS];
pub(super) type Session = [u64; SESSION_WORDS];

/// Bytes of a file with room for so many sessions.
pub(super) fn file_bytes(sessions: usize) -> Option<usize> {
    sessions
        .checked_mul(SESSION_BYTES)?
        .checked_add(SESSIONS_AT)
}

/// Of words that stand at a place: never zero. It finds what was half written or spoilt, not who did it on purpose.
fn check(salt: u64, at: usize, words: &[u64]) -> u64 {
    let mut mixed = salt ^ u64::try_from(at).unwrap_or(u64::MAX).rotate_left(32);
    for word in words {
        mixed = (mixed ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
    }
    mixed | 1
}

/// With its check in front.
pub(super) fn seal(salt: u64, at: usize, words: &mut [u64]) {
    if let [first, rest @ ..] = words {
        *first = check(salt, at, rest);
    }
}

/// Whether the check in front is right.
pub(super) fn is_sealed(salt: u64, at: usize, words: &[u64]) -> bool {
    matches!(words, [first, rest @ ..] if *first == check(salt, at, rest))
}

/// The header of a file for so many sessions.
pub(super) fn header(sessions: u64, boot: Uuid, salt: u64) -> [u64; HEADER_WORDS] {
    let [low, high] = wide(boot.as_u128());
    let words = [MAGIC, VERSION, sessions, low, high];
    let [magic, version, ..] = words;
    [
        magic,
        version,
        sessions,
        low,
        high,
        check(0, 0, &words),
        salt,
    ]
}

/// Of which boot a file is; none if its header is spoilt.
pub(super) fn boot_of(words: &[u64; HEADER_WORDS]) -> Option<Uuid> {
    let [_, _, sessions, low, high, _, salt] = *words;
    let boot = Uuid::from_u128(narrow([low, high]));
    (header(sessions, boot, salt) == *words).then_some(boot)
}

fn wide(number: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = number.to_le_bytes();
    [
        u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        u64::from_le_bytes([i, j, k, l, m, n, o, p]),
    ]
}

fn narrow([low, high]: [u64; 2]) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

const PORT: u64 = 1;
const NETWORK: u64 = 2;

/// Whose number it is; no check yet.
pub(super) fn name(ingress: Ingress) -> Option<Name> {
    let (kind, id) = match ingress {
        Ingress::Port(id) => (PORT, id.0),
        Ingress::Network(id) => (NETWORK, id.0),
        Ingress::Underlay => return None,
    };
    let [low, high] = wide(id.as_u128());
    Some([0, kind, low, high])
}

/// Whose that is, if anybody's.
pub(super) fn name_read([_, kind, low, high]: &Name) -> Option<Ingress> {
    let id = Uuid::from_u128(narrow([*low, *high]));
    match *kind {
        PORT => Some(Ingress::Port(id.into())),
        NETWORK => Some(Ingress::Network(id.into())),
        _ => None,
    }
}

const V6: u8 = 1;
const ICMP: u8 = 2;
const SNAT: u8 = 4;

fn four(parts: [u16; 4]) -> u64 {
    let [[a, b], [c, d], [e, f], [g, h]] = parts.map(u16::to_le_bytes);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn four_read(word: u64) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}

fn mac(mac: MacAddress) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn mac_read(word: u64) -> Option<MacAddress> {
    match word.to_le_bytes() {
        [a, b, c, d, e, f, 0, 0] => Some(MacAddress([a, b, c, d, e, f])),
        _ => None,
    }
}

fn address(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from(address)), 0],
        IpAddr::V6(address) => wide(address.into()),
    }
}

fn address_read(v6: bool, words: [u64; 2]) -> Option<IpAddr> {
    if v6 {
        return Some(Ipv6Addr::from(narrow(words)).into());
    }
    match words {
        [low, 0] => Some(Ipv4Addr::from(u32::try_from(low).ok()?).into()),
        _ => None,
    }
}

/// A session; no check yet.
pub(super) fn session(of: &Carried<Place>) -> Session {
    let (forward, reply) = (&of.forward, &of.reply);
    let v6 = if forward.is_ipv6() { V6 } else { 0 };
    let icmp = if of.icmp.is_some() { ICMP } else { 0 };
    let snat = if of.snat { SNAT } else { 0 };
    let (kind, code) = of.icmp.unwrap_or_default();
    let [vlan, more] = forward.vlan.0.to_le_bytes();
    let what = [
        forward.protocol,
        v6 | icmp | snat,
        kind,
        code,
        of.state as u8,
        vlan,
        more,
        0,
    ];
    let [destination_mac, reply_mac] = of.destination_macs;
    let places = [of.ingress, of.reply_ingress, of.output, of.network];
    let [seen, answered] = of.seen_s.map(u64::from);
    let addresses = [
        forward.source,
        forward.destination,
        reply.source,
        reply.destination,
    ];
    let [[a, b], [c, d], [e, f], [g, h]] = addresses.map(address);
    let ports = [
        forward.source_port,
        forward.destination_port,
        reply.source_port,
        reply.destination_port,
    ];
    [
        0,
        u64::from_le_bytes(what),
        four(ports),
        four(places.map(|place| place.0)),
        mac(of.opener_mac),
        mac(destination_mac),
        mac(reply_mac),
        seen | answered << 32,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ]
}

/// The session that these words are, if they are one.
pub(super) fn session_read(words: &Session) -> Option<Carried<Place>> {
    let [
        _,
        what,
        ports,
        places,
        opener,
        destination,
        reply_mac,
        seen,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
    ] = *words;
    let [protocol, flags, kind, code, state, vlan, more, 0] = what.to_le_bytes() else {
        return None;
    };
    let vlan = GuestVlan(u16::from_le_bytes([vlan, more]));
    if flags & !(V6 | ICMP | SNAT) != 0 {
        return None;
    }
    let v6 = flags & V6 != 0;
    let address = |words| address_read(v6, words);
    let [
        source_port,
        destination_port,
        reply_source,
        reply_destination,
    ] = four_read(ports);
    let [ingress, reply_ingress, output, network] = four_read(places).map(Place);
    let [a4, b4, c4, d4, e4, f4, g4, h4] = seen.to_le_bytes();
    Some(Carried {
        forward: Tuple {
            protocol,
            source: address([a, b])?,
            destination: address([c, d])?,
            source_port,
            destination_port,
            vlan,
        },
        reply: Tuple {
            protocol,
            source: address([e, f])?,
            destination: address([g, h])?,
            source_port: reply_source,
            destination_port: reply_destination,
            vlan,
        },
        ingress,
        reply_ingress,
        output,
        network,
        opener_mac: mac_read(opener)?,
        destination_macs: [mac_read(destination)?, mac_read(reply_mac)?],
        icmp: (flags & ICMP != 0).then_some((kind, code)),
        snat: flags & SNAT != 0,
        state: match state {
            0 => State::Opening,
            1 => State::Established,
            2 => State::Closing,
            _ => return None,
        },
        seen_s: [
            u32::from_le_bytes([a4, b4, c4, d4]),
            u32::from_le_bytes([e4, f4, g4, h4]),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example(addresses: [&str; 4]) -> Carried<Place> {
        let [source, destination, answer, back] = addresses.map(|a| a.parse().unwrap());
        Carried {
            forward: Tuple {
                protocol: 6,
                source,
                destination,
                source_port: 0x1122,
                destination_port: 22,
                vlan: GuestVlan::default(),
            },
            reply: Tuple {
                protocol: 6,
                source: answer,
                destination: back,
                source_port: 0x3344,
                destination_port: 0x5566,
                vlan: GuestVlan::default(),
            },
            ingress: Place(1),
            reply_ingress: Place(2),
            output: Place(3),
            network: Place(4),
            opener_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_macs: [
                MacAddress([2, 0, 0, 0, 0, 2]),
                MacAddress([2, 0, 0, 0, 0, 3]),
            ],
            icmp: None,
            snat: true,
            state: State::Established,
            seen_s: [7, 9],
        }
    }

    #[test]
    fn version_1_stands_as_it_stood() {
        // Whoever has to change this changes VERSION.
        let addresses = ["10.0.0.1", "192.0.2.1", "192.0.2.1", "203.0.113.5"];
        let words = session(&example(addresses));
        let expected = [
            0,
            0x0000_0001_0000_0406,
            0x5566_3344_0016_1122,
            0x0004_0003_0002_0001,
            0x0000_0100_0000_0002,
            0x0000_0200_0000_0002,
            0x0000_0300_0000_0002,
            0x0000_0009_0000_0007,
            0x0a00_0001,
            0,
            0xc000_0201,
            0,
            0xc000_0201,
            0,
            0xcb00_7105,
            0,
        ];
        assert_eq!((VERSION, words), (1, expected));
        assert_eq!(file_bytes(1), Some(4_096 + 65_536 * 32 + 128));
        assert_eq!(file_bytes(usize::MAX / 64), None);
    }

    #[test]
    fn sessions_come_back_as_they_were() {
        let v4 = ["10.0.0.1", "192.0.2.1", "192.0.2.1", "203.0.113.5"];
        let v6 = ["fd00::1", "2001:db8::1", "2001:db8::1", "::ffff:10.0.0.1"];
        for addresses in [v4, v6] {
            let one = example(addresses);
            assert_eq!(session_read(&session(&one)), Some(one));
            let icmp = Carried {
                icmp: Some((8, 0)),
                snat: false,
                state: State::Closing,
                ..one
            };
            assert_eq!(session_read(&session(&icmp)), Some(icmp));
            let vlan = GuestVlan(0x1007);
            let tagged = Carried {
                forward: Tuple {
                    vlan,
                    ..one.forward
                },
                reply: Tuple { vlan, ..one.reply },
                ..one
            };
            assert_eq!(session_read(&session(&tagged)), Some(tagged));
        }
        for id in [Uuid::nil(), Uuid::max(), Uuid::from_u128(7 << 100 | 3)] {
            for ingress in [Ingress::Port(id.into()), Ingress::Network(id.into())] {
                assert_eq!(name_read(&name(ingress).unwrap()), Some(ingress));
            }
        }
        assert_eq!(name(Ingress::Underlay), None);
    }

    #[test]
    fn what_was_half_written_is_nothing() {
        let v4 = ["10.0.0.1", "192.0.2.1", "192.0.2.1", "203.0.113.5"];
        let mut words = session(&example(v4));
        seal(5, 3, &mut words);
        assert!(is_sealed(5, 3, &words));
        assert!(!is_sealed(6, 3, &words), "of another salt");
        assert!(!is_sealed(5, 4, &words), "elsewhere");
        for at in 0..words.len() {
            for bit in 0..64 {
                let mut spoilt = words;
                spoilt[at] ^= 1 << bit;
                assert!(!is_sealed(5, 3, &spoilt), "word {at}, bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_words_are_the_session_that_they_say_or_none(
            words in proptest::array::uniform16(any::<u64>()),
            plain in any::<bool>(),
        ) {
            let mut words = words;
            if plain {
                // Nearer to a session.
                words[1] &= 0x0000_0001_ffff_07ff;
                words[4] &= 0x0000_ffff_ffff_ffff;
                words[5] &= 0x0000_ffff_ffff_ffff;
                words[6] &= 0x0000_ffff_ffff_ffff;
            }
            if let Some(read) = session_read(&words) {
                let again = session(&read);
                prop_assert_eq!(session_read(&again), Some(read));
                prop_assert_eq!(&again[2..], &words[2..]);
            }
        }
    }
}
