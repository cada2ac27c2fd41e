//! From a snapshot to what the configuration maps shall hold: pure, no system call.
//!
//! Guarantees: every precedence that docs/pipeline.md states (who owns an address, which of equally long routes counts,
//! the smallest id where several resources fit) is decided here, so that the programs look up one entry. What the engine
//! does not do is listed as unsupported. It relies on `HostSnapshot::validate`.

mod address;
mod delta;
mod floating_ip;
mod local_ip;
mod member;
mod meter;
mod network;
mod only;
mod port;
mod pvlan;
mod qos;
mod router;
mod slots;
mod tunnel;
mod wire;

pub(crate) use address::{address_ip, address_key};
pub(crate) use delta::{Contents, Difference, TABLES, Tables};
use meter::Metering;
pub(crate) use only::Only;
pub(crate) use slots::Slots;

use crate::error::EngineError;
use crate::policy::PolicyKey;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use weft_ebpf_common::constants::slot;
use weft_model::{
    AddressScopeId, HostSnapshot, Network, NetworkId, PortId, RouterId, Unsupported, limits,
};

/// Slots that were another's before.
pub(crate) struct Reused {
    pub(crate) ports: Vec<u32>,
    pub(crate) accounts: Vec<u32>,
}

/// The slots of everything.
#[derive(Clone, Debug)]
pub(crate) struct SlotTables {
    pub(crate) ports: Slots<PortId>,
    pub(crate) networks: Slots<NetworkId>,
    pub(crate) routers: Slots<RouterId>,
    pub(crate) uplinks: Slots<NetworkId>,
    pub(crate) scopes: Slots<AddressScopeId>,
    /// Meters, by what their sets of labels are known as.
    pub(crate) meters: Slots<u128>,
    pub(crate) metering: Metering,
    /// Physical networks' numbers, by name.
    pub(crate) wires: BTreeMap<String, u32>,
    /// Other hosts, by their addresses.
    pub(crate) hosts: Slots<IpAddr>,
    /// Communities of private VLANs, by name.
    pub(crate) communities: BTreeMap<String, u32>,
    /// Addresses with a QoS policy.
    pub(crate) accounts: Slots<(NetworkId, Ipv4Addr)>,
    /// The network in each tunnel, by the tunnel's slot.
    pub(crate) tunnels: BTreeMap<u32, NetworkId>,
}

impl SlotTables {
    pub(crate) fn new(ports_max: u32) -> Self {
        let limit = |max: usize| u32::try_from(max).unwrap_or(u32::MAX);
        Self {
            ports: Slots::new("ports", 0, ports_max),
            networks: Slots::new("networks", 1, limit(limits::NETWORKS_PER_HOST_MAX)),
            routers: Slots::new("routers", 0, limit(limits::ROUTERS_PER_HOST_MAX)),
            scopes: Slots::new(
                "address scopes",
                1,
                2 * limit(limits::NETWORKS_PER_HOST_MAX),
            ),
            meters: Slots::new("meters", 1, limit(limits::METERS_MAX) - 1),
            metering: Metering::default(),
            uplinks: Slots::new("physical networks", 0, slot::UNDERLAY),
            wires: BTreeMap::new(),
            hosts: Slots::new("tunnel hosts", 1, slot::TUNNELS_MAX - 1),
            communities: BTreeMap::new(),
            accounts: Slots::new(
                "addresses with a QoS policy",
                1,
                limit(limits::QOS_ADDRESSES_MAX),
            ),
            tunnels: BTreeMap::new(),
        }
    }

    /// Gives everything in the snapshot its slot; says which slots were another's before.
    pub(crate) fn assign(&mut self, snapshot: &HostSnapshot) -> Result<Reused, EngineError> {
        self.networks.assign(snapshot.networks.keys().copied())?;
        self.routers.assign(snapshot.routers.keys().copied())?;
        let scopes = snapshot.subnets.values().filter_map(|s| s.address_scope_id);
        self.scopes.assign(scopes)?;
        self.metering = Metering::new(snapshot);
        self.meters.assign(self.metering.sets.keys().copied())?;
        let physical = snapshot
            .networks
            .iter()
            .filter(|(_, n)| n.segment.network_type.is_physical());
        self.uplinks.assign(physical.map(|(id, _)| *id))?;
        self.wires = wire::numbers(snapshot);
        self.hosts.assign(tunnel::hosts(snapshot))?;
        self.tunnels = tunnel::networks(snapshot, &self.networks);
        self.communities = pvlan::communities(snapshot, &self.communities);
        let accounts = self.accounts.assign(snapshot.qos_addresses().into_keys())?;
        let ports = self.ports.assign(snapshot.ports.keys().copied())?;
        Ok(Reused { ports, accounts })
    }
}

/// What the compile reads.
pub(crate) struct Input<'a> {
    pub(crate) snapshot: &'a HostSnapshot,
    pub(crate) slots: &'a SlotTables,
}

impl Input<'_> {
    fn network(&self, id: NetworkId) -> u32 {
        self.slots.networks.get(id).unwrap_or(0)
    }

    fn router(&self, id: RouterId) -> u32 {
        self.slots.routers.get(id).unwrap_or(slot::NONE)
    }

    /// A network's number as an ingress or output by tunnel.
    fn tunnel(&self, id: NetworkId, network: &Network) -> u32 {
        let number = self.network(id);
        tunnel::slot_of(network, number).unwrap_or(slot::TUNNEL | slot::TUNNEL_NONE | number)
    }

    /// The slot of the limits of an address, or 0.
    fn account(&self, network: NetworkId, address: Ipv4Addr) -> u32 {
        self.slots.accounts.get((network, address)).unwrap_or(0)
    }

    fn port(&self, id: PortId) -> u32 {
        self.slots.ports.get(id).unwrap_or(slot::NONE)
    }
}

/// All that the configuration maps shall hold; of what `only` is about, nothing but its entries. `policy` says the slot of each
/// policy.
pub(crate) fn compile(
    input: &Input<'_>,
    policy: &dyn Fn(&PolicyKey) -> Option<u32>,
    only: Option<&Only>,
) -> Tables {
    let mut tables = Tables::default();
    let members = member::members(input, &mut tables);
    network::networks(input, &members, &mut tables);
    wire::wires(input, &mut tables);
    tables.fdb = network::fdb(input, only);
    tables.owners = network::owners(input, only);
    tunnel::tunnels(input, &mut tables);
    port::ports(input, policy, &mut tables);
    qos::qos(input, &mut tables);
    meter::meters(input, &mut tables);
    qos::accounts(input, &mut tables);
    router::routers(input, &mut tables);
    router::snat_blocks(input, &mut tables);
    floating_ip::floating_ips(input, &mut tables);
    local_ip::local_ips(input, &mut tables);
    tables
}

/// What holds in place of what the engine does not do.
pub(crate) fn unsupported(snapshot: &HostSnapshot, slots: &SlotTables) -> Vec<Unsupported> {
    let mut list = Vec::new();
    let mut add = |path: String, message: &str| {
        if list.len() < limits::UNSUPPORTED_MAX {
            list.push(Unsupported {
                path,
                message: message.to_owned(),
            });
        }
    };
    unsupported_remote_ports(snapshot, &mut add);
    unsupported_of_routers(snapshot, &mut add);
    for id in &slots.metering.left_out {
        add(
            format!("routers.{id}.metering_labels"),
            "more ranges in their rules than can be told apart: some of its traffic is not counted",
        );
    }
    list
}

fn unsupported_of_routers(snapshot: &HostSnapshot, add: &mut impl FnMut(String, &str)) {
    for (id, router) in &snapshot.routers {
        if !router.conntrack_helpers.is_empty() {
            add(
                format!("routers.{id}.conntrack_helpers"),
                "announced connections are not followed: no conntrack helpers (docs/adr/0014)",
            );
        }
    }
}

/// Ports of other hosts that no tunnel leads to.
fn unsupported_remote_ports(snapshot: &HostSnapshot, add: &mut impl FnMut(String, &str)) {
    for (id, port) in &snapshot.remote_ports {
        if tunnel::host(snapshot, port.network_id, &port.host).is_none() {
            add(
                format!("remote_ports.{id}"),
                "packets to it are dropped: no tunnel leads to its host",
            );
        }
    }
}
