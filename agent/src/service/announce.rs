//! Gratuitous ARP (RFC 5227 3) and unsolicited neighbour advertisements (RFC 4861 7.2.6) for the addresses that appear
//! on a physical network at this host: gateway addresses of routers that it answers for, their NDP proxies, and floating IPs. Whoever had them before, or another MAC address
//! for them, is corrected at once.
//!
//! Guarantees: each address is announced when it appears, when its MAC address changes, and when the network's
//! interface appears; [`TIMES`] times, [`INTERVAL_MS`] apart. Nothing is announced that the snapshot does not own.

use super::{Action, Millis, Place, ServiceCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use weft_model::{HostSnapshot, MacAddress, NetworkId};
use weft_wire::{frame, ndisc};

/// RFC 5227 1.1: ANNOUNCE_NUM.
pub const TIMES: u8 = 2;
/// RFC 5227 1.1: ANNOUNCE_INTERVAL.
pub const INTERVAL_MS: Millis = 2_000;

type Address = (NetworkId, IpAddr, MacAddress);

/// What is owned outside, and what is still to be said of it.
#[derive(Debug, Default)]
pub struct Announcer {
    owned: BTreeSet<Address>,
    /// Times left and when.
    pending: BTreeMap<Address, (u8, Millis)>,
}

impl Announcer {
    /// Takes over a snapshot.
    pub fn apply(&mut self, snapshot: &HostSnapshot, now: Millis) {
        let owned = owned(snapshot);
        self.pending.retain(|address, _| owned.contains(address));
        let new = owned.difference(&self.owned);
        self.pending.extend(new.map(|a| (*a, (TIMES, now))));
        self.owned = owned;
    }

    /// A physical network's interface appeared.
    pub fn attached(&mut self, network_id: NetworkId, now: Millis) {
        let here = self.owned.iter().filter(|(id, ..)| *id == network_id);
        self.pending.extend(here.map(|a| (*a, (TIMES, now))));
    }

    /// What is to be said now.
    pub fn tick(&mut self, now: Millis, counters: &mut ServiceCounters) -> Vec<Action> {
        let mut actions = Vec::new();
        for (address, (left, due)) in &mut self.pending {
            if *due <= now {
                let (network_id, address, mac) = *address;
                actions.push(Action::Send {
                    to: Place::Network(network_id),
                    frame: announcement(address, mac, ndisc::FLAG_ROUTER),
                });
                *left -= 1;
                *due = now + INTERVAL_MS;
            }
        }
        self.pending.retain(|_, (left, _)| *left > 0);
        counters.announcements += actions.len() as u64;
        actions
    }

    /// When the next tick has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.pending.values().map(|(_, due)| *due).min()
    }
}

fn owned(snapshot: &HostSnapshot) -> BTreeSet<Address> {
    let physical = |id: &NetworkId| {
        let network = snapshot.networks.get(id);
        network.is_some_and(|network| {
            let here = network.transit.is_none_or(|transit| transit.uplink);
            network.segment.network_type.is_physical() && here
        })
    };
    let up = snapshot.routers.values().filter(|r| r.admin_state_up);
    let gateways = up.filter_map(|router| router.gateway.as_ref());
    let here = gateways.filter(|gateway| gateway.gateway_host.is_none());
    let gateways = here.flat_map(|leg| {
        let each = leg.addresses.iter();
        each.map(|a| (leg.network_id, a.ip_address, leg.mac_address))
    });
    let router_up = |id| snapshot.routers.get(id).is_some_and(|r| r.admin_state_up);
    let floating = snapshot.floating_ips.values();
    let floating = floating.filter(|ip| router_up(&ip.router_id)).map(|ip| {
        let address = ip.floating_ip_address.into();
        (ip.floating_network_id, address, ip.mac_address)
    });
    let remote = snapshot.remote_floating_ips.values();
    let remote = remote.filter(|ip| router_up(&ip.router_id)).map(|ip| {
        let address = ip.floating_ip_address.into();
        (ip.floating_network_id, address, ip.mac_address)
    });
    let answered = |id| {
        let router = snapshot.routers.get(id).filter(|r| r.admin_state_up);
        let gateway = router.and_then(|router| router.gateway.as_ref());
        gateway.is_some_and(|gateway| gateway.gateway_host.is_none())
    };
    let forwarded = snapshot.forwarded_ips.values();
    let forwarded = forwarded.filter(|ip| answered(&ip.router_id)).map(|ip| {
        let address = ip.floating_ip_address.into();
        (ip.floating_network_id, address, ip.mac_address)
    });
    let up = snapshot.routers.values().filter(|r| r.admin_state_up);
    let proxied = up.filter_map(|r| Some((r.ndp_proxies.as_ref()?, r.gateway.as_ref()?)));
    let proxied = proxied.filter(|(_, gateway)| gateway.gateway_host.is_none());
    let proxied = proxied.flat_map(|(addresses, leg)| {
        let each = addresses.iter();
        each.map(|address| (leg.network_id, (*address).into(), leg.mac_address))
    });
    gateways
        .chain(proxied)
        .chain(floating)
        .chain(remote)
        .chain(forwarded)
        .filter(|(id, ..)| physical(id))
        .collect()
}

/// The frame that says whose an address is; `flags` are those of a neighbour advertisement beside Override.
pub(super) fn announcement(address: IpAddr, mac: MacAddress, flags: u8) -> Vec<u8> {
    match address {
        // A request for one's own address: every cache takes it (RFC 5227 3).
        IpAddr::V4(address) => frame::arp_request(mac.0, address, address),
        IpAddr::V6(address) => unsolicited(mac, address, flags),
    }
}

fn unsolicited(mac: MacAddress, target: Ipv6Addr, flags: u8) -> Vec<u8> {
    let link = frame::Link {
        source: mac.0,
        destination: weft_wire::ethernet::ipv6_multicast(ndisc::ALL_NODES),
    };
    let said = ndisc::NeighbourRepr {
        kind: ndisc::NEIGHBOUR_ADVERTISEMENT,
        flags: flags | ndisc::FLAG_OVERRIDE,
        target,
        mac: Some(mac.0),
    };
    frame::neighbour_advertisement(link, target, ndisc::ALL_NODES, &said)
}
