//! DHCP and DHCPv6: handed to the agent where the port's subnet has it. docs/pipeline.md, section 3.
//!
//! Guarantees: only whole client messages of guests are taken. Assumes port security. Cost: the port's addresses.

use super::decode::{Fragment, IpPacket};
use weft_model::{HostSnapshot, Ipv6Mode, Port, Subnet};
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
    let has = |fits: fn(&Subnet) -> bool| {
        port.fixed_ips
            .iter()
            .filter_map(|f| snapshot.subnets.get(&f.subnet_id))
            .any(fits)
    };
    match (t.is_ipv6(), t.source_port, t.destination_port) {
        (false, 68, 67) => has(|s| s.cidr.addr().is_ipv4() && s.enable_dhcp).then_some(Asked::Dhcp),
        (true, 546, 547) => has(|s| {
            let dhcpv6 = matches!(
                s.ipv6_address_mode,
                Some(Ipv6Mode::Dhcpv6Stateful | Ipv6Mode::Dhcpv6Stateless)
            );
            s.cidr.addr().is_ipv6() && s.enable_dhcp && dhcpv6
        })
        .then_some(Asked::Dhcpv6),
        _ => None,
    }
}
