//! Ports, with their addresses and security groups.

use super::claimed_ip::claimed_ip_list;
use super::fixed_ip::by_parents;
use super::list::Column;
use super::port_binding::VhostUser;
use super::qos_policy::{QosRuleRow, rule_list_policies};
use super::row::{self, row};
use super::segment::segment_list;
use super::sql;
use super::trunk::{SubportPlace, places_of_ports, places_of_trunks, trunk_of_parents};
use super::{Conn, JsonText, ListQuery, Resource, Result, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

pub use super::fixed_ip::{
    FixedIpRow, fixed_ip_delete_port, fixed_ip_insert, fixed_ip_list, fixed_ip_owner, ip_key,
    ip_keys_used, ip_of_key, ports_of_subnet, used_by_subnet, used_in_range,
};

/// Neutron's `allowed_address_pairs`, one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    /// A MAC address.
    pub mac_address: String,
    /// An address or a range, as it was given.
    pub ip_address: String,
}

/// Neutron's `extra_dhcp_opts`, one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOpt {
    /// dnsmasq's name of the option, or its number.
    pub opt_name: String,
    /// Its value.
    pub opt_value: String,
    /// 4 or 6.
    pub ip_version: u8,
}

row! {
    /// A port, without its addresses and security groups.
    PortRow: Port in "ports" {
        /// Its network.
        network_id: String,
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it may carry traffic.
        admin_state_up: bool,
        /// In lower case.
        mac_address: String,
        /// The guest's or router's id.
        device_id: String,
        /// `compute:…`, `network:router_interface`, …
        device_owner: String,
        /// ACTIVE, DOWN, ERROR: as its host says.
        status: String,
        /// Anti-spoofing and security groups.
        port_security_enabled: bool,
        /// Further addresses that it may use.
        allowed_address_pairs: JsonText<Vec<AddressPair>>,
        /// Extra DHCP options.
        extra_dhcp_opts: JsonText<Vec<DhcpOpt>>,
        /// The host name told to the guest.
        dns_name: String,
        /// Its domain.
        dns_domain: String,
        /// The host it is bound to; empty for none.
        binding_host_id: String,
        /// normal, direct, …
        binding_vnic_type: String,
        /// As Nova gave it.
        binding_profile: JsonText<Map<String, Json>>,
        /// How the guest finds its vhost-user socket; none for a tap.
        binding_vhost_user: JsonText<Option<VhostUser>>,
        /// Its own QoS policy.
        qos_policy_id: Option<String>,
        /// immediate; deferred until it is bound; none
        ip_allocation: String,
        /// As the tool that watches the physical network says: ACTIVE, DOWN.
        data_plane_status: Option<String>,
        /// Cyborg's profile of the device behind it.
        device_profile: Option<String>,
        /// switchdev
        hardware_offload_type: Option<String>,
        /// Hints for the backend.
        hints: JsonText<Option<Map<String, Json>>>,
        /// required, preferred, legacy, socket
        numa_affinity_policy: Option<String>,
        /// Whether the guest's link follows the host's.
        propagate_uplink_status: bool,
        /// Whether a virtual function may set its own MAC address and receive all.
        trusted: Option<bool>,
        /// Its role in a private VLAN: isolated, promiscuous, community
        pvlan_type: Option<String>,
        /// Its community in a private VLAN.
        pvlan_community: Option<String>,
        /// The project whose network it is in, if that is another's: it sees the port too. A column of its own, so that an
        /// index finds them in order.
        shown_to: Option<String>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("network_id", "network_id IN ({})", "network_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("admin_state_up", "admin_state_up IN ({})", "admin_state_up"),
        Column::sorted("mac_address", "mac_address IN ({})", "mac_address"),
        Column::sorted("device_id", "device_id IN ({})", "device_id"),
        Column::sorted("device_owner", "device_owner IN ({})", "device_owner"),
        Column::sorted("status", "status IN ({})", "status"),
        Column::filter("binding:host_id", "binding_host_id IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("fixed_ips:ip_address",
            "id IN (SELECT port_id FROM port_fixed_ips WHERE ip_address IN ({}))"),
        Column::filter("fixed_ips:subnet_id",
            "id IN (SELECT port_id FROM port_fixed_ips WHERE subnet_id IN ({}))"),
        Column::filter("fixed_ips:ip_address_substr",
            "id IN (SELECT port_id FROM port_fixed_ips WHERE ip_address LIKE '%' || {} || '%')"),
        Column::filter("security_groups",
            "id IN (SELECT port_id FROM port_security_groups WHERE security_group_id IN ({}))"),
        Column::filter("pvlan_type", "pvlan_type IN ({})"),
        Column::filter("pvlan_community", "pvlan_community IN ({})"),
        Column::sorted("ip_allocation", "ip_allocation IN ({})", "ip_allocation"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["shown_to = $1"];
}

/// A port with what hangs on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// The row.
    pub row: PortRow,
    /// In their order.
    pub fixed_ips: Vec<FixedIpRow>,
    /// Ids, in ascending order.
    pub security_groups: Vec<String>,
    /// The network's domain in DNS.
    pub network_dns_domain: String,
    /// The network's QoS policy: it holds for a port without one of its own.
    pub qos_network_policy_id: Option<String>,
    /// What the scheduler must find room for.
    pub guarantees: Guarantees,
    /// The trunk that it is the parent of.
    pub trunk: Option<TrunkDetails>,
    /// Its place, if it is a trunk's subport.
    pub subport: Option<SubportPlace>,
    /// Addresses of its pairs that its guest says it has; read for hosts only.
    pub claimed_ips: Vec<String>,
}

/// What is reached through a port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrunkDetails {
    /// The trunk.
    pub trunk_id: String,
    /// By their place.
    pub subports: Vec<SubportPlace>,
}

/// What the QoS policy of a port promises.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guarantees {
    /// The policy's rules, by id; those without a promise too.
    pub rules: Vec<QosRuleRow>,
    /// The physical network of the port's network; none if it is tunnelled.
    pub physical_network: Option<String>,
}

/// Reads what hangs on some ports.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn complete(conn: &mut Conn, rows: Vec<PortRow>) -> Result<Vec<Port>> {
    let mut ports = with_addresses(conn, rows).await?;
    network_complete(conn, &mut ports).await?;
    trunk_complete(conn, &mut ports).await?;
    Ok(ports)
}

/// Adds the addresses and security groups of some ports.
async fn with_addresses(conn: &mut Conn, rows: Vec<PortRow>) -> Result<Vec<Port>> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut fixed_ips: HashMap<String, Vec<FixedIpRow>> = HashMap::new();
    for ip in fixed_ip_list(&mut *conn, &ids).await? {
        fixed_ips.entry(ip.port_id.clone()).or_default().push(ip);
    }
    let bindings: Vec<(String, String)> = by_parents(
        conn,
        "SELECT port_id, security_group_id FROM port_security_groups WHERE port_id IN",
        "ORDER BY port_id, security_group_id",
        &ids,
    )
    .await?;
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for (port, group) in bindings {
        groups.entry(port).or_default().push(group);
    }
    let port = |row: PortRow| Port {
        fixed_ips: fixed_ips.remove(&row.id).unwrap_or_default(),
        security_groups: groups.remove(&row.id).unwrap_or_default(),
        row,
        ..Port::default()
    };
    Ok(rows.into_iter().map(port).collect())
}

/// Reads what hosts must know of some ports: addresses, security groups and places in trunks, and not what only the
/// API shows.
async fn complete_for_hosts(conn: &mut Conn, rows: Vec<PortRow>) -> Result<Vec<Port>> {
    let mut ports = with_addresses(conn, rows).await?;
    let ids: Vec<&str> = ports.iter().map(|port| port.row.id.as_str()).collect();
    let places = places_of_ports(conn, &ids).await?;
    let mut places: HashMap<String, SubportPlace> = places
        .into_iter()
        .map(|place| (place.port_id.clone(), place))
        .collect();
    let mut claimed: HashMap<String, Vec<String>> = HashMap::new();
    for (port, ip) in claimed_ip_list(conn, &ids).await? {
        claimed.entry(port).or_default().push(ip);
    }
    for port in &mut ports {
        port.subport = places.remove(&port.row.id);
        port.claimed_ips = claimed.remove(&port.row.id).unwrap_or_default();
    }
    Ok(ports)
}

/// Reads what trunks mean for some ports.
async fn trunk_complete(conn: &mut Conn, ports: &mut [Port]) -> Result<()> {
    let ids: Vec<&str> = ports.iter().map(|port| port.row.id.as_str()).collect();
    let trunks: HashMap<String, String> = trunk_of_parents(conn, &ids).await?.into_iter().collect();
    let places = places_of_ports(conn, &ids).await?;
    let mut places: HashMap<String, SubportPlace> = places
        .into_iter()
        .map(|place| (place.port_id.clone(), place))
        .collect();
    let mut subports: HashMap<String, Vec<SubportPlace>> = HashMap::new();
    if !trunks.is_empty() {
        let ids: Vec<&str> = trunks.values().map(String::as_str).collect();
        for place in places_of_trunks(conn, &ids).await? {
            subports
                .entry(place.trunk_id.clone())
                .or_default()
                .push(place);
        }
    }
    for port in ports {
        port.subport = places.remove(&port.row.id);
        port.trunk = trunks.get(&port.row.id).map(|trunk| TrunkDetails {
            trunk_id: trunk.clone(),
            subports: subports.remove(trunk).unwrap_or_default(),
        });
    }
    Ok(())
}

/// Reads what some ports have of their networks: QoS policies and what they promise, domains.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn network_complete(conn: &mut Conn, ports: &mut [Port]) -> Result<()> {
    let distinct: BTreeSet<String> = ports.iter().map(|p| p.row.network_id.clone()).collect();
    let networks: Vec<&str> = distinct.iter().map(String::as_str).collect();
    let of_networks: Vec<(String, Option<String>, String)> = by_parents(
        conn,
        "SELECT id, qos_policy_id, dns_domain FROM networks WHERE id IN",
        "",
        &networks,
    )
    .await?;
    let of_networks: HashMap<String, (Option<String>, String)> = of_networks
        .into_iter()
        .map(|(id, policy, domain)| (id, (policy, domain)))
        .collect();
    for port in &mut *ports {
        if let Some((policy, domain)) = of_networks.get(&port.row.network_id) {
            port.qos_network_policy_id.clone_from(policy);
            port.network_dns_domain.clone_from(domain);
        }
    }
    let distinct: BTreeSet<&str> = ports.iter().filter_map(Port::qos_policy).collect();
    let policies: Vec<&str> = distinct.into_iter().collect();
    if policies.is_empty() {
        return Ok(());
    }
    let mut rules: HashMap<String, Vec<QosRuleRow>> = HashMap::new();
    for rule in rule_list_policies(conn, &policies).await? {
        rules.entry(rule.policy_id.clone()).or_default().push(rule);
    }
    let mut physical: HashMap<String, Option<String>> = HashMap::new();
    for segment in segment_list(conn, &networks).await?.into_iter().rev() {
        // The first segment comes last, and stays.
        physical.insert(segment.network_id, segment.physical_network);
    }
    for port in ports {
        let policy = port.qos_policy();
        port.guarantees = Guarantees {
            rules: policy
                .and_then(|id| rules.get(id))
                .cloned()
                .unwrap_or_default(),
            physical_network: physical.get(&port.row.network_id).cloned().flatten(),
        };
    }
    Ok(())
}

impl Port {
    /// The QoS policy that holds for it.
    #[must_use]
    pub fn qos_policy(&self) -> Option<&str> {
        let own = self.row.qos_policy_id.as_deref();
        own.or(self.qos_network_policy_id.as_deref())
    }
}

/// Reads a port.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_get(conn: &mut Conn, id: &str) -> Result<Option<Port>> {
    let rows = row::fetch(&mut *conn, "id = $1", &[id]).await?;
    Ok(complete(conn, rows).await?.into_iter().next())
}

/// Reads some ports, by id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_ids(conn: &mut Conn, ids: &[&str]) -> Result<Vec<Port>> {
    let select = format!("{}id IN", <PortRow as super::Row>::sql().select);
    let rows = by_parents(&mut *conn, &select, "ORDER BY id", ids).await?;
    complete(conn, rows).await
}

/// Reads the ports that a query asks for.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list(conn: &mut Conn, query: &ListQuery) -> Result<Vec<Port>> {
    let rows: Vec<Box<PortRow>> = row::list(&mut *conn, query).await?;
    complete(conn, rows.into_iter().map(|row| *row).collect()).await
}

/// The ports bound to a host.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_host(conn: &mut Conn, host: &str) -> Result<Vec<Port>> {
    // The second condition lets the partial index serve.
    let rows = row::fetch(
        &mut *conn,
        "binding_host_id = $1 AND binding_host_id <> '' ORDER BY id",
        &[host],
    )
    .await?;
    complete(conn, rows).await
}

/// The ports of a network.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_network(conn: &mut Conn, network: &str) -> Result<Vec<Port>> {
    let rows = row::fetch(&mut *conn, "network_id = $1 ORDER BY id", &[network]).await?;
    complete(conn, rows).await
}

/// The ports with a device id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_device(conn: &mut Conn, device: &str) -> Result<Vec<Port>> {
    let rows = row::fetch(
        &mut *conn,
        "device_id = $1 AND device_id <> '' ORDER BY id",
        &[device],
    )
    .await?;
    complete(conn, rows).await
}

/// The ports in a security group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_security_group(conn: &mut Conn, group: &str) -> Result<Vec<Port>> {
    let condition =
        "id IN (SELECT port_id FROM port_security_groups WHERE security_group_id = $1) ORDER BY id";
    let rows = row::fetch(&mut *conn, condition, &[group]).await?;
    complete(conn, rows).await
}

/// Reads some ports, by id, as far as hosts must know of them.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_ids_for_hosts(conn: &mut Conn, ids: &[&str]) -> Result<Vec<Port>> {
    let select = format!("{}id IN", <PortRow as super::Row>::sql().select);
    let rows = by_parents(&mut *conn, &select, "ORDER BY id", ids).await?;
    complete_for_hosts(conn, rows).await
}

/// All ports behind one, in order of their ids, as far as hosts must know of them; not all at once, for there may be
/// a million. None are left when it answers with nothing.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_list_page_for_hosts(conn: &mut Conn, after: &str) -> Result<Vec<Port>> {
    let rows = row::fetch(&mut *conn, "id > $1 ORDER BY id LIMIT 2000", &[after]).await?;
    complete_for_hosts(conn, rows).await
}

/// The hosts that ports are bound to.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn host_list(conn: &mut Conn) -> Result<Vec<String>> {
    sql::query_scalar(
        "SELECT DISTINCT binding_host_id FROM ports WHERE binding_host_id <> '' ORDER BY binding_host_id",
    )
    .fetch_all(conn)
    .await
}

/// Replaces a port's security groups.
///
/// # Errors
/// [`super::StoreError::Reference`] if a group does not exist.
pub async fn security_groups_set(tx: &mut WriteTx, port: &str, groups: &[String]) -> Result<()> {
    tx.touch(Resource::Port, port).await?;
    sql::query("DELETE FROM port_security_groups WHERE port_id = $1")
        .bind(port)
        .execute(tx.conn())
        .await?;
    for group in groups {
        sql::query("INSERT INTO port_security_groups (port_id, security_group_id) VALUES ($1, $2)")
            .bind(port)
            .bind(group)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// Says how a port that the same transaction has made gets its addresses: that comes with it, and is no change of it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ip_allocation_set(tx: &mut WriteTx, port: &str, ip_allocation: &str) -> Result<()> {
    sql::query("UPDATE ports SET ip_allocation = $2 WHERE id = $1")
        .bind(port)
        .bind(ip_allocation)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Sets a port's status as its host reports it; whether it was another before. Takes no revision: hosts do not
/// act on a status.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_status_set(
    tx: &mut WriteTx,
    port: &str,
    host: &str,
    status: &str,
) -> Result<bool> {
    let now = tx.now();
    let done = sql::query(
        "UPDATE ports SET status = $3, updated_at = $4, revision_number = revision_number + 1 \
         WHERE id = $1 AND binding_host_id = $2 AND status <> $3",
    )
    .bind(port)
    .bind(host)
    .bind(status)
    .bind(now)
    .execute(tx.conn())
    .await?;
    if done > 0 {
        tx.announce_status(port, status).await?;
    }
    Ok(done > 0)
}

/// Whether a port of the network has this MAC address.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn mac_taken(conn: &mut Conn, network: &str, mac: &str) -> Result<bool> {
    let found: Option<i64> =
        sql::query_scalar("SELECT 1 FROM ports WHERE network_id = $1 AND mac_address = $2")
            .bind(network)
            .bind(mac)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// The hosts that some ports are bound to, each once.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn hosts_of_ports(conn: &mut Conn, ports: &[&str]) -> Result<Vec<String>> {
    let hosts: Vec<(String,)> = by_parents(
        conn,
        "SELECT DISTINCT binding_host_id FROM ports WHERE binding_host_id <> '' AND id IN",
        "",
        ports,
    )
    .await?;
    Ok(hosts.into_iter().map(|(host,)| host).collect())
}

/// A port that is bound to a host, as that one must know it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn port_get_for_host(conn: &mut Conn, id: &str, host: &str) -> Result<Option<Port>> {
    let condition = "id = $1 AND binding_host_id = $2 AND port_security_enabled";
    let rows = row::fetch(&mut *conn, condition, &[id, host]).await?;
    Ok(complete_for_hosts(conn, rows).await?.into_iter().next())
}

/// Whether a port of the network that is bound to a host, or is one of Weft's own services, has an address.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn address_is_lived_under(
    conn: &mut Conn,
    network: &str,
    address: IpAddr,
) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM port_fixed_ips f JOIN ports p ON p.id = f.port_id \
         WHERE f.subnet_id IN (SELECT s.id FROM subnets s WHERE s.network_id = $1) \
         AND f.ip_key = $2 AND (p.binding_host_id <> '' OR p.device_owner LIKE 'network:%') LIMIT 1",
    )
    .bind(network)
    .bind(ip_key(address))
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}
