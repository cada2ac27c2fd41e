//! The reference engine: docs/pipeline.md in Rust, over the snapshot itself.
//!
//! Guarantees: it reads the configuration, never anything lowered from it, so that it cannot share a compiler's mistakes;
//! it accepts any bytes as a frame. A snapshot must have been validated. It is slow: every question is a search.

use crate::flow::bucket::{self, Bucket};
use crate::flow::fragment::FragmentTable;
use crate::flow::key::Ingress;
use crate::flow::session::{Hop, Session, Transformation, Way};
use crate::flow::table::{SessionTable, TableLimits};
use crate::mutant::Mutant;
use crate::pipeline;
use crate::stage::arp_nd::{self, Answer};
use crate::stage::decode::{self, Body, IpPacket, Packet};
use crate::stage::session::{Desk, Found};
use crate::stage::transit::{self, Outbound};
use crate::stage::tunnel;
use crate::stage::{
    self, Entered, Sight, deliver, dhcp, guest_vlan, icmp_error, mtu, port_security, qos, session,
    vlan,
};
use crate::topology;
use crate::trace::{Copy, Decision, Outcome, Service, SessionNote, Trace, Verdict};
use crate::walk::{End, Neighbours};
use relay::with_destination;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use weft_model::limits::{SESSIONS_MAX_DEFAULT, SESSIONS_PER_PORT_MAX_DEFAULT};
use weft_model::{
    DropReason, HostSnapshot, MacAddress, Metered, MeteringLabelId, NetworkId, PortId, Stage,
};

mod multicast;
mod noted;
mod relay;

/// How a reference engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceConfig {
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions that one port may hold.
    pub sessions_per_port_max: u32,
    /// A planted mistake, for tests of the tests.
    pub mutant: Option<Mutant>,
}

impl Default for ReferenceConfig {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_MAX_DEFAULT,
            sessions_per_port_max: SESSIONS_PER_PORT_MAX_DEFAULT,
            mutant: None,
        }
    }
}

/// The reference engine and all its state.
#[derive(Clone, Debug)]
pub struct Reference {
    config: ReferenceConfig,
    snapshot: Option<Arc<HostSnapshot>>,
    generation: u64,
    sessions: SessionTable,
    fragments: FragmentTable,
    neighbours: Neighbours,
    buckets: BTreeMap<Ingress, Bucket>,
    copy_buckets: BTreeMap<Ingress, Bucket>,
    log_buckets: BTreeMap<PortId, Bucket>,
    ledger: qos::Ledger,
    meters: BTreeMap<MeteringLabelId, Metered>,
}

/// What the stages told beside the verdict.
#[derive(Default)]
struct Notes {
    trace: Trace,
    session: Option<SessionNote>,
    copy: Option<Copy>,
    copies: Vec<Verdict>,
    logs: Vec<Decision>,
    tuple: Option<crate::Tuple>,
}

/// A packet on its way.
#[derive(Clone, Copy)]
struct Packets<'a> {
    sight: Sight<'a>,
    frame: &'a [u8],
    now_s: u32,
}

impl Reference {
    /// An engine without a snapshot: it drops and passes everything.
    #[must_use]
    pub fn new(config: ReferenceConfig) -> Self {
        Self {
            config,
            snapshot: None,
            generation: 0,
            sessions: SessionTable::new(TableLimits {
                sessions_max: config.sessions_max,
                sessions_per_port_max: config.sessions_per_port_max,
            }),
            fragments: FragmentTable::default(),
            neighbours: Neighbours::new(),
            buckets: BTreeMap::new(),
            copy_buckets: BTreeMap::new(),
            log_buckets: BTreeMap::new(),
            ledger: qos::Ledger::new(),
            meters: BTreeMap::new(),
        }
    }

    /// Enforces another snapshot, which must be valid; all sessions become stale.
    pub fn apply(&mut self, snapshot: Arc<HostSnapshot>) {
        qos::retain(&mut self.ledger, &snapshot);
        let labels = &snapshot.metering_labels;
        self.meters.retain(|id, _| labels.contains_key(id));
        self.snapshot = Some(snapshot);
        self.generation += 1;
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<HostSnapshot>> {
        self.snapshot.as_ref()
    }

    /// A neighbour on a physical network has this MAC address.
    pub fn neighbour_put(&mut self, network: NetworkId, address: IpAddr, mac: MacAddress) {
        if self.neighbours.insert((network, address), mac) != Some(mac) {
            self.generation += 1;
        }
    }

    /// A neighbour is not known any more.
    pub fn neighbour_delete(&mut self, network: NetworkId, address: IpAddr) {
        if self.neighbours.remove(&(network, address)).is_some() {
            self.generation += 1;
        }
    }

    /// The sessions, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter()
    }

    /// What each metering label has counted, if it is anything.
    #[must_use]
    pub fn meters(&self) -> &BTreeMap<MeteringLabelId, Metered> {
        &self.meters
    }

    /// Deletes idle sessions, and says how many.
    pub fn expire(&mut self, now_s: u32) -> usize {
        self.sessions.expire(now_s)
    }

    /// What becomes of a frame. `now_s` are whole seconds of any clock that does not run backwards. A frame from a port
    /// or network that is not in the snapshot is dropped as `port_down`, or passes.
    pub fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Outcome {
        let mut notes = Notes::default();
        let snapshot = self.snapshot.clone();
        let entered = match &snapshot {
            Some(snapshot) => stage::enter(snapshot, ingress, frame, self.config.mutant),
            None => Ok(None),
        };
        let tunnelled = ingress == Ingress::Underlay;
        let Entered {
            ingress,
            frame,
            tag,
        } = match entered {
            Ok(Some(entered)) => entered,
            Ok(None) if matches!(ingress, Ingress::Port(_)) => {
                return self.outcome(Verdict::Drop(DropReason::PortDown), notes);
            }
            Ok(None) => return self.outcome(Verdict::Pass, notes),
            Err(reason) => {
                notes
                    .trace
                    .say(reason.stage(), format!("{reason}: {}", reason.sentence()));
                return self.outcome(Verdict::Drop(reason), notes);
            }
        };
        if let Ingress::Network(id) = ingress {
            notes
                .trace
                .say(Stage::Decode, format!("a frame of network {id}"));
        }
        let sight = snapshot
            .as_deref()
            .and_then(|s| Sight::new(s, ingress, self.config.mutant))
            .map(|sight| if tunnelled { sight.tunnelled() } else { sight })
            .map(|sight| sight.tagged(tag));
        let verdict = match (sight, ingress) {
            (Some(sight), _) => {
                let packet = Packets {
                    sight,
                    frame: &frame,
                    now_s,
                };
                let judged = self.judge(&packet, &mut notes).unwrap_or_else(|reason| {
                    notes
                        .trace
                        .say(reason.stage(), format!("{reason}: {}", reason.sentence()));
                    Verdict::Drop(reason)
                });
                let copies = std::mem::take(&mut notes.copies);
                let copies = copies.into_iter().map(|copy| vlan::leave(&sight, copy));
                notes.copies = copies.collect();
                self.write_down(sight.snapshot, &mut notes, now_s);
                vlan::leave(&sight, judged)
            }
            (None, Ingress::Port(_)) => Verdict::Drop(DropReason::PortDown),
            (None, Ingress::Network(_) | Ingress::Underlay) => Verdict::Pass,
        };
        self.outcome(verdict, notes)
    }

    fn outcome(&self, verdict: Verdict, notes: Notes) -> Outcome {
        let revision = self.snapshot.as_ref().map(|s| s.revision);
        Outcome {
            verdict,
            steps: notes.trace.steps,
            tuple: notes.tuple,
            session: notes.session,
            copy: notes.copy,
            copies: notes.copies,
            logs: notes.logs,
            revision: revision.unwrap_or_default(),
        }
    }

    fn judge(&mut self, on: &Packets<'_>, notes: &mut Notes) -> Result<Verdict, DropReason> {
        let down = |(_, port)| !topology::is_up(on.sight.snapshot, port);
        if on.sight.port.is_some_and(down) {
            return Err(DropReason::PortDown);
        }
        let mut packet = match decode::process(on.frame) {
            Err(reason) if on.sight.is_uplink() => {
                notes
                    .trace
                    .say(Stage::Decode, format!("not ours: {reason}"));
                return Ok(Verdict::Pass);
            }
            decoded => decoded?,
        };
        let tagged = on.sight.tag.is_some();
        for stage in pipeline::PACKET {
            let verdict = match stage {
                Stage::PortSecurity => port_secure(on, &packet, notes)?,
                // The host's services are not in the VLANs of guests.
                Stage::ArpNd if tagged => match guest_vlan::settle(&on.sight, &mut packet) {
                    Err(_) if on.sight.is_uplink() => Some(Verdict::Pass),
                    settled => settled.map(|()| None)?,
                },
                Stage::ArpNd => self.arp_nd(on, &packet, notes)?,
                Stage::Dhcp if tagged => None,
                Stage::Dhcp => self.dhcp(on, &packet, notes)?,
                Stage::Session => Some(self.forward(on, &mut packet, notes)?),
                // Decode came first.
                _ => None,
            };
            if let Some(verdict) = verdict {
                return Ok(verdict);
            }
        }
        Err(DropReason::EngineError)
    }

    /// Whether the agent gets one more frame of this input now.
    fn take_token(&mut self, on: &Packets<'_>) -> bool {
        self.buckets
            .entry(on.sight.ingress)
            .or_default()
            .take(bucket::SERVICE, 1, on.now_s)
    }

    fn serve(&mut self, on: &Packets<'_>, service: Service) -> Result<Verdict, DropReason> {
        let taken = self.take_token(on);
        taken
            .then_some(Verdict::Service(service))
            .ok_or(DropReason::ServiceRateLimit)
    }

    fn copy(&mut self, on: &Packets<'_>, notes: &mut Notes, copy: Copy) {
        if self.take_token(on) {
            notes.copy = Some(copy);
        }
    }

    fn arp_nd(
        &mut self,
        on: &Packets<'_>,
        packet: &Packet,
        notes: &mut Notes,
    ) -> Result<Option<Verdict>, DropReason> {
        let answer = match &packet.body {
            Body::Arp(arp) => arp_nd::process_arp(&on.sight, packet, arp, on.frame),
            Body::Ip(ip) => match arp_nd::process_nd(&on.sight, packet, ip, on.frame) {
                Some(answer) => answer,
                None => return Ok(None),
            },
        };
        let frame = on.frame.to_vec();
        notes.trace.say(Stage::ArpNd, answer.sentence());
        Ok(Some(match answer {
            Answer::Drop(reason) => return Err(reason),
            Answer::Reply(frame) => {
                if on.sight.port.is_none() {
                    self.copy(on, notes, Copy::Neighbour);
                }
                Verdict::Reply { frame }
            }
            Answer::Uplink => Verdict::Uplink {
                network: on.sight.network_id,
                frame,
            },
            Answer::Deliver(port) => Verdict::Deliver { port, frame },
            Answer::Neighbour => self.serve(on, Service::Neighbour)?,
            Answer::Claim if on.sight.is_physical() => {
                self.copy(on, notes, Copy::Claim);
                Verdict::Uplink {
                    network: on.sight.network_id,
                    frame,
                }
            }
            Answer::Claim => self.serve(on, Service::Claim)?,
            Answer::RouterSolicitation => self.serve(on, Service::Ra)?,
            Answer::Overheard { tells } => {
                if tells {
                    self.copy(on, notes, Copy::Neighbour);
                }
                self.overheard(on, notes);
                Verdict::Pass
            }
            Answer::Pass => Verdict::Pass,
        }))
    }

    fn dhcp(
        &mut self,
        on: &Packets<'_>,
        packet: &Packet,
        notes: &mut Notes,
    ) -> Result<Option<Verdict>, DropReason> {
        let (Body::Ip(ip), Some((_, port))) = (&packet.body, on.sight.port) else {
            return Ok(None);
        };
        let Some(asked) = dhcp::process(on.sight.snapshot, port, ip) else {
            return Ok(None);
        };
        let service = match asked {
            dhcp::Asked::Dhcp => Service::Dhcp,
            dhcp::Asked::Dhcpv6 => Service::Dhcpv6,
        };
        notes
            .trace
            .say(Stage::Dhcp, format!("for the agent: {}", service.name()));
        self.serve(on, service).map(Some)
    }

    /// Session, walk and everything behind.
    fn forward(
        &mut self,
        on: &Packets<'_>,
        packet: &mut Packet,
        notes: &mut Notes,
    ) -> Result<Verdict, DropReason> {
        match self.outbound(on, packet, notes)? {
            None => self.follow(on, packet, notes),
            Some(Outbound::Here(mac)) => {
                let frame = &with_destination(on.frame, mac);
                packet.destination_mac = mac;
                self.follow(&Packets { frame, ..*on }, packet, notes)
            }
            Some(elsewhere) => self.bring_outside(on, packet, &elsewhere, notes),
        }
    }

    fn follow(
        &mut self,
        on: &Packets<'_>,
        packet: &mut Packet,
        notes: &mut Notes,
    ) -> Result<Verdict, DropReason> {
        let destination_mac = packet.destination_mac;
        let found = self.find(on, packet, notes);
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError);
        };
        notes.tuple = Some(ip.tuple);
        let physical = on.sight.port.is_none() && on.sight.is_physical();
        let (snapshot, network_id) = (on.sight.snapshot, on.sight.network_id);
        let bridged = on.sight.tag.is_some();
        let strange =
            physical && !topology::is_let_in(snapshot, network_id, destination_mac, bridged);
        let stray = match on.sight.transit {
            true => Err(DropReason::DestinationMacUnknown),
            false => Ok(Verdict::Pass),
        };
        let is_error = ip.icmp_kind() == Some(decode::IcmpKind::Error);
        match found {
            Err(DropReason::FragmentUnknown) if strange => stray,
            Err(DropReason::IcmpNoSession) if strange && is_error => stray,
            Ok(Found::End(End::Relay(tunnel))) => self.relay(on, ip, &tunnel, on.frame, notes),
            Err(reason) => Err(reason),
            Ok(Found::End(End::EchoReply)) => {
                notes.trace.say(Stage::Router, "answers the echo request");
                Ok(Verdict::Reply {
                    frame: deliver::echo_reply(on.frame, ip),
                })
            }
            Ok(Found::End(End::Multicast)) => self.multicast(on, packet, notes),
            Ok(Found::End(_)) => {
                notes.trace.say(Stage::Bridge, "not ours: the host's own");
                Ok(Verdict::Pass)
            }
            Ok(Found::Opened(new)) => {
                // The port of SNAT is still open: what is measured does not depend on it.
                let towards = new.transformation();
                self.measure(on, ip, &towards, Way::Forward, notes)?;
                let (mut desk, network_id) = (self.desk(on, notes), on.sight.network_id);
                let (transformation, note) = session::record(&mut desk, &new, network_id)?;
                notes.session = Some(note);
                self.limit(on, transformation.output, transformation.accounts, notes)?;
                self.meter(on, notes);
                let frame = deliver::process(on.frame, ip, &transformation, on.sight.mutant);
                Ok(self.send(on, ip, notes, &transformation, frame))
            }
            Ok(Found::Hit(transformation, note)) => {
                notes.session = Some(note);
                self.measure(on, ip, &transformation, note.way, notes)?;
                self.limit(on, transformation.output, transformation.accounts, notes)?;
                self.meter(on, notes);
                let frame = deliver::process(on.frame, ip, &transformation, on.sight.mutant);
                Ok(self.send(on, ip, notes, &transformation, frame))
            }
            Ok(Found::Error(transformation, note, inside)) => {
                notes.session = Some(note);
                self.measure(on, ip, &transformation, note.way, notes)?;
                self.limit(on, transformation.output, transformation.accounts, notes)?;
                self.meter(on, notes);
                let mutant = on.sight.mutant;
                let frame = icmp_error::process(on.frame, ip, &inside, &transformation, mutant);
                Ok(self.send(on, ip, notes, &transformation, frame))
            }
        }
    }

    fn find(
        &mut self,
        on: &Packets<'_>,
        packet: &mut Packet,
        notes: &mut Notes,
    ) -> Result<Found, DropReason> {
        let Body::Ip(ip) = &mut packet.body else {
            return Err(DropReason::EngineError);
        };
        session::fragment_follow(&on.sight, &mut self.fragments, ip)?;
        let ip = ip.clone();
        let found = session::process(&mut self.desk(on, notes), packet, &ip, on.frame);
        if !matches!(found, Err(DropReason::IcmpNoSession)) {
            return found;
        }
        let inside = transit::quoted(on.frame, &ip);
        let mac = packet.destination_mac;
        match transit::error_relay(&on.sight, mac, &ip, inside.as_ref())? {
            Some(tunnel) => Ok(Found::End(End::Relay(tunnel))),
            None => found,
        }
    }

    fn desk<'a>(&'a mut self, on: &Packets<'a>, notes: &'a mut Notes) -> Desk<'a> {
        Desk {
            sight: on.sight,
            sessions: &mut self.sessions,
            neighbours: &self.neighbours,
            generation: self.generation,
            now_s: on.now_s,
            trace: &mut notes.trace,
        }
    }

    fn measure(
        &mut self,
        on: &Packets<'_>,
        ip: &IpPacket,
        transformation: &Transformation,
        way: Way,
        notes: &mut Notes,
    ) -> Result<(), DropReason> {
        let mutant = on.sight.mutant;
        let measured = mtu::process(ip.ttl, ip.ip_bytes, transformation, way, mutant);
        match measured {
            // The host cannot answer in a VLAN of the guests' own.
            Err(_) if on.sight.tag.is_some() => {}
            Err(DropReason::TtlExceeded) => self.copy(on, notes, Copy::TtlExceeded),
            Err(DropReason::MtuExceeded) => {
                let mtu = mtu::of(transformation, mutant).unwrap_or_default();
                self.copy(on, notes, Copy::MtuExceeded(mtu));
            }
            _ => {}
        }
        measured
    }

    /// The limits of the ports and addresses that the packet passes.
    fn limit(
        &mut self,
        on: &Packets<'_>,
        output: Ingress,
        accounts: [Option<qos::Account>; 2],
        notes: &mut Notes,
    ) -> Result<(), DropReason> {
        let (snapshot, from, bytes) = (on.sight.snapshot, on.sight.ingress, on.frame.len());
        let mutant = on.sight.mutant;
        let passage = qos::Passage {
            from,
            to: match mutant {
                Some(Mutant::QosIngress) if output != from => from,
                _ => output,
            },
            accounts: match mutant {
                Some(Mutant::QosAddress) => [accounts[1], accounts[0]],
                _ => accounts,
            },
        };
        qos::process(snapshot, &mut self.ledger, &passage, bytes, on.now_s)?;
        if let Some(mark) = qos::mark(snapshot, from) {
            notes.trace.say(Stage::Qos, format!("DSCP {mark}"));
        }
        Ok(())
    }

    fn send(
        &mut self,
        on: &Packets<'_>,
        ip: &IpPacket,
        notes: &mut Notes,
        transformation: &Transformation,
        mut frame: Vec<u8>,
    ) -> Verdict {
        if let Some(mark) = qos::mark(on.sight.snapshot, on.sight.ingress) {
            qos::mark_write(&mut frame, ip, mark);
        }
        notes
            .trace
            .say(Stage::Deliver, format!("to {}", transformation.output));
        if let Some(Hop {
            next_hop: Some(address),
            destination_mac,
            ..
        }) = transformation.hop
            && destination_mac.is_zero()
        {
            self.copy(on, notes, Copy::NeighbourNeeded(address));
        }
        if let Some(tunnel) = &transformation.tunnel {
            let words = format!("to {} with VNI {}", tunnel.remote, tunnel.vni);
            notes.trace.say(Stage::Tunnel, words);
            let frame = guest_vlan::put(on.sight.tag, frame);
            return Verdict::Tunnel {
                frame: tunnel::encapsulate(&frame, tunnel, transformation.to, on.sight.mutant),
            };
        }
        match transformation.output {
            Ingress::Port(port) => Verdict::Deliver { port, frame },
            Ingress::Network(network) => Verdict::Uplink { network, frame },
            Ingress::Underlay => Verdict::Drop(DropReason::EngineError),
        }
    }
}

fn port_secure(
    on: &Packets<'_>,
    packet: &Packet,
    notes: &mut Notes,
) -> Result<Option<Verdict>, DropReason> {
    let Some((_, port)) = on.sight.port else {
        return Ok(None);
    };
    if port.port_security_enabled {
        port_security::process(&on.sight, port, packet, on.frame)?;
        notes.trace.say(
            Stage::PortSecurity,
            format!("{} may send this", packet.source_mac),
        );
    } else {
        notes
            .trace
            .say(Stage::PortSecurity, "the port has no port security");
    }
    Ok(None)
}
