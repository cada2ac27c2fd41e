//! Networks.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, JsonText, Result};

row! {
    /// A network.
    NetworkRow: Network in "networks" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it may carry traffic.
        admin_state_up: bool,
        /// `router:external`
        external: bool,
        /// Whether auto-allocated topologies use it.
        is_default: bool,
        /// Bytes of the largest IP packet.
        mtu: i64,
        /// The default of its ports.
        port_security_enabled: bool,
        /// The domain told to guests.
        dns_domain: String,
        /// Names of availability zones.
        availability_zone_hints: JsonText<Vec<String>>,
        /// The QoS policy of its guests' ports that have none of their own.
        qos_policy_id: Option<String>,
        /// Whether guests may send frames with VLAN tags; none where nobody said.
        vlan_transparent: Option<bool>,
        /// Whether its ports have roles: a private VLAN.
        pvlan: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("admin_state_up", "admin_state_up IN ({})", "admin_state_up"),
        Column::sorted("mtu", "mtu IN ({})", "mtu"),
        Column::filter("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'network' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})"),
        Column::filter("router:external", "external IN ({})"),
        Column::filter("is_default", "is_default IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::sorted("availability_zone_hints", "availability_zone_hints IN ({})",
            "availability_zone_hints"),
        Column::filter("vlan_transparent", "vlan_transparent IN ({})"),
        Column::filter("pvlan", "pvlan IN ({})"),
        Column::sorted("status", "'ACTIVE' IN ({})", "id"),
        Column::filter("provider:network_type",
            "id IN (SELECT network_id FROM network_segments WHERE network_type IN ({}))"),
        Column::filter("provider:physical_network",
            "id IN (SELECT network_id FROM network_segments WHERE physical_network IN ({}))"),
        Column::filter("provider:segmentation_id",
            "id IN (SELECT network_id FROM network_segments WHERE segmentation_id IN ({}))"),
        Column::filter("changed_since", "updated_at >= {}"),
        // What one DHCP agent serves; the API asks for it by a path of its own.
        Column::filter("dhcp_agent",
            "id IN (SELECT network_id FROM dhcp_agent_networks WHERE agent_id = {} AND hosted) \
             OR (id IN (SELECT network_id FROM subnets WHERE enable_dhcp) \
              AND id NOT IN (SELECT network_id FROM dhcp_agent_networks WHERE agent_id = {}))"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'network' \
                  AND target_project IN ('*', $1))"];
}

/// The subnets of some networks, in order: network, subnet, segment.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_ids(
    conn: &mut Conn,
    networks: &[&str],
) -> Result<Vec<(String, String, Option<String>)>> {
    super::fixed_ip::by_parents(
        conn,
        "SELECT network_id, id, segment_id FROM subnets WHERE network_id IN",
        "ORDER BY network_id, id",
        networks,
    )
    .await
}

/// The external network that is the default.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn network_default(conn: &mut Conn) -> Result<Option<NetworkRow>> {
    let rows = row::fetch(conn, "is_default AND external ORDER BY id LIMIT 1", &[]).await?;
    Ok(rows.into_iter().next())
}

/// Which of some networks are external.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn external_of(conn: &mut Conn, networks: &[&str]) -> Result<Vec<String>> {
    let ids: Vec<(String,)> = super::fixed_ip::by_parents(
        conn,
        "SELECT id FROM networks WHERE external AND id IN",
        "ORDER BY id",
        networks,
    )
    .await?;
    Ok(ids.into_iter().map(|(id,)| id).collect())
}

/// The id of a project's network of this name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn network_named(conn: &mut Conn, project: &str, name: &str) -> Result<Option<String>> {
    super::sql::query_scalar(
        "SELECT id FROM networks WHERE project_id = $1 AND name = $2 ORDER BY id",
    )
    .bind(project)
    .bind(name)
    .fetch_optional(conn)
    .await
}

/// All networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn network_list_all(conn: &mut Conn) -> Result<Vec<NetworkRow>> {
    row::fetch(conn, "TRUE", &[]).await
}
