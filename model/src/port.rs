//! Ports of this host's guests, and what must be known of ports elsewhere.

use crate::{
    HostName, LogId, MacAddress, NetworkId, PortId, QosPolicyId, SecurityGroupId, SubnetId,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// One address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedIp {
    /// The subnet it was taken from; must be in the snapshot, on the port's network.
    pub subnet_id: SubnetId,
    /// The address, inside the subnet.
    pub ip_address: IpAddr,
}

/// Neutron's `allowed_address_pairs`: a further source that the port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedAddressPair {
    /// The MAC address (Neutron fills in the port's own where none was given).
    pub mac_address: MacAddress,
    /// An address or a range; host bits are zero.
    pub ip_address: IpNet,
}

/// Who listens on a vhost-user socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VhostUserMode {
    /// The guest's side (QEMU) listens, Weft dials.
    Server,
    /// Weft listens, the guest's side dials.
    Client,
}

/// How the guest is attached; also says which engine serves the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PortInterface {
    /// A tap or veth device of this name (at most 15 bytes): the kernel engine.
    Tap {
        /// The device's name; `tap` and the first 11 characters of the port's id, unless a file says otherwise.
        name: String,
    },
    /// A vhost-user socket: the user engine, and the kernel engine for what leaves it.
    VhostUser {
        /// The socket's path.
        socket: String,
        /// Who listens.
        mode: VhostUserMode,
    },
    /// Through another port of the host, tagged: the engine of that one.
    Subport {
        /// The trunk's own port; must be in the snapshot, and no subport itself.
        parent: PortId,
        /// The VLAN, 1 to 4094; no two subports of a port have the same.
        vlan_id: u16,
    },
}

/// The role of a port that is kept apart from others of its network, a private VLAN. Promiscuous ports have none: they reach
/// all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum PvlanRole {
    /// Reaches promiscuous ports only.
    Isolated,
    /// Reaches promiscuous ports, and those of its community on the same network.
    Community {
        /// Its name, of 1 to [`crate::limits::PVLAN_COMMUNITY_BYTES_MAX`] bytes.
        community: String,
    },
}

impl PvlanRole {
    /// Whether ports of one network with these roles may exchange frames.
    #[must_use]
    pub fn reach(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (None, _) | (_, None) => true,
            (Some(one), Some(other)) => matches!(one, Self::Community { .. }) && one == other,
        }
    }
}

/// Neutron's `extra_dhcp_opts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpOption {
    /// dnsmasq's name of the option, or its number.
    pub opt_name: String,
    /// Its value as text; none withholds the option.
    pub opt_value: Option<String>,
    /// 4 or 6.
    pub ip_version: u8,
}

/// A guest's port on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its network; must be in the snapshot.
    pub network_id: NetworkId,
    /// The guest's MAC address: not zero, not multicast, unique on its network.
    pub mac_address: MacAddress,
    /// At most [`crate::limits::FIXED_IPS_MAX`].
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// Addresses of its allowed address pairs that its guest has said it has, by a gratuitous ARP or an unsolicited neighbour
    /// advertisement, and no other guest since; at most [`crate::limits::CLAIMED_IPS_PER_PORT_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed_ips: Vec<IpAddr>,
    /// At most [`crate::limits::ALLOWED_ADDRESS_PAIRS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_address_pairs: Vec<AllowedAddressPair>,
    /// Anti-spoofing and security groups; without it the port may send anything and gets everything.
    pub port_security_enabled: bool,
    /// At most [`crate::limits::SECURITY_GROUPS_PER_PORT_MAX`]; each must be in the snapshot.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupId>,
    /// A port that is administratively down passes nothing.
    pub admin_state_up: bool,
    /// Neutron's `device_owner`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_owner: String,
    /// The host name told to the guest; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dns_name: String,
    /// How the guest is attached.
    pub interface: PortInterface,
    /// At most [`crate::limits::DHCP_OPTIONS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_dhcp_opts: Vec<DhcpOption>,
    /// The QoS policy that holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_policy_id: Option<QosPolicyId>,
    /// What keeps it apart from other ports of its network, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvlan: Option<PvlanRole>,
    /// Which decisions about it are written down; at most [`crate::limits::LOGS_PER_PORT_MAX`], each in the snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogId>,
}

impl Port {
    /// The kernel's device that the port's frames come and go by, if it has one of its own. That of a vhost-user port, `vho` and
    /// the last 12 characters of its id, is its way out of the user engine.
    #[must_use]
    pub fn device(&self, id: PortId) -> Option<Cow<'_, str>> {
        match &self.interface {
            PortInterface::Tap { name } => Some(Cow::Borrowed(name)),
            PortInterface::VhostUser { .. } => {
                let id = id.to_string();
                let end = id.get(id.len() - 12..).unwrap_or_default();
                Some(format!("vho{end}").into())
            }
            PortInterface::Subport { .. } => None,
        }
    }
}

/// A port on another host that a guest here may speak to: its place in the forwarding tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemotePort {
    /// Its network; must be in the snapshot.
    pub network_id: NetworkId,
    /// Its MAC address.
    pub mac_address: MacAddress,
    /// Its addresses.
    pub fixed_ips: Vec<FixedIp>,
    /// Addresses that its guest has said it has: see [`Port::claimed_ips`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed_ips: Vec<IpAddr>,
    /// Where it lives; a tunnel host of the snapshot.
    pub host: HostName,
    /// What keeps it apart from other ports of its network, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvlan: Option<PvlanRole>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_keeps_ports_apart_in_both_directions() {
        let community = |name: &str| PvlanRole::Community {
            community: name.to_owned(),
        };
        let (isolated, a, b) = (PvlanRole::Isolated, community("a"), community("b"));
        for (one, other, reach) in [
            (None, None, true),
            (None, Some(&isolated), true),
            (None, Some(&a), true),
            (Some(&isolated), Some(&isolated), false),
            (Some(&isolated), Some(&a), false),
            (Some(&a), Some(&a), true),
            (Some(&a), Some(&b), false),
        ] {
            assert_eq!(PvlanRole::reach(one, other), reach, "{one:?} {other:?}");
            assert_eq!(PvlanRole::reach(other, one), reach, "{other:?} {one:?}");
        }
    }
}
