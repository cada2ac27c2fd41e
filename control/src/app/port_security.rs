//! Port security, address pairs and security groups of a port, which depend on each other.

use super::attribute::{Attributes, Take};
use super::error::{Error, Result};
use super::resource::Write;
use super::security_group;
use crate::store::JsonText;
use crate::store::port::{self as store, AddressPair, Port as Item, PortRow};
use serde_json::Value;
use weft_model::limits;

/// The texts of a checked list.
pub(super) fn strings(value: Value) -> Vec<String> {
    serde_json::from_value(value).unwrap_or_default()
}

/// Fills in the port's own MAC address where a pair names none.
pub(super) fn pairs_of(value: Value, mac: &str) -> Vec<AddressPair> {
    let list = if let Value::Array(list) = value {
        list
    } else {
        Vec::new()
    };
    list.into_iter()
        .filter_map(|mut pair| {
            pair.as_object_mut()?
                .entry("mac_address")
                .or_insert_with(|| mac.into());
            serde_json::from_value(pair).ok()
        })
        .collect()
}

/// Only a port with port security has address pairs.
pub(super) fn check_pairs(row: &PortRow) -> Result<()> {
    if !row.allowed_address_pairs.0.is_empty() && !row.port_security_enabled {
        return Err(Error::conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        ));
    }
    Ok(())
}

/// The error for groups on a port without port security.
pub(super) fn security_group_needs_security() -> Error {
    Error::invalid(
        "PortSecurityAndIPRequiredForSecurityGroups",
        "Port security must be enabled and port must have an IP address in order to use security groups.",
    )
}

/// Puts the port into these groups and no others.
pub(super) async fn set_groups(
    write: &mut Write<'_>,
    item: &mut Item,
    groups: Vec<String>,
) -> Result<()> {
    if groups.len() > limits::SECURITY_GROUPS_PER_PORT_MAX {
        return Err(Error::invalid_input(format!(
            "security_groups: at most {} on a port",
            limits::SECURITY_GROUPS_PER_PORT_MAX
        )));
    }
    security_group::usable_together(write, &groups, &item.row.project_id).await?;
    if groups != item.security_groups {
        store::security_groups_set(&mut write.tx, &item.row.id, &groups).await?;
        item.security_groups = groups;
    }
    Ok(())
}

/// Carries out what a change says of them.
pub(super) async fn update_security(
    write: &mut Write<'_>,
    item: &mut Item,
    given: &mut Attributes,
) -> Result<()> {
    if let Some(enabled) = given.truth("port_security_enabled") {
        item.row.port_security_enabled = enabled;
    }
    if let Some(pairs) = given.remove("allowed_address_pairs") {
        let pairs = pairs_of(pairs, &item.row.mac_address);
        item.row.allowed_address_pairs = JsonText(pairs);
    }
    check_pairs(&item.row)?;
    let groups = given.remove("security_groups").map(strings);
    match groups {
        Some(groups) if !groups.is_empty() && !item.row.port_security_enabled => {
            Err(security_group_needs_security())
        }
        Some(groups) => set_groups(write, item, groups).await,
        None if !item.row.port_security_enabled && !item.security_groups.is_empty() => {
            Err(Error::conflict(
                "PortSecurityPortHasSecurityGroup",
                "Port has security group associated. Cannot disable port security or IP address \
                 until security group is removed.",
            ))
        }
        None => Ok(()),
    }
}
