//! The difference of two snapshots, as it travels on the feed.

use crate::{
    AddressGroup, AddressGroupId, Epoch, FloatingIp, FloatingIpId, ForwardedIp, HostName,
    HostSnapshot, Invalid, LocalIp, LocalIpId, Log, LogId, MeteringLabel, MeteringLabelId, Network,
    NetworkId, Port, PortId, QosPolicy, QosPolicyId, RemoteFloatingIp, RemotePort, Revision,
    Router, RouterId, SecurityGroup, SecurityGroupId, SecurityGroupMember, SecurityGroupRule,
    SecurityGroupRuleId, Subnet, SubnetId, TunnelHost,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What changed in a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableDelta<K: Ord, V> {
    /// New or changed entries, whole.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub put: BTreeMap<K, V>,
    /// Entries that are gone.
    #[serde(default = "BTreeSet::new", skip_serializing_if = "BTreeSet::is_empty")]
    pub delete: BTreeSet<K>,
}

impl<K: Ord, V> Default for TableDelta<K, V> {
    fn default() -> Self {
        Self {
            put: BTreeMap::new(),
            delete: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone, V: PartialEq + Clone> TableDelta<K, V> {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }

    fn len(&self) -> usize {
        self.put.len() + self.delete.len()
    }

    /// Goes on with what changed after it.
    fn merge(&mut self, later: &Self) {
        for key in &later.delete {
            self.put.remove(key);
            self.delete.insert(key.clone());
        }
        for (key, value) in &later.put {
            self.delete.remove(key);
            self.put.insert(key.clone(), value.clone());
        }
    }

    fn between(from: &BTreeMap<K, V>, to: &BTreeMap<K, V>) -> Self {
        let mut delta = Self::default();
        // Side by side: of many entries nearly all are the same.
        let mut before = from.iter().peekable();
        for (key, value) in to {
            while let Some((gone, _)) = before.next_if(|(known, _)| *known < key) {
                delta.delete.insert(gone.clone());
            }
            let known = before.next_if(|(known, _)| *known == key);
            if known.is_none_or(|(_, known)| known != value) {
                delta.put.insert(key.clone(), value.clone());
            }
        }
        delta.delete.extend(before.map(|(gone, _)| gone.clone()));
        delta
    }

    fn apply(self, table: &mut BTreeMap<K, V>) {
        for key in &self.delete {
            table.remove(key);
        }
        table.extend(self.put);
    }
}

/// What changed in a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDelta<K: Ord> {
    /// New elements.
    #[serde(default = "BTreeSet::new", skip_serializing_if = "BTreeSet::is_empty")]
    pub add: BTreeSet<K>,
    /// Elements that are gone.
    #[serde(default = "BTreeSet::new", skip_serializing_if = "BTreeSet::is_empty")]
    pub delete: BTreeSet<K>,
}

impl<K: Ord> Default for SetDelta<K> {
    fn default() -> Self {
        Self {
            add: BTreeSet::new(),
            delete: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> SetDelta<K> {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.delete.is_empty()
    }

    fn len(&self) -> usize {
        self.add.len() + self.delete.len()
    }

    fn merge(&mut self, later: &Self) {
        for key in &later.delete {
            self.add.remove(key);
            self.delete.insert(key.clone());
        }
        for key in &later.add {
            self.delete.remove(key);
            self.add.insert(key.clone());
        }
    }

    fn between(from: &BTreeSet<K>, to: &BTreeSet<K>) -> Self {
        let mut delta = Self::default();
        let mut before = from.iter().peekable();
        for key in to {
            while let Some(gone) = before.next_if(|known| *known < key) {
                delta.delete.insert(gone.clone());
            }
            if before.next_if(|known| *known == key).is_none() {
                delta.add.insert(key.clone());
            }
        }
        delta.delete.extend(before.cloned());
        delta
    }

    fn apply(self, set: &mut BTreeSet<K>) {
        for key in &self.delete {
            set.remove(key);
        }
        set.extend(self.add);
    }
}

macro_rules! snapshot_delta {
    ($($(#[$doc:meta])* $table:ident: $key:ty => $value:ty;)*) => {
        /// The way from one revision of a host's snapshot to a later one.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct SnapshotDelta {
            /// The host that it is for.
            pub host: HostName,
            /// The database that the revisions belong to.
            pub epoch: Epoch,
            /// The revision that it applies to.
            pub from: Revision,
            /// The revision that it leads to.
            pub to: Revision,
            $($(#[$doc])* #[serde(default, skip_serializing_if = "TableDelta::is_empty")]
            pub $table: TableDelta<$key, $value>,)*
            /// Changes of [`HostSnapshot::security_group_members`].
            #[serde(default, skip_serializing_if = "SetDelta::is_empty")]
            pub security_group_members: SetDelta<SecurityGroupMember>,
        }

        impl SnapshotDelta {
            /// What leads from one snapshot to another of the same host and epoch.
            #[must_use]
            pub fn between(from: &HostSnapshot, to: &HostSnapshot) -> Self {
                Self {
                    host: to.host.clone(),
                    epoch: to.epoch,
                    from: from.revision,
                    to: to.revision,
                    $($table: TableDelta::between(&from.$table, &to.$table),)*
                    security_group_members: SetDelta::between(
                        &from.security_group_members,
                        &to.security_group_members,
                    ),
                }
            }

            /// No change of a snapshot.
            #[must_use]
            pub fn none(of: &HostSnapshot) -> Self {
                Self {
                    host: of.host.clone(),
                    epoch: of.epoch,
                    from: of.revision,
                    to: of.revision,
                    $($table: TableDelta::default(),)*
                    security_group_members: SetDelta::default(),
                }
            }

            /// How many entries it speaks of.
            #[must_use]
            pub fn len(&self) -> usize {
                $(self.$table.len() +)* self.security_group_members.len()
            }

            /// Goes on with what changed after it. What was changed back stays in it.
            pub fn merge(&mut self, later: &Self) {
                self.to = later.to;
                $(self.$table.merge(&later.$table);)*
                self.security_group_members.merge(&later.security_group_members);
            }

            /// Whether the host has nothing to do for it.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                $(self.$table.is_empty() &&)* self.security_group_members.is_empty()
            }

            fn apply_tables(self, snapshot: &mut HostSnapshot) {
                $(self.$table.apply(&mut snapshot.$table);)*
                self.security_group_members.apply(&mut snapshot.security_group_members);
            }
        }
    };
}

snapshot_delta! {
    /// Changes of [`HostSnapshot::networks`].
    networks: NetworkId => Network;
    /// Changes of [`HostSnapshot::subnets`].
    subnets: SubnetId => Subnet;
    /// Changes of [`HostSnapshot::ports`].
    ports: PortId => Port;
    /// Changes of [`HostSnapshot::remote_ports`].
    remote_ports: PortId => Arc<RemotePort>;
    /// Changes of [`HostSnapshot::routers`].
    routers: RouterId => Router;
    /// Changes of [`HostSnapshot::floating_ips`].
    floating_ips: FloatingIpId => FloatingIp;
    /// Changes of [`HostSnapshot::remote_floating_ips`].
    remote_floating_ips: FloatingIpId => RemoteFloatingIp;
    /// Changes of [`HostSnapshot::forwarded_ips`].
    forwarded_ips: FloatingIpId => ForwardedIp;
    /// Changes of [`HostSnapshot::local_ips`].
    local_ips: LocalIpId => LocalIp;
    /// Changes of [`HostSnapshot::security_groups`].
    security_groups: SecurityGroupId => SecurityGroup;
    /// Changes of [`HostSnapshot::security_group_rules`].
    security_group_rules: SecurityGroupRuleId => SecurityGroupRule;
    /// Changes of [`HostSnapshot::address_groups`].
    address_groups: AddressGroupId => AddressGroup;
    /// Changes of [`HostSnapshot::qos_policies`].
    qos_policies: QosPolicyId => QosPolicy;
    /// Changes of [`HostSnapshot::metering_labels`].
    metering_labels: MeteringLabelId => MeteringLabel;
    /// Changes of [`HostSnapshot::logs`].
    logs: LogId => Log;
    /// Changes of [`HostSnapshot::tunnel_hosts`].
    tunnel_hosts: HostName => TunnelHost;
}

/// Why a delta was refused. The snapshot is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It is for another host or database.
    #[error("a delta for host {host}, epoch {epoch} does not apply to this snapshot")]
    Other {
        /// The delta's host.
        host: HostName,
        /// The delta's epoch.
        epoch: Epoch,
    },
    /// It starts at another revision: the receiver lost the thread and needs a snapshot.
    #[error("a delta from revision {from} does not apply to revision {have}")]
    Revision {
        /// Where the delta starts.
        from: Revision,
        /// Where the snapshot is.
        have: Revision,
    },
    /// What it leads to is not valid.
    #[error("the delta to revision {to} leads to an invalid snapshot: {first}")]
    Invalid {
        /// Where the delta leads.
        to: Revision,
        /// The first mistake.
        first: Invalid,
    },
}

impl HostSnapshot {
    /// Applies a delta's entries as they are, whatever its revisions and theirs: for who made it from this snapshot.
    pub fn change(&mut self, delta: SnapshotDelta) {
        delta.apply_tables(self);
    }

    /// Applies a delta whole, or leaves everything as it was.
    ///
    /// # Errors
    /// See [`DeltaError`].
    pub fn apply(&self, delta: SnapshotDelta) -> Result<Self, DeltaError> {
        if delta.host != self.host || delta.epoch != self.epoch {
            return Err(DeltaError::Other {
                host: delta.host,
                epoch: delta.epoch,
            });
        }
        if delta.from != self.revision || delta.to < delta.from {
            return Err(DeltaError::Revision {
                from: delta.from,
                have: self.revision,
            });
        }
        let to = delta.to;
        let mut next = self.clone();
        delta.apply_tables(&mut next);
        next.revision = to;
        match next.validate().into_iter().next() {
            None => Ok(next),
            Some(first) => Err(DeltaError::Invalid { to, first }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NetworkType, Segment};

    fn network(mtu: u32) -> Network {
        let segment = Segment {
            network_type: NetworkType::Vxlan,
            physical_network: None,
            segmentation_id: Some(5001),
        };
        Network {
            segment,
            mtu,
            external: false,
            dns_domain: String::new(),
            transit: None,
            vlan_transparent: false,
        }
    }

    fn snapshot() -> HostSnapshot {
        let mut s =
            HostSnapshot::empty(HostName::try_from("a".to_owned()).unwrap(), Epoch::random());
        s.networks.insert(NetworkId::random(), network(1450));
        s.networks.insert(NetworkId::random(), network(1450));
        s
    }

    #[test]
    fn a_delta_leads_from_one_snapshot_to_the_other() {
        let from = snapshot();
        let mut to = from.clone();
        to.revision = Revision(7);
        let gone = *to.networks.keys().next().unwrap();
        to.networks.remove(&gone);
        to.networks.values_mut().for_each(|n| n.mtu = 1400);
        to.networks.insert(NetworkId::random(), network(1500));
        let delta = SnapshotDelta::between(&from, &to);
        assert_eq!(
            (delta.networks.put.len(), delta.networks.delete.len()),
            (2, 1)
        );
        let text = serde_json::to_string(&delta).unwrap();
        assert!(
            !text.contains("ports"),
            "what did not change is not sent: {text}"
        );
        let read: SnapshotDelta = serde_json::from_str(&text).unwrap();
        assert_eq!(from.apply(read).unwrap(), to);
    }

    #[test]
    fn a_delta_for_another_revision_host_or_database_is_refused() {
        let from = snapshot();
        let mut to = from.clone();
        to.revision = Revision(7);
        let delta = SnapshotDelta::between(&from, &to);
        assert!(matches!(
            to.apply(delta.clone()),
            Err(DeltaError::Revision { .. })
        ));
        let mut other = from.clone();
        other.epoch = Epoch::random();
        assert!(matches!(other.apply(delta), Err(DeltaError::Other { .. })));
    }

    #[test]
    fn a_delta_that_leads_to_an_invalid_snapshot_is_refused_whole() {
        let from = snapshot();
        let mut to = from.clone();
        to.revision = Revision(7);
        to.networks.values_mut().for_each(|n| n.mtu = 1);
        let error = from.apply(SnapshotDelta::between(&from, &to)).unwrap_err();
        assert!(
            error.to_string().contains(".mtu: expected 68 to 65535"),
            "{error}"
        );
    }
}
