//! The verdict on an ordinary frame: its session's transformation, or the walk of a first packet.
//!
//! Guarantees: as [`Engine::process`] would say of the same frame; what would need more than a header (a copy for the host's
//! services, a stale session, a refusal in mid-way) is left to it before anything was changed.

use super::decided::Noted;
use super::glance::{Glance, Header, HeaderBytes, Kind, Train};
use super::half::Half;
use super::key::Key;
use super::key::Place;
use super::key::unpair;
use super::limit::units;
use super::path::{End, Opening};
use super::plan::Plan;
use super::record::{First, Lead};
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
    /// To be judged as a whole.
    Slow,
    /// The other engine's, with the header as it was.
    Elsewhere,
}

/// What first packets are recorded by, for as long as nobody else changes the engine.
#[derive(Debug, Default)]
pub struct Leads(Vec<Lead>);

impl Leads {
    /// Forgets them, and keeps the room.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What [`Engine::foresee`] says.
#[derive(Clone, Copy, Debug)]
pub struct Foreseen(Result<Led, Judged>);

/// A first packet: by which of the leads it is recorded, and the answers' key with its hash, as [`First`] has it.
#[derive(Clone, Copy, Debug)]
struct Led {
    lead: usize,
    plain: (Key, u64),
}

impl Engine {
    /// Decides on frames that are alike and have these headers, which become those of the frames as they leave. False, and
    /// nothing else, if the first of them is a session's first.
    #[inline]
    pub fn judge<H: Header>(
        &self,
        glance: &Glance,
        train: &Train,
        headers: &mut [H],
        now: Now,
        judged: &mut Vec<Judged>,
    ) -> bool {
        let all = |judged| std::iter::repeat_n(judged, headers.len());
        match glance.kind {
            Kind::Ordinary => {}
            Kind::Slow => {
                judged.extend(all(Judged::Slow));
                return true;
            }
            Kind::Refused(reason) => {
                judged.extend(all(Judged::Drop(reason)));
                return true;
            }
        }
        let guessed = glance.guess.filter(|at| self.table.is(*at, &glance.key));
        let Some(at) = guessed.or_else(|| self.table.find(&glance.key, glance.hash)) else {
            return false;
        };
        self.pass((at, true), (glance, train), headers, now, judged);
        true
    }

    /// What a session's first packet leads to, as far as no session has to be asked. The processor is told which of them will be.
    #[must_use]
    pub fn foresee(
        &self,
        leads: &mut Leads,
        glance: &Glance,
        train: &Train,
        header: &HeaderBytes,
    ) -> Foreseen {
        let plan = self.plan.as_deref();
        Foreseen(plan.map_or(Err(Judged::Slow), |plan| {
            self.first_walk(plan, leads, (glance, train), header)
        }))
    }

    /// Decides on frames of which the first was a session's first; another worker may have opened it meanwhile.
    pub fn open<H: Header>(
        &mut self,
        (glance, train): (&Glance, &Train),
        foreseen: Option<(&Leads, &Foreseen)>,
        headers: &mut [H],
        now: Now,
        judged: &mut Vec<Judged>,
    ) {
        let mut left = headers;
        let mut foreseen = foreseen;
        let mut own = Leads::default();
        // What is refused opens nothing: the next one is asked for itself.
        while !left.is_empty() && !self.judge(glance, train, left, now, judged) {
            let (first, behind) = left.split_at_mut(1);
            let header = first.iter().map(Header::header).next();
            let seen;
            let (leads, foreseen) = match (foreseen.take(), header) {
                (Some(foreseen), _) => foreseen,
                (None, Some(header)) => {
                    seen = self.foresee(&mut own, glance, train, header);
                    (&own, &seen)
                }
                (None, None) => return,
            };
            let recorded = match &foreseen.0 {
                Ok(led) => self.open_led(leads, led, glance, now.s),
                Err(refused) => Err(*refused),
            };
            match recorded {
                Ok(at) => self.pass((at, false), (glance, train), first, now, judged),
                Err(refused) => judged.push(refused),
            }
            left = behind;
        }
    }

    fn open_led(
        &mut self,
        leads: &Leads,
        led: &Led,
        glance: &Glance,
        now_s: u32,
    ) -> Result<Ref, Judged> {
        let first = First {
            lead: leads.0.get(led.lead).ok_or(Judged::Slow)?,
            forward: (glance.key, glance.hash),
            plain: led.plain,
        };
        // Taken and put back: another counted reference would wait for all that was written before.
        let plan = self.plan.take().ok_or(Judged::Slow)?;
        let recorded = self.record(&plan, &first, now_s);
        self.plan = Some(plan);
        recorded.map_err(Judged::Drop)
    }

    /// Whether a frame's session is there, expired or not.
    #[must_use]
    pub fn is_known(&self, glance: &Glance) -> bool {
        glance.kind != Kind::Ordinary || self.table.find(&glance.key, glance.hash).is_some()
    }

    /// Packets of a session that is there; `known` if none of them opened it.
    #[inline(always)]
    fn pass<H: Header>(
        &self,
        (at, known): (Ref, bool),
        (glance, train): (&Glance, &Train),
        headers: &mut [H],
        now: Now,
        judged: &mut Vec<Judged>,
    ) {
        let half = self.table.half(at);
        let ordinary = |header: &HeaderBytes| {
            half.generation == self.generation
                && (half.seen_s() == now.s || !self.table.is_expired(at, now.s))
                && (!half.is_tunnelled() || self.link.is_some())
                && !half.is_slow()
                && header.first_chunk() == Some(&half.match_mac)
                && measure(half, header, packet_bytes(&train.load, train.frame_bytes))
        };
        let count = headers.len();
        if !headers
            .first()
            .is_some_and(|first| ordinary(first.header()))
        {
            judged.extend(std::iter::repeat_n(Judged::Slow, count));
            return;
        }
        let bytes = train.frame_bytes * count;
        if known {
            let seen = match glance.key.meta.protocol() {
                protocol::TCP => Seen::Tcp(glance.tcp_flags),
                _ => Seen::Other,
            };
            self.see(at, seen, [count, bytes], now.s);
        } else {
            half.count([count, bytes], now.s, self.alone);
        }
        if half.is_as_it_was() {
            judged.extend(std::iter::repeat_n(Judged::Send(half.output), count));
        } else {
            self.change(at, (glance, train), headers, now, judged);
        }
    }

    /// What passes a limit, or leaves otherwise than it came.
    fn change<H: Header>(
        &self,
        at: Ref,
        (glance, train): (&Glance, &Train),
        headers: &mut [H],
        now: Now,
        judged: &mut Vec<Judged>,
    ) {
        let half = self.table.half(at);
        let sent = match half.is_tunnelled() {
            true => Judged::Tunnel(self.entry(at)),
            false => Judged::Send(half.output),
        };
        let limited = half
            .is_limited()
            .then(|| units(&train.load, train.frame_bytes));
        let mark = limited.and_then(|_| self.mark(glance.place));
        let translation = half.is_translated().then(|| self.translation(at));
        for header in headers.iter_mut().map(Header::header_mut) {
            let allowed = limited.map_or(Ok(()), |units| {
                self.limit_session(at, glance.place, units, now)
            });
            if let Err(reason) = allowed {
                judged.push(Judged::Drop(reason));
                continue;
            }
            if let Some(mark) = mark {
                mark_write(header, mark);
            }
            if let Some(translation) = &translation {
                translation.write(header);
                if !train.load.is_none() {
                    train.load.renew(header);
                }
            }
            if half.is_routed() {
                link_rewrite(half, header);
            }
            judged.push(sent);
        }
    }

    /// Whether a session that is to be opened is the other engine's.
    pub(super) fn is_elsewhere(&self, plan: &Plan, opening: &Opening) -> bool {
        self.shared && !stays(plan, &self.neighbours, opening)
    }

    /// Walks for the first packet of a session, unless it is like the last one that was walked for, or has to be looked at as a
    /// whole.
    fn first_walk(
        &self,
        plan: &Plan,
        leads: &mut Leads,
        (glance, train): (&Glance, &Train),
        header: &HeaderBytes,
    ) -> Result<Led, Judged> {
        let macs = [0, 6].map(|at| {
            let mac = header.get(at..).and_then(|bytes| bytes.first_chunk());
            MacAddress(mac.copied().unwrap_or_default())
        });
        let last = leads.0.last();
        if !last.is_some_and(|lead| lead.is_for(&glance.key, glance.tcp_flags, macs)) {
            leads.0.push(self.lead_find(plan, glance, macs)?);
        }
        let lead = leads.0.last().ok_or(Judged::Slow)?;
        if !measure(
            lead.forward(),
            header,
            packet_bytes(&train.load, train.frame_bytes),
        ) {
            return Err(Judged::Slow);
        }
        let [source_port, _] = glance.key.meta.ports();
        let plain = lead.reply_key(source_port);
        let hash = self.table.seeds().hash(&plain);
        self.table.prefetch(hash);
        Ok(Led {
            lead: leads.0.len() - 1,
            plain: (plain, hash),
        })
    }

    /// Walks for the first packet of a session.
    fn lead_find(
        &self,
        plan: &Plan,
        glance: &Glance,
        [destination_mac, source_mac]: [MacAddress; 2],
    ) -> Result<Lead, Judged> {
        let opening = Opening {
            place: glance.place,
            tuple: glance.key.tuple(),
            source_mac,
            destination_mac,
            icmp: None,
            test: Some(glance.tcp_flags),
            echo_request: false,
            transit: false,
        };
        if self.is_elsewhere(plan, &opening) {
            return Err(Judged::Elsewhere);
        }
        let mut noted = Noted::new();
        let walked = walk(plan, &self.neighbours, &opening, &mut noted);
        if !noted.is_empty() {
            // It is written down with the whole of the packet at hand.
            return Err(Judged::Slow);
        }
        let path = match walked {
            Ok(End::Path(path)) => path,
            Ok(_) => return Err(Judged::Slow),
            Err(reason) => return Err(Judged::Drop(reason)),
        };
        let tagged = plan.port(path.output).is_some_and(|port| port.tagged);
        if tagged || path.forward_tunnel().is_some() {
            return Err(Judged::Slow);
        }
        self.lead(plan, &opening, path).map_err(Judged::Drop)
    }

    /// What becomes of the addresses and ports of a direction's packets, if they are IPv4's.
    fn translation(&self, at: Ref) -> Translation {
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
        Translation {
            protocol: meta.protocol(),
            from: ends(from, meta.ports()),
            to: ends(
                super::key::pair(destination, source),
                [destination_port, source_port],
            ),
        }
    }
}

/// A translation of IPv4.
struct Translation {
    protocol: u8,
    from: Endpoints,
    to: Endpoints,
}

impl Translation {
    /// Writes what is behind it, and the checksums.
    fn write(&self, header: &mut HeaderBytes) {
        if let Some(packet) = header.get_mut(ETHERNET..) {
            translate::addresses(packet, &self.to);
            if let Some(segment) = packet.get_mut(20..) {
                translate::transport(self.protocol, segment, &self.from, &self.to);
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
    let routed = half.is_routed();
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
