//! The rows that hosts' duties are made of, in memory and typed.
//!
//! Guarantees: after [`Rows::update`] they are what [`Rows::load`] would read at the same revision (the tests hold it
//! to that); both read one view of the database. A row that cannot be decoded is named in the log and missing here.

use super::decode::{self, At, RouterParts, RowError};
use super::floating_ip::{FloatingIp, ForwardedIp};
use super::gateway::GatewayHost;
use super::index::Index;
use super::log::Log;
use super::mark::Marks;
use super::metering::MeteringLabel;
use super::trial::Before;
use crate::store::address_group::{self, AddressGroupRow};
use crate::store::gateway::{self, TransitRow};
use crate::store::local_ip::{self, LocalIpPortAssociationRow, LocalIpRow};
use crate::store::log::{self, LogRow};
use crate::store::metering::{self, MeteringLabelRow, MeteringLabelRuleRow};
use crate::store::network::{self, NetworkRow};
use crate::store::port::{self, Port as PortParts};
use crate::store::port_forwarding::{self, PortForwardingRow};
use crate::store::qos_policy::{self, QosPolicyRow, QosRuleRow};
use crate::store::router::{self, RouterRow};
use crate::store::security_group::{self, SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::segment::{self, SegmentRow};
use crate::store::subnet::{self, SubnetRow};
use crate::store::subnetpool::{self, SubnetpoolRow};
use crate::store::{
    self, Conn, Resource, Store, StoreError, conntrack_helper, floating_ip, ndp_proxy, tunnel_host,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use weft_model::{
    AddressGroup, AddressGroupId, FloatingIpId, HostName, LocalIpId, LogId, MeteringLabelId,
    Network, NetworkId, PortId, QosPolicy, QosPolicyId, Revision, RouterId, SecurityGroup,
    SecurityGroupId, SecurityGroupRule, SecurityGroupRuleId, Segment, Subnet, SubnetId, TunnelHost,
};

/// Changes that are read row by row; above that, everything is read.
const CHANGES_MAX: u32 = 20_000;

/// All rows at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) revision: Revision,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    /// The segments of those that have several, in order.
    pub(super) segments: BTreeMap<NetworkId, Vec<Segment>>,
    /// The QoS policies of networks: they hold for ports without one of their own.
    pub(super) network_qos_policies: BTreeMap<NetworkId, QosPolicyId>,
    /// Those that ask something of an engine.
    pub(super) qos_policies: BTreeMap<QosPolicyId, QosPolicy>,
    pub(super) subnets: BTreeMap<SubnetId, Subnet>,
    pub(super) ports: BTreeMap<PortId, decode::Port>,
    pub(super) routers: BTreeMap<RouterId, decode::Router>,
    pub(super) floating_ips: BTreeMap<FloatingIpId, FloatingIp>,
    pub(super) forwarded_ips: BTreeMap<FloatingIpId, ForwardedIp>,
    pub(super) local_ips: BTreeMap<LocalIpId, decode::LocalIp>,
    pub(super) metering_labels: BTreeMap<MeteringLabelId, MeteringLabel>,
    pub(super) logs: BTreeMap<LogId, Log>,
    pub(super) security_groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) security_group_rules: BTreeMap<SecurityGroupRuleId, SecurityGroupRule>,
    pub(super) address_groups: BTreeMap<AddressGroupId, AddressGroup>,
    /// The hosts whose tunnel address is known.
    pub(super) tunnel_hosts: BTreeMap<HostName, TunnelHost>,
    /// What hosts are connected to, and who does not reach them.
    pub(super) gateway_hosts: BTreeMap<HostName, GatewayHost>,
    pub(super) index: Index,
    /// What the changes of the update that is under way may change for hosts.
    pub(super) marks: Marks,
    /// Whether everything is being read, so that marks would say nothing.
    pub(super) loading: bool,
    /// The rows that changed as they were, while there is to be a way back.
    pub(super) before: Option<Box<Before>>,
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
            loading: true,
            ..Self::default()
        };
        let mut segments: HashMap<String, Vec<SegmentRow>> = HashMap::new();
        for segment in segment::segment_list_all(&mut *conn).await? {
            segments
                .entry(segment.network_id.clone())
                .or_default()
                .push(segment);
        }
        let mut transits: HashMap<String, TransitRow> = HashMap::new();
        for transit in gateway::transit_list(&mut *conn).await? {
            transits.insert(transit.network_id.clone(), transit);
        }
        for row in network::network_list_all(&mut *conn).await? {
            let segments = segments.remove(&row.id).unwrap_or_default();
            rows.network_put(&row, &segments, transits.get(&row.id));
        }
        let scopes: HashMap<String, String> = subnetpool::scope_list(&mut *conn)
            .await?
            .into_iter()
            .collect();
        for row in subnet::subnet_list_all(&mut *conn).await? {
            let pool = row.subnetpool_id.as_ref();
            let scope = pool.and_then(|pool| scopes.get(pool));
            rows.subnet_put(row, scope.map(String::as_str));
        }
        let mut last = String::new();
        loop {
            let page = port::port_list_page_for_hosts(&mut *conn, &last).await?;
            let Some(port) = page.last() else {
                break;
            };
            last.clone_from(&port.row.id);
            for port in page {
                rows.port_put(port);
            }
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
        for row in qos_policy::policy_list_all(&mut *conn).await? {
            let rules = rules.remove(&row.id).unwrap_or_default();
            rows.qos_policy_put(&row, &rules);
        }
        rows.load_noted(&mut *conn).await?;
        for row in tunnel_host::tunnel_host_list(&mut *conn).await? {
            rows.tunnel_host_put(&row.host, Some(&row.tunnel_ip));
        }
        let mut gateway_hosts: BTreeMap<String, [Vec<String>; 2]> = BTreeMap::new();
        for (host, name) in gateway::physical_network_list_all(&mut *conn).await? {
            gateway_hosts.entry(host).or_default()[0].push(name);
        }
        for (host, by) in gateway::unreachable_list_all(conn).await? {
            gateway_hosts.entry(host).or_default()[1].push(by);
        }
        for (host, [networks, unreachable_by]) in &gateway_hosts {
            rows.gateway_host_put(host, networks, unreachable_by);
        }
        rows.loaded();
        Ok(rows)
    }

    /// Reads what is to be counted and written down.
    async fn load_noted(&mut self, conn: &mut Conn) -> Result<(), StoreError> {
        let mut rules: HashMap<String, Vec<MeteringLabelRuleRow>> = HashMap::new();
        for rule in metering::rule_list_all(&mut *conn).await? {
            let of = rules.entry(rule.metering_label_id.clone()).or_default();
            of.push(rule);
        }
        for row in metering::label_list_all(&mut *conn).await? {
            let rules = rules.remove(&row.id).unwrap_or_default();
            self.metering_label_put(row, &rules);
        }
        for row in log::log_list_all(&mut *conn).await? {
            self.log_put(&row);
        }
        Ok(())
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
        for block in gateway::snat_port_block_list_all(&mut *conn).await? {
            let of = parts.entry(block.router_id.clone()).or_default();
            of.snat_port_blocks.push(block);
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

    /// Reads what changed since, or everything if that is too much or not known any more. Answers what that may change
    /// for hosts.
    pub(super) async fn update(&mut self, store: &Store) -> Result<Marks, StoreError> {
        let mut view = store.read().await?;
        self.update_view(view.conn()).await
    }

    /// The same within a view of the database. An error leaves rows that must not be used again.
    pub(super) async fn update_view(&mut self, conn: &mut Conn) -> Result<Marks, StoreError> {
        let revision = store::revision(&mut *conn).await?;
        let changes = store::changes_since(&mut *conn, self.revision, CHANGES_MAX).await?;
        let Some(changes) = changes else {
            *self = Self::load_view(conn).await?;
            return Ok(Marks::everything());
        };
        // Each row once, as it is now, however often it changed.
        let mut changed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for change in &changes {
            let ids = changed.entry(&change.resource).or_default();
            ids.insert(&change.resource_id);
        }
        for (resource, ids) in changed {
            let ids: Vec<&str> = ids.into_iter().collect();
            self.changed(&mut *conn, resource, &ids).await?;
        }
        self.revision = revision;
        Ok(std::mem::take(&mut self.marks))
    }

    /// Takes out a row by its id, if that is one.
    fn gone<K: FromStr>(&mut self, id: &str, remove: impl FnOnce(&mut Self, K)) {
        if let Ok(id) = id.parse() {
            remove(self, id);
        }
    }

    /// Reads changed rows of one kind as they are now: ports together, for there are many.
    pub(super) async fn changed(
        &mut self,
        conn: &mut Conn,
        resource: &str,
        ids: &[&str],
    ) -> Result<(), StoreError> {
        let ports = [Resource::Port.name(), Resource::ClaimedIp.name()];
        if ports.contains(&resource) {
            let mut gone: BTreeSet<&str> = ids.iter().copied().collect();
            for port in port::port_list_ids_for_hosts(conn, ids).await? {
                gone.remove(port.row.id.as_str());
                self.port_put(port);
            }
            for id in gone {
                self.gone(id, Self::port_remove);
            }
            return Ok(());
        }
        for id in ids {
            self.row_changed(&mut *conn, resource, id).await?;
        }
        Ok(())
    }

    /// Reads one changed row as it is now. What hangs on a deleted row by a foreign key goes with it, as it does in
    /// the database.
    async fn row_changed(
        &mut self,
        conn: &mut Conn,
        resource: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        match resource {
            "network" => match store::get::<NetworkRow>(&mut *conn, id).await? {
                Some(row) => {
                    let segments = segment::segment_list(&mut *conn, &[id]).await?;
                    let transit = gateway::transit_get(conn, id).await?;
                    self.network_put(&row, &segments, transit.as_ref());
                }
                None => self.gone(id, |rows, id| rows.network_set(id, None, None)),
            },
            "qos_policy" => match store::get::<QosPolicyRow>(conn, id).await? {
                Some(row) => {
                    let rules = qos_policy::rule_list_policies(conn, &[id]).await?;
                    self.qos_policy_put(&row, &rules);
                }
                None => self.gone(id, |rows, id| rows.qos_policy_set(id, None)),
            },
            "subnet" => match store::get::<SubnetRow>(conn, id).await? {
                Some(row) => self.subnet_changed(conn, row).await?,
                None => self.gone(id, |rows, id| rows.subnet_set(id, None)),
            },
            // Its address scope is that of its subnets.
            "subnetpool" => {
                for row in subnet::subnet_list_pool(&mut *conn, id).await? {
                    self.subnet_changed(conn, row).await?;
                }
            }
            "router" => match store::get::<RouterRow>(&mut *conn, id).await? {
                Some(row) => self.router_changed(conn, row).await?,
                None => self.gone(id, |rows, id| rows.router_set(id, None)),
            },
            "floatingip" => match store::get::<floating_ip::FloatingIpRow>(&mut *conn, id).await? {
                Some(row) => {
                    let forwardings = port_forwarding::port_forwarding_list(conn, &[id]).await?;
                    self.floating_ip_put(&row, &forwardings);
                }
                None => self.gone(id, |rows, id| rows.floating_ip_set(id, (None, None))),
            },
            "local_ip" => match store::get::<LocalIpRow>(&mut *conn, id).await? {
                Some(row) => {
                    let associations = local_ip::association_list(conn, &[id]).await?;
                    self.local_ip_put(&row, &associations);
                }
                None => self.gone(id, |rows, id| rows.local_ip_set(id, None)),
            },
            "security_group" => match store::get::<SecurityGroupRow>(conn, id).await? {
                Some(row) => self.security_group_put(&row),
                None => self.gone(id, Self::security_group_remove),
            },
            "security_group_rule" => match store::get::<SecurityGroupRuleRow>(conn, id).await? {
                Some(row) => self.security_group_rule_put(&row),
                None => self.gone(id, |rows, id| rows.security_group_rule_set(id, None)),
            },
            "address_group" => match store::get::<AddressGroupRow>(conn, id).await? {
                Some(row) => self.address_group_put(&row),
                None => self.gone(id, |rows, id| rows.address_group_set(id, None)),
            },
            _ => self.other_changed(conn, resource, id).await?,
        }
        Ok(())
    }

    /// The same, of what is counted and written down, and of what hosts say of themselves.
    async fn other_changed(
        &mut self,
        conn: &mut Conn,
        resource: &str,
        id: &str,
    ) -> Result<(), StoreError> {
        match resource {
            "metering_label" => match store::get::<MeteringLabelRow>(&mut *conn, id).await? {
                Some(row) => {
                    let rules = metering::metering_label_rule_list(conn, id).await?;
                    self.metering_label_put(row, &rules);
                }
                None => self.gone(id, |rows, id| rows.metering_label_set(id, None)),
            },
            "log" => match store::get::<LogRow>(conn, id).await? {
                Some(row) => self.log_put(&row),
                None => self.gone(id, |rows, id| rows.log_set(id, None)),
            },
            "tunnel_host" => {
                let row = tunnel_host::tunnel_host_get(conn, id).await?;
                self.tunnel_host_put(id, row.as_ref().map(|row| row.tunnel_ip.as_str()));
            }
            "gateway_host" => self.gateway_host_changed(conn, id).await?,
            // Not a host's business.
            _ => {}
        }
        Ok(())
    }

    async fn router_changed(&mut self, conn: &mut Conn, row: RouterRow) -> Result<(), StoreError> {
        let id: &str = &row.id.clone();
        let helpers = conntrack_helper::conntrack_helper_list(&mut *conn, &[id]).await?;
        let parts = RouterParts {
            interfaces: router::interface_list(&mut *conn, &[id]).await?,
            ndp_proxies: ndp_proxy::ndp_proxy_list(&mut *conn, &[id]).await?,
            conntrack_helpers: helpers,
            snat_port_blocks: gateway::snat_port_block_list(conn, id).await?,
        };
        self.router_put(row, parts);
        Ok(())
    }

    async fn subnet_changed(&mut self, conn: &mut Conn, row: SubnetRow) -> Result<(), StoreError> {
        let pool = match &row.subnetpool_id {
            Some(pool) => store::get::<SubnetpoolRow>(conn, pool).await?,
            None => None,
        };
        let scope = pool.and_then(|pool| pool.address_scope_id);
        self.subnet_put(row, scope.as_deref());
        Ok(())
    }

    async fn gateway_host_changed(&mut self, conn: &mut Conn, id: &str) -> Result<(), StoreError> {
        let networks = gateway::physical_network_list(&mut *conn, id).await?;
        let unreachable_by = gateway::unreachable_list(conn, id).await?;
        self.gateway_host_put(id, &networks, &unreachable_by);
        Ok(())
    }

    fn network_put(
        &mut self,
        row: &NetworkRow,
        segments: &[SegmentRow],
        transit: Option<&TransitRow>,
    ) {
        let at = At(Resource::Network, &row.id);
        if let Some(id) = known(at) {
            let policy =
                decoded(at.policy("qos_policy_id", row.qos_policy_id.as_deref())).flatten();
            let transit = transit.and_then(super::gateway::transit);
            let network = decoded(decode::network(row, segments)).flatten();
            let network = network.map(|(network, segments)| {
                let transit = transit.filter(|_| row.external);
                (Network { transit, ..network }, segments)
            });
            self.network_set(id, network, policy);
        }
    }

    fn qos_policy_put(&mut self, row: &QosPolicyRow, rules: &[QosRuleRow]) {
        if let Some(id) = known(At(Resource::QosPolicy, &row.id)) {
            let policy = decoded(super::qos_policy::qos_policy(row, rules)).flatten();
            self.qos_policy_set(id, policy);
        }
    }

    fn tunnel_host_put(&mut self, host: &str, tunnel_ip: Option<&str>) {
        let at = At(Resource::TunnelHost, host);
        if let Some(id) = known(at) {
            let address = tunnel_ip.and_then(|ip| decoded(at.parse("tunnel_ip", ip)));
            let tunnel = address.map(|tunnel_ip| TunnelHost {
                tunnel_ip,
                probed: false,
            });
            self.tunnel_host_set(&id, tunnel);
        }
    }

    fn gateway_host_put(&mut self, host: &str, networks: &[String], unreachable_by: &[String]) {
        if let Some(id) = known(At(Resource::GatewayHost, host)) {
            let names = unreachable_by.iter().filter_map(|name| name.parse().ok());
            let known = GatewayHost {
                physical_networks: networks.iter().cloned().collect(),
                unreachable_by: names.collect(),
            };
            self.gateway_host_set(&id, known);
        }
    }

    fn subnet_put(&mut self, row: SubnetRow, scope: Option<&str>) {
        if let Some(id) = known(At(Resource::Subnet, &row.id)) {
            self.subnet_set(id, decoded(decode::subnet(row, scope)));
        }
    }

    fn metering_label_put(&mut self, row: MeteringLabelRow, rules: &[MeteringLabelRuleRow]) {
        if let Some(id) = known(At(Resource::MeteringLabel, &row.id)) {
            let label = decoded(super::metering::metering_label(row, rules)).flatten();
            self.metering_label_set(id, label);
        }
    }

    fn log_put(&mut self, row: &LogRow) {
        if let Some(id) = known(At(Resource::Log, &row.id)) {
            self.log_set(id, decoded(super::log::log(row)).flatten());
        }
    }

    fn port_put(&mut self, port: PortParts) {
        if let Some(id) = known(At(Resource::Port, &port.row.id)) {
            self.port_set(id, decoded(decode::port(port)));
        }
    }

    fn router_put(&mut self, row: RouterRow, parts: RouterParts) {
        if let Some(id) = known(At(Resource::Router, &row.id)) {
            self.router_set(id, decoded(decode::router(row, parts)));
        }
    }

    fn floating_ip_put(
        &mut self,
        row: &floating_ip::FloatingIpRow,
        forwardings: &[PortForwardingRow],
    ) {
        if let Some(id) = known(At(Resource::FloatingIp, &row.id)) {
            let floating = decoded(super::floating_ip::floating_ip(row)).flatten();
            let forwarded = decoded(super::floating_ip::forwarded_ip(row, forwardings)).flatten();
            self.floating_ip_set(id, (floating, forwarded));
        }
    }

    fn local_ip_put(&mut self, row: &LocalIpRow, associations: &[LocalIpPortAssociationRow]) {
        if let Some(id) = known(At(Resource::LocalIp, &row.id)) {
            self.local_ip_set(id, decoded(decode::local_ip(row, associations)));
        }
    }

    fn security_group_put(&mut self, row: &SecurityGroupRow) {
        if let Some(id) = known(At(Resource::SecurityGroup, &row.id)) {
            self.security_group_set(id, Some(decode::security_group(row)));
        }
    }

    fn address_group_put(&mut self, row: &AddressGroupRow) {
        if let Some(id) = known(At(Resource::AddressGroup, &row.id)) {
            self.address_group_set(id, decoded(decode::address_group(row)));
        }
    }

    fn security_group_rule_put(&mut self, row: &SecurityGroupRuleRow) {
        if let Some(id) = known(At(Resource::SecurityGroupRule, &row.id)) {
            self.security_group_rule_set(id, decoded(decode::security_group_rule(row)));
        }
    }
}

/// A value, or none and a word in the log if it cannot be decoded.
fn decoded<V>(value: Result<V, RowError>) -> Option<V> {
    let missing =
        |error| tracing::error!(%error, "a row cannot be realized; it is treated as missing");
    value.map_err(missing).ok()
}

/// An id, or none and a word in the log if it is none.
fn known<K: FromStr<Err: Display>>(at: At<'_>) -> Option<K> {
    let missing = |error| tracing::error!(%error, "a row cannot be realized");
    at.parse("id", at.1).map_err(missing).ok()
}
