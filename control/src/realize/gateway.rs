//! Who answers outside, who is down, and whose ports are whose: what hosts share of external networks.
//!
//! Guarantees: elections and the set of hosts that are down are functions of the rows, the same on every server. A host's
//! loss moves the routers that it answered for, and no others. Blocks never overlap.

use super::index::{By, of};
use super::mark::Marks;
use super::rows::Rows;
use super::trial::Key;
use crate::store::gateway::{
    SnatPortBlockRow, TransitRow, snat_port_block_delete, snat_port_block_insert,
    snat_port_block_list,
};
use crate::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use weft_model::{HostName, NetworkId, PortBlock, RouterId, Transit};

/// IPv4's least MTU.
pub(super) const MTU_MIN: u32 = 68;

/// What is known of a host as a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GatewayHost {
    pub(super) physical_networks: BTreeSet<String>,
    /// The hosts that do not reach it.
    pub(super) unreachable_by: BTreeSet<HostName>,
}

/// A network's transit, but for what holds for one host alone.
pub(super) fn transit(row: &TransitRow) -> Option<Transit> {
    Some(Transit {
        vni: u32::try_from(row.vni).ok()?,
        mtu: u32::try_from(row.mtu).ok().filter(|mtu| *mtu >= MTU_MIN)?,
        uplink: false,
    })
}

/// The hosts' ports of a gateway's address.
pub(super) type Blocks = BTreeMap<HostName, PortBlock>;

/// Reads them.
pub(super) fn blocks(rows: &[SnatPortBlockRow]) -> Blocks {
    let block = |row: &SnatPortBlockRow| {
        let first = u16::try_from(row.first_port).ok()?;
        let last = u16::try_from(row.last_port).ok()?;
        Some((row.host.parse().ok()?, PortBlock { first, last }))
    };
    rows.iter().filter_map(block).collect()
}

/// Hosts that look after each host: the next ones on a ring of hosts in the order of their names' hashes.
pub(super) const PROBERS: usize = 3;

/// A number made of some bytes (FNV-1a, then mixed so that similar ones are far apart).
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0]) {
            h = (h ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// A host's place on the ring.
pub(super) fn ring_place(host: &HostName) -> (u64, HostName) {
    (hash([host.as_str().as_bytes()]), host.clone())
}

/// Who looks after a host.
pub(super) fn probers<'a>(
    ring: &'a BTreeSet<(u64, HostName)>,
    host: &HostName,
) -> impl Iterator<Item = &'a HostName> + use<'a> {
    let at = ring_place(host);
    let behind = ring.range((Bound::Excluded(at.clone()), Bound::Unbounded));
    let all = behind.chain(ring.range(..at));
    all.take(PROBERS).map(|(_, host)| host)
}

/// Whom a host looks after.
pub(super) fn probed<'a>(
    ring: &'a BTreeSet<(u64, HostName)>,
    by: &HostName,
) -> impl Iterator<Item = &'a HostName> + use<'a> {
    let at = ring_place(by);
    let behind = (Bound::Excluded(at.clone()), Bound::Unbounded);
    let all = ring.range(..at).rev().chain(ring.range(behind).rev());
    all.take(PROBERS).map(|(_, host)| host)
}

/// The hosts that are down: more than half of those that look after one, and are not down themselves, do not reach it.
pub(super) fn down(
    ring: &BTreeSet<(u64, HostName)>,
    hosts: &BTreeMap<HostName, GatewayHost>,
) -> BTreeSet<HostName> {
    let mut down: BTreeSet<HostName> = BTreeSet::new();
    let said = || {
        hosts
            .iter()
            .filter(|(_, known)| !known.unreachable_by.is_empty())
    };
    loop {
        let more: Vec<&HostName> = said()
            .filter(|(host, known)| {
                let voters = probers(ring, host).filter(|by| !down.contains(*by));
                let votes: Vec<bool> = voters.map(|by| known.unreachable_by.contains(by)).collect();
                let against = votes.iter().filter(|vote| **vote).count();
                !down.contains(*host) && 2 * against > votes.len()
            })
            .map(|(host, _)| host)
            .collect();
        if more.is_empty() {
            return down;
        }
        let more: Vec<HostName> = more.into_iter().cloned().collect();
        down.extend(more);
    }
}

/// The host among some that has the highest number together with the router.
pub(super) fn elected<'a>(
    router: RouterId,
    candidates: impl Iterator<Item = &'a HostName>,
) -> Option<&'a HostName> {
    let id = router.0.into_bytes();
    candidates.max_by_key(|host| hash([&id[..], host.as_str().as_bytes()]))
}

/// Ports of blocks by size: from, to, size of each.
static CLASSES: [(i64, i64, i64); 3] = [
    (32_768, 65_536, 8_192),
    (16_384, 32_768, 1_024),
    (1_024, 16_384, 64),
];

/// A block that overlaps with none of these: of the largest size that has one left.
fn free_block(taken: &[SnatPortBlockRow]) -> Option<(i64, i64)> {
    let firsts = CLASSES.iter().flat_map(|(from, to, size)| {
        let step = usize::try_from(*size).unwrap_or(usize::MAX);
        (*from..*to)
            .step_by(step)
            .map(move |first| (first, first + size - 1))
    });
    let mut free = firsts.filter(|(first, last)| {
        !taken
            .iter()
            .any(|block| block.first_port <= *last && *first <= block.last_port)
    });
    free.next()
}

impl Rows {
    /// The network of a router's gateway.
    fn gateway_network(&self, id: RouterId) -> Option<NetworkId> {
        let port = self.routers.get(&id)?.gateway_port_id?;
        Some(self.ports.get(&port)?.network_id)
    }

    /// The host that answers for a router outside; none if its network is not shared, or no host has it.
    fn elect(&self, id: RouterId) -> Option<HostName> {
        let network = self.networks.get(&self.gateway_network(id)?)?;
        network.transit?;
        let physical = network.segment.physical_network.as_ref()?;
        let candidates = || {
            let hosts = of(&self.index.hosts_by_physical_network, physical);
            hosts.filter(|host| self.tunnel_hosts.contains_key(*host))
        };
        let healthy = candidates().filter(|host| !self.index.down.contains(*host));
        let best = elected(id, healthy).or_else(|| elected(id, candidates()));
        best.cloned()
    }

    /// Elects again for a router, and marks what that changes.
    pub(super) fn election(&mut self, id: RouterId) {
        if self.loading {
            return;
        }
        let new = self.elect(id);
        let old = self.index.elected.get(&id).cloned();
        if old == new {
            return;
        }
        match &new {
            Some(host) => drop(self.index.elected.insert(id, host.clone())),
            None => drop(self.index.elected.remove(&id)),
        }
        self.mark_router(id);
        let floating: Vec<_> = of(&self.index.floating_routers, &id).copied().collect();
        for host in old.into_iter().chain(new) {
            let routers = self.marks.routers_at.entry(host.clone()).or_default();
            routers.insert(id);
            let marks = self.marks.floating_ips.entry(host).or_default();
            marks.extend(&floating);
        }
    }

    /// Elects again for all routers with their gateways in networks that `concerned` picks.
    pub(super) fn elections(&mut self, concerned: impl Fn(&Self, NetworkId) -> bool) {
        if self.loading {
            return;
        }
        let with_gateway = self.routers.keys().copied();
        let all: Vec<RouterId> = with_gateway
            .filter(|id| {
                let network = self.gateway_network(*id);
                network.is_some_and(|network| concerned(self, network))
            })
            .collect();
        for id in all {
            self.election(id);
        }
    }

    /// What agents say of a host as a gateway.
    pub(super) fn gateway_host_set(&mut self, host: &HostName, known: GatewayHost) {
        self.changing(Key::GatewayHost(host.clone()));
        let old = self.gateway_hosts.get(host).cloned().unwrap_or_default();
        if old == known {
            return;
        }
        for (to, names) in [
            (super::index::Move::Out, &old.physical_networks),
            (super::index::Move::In, &known.physical_networks),
        ] {
            for name in names {
                let by = &mut self.index.hosts_by_physical_network;
                to.apply(by, name.clone(), host.clone());
            }
        }
        let moved = old.physical_networks != known.physical_networks;
        if known == GatewayHost::default() {
            self.gateway_hosts.remove(host);
        } else {
            self.gateway_hosts.insert(host.clone(), known);
        }
        if moved {
            self.mark_segments(host);
            self.gateway_host_moved(host);
        }
        self.look_who_is_down();
        self.elections(|_, _| true);
    }

    /// The networks that have several segments, as a host has them, and its guests on them as others do.
    fn mark_segments(&mut self, host: &HostName) {
        if self.loading || self.segments.is_empty() {
            return;
        }
        self.marks.networks.extend(self.segments.keys());
        for id in of(&self.index.guests_by_host, host) {
            let network = self.ports.get(id).map(|port| port.network_id);
            if let Some(network) = network.filter(|id| self.segments.contains_key(id)) {
                let remote = self.marks.remote_ports.entry(network).or_default();
                remote.insert(*id);
            }
        }
    }

    /// Marks what hangs on what a host has: its own duty, and the floating IPs of its guests.
    pub(super) fn gateway_host_moved(&mut self, host: &HostName) {
        if self.loading || !self.is_shared() {
            return;
        }
        self.marks.hosts.insert(host.clone());
        let guests: Vec<_> = of(&self.index.guests_by_host, host).copied().collect();
        let floating = guests.iter().flat_map(|id| self.floating_ips_of(*id));
        let floating: Vec<_> = floating.collect();
        for id in floating {
            self.mark_floating_ip(id);
        }
    }

    /// Whether hosts share any network.
    pub(super) fn is_shared(&self) -> bool {
        !self.index.shared.is_empty()
    }

    /// The hosts that a host looks after, as long as hosts share any network.
    pub(super) fn probed_by(&self, host: &HostName) -> impl Iterator<Item = &HostName> {
        let on_ring = self.tunnel_hosts.contains_key(host) && self.is_shared();
        probed(&self.index.ring, host).filter(move |_| on_ring)
    }

    /// Judges again which hosts are down.
    pub(super) fn look_who_is_down(&mut self) {
        if !self.loading {
            self.index.down = down(&self.index.ring, &self.gateway_hosts);
        }
    }

    /// Whether a host has the physical network of a network.
    pub(super) fn has_physical_network(&self, host: &HostName, id: NetworkId) -> bool {
        let network = self.networks.get(&id);
        let physical = network.and_then(|network| network.segment.physical_network.as_ref());
        let known = self.gateway_hosts.get(host);
        known
            .zip(physical)
            .is_some_and(|(known, physical)| known.physical_networks.contains(physical))
    }

    /// The hosts with guests behind a router.
    fn hosts_behind(&self, id: RouterId) -> BTreeSet<&HostName> {
        let router = self.routers.get(&id);
        let legs = router.into_iter().flat_map(|router| &router.interfaces);
        let networks = legs.filter_map(|leg| Some(self.ports.get(leg)?.network_id));
        networks
            .filter_map(|network| self.index.guest_hosts.get(&network))
            .flat_map(BTreeMap::keys)
            .collect()
    }

    /// The routers that hosts may have come behind by what is marked.
    pub(super) fn translating(&self, marks: &Marks) -> BTreeSet<RouterId> {
        if marks.everything {
            return self.routers.keys().copied().collect();
        }
        let ports = marks.ports.values().flatten();
        let networks: BTreeSet<NetworkId> = ports
            .filter_map(|id| Some(self.ports.get(id)?.network_id))
            .collect();
        let by_guest = networks.iter().flat_map(|id| of(&self.index.routers, id));
        let near = marks.routers_near.values().flatten();
        let all = by_guest.chain(near).chain(&marks.routers);
        all.copied().collect()
    }

    /// Of these routers, those that translate: hosts that have guests behind them and no ports yet.
    pub(super) fn blocks_missing(&self, routers: &BTreeSet<RouterId>) -> By<RouterId, HostName> {
        let mut missing: By<RouterId, HostName> = By::new();
        for id in routers {
            let Some(router) = self.routers.get(id) else {
                continue;
            };
            if !router.enable_snat || self.gateway_network(*id).is_none() {
                continue;
            }
            let without = self.hosts_behind(*id).into_iter();
            let without = without.filter(|host| !router.snat_port_blocks.contains_key(*host));
            let without: BTreeSet<HostName> = without.cloned().collect();
            if !without.is_empty() {
                missing.insert(*id, without);
            }
        }
        missing
    }

    /// Gives hosts their ports; hosts that have no guests behind a router any more give way when none are left.
    pub(super) async fn blocks_assign(
        &self,
        store: &Store,
        missing: &By<RouterId, HostName>,
    ) -> Result<(), StoreError> {
        if missing.is_empty() {
            return Ok(());
        }
        let mut tx = store.write().await?;
        for (id, hosts) in missing {
            let router_id = id.to_string();
            let mut taken = snat_port_block_list(tx.conn(), &router_id).await?;
            let behind = self.hosts_behind(*id);
            for host in hosts {
                let name = host.as_str();
                if taken.iter().any(|block| block.host == name) {
                    continue;
                }
                let idle = taken
                    .iter()
                    .position(|block| !behind.iter().any(|host| host.as_str() == block.host));
                let (first_port, last_port) = match (free_block(&taken), idle) {
                    (Some(block), _) => block,
                    (None, Some(idle)) => {
                        let block = taken.swap_remove(idle);
                        snat_port_block_delete(&mut tx, &router_id, &block.host).await?;
                        (block.first_port, block.last_port)
                    }
                    (None, None) => {
                        tracing::error!(
                            router = %id, %host,
                            "no ports of the router's gateway address are left for the host: its guests get no SNAT; \
                             spread them over fewer hosts, or give them another router"
                        );
                        continue;
                    }
                };
                let block = SnatPortBlockRow {
                    router_id: router_id.clone(),
                    host: name.to_owned(),
                    first_port,
                    last_port,
                };
                snat_port_block_insert(&mut tx, &block).await?;
                taken.push(block);
            }
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::limits::SNAT_HOSTS_PER_GATEWAY_MAX;

    fn names(count: usize) -> Vec<HostName> {
        (0..count)
            .map(|n| format!("host-{n}").parse().unwrap())
            .collect()
    }

    #[test]
    fn blocks_are_large_for_the_first_and_end_at_the_limit() {
        let mut taken: Vec<SnatPortBlockRow> = Vec::new();
        while let Some((first_port, last_port)) = free_block(&taken) {
            assert_eq!(first_port % (last_port - first_port + 1), 0);
            taken.push(SnatPortBlockRow {
                router_id: String::new(),
                host: taken.len().to_string(),
                first_port,
                last_port,
            });
        }
        assert_eq!(taken.len(), SNAT_HOSTS_PER_GATEWAY_MAX);
        let sizes = |n: usize| taken[n].last_port - taken[n].first_port + 1;
        assert_eq!(
            (sizes(0), sizes(3), sizes(4), sizes(20)),
            (8_192, 8_192, 1_024, 64)
        );
        let ports: i64 = (0..taken.len()).map(sizes).sum();
        assert_eq!(ports, 65_536 - 1_024);
        taken.remove(5);
        assert_eq!(free_block(&taken), Some((17_408, 18_431)));
    }

    #[test]
    fn a_loss_moves_only_what_was_there() {
        let hosts = names(5);
        let routers: Vec<RouterId> = (0..1_000).map(|_| RouterId::random()).collect();
        let before = |id: &RouterId| elected(*id, hosts.iter()).unwrap().clone();
        let mut moved = BTreeMap::new();
        for id in &routers {
            let after = elected(*id, hosts.iter().skip(1)).unwrap();
            if before(id) == hosts[0] {
                *moved.entry(after.clone()).or_insert(0) += 1;
            } else {
                assert_eq!(*after, before(id));
            }
        }
        let all: i32 = moved.values().sum();
        assert!(
            (120..280).contains(&all),
            "{all} of 1000 were at one of five"
        );
        assert_eq!(moved.len(), 4, "spread over all others");
    }

    #[test]
    fn a_host_is_down_when_most_who_look_after_it_and_live_say_so() {
        let hosts = names(3);
        let ring: BTreeSet<_> = hosts.iter().map(ring_place).collect();
        let mut said: BTreeMap<HostName, GatewayHost> = BTreeMap::new();
        let mut say = |by: usize, of: usize| {
            let known = said.entry(hosts[of].clone()).or_default();
            known.unreachable_by.insert(hosts[by].clone());
            down(&ring, &said)
        };
        assert!(say(1, 0).is_empty(), "one of two");
        assert_eq!(say(2, 0), BTreeSet::from([hosts[0].clone()]));
        // The dead one is asked no more: one voice is enough now.
        assert_eq!(say(2, 1).len(), 2);
        // Cut off, it says the same of all others, and nobody believes it.
        let mut said: BTreeMap<HostName, GatewayHost> = BTreeMap::new();
        for (by, of) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
            let known = said.entry(hosts[of].clone()).or_default();
            known.unreachable_by.insert(hosts[by].clone());
        }
        assert_eq!(down(&ring, &said), BTreeSet::from([hosts[0].clone()]));
    }

    #[test]
    fn everybody_has_as_many_to_look_after_it_as_there_can_be() {
        for count in [1, 2, 3, 4, 9] {
            let hosts = names(count);
            let ring: BTreeSet<_> = hosts.iter().map(ring_place).collect();
            for host in &hosts {
                let by: BTreeSet<_> = probers(&ring, host).collect();
                let asked = hosts
                    .iter()
                    .filter(|other| probers(&ring, other).any(|by| by == host));
                let looks: BTreeSet<_> = probed(&ring, host).collect();
                assert_eq!(asked.collect::<BTreeSet<_>>(), looks);
                assert_eq!(by.len(), PROBERS.min(count - 1));
                assert!(!by.contains(host));
            }
        }
    }
}
