//! Whom an address of a port that is on no host belongs to: the guest that claims it, as VRRP's masters do for an address
//! that a port is kept for.

use super::floating_ip::FloatingIp;
use super::index::of;
use super::rows::Rows;
use std::collections::BTreeSet;
use weft_model::{FloatingIpId, PortId};

impl Rows {
    /// The port that a floating IP leads to: its own, or that of the guest that claims the address while its own is on no
    /// host. None if its own is not known.
    pub(super) fn holder(&self, ip: &FloatingIp) -> Option<PortId> {
        let port = self.ports.get(&ip.port_id)?;
        if port.guest_host().is_some() {
            return Some(ip.port_id);
        }
        let address = (port.network_id, ip.fixed_ip_address.into());
        let mut claimants = of(&self.index.claims, &address).filter(|id| {
            let claimant = self.ports.get(id);
            claimant.is_some_and(|port| port.guest_host().is_some())
        });
        Some(claimants.next().copied().unwrap_or(ip.port_id))
    }

    /// The floating IPs that lead to a port.
    pub(super) fn floating_ips_of(&self, id: PortId) -> BTreeSet<FloatingIpId> {
        let mut all: BTreeSet<FloatingIpId> = of(&self.index.floating_ips, &id).copied().collect();
        let claimed = self.ports.get(&id).into_iter();
        for address in claimed.flat_map(|port| &port.claimed_ips) {
            let near = of(&self.index.floating_by_address, address);
            let here = |ip: &&FloatingIpId| {
                let ip = self.floating_ips.get(ip);
                ip.and_then(|ip| self.holder(ip)) == Some(id)
            };
            all.extend(near.filter(here));
        }
        all
    }
}
