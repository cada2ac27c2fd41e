//! Ranges of numbers for segments.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result};

row! {
    /// A range.
    NetworkSegmentRangeRow: NetworkSegmentRange in "network_segment_ranges" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it is the configuration's.
        is_default: bool,
        /// Whether every project's networks may take from it.
        shared: bool,
        /// vlan, vxlan, gre, geneve
        network_type: String,
        /// vlan: the physical network; else empty.
        physical_network: String,
        /// The first number.
        minimum: i64,
        /// The last number.
        maximum: i64,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::filter("network_type", "network_type IN ({})"),
        Column::filter("physical_network", "physical_network IN ({})"),
        Column::filter("minimum", "minimum IN ({})"),
        Column::filter("maximum", "maximum IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

/// The ranges of a kind, in ascending order.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn range_list_kind(
    conn: &mut Conn,
    network_type: &str,
    physical_network: &str,
) -> Result<Vec<NetworkSegmentRangeRow>> {
    row::fetch(
        conn,
        "network_type = $1 AND physical_network = $2 ORDER BY minimum, id",
        &[network_type, physical_network],
    )
    .await
}

/// The ranges of the configuration.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn range_list_default(conn: &mut Conn) -> Result<Vec<NetworkSegmentRangeRow>> {
    row::fetch(conn, "is_default ORDER BY id", &[]).await
}
