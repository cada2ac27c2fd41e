//! Multicast and broadcast: who gets copies. docs/pipeline.md, section 8.
//!
//! Guarantees: nobody but the ports of the frame's own network, and the hosts that have some; never the sender. What came
//! from a wire or a tunnel goes to local ports alone. Assumes egress rules. Cost: all ports of the snapshot.

use super::{Sight, tunnel};
use crate::flow::key::Ingress;
use crate::flow::session::Tunnel;
use crate::mutant::Mutant;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_model::limits::MULTICAST_COPIES_MAX;
use weft_model::{HostSnapshot, NetworkId, PortId};

/// The local ports and the hosts of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Local ports, in order of id.
    pub ports: Vec<PortId>,
    /// The tunnels to hosts with ports on it, in order of their addresses.
    pub hosts: Vec<Tunnel>,
}

impl Members {
    /// All members of a network.
    #[must_use]
    pub fn of(snapshot: &HostSnapshot, network_id: NetworkId) -> Self {
        let here = snapshot.ports.iter();
        let here = here.filter(|(_, port)| port.network_id == network_id);
        let mut hosts: BTreeMap<IpAddr, Tunnel> = BTreeMap::new();
        let there = snapshot.remote_ports.values();
        for port in there.filter(|port| port.network_id == network_id) {
            if let Some(tunnel) = tunnel::to_host(snapshot, network_id, &port.host) {
                hosts.insert(tunnel.remote, tunnel);
            }
        }
        Self {
            ports: here.map(|(id, _)| *id).collect(),
            hosts: hosts.into_values().collect(),
        }
    }

    /// How many copies a frame costs; none if there are more than it may.
    #[must_use]
    pub fn cost(&self) -> Option<u32> {
        let all = u32::try_from(self.ports.len() + self.hosts.len()).ok()?;
        (all <= MULTICAST_COPIES_MAX).then_some(all)
    }

    /// Those that get a copy of what is seen there.
    #[must_use]
    pub fn others(mut self, sight: &Sight<'_>) -> Self {
        let sender = sight.ingress;
        self.ports
            .retain(|id| Ingress::Port(*id) != sender || sight.has(Mutant::MulticastSender));
        if sight.port.is_none() && !sight.has(Mutant::MulticastAgain) {
            self.hosts.clear();
        }
        self
    }
}
