//! The first look at a frame: whether it is an ordinary one, and if so the numbers that its session is found by.
//!
//! Ordinary: from a port or uplink that is up, UDP or TCP over IPv4 without options or IPv6 without extension headers, no
//! fragment, no DHCP, from an address that is the port's own with its own MAC. All checks of docs/pipeline.md, sections 1 and
//! 2, hold for such a frame; what fails one of them is looked at again as a whole, where the reason is found.

use super::key::{Key, Meta, Place, pair};
use super::plan::{PlaceIs, PortPlan};
use super::table::Ref;
use super::{Engine, key::Addresses};
use weft_model::DropReason;
use weft_wire::protocol;
use weft_wire::virtio_net::Load;

/// Bytes of a frame that are copied out of the guest's memory to be looked at.
pub const HEADER_BYTES: usize = 128;
/// These bytes; what is behind a shorter frame may be anything.
pub type HeaderBytes = [u8; HEADER_BYTES];

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// What is known of the place that a batch comes from.
#[derive(Clone, Copy, Debug)]
pub struct Entrance<'a> {
    place: Place,
    /// The port, or none for an uplink; nothing if neither is in the snapshot in force.
    port: Option<Option<&'a PortPlan>>,
}

/// What the first look says.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    pub(super) kind: Kind,
    pub(super) tcp_flags: u8,
    pub(super) place: Place,
    pub(super) key: Key,
    pub(super) hash: u64,
    pub(super) guess: Option<Ref>,
    pub(super) load: Load,
}

impl Glance {
    /// The same with work that the frame's sender has left to others.
    #[inline]
    #[must_use]
    pub fn loaded(self, load: Load) -> Self {
        Self { load, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An ordinary frame.
    Ordinary,
    /// To be looked at as a whole.
    Slow,
    /// Refused without a look.
    Refused(DropReason),
}

/// Bytes at a place that the compiler knows: one load.
#[inline(always)]
fn field<const N: usize>(header: &HeaderBytes, at: usize) -> [u8; N] {
    let bytes = header.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.copied().unwrap_or([0; N])
}

impl Entrance<'_> {
    #[inline]
    fn glance(&self, kind: Kind) -> Glance {
        Glance {
            kind,
            tcp_flags: 0,
            place: self.place,
            key: Key {
                addresses: Addresses::V4(0),
                meta: Meta::default(),
            },
            hash: 0,
            guess: None,
            load: Load::NONE,
        }
    }

    /// Whether a frame with these addresses is the port's own.
    #[inline]
    fn is_own(&self, header: &HeaderBytes, addresses: &Addresses) -> bool {
        let Some(port) = self.port.flatten().filter(|port| port.secured) else {
            return true;
        };
        let own = match addresses {
            Addresses::V4(both) => port
                .own4
                .iter()
                .any(|own| u64::from(*own) == both & 0xffff_ffff),
            Addresses::V6([source, _]) => port.own6.contains(source),
        };
        own && field::<6>(header, 6) == port.mac
    }
}

impl Engine {
    /// What is known of a place; none without a snapshot.
    #[inline]
    #[must_use]
    pub fn entrance(&self, place: Place) -> Option<Entrance<'_>> {
        let port = match self.plan.as_deref()?.places.get(place.at()) {
            Some(Some(PlaceIs::Port(port))) => Some(Some(port)),
            Some(Some(PlaceIs::Network(_))) => Some(None),
            _ => None,
        };
        Some(Entrance { place, port })
    }

    /// Looks at a frame's header. The processor is told which session will be asked for.
    #[inline]
    #[must_use]
    pub fn glance(
        &self,
        entrance: &Entrance<'_>,
        header: &HeaderBytes,
        frame_bytes: usize,
    ) -> Glance {
        let Some(port) = entrance.port else {
            return entrance.glance(Kind::Slow);
        };
        if port.is_some_and(|port| !port.up) {
            return entrance.glance(Kind::Refused(DropReason::PortDown));
        }
        let found = match field::<2>(header, 12) {
            [0x08, 0x00] => ipv4(entrance.place, header, frame_bytes),
            [0x86, 0xdd] => ipv6(entrance.place, header, frame_bytes),
            _ => None,
        };
        let Some((key, tcp_flags)) =
            found.filter(|(key, _)| entrance.is_own(header, &key.addresses))
        else {
            return entrance.glance(Kind::Slow);
        };
        let hash = self.table.seeds().hash(&key);
        self.table.prefetch(hash);
        Glance {
            kind: Kind::Ordinary,
            tcp_flags,
            place: entrance.place,
            key,
            hash,
            guess: None,
            load: Load::NONE,
        }
    }

    /// Looks for the sessions of a batch where they most likely are, and tells the processor.
    #[inline]
    pub fn guess(&self, glances: &mut [Glance]) {
        // Frames come in trains: what was guessed for the one before is as good for one of the same hash.
        let (mut before, mut guess) = (0, None);
        for glance in glances {
            if glance.kind == Kind::Ordinary {
                if glance.hash != before {
                    (before, guess) = (glance.hash, self.table.guess(glance.hash));
                }
                glance.guess = guess;
            }
        }
    }
}

/// UDP or TCP whose header is whole, and no DHCP: ports as they stand, and TCP's flags.
#[inline]
fn transport(number: u8, header: &HeaderBytes, at: usize, bytes: usize) -> Option<([u16; 2], u8)> {
    let [a, b, c, d] = field::<4>(header, at);
    let ports = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    match number {
        protocol::UDP => {
            let dhcp = |port| matches!(port, 67 | 68 | 546 | 547);
            let whole = bytes >= 8 && !(dhcp(ports[0]) && dhcp(ports[1]));
            whole.then_some((ports, 0))
        }
        protocol::TCP => {
            let [offset, flags] = field::<2>(header, at + 12);
            let header_bytes = usize::from(offset >> 4) * 4;
            (bytes >= 20 && header_bytes >= 20).then_some((ports, flags))
        }
        _ => None,
    }
}

#[inline]
fn ipv4(place: Place, header: &HeaderBytes, frame_bytes: usize) -> Option<(Key, u8)> {
    let [version, _, a, b, _, _, fragment, offset] = field::<8>(header, ETHERNET);
    let total = usize::from(u16::from_be_bytes([a, b]));
    // Don't-fragment and the reserved bit say nothing.
    let ordinary = version == 0x45
        && (fragment & 0x3f, offset) == (0, 0)
        && total >= IPV4
        && total <= frame_bytes.saturating_sub(ETHERNET);
    if !ordinary {
        return None;
    }
    let [number] = field::<1>(header, ETHERNET + 9);
    let (ports, tcp_flags) = transport(number, header, ETHERNET + IPV4, total - IPV4)?;
    let source = u32::from_be_bytes(field(header, ETHERNET + 12));
    let destination = u32::from_be_bytes(field(header, ETHERNET + 16));
    let key = Key {
        addresses: Addresses::V4(pair(source, destination)),
        meta: Meta::new(false, number, place, ports),
    };
    Some((key, tcp_flags))
}

#[inline(never)]
fn ipv6(place: Place, header: &HeaderBytes, frame_bytes: usize) -> Option<(Key, u8)> {
    let [version, _, _, _, a, b, number, _] = field::<8>(header, ETHERNET);
    let payload = usize::from(u16::from_be_bytes([a, b]));
    if version >> 4 != 6 || payload + IPV6 > frame_bytes.saturating_sub(ETHERNET) {
        return None;
    }
    let (ports, tcp_flags) = transport(number, header, ETHERNET + IPV6, payload)?;
    let addresses = [8, 24].map(|at| u128::from_be_bytes(field(header, ETHERNET + at)));
    let key = Key {
        addresses: Addresses::V6(addresses),
        meta: Meta::new(true, number, place, ports),
    };
    Some((key, tcp_flags))
}
