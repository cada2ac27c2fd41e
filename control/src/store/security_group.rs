//! Security groups and their rules.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, Row as _, row};
use super::sql;
use super::{Conn, Result};

row! {
    /// A security group.
    SecurityGroupRow: SecurityGroup in "security_groups" {
        /// For people; `default` is the project's default group.
        name: String,
        /// For people.
        description: String,
        /// Whether replies pass without a rule.
        stateful: bool,
        /// Whether ports without groups of their own get it.
        is_default: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::filter("description", "description IN ({})"),
        Column::filter("stateful", "stateful IN ({})"),
        Column::filter("shared",
            "(id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'security_group' \
              AND action = 'access_as_shared' AND target_project IN ('*', $1))) IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["id IN (SELECT object_id FROM rbac_policies WHERE object_type = 'security_group' \
                  AND target_project IN ('*', $1))"];
}

row! {
    /// A rule.
    SecurityGroupRuleRow: SecurityGroupRule in "security_group_rules" {
        /// Its group.
        security_group_id: String,
        /// For people.
        description: String,
        /// ingress, egress
        direction: String,
        /// IPv4, IPv6
        ethertype: String,
        /// A name or a number; none for any.
        protocol: Option<String>,
        /// The first port, or the ICMP type.
        port_range_min: Option<i64>,
        /// The last port, or the ICMP code.
        port_range_max: Option<i64>,
        /// A range, as it was given.
        remote_ip_prefix: Option<String>,
        /// The range with its host bits zero.
        normalized_cidr: Option<String>,
        /// A group whose members are meant.
        remote_group_id: Option<String>,
        /// An address group whose addresses are meant.
        remote_address_group_id: Option<String>,
        /// What makes two rules of a group the same.
        match_key: String,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("project_id", "project_id IN ({})", "project_id"),
        Column::sorted("security_group_id", "security_group_id IN ({})", "security_group_id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("direction", "direction IN ({})", "direction"),
        Column::sorted("ethertype", "ethertype IN ({})", "ethertype"),
        Column::sorted("protocol", "protocol IN ({})", "protocol"),
        Column::sorted("port_range_min", "port_range_min IN ({})", "port_range_min"),
        Column::sorted("port_range_max", "port_range_max IN ({})", "port_range_max"),
        Column::sorted("remote_ip_prefix", "remote_ip_prefix IN ({})", "remote_ip_prefix"),
        Column::sorted("normalized_cidr", "normalized_cidr IN ({})", "normalized_cidr"),
        Column::sorted("remote_group_id", "remote_group_id IN ({})", "remote_group_id"),
        Column::sorted("remote_address_group_id", "remote_address_group_id IN ({})", "remote_address_group_id"),
        Column::filter("belongs_to_default_sg",
            "(SELECT g.is_default FROM security_groups g WHERE g.id = security_group_id) IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &["security_group_id IN (SELECT g.id FROM security_groups g WHERE g.project_id = $1)"];
}

/// A project's default group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn default_get(conn: &mut Conn, project: &str) -> Result<Option<SecurityGroupRow>> {
    Ok(
        row::fetch(conn, "project_id = $1 AND is_default", &[project])
            .await?
            .into_iter()
            .next(),
    )
}

/// Some groups.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn security_group_list(conn: &mut Conn, ids: &[&str]) -> Result<Vec<SecurityGroupRow>> {
    let select = format!("{}id IN", SecurityGroupRow::sql().select);
    by_parents(conn, &select, "ORDER BY id", ids).await
}

/// The rules of some groups, by group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_list_groups(
    conn: &mut Conn,
    groups: &[&str],
) -> Result<Vec<SecurityGroupRuleRow>> {
    let select = format!("{}security_group_id IN", SecurityGroupRuleRow::sql().select);
    by_parents(conn, &select, "ORDER BY security_group_id, id", groups).await
}

/// All groups.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn security_group_list_all(conn: &mut Conn) -> Result<Vec<SecurityGroupRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// All rules.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_list_all(conn: &mut Conn) -> Result<Vec<SecurityGroupRuleRow>> {
    row::fetch(conn, "TRUE", &[]).await
}

/// The rule of a group with this match key.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn rule_get_match(
    conn: &mut Conn,
    group: &str,
    match_key: &str,
) -> Result<Option<SecurityGroupRuleRow>> {
    let condition = "security_group_id = $1 AND match_key = $2";
    Ok(row::fetch(conn, condition, &[group, match_key])
        .await?
        .into_iter()
        .next())
}

/// Whether a port is in a group.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn security_group_in_use(conn: &mut Conn, group: &str) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM port_security_groups WHERE security_group_id = $1 LIMIT 1",
    )
    .bind(group)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}
