//! The rules that new security groups begin with.

use super::list::Column;
use super::row::{self, row};
use super::security_group::SecurityGroupRuleRow;
use super::{Conn, Result};

row! {
    /// A template of a rule.
    DefaultSecurityGroupRuleRow: DefaultSecurityGroupRule in "default_security_group_rules" {
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
        /// Whether the members of the new group itself are meant.
        remote_is_parent: bool,
        /// A group whose members are meant.
        remote_group_id: Option<String>,
        /// An address group whose addresses are meant.
        remote_address_group_id: Option<String>,
        /// What makes two templates the same.
        match_key: String,
        /// Whether default groups get it.
        used_in_default_sg: bool,
        /// Whether other groups get it.
        used_in_non_default_sg: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::filter("description", "description IN ({})"),
        Column::sorted("direction", "direction IN ({})", "direction"),
        Column::sorted("ethertype", "ethertype IN ({})", "ethertype"),
        Column::sorted("protocol", "protocol IN ({})", "protocol"),
        Column::sorted("port_range_min", "port_range_min IN ({})", "port_range_min"),
        Column::sorted("port_range_max", "port_range_max IN ({})", "port_range_max"),
        Column::sorted("remote_ip_prefix", "remote_ip_prefix IN ({})", "remote_ip_prefix"),
        Column::sorted("remote_group_id",
            "(CASE WHEN remote_is_parent THEN 'PARENT' ELSE remote_group_id END) IN ({})",
            "remote_group_id"),
        Column::sorted("remote_address_group_id",
            "remote_address_group_id IN ({})", "remote_address_group_id"),
        Column::filter("used_in_default_sg", "used_in_default_sg IN ({})"),
        Column::filter("used_in_non_default_sg", "used_in_non_default_sg IN ({})"),
        Column::filter("revision_number", "revision_number IN ({})"),
        Column::filter("changed_since", "updated_at >= {}"),
    ];
    visible &[];
}

impl DefaultSecurityGroupRuleRow {
    /// The rule that a group gets by this template; of the group it has only what is given here.
    #[must_use]
    pub fn rule(&self, group: &str, project: &str) -> SecurityGroupRuleRow {
        let parent = self.remote_is_parent.then(|| group.to_owned());
        SecurityGroupRuleRow {
            security_group_id: group.to_owned(),
            project_id: project.to_owned(),
            description: self.description.clone(),
            direction: self.direction.clone(),
            ethertype: self.ethertype.clone(),
            protocol: self.protocol.clone(),
            port_range_min: self.port_range_min,
            port_range_max: self.port_range_max,
            remote_ip_prefix: self.remote_ip_prefix.clone(),
            normalized_cidr: self.normalized_cidr.clone(),
            remote_group_id: parent.or_else(|| self.remote_group_id.clone()),
            remote_address_group_id: self.remote_address_group_id.clone(),
            ..SecurityGroupRuleRow::default()
        }
    }
}

/// The templates of default groups, or of the others.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn template_list(
    conn: &mut Conn,
    is_default: bool,
) -> Result<Vec<DefaultSecurityGroupRuleRow>> {
    let condition = match is_default {
        true => "used_in_default_sg ORDER BY created_at, id",
        false => "used_in_non_default_sg ORDER BY created_at, id",
    };
    row::fetch(conn, condition, &[]).await
}

/// The templates with this match key.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn template_list_match(
    conn: &mut Conn,
    match_key: &str,
) -> Result<Vec<DefaultSecurityGroupRuleRow>> {
    row::fetch(conn, "match_key = $1", &[match_key]).await
}
