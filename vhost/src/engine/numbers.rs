//! Numbers of ids while a plan is made.

use super::key::Place;
use super::limit::Account;
use super::map::FastMap;
use super::plan::At;
use super::pvlan::Roles;
use std::net::Ipv4Addr;
use weft_model::{HostName, NetworkId, PortId, RouterId};

/// Numbers of ids while a plan is made.
pub(super) struct Numbers {
    pub(super) networks: FastMap<NetworkId, At>,
    pub(super) routers: FastMap<RouterId, At>,
    pub(super) ports: FastMap<PortId, Place>,
    /// Other hosts.
    pub(super) hosts: FastMap<HostName, At>,
    /// Of private VLANs.
    pub(super) roles: Roles,
    /// Addresses with limits.
    pub(super) accounts: FastMap<(NetworkId, Ipv4Addr), Account>,
}

impl Numbers {
    /// The number of a host that a valid snapshot speaks of.
    pub(super) fn host(&self, name: &HostName) -> At {
        self.hosts.get(name).copied().unwrap_or(At::MAX)
    }

    /// The limits of an address on an external network.
    pub(super) fn account(&self, network: NetworkId, address: Ipv4Addr) -> Account {
        let account = self.accounts.get(&(network, address)).copied();
        account.unwrap_or(Account::NONE)
    }
}
