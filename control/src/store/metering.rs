//! Metering labels and their rules.

use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result};

row! {
    /// What is counted together.
    MeteringLabelRow: MeteringLabel in "metering_labels" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether it counts the traffic of all projects' routers.
        shared: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("description", "description IN ({})", "description"),
        Column::sorted("shared", "shared IN ({})", "shared"),
    ];
    visible &[];
}

row! {
    /// Traffic that a label counts, or leaves out.
    MeteringLabelRuleRow: MeteringLabelRule in "metering_label_rules" {
        /// The label.
        metering_label_id: String,
        /// ingress, egress: as the router's gateway sees it.
        direction: String,
        /// The range outside the cloud.
        remote_ip_prefix: Option<String>,
        /// Where it comes from.
        source_ip_prefix: Option<String>,
        /// Where it goes.
        destination_ip_prefix: Option<String>,
        /// Whether it is left out.
        excluded: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("metering_label_id", "metering_label_id IN ({})", "metering_label_id"),
        Column::sorted("direction", "direction IN ({})", "direction"),
        Column::sorted("remote_ip_prefix", "remote_ip_prefix IN ({})", "remote_ip_prefix"),
        Column::sorted("source_ip_prefix", "source_ip_prefix IN ({})", "source_ip_prefix"),
        Column::sorted("destination_ip_prefix", "destination_ip_prefix IN ({})",
            "destination_ip_prefix"),
        Column::sorted("excluded", "excluded IN ({})", "excluded"),
    ];
    visible &[];
}

/// All labels.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn label_list_all(conn: &mut Conn) -> Result<Vec<MeteringLabelRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// All rules, by id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_list_all(conn: &mut Conn) -> Result<Vec<MeteringLabelRuleRow>> {
    row::fetch(conn, "TRUE ORDER BY id", &[]).await
}

/// The rules of a label.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn metering_label_rule_list(
    conn: &mut Conn,
    label: &str,
) -> Result<Vec<MeteringLabelRuleRow>> {
    row::fetch(conn, "metering_label_id = $1 ORDER BY id", &[label]).await
}
