//! A port's MAC address: chosen, named, changed, or a physical device's.

use super::attribute::{Attributes, Take};
use super::error::{Error, Result};
use super::port_binding::NORMAL;
use super::resource::Write;
use crate::store::port::{self as store, Port as Item};
use uuid::Uuid;
use weft_model::MacAddress;

/// MAC addresses tried before a create is refused: 2^24 can be had, so the second is hardly ever wanted.
const MAC_TRIES_MAX: usize = 16;

/// An address that no port of the network has.
pub(super) async fn mac_free(write: &mut Write<'_>, network: &str) -> Result<String> {
    for _ in 0..MAC_TRIES_MAX {
        let random = Uuid::new_v4();
        let [a, b, c, ..] = *random.as_bytes();
        let mac = MacAddress([0xfa, 0x16, 0x3e, a, b, c]).to_string();
        if !store::mac_taken(write.conn(), network, &mac).await? {
            return Ok(mac);
        }
    }
    Err(Error::conflict(
        "MacAddressGenerationFailure",
        format!("Unable to generate unique mac on network {network}."),
    ))
}

/// The error for one that is taken.
pub(super) fn mac_taken(network: &str, mac: &str) -> Error {
    Error::conflict(
        "MacAddressInUse",
        format!(
            "Unable to complete operation for network {network}. The mac address {mac} is in use."
        ),
    )
}

/// Changes it, if that is asked for.
pub(super) async fn update_mac(
    write: &mut Write<'_>,
    item: &mut Item,
    given: &mut Attributes,
) -> Result<()> {
    let Some(mac) = given.text_or_null("mac_address") else {
        return Ok(());
    };
    let mac = match mac {
        Some(mac) if mac == item.row.mac_address => return Ok(()),
        Some(mac) => mac,
        None => mac_free(write, &item.row.network_id).await?,
    };
    if !item.row.binding_host_id.is_empty() && item.row.binding_vnic_type == NORMAL {
        return Err(Error::conflict(
            "PortBound",
            format!(
                "Unable to complete operation on port {}, port is already bound, port type: tap, \
                 old_mac {}, new_mac {mac}.",
                item.row.id, item.row.mac_address
            ),
        ));
    }
    if store::mac_taken(write.conn(), &item.row.network_id, &mac).await? {
        return Err(mac_taken(&item.row.network_id, &mac));
    }
    for pair in &mut item.row.allowed_address_pairs.0 {
        if pair.mac_address == item.row.mac_address {
            pair.mac_address.clone_from(&mac);
        }
    }
    item.row.mac_address = mac;
    Ok(())
}
