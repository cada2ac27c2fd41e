//! What an operator sets about networks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft_model::NetworkType;

/// Numbers that may be given to project networks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first number.
    pub first: u32,
    /// The last number.
    pub last: u32,
}

/// `[network]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// The type of a network whose creator names none: what ordinary projects get.
    pub default_network_type: NetworkType,
    /// VNIs for VXLAN, GENEVE, and keys for GRE.
    pub tunnel_id_range: IdRange,
    /// VLANs for networks whose creator names no number, by physical network.
    pub vlan_ranges: BTreeMap<String, IdRange>,
    /// The physical networks that flat and VLAN networks may name; empty for any name.
    pub physical_networks: Vec<String>,
    /// Bytes of the largest IP packet that the underlay and the physical networks carry.
    pub mtu: u32,
    /// The domain told to guests, where the network has none of its own.
    pub dns_domain: String,
    /// Limits of projects that have none of their own, by resource; -1 for none.
    pub quotas: BTreeMap<String, i64>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            default_network_type: NetworkType::Vxlan,
            tunnel_id_range: IdRange {
                first: 1,
                last: 0xff_ffff,
            },
            vlan_ranges: BTreeMap::new(),
            physical_networks: Vec::new(),
            mtu: 1_500,
            dns_domain: String::new(),
            quotas: BTreeMap::new(),
        }
    }
}

impl NetworkConfig {
    /// The largest MTU that a network of this type can have: the underlay's less the encapsulation over IPv4
    /// (Neutron's figures).
    #[must_use]
    pub fn mtu_max(&self, network_type: NetworkType) -> u32 {
        let overhead = match network_type {
            NetworkType::Local | NetworkType::Flat | NetworkType::Vlan => 0,
            NetworkType::Vxlan => 50,
            NetworkType::Geneve => 58,
            NetworkType::Gre => 42,
        };
        self.mtu.saturating_sub(overhead)
    }
}
