//! Questions to a snapshot that several stages ask. Answers are found by looking at everything: slow and plain.
//!
//! Where several resources fit, the one with the smallest id is meant; the tables are ordered by id.

use crate::stage::Sight;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use weft_model::{
    FloatingIp, ForwardedIp, HostSnapshot, LocalIp, LocalIpMode, LocalIpTarget, MacAddress,
    NetworkId, Port, PortId, PortInterface, PvlanRole, RemoteFloatingIp, RemotePort, Router,
    RouterGateway, RouterId, RouterInterface, eui64_link_local,
};

/// Whether frames of this network leave through an interface of the host.
#[must_use]
pub fn is_physical(snapshot: &HostSnapshot, network_id: NetworkId) -> bool {
    snapshot
        .networks
        .get(&network_id)
        .is_some_and(|n| n.segment.network_type.is_physical())
}

/// Whether a port passes frames: it is administratively up, and the port that carries it too.
#[must_use]
pub fn is_up(snapshot: &HostSnapshot, port: &Port) -> bool {
    let carried = match &port.interface {
        PortInterface::Subport { parent, .. } => {
            let parent = snapshot.ports.get(parent);
            parent.is_some_and(|parent| parent.admin_state_up)
        }
        _ => true,
    };
    port.admin_state_up && carried
}

/// The subports of a trunk's port, and the tag of each.
pub fn subports(
    snapshot: &HostSnapshot,
    parent: PortId,
) -> impl Iterator<Item = (PortId, u16)> + '_ {
    snapshot
        .ports
        .iter()
        .filter_map(move |(id, port)| match port.interface {
            PortInterface::Subport {
                parent: of,
                vlan_id,
            } => (of == parent).then_some((*id, vlan_id)),
            _ => None,
        })
}

/// What keeps the sender of a packet apart from other ports of its network: a guest's role, or that of the port elsewhere whose
/// MAC address came out of a tunnel.
#[must_use]
pub fn role_of<'a>(sight: &Sight<'a>, source_mac: MacAddress) -> Option<&'a PvlanRole> {
    if let Some((_, port)) = sight.port {
        return port.pvlan.as_ref();
    }
    let (snapshot, network_id) = (sight.snapshot, sight.network_id);
    if sight.is_physical() || router_by_interface(snapshot, network_id, source_mac).is_some() {
        return None;
    }
    let sender = remote_port(snapshot, network_id, |p| p.mac_address == source_mac);
    sender?.pvlan.as_ref()
}

/// The MTU of a network of the snapshot, in bytes of IP packet.
#[must_use]
pub fn mtu(snapshot: &HostSnapshot, network_id: NetworkId) -> u32 {
    snapshot
        .networks
        .get(&network_id)
        .map_or(u32::MAX, |n| n.mtu)
}

/// Floating IPs, which are translated one to one.
pub fn floating_ips(snapshot: &HostSnapshot) -> impl Iterator<Item = &FloatingIp> {
    snapshot.floating_ips.values()
}

/// The floating IP with this address.
#[must_use]
pub fn floating_ip(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<&FloatingIp> {
    floating_ips(snapshot).find(|f| {
        f.floating_network_id == network_id && IpAddr::V4(f.floating_ip_address) == address
    })
}

/// The floating IP of another host with this address.
#[must_use]
pub fn remote_floating_ip(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<&RemoteFloatingIp> {
    snapshot.remote_floating_ips.values().find(|f| {
        f.floating_network_id == network_id && IpAddr::V4(f.floating_ip_address) == address
    })
}

/// The floating IP with port forwardings that has this address.
#[must_use]
pub fn forwarded_ip(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<&ForwardedIp> {
    let taken = floating_ip(snapshot, network_id, address).is_some()
        || remote_floating_ip(snapshot, network_id, address).is_some();
    let mut all = snapshot.forwarded_ips.values();
    all.find(|f| {
        f.floating_network_id == network_id && IpAddr::V4(f.floating_ip_address) == address
    })
    .filter(|_| !taken)
}

/// Whether this host answers outside for what has no host of its own behind a router.
#[must_use]
pub fn answers_outside(snapshot: &HostSnapshot, router_id: RouterId) -> bool {
    let router = snapshot.routers.get(&router_id);
    let gateway = router.and_then(|router| router.gateway.as_ref());
    gateway.is_some_and(|gateway| gateway.gateway_host.is_none())
}

/// How the address scopes of two networks are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// Both are of this one.
    Shared,
    /// Neither has one.
    None,
    /// They are of different ones, or one has none.
    Differ,
}

/// How the address scopes of two networks are to each other, in a family.
#[must_use]
pub fn scopes(snapshot: &HostSnapshot, networks: [NetworkId; 2], is_ipv6: bool) -> Scopes {
    match networks.map(|id| snapshot.address_scope(id, is_ipv6)) {
        [None, None] => Scopes::None,
        [a, b] if a == b => Scopes::Shared,
        _ => Scopes::Differ,
    }
}

/// Whether one of a router's NDP proxies is for this address.
#[must_use]
pub fn is_proxied(router: &Router, address: IpAddr) -> bool {
    let proxies = router.ndp_proxies.as_ref();
    matches!((address, proxies), (IpAddr::V6(address), Some(all)) if all.contains(&address))
}

/// The target of a local IP of the port's network, if the port uses it: a local port, and the address that it is translated to
/// if it is.
#[must_use]
pub fn local_ip(
    snapshot: &HostSnapshot,
    (id, port): (PortId, &Port),
    address: IpAddr,
) -> Option<(PortId, Option<IpAddr>)> {
    let of = |ip: &&LocalIp| ip.local_ip_address == address && address.is_ipv4();
    let found = snapshot.local_ips.values().filter(of).find_map(|ip| {
        let near = |target: &&LocalIpTarget| {
            let there = snapshot.ports.get(&target.port_id);
            there.is_some_and(|there| there.network_id == port.network_id)
        };
        Some((ip, ip.targets.iter().find(near)?))
    });
    let (ip, target) = found?;
    let own = ip.targets.iter().any(|target| target.port_id == id);
    let translated = match ip.mode {
        LocalIpMode::Translate => Some(target.fixed_ip),
        LocalIpMode::Passthrough => None,
    };
    (!own).then_some((target.port_id, translated))
}

/// Who answers for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// With this MAC address.
    pub mac: MacAddress,
    /// Whether it is a router.
    pub router: bool,
    /// The local port that has it by claim.
    pub claimant: Option<PortId>,
}

impl Owner {
    /// One that has it otherwise than by claim.
    fn of(mac: MacAddress, router: bool) -> Self {
        Self {
            mac,
            router,
            claimant: None,
        }
    }
}

fn leg_owns<'a>(
    mac: MacAddress,
    mut addresses: impl Iterator<Item = &'a weft_model::RouterAddress>,
    address: IpAddr,
) -> bool {
    addresses.any(|a| a.ip_address == address) || IpAddr::V6(eui64_link_local(mac)) == address
}

fn port_owns(mac: MacAddress, fixed_ips: &[weft_model::FixedIp], address: IpAddr) -> bool {
    fixed_ips.iter().any(|f| f.ip_address == address)
        || IpAddr::V6(eui64_link_local(mac)) == address
}

/// The owner of an address on a network, as ARP and ND answer for it: routers, floating IPs, local ports but for `asker`.
#[must_use]
pub fn local_owner(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
    asker: Option<PortId>,
) -> Option<Owner> {
    let guest = asker.and_then(|id| Some((id, snapshot.ports.get(&id)?)));
    let local = guest.and_then(|guest| local_ip(snapshot, guest, address));
    if let Some(port) = local.and_then(|(id, _)| snapshot.ports.get(&id)) {
        return Some(Owner::of(port.mac_address, false));
    }
    let up = || snapshot.routers.values().filter(|r| r.admin_state_up);
    let interface = up().flat_map(|r| &r.interfaces).find(|i| {
        i.network_id == network_id && leg_owns(i.mac_address, i.addresses.iter(), address)
    });
    if let Some(interface) = interface {
        return Some(Owner::of(interface.mac_address, true));
    }
    let gateway = up().filter_map(|r| r.gateway.as_ref()).find(|g| {
        g.network_id == network_id && leg_owns(g.mac_address, g.addresses.iter(), address)
    });
    if let Some(gateway) = gateway {
        let answered = asker.is_some() || gateway.gateway_host.is_none();
        return answered.then_some(Owner::of(gateway.mac_address, true));
    }
    let proxies =
        |g: &&RouterGateway, r: &Router| g.network_id == network_id && is_proxied(r, address);
    let proxied = up().find_map(|r| r.gateway.as_ref().filter(|g| proxies(g, r)));
    if let Some(gateway) = proxied {
        let answered = asker.is_some() || gateway.gateway_host.is_none();
        return answered.then_some(Owner::of(gateway.mac_address, true));
    }
    if let Some(floating) = floating_ip(snapshot, network_id, address) {
        return Some(Owner::of(floating.mac_address, false));
    }
    if let Some(floating) = remote_floating_ip(snapshot, network_id, address) {
        return Some(Owner::of(floating.mac_address, false));
    }
    if let Some(forwarded) = forwarded_ip(snapshot, network_id, address) {
        let answered = asker.is_some() || answers_outside(snapshot, forwarded.router_id);
        return answered.then_some(Owner::of(forwarded.mac_address, false));
    }
    let own = snapshot.ports.iter().find(|(id, port)| {
        Some(**id) != asker
            && port.network_id == network_id
            && port_owns(port.mac_address, &port.fixed_ips, address)
    });
    if let Some((_, port)) = own {
        return Some(Owner::of(port.mac_address, false));
    }
    if remote_fixed(snapshot, network_id, address).is_some() {
        return None;
    }
    let (id, port) = claimant(snapshot, network_id, address)?;
    Some(Owner {
        mac: port.mac_address,
        router: false,
        claimant: Some(id),
    })
}

/// The local port that claims an address on a network.
fn claimant(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<(PortId, &Port)> {
    let claims = |p: &Port| p.network_id == network_id && p.claimed_ips.contains(&address);
    let mut ports = snapshot.ports.iter();
    ports
        .find(|(_, port)| claims(port))
        .map(|(id, port)| (*id, port))
}

/// The remote port that has an address on a network otherwise than by claim.
fn remote_fixed(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<&RemotePort> {
    let owns = |p: &RemotePort| port_owns(p.mac_address, &p.fixed_ips, address);
    remote_port(snapshot, network_id, owns)
}

/// The remote port that owns an address on a network.
#[must_use]
pub fn remote_owner(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<Owner> {
    let claims = |p: &RemotePort| p.claimed_ips.contains(&address);
    let port = remote_fixed(snapshot, network_id, address);
    let port = port.or_else(|| remote_port(snapshot, network_id, claims))?;
    Some(Owner::of(port.mac_address, false))
}

/// Where an address of a network is.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// At a guest of this host.
    Local(PortId, &'a Port),
    /// At a guest of another.
    Remote(&'a RemotePort),
}

/// The port that has an address: a fixed IP, here before elsewhere, or else by its claim, likewise.
#[must_use]
pub fn port_by_address(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    address: IpAddr,
) -> Option<Found<'_>> {
    let fixed = |ips: &[weft_model::FixedIp]| ips.iter().any(|f| f.ip_address == address);
    let here = |p: &Port| p.network_id == network_id && fixed(&p.fixed_ips);
    let mut ports = snapshot.ports.iter();
    if let Some((id, port)) = ports.find(|(_, port)| here(port)) {
        return Some(Found::Local(*id, port));
    }
    if let Some(port) = remote_port(snapshot, network_id, |p| fixed(&p.fixed_ips)) {
        return Some(Found::Remote(port));
    }
    if let Some((id, port)) = claimant(snapshot, network_id, address) {
        return Some(Found::Local(id, port));
    }
    let claims = |p: &RemotePort| p.claimed_ips.contains(&address);
    remote_port(snapshot, network_id, claims).map(Found::Remote)
}

/// The local port with this MAC address.
#[must_use]
pub fn port_by_mac(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
) -> Option<PortId> {
    snapshot
        .ports
        .iter()
        .find(|(_, p)| p.network_id == network_id && p.mac_address == mac)
        .map(|(id, _)| *id)
}

/// The remote port that fits a test, on a network.
#[must_use]
pub fn remote_port(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    fits: impl Fn(&RemotePort) -> bool,
) -> Option<&RemotePort> {
    snapshot
        .remote_ports
        .values()
        .map(Arc::as_ref)
        .find(|p| p.network_id == network_id && fits(p))
}

/// The router with an interface of this MAC address on the network.
#[must_use]
pub fn router_by_interface(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
) -> Option<(RouterId, &Router)> {
    let has = |i: &RouterInterface| i.network_id == network_id && i.mac_address == mac;
    snapshot
        .routers
        .iter()
        .find(|(_, router)| router.interfaces.iter().any(has))
        .map(|(id, router)| (*id, router))
}

/// The router whose gateway, or one of whose floating IPs, has this MAC address on the network.
#[must_use]
pub fn router_by_outside(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
) -> Option<(RouterId, &Router)> {
    let gateway = snapshot.routers.iter().find(|(_, router)| {
        router
            .gateway
            .as_ref()
            .is_some_and(|g| g.network_id == network_id && g.mac_address == mac)
    });
    if let Some((id, router)) = gateway {
        return Some((*id, router));
    }
    let local = floating_ips(snapshot)
        .find(|f| f.floating_network_id == network_id && f.mac_address == mac)
        .map(|f| f.router_id);
    let mut remote = snapshot.remote_floating_ips.values();
    let remote = remote.find(|f| f.floating_network_id == network_id && f.mac_address == mac);
    let mut forwarded = snapshot.forwarded_ips.values();
    let forwarded = forwarded.find(|f| f.floating_network_id == network_id && f.mac_address == mac);
    let id = local
        .or(remote.map(|f| f.router_id))
        .or(forwarded.map(|f| f.router_id))?;
    snapshot.routers.get(&id).map(|router| (id, router))
}

/// Whether frames from the uplink of this network to this MAC address are for a router's outside (unless they are `bridged` in any
/// case) or a local port.
#[must_use]
pub fn is_let_in(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    mac: MacAddress,
    bridged: bool,
) -> bool {
    (!bridged && router_by_outside(snapshot, network_id, mac).is_some())
        || port_by_mac(snapshot, network_id, mac).is_some()
}

/// Whether a MAC address is a router leg's or a floating IP's on the network.
#[must_use]
pub fn is_router_mac(snapshot: &HostSnapshot, network_id: NetworkId, mac: MacAddress) -> bool {
    router_by_interface(snapshot, network_id, mac).is_some()
        || router_by_outside(snapshot, network_id, mac).is_some()
}

/// The router's interface whose subnet holds this address.
#[must_use]
pub fn interface_towards<'a>(
    snapshot: &HostSnapshot,
    router: &'a Router,
    address: IpAddr,
) -> Option<&'a RouterInterface> {
    router.interfaces.iter().find(|i| {
        i.addresses
            .iter()
            .filter_map(|a| snapshot.subnets.get(&a.subnet_id))
            .any(|s| s.cidr.contains(&address))
    })
}

/// Whether an address is one of the gateway's.
#[must_use]
pub fn is_gateway_address(router: &Router, address: IpAddr) -> bool {
    router
        .gateway
        .as_ref()
        .is_some_and(|g| g.addresses.iter().any(|a| a.ip_address == address))
}

/// Whether an address is one of the router's interfaces'.
#[must_use]
pub fn is_interface_address(router: &Router, address: IpAddr) -> bool {
    router
        .interfaces
        .iter()
        .flat_map(|i| &i.addresses)
        .any(|a| a.ip_address == address)
}

/// The first IPv4 address of the router's gateway: SNAT's.
#[must_use]
pub fn snat_address(router: &Router) -> Option<Ipv4Addr> {
    router.gateway.as_ref()?.snat_address()
}

/// Loopback, multicast or unspecified: nobody's source address.
#[must_use]
pub fn is_no_source(address: IpAddr) -> bool {
    address.is_loopback() || address.is_multicast() || address.is_unspecified()
}

/// Link-local, multicast, loopback, unspecified or limited broadcast: passes no router.
#[must_use]
pub fn is_never_routed(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    local || is_no_source(address)
}
