//! Who has which MAC and which address on a network, while a plan is made: routers, then floating IPs, then ports.
//!
//! Guarantees: the order is that of docs/pipeline.md, "owner"; where several fit, the one with the smallest id counts.

use super::key::Place;
use super::map::{FastMap, Seed};
use super::numbers::Numbers;
use super::plan::{At, FloatingElsewhere, NetworkPlan, Owner, Plan, RemoteIs};
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::flow::session::Tunnel;
use weft_dataplane::stage::tunnel;
use weft_dataplane::topology;
use weft_model::{FixedIp, HostName, MacAddress, NetworkId, RouterInterface, eui64_link_local};

/// Fills the networks of a plan.
pub(super) fn fill(plan: &mut Plan, numbers: &Numbers, seed: Seed) {
    fill_routers(plan, numbers);
    fill_proxied(plan, numbers);
    fill_floating(plan, numbers);
    fill_ports(plan, numbers, seed);
}

/// What routers are on their networks. Owners come first from interfaces of routers that are up, then from gateways.
fn fill_routers(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    for (at, router) in snapshot.routers.values().enumerate() {
        for interface in &router.interfaces {
            if let Some(network) = network_mut(plan, numbers, interface.network_id) {
                let is = network.macs.entry(interface.mac_address.0).or_default();
                is.interface = is.interface.or(Some(at));
            }
        }
        if let Some(gateway) = &router.gateway
            && let Some(network) = network_mut(plan, numbers, gateway.network_id)
        {
            let is = network.macs.entry(gateway.mac_address.0).or_default();
            is.outside = is.outside.or(Some(at));
            for address in &gateway.addresses {
                let is = network.addresses.entry(address.ip_address).or_default();
                is.gateway = true;
                is.gateway_alone |= !gateway.is_shared();
            }
            if let Some(address) = topology::snat_address(router) {
                let is = network.addresses.entry(address.into()).or_default();
                is.snat = is.snat.or(Some(at));
            }
        }
    }
    let up = || snapshot.routers.values().filter(|r| r.admin_state_up);
    let leg = |i: &RouterInterface| (i.network_id, i.mac_address, i.addresses.clone(), false);
    let interfaces = up().flat_map(|r| &r.interfaces).map(leg);
    let gateways = up().filter_map(|r| r.gateway.as_ref()).map(|g| {
        let elsewhere = g.gateway_host.is_some();
        (g.network_id, g.mac_address, g.addresses.clone(), elsewhere)
    });
    for (network_id, mac, addresses, guests) in interfaces.chain(gateways).collect::<Vec<_>>() {
        let Some(network) = network_mut(plan, numbers, network_id) else {
            continue;
        };
        let link_local = IpAddr::V6(eui64_link_local(mac));
        let all = addresses.iter().map(|a| a.ip_address).chain([link_local]);
        for address in all {
            network
                .addresses
                .entry(address)
                .or_default()
                .owners
                .push(Owner {
                    mac,
                    router: true,
                    port: None,
                    guests,
                    claim: false,
                });
        }
    }
}

/// Addresses behind a router that its gateway answers for outside.
fn fill_proxied(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    let up = snapshot.routers.values().filter(|r| r.admin_state_up);
    let proxied = up.filter_map(|r| Some((r.ndp_proxies.as_ref()?, r.gateway.as_ref()?)));
    for (addresses, gateway) in proxied {
        let Some(network) = network_mut(plan, numbers, gateway.network_id) else {
            continue;
        };
        for address in addresses {
            let is = network.addresses.entry((*address).into()).or_default();
            is.owners.push(Owner {
                mac: gateway.mac_address,
                router: true,
                port: None,
                guests: gateway.gateway_host.is_some(),
                claim: false,
            });
        }
    }
}

fn fill_floating(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    for (at, f) in topology::floating_ips(&snapshot).enumerate() {
        let router = numbers.routers.get(&f.router_id).copied();
        let Some(network) = network_mut(plan, numbers, f.floating_network_id) else {
            continue;
        };
        let is = network.macs.entry(f.mac_address.0).or_default();
        is.outside = is.outside.or(router);
        let is = network
            .addresses
            .entry(f.floating_ip_address.into())
            .or_default();
        is.floating = is.floating.or(Some(at));
        is.owners.push(Owner {
            mac: f.mac_address,
            router: false,
            port: None,
            guests: false,
            claim: false,
        });
    }
    fill_floating_elsewhere(plan, numbers);
    for (at, f) in snapshot.forwarded_ips.values().enumerate() {
        let router = numbers.routers.get(&f.router_id).copied();
        let Some(network) = network_mut(plan, numbers, f.floating_network_id) else {
            continue;
        };
        let is = network.macs.entry(f.mac_address.0).or_default();
        is.outside = is.outside.or(router);
        let address = f.floating_ip_address.into();
        let is = network.addresses.entry(address).or_default();
        is.forwarded = is.forwarded.or(Some(at));
        is.owners.push(Owner {
            mac: f.mac_address,
            router: false,
            port: None,
            guests: !topology::answers_outside(&snapshot, f.router_id),
            claim: false,
        });
    }
}

fn fill_floating_elsewhere(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    for f in snapshot.remote_floating_ips.values() {
        let router = numbers.routers.get(&f.router_id).copied();
        let host = numbers.host(&f.host);
        let Some(network) = network_mut(plan, numbers, f.floating_network_id) else {
            continue;
        };
        let is = network.macs.entry(f.mac_address.0).or_default();
        is.outside = is.outside.or(router);
        let address = f.floating_ip_address.into();
        let is = network.addresses.entry(address).or_default();
        let mac = f.mac_address;
        is.floating_elsewhere
            .get_or_insert(FloatingElsewhere { mac, host });
        is.owners.push(Owner {
            mac,
            router: false,
            port: None,
            guests: false,
            claim: false,
        });
    }
}

/// Room for what all ports have on each network, so that nothing moves while they come.
fn reserve(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    let mut ports = vec![0; plan.networks.len()];
    let here = snapshot.ports.values().map(|port| port.network_id);
    let elsewhere = snapshot.remote_ports.values().map(|port| port.network_id);
    for id in here.chain(elsewhere) {
        let at = numbers.networks.get(&id);
        if let Some(ports) = at.and_then(|at| ports.get_mut(*at)) {
            *ports += 1;
        }
    }
    for (network, ports) in plan.networks.iter_mut().zip(ports) {
        network.macs.reserve(ports);
        // A fixed IP, and the link-local one.
        network.addresses.reserve(2 * ports);
    }
}

fn fill_ports(plan: &mut Plan, numbers: &Numbers, seed: Seed) {
    reserve(plan, numbers);
    let snapshot = Arc::clone(&plan.snapshot);
    for (id, port) in &snapshot.ports {
        let place = numbers.ports.get(id).copied();
        let Some(network) = network_mut(plan, numbers, port.network_id) else {
            continue;
        };
        let is = network.macs.entry(port.mac_address.0).or_default();
        is.port = is.port.or(place);
        network.ports.extend(place);
        for fixed in &port.fixed_ips {
            let is = network.addresses.entry(fixed.ip_address).or_default();
            is.port = is.port.or(place);
        }
        own(network, port.mac_address, &port.fixed_ips, place);
    }
    // One for all ports of a network on a host.
    let mut tunnels: FastMap<(NetworkId, &HostName), Option<(At, Tunnel)>> =
        FastMap::with_hasher(seed);
    for port in snapshot.remote_ports.values() {
        let place = (port.network_id, &port.host);
        let tunnel = *tunnels.entry(place).or_insert_with(|| {
            let tunnel = tunnel::to_host(&snapshot, port.network_id, &port.host)?;
            plan.tunnels.push(tunnel);
            Some((plan.tunnels.len() - 1, tunnel))
        });
        let Some(network) = network_mut(plan, numbers, port.network_id) else {
            continue;
        };
        let here = RemoteIs {
            host: numbers.host(&port.host),
            role: numbers.roles.of(port.pvlan.as_ref()),
            mac: port.mac_address,
            tunnel: tunnel.map(|(at, _)| at),
        };
        let to = tunnel.map(|(_, tunnel)| (tunnel.remote, tunnel));
        network.hosts.extend(to);
        let is = network.macs.entry(port.mac_address.0).or_default();
        is.remote.get_or_insert(here);
        for fixed in &port.fixed_ips {
            let is = network.addresses.entry(fixed.ip_address).or_default();
            is.remote.get_or_insert(here);
        }
        own(network, port.mac_address, &port.fixed_ips, None);
    }
    fill_claims(plan, numbers);
}

/// Claims come after all fixed IPs, here before elsewhere.
fn fill_claims(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    for (id, port) in &snapshot.ports {
        let place = numbers.ports.get(id).copied();
        let Some(network) = network_mut(plan, numbers, port.network_id) else {
            continue;
        };
        for address in &port.claimed_ips {
            let is = network.addresses.entry(*address).or_default();
            if is.remote.is_none() {
                is.port = is.port.or(place);
            }
            is.owners.push(claimed(port.mac_address, place));
        }
    }
    for port in snapshot.remote_ports.values() {
        let Some(network) = network_mut(plan, numbers, port.network_id) else {
            continue;
        };
        // It was put there with its fixed IPs.
        let here = network.mac(port.mac_address).remote;
        for address in &port.claimed_ips {
            let is = network.addresses.entry(*address).or_default();
            if is.port.is_none() {
                is.remote = is.remote.or(here);
            }
            is.owners.push(claimed(port.mac_address, None));
        }
    }
}

fn claimed(mac: MacAddress, place: Option<Place>) -> Owner {
    Owner {
        mac,
        router: false,
        port: place,
        guests: place.is_none(),
        claim: true,
    }
}

/// A port, here at a place or elsewhere, owns its fixed IPs and its link-local address.
fn own(network: &mut NetworkPlan, mac: MacAddress, fixed_ips: &[FixedIp], place: Option<Place>) {
    let link_local = IpAddr::V6(eui64_link_local(mac));
    let all = fixed_ips.iter().map(|f| f.ip_address).chain([link_local]);
    for address in all {
        network
            .addresses
            .entry(address)
            .or_default()
            .owners
            .push(Owner {
                mac,
                router: false,
                port: place,
                guests: place.is_none(),
                claim: false,
            });
    }
}

fn network_mut<'a>(
    plan: &'a mut Plan,
    numbers: &Numbers,
    id: NetworkId,
) -> Option<&'a mut NetworkPlan> {
    let at = *numbers.networks.get(&id)?;
    plan.networks.get_mut(at)
}
