//! What hosts share of external networks, in one host's duty: transits, routers with their gateways, floating IPs of other
//! hosts, and who is looked after.

use super::decode::Router;
use super::floating_ip::ForwardedIp;
use super::gateway::MTU_MIN;
use super::index::of;
use super::snapshot::{View, has_gateway_in};
use weft_model::{
    self as model, FloatingIpId, HostName, HostSnapshot, NetworkId, PortId, RouterAddress,
    RouterGateway, RouterId, RouterInterface,
};

/// Bytes that a tunnel over IPv6 takes more than one over IPv4, which transits' MTUs are for.
const IPV6_MORE: u32 = 20;

impl View<'_> {
    /// A network as a host has it: on its own segment.
    pub(super) fn network(&self, host: &HostName, id: NetworkId) -> Option<model::Network> {
        let mut network = self.rows().networks.get(&id)?.clone();
        if let Some(segment) = self.segment(host, id) {
            network.segment = segment.clone();
        }
        let own = self.rows().tunnel_hosts.get(host);
        let physical = network.segment.network_type.is_physical();
        network.transit = network.transit.filter(|_| own.is_some() && physical);
        if let Some(transit) = &mut network.transit {
            transit.uplink = self.rows().has_physical_network(host, id);
            if own.is_some_and(|own| own.tunnel_ip.is_ipv6()) {
                transit.mtu = transit.mtu.saturating_sub(IPV6_MORE).max(MTU_MIN);
            }
        }
        Some(network)
    }

    /// A router, for a host.
    pub(super) fn router(
        &self,
        host: &HostName,
        (id, router): (RouterId, &Router),
    ) -> model::Router {
        let leg = |id: &PortId| {
            let port = self.rows().ports.get(id)?;
            self.rows().networks.get(&port.network_id)?;
            let addresses = self.known_addresses(port).into_iter();
            let addresses = addresses.map(|ip| RouterAddress {
                subnet_id: ip.subnet_id,
                ip_address: ip.ip_address,
            });
            Some((port, addresses.collect()))
        };
        let interface = |id: &PortId| {
            let (port, addresses) = leg(id)?;
            Some(RouterInterface {
                port_id: *id,
                network_id: port.network_id,
                mac_address: port.mac_address,
                addresses,
            })
        };
        let gateway = |port_id: PortId| {
            let (port, addresses) = leg(&port_id)?;
            let network = self.network(host, port.network_id)?;
            let shared = network.transit.is_some();
            let tunnels = |other: &&HostName| {
                *other != host && shared && self.rows().tunnel_hosts.contains_key(*other)
            };
            let blocks = router.snat_port_blocks.iter();
            let others = blocks.filter(|(other, _)| tunnels(other));
            Some(RouterGateway {
                port_id,
                network_id: port.network_id,
                mac_address: port.mac_address,
                addresses,
                enable_snat: router.enable_snat,
                snat_port_block: router.snat_port_blocks.get(host).copied(),
                snat_port_blocks_elsewhere: others.map(|(o, b)| (o.clone(), *b)).collect(),
                gateway_host: self.index().elected.get(&id).filter(tunnels).cloned(),
                qos_policy_id: self.qos_policy(router.qos_policy_id, port.network_id),
            })
        };
        let gateway = router.gateway_port_id.and_then(gateway);
        let counts = gateway.is_some();
        model::Router {
            admin_state_up: router.admin_state_up,
            interfaces: router.interfaces.iter().filter_map(interface).collect(),
            gateway,
            routes: router.routes.clone(),
            ndp_proxies: router.ndp_proxies.clone(),
            conntrack_helpers: router.conntrack_helpers.clone(),
            metering_labels: if counts {
                self.metering_labels(id, router)
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn remote_floating_ips(&self, snapshot: &mut HostSnapshot) {
        let mine = snapshot.routers.keys();
        let ids = mine.flat_map(|router| of(&self.index().floating_routers, router));
        let realized = |id: &FloatingIpId| Some((*id, self.remote_floating_ip(snapshot, *id)?));
        snapshot.remote_floating_ips = ids.filter_map(realized).collect();
    }

    /// A floating IP that a host answers for though its guest is elsewhere: that one's host has not the network.
    pub(super) fn remote_floating_ip(
        &self,
        snapshot: &HostSnapshot,
        id: FloatingIpId,
    ) -> Option<model::RemoteFloatingIp> {
        let ip = self.rows().floating_ips.get(&id)?;
        let holder = self.rows().holder(ip)?;
        let host = self.rows().ports.get(&holder)?.guest_host()?;
        let network = snapshot.networks.get(&ip.floating_network_id);
        let shared = network.is_some_and(|network| network.transit.is_some());
        let fits = shared
            && *host != snapshot.host
            && self.index().elected.get(&ip.router_id) == Some(&snapshot.host)
            && self.rows().tunnel_hosts.contains_key(host)
            && !self
                .rows()
                .has_physical_network(host, ip.floating_network_id)
            && has_gateway_in(snapshot, ip.router_id, ip.floating_network_id);
        fits.then_some(model::RemoteFloatingIp {
            floating_network_id: ip.floating_network_id,
            floating_ip_address: ip.floating_ip_address,
            mac_address: self.rows().ports.get(&ip.floating_port_id)?.mac_address,
            router_id: ip.router_id,
            host: host.clone(),
        })
    }

    /// Ports of a floating IP that lead to other hosts: the host that answers for the router knows them.
    pub(super) fn forwarded_elsewhere(
        &self,
        snapshot: &HostSnapshot,
        ip: &ForwardedIp,
    ) -> Vec<model::PortForwardingElsewhere> {
        let network = snapshot.networks.get(&ip.floating_network_id);
        let shared = network.is_some_and(|network| network.transit.is_some());
        let elected = self.index().elected.get(&ip.router_id) == Some(&snapshot.host);
        let other = |id: PortId| {
            let host = self.rows().ports.get(&id)?.guest_host()?;
            let known = *host != snapshot.host && self.rows().tunnel_hosts.contains_key(host);
            known.then(|| host.clone())
        };
        let all = ip.port_forwardings.iter().filter(|_| shared && elected);
        let elsewhere = all.filter_map(|forwarding| {
            Some(model::PortForwardingElsewhere {
                protocol: forwarding.protocol,
                external_port_first: forwarding.external_port_first,
                external_port_last: forwarding.external_port_last,
                host: other(forwarding.internal_port_id)?,
            })
        });
        elsewhere.collect()
    }

    /// A host that tunnels lead to, as another one knows it.
    pub(super) fn tunnel_host(
        &self,
        here: &HostName,
        host: &HostName,
    ) -> Option<model::TunnelHost> {
        let tunnel = self.rows().tunnel_hosts.get(host)?;
        Some(model::TunnelHost {
            probed: self.rows().probed_by(here).any(|probed| probed == host),
            ..tunnel.clone()
        })
    }
}

/// The other hosts that ports of a floating IP lead to.
pub(super) fn forwarded_hosts(ip: &model::ForwardedIp) -> impl Iterator<Item = &HostName> {
    ip.elsewhere.iter().map(|forwarding| &forwarding.host)
}

/// The hosts that a router speaks of.
pub(super) fn hosts_of(router: &model::Router) -> impl Iterator<Item = &HostName> {
    let gateway = router.gateway.iter();
    gateway.flat_map(|g| g.snat_port_blocks_elsewhere.keys().chain(&g.gateway_host))
}
