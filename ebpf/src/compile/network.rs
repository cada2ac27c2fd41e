//! Networks: what they are, whose a MAC address is on them, and whose an address.

use super::address::address_key;
use super::floating_ip::answers_outside;
use super::{Contents, Input, Only, Tables, delta::put, local_ip, pvlan, tunnel};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use weft_ebpf_common::constants::{fdb as kind, network as flag, owner, role, slot};
use weft_ebpf_common::layout::{FdbEntry, FdbKey, NetworkRecord, OwnerEntry};
use weft_model::{
    FloatingIp, HostSnapshot, MacAddress, NetworkId, Port, PortId, RemotePort, eui64_link_local,
};
use zerocopy::IntoBytes;

/// `members`: how many there are on each.
pub(super) fn networks(input: &Input<'_>, members: &BTreeMap<NetworkId, u32>, tables: &mut Tables) {
    let local = local_ip::networks(input.snapshot);
    for (id, network) in &input.snapshot.networks {
        let physical = network.segment.network_type.is_physical();
        let announced = announces_prefix(input.snapshot, *id);
        let uplink = input.slots.uplinks.get(*id);
        let elsewhere = network.transit.is_some_and(|transit| !transit.uplink);
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let record = NetworkRecord {
            flags: bit(physical, flag::PHYSICAL)
                | bit(announced, flag::RA)
                | bit(network.transit.is_some(), flag::SHARED)
                | bit(elsewhere, flag::ELSEWHERE)
                | bit(local.contains(id), flag::LOCAL_IPS)
                | bit(network.vlan_transparent, flag::TRANSPARENT),
            mtu: network.mtu,
            uplink: uplink.map_or(slot::NONE, |u| u | slot::UPLINK),
            tunnel: input.tunnel(*id, network),
            transit: tunnel::transit_slot_of(network).unwrap_or(0),
            transit_mtu: network.transit.map_or(0, |transit| transit.mtu),
            members: members.get(id).copied().unwrap_or_default(),
            gre_key: tunnel::gre_key(network).unwrap_or_default(),
            scopes: [false, true].map(|v6| {
                let scope = input.snapshot.address_scope(*id, v6);
                let slot = scope.and_then(|scope| input.slots.scopes.get(scope));
                slot.unwrap_or(0)
            }),
            id: *id.0.as_bytes(),
        };
        put(&mut tables.networks, &input.network(*id), &record);
    }
}

fn announces_prefix(snapshot: &HostSnapshot, network: NetworkId) -> bool {
    let interfaces = snapshot
        .routers
        .values()
        .filter(|r| r.admin_state_up)
        .flat_map(|r| &r.interfaces);
    let mut addresses = interfaces
        .filter(|i| i.network_id == network)
        .flat_map(|i| &i.addresses);
    addresses.any(|a| {
        let subnet = snapshot.subnets.get(&a.subnet_id);
        subnet.is_some_and(|s| s.cidr.addr().is_ipv6() && s.ipv6_ra_mode.is_some())
    })
}

/// Floating IPs, in order.
pub(super) fn floating_ips(snapshot: &HostSnapshot) -> impl Iterator<Item = &FloatingIp> {
    snapshot.floating_ips.values()
}

/// The ports, of these networks if not all entries are wanted.
fn of_networks<P>(
    ports: impl Iterator<Item = P>,
    network: impl Fn(&P) -> NetworkId,
    only: Option<&Only>,
) -> impl Iterator<Item = P> {
    ports.filter(move |port| only.is_none_or(|only| only.has_network(network(port))))
}

pub(super) fn fdb_key(network: u32, mac: MacAddress) -> FdbKey {
    FdbKey {
        network,
        mac: mac.0,
        reserved: 0,
    }
}

/// Entries by network and MAC address, while they are put together.
struct Fdb<'a> {
    entries: BTreeMap<(u32, MacAddress), FdbEntry>,
    only: Option<&'a Only>,
}

fn fdb_entry(
    fdb: &mut Fdb<'_>,
    network: u32,
    mac: MacAddress,
    bit: u32,
    fill: impl FnOnce(&mut FdbEntry),
) {
    let place = (network, mac);
    if fdb.only.is_some_and(|only| !only.has_mac(place)) {
        return;
    }
    let entry = fdb.entries.entry(place).or_insert_with(|| FdbEntry {
        flags: 0,
        port: slot::NONE,
        router: slot::NONE,
        router_outside: slot::NONE,
        host: slot::NONE,
        role: role::PROMISCUOUS,
    });
    if entry.flags & bit == 0 {
        entry.flags |= bit;
        fill(entry);
    }
}

pub(super) fn fdb(input: &Input<'_>, only: Option<&Only>) -> Contents {
    let entries = BTreeMap::new();
    let mut fdb = Fdb { entries, only };
    let snapshot = input.snapshot;
    for (id, router) in &snapshot.routers {
        let slot = input.router(*id);
        for i in &router.interfaces {
            let network = input.network(i.network_id);
            fdb_entry(&mut fdb, network, i.mac_address, kind::INTERFACE, |e| {
                e.router = slot
            });
        }
        if let Some(g) = &router.gateway {
            let network = input.network(g.network_id);
            fdb_entry(&mut fdb, network, g.mac_address, kind::OUTSIDE, |e| {
                e.router_outside = slot
            });
        }
    }
    for f in floating_ips(snapshot) {
        let (network, router) = (
            input.network(f.floating_network_id),
            input.router(f.router_id),
        );
        fdb_entry(&mut fdb, network, f.mac_address, kind::OUTSIDE, |e| {
            e.router_outside = router
        });
    }
    for f in snapshot.remote_floating_ips.values() {
        let network = input.network(f.floating_network_id);
        let router = input.router(f.router_id);
        fdb_entry(&mut fdb, network, f.mac_address, kind::OUTSIDE, |e| {
            e.router_outside = router
        });
    }
    for f in snapshot.forwarded_ips.values() {
        let network = input.network(f.floating_network_id);
        let router = input.router(f.router_id);
        fdb_entry(&mut fdb, network, f.mac_address, kind::OUTSIDE, |e| {
            e.router_outside = router
        });
    }
    for (id, port) in of_networks(snapshot.ports.iter(), |(_, port)| port.network_id, only) {
        let slot = input.port(*id);
        let network = input.network(port.network_id);
        fdb_entry(&mut fdb, network, port.mac_address, kind::LOCAL, |e| {
            e.port = slot
        });
    }
    for port in of_networks(snapshot.remote_ports.values(), |port| port.network_id, only) {
        fdb_entry(
            &mut fdb,
            input.network(port.network_id),
            port.mac_address,
            kind::REMOTE,
            |e| {
                e.host = tunnel::host_slot(input, port.network_id, &port.host);
                e.role = pvlan::number(input, port.pvlan.as_ref());
            },
        );
    }
    let entries = fdb.entries.into_iter().map(|((network, mac), entry)| {
        let key = fdb_key(network, mac);
        (key.as_bytes().to_vec(), entry.as_bytes().to_vec())
    });
    // All at once: there are many.
    entries.collect()
}

/// Owners by network and address, while they are put together.
struct Owners<'a> {
    entries: BTreeMap<(u32, IpAddr), OwnerEntry>,
    only: Option<&'a Only>,
}

impl Owners<'_> {
    /// Changes an entry, if it is wanted.
    fn with(&mut self, network: u32, address: IpAddr, change: impl FnOnce(&mut OwnerEntry)) {
        let place = (network, address);
        let only = self.only;
        if only.is_none_or(|only| only.has_address(place)) {
            change(self.entries.entry(place).or_insert_with(OwnerEntry::zero));
        }
    }

    /// Who answers ARP and ND: the first one that is put.
    fn answer(&mut self, network: u32, address: IpAddr, mac: MacAddress, flags: u16) {
        self.with(network, address, |entry| {
            if entry.flags & (owner::ANSWER | owner::ANSWER_GUEST) == 0 {
                entry.flags |= flags;
                entry.mac = mac.0;
            }
        });
    }

    /// A guest here that has the address, if it is the first.
    fn local(&mut self, network: u32, address: IpAddr, (port, mac): (u32, MacAddress), not: u16) {
        self.with(network, address, |entry| {
            if entry.flags & not == 0 {
                entry.flags |= owner::LOCAL;
                entry.port = port;
                entry.port_mac = mac.0;
            }
        });
    }
}

/// In the order of docs/pipeline.md, "owner"; within one kind by id.
pub(super) fn owners(input: &Input<'_>, only: Option<&Only>) -> Contents {
    let entries = BTreeMap::new();
    let mut owners = Owners { entries, only };
    router_owners(input, &mut owners);
    proxied_owners(input, &mut owners);
    for f in floating_ips(input.snapshot) {
        let (network, address) = (
            input.network(f.floating_network_id),
            f.floating_ip_address.into(),
        );
        owners.answer(network, address, f.mac_address, owner::ANSWER);
        owners.with(network, address, |entry| entry.flags |= owner::ROGUE);
    }
    for f in input.snapshot.remote_floating_ips.values() {
        let network = input.network(f.floating_network_id);
        let address = f.floating_ip_address.into();
        owners.answer(network, address, f.mac_address, owner::ANSWER);
        owners.with(network, address, |entry| entry.flags |= owner::ROGUE);
    }
    for f in input.snapshot.forwarded_ips.values() {
        let network = input.network(f.floating_network_id);
        let address = f.floating_ip_address.into();
        let flags = answer(answers_outside(input, f.router_id));
        owners.answer(network, address, f.mac_address, flags);
        owners.with(network, address, |entry| entry.flags |= owner::ROGUE);
    }
    port_owners(input, &mut owners);
    let entries = owners.entries.into_iter();
    let entries = entries.map(|((network, address), entry)| {
        let key = address_key(network, address);
        (key.as_bytes().to_vec(), entry.as_bytes().to_vec())
    });
    // All at once: there are many.
    entries.collect()
}

/// Whether this host answers on the uplink too.
fn answer(outside: bool) -> u16 {
    if outside {
        owner::ANSWER
    } else {
        owner::ANSWER_GUEST
    }
}

fn router_owners(input: &Input<'_>, owners: &mut Owners<'_>) {
    let flags = owner::ANSWER | owner::ROUTER;
    let routers = || input.snapshot.routers.values();
    for i in routers()
        .filter(|r| r.admin_state_up)
        .flat_map(|r| &r.interfaces)
    {
        let network = input.network(i.network_id);
        for a in &i.addresses {
            owners.answer(network, a.ip_address, i.mac_address, flags);
        }
        owners.answer(
            network,
            eui64_link_local(i.mac_address).into(),
            i.mac_address,
            flags,
        );
    }
    for router in routers() {
        let Some(g) = &router.gateway else { continue };
        let network = input.network(g.network_id);
        let flags = answer(g.gateway_host.is_none()) | owner::ROUTER;
        for a in &g.addresses {
            if router.admin_state_up {
                owners.answer(network, a.ip_address, g.mac_address, flags);
            }
            owners.with(network, a.ip_address, |entry| {
                entry.flags |= owner::GATEWAY;
                if !g.is_shared() {
                    entry.flags |= owner::ROGUE;
                }
            });
        }
        if router.admin_state_up {
            owners.answer(
                network,
                eui64_link_local(g.mac_address).into(),
                g.mac_address,
                flags,
            );
        }
    }
}

/// Addresses behind a router that its gateway answers for outside.
fn proxied_owners(input: &Input<'_>, owners: &mut Owners<'_>) {
    let up = input.snapshot.routers.values().filter(|r| r.admin_state_up);
    for (addresses, g) in up.filter_map(|r| Some((r.ndp_proxies.as_ref()?, r.gateway.as_ref()?))) {
        let network = input.network(g.network_id);
        let flags = owner::ROUTER | answer(g.gateway_host.is_none());
        for address in addresses {
            owners.answer(network, (*address).into(), g.mac_address, flags);
        }
    }
}

fn port_owners(input: &Input<'_>, owners: &mut Owners<'_>) {
    for (id, port) in ports_here(input, owners.only) {
        let network = input.network(port.network_id);
        let mac = port.mac_address;
        for ip in &port.fixed_ips {
            owners.answer(network, ip.ip_address, mac, owner::ANSWER);
            let who = (input.port(*id), mac);
            owners.local(network, ip.ip_address, who, owner::LOCAL);
        }
        owners.answer(network, eui64_link_local(mac).into(), mac, owner::ANSWER);
    }
    for port in ports_elsewhere(input, owners.only) {
        let network = input.network(port.network_id);
        let mac = port.mac_address;
        for ip in &port.fixed_ips {
            remote_owner(input, owners, port, ip.ip_address);
        }
        owners.answer(
            network,
            eui64_link_local(mac).into(),
            mac,
            owner::ANSWER_GUEST,
        );
    }
    claims(input, owners);
}

/// Claims come after all fixed IPs, here before elsewhere.
fn claims(input: &Input<'_>, owners: &mut Owners<'_>) {
    for (id, port) in ports_here(input, owners.only) {
        let network = input.network(port.network_id);
        let mac = port.mac_address;
        for address in &port.claimed_ips {
            owners.answer(network, *address, mac, owner::ANSWER);
            let who = (input.port(*id), mac);
            owners.local(network, *address, who, owner::LOCAL | owner::REMOTE);
        }
    }
    for port in ports_elsewhere(input, owners.only) {
        for address in &port.claimed_ips {
            remote_owner(input, owners, port, *address);
        }
    }
}

/// An address of a port elsewhere.
fn remote_owner(input: &Input<'_>, owners: &mut Owners<'_>, port: &RemotePort, address: IpAddr) {
    let network = input.network(port.network_id);
    owners.answer(network, address, port.mac_address, owner::ANSWER_GUEST);
    owners.with(network, address, |entry| {
        if entry.flags & (owner::LOCAL | owner::REMOTE) == 0 {
            entry.port = tunnel::host_slot(input, port.network_id, &port.host);
            entry.port_mac = port.mac_address.0;
            let host = tunnel::any_host_slot(input, &port.host);
            entry.host = u16::try_from(host).unwrap_or(0);
            entry.role = pvlan::number(input, port.pvlan.as_ref());
        }
        entry.flags |= owner::REMOTE;
    });
}

fn ports_here<'a>(
    input: &Input<'a>,
    only: Option<&'a Only>,
) -> impl Iterator<Item = (&'a PortId, &'a Port)> {
    of_networks(
        input.snapshot.ports.iter(),
        |(_, port)| port.network_id,
        only,
    )
}

fn ports_elsewhere<'a>(
    input: &Input<'a>,
    only: Option<&'a Only>,
) -> impl Iterator<Item = &'a Arc<RemotePort>> {
    of_networks(
        input.snapshot.remote_ports.values(),
        |port| port.network_id,
        only,
    )
}
