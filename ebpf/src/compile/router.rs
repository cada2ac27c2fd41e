//! Routers: their addresses and routes, SNAT.

use super::address::{AddressBytes, address_key, ipv4_word};
use super::delta::{put, put_first};
use super::{Input, Tables, tunnel};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use weft_ebpf_common::constants::{route as kind, router as flag, router_address, slot};
use weft_ebpf_common::layout::{
    Route, RouteKey, RouterAddress, RouterRecord, SnatBlock, SnatBlockKey,
};
use weft_model::{HostName, MacAddress, Router, RouterId};
use zerocopy::{FromBytes, IntoBytes};

/// Bits of a block's key in front of the port.
const SNAT_SCOPE_BITS: u32 = 64;
/// In a block's network: protocols without ports.
const PORTLESS: u32 = 1 << 31;
/// Bits of a route's key in front of the address.
const ROUTE_SCOPE_BITS: u32 = 64;

pub(super) fn routers(input: &Input<'_>, tables: &mut Tables) {
    for (id, router) in &input.snapshot.routers {
        put(
            &mut tables.routers,
            &input.router(*id),
            &record(input, *id, router),
        );
        for i in &router.interfaces {
            for a in &i.addresses {
                own_address(input, tables, *id, a.ip_address, router_address::INTERFACE);
            }
        }
        for a in router.gateway.iter().flat_map(|g| &g.addresses) {
            own_address(input, tables, *id, a.ip_address, router_address::GATEWAY);
        }
        for address in router.ndp_proxies.iter().flatten() {
            let address = (*address).into();
            own_address(input, tables, *id, address, router_address::PROXIED);
        }
        routes(input, tables, *id, router);
    }
}

fn own_address(input: &Input<'_>, tables: &mut Tables, id: RouterId, address: IpAddr, bit: u32) {
    let key = address_key(input.router(id), address).as_bytes().to_vec();
    let value = tables
        .router_addresses
        .entry(key)
        .or_insert_with(|| vec![0; 4]);
    if let Ok(have) = RouterAddress::read_from_bytes(value) {
        *value = RouterAddress {
            flags: have.flags | bit,
        }
        .as_bytes()
        .to_vec();
    }
}

fn record(input: &Input<'_>, id: RouterId, router: &Router) -> RouterRecord {
    let mut record = RouterRecord::zero();
    record.id = *id.0.as_bytes();
    if router.admin_state_up {
        record.flags |= flag::UP;
    }
    if router.ndp_proxies.is_some() {
        record.flags |= flag::NDP_PROXIES;
    }
    let legs = router.interfaces.iter().map(|i| i.network_id);
    let mut legs = legs.chain(router.gateway.iter().map(|g| g.network_id));
    if legs.any(|id| {
        [false, true]
            .iter()
            .any(|v6| input.snapshot.address_scope(id, *v6).is_some())
    }) {
        record.flags |= flag::SCOPED;
    }
    let Some(g) = &router.gateway else {
        return record;
    };
    record.flags |= flag::GATEWAY;
    if input.slots.metering.counts(id) {
        record.flags |= flag::METERED;
    }
    record.gateway_network = input.network(g.network_id);
    record.gateway_mac = g.mac_address.0;
    // Without a block no port is in it.
    (record.snat_first, record.snat_last) =
        (g.snat_port_block).map_or((1, 0), |block| (block.first, block.last));
    if g.has_portless() {
        record.flags |= flag::SNAT_PORTLESS;
    }
    let host = g.gateway_host.as_ref();
    record.gateway_host = host.map_or(slot::NONE, |host| tunnel::any_host_slot(input, host));
    if g.enable_snat {
        record.flags |= flag::SNAT;
    }
    let first = g.addresses.iter().find_map(|a| match a.ip_address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    if let Some(v4) = first {
        record.flags |= flag::SNAT_ADDRESS;
        record.snat_address = ipv4_word(v4);
        record.account = input.account(g.network_id, v4);
    }
    record
}

/// A router's leg: network and MAC, and the ranges connected to it.
#[derive(Clone, Copy)]
struct Leg {
    kind: u16,
    network: u32,
    mac: MacAddress,
}

impl Leg {
    fn route(self, nexthop: Option<IpAddr>) -> Route {
        Route {
            kind: self.kind,
            mac: self.mac.0,
            network: self.network,
            has_nexthop: u32::from(nexthop.is_some()),
            nexthop: nexthop.map_or([0; 16], |a| AddressBytes::from(a).bytes),
        }
    }
}

/// Both tables of a router, the first route of a range counts: for what comes from inside, and from outside.
fn routes(input: &Input<'_>, tables: &mut Tables, id: RouterId, router: &Router) {
    let subnet = |subnet_id| input.snapshot.subnets.get(subnet_id);
    let mut connected: Vec<(IpNet, Leg)> = Vec::new();
    for i in &router.interfaces {
        let leg = Leg {
            kind: kind::INSIDE,
            network: input.network(i.network_id),
            mac: i.mac_address,
        };
        let ranges = i.addresses.iter().filter_map(|a| subnet(&a.subnet_id));
        connected.extend(ranges.map(|s| (s.cidr, leg)));
    }
    let mut defaults: Vec<(IpNet, Route)> = Vec::new();
    if let Some(g) = &router.gateway {
        let leg = Leg {
            kind: kind::OUTSIDE,
            network: input.network(g.network_id),
            mac: g.mac_address,
        };
        for s in g.addresses.iter().filter_map(|a| subnet(&a.subnet_id)) {
            connected.push((s.cidr, leg));
            if let Some(gateway_ip) = s.gateway_ip {
                defaults.push((whole(s.cidr), leg.route(Some(gateway_ip))));
            }
        }
    }
    let table = input.router(id) << 1;
    let mut add = |from_outside: bool, range: IpNet, route: &Route| {
        let inside = route.kind == kind::INSIDE;
        if !from_outside || inside {
            put_first(
                &mut tables.routes,
                &route_key(table | u32::from(from_outside), range),
                route,
            );
        }
    };
    for from_outside in [false, true] {
        for (range, leg) in &connected {
            add(from_outside, *range, &leg.route(None));
        }
        for r in &router.routes {
            let leg = connected
                .iter()
                .find(|(range, _)| range.contains(&r.nexthop))
                .map(|(_, leg)| *leg);
            let unreachable = Leg {
                kind: kind::UNREACHABLE,
                network: 0,
                mac: MacAddress([0; 6]),
            };
            add(
                from_outside,
                r.destination,
                &leg.unwrap_or(unreachable).route(Some(r.nexthop)),
            );
        }
        for (range, route) in &defaults {
            add(from_outside, *range, route);
        }
    }
}

/// The whole range of a family.
fn whole(range: IpNet) -> IpNet {
    match range {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn route_key(table: u32, range: IpNet) -> RouteKey {
    let address = AddressBytes::from(range.network());
    RouteKey {
        prefix_bits: ROUTE_SCOPE_BITS + u32::from(range.prefix_len()),
        table,
        family: address.family.into(),
        address: address.bytes,
    }
}

/// Other hosts' blocks of the gateways' ports.
pub(super) fn snat_blocks(input: &Input<'_>, tables: &mut Tables) {
    let mut seen = BTreeSet::new();
    for router in input.snapshot.routers.values() {
        let addresses = router.gateway.iter().flat_map(|g| &g.addresses);
        let mut addresses = addresses.filter_map(|a| match a.ip_address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let (Some(g), Some(address)) = (&router.gateway, addresses.next()) else {
            continue;
        };
        let network = input.snapshot.networks.get(&g.network_id);
        let shared = network.is_some_and(|network| network.transit.is_some());
        // Of two routers with one address the one with the smaller id.
        if !shared || !seen.insert((g.network_id, address)) {
            continue;
        }
        let mut put = |network: u32, port: u16, bits: u32, host: &HostName| {
            let key = SnatBlockKey {
                prefix_bits: SNAT_SCOPE_BITS + bits,
                network,
                address: ipv4_word(address),
                port: port.to_be(),
                reserved: 0,
            };
            let value = SnatBlock {
                host: tunnel::any_host_slot(input, host),
                mac: g.mac_address.0,
                reserved: 0,
            };
            put_first(&mut tables.snat_blocks, &key, &value);
        };
        let network = input.network(g.network_id);
        let others = &g.snat_port_blocks_elsewhere;
        for (host, block) in others {
            put(
                network,
                block.first,
                block.prefix_bits().unwrap_or(16),
                host,
            );
        }
        let lowest = others.iter().min_by_key(|(_, block)| block.first);
        if let Some((host, _)) = lowest.filter(|_| !g.has_portless()) {
            put(network | PORTLESS, 0, 16, host);
        }
    }
}
