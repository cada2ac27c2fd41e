//! A snapshot compiled for look-ups: who has which MAC and which address on a network, ports with their policies, routers
//! with their routes in the order of the longest prefix.
//!
//! Guarantees: it answers as `weft_dataplane::topology` does on the snapshot itself: where several resources fit, the one
//! with the smallest id. Made anew for each snapshot; nothing in it changes.

use super::classify::{Members, Policies, PolicyMaker};
use super::decided::Logged;
use super::floating_ip::{self, FloatingPlan, ForwardedPlan};
use super::key::Place;
use super::limit::{Account, AddressQos, PortQos};
use super::local_ip::{self, LocalIpPlan};
use super::map::{FastMap, Seed};
use super::numbers::Numbers;
use super::owners;
use super::place::Places;
use super::pvlan::{Role, Roles};
use super::transit;
use super::tunnels::Tunnels;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use weft_dataplane::Ingress;
use weft_dataplane::flow::session::Tunnel;
use weft_dataplane::stage::nat::SnatPorts;
use weft_dataplane::stage::{tunnel, vlan};
use weft_dataplane::topology;
use weft_model::{
    AddressScopeId, HostSnapshot, MacAddress, NetworkId, Port, PortBlock, PortId, PortInterface,
    Router, eui64_link_local,
};

/// The index of a network, router or floating IP.
pub(super) type At = usize;

/// A guest's port.
#[derive(Debug)]
pub(super) struct PortPlan {
    pub(super) id: PortId,
    pub(super) up: bool,
    pub(super) secured: bool,
    /// Judged packet by packet.
    pub(super) stateless: bool,
    /// In a private VLAN.
    pub(super) role: Role,
    /// Whether it is a vhost-user port.
    pub(super) served: bool,
    /// Whether it is a subport: what leaves to it has a tag.
    pub(super) tagged: bool,
    pub(super) network: At,
    pub(super) mac: [u8; 6],
    /// Addresses that the port may send from with its own MAC.
    pub(super) own4: Vec<u32>,
    pub(super) own6: Vec<u128>,
    pub(super) policies: Arc<Policies>,
    pub(super) qos: PortQos,
    /// Which decisions of its rules are written down.
    pub(super) logged: Logged,
}

/// What a MAC address is on a network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MacIs {
    /// A router's interface.
    pub(super) interface: Option<At>,
    /// A router's gateway, or a floating IP of that router.
    pub(super) outside: Option<At>,
    /// A port here.
    pub(super) port: Option<Place>,
    /// A port elsewhere.
    pub(super) remote: Option<RemoteIs>,
}

/// How hosts share a physical network.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) mtu: u32,
    pub(super) uplink: bool,
    /// By host: the tunnel to it, if there is one.
    pub(super) tunnels: Vec<Option<At>>,
}

/// A floating IP of another host.
#[derive(Clone, Copy, Debug)]
pub(super) struct FloatingElsewhere {
    pub(super) mac: MacAddress,
    pub(super) host: At,
}

/// A port elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteIs {
    pub(super) host: At,
    /// In a private VLAN.
    pub(super) role: Role,
    pub(super) mac: MacAddress,
    /// The tunnel to its host, if there is one.
    pub(super) tunnel: Option<At>,
}

/// Who answers ARP and ND for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) mac: MacAddress,
    pub(super) router: bool,
    /// The port here, if it is one.
    pub(super) port: Option<Place>,
    /// Answered to guests only.
    pub(super) guests: bool,
    /// By claim, and not by a fixed IP.
    pub(super) claim: bool,
}

/// What an address is on a network.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressIs {
    /// In the order in which they count.
    pub(super) owners: Vec<Owner>,
    /// A port's fixed IP.
    pub(super) port: Option<Place>,
    /// A fixed IP of a port elsewhere.
    pub(super) remote: Option<RemoteIs>,
    /// A floating IP that is translated one to one.
    pub(super) floating: Option<At>,
    /// A floating IP of another host.
    pub(super) floating_elsewhere: Option<FloatingElsewhere>,
    /// A floating IP with port forwardings.
    pub(super) forwarded: Option<At>,
    /// An address of a router's gateway.
    pub(super) gateway: bool,
    /// One that no other host shares.
    pub(super) gateway_alone: bool,
    /// The router whose guests are seen with it.
    pub(super) snat: Option<At>,
}

/// A network.
#[derive(Debug)]
pub(super) struct NetworkPlan {
    pub(super) id: NetworkId,
    pub(super) place: Place,
    pub(super) physical: bool,
    /// Which physical network it is on, by number.
    pub(super) wire: Option<At>,
    /// The tag of its frames there; 0: none.
    pub(super) vlan_id: u16,
    pub(super) mtu: u32,
    pub(super) macs: FastMap<[u8; 6], MacIs>,
    pub(super) addresses: FastMap<IpAddr, AddressIs>,
    /// Addresses that lead to ports here.
    pub(super) local_ips: FastMap<Ipv4Addr, LocalIpPlan>,
    /// A router of ours sends router advertisements on it.
    pub(super) announces: bool,
    pub(super) shared: Option<Shared>,
    /// Its address scopes, of IPv4 and IPv6.
    pub(super) scopes: [Option<AddressScopeId>; 2],
    /// Ports here.
    pub(super) ports: Vec<Place>,
    /// Tunnels to hosts that have ports on it.
    pub(super) hosts: BTreeMap<IpAddr, Tunnel>,
}

impl NetworkPlan {
    /// Whether what is routed to another network as it is may be.
    pub(super) fn agrees(&self, other: &Self, is_ipv6: bool) -> bool {
        let at = usize::from(is_ipv6);
        self.scopes[at] == other.scopes[at]
    }

    /// Whether both are of one address scope, in IPv4.
    pub(super) fn shares_scope(&self, other: &Self) -> bool {
        self.scopes[0].is_some() && self.agrees(other, false)
    }

    pub(super) fn mac(&self, mac: MacAddress) -> MacIs {
        self.macs.get(&mac.0).copied().unwrap_or_default()
    }

    /// Who answers for an address to `asker`; to the uplink (none) only what is here.
    pub(super) fn owner(&self, address: IpAddr, asker: Option<Place>) -> Option<Owner> {
        if let Some(owner) = asker.and_then(|asker| self.local_owner(address, asker)) {
            return Some(owner);
        }
        let owners = &self.addresses.get(&address)?.owners;
        let fits = |owner: &&Owner| owner.claim || owner.port.is_none() || owner.port != asker;
        let owner = owners.iter().find(fits).copied();
        owner.filter(|owner| asker.is_some() || !owner.guests)
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// By an interface, to the destination itself or to this neighbour.
    Inside(At, Option<IpAddr>),
    /// By the gateway, likewise.
    Outside(Option<IpAddr>),
    /// Its next hop is in no connected subnet.
    Unreachable,
}

/// A router's leg in a project network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    pub(super) mac: MacAddress,
    pub(super) network: At,
}

/// A router's leg in an external network.
#[derive(Clone, Debug)]
pub(super) struct GatewayPlan {
    pub(super) mac: MacAddress,
    pub(super) network: At,
    pub(super) enable_snat: bool,
    pub(super) snat: Option<Ipv4Addr>,
    pub(super) ports: SnatPorts,
    /// Limits of SNAT's address.
    pub(super) account: Account,
    /// The other hosts' ports, in their order.
    pub(super) elsewhere: Vec<(PortBlock, At)>,
    /// The host that answers outside, if it is another.
    pub(super) host: Option<At>,
}

/// A router.
#[derive(Debug)]
pub(super) struct RouterPlan {
    pub(super) up: bool,
    pub(super) legs: Vec<Leg>,
    pub(super) gateway: Option<GatewayPlan>,
    /// Its own addresses, all and those of the gateway.
    pub(super) own: FastMap<IpAddr, ()>,
    pub(super) gateway_addresses: Vec<IpAddr>,
    /// What of IPv6 it lets in from outside, if that is not everything.
    pub(super) ndp_proxies: Option<BTreeSet<Ipv6Addr>>,
    /// All routes, the longest prefix first.
    pub(super) routes: Vec<(IpNet, Target)>,
    /// Those that lead inside.
    pub(super) routes_inside: Vec<(IpNet, Target)>,
}

impl RouterPlan {
    /// Whether it has nothing to say against what comes from outside for this address.
    pub(super) fn lets_in(&self, destination: IpAddr) -> bool {
        match (destination, &self.ndp_proxies) {
            (IpAddr::V6(address), Some(proxies)) => {
                proxies.contains(&address) || self.own.contains_key(&destination)
            }
            _ => true,
        }
    }

    /// The best route; with `all`, the gateway's take part.
    pub(super) fn route(&self, destination: IpAddr, all: bool) -> Option<Target> {
        let routes = if all {
            &self.routes
        } else {
            &self.routes_inside
        };
        let found = routes.iter().find(|(net, _)| net.contains(&destination));
        found.map(|(_, target)| *target)
    }
}

/// What is at a place.
#[derive(Debug)]
pub(super) enum PlaceIs {
    Port(PortPlan),
    Network(At),
}

/// A compiled snapshot.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) snapshot: Arc<HostSnapshot>,
    pub(super) places: Vec<Option<PlaceIs>>,
    pub(super) networks: Vec<NetworkPlan>,
    pub(super) routers: Vec<RouterPlan>,
    pub(super) floating: Vec<FloatingPlan>,
    pub(super) forwarded: Vec<ForwardedPlan>,
    /// Floating IPs by router, port and fixed address.
    pub(super) floating_by_fixed: FastMap<(At, Place, Ipv4Addr), At>,
    pub(super) members: Members,
    /// Addresses with limits, by the numbers of their accounts.
    pub(super) addresses: Vec<AddressQos>,
    pub(super) tunnels: Vec<Tunnel>,
    /// Networks of physical networks, by wire and tag.
    pub(super) wires: FastMap<(At, u16), Place>,
    /// Tunnels, from the wire's side.
    pub(super) underlay: Tunnels,
}

impl Plan {
    /// Compiles a valid snapshot.
    pub(super) fn new(snapshot: &Arc<HostSnapshot>, places: &Places, seed: Seed) -> Self {
        let mut numbers = Numbers {
            networks: FastMap::with_hasher(seed),
            routers: FastMap::with_hasher(seed),
            ports: FastMap::with_hasher(seed),
            hosts: FastMap::with_hasher(seed),
            accounts: FastMap::with_hasher(seed),
            roles: Roles::new(snapshot),
        };
        let addresses = AddressQos::all(snapshot);
        let keys = addresses.iter().map(|address| address.of);
        numbers.accounts.extend(keys.zip(Account::all()));
        numbers
            .hosts
            .extend(snapshot.tunnel_hosts.keys().cloned().zip(0..));
        numbers
            .networks
            .extend(snapshot.networks.keys().copied().zip(0..));
        numbers
            .routers
            .extend(snapshot.routers.keys().copied().zip(0..));
        let port_place = |id: &PortId| Some((*id, places.of(Ingress::Port(*id))?));
        numbers
            .ports
            .extend(snapshot.ports.keys().filter_map(port_place));
        let members = Members::new(snapshot, seed);
        let floating = floating_ip::plans(snapshot, &numbers);
        let mut by_fixed = FastMap::with_hasher(seed);
        for (at, f) in floating.iter().enumerate() {
            if let (Some(router), Some(port)) = (f.router, f.port) {
                by_fixed.entry((router, port, f.fixed)).or_insert(at);
            }
        }
        let mut plan = Self {
            snapshot: Arc::clone(snapshot),
            places: Vec::new(),
            networks: network_plans(snapshot, places, seed),
            routers: router_plans(snapshot, &numbers, seed),
            floating,
            forwarded: floating_ip::forwarded_plans(snapshot, &numbers),
            floating_by_fixed: by_fixed,
            members,
            addresses,
            tunnels: Vec::new(),
            wires: FastMap::with_hasher(seed),
            underlay: Tunnels::new(snapshot, places, seed),
        };
        for network in &plan.networks {
            if let Some(wire) = network.wire {
                let key = (wire, network.vlan_id);
                plan.wires.entry(key).or_insert(network.place);
            }
        }
        plan.share(snapshot, &numbers);
        plan.places = place_plans(&plan, &numbers, places, seed);
        owners::fill(&mut plan, &numbers, seed);
        local_ip::fill(&mut plan, &numbers);
        plan.underlay.fill(&plan.tunnels);
        plan
    }

    /// Fills in how hosts share networks.
    fn share(&mut self, snapshot: &HostSnapshot, numbers: &Numbers) {
        for (id, network) in &snapshot.networks {
            let (Some(transit), Some(at)) = (network.transit, numbers.networks.get(id)) else {
                continue;
            };
            let tunnels = snapshot.tunnel_hosts.keys().map(|host| {
                let tunnel = tunnel::transit_to_host(snapshot, *id, host)?;
                self.tunnels.push(tunnel);
                Some(self.tunnels.len() - 1)
            });
            let shared = Shared {
                mtu: transit.mtu,
                uplink: transit.uplink,
                tunnels: tunnels.collect(),
            };
            if let Some(plan) = self.networks.get_mut(*at) {
                plan.shared = Some(shared);
            }
        }
    }

    pub(super) fn port(&self, place: Place) -> Option<&PortPlan> {
        match self.places.get(place.at())? {
            Some(PlaceIs::Port(port)) => Some(port),
            _ => None,
        }
    }

    /// The port at a place (none for an uplink) and its network.
    pub(super) fn sight(&self, place: Place) -> Option<(Option<&PortPlan>, &NetworkPlan)> {
        match self.places.get(place.at())?.as_ref()? {
            PlaceIs::Port(port) => Some((Some(port), self.networks.get(port.network)?)),
            PlaceIs::Network(network) => Some((None, self.networks.get(*network)?)),
        }
    }
}

fn network_plans(snapshot: &HostSnapshot, places: &Places, seed: Seed) -> Vec<NetworkPlan> {
    let wires: BTreeSet<&String> = (snapshot.networks.values())
        .filter_map(|network| network.segment.physical_network.as_ref())
        .collect();
    let wire = |network: &weft_model::Network| {
        let name = network.segment.physical_network.as_ref()?;
        wires.iter().position(|wire| *wire == name)
    };
    let plan = |(id, network): (&NetworkId, &weft_model::Network)| NetworkPlan {
        id: *id,
        place: places.of(Ingress::Network(*id)).unwrap_or_default(),
        physical: network.segment.network_type.is_physical(),
        wire: wire(network).filter(|_| network.segment.network_type.is_physical()),
        vlan_id: vlan::id_of(snapshot, *id).unwrap_or_default(),
        mtu: network.mtu,
        macs: FastMap::with_hasher(seed),
        addresses: FastMap::with_hasher(seed),
        local_ips: FastMap::with_hasher(seed),
        announces: announces(snapshot, *id),
        shared: None,
        scopes: [false, true].map(|v6| snapshot.address_scope(*id, v6)),
        ports: Vec::new(),
        hosts: BTreeMap::new(),
    };
    snapshot.networks.iter().map(plan).collect()
}

fn announces(snapshot: &HostSnapshot, network_id: NetworkId) -> bool {
    let mut subnets = snapshot
        .subnets_of(network_id)
        .filter(|(_, subnet)| subnet.cidr.addr().is_ipv6() && subnet.ipv6_ra_mode.is_some());
    subnets.any(|(id, _)| {
        let up = snapshot.routers.values().filter(|r| r.admin_state_up);
        let mut interfaces = up.flat_map(|r| &r.interfaces);
        interfaces
            .any(|i| i.network_id == network_id && i.addresses.iter().any(|a| a.subnet_id == *id))
    })
}

fn place_plans(
    plan: &Plan,
    numbers: &Numbers,
    places: &Places,
    seed: Seed,
) -> Vec<Option<PlaceIs>> {
    let snapshot = &plan.snapshot;
    let mut made: Vec<Option<PlaceIs>> = (0..places.len()).map(|_| None).collect();
    let mut policies = PolicyMaker::new(snapshot, &plan.members, seed);
    for (at, network) in plan.networks.iter().enumerate() {
        if let Some(place) = made.get_mut(network.place.at()) {
            *place = Some(PlaceIs::Network(at));
        }
    }
    for (id, port) in &snapshot.ports {
        let place = numbers
            .ports
            .get(id)
            .and_then(|place| made.get_mut(place.at()));
        let network = numbers.networks.get(&port.network_id);
        if let (Some(place), Some(network)) = (place, network) {
            let qos = PortQos::new(snapshot, port);
            let made = port_plan(snapshot, (*id, port), *network, qos, &mut policies);
            let role = numbers.roles.of(port.pvlan.as_ref());
            *place = Some(PlaceIs::Port(PortPlan { role, ..made }));
        }
    }
    made
}

fn port_plan(
    snapshot: &HostSnapshot,
    (id, port): (PortId, &Port),
    network: At,
    qos: PortQos,
    policies: &mut PolicyMaker<'_>,
) -> PortPlan {
    let own = |of: fn(IpAddr) -> Option<u128>| {
        let fixed = port.fixed_ips.iter().map(|f| f.ip_address);
        fixed.filter_map(of).collect::<Vec<u128>>()
    };
    let own4 = own(|address| match address {
        IpAddr::V4(a) => Some(u128::from(u32::from(a))),
        IpAddr::V6(_) => None,
    });
    let mut own6 = own(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(a) => Some(u128::from(a)),
    });
    own6.push(u128::from(eui64_link_local(port.mac_address)));
    PortPlan {
        id,
        up: topology::is_up(snapshot, port),
        secured: port.port_security_enabled,
        stateless: snapshot.is_stateless(port),
        role: Role::default(),
        served: matches!(port.interface, PortInterface::VhostUser { .. }),
        tagged: matches!(port.interface, PortInterface::Subport { .. }),
        network,
        mac: port.mac_address.0,
        own4: own4
            .into_iter()
            .filter_map(|a| u32::try_from(a).ok())
            .collect(),
        own6,
        policies: policies.of(&port.security_groups),
        qos,
        logged: Logged::new(snapshot, port),
    }
}

fn router_plans(snapshot: &HostSnapshot, numbers: &Numbers, seed: Seed) -> Vec<RouterPlan> {
    let plan = |router: &Router| {
        let network = |id: &NetworkId| numbers.networks.get(id).copied();
        let legs = router.interfaces.iter().map(|i| Leg {
            mac: i.mac_address,
            network: network(&i.network_id).unwrap_or(At::MAX),
        });
        let gateway = router.gateway.as_ref().map(|g| GatewayPlan {
            mac: g.mac_address,
            network: network(&g.network_id).unwrap_or(At::MAX),
            enable_snat: g.enable_snat,
            snat: topology::snat_address(router),
            ports: SnatPorts::of(g),
            account: topology::snat_address(router).map_or(Account::NONE, |address| {
                numbers.account(g.network_id, address)
            }),
            elsewhere: transit::elsewhere(g, numbers),
            host: g.gateway_host.as_ref().map(|host| numbers.host(host)),
        });
        let gateway_addresses: Vec<IpAddr> = (router.gateway.iter())
            .flat_map(|g| &g.addresses)
            .map(|a| a.ip_address)
            .collect();
        let mut own = FastMap::with_hasher(seed);
        let inside = router.interfaces.iter().flat_map(|i| &i.addresses);
        own.extend(inside.map(|a| (a.ip_address, ())));
        own.extend(gateway_addresses.iter().map(|a| (*a, ())));
        RouterPlan {
            up: router.admin_state_up,
            legs: legs.collect(),
            gateway,
            own,
            gateway_addresses,
            ndp_proxies: router.ndp_proxies.clone(),
            routes: routes(snapshot, router, true),
            routes_inside: routes(snapshot, router, false),
        }
    };
    snapshot.routers.values().map(plan).collect()
}

/// A router's routes, the longest prefix first; equal ones as docs/pipeline.md names them.
fn routes(snapshot: &HostSnapshot, router: &Router, all: bool) -> Vec<(IpNet, Target)> {
    let subnet = |id| snapshot.subnets.get(id);
    let mut routes: Vec<(IpNet, Target)> = Vec::new();
    for (at, interface) in router.interfaces.iter().enumerate() {
        for subnet in interface
            .addresses
            .iter()
            .filter_map(|a| subnet(&a.subnet_id))
        {
            routes.push((subnet.cidr, Target::Inside(at, None)));
        }
    }
    let connected = routes.clone();
    let outside: Vec<_> = (router.gateway.iter())
        .flat_map(|g| &g.addresses)
        .filter_map(|a| subnet(&a.subnet_id))
        .collect();
    if all {
        routes.extend(outside.iter().map(|s| (s.cidr, Target::Outside(None))));
    }
    for route in &router.routes {
        let hop = Some(route.nexthop);
        let inside = connected
            .iter()
            .find(|(net, _)| net.contains(&route.nexthop));
        let reachable = outside.iter().any(|s| s.cidr.contains(&route.nexthop));
        let target = match inside {
            Some((_, Target::Inside(at, _))) => Target::Inside(*at, hop),
            _ if !all => continue,
            _ if reachable => Target::Outside(hop),
            _ => Target::Unreachable,
        };
        routes.push((route.destination, target));
    }
    for (v6, everything) in [
        (false, IpNet::from(ipnet::Ipv4Net::default())),
        (true, IpNet::from(ipnet::Ipv6Net::default())),
    ] {
        let of_family = outside.iter().filter(|s| s.cidr.addr().is_ipv6() == v6);
        if let Some(hop) = of_family
            .filter_map(|s| s.gateway_ip)
            .next()
            .filter(|_| all)
        {
            routes.push((everything, Target::Outside(Some(hop))));
        }
    }
    routes.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
    routes
}
