//! The whole pipeline on a whole frame: what the quick way does not do. docs/pipeline.md, in its order.
//!
//! Guarantees: accepts any bytes as a frame. Decoding, port security, DHCP and ICMP errors are the library's stages; look-ups
//! are the plan's.

use super::decided::Noted;
use super::judge::packet_bytes;
use super::key::{Key, Place};
use super::limit::units;
use super::local::{Answer, Asker};
use super::path::{End, Opening};
use super::plan::{NetworkPlan, Plan, PortPlan};
use super::record::{First, hop_of};
use super::stateless::{Crossing, stateless};
use super::table::Ref;
use super::walk::walk;
use super::{Engine, Now, Outcome};
use std::sync::Arc;
use weft_dataplane::flow::bucket;
use weft_dataplane::flow::session::{Hop, Transformation};
use weft_dataplane::stage::decode::{self, Body, IcmpKind, IpPacket, Packet};
use weft_dataplane::stage::icmp_error::{self, Inside};
use weft_dataplane::stage::transit::Outbound;
use weft_dataplane::stage::tunnel;
use weft_dataplane::stage::{
    self, Entered, Sight, deliver, dhcp, guest_vlan, mtu, port_security, qos, session, vlan,
};
use weft_dataplane::{Copy, Ingress, Service, Verdict, Way};
use weft_model::{DropReason, Port};
use weft_wire::virtio_net::Load;

mod multicast;
mod relay;

use relay::with_destination;

/// A packet on its way.
#[derive(Clone, Copy)]
struct On<'a> {
    plan: &'a Plan,
    sight: Sight<'a>,
    place: Place,
    port: Option<&'a PortPlan>,
    network: &'a NetworkPlan,
    frame: &'a [u8],
    load: &'a Load,
    now: Now,
}

impl On<'_> {
    fn units(&self) -> [u64; 2] {
        units(self.load, self.frame.len())
    }
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Drop(DropReason),
    /// It is the other engine's.
    Elsewhere,
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// What a frame has beside its verdict.
#[derive(Default)]
struct Beside {
    copy: Option<Copy>,
    copies: Vec<Verdict>,
    noted: Noted,
}

/// What a packet meets.
enum Found {
    Hit(Ref),
    Error(Ref, Inside),
    Opened(Opening, super::path::Path),
    End(End),
}

impl Engine {
    /// What becomes of a frame. A frame from a port or
    /// network that is not in the snapshot is dropped as `port_down`, or passes.
    pub fn process(&mut self, ingress: Ingress, frame: &[u8], now: Now) -> Outcome {
        self.process_loaded(ingress, frame, &Load::NONE, now)
    }

    /// The same of a frame that may be several segments; where it leads on, the work that its sender has left is still to be
    /// done. Other checksums are complete.
    pub fn process_loaded(
        &mut self,
        ingress: Ingress,
        frame: &[u8],
        load: &Load,
        now: Now,
    ) -> Outcome {
        let absent = match ingress {
            Ingress::Port(_) => Verdict::Drop(DropReason::PortDown),
            Ingress::Network(_) | Ingress::Underlay => Verdict::Pass,
        };
        let (mut beside, mut elsewhere) = (Beside::default(), false);
        let plan: Option<Arc<Plan>> = self.plan.clone();
        let tunnelled = ingress == Ingress::Underlay;
        let verdict = plan.as_deref().and_then(|plan| {
            let entered = stage::enter(&plan.snapshot, ingress, frame, None);
            let entrance = ingress;
            let Entered {
                ingress,
                frame,
                tag,
            } = match entered {
                Ok(entered) => entered?,
                Err(reason) => return Some(Verdict::Drop(reason)),
            };
            let tagged = ingress != entrance || tag.is_some();
            if self.shared && matches!(entrance, Ingress::Port(_)) && tagged {
                // Subports, and what guests tag themselves, are the other engine's.
                elsewhere = true;
                return Some(Verdict::Drop(DropReason::UplinkMissing));
            }
            let place = self.places.of(ingress)?;
            let (port, network) = plan.sight(place)?;
            let sight = Sight::new(&plan.snapshot, ingress, None)?;
            let behind = tag.map(|_| load.behind_tag());
            let on = On {
                plan,
                sight: if tunnelled { sight.tunnelled() } else { sight }.tagged(tag),
                place,
                port,
                network,
                frame: &frame,
                load: behind.as_ref().unwrap_or(load),
                now,
            };
            let verdict = match self.judge_whole(&on, &mut beside) {
                Ok(verdict) => verdict,
                Err(Stop::Drop(reason)) => Verdict::Drop(reason),
                Err(Stop::Elsewhere) => {
                    elsewhere = true;
                    Verdict::Drop(DropReason::UplinkMissing)
                }
            };
            let copies = std::mem::take(&mut beside.copies).into_iter();
            beside.copies = copies.map(|copy| vlan::leave(&on.sight, copy)).collect();
            Some(vlan::leave(&on.sight, verdict))
        });
        let logs = self.write_down(beside.noted, now);
        Outcome {
            verdict: verdict.unwrap_or(absent),
            copy: beside.copy,
            copies: beside.copies,
            logs,
            elsewhere,
        }
    }

    fn judge_whole(&mut self, on: &On<'_>, beside: &mut Beside) -> Result<Verdict, Stop> {
        if on.port.is_some_and(|port| !port.up) {
            return Err(DropReason::PortDown.into());
        }
        let mut packet = match decode::process(on.frame) {
            Err(_) if on.sight.is_uplink() => return Ok(Verdict::Pass),
            decoded => decoded?,
        };
        let port: Option<&Port> = on.sight.port.map(|(_, port)| port);
        if let Some(port) = port.filter(|port| port.port_security_enabled) {
            port_security::process(&on.sight, port, &packet, on.frame)?;
        }
        if on.sight.tag.is_some() {
            return match guest_vlan::settle(&on.sight, &mut packet) {
                Err(_) if on.sight.is_uplink() => Ok(Verdict::Pass),
                Err(reason) => Err(reason.into()),
                // The host's services are not in the VLANs of guests.
                Ok(()) => self.follow(on, &mut packet, beside),
            };
        }
        if let Some(verdict) = self.local(on, &packet, beside)? {
            return Ok(verdict);
        }
        if let (Body::Ip(ip), Some(port)) = (&packet.body, port)
            && let Some(asked) = dhcp::process(&on.plan.snapshot, port, ip)
        {
            let service = match asked {
                dhcp::Asked::Dhcp => Service::Dhcp,
                dhcp::Asked::Dhcpv6 => Service::Dhcpv6,
            };
            return Ok(self.serve(on, service)?);
        }
        self.forward(on, &mut packet, beside)
    }

    /// Whether the host's services get one more frame of this input now.
    fn token_take(&mut self, on: &On<'_>) -> bool {
        let bucket = self.buckets.get_mut(on.place.at());
        bucket.is_some_and(|bucket| bucket.take(bucket::SERVICE, 1, on.now.s))
    }

    fn serve(&mut self, on: &On<'_>, service: Service) -> Result<Verdict, DropReason> {
        let taken = self.token_take(on);
        taken
            .then_some(Verdict::Service(service))
            .ok_or(DropReason::ServiceRateLimit)
    }

    fn copy(&mut self, on: &On<'_>, beside: &mut Beside, what: Copy) {
        if self.token_take(on) {
            beside.copy = Some(what);
        }
    }

    fn local(
        &mut self,
        on: &On<'_>,
        packet: &Packet,
        beside: &mut Beside,
    ) -> Result<Option<Verdict>, Stop> {
        let asker = Asker {
            plan: on.plan,
            place: on.place,
            port: on.port,
            network: on.network,
            tunnelled: on.sight.is_tunnel(),
        };
        let answer = match &packet.body {
            Body::Arp(request) => asker.arp(packet, request, on.frame),
            Body::Ip(ip) => match asker.nd(packet, ip, on.frame) {
                Some(answer) => answer,
                None => return Ok(None),
            },
        };
        let frame = on.frame.to_vec();
        Ok(Some(match answer {
            Answer::Drop(reason) => return Err(reason.into()),
            Answer::Reply(frame) => {
                if on.port.is_none() {
                    self.copy(on, beside, Copy::Neighbour);
                }
                Verdict::Reply { frame }
            }
            Answer::Uplink if self.shared => return Err(Stop::Elsewhere),
            Answer::Uplink => Verdict::Uplink {
                network: on.network.id,
                frame,
            },
            Answer::Deliver(place) => self.send(place, frame)?,
            Answer::Neighbour => self.serve(on, Service::Neighbour)?,
            Answer::Claim if on.network.physical && self.shared => return Err(Stop::Elsewhere),
            Answer::Claim if on.network.physical => {
                self.copy(on, beside, Copy::Claim);
                Verdict::Uplink {
                    network: on.network.id,
                    frame,
                }
            }
            Answer::Claim => self.serve(on, Service::Claim)?,
            Answer::RouterSolicitation => self.serve(on, Service::Ra)?,
            Answer::Overheard(tells) => {
                if tells {
                    self.copy(on, beside, Copy::Neighbour);
                }
                self.overheard(on, beside);
                Verdict::Pass
            }
            Answer::Pass => Verdict::Pass,
        }))
    }

    fn send(&self, place: Place, frame: Vec<u8>) -> Result<Verdict, DropReason> {
        Ok(match self.output(place)? {
            Ingress::Port(port) => Verdict::Deliver { port, frame },
            Ingress::Network(network) => Verdict::Uplink { network, frame },
            Ingress::Underlay => return Err(DropReason::EngineError),
        })
    }

    /// Session, walk and everything behind.
    fn forward(
        &mut self,
        on: &On<'_>,
        packet: &mut Packet,
        beside: &mut Beside,
    ) -> Result<Verdict, Stop> {
        match self.outbound(on, packet)? {
            None => self.follow(on, packet, beside),
            Some(Outbound::Here(mac)) => {
                let frame = &with_destination(on.frame, mac);
                packet.destination_mac = mac;
                self.follow(&On { frame, ..*on }, packet, beside)
            }
            Some(elsewhere) => Ok(self.bring_outside(on, packet, &elsewhere, beside)?),
        }
    }

    fn follow(
        &mut self,
        on: &On<'_>,
        packet: &mut Packet,
        beside: &mut Beside,
    ) -> Result<Verdict, Stop> {
        let Body::Ip(ip) = &mut packet.body else {
            return Err(DropReason::EngineError.into());
        };
        let followed = session::fragment_follow(&on.sight, &mut self.fragments, ip);
        let is = on.network.mac(packet.destination_mac);
        let is = is.within(ip.tuple.vlan);
        let physical = on.port.is_none() && on.network.physical;
        let strange = physical && is.outside.is_none() && is.port.is_none();
        let stray = match on.sight.transit {
            true => Err(DropReason::DestinationMacUnknown),
            false => Ok(Verdict::Pass),
        };
        let found = match followed {
            Ok(()) => self.find(on, packet, beside),
            // Its first fragment went there.
            Err(DropReason::FragmentUnknown) if self.shares(on) => Err(Stop::Elsewhere),
            Err(reason) => Err(reason.into()),
        };
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError.into());
        };
        let is_error = ip.icmp_kind() == Some(IcmpKind::Error);
        match found {
            Err(Stop::Drop(DropReason::FragmentUnknown)) if strange => Ok(stray?),
            Err(Stop::Drop(DropReason::IcmpNoSession)) if strange && is_error => Ok(stray?),
            Err(stop) => Err(stop),
            Ok(Found::End(End::Relay(by))) => Ok(self.relay(on, ip, by.tunnel, beside)?),
            Ok(Found::End(End::EchoReply)) => Ok(Verdict::Reply {
                frame: deliver::echo_reply(on.frame, ip),
            }),
            Ok(Found::End(End::Multicast)) => Ok(self.multicast(on, packet, beside)?),
            Ok(Found::End(_)) => Ok(Verdict::Pass),
            Ok(Found::Opened(opening, path)) => {
                Ok(self.open_whole(on, ip, &opening, path, beside)?)
            }
            Ok(Found::Hit(at)) => {
                let transformation = self.transformation(on.plan, at)?;
                self.measure(on, ip, &transformation, at.way(), beside)?;
                Ok(self.transform(on, ip, at, beside)?)
            }
            Ok(Found::Error(at, inside)) => {
                let transformation = self.transformation(on.plan, at)?;
                self.measure(on, ip, &transformation, at.way(), beside)?;
                self.limit_session(at, on.place, on.units(), on.now)?;
                let mut frame = icmp_error::process(on.frame, ip, &inside, &transformation, None);
                self.resolve(on, &transformation, beside);
                if let Some(mark) = self.mark(on.place) {
                    qos::mark_write(&mut frame, ip, mark);
                }
                Ok(self.transformed_send(on, at, &transformation, frame)?)
            }
        }
    }

    /// Whether the other engine has what is not known here.
    fn shares(&self, on: &On<'_>) -> bool {
        self.shared && on.port.is_some()
    }

    fn find(&mut self, on: &On<'_>, packet: &Packet, beside: &mut Beside) -> Result<Found, Stop> {
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError.into());
        };
        if ip.icmp_kind() == Some(IcmpKind::Error) {
            let inside = icmp_error::inside(on.frame, ip).ok_or(DropReason::IcmpNoSession)?;
            let key = Key::new(&inside.tuple.reversed(), on.place);
            let hash = self.table.seeds().hash(&key);
            let Some(at) = self.table.find_fresh(&key, hash, on.now.s) else {
                if self.shares(on) {
                    return Err(Stop::Elsewhere);
                }
                if !on.sight.is_uplink() || on.sight.tag.is_some() {
                    return Err(DropReason::IcmpNoSession.into());
                }
                let mac = packet.destination_mac;
                let by = on.plan.error_relay(on.network, mac, ip, Some(&inside))?;
                let by = by.ok_or(DropReason::IcmpNoSession)?;
                return Ok(Found::End(End::Relay(by)));
            };
            self.freshen(on.plan, at, &mut beside.noted)?;
            let transformation = self.transformation(on.plan, at)?;
            let crossing = Crossing {
                from: on.place,
                leaves: ip.tuple,
                to: self.table.half(at).output,
                arrives: icmp_error::outer(ip.tuple, &transformation),
                icmp: ip.icmp,
            };
            stateless(on.plan, &crossing)?;
            return Ok(Found::Error(at, inside));
        }
        let key = Key::new(&ip.tuple, on.place);
        let hash = self.table.seeds().hash(&key);
        let fits = |at: &Ref| {
            self.table.half(*at).match_mac == packet.destination_mac.0
                && ip.belongs_to(self.table.cold(*at).icmp, at.way())
        };
        if let Some(at) = self.table.find(&key, hash)
            && self.table.is_expired(at, on.now.s)
        {
            self.table.delete(at);
        } else if let Some(at) = self.table.find(&key, hash).filter(fits) {
            self.freshen(on.plan, at, &mut beside.noted)?;
            self.see(at, ip.seen(), [1, on.frame.len()], on.now.s);
            self.denial(on.plan, at)?;
            return Ok(Found::Hit(at));
        }
        let opening = opening_of(on, packet, ip);
        if self.is_elsewhere(on.plan, &opening) {
            return Err(Stop::Elsewhere);
        }
        Ok(
            match walk(on.plan, &self.neighbours, &opening, &mut beside.noted)? {
                End::Path(path) => Found::Opened(opening, path),
                end => Found::End(end),
            },
        )
    }

    /// A first packet.
    fn open_whole(
        &mut self,
        on: &On<'_>,
        ip: &IpPacket,
        opening: &Opening,
        path: super::path::Path,
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        let towards = Transformation {
            from: ip.tuple,
            to: ip.tuple,
            output: self.output(path.output)?,
            hop: path.hop.map(|hop| hop_of(&hop, on.network.mtu)),
            tunnel: path
                .forward_tunnel()
                .and_then(|at| on.plan.tunnels.get(at).copied()),
            accounts: [None; 2],
        };
        self.measure(on, ip, &towards, Way::Forward, beside)?;
        let forward = Key::new(&ip.tuple, on.place);
        let hash = self.table.seeds().hash(&forward);
        if let Some(held) = self.table.find(&forward, hash) {
            self.table.delete(held);
        }
        let lead = self.lead(on.plan, opening, path)?;
        let plain = lead.reply_key(ip.tuple.source_port);
        let first = First {
            lead: &lead,
            forward: (forward, hash),
            plain: (plain, self.table.seeds().hash(&plain)),
        };
        let at = self.record(on.plan, &first, on.now.s)?;
        let half = self.table.half(at);
        half.count([1, on.frame.len()], on.now.s, self.alone);
        self.transform(on, ip, at, beside)
    }

    fn measure(
        &mut self,
        on: &On<'_>,
        ip: &IpPacket,
        transformation: &Transformation,
        way: Way,
        beside: &mut Beside,
    ) -> Result<(), DropReason> {
        let bytes = packet_bytes(on.load, on.frame.len()).unwrap_or(ip.ip_bytes);
        let measured = mtu::process(ip.ttl, bytes, transformation, way, None);
        match measured {
            // The host cannot answer in a VLAN of the guests' own.
            Err(_) if on.sight.tag.is_some() => {}
            Err(DropReason::TtlExceeded) => self.copy(on, beside, Copy::TtlExceeded),
            Err(DropReason::MtuExceeded) => {
                let mtu = mtu::of(transformation, None).unwrap_or_default();
                self.copy(on, beside, Copy::MtuExceeded(mtu));
            }
            _ => {}
        }
        measured
    }

    fn transformation(&self, plan: &Plan, at: Ref) -> Result<Transformation, DropReason> {
        let half = self.table.half(at);
        Ok(Transformation {
            from: self.table.key(at).tuple(),
            to: self.table.key(at.other()).tuple().reversed(),
            output: self.output(half.output)?,
            hop: self.hop(at),
            tunnel: self.tunnel(plan, at),
            // The limits are asked by number.
            accounts: [None; 2],
        })
    }

    fn transform(
        &mut self,
        on: &On<'_>,
        ip: &IpPacket,
        at: Ref,
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        self.limit_session(at, on.place, on.units(), on.now)?;
        let transformation = self.transformation(on.plan, at)?;
        let mut frame = deliver::process(on.frame, ip, &transformation, None);
        on.load.renew(&mut frame);
        if let Some(mark) = self.mark(on.place) {
            qos::mark_write(&mut frame, ip, mark);
        }
        self.resolve(on, &transformation, beside);
        self.transformed_send(on, at, &transformation, frame)
    }

    fn transformed_send(
        &self,
        on: &On<'_>,
        at: Ref,
        transformation: &Transformation,
        frame: Vec<u8>,
    ) -> Result<Verdict, DropReason> {
        match &transformation.tunnel {
            Some(tunnel) => {
                let frame = guest_vlan::put(on.sight.tag, frame);
                Ok(Verdict::Tunnel {
                    frame: tunnel::encapsulate(&frame, tunnel, transformation.to, None),
                })
            }
            None => self.send(self.table.half(at).output, frame),
        }
    }

    /// Asks for a neighbour that is not known yet.
    fn resolve(&mut self, on: &On<'_>, transformation: &Transformation, beside: &mut Beside) {
        if let Some(Hop {
            next_hop: Some(address),
            destination_mac,
            ..
        }) = transformation.hop
            && destination_mac.is_zero()
        {
            self.copy(on, beside, Copy::NeighbourNeeded(address));
        }
    }
}

/// What a first packet asks.
fn opening_of(on: &On<'_>, packet: &Packet, ip: &IpPacket) -> Opening {
    Opening {
        place: on.place,
        tuple: ip.tuple,
        source_mac: packet.source_mac,
        destination_mac: packet.destination_mac,
        icmp: ip.icmp,
        test: Some(ip.tcp_flags),
        echo_request: ip.is_echo_request() && !ip.is_later_fragment(),
        transit: on.sight.transit,
    }
}
