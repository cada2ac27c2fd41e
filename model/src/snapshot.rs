//! The [`HostSnapshot`]: all that one host must do, at one revision, as a value.

use crate::{
    AddressGroup, AddressGroupId, AddressScopeId, Epoch, FloatingIp, FloatingIpId, ForwardedIp,
    HostName, Invalid, LocalIp, LocalIpId, Log, LogId, MeteringLabel, MeteringLabelId, Network,
    NetworkId, Port, PortId, QosPolicy, QosPolicyId, RemoteFloatingIp, RemotePort, Revision,
    Router, RouterId, SecurityGroup, SecurityGroupId, SecurityGroupMember, SecurityGroupRule,
    SecurityGroupRuleId, Subnet, SubnetId, limits,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The snapshot's format; another number is refused.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// A host at one end of tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelHost {
    /// Its address in the underlay.
    pub tunnel_ip: IpAddr,
    /// Whether this host looks after it: says when it does not reach it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probed: bool,
}

/// All that one host must do, at one revision. Every table is keyed by id; references between tables are checked
/// by [`HostSnapshot::validate`], and an engine may rely on them afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSnapshot {
    /// [`SNAPSHOT_FORMAT`].
    pub format: u32,
    /// The host that it is for.
    pub host: HostName,
    /// The database that `revision` belongs to.
    pub epoch: Epoch,
    /// The control plane's revision that it was computed at.
    pub revision: Revision,
    /// Networks with a port here, and those that such ports reach through routers.
    #[serde(default)]
    pub networks: BTreeMap<NetworkId, Network>,
    /// All subnets of these networks.
    #[serde(default)]
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// The guests' ports on this host.
    #[serde(default)]
    pub ports: BTreeMap<PortId, Port>,
    /// Ports elsewhere on these networks.
    #[serde(default)]
    pub remote_ports: BTreeMap<PortId, Arc<RemotePort>>,
    /// Routers with a leg in these networks.
    #[serde(default)]
    pub routers: BTreeMap<RouterId, Router>,
    /// Floating IPs that lead to ports of this host.
    #[serde(default)]
    pub floating_ips: BTreeMap<FloatingIpId, FloatingIp>,
    /// Floating IPs that lead to ports of other hosts, and that this one answers for outside.
    #[serde(default)]
    pub remote_floating_ips: BTreeMap<FloatingIpId, RemoteFloatingIp>,
    /// Floating IPs with ports that lead to ports of this host.
    #[serde(default)]
    pub forwarded_ips: BTreeMap<FloatingIpId, ForwardedIp>,
    /// Local IPs that lead to ports of this host.
    #[serde(default)]
    pub local_ips: BTreeMap<LocalIpId, LocalIp>,
    /// Security groups of this host's ports, and those that their rules name as remote.
    #[serde(default)]
    pub security_groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    /// The rules of the groups that are on ports here.
    #[serde(default)]
    pub security_group_rules: BTreeMap<SecurityGroupRuleId, SecurityGroupRule>,
    /// Members of the groups that rules here name as remote.
    #[serde(default)]
    pub security_group_members: BTreeSet<SecurityGroupMember>,
    /// Address groups that rules here name.
    #[serde(default)]
    pub address_groups: BTreeMap<AddressGroupId, AddressGroup>,
    /// QoS policies of ports, floating IPs and gateways here.
    #[serde(default)]
    pub qos_policies: BTreeMap<QosPolicyId, QosPolicy>,
    /// Metering labels of routers here.
    #[serde(default)]
    pub metering_labels: BTreeMap<MeteringLabelId, MeteringLabel>,
    /// Logs of ports here.
    #[serde(default)]
    pub logs: BTreeMap<LogId, Log>,
    /// The other hosts that this one speaks of, and this one itself: without an address of its own it has no tunnels.
    #[serde(default)]
    pub tunnel_hosts: BTreeMap<HostName, TunnelHost>,
}

/// Why a snapshot file was refused.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than [`limits::SNAPSHOT_BYTES_MAX`].
    #[error("{} is larger than {} bytes", path.display(), limits::SNAPSHOT_BYTES_MAX)]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A field is missing, unknown or of the wrong type.
    #[error("{}: at {field}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Path to the field, such as `ports.<id>.mac_address`.
        field: String,
        /// What was expected.
        source: serde_json::Error,
    },
    /// The fields are well-formed and contradict each other.
    #[error("{}: {first} (mistakes in all: {count})", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// The first mistake.
        first: Invalid,
        /// How many there are.
        count: usize,
    },
}

impl HostSnapshot {
    /// A snapshot in which the host has nothing to do.
    #[must_use]
    pub fn empty(host: HostName, epoch: Epoch) -> Self {
        Self {
            format: SNAPSHOT_FORMAT,
            host,
            epoch,
            revision: Revision(0),
            networks: BTreeMap::new(),
            subnets: BTreeMap::new(),
            ports: BTreeMap::new(),
            remote_ports: BTreeMap::new(),
            routers: BTreeMap::new(),
            floating_ips: BTreeMap::new(),
            remote_floating_ips: BTreeMap::new(),
            forwarded_ips: BTreeMap::new(),
            local_ips: BTreeMap::new(),
            security_groups: BTreeMap::new(),
            security_group_rules: BTreeMap::new(),
            security_group_members: BTreeSet::new(),
            address_groups: BTreeMap::new(),
            qos_policies: BTreeMap::new(),
            metering_labels: BTreeMap::new(),
            logs: BTreeMap::new(),
            tunnel_hosts: BTreeMap::new(),
        }
    }

    /// Reads and checks a snapshot file (JSON).
    ///
    /// # Errors
    /// The file is refused whole at the first mistake, named by its path in the file.
    pub fn from_file(path: &Path) -> Result<Self, SnapshotFileError> {
        let read = |source| SnapshotFileError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if usize::try_from(bytes).map_or(true, |b| b > limits::SNAPSHOT_BYTES_MAX) {
            return Err(SnapshotFileError::TooLarge {
                path: path.to_owned(),
            });
        }
        let text = std::fs::read(path).map_err(read)?;
        Self::from_json(&text, path)
    }

    /// Reads and checks a snapshot from JSON; `path` is only for the message.
    ///
    /// # Errors
    /// As [`HostSnapshot::from_file`].
    pub fn from_json(text: &[u8], path: &Path) -> Result<Self, SnapshotFileError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let snapshot: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            SnapshotFileError::Field {
                path: path.to_owned(),
                field,
                source: error.into_inner(),
            }
        })?;
        json.end().map_err(|source| SnapshotFileError::Field {
            path: path.to_owned(),
            field: "the end of the file".to_owned(),
            source,
        })?;
        let mistakes = snapshot.validate();
        match mistakes.first() {
            None => Ok(snapshot),
            Some(first) => Err(SnapshotFileError::Invalid {
                path: path.to_owned(),
                first: first.clone(),
                count: mistakes.len(),
            }),
        }
    }

    /// This host's own address in the underlay.
    #[must_use]
    pub fn tunnel_ip(&self) -> Option<IpAddr> {
        self.tunnel_hosts.get(&self.host).map(|host| host.tunnel_ip)
    }

    /// A network's address scope in a family: that of the first of its subnets that has one.
    #[must_use]
    pub fn address_scope(&self, network_id: NetworkId, is_ipv6: bool) -> Option<AddressScopeId> {
        let of_family = self.subnets_of(network_id);
        let mut of_family = of_family.filter(|(_, s)| s.cidr.addr().is_ipv6() == is_ipv6);
        of_family.find_map(|(_, subnet)| subnet.address_scope_id)
    }

    /// Whether a port is judged packet by packet: it has port security and groups, and none of them keeps state.
    #[must_use]
    pub fn is_stateless(&self, port: &Port) -> bool {
        let mut groups = port.security_groups.iter();
        let keeps = |id| {
            self.security_groups
                .get(id)
                .is_none_or(|group| group.stateful)
        };
        port.port_security_enabled && groups.len() > 0 && !groups.any(keeps)
    }

    /// The addresses on external networks that have a QoS policy: floating IPs, and gateways' that SNAT uses. Where several
    /// have an address, floating IPs come first, and the smallest id.
    #[must_use]
    pub fn qos_addresses(&self) -> BTreeMap<(NetworkId, Ipv4Addr), QosPolicyId> {
        let whole = self.floating_ips.values();
        let whole = whole.map(|f| {
            (
                f.floating_network_id,
                f.floating_ip_address,
                f.qos_policy_id,
            )
        });
        let forwarded = self.forwarded_ips.values();
        let forwarded = forwarded.map(|f| {
            (
                f.floating_network_id,
                f.floating_ip_address,
                f.qos_policy_id,
            )
        });
        let gateways = self.routers.values().filter_map(|r| r.gateway.as_ref());
        let gateways = gateways.filter_map(|gateway| {
            Some((
                gateway.network_id,
                gateway.snat_address()?,
                gateway.qos_policy_id,
            ))
        });
        let mut known = BTreeMap::new();
        for (network, address, policy) in whole.chain(forwarded).chain(gateways) {
            known.entry((network, address)).or_insert(policy);
        }
        let policies = known.into_iter();
        policies
            .filter_map(|(key, policy)| Some((key, policy?)))
            .collect()
    }

    /// The subnets of a network, in order of id.
    pub fn subnets_of(&self, network_id: NetworkId) -> impl Iterator<Item = (&SubnetId, &Subnet)> {
        self.subnets
            .iter()
            .filter(move |(_, subnet)| subnet.network_id == network_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = HostSnapshot::from_json(text.as_bytes(), Path::new("host.json")).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    }

    #[test]
    fn a_file_round_trips() {
        let s = HostSnapshot::empty("a".parse().unwrap(), Epoch::random());
        let text = serde_json::to_vec(&s).unwrap();
        assert_eq!(
            HostSnapshot::from_json(&text, Path::new("host.json")).unwrap(),
            s
        );
    }

    #[test]
    fn a_mistake_is_named_by_file_path_and_what_was_expected() {
        let head =
            r#"{"format":1,"host":"a","epoch":"00000000-0000-0000-0000-000000000001","revision":1"#;
        let id = "00000000-0000-0000-0000-00000000000a";
        let port = |mac: &str| {
            format!(
                r#"{head},"ports":{{"{id}":{{"network_id":"{id}","mac_address":"{mac}","port_security_enabled":true,"admin_state_up":true,"interface":{{"kind":"tap","name":"tap0"}}}}}}}}"#
            )
        };
        let wrong = error(&port("nonsense"));
        assert!(
            wrong.starts_with(&format!("host.json: at ports.{id}.mac_address")),
            "{wrong}"
        );
        assert!(wrong.contains("expected six hex pairs"), "{wrong}");
        let dangling = error(&port("fa:16:3e:00:00:01"));
        assert!(
            dangling.contains(&format!(
                "ports.{id}.network_id: expected a network in networks"
            )),
            "{dangling}"
        );
        let unknown = error(&format!(r#"{head},"portz":{{}}}}"#));
        assert!(unknown.contains("unknown field `portz`"), "{unknown}");
        let trailing = error(&format!("{head}}} x"));
        assert!(trailing.contains("the end of the file"), "{trailing}");
        let format = error(&format!(
            "{}}}",
            head.replace("\"format\":1", "\"format\":2")
        ));
        assert!(format.contains("format: expected 1"), "{format}");
    }
}
