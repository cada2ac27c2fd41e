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

/// A number in `first..=last` that no segment of this kind, and no transit, has: the one behind the highest that is in use;
/// if that is the last, one of some that `chance` picks; if they are all in use, the smallest. The first two cost the same
/// however many are in use, so that to make many networks costs each of them as much.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn segmentation_id_free(
    conn: &mut Conn,
    kind: (&str, Option<&str>),
    (first, last): (i64, i64),
    chance: u128,
) -> Result<Option<i64>> {
    let highest: Option<i64> = numbers(
        kind,
        "SELECT MAX(number) FROM ( \
           SELECT MAX(segmentation_id) AS number FROM network_segments \
           WHERE {segments} AND segmentation_id BETWEEN $3 AND $4 \
           UNION ALL \
           SELECT MAX(vni) AS number FROM transits WHERE $1 = 'vxlan' AND vni BETWEEN $3 AND $4 \
         ) AS highest",
        (first, last),
    )
    .fetch_one(&mut *conn)
    .await?;
    match highest {
        None => return Ok((first <= last).then_some(first)),
        Some(highest) if highest < last => return Ok(Some(highest + 1)),
        Some(_) => {}
    }
    let room = (last - first).unsigned_abs() + 1;
    for turn in 0..CHANCES {
        // Sixteen bits further each time.
        let number = u64::try_from(chance.rotate_right(16 * turn) & u128::from(u64::MAX));
        let offset = number.unwrap_or_default() % room;
        let number = first + i64::try_from(offset).unwrap_or_default();
        let used = numbers(
            kind,
            "SELECT segmentation_id FROM network_segments \
             WHERE {segments} AND segmentation_id BETWEEN $3 AND $4 \
             UNION ALL \
             SELECT vni FROM transits WHERE $1 = 'vxlan' AND vni BETWEEN $3 AND $4",
            (number, number),
        )
        .fetch_optional(&mut *conn)
        .await?;
        if used.is_none() {
            return Ok(Some(number));
        }
    }
    // A gap begins at the range's beginning or behind a number in use.
    numbers(
        kind,
        "SELECT MIN(candidate) FROM ( \
           SELECT $3 AS candidate \
           UNION ALL \
           SELECT segmentation_id + 1 FROM network_segments \
           WHERE {segments} AND segmentation_id BETWEEN $3 AND $4 \
           UNION ALL \
           SELECT vni + 1 FROM transits WHERE $1 = 'vxlan' AND vni BETWEEN $3 AND $4 \
         ) AS candidates WHERE candidate <= $4 AND NOT EXISTS ( \
           SELECT 1 FROM network_segments WHERE {segments} AND segmentation_id = candidate) \
         AND NOT EXISTS (SELECT 1 FROM transits t WHERE $1 = 'vxlan' AND t.vni = candidate)",
        (first, last),
    )
    .fetch_one(conn)
    .await
}

/// Numbers that are tried before all are looked through.
const CHANCES: u32 = 8;

/// A question about the numbers of a kind of segments, which are `{segments}` in it; `$3` and `$4` are a range.
fn numbers<'q>(
    (network_type, physical_network): (&'q str, Option<&'q str>),
    question: &str,
    (first, last): (i64, i64),
) -> sql::QueryScalar<'q, Option<i64>> {
    // Each for itself, so that the index serves.
    let segments = match physical_network {
        Some(_) => "network_type = $1 AND physical_network = $2",
        None => "network_type = $1 AND physical_network IS NULL AND $2 IS NULL",
    };
    let text = question.replace("{segments}", segments);
    sql::query_scalar(sql::AssertSqlSafe(text))
        .bind(network_type)
        .bind(physical_network)
        .bind(first)
        .bind(last)
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
