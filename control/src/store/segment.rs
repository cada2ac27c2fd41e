//! Segments: where networks live on the wire, and which numbers are free for them.

use super::list::Column;
use super::row::{self, row};
use super::sql;
use super::{Conn, Resource, Result, WriteTx};

row! {
    /// Where a network lives on the wire. A network may have several.
    SegmentRow: Segment in "network_segments" {
        /// Its network.
        network_id: String,
        /// Its place among the network's segments, in ascending order.
        segment_index: i64,
        /// For people.
        name: Option<String>,
        /// For people.
        description: String,
        /// As in `provider:network_type`.
        network_type: String,
        /// flat, vlan: the physical network.
        physical_network: Option<String>,
        /// vlan, vxlan, gre, geneve: the number.
        segmentation_id: Option<i64>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "COALESCE(name, '')"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("network_id", "network_id IN ({})", "network_id"),
        Column::sorted("network_type", "network_type IN ({})", "network_type"),
        Column::sorted("physical_network", "physical_network IN ({})",
            "COALESCE(physical_network, '')"),
        Column::sorted("segmentation_id", "segmentation_id IN ({})", "COALESCE(segmentation_id, -1)"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

/// The segments of some networks, by network and place.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segment_list(conn: &mut Conn, networks: &[&str]) -> Result<Vec<SegmentRow>> {
    let select = format!("{}network_id IN", <SegmentRow as super::Row>::sql().select);
    let order = "ORDER BY network_id, segment_index";
    super::fixed_ip::by_parents(conn, &select, order, networks).await
}

/// All segments of all networks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segment_list_all(conn: &mut Conn) -> Result<Vec<SegmentRow>> {
    row::fetch(conn, "TRUE ORDER BY network_id, segment_index", &[]).await
}

/// Gives a network a segment.
///
/// # Errors
/// [`super::StoreError::Conflict`] if another network has it.
pub async fn segment_insert(tx: &mut WriteTx, segment: &mut SegmentRow) -> Result<()> {
    tx.touch(Resource::Network, &segment.network_id).await?;
    row::insert(tx, segment).await
}

/// Changes a segment, and so its network.
///
/// # Errors
/// [`super::StoreError::Conflict`] if another network has it.
pub async fn segment_update(tx: &mut WriteTx, segment: &mut SegmentRow) -> Result<()> {
    tx.touch(Resource::Network, &segment.network_id).await?;
    row::update(tx, segment).await
}

/// Takes a segment from its network.
///
/// # Errors
/// [`super::StoreError::Reference`] if a subnet is on it.
pub async fn segment_delete(tx: &mut WriteTx, segment: &SegmentRow) -> Result<()> {
    tx.touch(Resource::Network, &segment.network_id).await?;
    row::delete::<SegmentRow>(tx, &segment.id).await
}

/// The ids of the subnets on a segment.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn subnets_of_segment(conn: &mut Conn, segment: &str) -> Result<Vec<String>> {
    sql::query_scalar("SELECT id FROM subnets WHERE segment_id = $1 ORDER BY id")
        .bind(segment)
        .fetch_all(conn)
        .await
}

/// The smallest number in `first..=last` that no segment of this kind, and no transit, has. Walks the index only over the
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
           UNION ALL \
           SELECT vni + 1 FROM transits WHERE $1 = 'vxlan' AND vni BETWEEN $3 AND $4 \
         ) AS candidates WHERE candidate <= $4 AND NOT EXISTS ( \
           SELECT 1 FROM network_segments s WHERE s.network_type = $1 \
             AND (s.physical_network = $2 OR $2 IS NULL) AND s.segmentation_id = candidate) \
         AND NOT EXISTS (SELECT 1 FROM transits t WHERE $1 = 'vxlan' AND t.vni = candidate)",
    )
    .bind(network_type)
    .bind(physical_network)
    .bind(first)
    .bind(last)
    .fetch_one(conn)
    .await
}

/// The numbers in use in `first..=last`, in order, each with its network's project.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segmentation_ids_used(
    conn: &mut Conn,
    network_type: &str,
    physical_network: Option<&str>,
    first: i64,
    last: i64,
) -> Result<Vec<(i64, String)>> {
    sql::query_as(
        "SELECT s.segmentation_id, n.project_id FROM network_segments s \
         JOIN networks n ON n.id = s.network_id \
         WHERE s.network_type = $1 AND (s.physical_network = $2 OR $2 IS NULL) \
           AND s.segmentation_id BETWEEN $3 AND $4 ORDER BY s.segmentation_id",
    )
    .bind(network_type)
    .bind(physical_network)
    .bind(first)
    .bind(last)
    .fetch_all(conn)
    .await
}
