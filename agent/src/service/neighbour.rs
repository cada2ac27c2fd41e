//! Neighbours on physical networks: who has the next hop's address there, by ARP (RFC 826) and ND (RFC 4861 7).
//!
//! Guarantees: the engine's table holds what was heard from the neighbour itself, in answer to a question of ours,
//! with a question to us, or, if it was known, in an announcement to everybody, and only addresses of the network's own subnets or next hops that are configured; what does
//! not answer any more is forgotten. The next hops of routers (gateways of the subnets, extra routes) are resolved
//! before they are needed. Table, queues and rate of questions are bounded, so that a guest that scans the outside
//! cannot fill them for others: resolved entries are never displaced.

use super::{Action, Millis, Place, ServiceCounters};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_model::{HostSnapshot, MacAddress, NetworkId, Router, RouterAddress, eui64_link_local};
use weft_wire::{arp, ethernet, ethernet::ethertype, frame, ipv6, ndisc, protocol};

/// Neighbours known or being looked for, over all networks.
pub const NEIGHBOURS_MAX: usize = 4_096;
/// Neighbours being looked for at a time.
pub const UNRESOLVED_MAX: usize = 512;
/// Finished frames that wait for one neighbour; a further one displaces the oldest (RFC 4861 7.2.2).
pub const QUEUE_MAX: usize = 4;
/// Questions before a neighbour counts as dead (RFC 4861 10: MAX_MULTICAST_SOLICIT).
pub const TRIES: u8 = 3;
/// Between two questions (RFC 4861 10: RETRANS_TIMER).
pub const RETRY_MS: Millis = 1_000;
/// How long an answer is believed before it is asked for again (RFC 4861 10: REACHABLE_TIME).
pub const REACHABLE_MS: Millis = 30_000;
/// How long a next hop of a router that does not answer is left alone.
pub const NEXT_HOP_PAUSE_MS: Millis = 10_000;

type Key = (NetworkId, IpAddr);

/// A router's leg on a physical network: who asks there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leg {
    mac: MacAddress,
    addresses: Vec<(IpAddr, Option<IpNet>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// None while it is looked for the first time.
    mac: Option<MacAddress>,
    /// Questions since the last answer.
    tries: u8,
    /// When to ask next.
    due: Millis,
    /// Finished frames that wait.
    queue: Vec<Vec<u8>>,
}

/// What an ARP or ND message says of its sender.
struct Heard {
    address: IpAddr,
    mac: MacAddress,
    /// An answer, or a question that tells the sender's address along.
    answer: bool,
    /// An NA without the override flag does not change what is known (RFC 4861 7.2.5).
    overrides: bool,
}

/// The neighbours of the host's routers on physical networks.
#[derive(Debug, Default)]
pub struct Neighbours {
    legs: BTreeMap<NetworkId, Vec<Leg>>,
    subnets: BTreeMap<NetworkId, Vec<IpNet>>,
    /// Addresses that Weft answers for, or that live here: never neighbours.
    owned: BTreeSet<Key>,
    /// Configured next hops: looked for again and again.
    next_hops: BTreeSet<Key>,
    entries: BTreeMap<Key, Entry>,
}

impl Neighbours {
    /// Takes over a snapshot: forgets what is no neighbour any more, looks for the new next hops.
    pub fn apply(&mut self, snapshot: &HostSnapshot, now: Millis) -> Vec<Action> {
        *self = Self {
            entries: std::mem::take(&mut self.entries),
            ..Self::default()
        };
        for (id, network) in &snapshot.networks {
            let here = network.transit.is_none_or(|transit| transit.uplink);
            if network.segment.network_type.is_physical() && here {
                self.subnets
                    .insert(*id, snapshot.subnets_of(*id).map(|(_, s)| s.cidr).collect());
            }
        }
        for router in snapshot.routers.values().filter(|r| r.admin_state_up) {
            self.add_router(snapshot, router);
        }
        for floating_ip in snapshot.floating_ips.values() {
            let id = floating_ip.floating_network_id;
            self.owned
                .insert((id, floating_ip.floating_ip_address.into()));
        }
        for floating_ip in snapshot.remote_floating_ips.values() {
            let id = floating_ip.floating_network_id;
            self.owned
                .insert((id, floating_ip.floating_ip_address.into()));
        }
        for forwarded_ip in snapshot.forwarded_ips.values() {
            let router = snapshot.routers.get(&forwarded_ip.router_id);
            let gateway = router.and_then(|router| router.gateway.as_ref());
            // If another host answers for it, it is a neighbour like others.
            if gateway.is_some_and(|gateway| gateway.gateway_host.is_none()) {
                let id = forwarded_ip.floating_network_id;
                self.owned
                    .insert((id, forwarded_ip.floating_ip_address.into()));
            }
        }
        for port in snapshot.ports.values() {
            let ips = port.fixed_ips.iter();
            self.owned
                .extend(ips.map(|ip| (port.network_id, ip.ip_address)));
        }
        self.next_hops.retain(|key| !self.owned.contains(key));
        let mut actions = Vec::new();
        let keep = |key: &Key| {
            let (network_id, address) = *key;
            self.legs.contains_key(&network_id)
                && !self.owned.contains(key)
                && (self.next_hops.contains(key) || on_link(&self.subnets, network_id, address))
        };
        self.entries.retain(|key, entry| {
            let kept = keep(key);
            if !kept && entry.mac.is_some() {
                actions.push(delete(*key));
            }
            kept
        });
        for key in self.next_hops.clone() {
            self.entry(key, now);
        }
        actions
    }

    fn add_router(&mut self, snapshot: &HostSnapshot, router: &Router) {
        let inside = router
            .interfaces
            .iter()
            .map(|leg| (leg.network_id, leg.mac_address, &leg.addresses));
        let outside = router
            .gateway
            .iter()
            .map(|leg| (leg.network_id, leg.mac_address, &leg.addresses));
        for (network_id, mac, addresses) in inside.chain(outside) {
            if self.subnets.contains_key(&network_id) {
                self.add_leg(snapshot, network_id, mac, addresses);
                let hops = router.routes.iter().map(|route| route.nexthop);
                let hops = hops.filter(|hop| on_link(&self.subnets, network_id, *hop));
                self.next_hops.extend(hops.map(|hop| (network_id, hop)));
            }
        }
        let gateway = router.gateway.iter();
        for (leg, address) in gateway.flat_map(|leg| leg.addresses.iter().map(move |a| (leg, a))) {
            let subnet = snapshot.subnets.get(&address.subnet_id);
            let hop = subnet.and_then(|subnet| subnet.gateway_ip);
            if self.subnets.contains_key(&leg.network_id) {
                self.next_hops.extend(hop.map(|hop| (leg.network_id, hop)));
            }
        }
    }

    fn add_leg(
        &mut self,
        snapshot: &HostSnapshot,
        network_id: NetworkId,
        mac: MacAddress,
        addresses: &[RouterAddress],
    ) {
        let range = |a: &RouterAddress| snapshot.subnets.get(&a.subnet_id).map(|s| s.cidr);
        let with_ranges = addresses.iter().map(|a| (a.ip_address, range(a)));
        let leg = Leg {
            mac,
            addresses: with_ranges.collect(),
        };
        self.owned
            .extend(addresses.iter().map(|a| (network_id, a.ip_address)));
        self.legs.entry(network_id).or_default().push(leg);
    }

    /// A finished frame for a network, whose next hop has no MAC address yet: sent if it is known meanwhile, else kept
    /// and asked for.
    pub fn needed(
        &mut self,
        key: (NetworkId, IpAddr),
        frame: &[u8],
        now: Millis,
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        if !self.legs.contains_key(&key.0) || self.owned.contains(&key) {
            counters.neighbour_frames_dropped += 1;
            return Vec::new();
        }
        if let Some(mac) = self.entries.get(&key).and_then(|entry| entry.mac) {
            counters.neighbour_frames_sent += 1;
            return vec![put(key, mac), send_finished(key.0, frame.to_vec(), mac)];
        }
        let known = self.entries.contains_key(&key);
        if !self.entry(key, now) {
            counters.neighbour_frames_dropped += 1;
            return Vec::new();
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.queue.len() >= QUEUE_MAX {
                entry.queue.remove(0);
                counters.neighbour_frames_dropped += 1;
            }
            entry.queue.push(frame.to_vec());
        }
        if known {
            self.wake(key, now);
        }
        self.tick(now, counters)
    }

    /// A next hop that is left alone for a while is asked for at once when somebody needs it.
    fn wake(&mut self, key: Key, now: Millis) {
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.mac.is_none()
            && entry.due > now + RETRY_MS
        {
            entry.tries = 0;
            entry.due = now;
        }
    }

    /// Makes sure that the address is known or looked for; false if there is no room.
    fn entry(&mut self, key: Key, now: Millis) -> bool {
        if self.entries.contains_key(&key) {
            return true;
        }
        let unresolved = self.entries.values().filter(|e| e.mac.is_none()).count();
        let room = self.entries.len() < NEIGHBOURS_MAX
            && (unresolved < UNRESOLVED_MAX || self.next_hops.contains(&key));
        if room {
            let entry = Entry {
                mac: None,
                tries: 0,
                due: now,
                queue: Vec::new(),
            };
            self.entries.insert(key, entry);
        }
        room
    }

    /// An ARP or ND message from the wire that is meant for an address or a MAC of ours.
    pub fn heard(
        &mut self,
        network_id: NetworkId,
        frame: &[u8],
        now: Millis,
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        let Some(heard) = heard(frame) else {
            return Vec::new();
        };
        let key = (network_id, heard.address);
        let learnable = self.legs.contains_key(&network_id)
            && !self.owned.contains(&key)
            && !heard.mac.is_multicast()
            && !heard.mac.is_zero()
            && (self.next_hops.contains(&key) || on_link(&self.subnets, network_id, heard.address));
        if !learnable {
            return Vec::new();
        }
        // An answer to no question of ours makes no entry: anyone could fill the table with them.
        if !self.entries.contains_key(&key) && (heard.answer || !self.entry(key, now)) {
            return Vec::new();
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return Vec::new();
        };
        let changed = entry.mac != Some(heard.mac);
        if changed && entry.mac.is_some() && !heard.overrides {
            return Vec::new();
        }
        entry.mac = Some(heard.mac);
        entry.tries = 0;
        entry.due = now + REACHABLE_MS;
        let queue = std::mem::take(&mut entry.queue);
        counters.neighbours_learned += u64::from(changed);
        counters.neighbour_frames_sent += queue.len() as u64;
        let told = changed.then(|| put(key, heard.mac));
        let waiting = queue
            .into_iter()
            .map(|frame| send_finished(network_id, frame, heard.mac));
        told.into_iter().chain(waiting).collect()
    }

    /// Asks what is due to be asked, forgets what does not answer.
    pub fn tick(&mut self, now: Millis, counters: &mut ServiceCounters) -> Vec<Action> {
        let due: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.due <= now)
            .map(|(key, _)| *key)
            .collect();
        let mut actions = Vec::new();
        for key in due {
            actions.extend(self.ask(key, now, counters));
        }
        actions
    }

    fn ask(&mut self, key: Key, now: Millis, counters: &mut ServiceCounters) -> Vec<Action> {
        let question = self.question(key);
        let Some(entry) = self.entries.get_mut(&key) else {
            return Vec::new();
        };
        if entry.tries < TRIES
            && let Some(frame) = question
        {
            entry.tries += 1;
            entry.due = now + RETRY_MS;
            counters.neighbour_probes += 1;
            let to = Place::Network(key.0);
            return vec![Action::Send { to, frame }];
        }
        counters.neighbour_frames_dropped += entry.queue.len() as u64;
        entry.queue.clear();
        let was_known = entry.mac.take().is_some();
        if self.next_hops.contains(&key) {
            entry.tries = 0;
            entry.due = now + NEXT_HOP_PAUSE_MS;
        } else {
            self.entries.remove(&key);
        }
        counters.neighbours_lost += u64::from(was_known);
        was_known.then(|| delete(key)).into_iter().collect()
    }

    /// The question for an address, from the leg whose subnet it is in, else from any leg of its family.
    fn question(&self, (network_id, target): Key) -> Option<Vec<u8>> {
        let legs = self.legs.get(&network_id)?;
        let each = legs
            .iter()
            .flat_map(|leg| leg.addresses.iter().map(move |a| (leg.mac, a)));
        let family = each.filter(|(_, (address, _))| address.is_ipv6() == target.is_ipv6());
        let mut last = None;
        for (mac, (address, range)) in family {
            let fits = range.is_some_and(|range| range.contains(&target));
            if fits || last.is_none() {
                last = Some((mac, *address));
            }
            if fits {
                break;
            }
        }
        match (target, last) {
            (IpAddr::V4(target), Some((mac, IpAddr::V4(source)))) => {
                Some(frame::arp_request(mac.0, source, target))
            }
            (IpAddr::V6(target), Some((mac, IpAddr::V6(source)))) => {
                Some(frame::neighbour_solicitation(mac.0, source, target))
            }
            // A leg without an address of the family still has its link-local one.
            (IpAddr::V6(target), _) => legs.first().map(|leg| {
                frame::neighbour_solicitation(leg.mac.0, eui64_link_local(leg.mac), target)
            }),
            _ => None,
        }
    }

    /// A physical network's interface appeared: what was asked into the void is asked again.
    pub fn attached(&mut self, network_id: NetworkId, now: Millis) {
        for ((id, _), entry) in &mut self.entries {
            if *id == network_id {
                entry.tries = 0;
                entry.due = now;
            }
        }
    }

    /// When the next tick has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.entries.values().map(|entry| entry.due).min()
    }

    /// What is known, in order of network and address.
    pub fn known(&self) -> impl Iterator<Item = (NetworkId, IpAddr, MacAddress)> {
        self.entries
            .iter()
            .filter_map(|((network_id, address), e)| Some((*network_id, *address, e.mac?)))
    }
}

fn on_link(
    subnets: &BTreeMap<NetworkId, Vec<IpNet>>,
    network_id: NetworkId,
    address: IpAddr,
) -> bool {
    let ranges = subnets.get(&network_id).into_iter().flatten();
    let link_local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    link_local || ranges.into_iter().any(|range| range.contains(&address))
}

fn put((network_id, address): Key, mac: MacAddress) -> Action {
    Action::NeighbourPut {
        network_id,
        address,
        mac,
    }
}

fn delete((network_id, address): Key) -> Action {
    Action::NeighbourDelete {
        network_id,
        address,
    }
}

fn send_finished(network_id: NetworkId, mut frame: Vec<u8>, mac: MacAddress) -> Action {
    if let Ok(mut view) = ethernet::Frame::new_checked(&mut frame) {
        view.set_destination(mac.0);
    }
    Action::Send {
        to: Place::Network(network_id),
        frame,
    }
}

/// What a frame tells of its sender; none if it tells nothing.
fn heard(frame: &[u8]) -> Option<Heard> {
    let ethernet = ethernet::Frame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        ethertype::ARP => {
            let packet = arp::Packet::new_checked(ethernet.payload()).ok()?;
            let address = packet.sender_ip();
            let usable =
                |a: Ipv4Addr| !a.is_unspecified() && !a.is_multicast() && !a.is_broadcast();
            usable(address).then_some(Heard {
                address: address.into(),
                mac: MacAddress(packet.sender_mac()),
                // An announcement to everybody asks nobody (RFC 5227 3).
                answer: packet.operation() != arp::REQUEST || packet.target_ip() == address,
                overrides: true,
            })
        }
        ethertype::IPV6 => heard_nd(&ipv6::Packet::new_checked(ethernet.payload()).ok()?),
        _ => None,
    }
}

fn heard_nd(packet: &ipv6::Packet<&[u8]>) -> Option<Heard> {
    if packet.hop_limit() != ndisc::HOP_LIMIT || packet.next_header() != protocol::ICMPV6 {
        return None;
    }
    let message = ndisc::Neighbour::new_checked(packet.payload()).ok()?;
    let answer = message.kind() == ndisc::NEIGHBOUR_ADVERTISEMENT;
    let address: Ipv6Addr = if answer {
        message.target()
    } else {
        packet.source()
    };
    let usable = !address.is_unspecified() && !address.is_multicast();
    usable.then_some(Heard {
        address: address.into(),
        mac: MacAddress(message.mac()?),
        answer,
        overrides: !answer || message.flags() & ndisc::FLAG_OVERRIDE != 0,
    })
}

#[cfg(test)]
#[path = "neighbour_tests.rs"]
mod tests;
