//! Routers: their addresses and routes, SNAT, floating IPs.

use super::address::{AddressBytes, address_key, ipv4_word};
use super::delta::{put, put_first};
use super::{Input, Tables, network};
use ipnet::IpNet;
use std::net::IpAddr;
use weft_ebpf_common::constants::{floating, route as kind, router as flag, router_address};
use weft_ebpf_common::layout::{
    Floating, FloatingKey, FloatingSource, FloatingSourceKey, Route, RouteKey, RouterAddress,
    RouterRecord,
};
use weft_model::{MacAddress, Router, RouterId};
use zerocopy::{FromBytes, IntoBytes};

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
    let Some(g) = &router.gateway else {
        return record;
    };
    record.flags |= flag::GATEWAY;
    record.gateway_network = input.network(g.network_id);
    record.gateway_mac = g.mac_address.0;
    record.snat_first = g.snat_port_block.first;
    record.snat_last = g.snat_port_block.last;
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

pub(super) fn floating_ips(input: &Input<'_>, tables: &mut Tables) {
    for f in network::floating_ips(input.snapshot) {
        let Some(router) = input.snapshot.routers.get(&f.router_id) else {
            continue;
        };
        let fixed = IpAddr::V4(f.fixed_ip_address);
        let leg = router.interfaces.iter().find(|i| {
            let mut subnets = i
                .addresses
                .iter()
                .filter_map(|a| input.snapshot.subnets.get(&a.subnet_id));
            subnets.any(|s| s.cidr.contains(&fixed))
        });
        let slots = (
            input.router(f.router_id),
            input.port(f.port_id),
            ipv4_word(f.fixed_ip_address),
        );
        let key = FloatingKey {
            network: input.network(f.floating_network_id),
            address: ipv4_word(f.floating_ip_address),
        };
        let value = Floating {
            router: slots.0,
            port: slots.1,
            fixed: slots.2,
            leg_mac: leg.map_or([0; 6], |i| i.mac_address.0),
            flags: if router.admin_state_up {
                floating::ROUTER_UP
            } else {
                0
            } | if leg.is_some() { floating::LEG } else { 0 },
        };
        put_first(&mut tables.floatings, &key, &value);
        let key = FloatingSourceKey {
            router: slots.0,
            port: slots.1,
            fixed: slots.2,
        };
        let value = FloatingSource {
            address: ipv4_word(f.floating_ip_address),
            mac: f.mac_address.0,
            reserved: 0,
        };
        put_first(&mut tables.floating_srcs, &key, &value);
    }
}
