//! DHCP and DHCPv6: handed to the agent where the port's subnet has it. docs/pipeline.md, section 3.
//!
//! Guarantees: only whole client messages of guests are taken. Assumes port security. Cost: the port's addresses.

use super::decode::{Fragment, IpPacket};
use crate::flow::key::Tuple;
use weft_model::{HostSnapshot, Ipv6Mode, Port};
use weft_wire::protocol;

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// DHCP.
    Dhcp,
    /// DHCPv6.
    Dhcpv6,
}

/// The service that a guest's packet is for, if the port has it.
#[must_use]
pub fn process(snapshot: &HostSnapshot, port: &Port, ip: &IpPacket) -> Option<Asked> {
    let t = ip.tuple;
    if t.protocol != protocol::UDP || ip.fragment != Fragment::Whole {
        return None;
    }
    match (t.is_ipv6(), t.source_port, t.destination_port) {
        (false, 68, 67) => is_served(snapshot, port, false).then_some(Asked::Dhcp),
        (true, 546, 547) => is_served(snapshot, port, true).then_some(Asked::Dhcpv6),
        _ => None,
    }
}

/// Whether a port has the service of this family.
fn is_served(snapshot: &HostSnapshot, port: &Port, v6: bool) -> bool {
    let mut subnets = port
        .fixed_ips
        .iter()
        .filter_map(|f| snapshot.subnets.get(&f.subnet_id));
    subnets.any(|s| {
        let dhcpv6 = matches!(
            s.ipv6_address_mode,
            Some(Ipv6Mode::Dhcpv6Stateful | Ipv6Mode::Dhcpv6Stateless)
        );
        s.cidr.addr().is_ipv6() == v6 && s.enable_dhcp && (dhcpv6 || !v6)
    })
}

/// Whether a packet to everybody is the service's affair at a port, which has it: no copy is for the guest.
#[must_use]
pub fn is_owned(snapshot: &HostSnapshot, port: &Port, tuple: Tuple) -> bool {
    let v6 = tuple.is_ipv6();
    let ports = if v6 { 546..=547 } else { 67..=68 };
    tuple.vlan.is_none()
        && tuple.protocol == protocol::UDP
        && ports.contains(&tuple.destination_port)
        && is_served(snapshot, port, v6)
}
