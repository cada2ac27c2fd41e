//! Networks and their segments.

use super::list::Column;
use super::row::row;
use super::sql::{self, record};
use super::{Conn, JsonText, Resource, Result, WriteTx, row};

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
        Column::sorted("status", "'ACTIVE' IN ({})", "id"),
        Column::filter("provider:network_type",
            "id IN (SELECT network_id FROM network_segments WHERE network_type IN ({}))"),
        Column::filter("provider:physical_network",
            "id IN (SELECT network_id FROM network_segments WHERE physical_network IN ({}))"),
        Column::filter("provider:segmentation_id",
            "id IN (SELECT network_id FROM network_segments WHERE segmentation_id IN ({}))"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible Some("id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'network' \
                  AND target_project IN ('*', $1))");
}

record! {
    /// Where a network lives on the wire. A network has at least one.
    pub struct SegmentRow {
        /// Its UUID.
        pub id: String,
        /// Its network.
        pub network_id: String,
        /// Its place among the network's segments, from 0.
        pub segment_index: i64,
        /// As in `provider:network_type`.
        pub network_type: String,
        /// flat, vlan: the physical network.
        pub physical_network: Option<String>,
        /// vlan, vxlan, gre, geneve: the number.
        pub segmentation_id: Option<i64>,
    }
}

/// The segments of some networks, by network and place.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segment_list(conn: &mut Conn, networks: &[&str]) -> Result<Vec<SegmentRow>> {
    super::fixed_ip::by_parents(
        conn,
        "SELECT id, network_id, segment_index, network_type, physical_network, segmentation_id \
         FROM network_segments WHERE network_id IN",
        "ORDER BY network_id, segment_index",
        networks,
    )
    .await
}

/// All segments of all networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segment_list_all(conn: &mut Conn) -> Result<Vec<SegmentRow>> {
    sql::query_as(
        "SELECT id, network_id, segment_index, network_type, physical_network, segmentation_id \
         FROM network_segments ORDER BY network_id, segment_index",
    )
    .fetch_all(conn)
    .await
}

/// Gives a network a segment.
///
/// # Errors
/// [`super::StoreError::Conflict`] if another network has it.
pub async fn segment_insert(tx: &mut WriteTx, segment: &SegmentRow) -> Result<()> {
    tx.touch(Resource::Network, &segment.network_id).await?;
    sql::query(
        "INSERT INTO network_segments \
         (id, network_id, segment_index, network_type, physical_network, segmentation_id) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&segment.id)
    .bind(&segment.network_id)
    .bind(segment.segment_index)
    .bind(&segment.network_type)
    .bind(&segment.physical_network)
    .bind(segment.segmentation_id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The smallest number in `first..=last` that no segment of this kind has. Walks the index only over the
/// numbers in use at the range's beginning.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segmentation_id_free(
    conn: &mut Conn,
    network_type: &str,
    physical_network: Option<&str>,
    first: i64,
    last: i64,
) -> Result<Option<i64>> {
    // A gap begins at the range's beginning or behind a number in use.
    sql::query_scalar(
        "SELECT MIN(candidate) FROM ( \
           SELECT $3 AS candidate \
           UNION ALL \
           SELECT segmentation_id + 1 FROM network_segments \
           WHERE network_type = $1 AND (physical_network = $2 OR $2 IS NULL) \
             AND segmentation_id BETWEEN $3 AND $4 \
         ) AS candidates WHERE candidate <= $4 AND NOT EXISTS ( \
           SELECT 1 FROM network_segments s WHERE s.network_type = $1 \
             AND (s.physical_network = $2 OR $2 IS NULL) AND s.segmentation_id = candidate)",
    )
    .bind(network_type)
    .bind(physical_network)
    .bind(first)
    .bind(last)
    .fetch_one(conn)
    .await
}

/// The ids of a network's subnets, in order.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnet_ids(conn: &mut Conn, networks: &[&str]) -> Result<Vec<(String, String)>> {
    super::fixed_ip::by_parents(
        conn,
        "SELECT network_id, id FROM subnets WHERE network_id IN",
        "ORDER BY network_id, id",
        networks,
    )
    .await
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

/// All networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn network_list_all(conn: &mut Conn) -> Result<Vec<NetworkRow>> {
    row::fetch(conn, "TRUE", &[]).await
}
