//! Floating IPs' rows to what leads somewhere: to one address of a port, or to several by their ports.

use super::decode::{At, Result, port_protocol};
use crate::store::Resource;
use crate::store::floating_ip::FloatingIpRow;
use crate::store::port_forwarding::PortForwardingRow;
use std::net::Ipv4Addr;
use weft_model::{NetworkId, PortForwarding, PortId, QosPolicyId, RouterId, limits};

/// A floating IP that leads somewhere.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FloatingIp {
    pub(super) floating_network_id: NetworkId,
    pub(super) floating_ip_address: Ipv4Addr,
    pub(super) floating_port_id: PortId,
    pub(super) router_id: RouterId,
    pub(super) port_id: PortId,
    pub(super) fixed_ip_address: Ipv4Addr,
    /// Its own; its network's is in [`super::rows::Rows`].
    pub(super) qos_policy_id: Option<QosPolicyId>,
}

/// A floating IP some of whose ports lead somewhere.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ForwardedIp {
    pub(super) floating_network_id: NetworkId,
    pub(super) floating_ip_address: Ipv4Addr,
    pub(super) floating_port_id: PortId,
    pub(super) router_id: RouterId,
    pub(super) port_forwardings: Vec<PortForwarding>,
    /// Its own; its network's is in [`super::rows::Rows`].
    pub(super) qos_policy_id: Option<QosPolicyId>,
}

/// None if it leads nowhere.
pub(super) fn floating_ip(row: &FloatingIpRow) -> Result<Option<FloatingIp>> {
    let at = At(Resource::FloatingIp, &row.id);
    let (Some(router), Some(port), Some(fixed)) =
        (&row.router_id, &row.port_id, &row.fixed_ip_address)
    else {
        return Ok(None);
    };
    Ok(Some(FloatingIp {
        floating_network_id: at.parse("floating_network_id", &row.floating_network_id)?,
        floating_ip_address: at.parse("floating_ip_address", &row.floating_ip_address)?,
        floating_port_id: at.parse("floating_port_id", &row.floating_port_id)?,
        router_id: at.parse("router_id", router)?,
        port_id: at.parse("port_id", port)?,
        fixed_ip_address: at.parse("fixed_ip_address", fixed)?,
        qos_policy_id: at.policy("qos_policy_id", row.qos_policy_id.as_deref())?,
    }))
}

/// None if none of its ports leads anywhere.
pub(super) fn forwarded_ip(
    row: &FloatingIpRow,
    forwardings: &[PortForwardingRow],
) -> Result<Option<ForwardedIp>> {
    let Some(router) = row.router_id.as_ref().filter(|_| !forwardings.is_empty()) else {
        return Ok(None);
    };
    let at = At(Resource::FloatingIp, &row.id);
    let forwarding = |row: &PortForwardingRow| {
        let at = At(Resource::PortForwarding, &row.id);
        Ok(PortForwarding {
            id: at.parse("id", &row.id)?,
            protocol: port_protocol(at, "protocol", &row.protocol)?,
            external_port_first: at.number("external_port_first", row.external_port_first)?,
            external_port_last: at.number("external_port_last", row.external_port_last)?,
            internal_port_id: at.parse("internal_port_id", &row.internal_port_id)?,
            internal_ip_address: at.parse("internal_ip_address", &row.internal_ip_address)?,
            internal_port_first: at.number("internal_port_first", row.internal_port_first)?,
            internal_port_last: at.number("internal_port_last", row.internal_port_last)?,
        })
    };
    let forwardings = forwardings.iter().map(forwarding).collect::<Result<_>>()?;
    Ok(Some(ForwardedIp {
        floating_network_id: at.parse("floating_network_id", &row.floating_network_id)?,
        floating_ip_address: at.parse("floating_ip_address", &row.floating_ip_address)?,
        floating_port_id: at.parse("floating_port_id", &row.floating_port_id)?,
        router_id: at.parse("router_id", router)?,
        port_forwardings: at.at_most(
            "port_forwardings",
            forwardings,
            limits::PORT_FORWARDINGS_MAX,
        )?,
        qos_policy_id: at.policy("qos_policy_id", row.qos_policy_id.as_deref())?,
    }))
}
