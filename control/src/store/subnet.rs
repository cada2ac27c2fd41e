//! Subnets, and where the search for their next free address starts.

use super::list::Column;
use super::row::{self, row};
use super::sql;
use super::{Conn, JsonText, Result, WriteTx};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Addresses that may be given out, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationPool {
    /// The first address.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
}

/// A route: `host_routes` of a subnet, `routes` of a router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: ipnet::IpNet,
    /// By which neighbour.
    pub nexthop: IpAddr,
}

row! {
    /// A subnet.
    SubnetRow: Subnet in "subnets" {
        /// Its network.
        network_id: String,
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// 4 or 6.
        ip_version: i64,
        /// The range, host bits zero.
        cidr: String,
        /// The gateway told to guests.
        gateway_ip: Option<String>,
        /// Whether the host answers DHCP.
        enable_dhcp: bool,
        /// slaac, dhcpv6-stateful, dhcpv6-stateless
        ipv6_ra_mode: Option<String>,
        /// slaac, dhcpv6-stateful, dhcpv6-stateless
        ipv6_address_mode: Option<String>,
        /// In ascending order, disjoint.
        allocation_pools: JsonText<Vec<AllocationPool>>,
        /// In the order given.
        dns_nameservers: JsonText<Vec<IpAddr>>,
        /// Routes told to guests.
        host_routes: JsonText<Vec<Route>>,
        /// Device owners that may take addresses here; empty for all.
        service_types: JsonText<Vec<String>>,
        /// Whether fixed addresses are published in DNS.
        dns_publish_fixed_ip: bool,
        /// The pool that its range is from.
        subnetpool_id: Option<String>,
        /// The key of its range's first address, if it is from a pool.
        first_key: String,
        /// The key of its range's last address, if it is from a pool.
        last_key: String,
        /// The segment that it is on, in a routed network.
        segment_id: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("network_id", "network_id IN ({})", "network_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("ip_version", "ip_version IN ({})", "ip_version"),
        Column::sorted("cidr", "cidr IN ({})", "cidr"),
        Column::sorted("gateway_ip", "gateway_ip IN ({})", "COALESCE(gateway_ip, '')"),
        Column::sorted("enable_dhcp", "enable_dhcp IN ({})", "enable_dhcp"),
        Column::sorted("ipv6_ra_mode", "ipv6_ra_mode IN ({})", "COALESCE(ipv6_ra_mode, '')"),
        Column::sorted("ipv6_address_mode", "ipv6_address_mode IN ({})",
            "COALESCE(ipv6_address_mode, '')"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("shared",
            "(network_id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'network' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})"),
        Column::filter("router:external",
            "(SELECT n.external FROM networks n WHERE n.id = network_id) IN ({})"),
        Column::sorted("subnetpool_id", "subnetpool_id IN ({})", "COALESCE(subnetpool_id, '')"),
        Column::sorted("segment_id", "segment_id IN ({})", "COALESCE(segment_id, '')"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["network_id IN (SELECT n.id FROM networks n WHERE n.project_id = $1 \
          UNION ALL SELECT object_id FROM rbac_policies WHERE object_type = 'network' \
          AND target_project IN ('*', $1))"];
}

/// The subnets of a network.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_list_network(conn: &mut Conn, network: &str) -> Result<Vec<SubnetRow>> {
    row::fetch(conn, "network_id = $1 ORDER BY id", &[network]).await
}

/// The IPv4 subnets of external networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_list_external(conn: &mut Conn) -> Result<Vec<SubnetRow>> {
    let condition = "ip_version = 4 AND network_id IN \
         (SELECT n.id FROM networks n WHERE n.external) ORDER BY id";
    row::fetch(conn, condition, &[]).await
}

/// The subnets of some networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_list_networks(conn: &mut Conn, networks: &[&str]) -> Result<Vec<SubnetRow>> {
    let select = format!("{}network_id IN", <SubnetRow as super::Row>::sql().select);
    super::fixed_ip::by_parents(conn, &select, "ORDER BY network_id, id", networks).await
}

/// The subnets from a pool.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_list_pool(conn: &mut Conn, pool: &str) -> Result<Vec<SubnetRow>> {
    row::fetch(conn, "subnetpool_id = $1", &[pool]).await
}

/// All subnets.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_list_all(conn: &mut Conn) -> Result<Vec<SubnetRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// The key behind which the search for a free address starts; none before the first allocation.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursor_get(conn: &mut Conn, subnet: &str) -> Result<Option<String>> {
    sql::query_scalar("SELECT ip_key FROM subnet_cursors WHERE subnet_id = $1")
        .bind(subnet)
        .fetch_optional(conn)
        .await
}

/// Remembers where the next search starts.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn cursor_set(tx: &mut WriteTx, subnet: &str, ip_key: &str) -> Result<()> {
    sql::query(
        "INSERT INTO subnet_cursors (subnet_id, ip_key) VALUES ($1, $2) \
         ON CONFLICT (subnet_id) DO UPDATE SET ip_key = excluded.ip_key",
    )
    .bind(subnet)
    .bind(ip_key)
    .execute(tx.conn())
    .await?;
    Ok(())
}
