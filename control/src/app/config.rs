//! What an operator sets about networks.

use super::{dns, quota};
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

/// The first value that is well-formed and wrong: the field, and what was expected.
pub type Wrong = (String, String);

fn wrong(field: &str, expected: &str) -> Result<(), Wrong> {
    Err((field.to_owned(), expected.to_owned()))
}

impl NetworkConfig {
    /// Checks values that are well-formed.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        if !(68..=65_535).contains(&self.mtu) {
            return wrong("mtu", "68 to 65535");
        }
        let range = self.tunnel_id_range;
        if !(1..=0xff_ffff).contains(&range.first)
            || !(range.first..=0xff_ffff).contains(&range.last)
        {
            return wrong("tunnel_id_range", "1 <= first <= last <= 16777215");
        }
        for (network, range) in &self.vlan_ranges {
            let field = format!("vlan_ranges.{network}");
            if !(1..=4_094).contains(&range.first) || !(range.first..=4_094).contains(&range.last) {
                return wrong(&field, "1 <= first <= last <= 4094");
            }
            if !self.physical_networks.is_empty() && !self.physical_networks.contains(network) {
                return wrong(&field, "one of network.physical_networks, as that has any");
            }
        }
        if let Err(reason) = dns::domain_or_relative(&self.dns_domain) {
            return wrong("dns_domain", &format!("a domain: {reason}"));
        }
        for (resource, limit) in &self.quotas {
            let field = format!("quotas.{resource}");
            if quota::limited_of(resource).is_none() {
                let known: Vec<&str> = quota::LIMITED.iter().map(|l| l.resource).collect();
                return wrong(&field, &format!("one of {}", known.join(", ")));
            }
            if !(-1..=quota::LIMIT_MAX).contains(limit) {
                let expected = format!("-1 for no limit, or 0 to {}", quota::LIMIT_MAX);
                return wrong(&field, &expected);
            }
        }
        Ok(())
    }

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
