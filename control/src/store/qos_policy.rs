//! QoS policies and their rules, and who is under which policy.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, Row as _, row};
use super::sql;
use super::{Conn, Result};

row! {
    /// A QoS policy.
    QosPolicyRow: QosPolicy in "qos_policies" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// Whether the project's new networks get it.
        is_default: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::filter("is_default", "is_default IN ({})"),
        Column::filter("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'qos_policy' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'qos_policy' \
                  AND target_project IN ('*', $1))"];
}

row! {
    /// A rule of a policy, of any type: it has what its type has, and NULL for the rest.
    QosRuleRow: QosRule in "qos_rules" {
        /// Its policy.
        policy_id: String,
        /// bandwidth_limit, packet_rate_limit, dscp_marking, minimum_bandwidth, minimum_packet_rate
        rule_type: String,
        /// As the guest sees it: egress, ingress, any; empty for a type that has none.
        direction: String,
        /// kbit/s
        max_kbps: Option<i64>,
        /// kbit
        max_burst_kbps: Option<i64>,
        /// Thousand packets a second.
        max_kpps: Option<i64>,
        /// Thousand packets.
        max_burst_kpps: Option<i64>,
        /// kbit/s
        min_kbps: Option<i64>,
        /// Thousand packets a second.
        min_kpps: Option<i64>,
        /// The mark written into packets.
        dscp_mark: Option<i64>,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::filter("policy_id", "policy_id IN ({})"),
        Column::filter("rule_type", "rule_type IN ({})"),
        Column::sorted("direction", "direction IN ({})", "direction"),
        Column::sorted("max_kbps", "max_kbps IN ({})", "max_kbps"),
        Column::sorted("max_burst_kbps", "max_burst_kbps IN ({})", "max_burst_kbps"),
        Column::sorted("max_kpps", "max_kpps IN ({})", "max_kpps"),
        Column::sorted("max_burst_kpps", "max_burst_kpps IN ({})", "max_burst_kpps"),
        Column::sorted("min_kbps", "min_kbps IN ({})", "min_kbps"),
        Column::sorted("min_kpps", "min_kpps IN ({})", "min_kpps"),
        Column::sorted("dscp_mark", "dscp_mark IN ({})", "dscp_mark"),
    ];
    visible &[];
}

/// What can be under a policy: its name in messages, its table, and its column.
const USERS: [(&str, &str, &str); 4] = [
    ("network", "networks", "qos_policy_id"),
    ("port", "ports", "qos_policy_id"),
    ("fip", "floating_ips", "qos_policy_id"),
    ("router", "routers", "gateway_qos_policy_id"),
];

/// The rules of some policies, by policy and id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_list_policies(conn: &mut Conn, policies: &[&str]) -> Result<Vec<QosRuleRow>> {
    let select = format!("{}policy_id IN", QosRuleRow::sql().select);
    by_parents(conn, &select, "ORDER BY policy_id, id", policies).await
}

/// The policy that a project's new networks get.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn default_get(conn: &mut Conn, project: &str) -> Result<Option<QosPolicyRow>> {
    let rows = row::fetch(conn, "project_id = $1 AND is_default", &[project]).await?;
    Ok(rows.into_iter().next())
}

/// Something that is under a policy, as its kind and id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn user_get(conn: &mut Conn, policy: &str) -> Result<Option<(String, String)>> {
    let each = USERS.map(|(kind, table, column)| {
        format!("SELECT '{kind}', id FROM {table} WHERE {column} = $1")
    });
    sql::query_as(sql::AssertSqlSafe(format!(
        "{} LIMIT 1",
        each.join(" UNION ALL ")
    )))
    .bind(policy)
    .fetch_optional(conn)
    .await
}

/// A guest's port that is under a policy, by itself or by its network.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn guest_port_get(conn: &mut Conn, policy: &str) -> Result<Option<String>> {
    sql::query_scalar(
        "SELECT id FROM ports WHERE qos_policy_id = $1 AND device_owner LIKE 'compute:%' \
         UNION ALL \
         SELECT id FROM ports WHERE qos_policy_id IS NULL AND device_owner LIKE 'compute:%' \
         AND network_id IN (SELECT n.id FROM networks n WHERE n.qos_policy_id = $1) LIMIT 1",
    )
    .bind(policy)
    .fetch_optional(conn)
    .await
}

/// All policies.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn policy_list_all(conn: &mut Conn) -> Result<Vec<QosPolicyRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// All rules.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_list_all(conn: &mut Conn) -> Result<Vec<QosRuleRow>> {
    row::fetch(conn, "TRUE", &[]).await
}
