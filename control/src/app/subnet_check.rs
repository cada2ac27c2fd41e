//! What must hold of a subnet's range, gateway, allocation pools and IPv6 modes, when it is made and when it changes.

use super::error::{Error, Result};
use super::subnet::{Row, range_of, range_of_pool};
use crate::ipam::{self, Range};
use crate::prefix;
use crate::store::network::NetworkRow;
use crate::store::subnet::AllocationPool;
use ipnet::IpNet;
use std::net::IpAddr;

/// Bytes that every link carries for IPv4 (RFC 791) and for IPv6 (RFC 8200).
const MTU_MIN: [(i64, i64); 2] = [(4, 68), (6, 1_280)];

/// A network with a subnet must carry the packets that every link of that family carries.
pub(super) fn check_mtu(network: &NetworkRow, ip_version: i64, mtu: i64) -> Result<()> {
    // Below IPv4's there is no subnet at all.
    let min = MTU_MIN
        .into_iter()
        .filter(|(version, _)| *version <= ip_version)
        .map(|(_, min)| min)
        .find(|min| mtu < *min);
    match min {
        None => Ok(()),
        Some(min) => Err(Error::conflict(
            "NetworkMTUSubnetConflict",
            format!(
                "MTU of {} is not valid for network {}: its subnets need at least {min}.",
                mtu, network.id
            ),
        )),
    }
}

pub(super) fn check_range(row: &Row, range: IpNet) -> Result<()> {
    if range.prefix_len() == 0 {
        return Err(Error::invalid_input(
            "0 is not allowed as CIDR prefix length",
        ));
    }
    let address = range.network();
    let bad = address.is_multicast()
        || address.is_unspecified()
        || address.is_loopback()
        || matches!(address, IpAddr::V4(v4) if v4.is_link_local() && range.prefix_len() < 16)
        || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if bad {
        return Err(Error::invalid_input(format!(
            "cidr {} is an unspecified, multicast, loopback or link-local range",
            row.cidr
        )));
    }
    if prefix::is_mapped(range) {
        return Err(Error::invalid_input(format!(
            "cidr {} holds IPv4-mapped addresses",
            row.cidr
        )));
    }
    let longest = if row.ip_version == 4 { 30 } else { 126 };
    if row.enable_dhcp && range.prefix_len() > longest {
        return Err(Error::invalid_input(format!(
            "cidr {}: Subnet has a prefix length that is incompatible with DHCP service enabled",
            row.cidr
        )));
    }
    let family = |ip: &IpAddr| ip.is_ipv6() == (row.ip_version == 6);
    if let Some(wrong) = row.dns_nameservers.0.iter().find(|ip| !family(ip)) {
        return Err(Error::invalid_input(format!(
            "dns_nameservers: {wrong} is not an address of IP version {}",
            row.ip_version
        )));
    }
    if let Some(wrong) = row
        .host_routes
        .0
        .iter()
        .find(|route| !family(&route.nexthop))
    {
        return Err(Error::invalid_input(format!(
            "host_routes: nexthop {} is not an address of IP version {}",
            wrong.nexthop, row.ip_version
        )));
    }
    Ok(())
}

pub(super) fn check_modes(row: &Row) -> Result<()> {
    let modes = [
        ("ipv6_ra_mode", &row.ipv6_ra_mode),
        ("ipv6_address_mode", &row.ipv6_address_mode),
    ];
    if modes.iter().all(|(_, mode)| mode.is_none()) {
        return Ok(());
    }
    if row.ip_version == 4 {
        return Err(Error::invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when ip_version is 4",
        ));
    }
    if !row.enable_dhcp {
        return Err(Error::invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    if let (Some(ra), Some(address)) = (&row.ipv6_ra_mode, &row.ipv6_address_mode)
        && ra != address
    {
        return Err(Error::invalid_input(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. \
             If both attributes are set, they must be the same value"
        )));
    }
    let slaac =
        |mode: &&Option<String>| matches!(mode.as_deref(), Some("slaac" | "dhcpv6-stateless"));
    if modes.iter().any(|(_, mode)| slaac(mode)) && range_of(row).prefix_len() != 64 {
        return Err(Error::invalid_input(format!(
            "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, which \
             requires the prefix to be /64",
            row.cidr
        )));
    }
    Ok(())
}

pub(super) fn check_gateway(row: &Row, range: IpNet) -> Result<()> {
    let Some(gateway) = row
        .gateway_ip
        .as_deref()
        .and_then(|text| text.parse::<IpAddr>().ok())
    else {
        return Ok(());
    };
    let hosts = ipam::hosts(range);
    let inside =
        !range.contains(&gateway) || (hosts.first..=hosts.last).contains(&ipam::number(gateway));
    if gateway.is_ipv6() != (row.ip_version == 6) || !inside || gateway.is_multicast() {
        return Err(Error::invalid_input(format!(
            "gateway_ip: Gateway {gateway} is not valid on subnet {}",
            row.cidr
        )));
    }
    Ok(())
}

/// Puts the pools into order and checks them.
pub(super) fn check_pools(row: &mut Row, range: IpNet) -> Result<()> {
    let cidr = row.cidr.clone();
    let hosts = ipam::hosts(range);
    row.allocation_pools
        .0
        .sort_by_key(|pool| ipam::number(pool.start));
    let mut before: Option<AllocationPool> = None;
    for pool in &row.allocation_pools.0 {
        let Range { first, last } = range_of_pool(*pool);
        let shown = format!("{}-{}", pool.start, pool.end);
        if pool.start.is_ipv6() != pool.end.is_ipv6() || first > last {
            return Err(Error::invalid(
                "InvalidAllocationPool",
                format!("The allocation pool {shown} is not valid."),
            ));
        }
        if first < hosts.first || last > hosts.last {
            return Err(Error::invalid(
                "OutOfBoundsAllocationPool",
                format!("The allocation pool {shown} spans beyond the subnet cidr {cidr}."),
            ));
        }
        if let Some(before) = before
            && ipam::number(before.end) >= first
        {
            return Err(Error::conflict(
                "OverlappingAllocationPools",
                format!(
                    "Found overlapping allocation pools: {}-{} {shown} for subnet {cidr}.",
                    before.start, before.end
                ),
            ));
        }
        let gateway = row.gateway_ip.as_deref().and_then(|text| text.parse().ok());
        if gateway
            .map(ipam::number)
            .is_some_and(|gateway| (first..=last).contains(&gateway))
        {
            return Err(Error::conflict(
                "GatewayConflictWithAllocationPools",
                format!(
                    "Gateway ip {} conflicts with allocation pool {shown}.",
                    row.gateway_ip.as_deref().unwrap_or_default()
                ),
            ));
        }
        before = Some(*pool);
    }
    Ok(())
}
