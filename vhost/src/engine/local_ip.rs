//! Local IPs: addresses that lead to ports of this host. docs/pipeline.md, section 5.
//!
//! Guarantees: only guests of the target's network get there, and never a target itself. Cost: nothing on networks without.

use super::key::Place;
use super::limit::Account;
use super::numbers::Numbers;
use super::path::{End, Hop, Path};
use super::plan::{NetworkPlan, Owner, Plan};
use super::walk::Walk;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use weft_model::{DropReason, LocalIpMode, MacAddress, NetworkId};

/// A local IP, on a network of one of its targets.
#[derive(Clone, Debug)]
pub(super) struct LocalIpPlan {
    port: Place,
    mac: MacAddress,
    /// What it is translated to, if it is.
    fixed: Option<Ipv4Addr>,
    /// All its targets here, sorted.
    targets: Arc<[Place]>,
}

impl NetworkPlan {
    /// The local IP with this address, if the guest uses it.
    fn local_ip(&self, address: IpAddr, user: Place) -> Option<&LocalIpPlan> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        if self.local_ips.is_empty() {
            return None;
        }
        let local = self.local_ips.get(&address)?;
        local.is_used_by(user).then_some(local)
    }

    /// Who answers for it.
    pub(super) fn local_owner(&self, address: IpAddr, asker: Place) -> Option<Owner> {
        let local = self.local_ip(address, asker)?;
        Some(Owner {
            mac: local.mac,
            router: false,
            port: Some(local.port),
            guests: true,
            claim: false,
        })
    }
}

impl LocalIpPlan {
    fn is_used_by(&self, port: Place) -> bool {
        self.targets.binary_search(&port).is_err()
    }
}

/// Fills the networks of a plan; the one with the smallest id counts, and of its targets on a network the first.
pub(super) fn fill(plan: &mut Plan, numbers: &Numbers) {
    let snapshot = Arc::clone(&plan.snapshot);
    for ip in snapshot.local_ips.values() {
        let IpAddr::V4(address) = ip.local_ip_address else {
            continue;
        };
        let place = |target: &weft_model::LocalIpTarget| numbers.ports.get(&target.port_id);
        let mut targets: Vec<Place> = ip.targets.iter().filter_map(place).copied().collect();
        targets.sort_unstable();
        let targets: Arc<[Place]> = targets.into();
        let mut near: BTreeMap<NetworkId, LocalIpPlan> = BTreeMap::new();
        for target in &ip.targets {
            let port = snapshot.ports.get(&target.port_id);
            let (Some(port), Some(place)) = (port, place(target)) else {
                continue;
            };
            let fixed = match target.fixed_ip {
                IpAddr::V4(fixed) => Some(fixed),
                IpAddr::V6(_) => None,
            };
            let translates = ip.mode == LocalIpMode::Translate;
            near.entry(port.network_id).or_insert_with(|| LocalIpPlan {
                port: *place,
                mac: port.mac_address,
                fixed: fixed.filter(|fixed| translates && *fixed != address),
                targets: Arc::clone(&targets),
            });
        }
        for (network, one) in near {
            let at = numbers.networks.get(&network);
            if let Some(network) = at.and_then(|at| plan.networks.get_mut(*at)) {
                network.local_ips.entry(address).or_insert(one);
            }
        }
    }
}

impl Walk<'_> {
    /// The way to a local IP, if the packet goes to one that its sender uses.
    pub(super) fn local_ip(&self) -> Result<Option<End>, DropReason> {
        let tuple = self.opening.tuple;
        let Some(local) = self.network.local_ip(tuple.destination, self.opening.place) else {
            return Ok(None);
        };
        if local.fixed.is_some() {
            self.opening.opener_test()?;
        }
        Ok(Some(End::Path(Path {
            output: local.port,
            hop: Some(Hop {
                ttl_decrement: 0,
                source_mac: self.opening.source_mac,
                destination_mac: local.mac,
                next_hop: None,
                mtu: self.network.mtu,
            }),
            source: tuple.source,
            destination: local.fixed.map_or(tuple.destination, IpAddr::V4),
            destination_port: tuple.destination_port,
            snat: None,
            tunnel: None,
            back: None,
            transit: None,
            accounts: [Account::NONE; 2],
        })))
    }
}
