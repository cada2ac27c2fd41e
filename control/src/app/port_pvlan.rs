//! Roles in a private VLAN: promiscuous ports reach all, isolated ones those only, and those of a community each other
//! too.

use super::attribute::{Attributes, Take, text_of};
use super::error::{Error, Result, quote};
use super::resource::Write;
use crate::store::network::NetworkRow;
use crate::store::port::{PortRow, port_list_network};
use serde_json::Value;

const PROMISCUOUS: &str = "promiscuous";
const COMMUNITY: &str = "community";
/// `pvlan_type`
pub(super) const TYPES: &[&str] = &["isolated", PROMISCUOUS, COMMUNITY];

/// Reads `pvlan_community`.
pub(super) fn community(value: &Value) -> Result<Value, String> {
    let name = text_of(value, 232)?;
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '.');
    let good = name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit());
    if good {
        Ok(name.into())
    } else {
        Err(format!(
            "{} is not a valid name of a community",
            quote(&name)
        ))
    }
}

/// Takes over a port's role, as far as it is given.
pub(super) fn set(network: &NetworkRow, row: &mut PortRow, given: &mut Attributes) -> Result<()> {
    let role = given.text_or_null("pvlan_type");
    let community = given.text_or_null("pvlan_community");
    let bad = |reason: &str| Error::invalid("BadRequest", format!("Bad port request: {reason}."));
    if !network.pvlan {
        let wants = |value: &Option<Option<String>>| value.as_ref().is_some_and(Option::is_some);
        if wants(&role) || wants(&community) {
            return Err(bad("its network is no private VLAN (pvlan)"));
        }
        (row.pvlan_type, row.pvlan_community) = (None, None);
        return Ok(());
    }
    if let Some(role) = role {
        row.pvlan_type = role;
    }
    let role = row.pvlan_type.get_or_insert_with(|| PROMISCUOUS.to_owned());
    let of_community = role == COMMUNITY;
    if !of_community {
        row.pvlan_community = None;
    }
    if let Some(community) = community {
        row.pvlan_community = community;
    }
    match (of_community, &row.pvlan_community) {
        (true, None) => Err(bad("pvlan_type community needs a pvlan_community")),
        (false, Some(_)) => Err(bad("pvlan_community needs the pvlan_type community")),
        _ => Ok(()),
    }
}

/// Makes a network a private VLAN, or an ordinary one, which it cannot be while its ports have roles that matter.
pub(super) async fn network_set(
    write: &mut Write<'_>,
    network: &mut NetworkRow,
    pvlan: bool,
) -> Result<()> {
    if network.pvlan && !pvlan {
        let ports = port_list_network(write.conn(), &network.id).await?;
        if ports
            .iter()
            .any(|port| is_apart(port.row.pvlan_type.as_deref()))
        {
            return Err(Error::conflict(
                "NetworkInUse",
                format!(
                    "Unable to complete operation on network {}. Some of its ports are isolated or \
                     in a community.",
                    network.id
                ),
            ));
        }
    }
    network.pvlan = pvlan;
    Ok(())
}

/// Whether a role keeps a port from others.
fn is_apart(role: Option<&str>) -> bool {
    role.is_some_and(|role| role != PROMISCUOUS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_fit_their_networks() {
        let network = |pvlan| NetworkRow {
            pvlan,
            ..NetworkRow::default()
        };
        let role = |pvlan, given: Value| {
            let mut row = PortRow::default();
            let mut given = given.as_object().cloned().unwrap_or_default();
            set(&network(pvlan), &mut row, &mut given).ok()?;
            Some((row.pvlan_type, row.pvlan_community))
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            role(false, json!({ "pvlan_type": null })),
            Some((None, None))
        );
        assert_eq!(role(false, json!({ "pvlan_type": "isolated" })), None);
        assert_eq!(role(false, json!({ "pvlan_community": "a" })), None);
        assert_eq!(role(true, json!({})), Some((text("promiscuous"), None)));
        assert_eq!(
            role(true, json!({ "pvlan_type": "isolated" })),
            Some((text("isolated"), None))
        );
        assert_eq!(role(true, json!({ "pvlan_type": "community" })), None);
        assert_eq!(
            role(
                true,
                json!({ "pvlan_type": "isolated", "pvlan_community": "a" })
            ),
            None
        );
        let both = json!({ "pvlan_type": "community", "pvlan_community": "a" });
        assert_eq!(role(true, both), Some((text("community"), text("a"))));
    }

    #[test]
    fn communities_have_names() {
        for (name, good) in [
            ("a", true),
            ("_a.1", true),
            ("", false),
            ("1a", false),
            ("a b", false),
        ] {
            assert_eq!(community(&json!(name)).is_ok(), good, "{name}");
        }
        assert!(community(&json!("a".repeat(232))).is_ok());
        assert!(community(&json!("a".repeat(233))).is_err());
    }
}
