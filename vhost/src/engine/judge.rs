//! The verdict on an ordinary frame: its session's transformation, or the walk of a first packet.
//!
//! Guarantees: as [`Engine::process`] would say of the same frame; what would need more than a header (a copy for the host's
//! services, a stale session, a refusal in mid-way) is left to it before anything was changed.

use super::glance::{Glance, HeaderBytes, Kind};
use super::half::Half;
use super::key::Place;
use super::key::unpair;
use super::limit::units;
use super::path::{End, Opening};
use super::plan::Plan;
use super::record::First;
use super::stay::stays;
use super::table::Ref;
use super::tunnels::Entry;
use super::walk::walk;
use super::{Engine, Now};
use weft_dataplane::flow::session::Seen;
use weft_model::{DropReason, MacAddress};
use weft_wire::translate::{self, Endpoints};
use weft_wire::virtio_net::Load;
use weft_wire::{ipv4, ipv6, protocol};

const ETHERNET: usize = 14;

/// What becomes of a frame, of which the header was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Out there, with the header as it is now and the rest as it was.
    Send(Place),
    /// To another host, likewise, in a tunnel.
    Tunnel(Entry),
    /// Dead, for this reason.
    Drop(DropReason),
    /// A session's first, which [`Engine::open`] judges.
    First,
    /// To be judged as a whole.
    Slow,
    /// The other engine's, with the header as it was.
    Elsewhere,
}

impl Engine {
    /// Decides; the header becomes that of the frame as it leaves. A first packet is left as it is.
    #[inline]
    pub fn judge(
        &self,
        glance: &Glance,
        header: &mut HeaderBytes,
        frame_bytes: usize,
        now: Now,
    ) -> Judged {
        match glance.kind {
            Kind::Ordinary => {}
            Kind::Slow => return Judged::Slow,
            Kind::Refused(reason) => return Judged::Drop(reason),
        }
        let guessed = glance.guess.filter(|at| self.table.is(*at, &glance.key));
        match guessed.or_else(|| self.table.find(&glance.key, glance.hash)) {
            Some(at) => self.pass((at, true), glance, header, frame_bytes, now),
            None => Judged::First,
        }
    }

    /// Decides on what was [`Judged::First`]; another worker may have opened its session meanwhile.
    pub fn open(
        &mut self,
        glance: &Glance,
        header: &mut HeaderBytes,
        frame_bytes: usize,
        now: Now,
    ) -> Judged {
        let found = self.table.find(&glance.key, glance.hash);
        let at = found.map_or_else(|| self.first(glance, header, frame_bytes, now.s), Ok);
        match at {
            Ok(at) => self.pass((at, found.is_some()), glance, header, frame_bytes, now),
            Err(judged) => judged,
        }
    }

    /// A packet of a session that is there; `known` if it is not the one that opened it.
    #[inline(always)]
    fn pass(
        &self,
        (at, known): (Ref, bool),
        glance: &Glance,
        header: &mut HeaderBytes,
        frame_bytes: usize,
        now: Now,
    ) -> Judged {
        let half = self.table.half(at);
        let ordinary = half.generation == self.generation
            && (half.seen_s() == now.s || !self.table.is_expired(at, now.s))
            && (!half.is_tunnelled() || self.link.is_some())
            && !half.is_tagged()
            && header.first_chunk() == Some(&half.match_mac)
            && measure(half, header, packet_bytes(&glance.load, frame_bytes));
        if !ordinary {
            return Judged::Slow;
        }
        if known {
            let seen = match glance.key.meta.protocol() {
                protocol::TCP => Seen::Tcp(glance.tcp_flags),
                _ => Seen::Other,
            };
            self.see(at, seen, frame_bytes, now.s);
        } else {
            half.count(frame_bytes, now.s, self.alone);
        }
        if half.is_limited() {
            let units = units(&glance.load, frame_bytes);
            if let Err(reason) = self.limit(glance.place, half.output, units, now) {
                return Judged::Drop(reason);
            }
            if let Some(mark) = self.mark(glance.place) {
                mark_write(header, mark);
            }
        }
        if half.is_translated() {
            self.translate(at, header);
            if !glance.load.is_none() {
                glance.load.renew(header);
            }
        }
        if half.ttl_decrement > 0 {
            link_rewrite(half, header);
        }
        if half.is_tunnelled() {
            return Judged::Tunnel(self.entry(at));
        }
        Judged::Send(half.output)
    }

    /// Whether a session that is to be opened is the other engine's.
    pub(super) fn is_elsewhere(&self, plan: &Plan, opening: &Opening) -> bool {
        self.shared && !stays(plan, &self.neighbours, opening)
    }

    /// The first packet of a session: walked and recorded, unless it has to be looked at as a whole.
    fn first(
        &mut self,
        glance: &Glance,
        header: &HeaderBytes,
        frame_bytes: usize,
        now_s: u32,
    ) -> Result<Ref, Judged> {
        let plan = self.plan.clone().ok_or(Judged::Slow)?;
        let mac = |at: usize| {
            let mut mac = [0; 6];
            for (to, from) in mac.iter_mut().zip(header.iter().skip(at)) {
                *to = *from;
            }
            MacAddress(mac)
        };
        let opening = Opening {
            place: glance.place,
            tuple: glance.key.tuple(),
            source_mac: mac(6),
            destination_mac: mac(0),
            icmp: None,
            test: Some(glance.tcp_flags),
            echo_request: false,
            transit: false,
        };
        if self.is_elsewhere(&plan, &opening) {
            return Err(Judged::Elsewhere);
        }
        let path = match walk(&plan, &self.neighbours, &opening) {
            Ok(End::Path(path)) => path,
            Ok(_) => return Err(Judged::Slow),
            Err(reason) => return Err(Judged::Drop(reason)),
        };
        let tagged = plan.port(path.output).is_some_and(|port| port.tagged);
        if tagged || path.forward_tunnel().is_some() {
            return Err(Judged::Slow);
        }
        if let Some(hop) = &path.hop {
            let half = Half {
                mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
                ttl_decrement: hop.ttl_decrement,
                destination_mac: hop.destination_mac.0,
                ..Half::default()
            };
            if !measure(&half, header, packet_bytes(&glance.load, frame_bytes)) {
                return Err(Judged::Slow);
            }
        }
        let first = First {
            opening: &opening,
            forward: glance.key,
            hash: glance.hash,
            path,
        };
        self.record(&plan, &first, now_s).map_err(Judged::Drop)
    }

    /// Writes the addresses and ports behind a translation, and their checksums.
    fn translate(&self, at: Ref, header: &mut HeaderBytes) {
        let ((from, meta), (to, other)) = (
            self.table.addresses_v4(at),
            self.table.addresses_v4(at.other()),
        );
        let ends = |addresses: u64, ports: [u16; 2]| {
            let [source, destination] = unpair(addresses);
            Endpoints {
                source: std::net::Ipv4Addr::from(source).into(),
                destination: std::net::Ipv4Addr::from(destination).into(),
                source_port: ports[0],
                destination_port: ports[1],
            }
        };
        let [source, destination] = unpair(to);
        let [source_port, destination_port] = other.ports();
        let (from, to) = (
            ends(from, meta.ports()),
            ends(
                super::key::pair(destination, source),
                [destination_port, source_port],
            ),
        );
        if let Some(packet) = header.get_mut(ETHERNET..) {
            translate::addresses(packet, &to);
            if let Some(segment) = packet.get_mut(20..) {
                translate::transport(meta.protocol(), segment, &from, &to);
            }
        }
    }
}

/// Bytes of the longest packet that a frame of several segments becomes; none of any other.
#[inline]
pub(super) fn packet_bytes(load: &Load, frame_bytes: usize) -> Option<usize> {
    Some(load.segments?.packet_bytes(frame_bytes))
}

/// Whether TTL and MTU allow the hop or tunnel, and the hop's neighbour is known. `segment`: as [`packet_bytes`] says.
#[inline]
fn measure(half: &Half, header: &HeaderBytes, segment: Option<usize>) -> bool {
    let routed = half.ttl_decrement > 0;
    if !routed && !half.is_tunnelled() {
        return true;
    }
    let v6 = header.get(ETHERNET).is_some_and(|byte| byte >> 4 == 6);
    let (ttl_at, length_at, more) = if v6 { (21, 18, 40) } else { (22, 16, 0) };
    let ttl = header.get(ttl_at).copied().unwrap_or_default();
    let length = match header.get(length_at..length_at + 2) {
        Some([a, b]) => u32::from(u16::from_be_bytes([*a, *b])) + more,
        _ => u32::MAX,
    };
    let length = segment.map_or(length, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    let hop = !routed || (ttl > half.ttl_decrement && half.destination_mac != [0; 6]);
    hop && length <= u32::from(half.mtu)
}

/// Writes a DSCP.
fn mark_write(header: &mut HeaderBytes, mark: u8) {
    let Some(packet) = header.get_mut(ETHERNET..) else {
        return;
    };
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => {
            if let Ok(mut packet) = ipv6::Packet::new_header_checked(packet) {
                packet.set_dscp(mark);
            }
        }
        _ => {
            if let Ok(mut packet) = ipv4::Packet::new_header_checked(packet) {
                packet.set_dscp(mark);
            }
        }
    }
}

#[inline]
fn link_rewrite(half: &Half, header: &mut HeaderBytes) {
    let Some((link, packet)) = header.split_first_chunk_mut::<ETHERNET>() else {
        return;
    };
    let [d0, d1, d2, d3, d4, d5] = half.destination_mac;
    let [s0, s1, s2, s3, s4, s5] = half.source_mac;
    let [.., a, b] = *link;
    *link = [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, a, b];
    match packet.first().map(|byte| byte >> 4) {
        Some(6) => {
            if let Some(hop_limit) = packet.get_mut(7) {
                *hop_limit = hop_limit.saturating_sub(half.ttl_decrement);
            }
        }
        _ => {
            if let Some(packet) = packet.first_chunk_mut() {
                ipv4::ttl_lower(packet, half.ttl_decrement);
            }
        }
    }
}
