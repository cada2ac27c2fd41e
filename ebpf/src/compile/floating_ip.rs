//! Floating IPs: what is behind one, whole or by its ports, and who is seen with it.

use super::address::ipv4_word;
use super::delta::put_first;
use super::{Input, Tables, network, tunnel};
use std::net::{IpAddr, Ipv4Addr};
use weft_ebpf_common::constants::{floating, slot};
use weft_ebpf_common::layout::{
    Floating, FloatingKey, FloatingSource, FloatingSourceKey, Forwarding, ForwardingKey,
};
use weft_model::{ForwardedIp, NetworkId, PortForwarding, PortId, RouterId};
use zerocopy::IntoBytes;

/// Bits of a forwarding's key in front of the port.
const FORWARDING_SCOPE_BITS: u32 = 80;
const SCTP: u8 = 132;

pub(super) fn floating_ips(input: &Input<'_>, tables: &mut Tables) {
    for f in network::floating_ips(input.snapshot) {
        let Some(value) = behind(input, f.router_id, f.port_id, f.fixed_ip_address) else {
            continue;
        };
        let account = input.account(f.floating_network_id, f.floating_ip_address);
        let value = Floating { account, ..value };
        let key = key(input, f.floating_network_id, f.floating_ip_address);
        put_first(&mut tables.floatings, &key, &value);
        let key = FloatingSourceKey {
            router: value.router,
            port: value.port,
            fixed: value.fixed,
        };
        let value = FloatingSource {
            address: ipv4_word(f.floating_ip_address),
            mac: f.mac_address.0,
            reserved: 0,
            account,
        };
        put_first(&mut tables.floating_srcs, &key, &value);
    }
    for f in input.snapshot.remote_floating_ips.values() {
        let value = Floating {
            router: input.router(f.router_id),
            port: tunnel::any_host_slot(input, &f.host),
            fixed: 0,
            leg_mac: f.mac_address.0,
            flags: floating::ELSEWHERE,
            account: 0,
        };
        let key = key(input, f.floating_network_id, f.floating_ip_address);
        put_first(&mut tables.floatings, &key, &value);
    }
    for f in input.snapshot.forwarded_ips.values() {
        forwarded_ip(input, tables, f);
    }
}

fn key(input: &Input<'_>, network: NetworkId, address: Ipv4Addr) -> FloatingKey {
    FloatingKey {
        network: input.network(network),
        address: ipv4_word(address),
    }
}

/// Whether this host answers outside for what has no host of its own behind a router.
pub(super) fn answers_outside(input: &Input<'_>, router_id: RouterId) -> bool {
    let router = input.snapshot.routers.get(&router_id);
    let gateway = router.and_then(|router| router.gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.gateway_host.is_none())
}

/// What an address of a port here is to a floating IP.
fn behind(
    input: &Input<'_>,
    router_id: RouterId,
    port_id: PortId,
    fixed: Ipv4Addr,
) -> Option<Floating> {
    let router = input.snapshot.routers.get(&router_id)?;
    let address = IpAddr::V4(fixed);
    let leg = router.interfaces.iter().find(|i| {
        let mut subnets = i
            .addresses
            .iter()
            .filter_map(|a| input.snapshot.subnets.get(&a.subnet_id));
        subnets.any(|s| s.cidr.contains(&address))
    });
    let up = if router.admin_state_up {
        floating::ROUTER_UP
    } else {
        0
    };
    Some(Floating {
        router: input.router(router_id),
        port: input.port(port_id),
        fixed: ipv4_word(fixed),
        leg_mac: leg.map_or([0; 6], |i| i.mac_address.0),
        flags: up | if leg.is_some() { floating::LEG } else { 0 },
        account: 0,
    })
}

/// One entry says that the ports are forwarded, a trie says where. The first floating IP with the address counts.
fn forwarded_ip(input: &Input<'_>, tables: &mut Tables, f: &ForwardedIp) {
    let answered = answers_outside(input, f.router_id);
    let account = input.account(f.floating_network_id, f.floating_ip_address);
    let known = Floating {
        router: input.router(f.router_id),
        port: slot::NONE,
        fixed: 0,
        leg_mac: f.mac_address.0,
        flags: floating::FORWARDED | if answered { floating::ANSWERED } else { 0 },
        account: 0,
    };
    let key = key(input, f.floating_network_id, f.floating_ip_address);
    if tables.floatings.contains_key(key.as_bytes()) {
        return;
    }
    put_first(&mut tables.floatings, &key, &known);
    let mut put = |protocol: u8, ports: (u16, u16), value: &dyn Fn(u16, u32) -> Forwarding| {
        for (first, bits) in prefixes(ports) {
            let key = ForwardingKey {
                prefix_bits: FORWARDING_SCOPE_BITS + bits,
                network: key.network,
                address: key.address,
                protocol,
                reserved: 0,
                port: first.to_be(),
            };
            put_first(&mut tables.forwardings, &key, &value(first, bits));
        }
    };
    for one in f.port_forwardings.iter().filter(|one| is_forwardable(one)) {
        let (port, address) = (one.internal_port_id, one.internal_ip_address);
        let Some(floating) = behind(input, f.router_id, port, address) else {
            continue;
        };
        let floating = Floating {
            account,
            ..floating
        };
        let moves = one.internal_port_first != one.internal_port_last;
        let ports = (one.external_port_first, one.external_port_last);
        put(one.protocol, ports, &|first, bits| Forwarding {
            floating,
            internal_port: one.internal_port(first),
            port_mask: if moves { range_mask(bits) } else { 0 },
        });
    }
    for one in f.elsewhere.iter().filter(|one| has_ports(one.protocol)) {
        let floating = Floating {
            port: tunnel::any_host_slot(input, &one.host),
            flags: floating::ELSEWHERE,
            ..known
        };
        let ports = (one.external_port_first, one.external_port_last);
        put(one.protocol, ports, &|_, _| Forwarding {
            floating,
            internal_port: 0,
            port_mask: 0,
        });
    }
}

fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | SCTP | 136)
}

/// SCTP's ports must stay: its CRC covers them and is not rewritten.
fn is_forwardable(one: &PortForwarding) -> bool {
    has_ports(one.protocol) && (one.protocol != SCTP || one.keeps_ports())
}

/// The bits of a port behind its first `bits`.
fn range_mask(bits: u32) -> u16 {
    u16::MAX.checked_shr(bits).unwrap_or(0)
}

/// The ranges of 2^n ports, from a multiple of that on, that a range falls into: at most 30; the first port of each, and how
/// many bits its ports share.
fn prefixes((first, last): (u16, u16)) -> Vec<(u16, u32)> {
    let (mut from, end) = (u32::from(first), u32::from(last) + 1);
    let mut prefixes = Vec::new();
    while from < end {
        let aligned = from.trailing_zeros().min(16);
        let size = aligned.min((end - from).ilog2());
        if let Ok(from) = u16::try_from(from) {
            prefixes.push((from, 16 - size));
        }
        from += 1 << size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fall_into_few_that_cover_them_and_nothing_else() {
        for range in [
            (1, 1),
            (1, 65_534),
            (1, 65_535),
            (5_000, 5_010),
            (0, 65_535),
            (80, 8_080),
        ] {
            let prefixes = prefixes(range);
            assert!(prefixes.len() <= 30, "{range:?}: {}", prefixes.len());
            let mut next = u32::from(range.0);
            for (first, bits) in prefixes {
                assert_eq!(u32::from(first), next);
                assert_eq!(first & range_mask(bits), 0, "{first}/{bits}");
                next += u32::from(range_mask(bits)) + 1;
            }
            assert_eq!(next, u32::from(range.1) + 1);
        }
    }
}
