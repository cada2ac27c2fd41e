//! What is kept of a session: a cache line for each direction, and the rest.
//!
//! A direction's translation is not stored: it is the other direction's key, reversed.

use super::key::{Meta, Place};
use super::limit::Account;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use weft_dataplane::stage::nat::SnatPorts;
use weft_dataplane::{State, Way};
use weft_model::limits::session_timeout_s as timeout;
use weft_wire::protocol;

/// One direction of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ref(pub(super) u32);

impl Ref {
    /// Of a session by its place.
    pub(super) fn new(session: usize, way: Way) -> Self {
        let number = u32::try_from(session).unwrap_or(u32::MAX >> 1);
        Self(number << 1 | u32::from(way == Way::Reply))
    }

    /// As an index of directions.
    pub(super) fn at(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Its session's place.
    pub(super) fn session(self) -> usize {
        self.at() >> 1
    }

    /// Which direction.
    #[must_use]
    pub(super) fn way(self) -> Way {
        if self.0 & 1 == 0 {
            Way::Forward
        } else {
            Way::Reply
        }
    }

    /// The same session's other direction.
    #[must_use]
    pub(super) fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// What is kept of one direction: a cache line. What every packet changes is changed by several workers at once; the rest by one
/// that is alone with the table.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Half {
    /// IPv4: both addresses. IPv6: where they are kept.
    pub(super) addresses: u64,
    /// Everything else of the key; zero if there is no session here.
    pub(super) meta: Meta,
    /// Packets of this direction.
    pub(super) packets: AtomicU64,
    /// Their bytes.
    pub(super) bytes: AtomicU64,
    /// What it was computed under.
    pub(super) generation: u32,
    /// Seconds of this direction's newest packet.
    pub(super) seen_s: AtomicU32,
    /// Out there.
    pub(super) output: Place,
    /// MTU of the network that it leaves by, if routed, or of the tunnel.
    pub(super) mtu: u16,
    /// The destination MAC that its packets have.
    pub(super) match_mac: [u8; 6],
    /// New MACs, if routed.
    pub(super) source_mac: [u8; 6],
    /// Zero while the neighbour is unknown.
    pub(super) destination_mac: [u8; 6],
    /// Zero if bridged, and on the way to a local IP.
    pub(super) ttl_decrement: u8,
    pub(super) flags: AtomicU8,
}

const STATE_MASK: u8 = 3;
pub(super) const TRANSLATED: u8 = 1 << 2;
/// To another host.
pub(super) const TUNNELLED: u8 = 1 << 3;
/// A port that it passes has a QoS policy.
pub(super) const LIMITED: u8 = 1 << 4;
/// To a subport: with a tag.
pub(super) const TAGGED: u8 = 1 << 5;
/// A stateless port's rules allow none of this direction.
pub(super) const DENIED: u8 = 1 << 6;
/// With other MACs.
pub(super) const ROUTED: u8 = 1 << 7;
/// What the quick way does not do.
const SLOW: u8 = TAGGED | DENIED;
/// What a walk says anew.
pub(super) const WALKED: u8 = TUNNELLED | LIMITED | TAGGED | DENIED | ROUTED;

/// What is needed only when a session is walked again, or looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cold {
    /// Source MAC of the first packet.
    pub(super) opener_mac: [u8; 6],
    /// ICMP type and code of the first packet.
    pub(super) icmp: Option<(u8, u8)>,
    /// Who has the forward direction's destination MAC, if the neighbour table was asked.
    pub(super) next_hop: Option<IpAddr>,
    /// Where the source port came from.
    pub(super) snat: Option<SnatPorts>,
    /// Whose quota it counts for.
    pub(super) owner: Option<Place>,
    /// The network that the opener was on.
    pub(super) network: Place,
    /// For each direction the tunnel that it leaves by: one of the plan's, plus one; 0 for none.
    pub(super) tunnels: [u32; 2],
    /// What tells it apart in these tunnels.
    pub(super) entropies: [u16; 2],
    /// Limits of the address that the opener is seen with, and of the one that it came in by.
    pub(super) accounts: [Account; 2],
}

/// No session.
pub(super) static NONE: Half = Half {
    addresses: 0,
    meta: Meta(0),
    packets: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
    generation: 0,
    seen_s: AtomicU32::new(0),
    output: Place(0),
    mtu: 0,
    match_mac: [0; 6],
    source_mac: [0; 6],
    destination_mac: [0; 6],
    ttl_decrement: 0,
    flags: AtomicU8::new(0),
};

/// The state in these flags.
#[inline]
fn state_of(flags: u8) -> State {
    match flags & STATE_MASK {
        0 => State::Opening,
        1 => State::Established,
        _ => State::Closing,
    }
}

impl Half {
    /// For its timeout.
    #[inline]
    #[must_use]
    pub(super) fn state(&self) -> State {
        state_of(self.flags.load(Relaxed))
    }

    /// Moves to the state that follows the one that it has; whichever order several packets come in, each has its effect.
    pub(super) fn state_move(&self, next: impl Fn(State) -> State) {
        let moved = |flags| {
            let state = next(state_of(flags));
            (state != state_of(flags)).then_some(flags & !STATE_MASK | state as u8)
        };
        // None if it stays.
        let _stays = self.flags.fetch_update(Relaxed, Relaxed, moved);
    }

    /// Counts packets and their bytes. `alone`: whether nobody else counts at the same time; it is quicker then.
    #[inline]
    pub(super) fn count(&self, counts: [usize; 2], now_s: u32, alone: bool) {
        let counts = counts.map(|count| u64::try_from(count).unwrap_or_default());
        if self.seen_s() != now_s {
            self.seen_s.store(now_s, Relaxed);
        }
        for (counter, count) in [&self.packets, &self.bytes].into_iter().zip(counts) {
            if alone {
                counter.store(counter.load(Relaxed) + count, Relaxed);
            } else {
                counter.fetch_add(count, Relaxed);
            }
        }
    }

    /// Seconds of this direction's newest packet.
    #[inline]
    #[must_use]
    pub(super) fn seen_s(&self) -> u32 {
        self.seen_s.load(Relaxed)
    }

    /// Whether addresses or ports change.
    #[inline]
    #[must_use]
    pub(super) fn is_translated(&self) -> bool {
        self.flags.load(Relaxed) & TRANSLATED != 0
    }

    /// Whether it leads to another host.
    #[inline]
    #[must_use]
    pub(super) fn is_tunnelled(&self) -> bool {
        self.flags.load(Relaxed) & TUNNELLED != 0
    }

    /// Whether its packets leave with other MACs.
    #[inline]
    #[must_use]
    pub(super) fn is_routed(&self) -> bool {
        self.flags.load(Relaxed) & ROUTED != 0
    }

    /// Whether none of its packets passes.
    #[must_use]
    pub(super) fn is_denied(&self) -> bool {
        self.flags.load(Relaxed) & DENIED != 0
    }

    /// Whether its packets are to be looked at as a whole.
    #[inline]
    #[must_use]
    pub(super) fn is_slow(&self) -> bool {
        self.flags.load(Relaxed) & SLOW != 0
    }

    /// Whether a port that it passes has a QoS policy.
    #[inline]
    #[must_use]
    pub(super) fn is_limited(&self) -> bool {
        self.flags.load(Relaxed) & LIMITED != 0
    }

    /// Whether its packets leave as they came, and pass no limit.
    #[inline]
    #[must_use]
    pub(super) fn is_as_it_was(&self) -> bool {
        self.flags.load(Relaxed) & (TRANSLATED | TUNNELLED | LIMITED | ROUTED) == 0
    }

    /// Seconds that the session may be idle.
    #[inline]
    #[must_use]
    pub(super) fn timeout_s(&self) -> u32 {
        match (self.meta.protocol(), self.state()) {
            (protocol::TCP, State::Opening) => timeout::TCP_OPENING,
            (protocol::TCP, State::Established) => timeout::TCP_ESTABLISHED,
            (protocol::TCP, State::Closing) => timeout::TCP_CLOSING,
            (protocol::ICMP | protocol::ICMPV6, _) => timeout::ICMP,
            (_, State::Opening) => timeout::UDP_OPENING,
            (_, _) => timeout::UDP_ESTABLISHED,
        }
    }
}
