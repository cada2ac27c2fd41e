//! Sessions written: recorded by a first packet, looked at again when policy or topology has changed, moved by packets.
//! docs/pipeline.md, sections 4 and 6.

use super::Engine;
use super::decided::Noted;
use super::half::{Cold, Half, LIMITED, ROUTED, TAGGED, TUNNELLED};
use super::key::{Key, Place};
use super::limit::{Account, is_limited};
use super::path::{Back, End, Hop, Opening, Path};
use super::plan::{At, Plan};
use super::stateless::{Crossing, stateless};
use super::table::{New, Ref, Renewed};
use super::walk::walk;
use std::sync::atomic::AtomicU8;
use weft_dataplane::flow::session::{Seen, Tunnel};
use weft_dataplane::stage::decode::icmp_counterpart;
use weft_dataplane::stage::nat::SnatPorts;
use weft_dataplane::stage::{Sight, nat, tunnel};
use weft_dataplane::{Ingress, State, Tuple, Way};
use weft_model::{DropReason, MacAddress};
use weft_wire::tcp;

/// What first packets are recorded by: the same for those that differ by nothing but the source's port.
#[derive(Debug)]
pub(super) struct Lead {
    /// Of the first of them.
    opening: Opening,
    path: Path,
    /// Its key.
    forward: Key,
    /// Whether it came from a port: what a port sends goes the same way whatever port of its own it is from.
    shared: bool,
    halves: [Half; 2],
    /// All but what tells a session apart in tunnels.
    cold: Cold,
    /// The answers' key.
    reply: Key,
    /// Whether the rules of a stateless port are to be asked for the answers.
    stateless: bool,
}

impl Lead {
    /// Whether a first packet differs from the first of them by its source's port alone. `macs`: its destination and source.
    #[inline]
    pub(super) fn is_for(&self, key: &Key, tcp_flags: u8, macs: [MacAddress; 2]) -> bool {
        self.shared
            && self.forward.meta.is_alike(key.meta)
            && self.forward.addresses == key.addresses
            && self.opening.test == Some(tcp_flags)
            && [self.opening.destination_mac, self.opening.source_mac] == macs
    }

    /// What is done forward.
    pub(super) fn forward(&self) -> &Half {
        let [forward, _] = &self.halves;
        forward
    }

    /// The answers' key, if the first packet came from this port and it is not translated.
    pub(super) fn reply_key(&self, source_port: u16) -> Key {
        Key {
            meta: self.reply.meta.with_destination_port(source_port),
            ..self.reply
        }
    }
}

/// What a first packet brings to be recorded.
#[derive(Debug)]
pub(super) struct First<'a> {
    pub(super) lead: &'a Lead,
    /// Its key and hash.
    pub(super) forward: (Key, u64),
    /// The answers' key and its hash, unless the source's port is translated.
    pub(super) plain: (Key, u64),
}

/// The key of the answers, for what leaves with this source port. `network` is the opener's.
fn reply_key(opening: &Opening, path: &Path, network: Place, source_port: u16) -> Key {
    let translated = Tuple {
        source: path.source,
        destination: path.destination,
        destination_port: path.destination_port,
        source_port,
        ..opening.tuple
    };
    let ingress = path.tunnel.map_or(path.output, |_| network);
    Key::new(&translated.reversed(), ingress)
}

fn mtu(bytes: u32) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// Both directions of a path. The reply is the mirror of the way forward, unless one of both goes through a tunnel.
fn halves(
    plan: &Plan,
    generation: u32,
    opening: &Opening,
    path: &Path,
    reply_mtu: u32,
) -> [Half; 2] {
    let plain = |output, match_mac: MacAddress, by: Option<At>| {
        let tunnel = by.and_then(|at| plan.tunnels.get(at));
        Half {
            generation,
            output,
            mtu: tunnel.map_or(0, |tunnel| mtu(tunnel.mtu)),
            match_mac: match_mac.0,
            flags: AtomicU8::new(if by.is_some() { TUNNELLED } else { 0 }),
            ..Half::default()
        }
    };
    let routed = |half: Half, hop: &Hop| Half {
        mtu: mtu(hop.mtu),
        source_mac: hop.source_mac.0,
        destination_mac: hop.destination_mac.0,
        ttl_decrement: hop.ttl_decrement,
        flags: AtomicU8::new(half.flags.into_inner() | ROUTED),
        ..half
    };
    let tunnelled = path.tunnel.is_some();
    let mut forward = plain(path.output, opening.destination_mac, path.forward_tunnel());
    let by_transit = path.transit_by(opening.place);
    let mut reply = match &path.back {
        Some(back) => plain(back.output, opening.source_mac, Some(back.tunnel)),
        None => plain(
            opening.place,
            opening.source_mac,
            by_transit.map(|transit| transit.tunnel),
        ),
    };
    if let Some(hop) = &path.hop {
        forward = routed(forward, hop);
    }
    match (&path.back, path.hop.filter(|_| !tunnelled)) {
        (Some(Back { hop: Some(hop), .. }), _) => reply = routed(reply, hop),
        (None, Some(hop)) => {
            let mirrored = Hop {
                source_mac: opening.destination_mac,
                destination_mac: match by_transit {
                    Some(transit) if !transit.resolved => MacAddress([0; 6]),
                    _ => opening.source_mac,
                },
                next_hop: None,
                mtu: by_transit.map_or(reply_mtu, |transit| reply_mtu.min(transit.mtu)),
                ..hop
            };
            reply = Half {
                match_mac: hop.source_mac.0,
                ..routed(reply, &mirrored)
            };
        }
        _ => {}
    }
    for (half, from) in [(&mut forward, opening.place), (&mut reply, path.output)] {
        if is_limited(plan, from, half.output) || path.accounts != [Account::NONE; 2] {
            *half.flags.get_mut() |= LIMITED;
        }
        if plan.port(half.output).is_some_and(|port| port.tagged) {
            *half.flags.get_mut() |= TAGGED;
        }
    }
    [forward, reply]
}

/// The tunnels of both directions, as a session keeps them.
fn tunnels(path: &Path, place: Place) -> [u32; 2] {
    let back = path.back.map(|back| back.tunnel);
    let transit = path.transit_by(place).map(|transit| transit.tunnel);
    [path.forward_tunnel(), back.or(transit)]
        .map(|at| at.map_or(0, |at| u32::try_from(at + 1).unwrap_or(0)))
}

/// What tells a session apart in the tunnels of both directions.
fn entropies(tunnels: [u32; 2], forward: &Key, reply: &Key) -> [u16; 2] {
    // As a direction is sent on, it is the other one's key reversed.
    let sent = [(tunnels[0], reply), (tunnels[1], forward)];
    sent.map(|(tunnel, other)| match tunnel {
        0 => 0,
        _ => tunnel::entropy(other.tuple().reversed()),
    })
}

/// Whether the rules of stateless ports allow a session's answers.
///
/// # Errors
/// Whose do not.
pub(super) fn reply_stateless(
    plan: &Plan,
    (forward, reply): (&Key, &Key),
    icmp: Option<(u8, u8)>,
) -> Result<(), DropReason> {
    let asks = |place| plan.port(place).is_some_and(|port| port.stateless);
    let (from, to) = (reply.meta.place(), forward.meta.place());
    if !asks(from) && !asks(to) {
        return Ok(());
    }
    let v6 = forward.meta.is_ipv6();
    let crossing = Crossing {
        from,
        leaves: reply.tuple(),
        to,
        arrives: forward.tuple().reversed(),
        icmp: icmp.map(|(kind, code)| (icmp_counterpart(v6, kind), code)),
    };
    stateless(plan, &crossing)
}

impl Engine {
    /// What first packets are recorded by that came as this one did, and lead where it does.
    ///
    /// # Errors
    /// It came from nowhere.
    pub(super) fn lead(
        &self,
        plan: &Plan,
        opening: &Opening,
        path: Path,
    ) -> Result<Lead, DropReason> {
        let (port, network) = plan.sight(opening.place).ok_or(DropReason::EngineError)?;
        let owner = match port {
            Some(_) => Some(opening.place),
            None => plan.port(path.output).map(|_| path.output),
        };
        let stateless = |place| plan.port(place).is_some_and(|port| port.stateless);
        Ok(Lead {
            opening: *opening,
            halves: halves(plan, self.generation, opening, &path, network.mtu),
            cold: Cold {
                opener_mac: opening.source_mac.0,
                icmp: opening.icmp,
                next_hop: path.hop.and_then(|hop| hop.next_hop),
                snat: path.snat,
                owner,
                network: network.place,
                tunnels: tunnels(&path, opening.place),
                entropies: [0; 2],
                accounts: path.accounts,
            },
            forward: Key::new(&opening.tuple, opening.place),
            shared: port.is_some(),
            reply: reply_key(opening, &path, network.place, opening.tuple.source_port),
            stateless: stateless(opening.place) || stateless(path.output),
            path,
        })
    }

    /// Records a new session. No other one has the first packet's key.
    ///
    /// # Errors
    /// No room, no port, or a session that would meet itself.
    pub(super) fn record(
        &mut self,
        plan: &Plan,
        first: &First<'_>,
        now_s: u32,
    ) -> Result<Ref, DropReason> {
        let lead = first.lead;
        let ((forward, hash), (plain, plain_hash)) = (first.forward, first.plain);
        let path = &lead.path;
        if path.snat.is_none() {
            if let Some(held) = self.table.find(&plain, plain_hash) {
                self.table.delete(held);
            }
            if plain == forward {
                return Err(DropReason::NoRoute);
            }
        }
        self.table.room_for(lead.cold.owner)?;
        let (reply, reply_hash) = match path.snat {
            None => first.plain,
            Some(ports) => self.translated(plan, first, ports, now_s)?,
        };
        let denied = lead.stateless && {
            let keys = (&forward, &reply);
            reply_stateless(plan, keys, lead.cold.icmp).is_err()
        };
        let [forward_half, reply_half] = &lead.halves;
        let new = New {
            forward: &forward,
            reply: &reply,
            forward_half,
            reply_half,
            denied,
            cold: &lead.cold,
            entropies: entropies(lead.cold.tunnels, &forward, &reply),
        };
        self.table.insert(&new, [hash, reply_hash], now_s)
    }

    /// The answers' key and its hash, where the source's port is translated.
    fn translated(
        &mut self,
        plan: &Plan,
        first: &First<'_>,
        ports: SnatPorts,
        now_s: u32,
    ) -> Result<(Key, u64), DropReason> {
        let opening = &first.lead.opening;
        let (port, network) = plan.sight(opening.place).ok_or(DropReason::EngineError)?;
        let ingress = match port {
            Some(port) => Ingress::Port(port.id),
            None => Ingress::Network(network.id),
        };
        let sight = Sight::new(&plan.snapshot, ingress, None);
        let sight = sight.ok_or(DropReason::EngineError)?;
        let table = &mut self.table;
        let seeds = *table.seeds();
        let key = |port| {
            let key = first.lead.reply_key(port);
            (key, seeds.hash(&key))
        };
        let free = |port| {
            let (key, hash) = key(port);
            table.find_fresh(&key, hash, now_s).is_none()
        };
        let tuple = first.forward.0.tuple();
        Ok(key(nat::source_port(&sight, ports, tuple, free)?))
    }

    /// Walks again for a stale session: it is recorded anew or deleted.
    ///
    /// # Errors
    /// It was deleted, for this reason.
    pub(super) fn freshen(
        &mut self,
        plan: &Plan,
        at: Ref,
        noted: &mut Noted,
    ) -> Result<(), DropReason> {
        if self.table.half(at).generation == self.generation {
            return Ok(());
        }
        let forward = match at.way() {
            Way::Forward => at,
            Way::Reply => at.other(),
        };
        match self.walk_again(plan, forward, noted) {
            Ok(new) => {
                self.table.renew(forward, &new);
                Ok(())
            }
            Err(reason) => {
                self.table.delete(forward);
                Err(reason)
            }
        }
    }

    fn walk_again(
        &self,
        plan: &Plan,
        forward: Ref,
        noted: &mut Noted,
    ) -> Result<Renewed, DropReason> {
        let (key, reply) = (self.table.key(forward), self.table.key(forward.other()));
        let (half, cold) = (self.table.half(forward), self.table.cold(forward));
        let place = key.meta.place();
        let (port, network) = plan.sight(place).ok_or(DropReason::SessionRevoked)?;
        if network.place != cold.network {
            return Err(DropReason::SessionRevoked);
        }
        if port.is_some_and(|port| !port.up) {
            return Err(DropReason::DestinationPortDown);
        }
        let opening = Opening {
            place,
            tuple: key.tuple(),
            source_mac: MacAddress(cold.opener_mac),
            destination_mac: MacAddress(half.match_mac),
            icmp: cold.icmp,
            test: None,
            echo_request: false,
            transit: false,
        };
        let End::Path(path) = walk(plan, &self.neighbours, &opening, noted)? else {
            return Err(DropReason::SessionRevoked);
        };
        let behind = reply.tuple().reversed();
        let same = path.source == behind.source
            && path.destination == behind.destination
            && path.destination_port == behind.destination_port
            && path.snat.is_some() == cold.snat.is_some()
            && path
                .snat
                .is_none_or(|ports| nat::holds(ports, opening.tuple, behind.source_port))
            && path.output == half.output;
        if !same {
            return Err(DropReason::SessionRevoked);
        }
        let halves = halves(plan, self.generation, &opening, &path, network.mtu);
        let tunnels = tunnels(&path, place);
        Ok(Renewed {
            halves,
            denied: reply_stateless(plan, (&key, &reply), cold.icmp).is_err(),
            cold: Cold {
                next_hop: path.hop.and_then(|hop| hop.next_hop),
                snat: path.snat,
                tunnels,
                entropies: entropies(tunnels, &key, &reply),
                accounts: path.accounts,
                ..cold
            },
        })
    }

    /// Whether a direction of a fresh session passes.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn denial(&self, plan: &Plan, at: Ref) -> Result<(), DropReason> {
        if !self.table.half(at).is_denied() {
            return Ok(());
        }
        let keys = (&self.table.key(at.other()), &self.table.key(at));
        reply_stateless(plan, keys, self.table.cold(at).icmp)
    }

    /// Counts packets and their bytes: idle time, state, counters.
    #[inline]
    pub(super) fn see(&self, at: Ref, seen: Seen, counts: [usize; 2], now_s: u32) {
        let half = self.table.half(at);
        half.count(counts, now_s, self.alone);
        let flags = match seen {
            Seen::LaterFragment => return,
            Seen::Tcp(flags) => flags,
            Seen::Other => 0,
        };
        let next = |state| next_state(state, at.way(), flags);
        let state = half.state();
        if next(state) != state {
            self.table.state_move(at, next);
        }
    }

    /// A direction's hop, as the stages of the library know it.
    pub(super) fn hop(&self, at: Ref) -> Option<weft_dataplane::flow::session::Hop> {
        let half = self.table.half(at);
        let next_hop = match at.way() {
            Way::Forward => self.table.cold(at).next_hop,
            Way::Reply => None,
        };
        half.is_routed()
            .then(|| weft_dataplane::flow::session::Hop {
                ttl_decrement: half.ttl_decrement,
                source_mac: MacAddress(half.source_mac),
                destination_mac: MacAddress(half.destination_mac),
                next_hop,
                mtu: u32::from(half.mtu),
                reply_mtu: u32::from(self.table.half(at.other()).mtu),
            })
    }

    /// The tunnel that a direction leaves by.
    pub(super) fn tunnel(&self, plan: &Plan, at: Ref) -> Option<Tunnel> {
        let (number, _) = self.table.tunnel(at);
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        plan.tunnels.get(at).copied()
    }

    /// Whose place that is; a session's places are known as long as it is.
    pub(super) fn output(&self, place: Place) -> Result<Ingress, DropReason> {
        self.places.ingress(place).ok_or(DropReason::EngineError)
    }
}

/// The state behind a packet with these TCP flags.
#[inline]
fn next_state(state: State, way: Way, flags: u8) -> State {
    if flags & (tcp::FIN | tcp::RST) != 0 {
        State::Closing
    } else if state == State::Closing
        && way == Way::Forward
        && flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    {
        State::Opening
    } else if state == State::Opening && way == Way::Reply {
        State::Established
    } else {
        state
    }
}

/// A walk's hop, as the stages of the library know it.
pub(super) fn hop_of(hop: &Hop, reply_mtu: u32) -> weft_dataplane::flow::session::Hop {
    weft_dataplane::flow::session::Hop {
        ttl_decrement: hop.ttl_decrement,
        source_mac: hop.source_mac,
        destination_mac: hop.destination_mac,
        next_hop: hop.next_hop,
        mtu: hop.mtu,
        reply_mtu,
    }
}
