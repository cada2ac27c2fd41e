//! The rows that hosts' duties are made of, in memory and typed.
//!
//! Guarantees: after [`Rows::update`] they are what [`Rows::load`] would read at the same revision (the tests hold it
//! to that); both read one view of the database. A row that cannot be decoded is named in the log and missing here.

use super::decode::{self, At, RouterParts, RowError};
use crate::store::address_group::{self, AddressGroupRow};
use crate::store::local_ip::{self, LocalIpPortAssociationRow, LocalIpRow};
use crate::store::network::{self, NetworkRow};
use crate::store::port::{self, Port as PortParts};
use crate::store::port_forwarding::{self, PortForwardingRow};
use crate::store::qos_policy::{self, QosPolicyRow, QosRuleRow};
use crate::store::router::{self, RouterRow};
use crate::store::security_group::{self, SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::segment::{self, SegmentRow};
use crate::store::subnet::{self, SubnetRow};
use crate::store::{
    self, Conn, Resource, Store, StoreError, conntrack_helper, floating_ip, ndp_proxy,
};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use weft_model::{
    AddressGroup, AddressGroupId, FloatingIpId, LocalIpId, Network, NetworkId, PortId, QosPolicy,
    QosPolicyId, Remote, Revision, RouterId, SecurityGroup, SecurityGroupId, SecurityGroupRule,
    SecurityGroupRuleId, Subnet, SubnetId,
};

/// Changes that are read one by one; above that, everything is read.
const CHANGES_MAX: u32 = 1_000;

/// All rows at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) revision: Revision,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    /// The QoS policies of networks: they hold for ports without one of their own.
    pub(super) network_qos_policies: BTreeMap<NetworkId, QosPolicyId>,
    /// Those that ask something of an engine.
    pub(super) qos_policies: BTreeMap<QosPolicyId, QosPolicy>,
    pub(super) subnets: BTreeMap<SubnetId, Subnet>,
    pub(super) ports: BTreeMap<PortId, decode::Port>,
    pub(super) routers: BTreeMap<RouterId, decode::Router>,
    pub(super) floating_ips: BTreeMap<FloatingIpId, decode::FloatingIp>,
    pub(super) forwarded_ips: BTreeMap<FloatingIpId, decode::ForwardedIp>,
    pub(super) local_ips: BTreeMap<LocalIpId, decode::LocalIp>,
    pub(super) security_groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) security_group_rules: BTreeMap<SecurityGroupRuleId, SecurityGroupRule>,
    pub(super) address_groups: BTreeMap<AddressGroupId, AddressGroup>,
}

impl Rows {
    /// Reads everything.
    pub(super) async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut view = store.read().await?;
        Self::load_view(view.conn()).await
    }

    async fn load_view(conn: &mut Conn) -> Result<Self, StoreError> {
        let mut rows = Self {
            revision: store::revision(&mut *conn).await?,
            ..Self::default()
        };
        let mut segments: HashMap<String, Vec<SegmentRow>> = HashMap::new();
        for segment in segment::segment_list_all(&mut *conn).await? {
            segments
                .entry(segment.network_id.clone())
                .or_default()
                .push(segment);
        }
        for row in network::network_list_all(&mut *conn).await? {
            let segments = segments.remove(&row.id).unwrap_or_default();
            rows.network_qos_policy_put(&row);
            put(
                &mut rows.networks,
                At(Resource::Network, &row.id),
                decode::network(&row, &segments),
            );
        }
        for row in subnet::subnet_list_all(&mut *conn).await? {
            rows.subnet_put(row);
        }
        for port in port::port_list_all(&mut *conn).await? {
            rows.port_put(port);
        }
        rows.load_routers(&mut *conn).await?;
        for row in address_group::address_group_list_all(&mut *conn).await? {
            rows.address_group_put(&row);
        }
        for row in security_group::security_group_list_all(&mut *conn).await? {
            rows.security_group_put(&row);
        }
        for row in security_group::rule_list_all(&mut *conn).await? {
            rows.security_group_rule_put(&row);
        }
        let mut rules: HashMap<String, Vec<QosRuleRow>> = HashMap::new();
        for rule in qos_policy::rule_list_all(&mut *conn).await? {
            rules.entry(rule.policy_id.clone()).or_default().push(rule);
        }
        for row in qos_policy::policy_list_all(conn).await? {
            let rules = rules.remove(&row.id).unwrap_or_default();
            rows.qos_policy_put(&row, &rules);
        }
        Ok(rows)
    }

    /// Reads all routers, and what leads through them.
    async fn load_routers(&mut self, conn: &mut Conn) -> Result<(), StoreError> {
        let mut parts: HashMap<String, RouterParts> = HashMap::new();
        for leg in router::interface_list_all(&mut *conn).await? {
            let of = parts.entry(leg.router_id.clone()).or_default();
            of.interfaces.push(leg);
        }
        for proxy in ndp_proxy::ndp_proxy_list_all(&mut *conn).await? {
            let of = parts.entry(proxy.router_id.clone()).or_default();
            of.ndp_proxies.push(proxy);
        }
        for helper in conntrack_helper::conntrack_helper_list_all(&mut *conn).await? {
            let of = parts.entry(helper.router_id.clone()).or_default();
            of.conntrack_helpers.push(helper);
        }
        for row in router::router_list_all(&mut *conn).await? {
            let parts = parts.remove(&row.id).unwrap_or_default();
            self.router_put(row, parts);
        }
        let mut forwardings: HashMap<String, Vec<PortForwardingRow>> = HashMap::new();
        for row in port_forwarding::port_forwarding_list_all(&mut *conn).await? {
            let of = forwardings.entry(row.floatingip_id.clone()).or_default();
            of.push(row);
        }
        for row in floating_ip::floating_ip_list_all(&mut *conn).await? {
            let forwardings = forwardings.remove(&row.id).unwrap_or_default();
            self.floating_ip_put(&row, &forwardings);
        }
        let mut associations: HashMap<String, Vec<LocalIpPortAssociationRow>> = HashMap::new();
        for row in local_ip::association_list_all(&mut *conn).await? {
            let of = associations.entry(row.local_ip_id.clone()).or_default();
            of.push(row);
        }
        for row in local_ip::local_ip_list_all(conn).await? {
            let associations = associations.remove(&row.id).unwrap_or_default();
            self.local_ip_put(&row, &associations);
        }
        Ok(())
    }

    /// Reads what changed since, or everything if that is too much or not known any more.
    pub(super) async fn update(&mut self, store: &Store) -> Result<(), StoreError> {
        let mut view = store.read().await?;
        self.update_view(view.conn()).await
    }

    /// The same within a view of the database.
    pub(super) async fn update_view(&mut self, conn: &mut Conn) -> Result<(), StoreError> {
        let revision = store::revision(&mut *conn).await?;
        match store::changes_since(&mut *conn, self.revision, CHANGES_MAX).await? {
            Some(changes) => {
                let mut next = std::mem::take(self);
                for change in changes {
                    let id = change.resource_id.as_str();
                    next.changed(&mut *conn, &change.resource, id).await?;
                }
                next.revision = revision;
                *self = next;
            }
            None => *self = Self::load_view(conn).await?,
        }
        Ok(())
    }

    /// Reads one changed row as it is now. What hangs on a deleted row by a foreign key goes with it, as it does in
    /// the database.
    pub(super) async fn changed(
        &mut self,
        conn: &mut Conn,
        resource: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        match resource {
            "network" => match store::get::<NetworkRow>(&mut *conn, id).await? {
                Some(row) => {
                    let segments = segment::segment_list(conn, &[id]).await?;
                    self.network_qos_policy_put(&row);
                    let network = decode::network(&row, &segments);
                    put(&mut self.networks, At(Resource::Network, id), network);
                }
                None => {
                    remove(&mut self.networks, id);
                    remove(&mut self.network_qos_policies, id);
                }
            },
            "qos_policy" => match store::get::<QosPolicyRow>(conn, id).await? {
                Some(row) => {
                    let rules = qos_policy::rule_list_policies(conn, &[id]).await?;
                    self.qos_policy_put(&row, &rules);
                }
                None => remove(&mut self.qos_policies, id),
            },
            "subnet" => match store::get::<SubnetRow>(conn, id).await? {
                Some(row) => self.subnet_put(row),
                None => remove(&mut self.subnets, id),
            },
            "port" => match port::port_get(conn, id).await? {
                Some(port) => self.port_put(port),
                None => self.port_remove(id),
            },
            "router" => match store::get::<RouterRow>(&mut *conn, id).await? {
                Some(row) => {
                    let parts = RouterParts {
                        interfaces: router::interface_list(&mut *conn, &[id]).await?,
                        ndp_proxies: ndp_proxy::ndp_proxy_list(&mut *conn, &[id]).await?,
                        conntrack_helpers: conntrack_helper::conntrack_helper_list(conn, &[id])
                            .await?,
                    };
                    self.router_put(row, parts);
                }
                None => remove(&mut self.routers, id),
            },
            "floatingip" => match store::get::<floating_ip::FloatingIpRow>(&mut *conn, id).await? {
                Some(row) => {
                    let forwardings = port_forwarding::port_forwarding_list(conn, &[id]).await?;
                    self.floating_ip_put(&row, &forwardings);
                }
                None => {
                    remove(&mut self.floating_ips, id);
                    remove(&mut self.forwarded_ips, id);
                }
            },
            "local_ip" => match store::get::<LocalIpRow>(&mut *conn, id).await? {
                Some(row) => {
                    let associations = local_ip::association_list(conn, &[id]).await?;
                    self.local_ip_put(&row, &associations);
                }
                None => remove(&mut self.local_ips, id),
            },
            "security_group" => match store::get::<SecurityGroupRow>(conn, id).await? {
                Some(row) => self.security_group_put(&row),
                None => self.security_group_remove(id),
            },
            "security_group_rule" => match store::get::<SecurityGroupRuleRow>(conn, id).await? {
                Some(row) => self.security_group_rule_put(&row),
                None => remove(&mut self.security_group_rules, id),
            },
            "address_group" => match store::get::<AddressGroupRow>(conn, id).await? {
                Some(row) => self.address_group_put(&row),
                None => remove(&mut self.address_groups, id),
            },
            // Not a host's business.
            _ => {}
        }
        Ok(())
    }

    fn network_qos_policy_put(&mut self, row: &NetworkRow) {
        let at = At(Resource::Network, &row.id);
        match row.qos_policy_id.as_deref() {
            Some(id) => put(
                &mut self.network_qos_policies,
                at,
                at.parse("qos_policy_id", id),
            ),
            None => remove(&mut self.network_qos_policies, &row.id),
        }
    }

    fn qos_policy_put(&mut self, row: &QosPolicyRow, rules: &[QosRuleRow]) {
        match decode::qos_policy(row, rules).transpose() {
            Some(policy) => put(
                &mut self.qos_policies,
                At(Resource::QosPolicy, &row.id),
                policy,
            ),
            None => remove(&mut self.qos_policies, &row.id),
        }
    }

    fn subnet_put(&mut self, row: SubnetRow) {
        let id = row.id.clone();
        put(
            &mut self.subnets,
            At(Resource::Subnet, &id),
            decode::subnet(row),
        );
    }

    fn port_put(&mut self, port: PortParts) {
        let id = port.row.id.clone();
        put(&mut self.ports, At(Resource::Port, &id), decode::port(port));
    }

    fn port_remove(&mut self, id: &str) {
        remove(&mut self.ports, id);
        if let Ok(id) = id.parse() {
            for router in self.routers.values_mut() {
                router.interfaces.retain(|interface| *interface != id);
            }
        }
    }

    fn router_put(&mut self, row: RouterRow, parts: RouterParts) {
        let id = row.id.clone();
        let at = At(Resource::Router, &id);
        put(&mut self.routers, at, decode::router(row, parts));
    }

    fn floating_ip_put(
        &mut self,
        row: &floating_ip::FloatingIpRow,
        forwardings: &[PortForwardingRow],
    ) {
        let at = At(Resource::FloatingIp, &row.id);
        match decode::floating_ip(row).transpose() {
            Some(floating_ip) => put(&mut self.floating_ips, at, floating_ip),
            None => remove(&mut self.floating_ips, &row.id),
        }
        match decode::forwarded_ip(row, forwardings).transpose() {
            Some(forwarded_ip) => put(&mut self.forwarded_ips, at, forwarded_ip),
            None => remove(&mut self.forwarded_ips, &row.id),
        }
    }

    fn local_ip_put(&mut self, row: &LocalIpRow, associations: &[LocalIpPortAssociationRow]) {
        let at = At(Resource::LocalIp, &row.id);
        put(&mut self.local_ips, at, decode::local_ip(row, associations));
    }

    fn security_group_put(&mut self, row: &SecurityGroupRow) {
        let at = At(Resource::SecurityGroup, &row.id);
        put(
            &mut self.security_groups,
            at,
            Ok(decode::security_group(row)),
        );
    }

    fn security_group_remove(&mut self, id: &str) {
        remove(&mut self.security_groups, id);
        if let Ok(id) = id.parse() {
            self.security_group_rules
                .retain(|_, rule| rule.security_group_id != id && rule.remote != Remote::Group(id));
        }
    }

    fn address_group_put(&mut self, row: &AddressGroupRow) {
        let at = At(Resource::AddressGroup, &row.id);
        put(&mut self.address_groups, at, decode::address_group(row));
    }

    fn security_group_rule_put(&mut self, row: &SecurityGroupRuleRow) {
        let at = At(Resource::SecurityGroupRule, &row.id);
        put(
            &mut self.security_group_rules,
            at,
            decode::security_group_rule(row),
        );
    }
}

/// Puts a value in, or takes out what cannot be decoded any more.
fn put<K: Ord + FromStr<Err: Display>, V>(
    table: &mut BTreeMap<K, V>,
    at: At<'_>,
    value: Result<V, RowError>,
) {
    match (at.parse("id", at.1), value) {
        (Ok(id), Ok(value)) => {
            table.insert(id, value);
        }
        (Ok(id), Err(error)) => {
            tracing::error!(%error, "a row cannot be realized; it is treated as missing");
            table.remove(&id);
        }
        (Err(error), _) => tracing::error!(%error, "a row cannot be realized"),
    }
}

fn remove<K: Ord + FromStr, V>(table: &mut BTreeMap<K, V>, id: &str) {
    if let Ok(id) = id.parse() {
        table.remove(&id);
    }
}
