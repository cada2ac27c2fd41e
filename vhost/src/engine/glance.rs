//! The first look at a frame: whether it is an ordinary one, and if so the numbers that its session is found by.
//!
//! Ordinary: from a port or uplink that is up, UDP or TCP over IPv4 without options or IPv6 without extension headers, no
//! fragment, no DHCP, from an address that is the port's own with its own MAC. All checks of docs/pipeline.md, sections 1 and
//! 2, hold for such a frame; what fails one of them is looked at again as a whole, where the reason is found.
//!
//! Frames come in trains: those that follow each other and are alike ([`is_alike`]) are looked at and judged once.

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

/// Where a frame's first bytes are kept, among others.
pub trait Header {
    /// To look at.
    fn header(&self) -> &HeaderBytes;
    /// To change.
    fn header_mut(&mut self) -> &mut HeaderBytes;
}

impl Header for HeaderBytes {
    fn header(&self) -> &HeaderBytes {
        self
    }

    fn header_mut(&mut self) -> &mut HeaderBytes {
        self
    }
}

/// Frames that follow each other and are alike, apart from their headers.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// Bytes of each.
    pub frame_bytes: usize,
    /// Work on each that its sender has left to others.
    pub load: Load,
}

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
/// Where TCP's header has its length and flags.
const TCP_FLAGS: usize = 12;

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
}

impl Default for Glance {
    fn default() -> Self {
        Self {
            kind: Kind::Slow,
            tcp_flags: 0,
            place: Place::default(),
            key: Key {
                addresses: Addresses::V4(0),
                meta: Meta::default(),
            },
            hash: 0,
            guess: None,
        }
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
            Addresses::Tagged(..) => false,
        };
        own && field::<6>(header, 6) == port.mac
    }
}

/// Whether two frames of one length, of the same place and with the same work left to do, are alike: of one session if they are
/// ordinary, and the same as far as that one's judgement depends on a header.
#[inline]
#[must_use]
pub fn is_alike(one: &HeaderBytes, other: &HeaderBytes) -> bool {
    #[inline(always)]
    fn same<const N: usize>(one: &HeaderBytes, other: &HeaderBytes, at: usize) -> bool {
        field::<N>(one, at) == field::<N>(other, at)
    }
    // Ports and addresses first: they are what differs most often.
    match field::<3>(one, ETHERNET - 2) {
        [0x08, 0x00, 0x45] => {
            // All but identification and checksum.
            same::<4>(one, other, 34)
                && same::<8>(one, other, 26)
                && same::<8>(one, other, 0)
                && same::<8>(one, other, 8)
                && same::<2>(one, other, 16)
                && same::<4>(one, other, 20)
                && (field(one, 23) != [protocol::TCP] || same::<2>(one, other, 34 + TCP_FLAGS))
        }
        [0x86, 0xdd, _] => {
            same::<8>(one, other, 50)
                && (0..50).step_by(10).all(|at| same::<10>(one, other, at))
                && (field(one, 20) != [protocol::TCP] || same::<2>(one, other, 54 + TCP_FLAGS))
        }
        _ => false,
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

    /// Looks at a frame's header, and puts what it sees in `into`: what is built elsewhere and copied by wide moves waits for the narrow
    /// stores that it was built by. The processor is told which session will be asked for.
    #[inline]
    pub fn glance(
        &self,
        entrance: &Entrance<'_>,
        header: &HeaderBytes,
        frame_bytes: usize,
        into: &mut Glance,
    ) {
        into.place = entrance.place;
        into.guess = None;
        into.kind = Kind::Slow;
        let Some(port) = entrance.port else {
            return;
        };
        if port.is_some_and(|port| !port.up) {
            into.kind = Kind::Refused(DropReason::PortDown);
            return;
        }
        let found = match field::<2>(header, 12) {
            [0x08, 0x00] => ipv4(header, frame_bytes),
            [0x86, 0xdd] => ipv6(header, frame_bytes),
            _ => None,
        };
        let Some(seen) = found.filter(|seen| entrance.is_own(header, &seen.addresses)) else {
            return;
        };
        let v6 = matches!(seen.addresses, Addresses::V6(_));
        into.key.meta = Meta::new(v6, seen.protocol, entrance.place, seen.ports);
        into.key.addresses = seen.addresses;
        into.tcp_flags = seen.tcp_flags;
        into.hash = self.table.seeds().hash(&into.key);
        into.kind = Kind::Ordinary;
        self.table.prefetch(into.hash);
    }

    /// Looks for the sessions of a batch where they most likely are, and tells the processor.
    #[inline]
    pub fn guess(&self, glances: &mut [Glance]) {
        for glance in glances {
            if glance.kind == Kind::Ordinary {
                glance.guess = self.table.guess(glance.hash);
            }
        }
    }
}

/// What an ordinary frame's header says.
struct Seen {
    addresses: Addresses,
    protocol: u8,
    ports: [u16; 2],
    tcp_flags: u8,
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
            let [offset, flags] = field::<2>(header, at + TCP_FLAGS);
            let header_bytes = usize::from(offset >> 4) * 4;
            (bytes >= 20 && header_bytes >= 20).then_some((ports, flags))
        }
        _ => None,
    }
}

#[inline(always)]
fn ipv4(header: &HeaderBytes, frame_bytes: usize) -> Option<Seen> {
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
    let [protocol] = field::<1>(header, ETHERNET + 9);
    let (ports, tcp_flags) = transport(protocol, header, ETHERNET + IPV4, total - IPV4)?;
    let source = u32::from_be_bytes(field(header, ETHERNET + 12));
    let destination = u32::from_be_bytes(field(header, ETHERNET + 16));
    Some(Seen {
        addresses: Addresses::V4(pair(source, destination)),
        protocol,
        ports,
        tcp_flags,
    })
}

#[inline(never)]
fn ipv6(header: &HeaderBytes, frame_bytes: usize) -> Option<Seen> {
    let [version, _, _, _, a, b, protocol, _] = field::<8>(header, ETHERNET);
    let payload = usize::from(u16::from_be_bytes([a, b]));
    if version >> 4 != 6 || payload + IPV6 > frame_bytes.saturating_sub(ETHERNET) {
        return None;
    }
    let (ports, tcp_flags) = transport(protocol, header, ETHERNET + IPV6, payload)?;
    let addresses = [8, 24].map(|at| u128::from_be_bytes(field(header, ETHERNET + at)));
    Some(Seen {
        addresses: Addresses::V6(addresses),
        protocol,
        ports,
        tcp_flags,
    })
}
