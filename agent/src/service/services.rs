//! All services of a host behind one door: snapshot, event or tick in, actions out.

use super::announce::Announcer;
use super::checksum;
use super::claim::Claims;
use super::dhcp::DhcpServer;
use super::dhcpv6::Dhcpv6Server;
use super::icmp_error;
use super::neighbour::Neighbours;
use super::ra::RaServer;
use super::{Action, Millis, Place, ServiceCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use weft_model::{Claim, HostSnapshot, MacAddress, NetworkId, PortId, Unsupported, limits};
use weft_wire::frame::IcmpError;

/// What an engine hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A DHCPv4 client's message.
    Dhcp,
    /// A DHCPv6 client's message.
    Dhcpv6,
    /// A router solicitation.
    Ra,
    /// ARP or ND from the wire that tells a neighbour's MAC address.
    Neighbour,
    /// A finished frame without a destination MAC address.
    NeighbourNeeded,
    /// A packet that died of its TTL.
    TtlExceeded,
    /// A packet that died of its size.
    MtuExceeded,
    /// ARP or ND by which a guest says that an address is its own.
    Claim,
}

/// One event of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    /// What it is about.
    pub kind: EventKind,
    /// Where the frame came from.
    pub ingress: Place,
    /// The neighbour that is needed, and the network that the frame leaves by.
    pub needed: Option<(NetworkId, IpAddr)>,
    /// What the frame is too large for, in bytes.
    pub mtu: u32,
    /// Whether the frame was cut.
    pub cut: bool,
    /// The frame, at most [`limits::SERVICE_FRAME_BYTES_MAX`] of it.
    pub frame: Vec<u8>,
}

/// A token bucket: so many events a second may cost the agent work.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    filled: Millis,
}

impl Bucket {
    fn take(&mut self, now: Millis) -> bool {
        let seconds = now.saturating_sub(self.filled) / 1_000;
        if seconds > 0 {
            let gained = u32::try_from(seconds)
                .unwrap_or(u32::MAX)
                .saturating_mul(limits::SERVICE_PACKETS_PER_SECOND);
            self.tokens = self
                .tokens
                .saturating_add(gained)
                .min(limits::SERVICE_PACKETS_BURST);
            self.filled += seconds * 1_000;
        }
        let paid = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        paid
    }
}

/// The services' state under one snapshot.
#[derive(Debug)]
pub struct Services {
    snapshot: Arc<HostSnapshot>,
    lease_s: u32,
    dhcp: DhcpServer,
    dhcpv6: Dhcpv6Server,
    ra: RaServer,
    neighbours: Neighbours,
    announcer: Announcer,
    claims: Claims,
    /// One for every place that asked since it is in the snapshot.
    buckets: BTreeMap<Place, Bucket>,
    counters: ServiceCounters,
}

impl Services {
    /// Services that have nothing to answer yet.
    #[must_use]
    pub fn new(empty: Arc<HostSnapshot>, lease_s: u32) -> Self {
        Self {
            snapshot: empty,
            lease_s,
            dhcp: DhcpServer::default(),
            dhcpv6: Dhcpv6Server::default(),
            ra: RaServer::default(),
            neighbours: Neighbours::default(),
            announcer: Announcer::default(),
            claims: Claims::default(),
            buckets: BTreeMap::new(),
            counters: ServiceCounters::default(),
        }
    }

    /// Takes over a snapshot that the engines enforce.
    pub fn apply(
        &mut self,
        snapshot: Arc<HostSnapshot>,
        attached: &BTreeSet<PortId>,
        now: Millis,
    ) -> Vec<Action> {
        let told = self.claims.apply(&snapshot, attached, &mut self.counters);
        if answered_alike(&self.snapshot, &snapshot) {
            self.snapshot = snapshot;
            let mut actions = self.guests_changed(attached, now);
            actions.extend(told);
            return actions;
        }
        self.dhcp = DhcpServer::new(&snapshot, self.lease_s);
        self.dhcpv6 = Dhcpv6Server::new(&snapshot, self.lease_s);
        let counters = &mut self.counters;
        let mut actions = self.ra.apply(&snapshot, attached, now, counters);
        actions.extend(told);
        actions.extend(self.neighbours.apply(&snapshot, now));
        self.announcer.apply(&snapshot, now);
        self.buckets.retain(|place, _| match place {
            Place::Port(id) => snapshot.ports.contains_key(id),
            Place::Network(id) => snapshot.networks.contains_key(id),
        });
        self.snapshot = snapshot;
        actions
    }

    /// The attached guests changed.
    pub fn guests_changed(&mut self, attached: &BTreeSet<PortId>, now: Millis) -> Vec<Action> {
        let counters = &mut self.counters;
        self.ra.apply(&self.snapshot, attached, now, counters)
    }

    /// A physical network's interface appeared.
    pub fn network_attached(&mut self, network_id: NetworkId, now: Millis) {
        self.neighbours.attached(network_id, now);
        self.announcer.attached(network_id, now);
    }

    /// Answers one event.
    pub fn event(&mut self, event: &ServiceEvent, now: Millis) -> Vec<Action> {
        if !self.admitted(event.ingress, now) {
            self.counters.rate_limited += 1;
            return Vec::new();
        }
        let counters = &mut self.counters;
        let frame = event.frame.as_slice();
        match (event.kind, event.ingress, event.needed) {
            (EventKind::Dhcp, Place::Port(port_id), _) => self
                .dhcp
                .answer(port_id, frame, counters)
                .into_iter()
                .collect(),
            (EventKind::Dhcpv6, Place::Port(port_id), _) => self
                .dhcpv6
                .answer(port_id, frame, counters)
                .into_iter()
                .collect(),
            (EventKind::Ra, Place::Port(port_id), _) => {
                self.ra.solicited(&self.snapshot, port_id, frame, counters)
            }
            (EventKind::Neighbour, Place::Network(network_id), _) => {
                self.neighbours.heard(network_id, frame, now, counters)
            }
            (EventKind::NeighbourNeeded, _, Some(_)) if event.cut => {
                counters.neighbour_frames_dropped += 1;
                Vec::new()
            }
            (EventKind::NeighbourNeeded, _, Some(key)) => {
                let mut frame = frame.to_vec();
                checksum::complete(&mut frame);
                self.neighbours.needed(key, &frame, now, counters)
            }
            (EventKind::Claim, Place::Port(port_id), _) => {
                let snapshot = &self.snapshot;
                self.claims.heard(snapshot, port_id, frame, now, counters);
                Vec::new()
            }
            (EventKind::TtlExceeded, place, _) => {
                self.icmp_error(place, frame, IcmpError::TtlExceeded)
            }
            (EventKind::MtuExceeded, place, _) => {
                self.icmp_error(place, frame, IcmpError::MtuExceeded(event.mtu))
            }
            _ => {
                counters.unanswered += 1;
                Vec::new()
            }
        }
    }

    fn icmp_error(&mut self, place: Place, frame: &[u8], what: IcmpError) -> Vec<Action> {
        icmp_error::answer(&self.snapshot, place, frame, what, &mut self.counters)
            .into_iter()
            .collect()
    }

    /// Only places of the snapshot have a bucket, so that their number is bounded.
    fn admitted(&mut self, place: Place, now: Millis) -> bool {
        let known = match place {
            Place::Port(id) => self.snapshot.ports.contains_key(&id),
            Place::Network(id) => self.snapshot.networks.contains_key(&id),
        };
        let full = Bucket {
            tokens: limits::SERVICE_PACKETS_BURST,
            filled: now,
        };
        known && self.buckets.entry(place).or_insert(full).take(now)
    }

    /// What is due by the clock. `chance` gives numbers in 0..1.
    pub fn tick(&mut self, now: Millis, chance: &mut dyn FnMut() -> f64) -> Vec<Action> {
        let counters = &mut self.counters;
        let mut actions = self.ra.tick(now, chance, counters);
        actions.extend(self.neighbours.tick(now, counters));
        actions.extend(self.announcer.tick(now, counters));
        actions
    }

    /// What control is to hear now of guests that say that an address is theirs.
    pub fn claims_take(&mut self, now: Millis) -> Vec<Claim> {
        self.claims.take(now)
    }

    /// When the next tick has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        let each = [
            self.ra.due(),
            self.neighbours.due(),
            self.announcer.due(),
            self.claims.due(),
        ];
        each.into_iter().flatten().min()
    }

    /// A frame of an action could not be sent.
    pub fn unsent(&mut self) {
        self.counters.frames_unsent += 1;
    }

    /// What the services did so far.
    #[must_use]
    pub fn counters(&self) -> ServiceCounters {
        self.counters
    }

    /// The neighbours on physical networks that are known.
    pub fn neighbours(&self) -> impl Iterator<Item = (NetworkId, IpAddr, MacAddress)> {
        self.neighbours.known()
    }

    /// What the snapshot asks of the services and they do not do.
    #[must_use]
    pub fn unsupported(&self) -> &[Unsupported] {
        self.dhcp.unsupported()
    }
}

/// Whether two snapshots differ only in what no service reads, such as security groups: these change most often.
fn answered_alike(a: &HostSnapshot, b: &HostSnapshot) -> bool {
    a.networks == b.networks
        && a.subnets == b.subnets
        && a.ports == b.ports
        && a.routers == b.routers
        && a.floating_ips == b.floating_ips
        && a.remote_floating_ips == b.remote_floating_ips
        && a.forwarded_ips == b.forwarded_ips
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
