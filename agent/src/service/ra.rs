//! Router advertisements (RFC 4861, 8106) for the router interfaces on v6 subnets with `ipv6_ra_mode`.
//!
//! Guarantees: every attached port of such a network hears an advertisement at once, soon again, then periodically, and
//! whenever it solicits one; when the interface goes, or stops announcing, its ports hear that it is no router any more.
//! The bytes are written once per snapshot. Each port is told separately: no frame leaves to another network's guest.
//!
//! Intervals and lifetimes are those of Neutron's radvd configuration.

use super::{Action, Millis, Place, ServiceCounters};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use weft_model::{
    HostSnapshot, Ipv6Mode, MacAddress, NetworkId, PortId, RouterInterface, Subnet,
    eui64_link_local,
};
use weft_wire::ndisc::{ALL_NODES, Prefix, RouterAdvertisement};
use weft_wire::{ethernet, frame, ipv6};

/// MinRtrAdvInterval and MaxRtrAdvInterval (RFC 4861 6.2.1).
const INTERVAL_MS: std::ops::RangeInclusive<Millis> = 30_000..=100_000;
/// MAX_INITIAL_RTR_ADVERTISEMENTS, at most MAX_INITIAL_RTR_ADVERT_INTERVAL apart (RFC 4861 10).
const INITIAL: u8 = 3;
const INITIAL_INTERVAL_MS: Millis = 16_000;
/// Three times the longest interval (RFC 4861 6.2.1).
const ROUTER_LIFETIME_S: u16 = 300;
/// RFC 8106 5.1: at least three times the longest interval.
const RDNSS_LIFETIME_S: u32 = 300;
/// radvd's defaults, RFC 4861's valid lifetime shortened.
const VALID_S: u32 = 86_400;
const PREFERRED_S: u32 = 14_400;
const HOP_LIMIT: u8 = 64;

/// One router interface's advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Advertiser {
    network_id: NetworkId,
    mac: MacAddress,
    said: RouterAdvertisement,
    /// To ff02::1, at its MAC address.
    frame: Vec<u8>,
}

/// When a port hears next from a router interface.
#[derive(Clone, Copy, Debug)]
struct Timer {
    due: Millis,
    initial_left: u8,
}

/// The advertisements of a snapshot, and when each is due.
#[derive(Debug, Default)]
pub struct RaServer {
    /// By the router interface's port.
    advertisers: BTreeMap<PortId, Advertiser>,
    /// Attached guests and their networks.
    guests: BTreeMap<PortId, NetworkId>,
    /// By router interface and guest.
    timers: BTreeMap<(PortId, PortId), Timer>,
}

impl RaServer {
    /// Takes over a snapshot and the ports that are attached. What changed is announced at the next tick; what ceased
    /// is said at once.
    pub fn apply(
        &mut self,
        snapshot: &HostSnapshot,
        attached: &BTreeSet<PortId>,
        now: Millis,
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        let next = advertisers(snapshot);
        let mut actions = Vec::new();
        for (id, old) in &self.advertisers {
            let new = next.get(id).filter(|new| new.network_id == old.network_id);
            if let Some(farewell) = old.farewell(new) {
                let guests = self.guests.iter().filter(|(_, n)| **n == old.network_id);
                actions.extend(guests.map(|(guest, _)| send(*guest, farewell.clone())));
            }
        }
        counters.router_advertisements += actions.len() as u64;
        self.guests = attached
            .iter()
            .filter_map(|id| Some((*id, snapshot.ports.get(id)?.network_id)))
            .collect();
        let mut by_network: BTreeMap<NetworkId, Vec<PortId>> = BTreeMap::new();
        for (guest, network_id) in &self.guests {
            by_network.entry(*network_id).or_default().push(*guest);
        }
        let mut timers = BTreeMap::new();
        for (id, new) in &next {
            let same = self.advertisers.get(id) == Some(new);
            for guest in by_network.get(&new.network_id).into_iter().flatten() {
                let fresh = Timer {
                    due: now,
                    initial_left: INITIAL,
                };
                let timer = self.timers.get(&(*id, *guest)).filter(|_| same);
                timers.insert((*id, *guest), timer.copied().unwrap_or(fresh));
            }
        }
        self.timers = timers;
        self.advertisers = next;
        actions
    }

    /// What is due now. `chance` gives numbers in 0..1: RFC 4861 6.2.4 wants the intervals random.
    pub fn tick(
        &mut self,
        now: Millis,
        chance: &mut dyn FnMut() -> f64,
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for ((id, guest), timer) in &mut self.timers {
            if timer.due > now {
                continue;
            }
            if let Some(advertiser) = self.advertisers.get(id) {
                actions.push(send(*guest, advertiser.frame.clone()));
            }
            timer.initial_left = timer.initial_left.saturating_sub(1);
            let mut wait = interval(chance());
            if timer.initial_left > 0 {
                wait = wait.min(INITIAL_INTERVAL_MS);
            }
            timer.due = now + wait;
        }
        counters.router_advertisements += actions.len() as u64;
        actions
    }

    /// When the next tick has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.timers.values().map(|timer| timer.due).min()
    }

    /// The answer to a router solicitation from a port: one advertisement of each router there, to the one who asked
    /// (RFC 4861 6.2.6), or to all nodes if it has no address yet.
    pub fn solicited(
        &self,
        snapshot: &HostSnapshot,
        port_id: PortId,
        frame: &[u8],
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        let Some(port) = snapshot.ports.get(&port_id) else {
            return Vec::new();
        };
        let Some((mac, address)) = solicitor(frame) else {
            return Vec::new();
        };
        let here = self
            .advertisers
            .values()
            .filter(|a| a.network_id == port.network_id);
        let actions: Vec<Action> = here
            .map(|advertiser| send(port_id, advertiser.emit(mac, address, &advertiser.said)))
            .collect();
        counters.router_advertisements += actions.len() as u64;
        counters.router_advertisements_solicited += actions.len() as u64;
        actions
    }
}

fn send(guest: PortId, frame: Vec<u8>) -> Action {
    Action::Send {
        to: Place::Port(guest),
        frame,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 70,000"
)]
fn interval(chance: f64) -> Millis {
    let span = INTERVAL_MS.end() - INTERVAL_MS.start();
    INTERVAL_MS.start() + (span as f64 * chance.clamp(0.0, 1.0)) as Millis
}

/// Who solicits: MAC and IP address; none if the frame is no sound solicitation (RFC 4861 6.1.1).
fn solicitor(frame: &[u8]) -> Option<([u8; 6], Ipv6Addr)> {
    let ethernet = ethernet::Frame::new_checked(frame).ok()?;
    let packet = ipv6::Packet::new_checked(ethernet.payload()).ok()?;
    let sound = packet.hop_limit() == weft_wire::ndisc::HOP_LIMIT
        && packet.payload().first() == Some(&weft_wire::ndisc::ROUTER_SOLICITATION)
        && packet.payload().len() >= 8;
    sound.then(|| (ethernet.source(), packet.source()))
}

impl Advertiser {
    fn new(network_id: NetworkId, mac: MacAddress, said: RouterAdvertisement) -> Self {
        let mut advertiser = Self {
            network_id,
            mac,
            said,
            frame: Vec::new(),
        };
        advertiser.frame = advertiser.emit([0; 6], Ipv6Addr::UNSPECIFIED, &advertiser.said);
        advertiser
    }

    /// The advertisement to one node, or to all if that has no address.
    fn emit(&self, mac: [u8; 6], address: Ipv6Addr, said: &RouterAdvertisement) -> Vec<u8> {
        let (mac, address) = if address.is_unspecified() {
            (ethernet::ipv6_multicast(ALL_NODES), ALL_NODES)
        } else {
            (mac, address)
        };
        let link = frame::Link {
            source: self.mac.0,
            destination: mac,
        };
        frame::router_advertisement(link, eui64_link_local(self.mac), address, said)
    }

    /// What must be said before `new` takes over, if anything: not a router any more (RFC 4861 6.2.5), and what
    /// prefixes are not for new connections (RFC 9096 3.5).
    fn farewell(&self, new: Option<&Self>) -> Option<Vec<u8>> {
        let stays =
            |p: &Prefix| new.is_some_and(|n| n.said.prefixes.iter().any(|q| q.prefix == p.prefix));
        let mut said = new.unwrap_or(self).said.clone();
        said.prefixes = self.said.prefixes.clone();
        said.prefixes.retain(|prefix| !stays(prefix));
        if new.is_some() && said.prefixes.is_empty() {
            return None;
        }
        for prefix in &mut said.prefixes {
            prefix.preferred_s = 0;
        }
        if new.is_none() {
            said.lifetime_s = 0;
            said.rdnss_lifetime_s = 0;
        }
        Some(self.emit([0; 6], Ipv6Addr::UNSPECIFIED, &said))
    }
}

fn advertisers(snapshot: &HostSnapshot) -> BTreeMap<PortId, Advertiser> {
    let up = snapshot.routers.values().filter(|r| r.admin_state_up);
    up.flat_map(|router| &router.interfaces)
        .filter_map(|leg| Some((leg.port_id, advertiser(snapshot, leg)?)))
        .collect()
}

/// The advertisement of one router interface; none if no subnet of its asks for one.
fn advertiser(snapshot: &HostSnapshot, leg: &RouterInterface) -> Option<Advertiser> {
    let network = snapshot.networks.get(&leg.network_id)?;
    let ids: BTreeSet<_> = leg.addresses.iter().map(|a| a.subnet_id).collect();
    let subnets: Vec<(&Subnet, Ipv6Mode)> = ids
        .iter()
        .filter_map(|id| snapshot.subnets.get(id))
        .filter_map(|subnet| Some((subnet, subnet.ipv6_ra_mode?)))
        .collect();
    if subnets.is_empty() {
        return None;
    }
    let any = |wanted: Ipv6Mode| subnets.iter().any(|(_, mode)| *mode == wanted);
    let managed = any(Ipv6Mode::Dhcpv6Stateful);
    let rdnss = subnets.iter().flat_map(|(s, _)| &s.dns_nameservers);
    let rdnss: BTreeSet<Ipv6Addr> = rdnss
        .filter_map(|server| match server {
            IpAddr::V6(server) => Some(*server),
            IpAddr::V4(_) => None,
        })
        .collect();
    let domain = network.dns_domain.trim_end_matches('.');
    let said = RouterAdvertisement {
        hop_limit: HOP_LIMIT,
        managed,
        other: managed || any(Ipv6Mode::Dhcpv6Stateless),
        lifetime_s: ROUTER_LIFETIME_S,
        source_mac: Some(leg.mac_address.0),
        mtu: (network.mtu >= 1_280).then_some(network.mtu),
        prefixes: subnets.iter().filter_map(|(s, m)| prefix(s, *m)).collect(),
        rdnss: rdnss.into_iter().collect(),
        rdnss_lifetime_s: RDNSS_LIFETIME_S,
        dnssl: (!domain.is_empty())
            .then(|| domain.to_owned())
            .into_iter()
            .collect(),
    };
    Some(Advertiser::new(leg.network_id, leg.mac_address, said))
}

fn prefix(subnet: &Subnet, mode: Ipv6Mode) -> Option<Prefix> {
    let IpNet::V6(range) = subnet.cidr else {
        return None;
    };
    Some(Prefix {
        prefix: range.network(),
        length: range.prefix_len(),
        on_link: true,
        autonomous: mode != Ipv6Mode::Dhcpv6Stateful,
        valid_s: VALID_S,
        preferred_s: PREFERRED_S,
    })
}

#[cfg(test)]
#[path = "ra_tests.rs"]
mod tests;
