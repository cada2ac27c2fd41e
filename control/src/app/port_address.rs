//! Which addresses a port gets: what was asked for, or one a family, and those that IPv6 forms by itself.

use super::error::{Error, Result};
use super::port::{ROUTER_GATEWAY, ROUTER_INTERFACE};
use super::port_attribute::FixedIpWanted;
use super::port_segment::{self, DEFERRED, IMMEDIATE};
use super::resource::Write;
use super::subnet::{self, is_auto_address, range_of, range_of_pool};
use crate::ipam::{self, Range, Step};
use crate::store::port::{
    self as store, FixedIpRow, Port, fixed_ip_insert, fixed_ip_owner, ip_key, ip_keys_used,
    ip_of_key,
};
use crate::store::subnet::{SubnetRow, cursor_get, cursor_set, subnet_list_network};
use crate::store::{self as rows, Resource, StoreError};
use std::net::IpAddr;
use weft_model::limits;

/// Used addresses read at a time while looking for a free one.
const STRETCH: u32 = 512;

/// Whether a port of this owner is a router's.
pub(super) fn is_router_owner(device_owner: &str) -> bool {
    matches!(device_owner, ROUTER_INTERFACE | ROUTER_GATEWAY)
}

/// Whether a port of this owner keeps neither its network nor its subnets: services make theirs anew.
pub(super) fn goes_along(device_owner: &str) -> bool {
    matches!(
        device_owner,
        "network:dhcp" | "network:distributed" | "network:floatingip_agent_gateway"
    )
}

/// Gives a port its addresses: `wanted` if asked for, else one of each family that the network has. The port has
/// none yet but those in `port.fixed_ips`, which are kept where `wanted` names them, and given back where not.
pub(super) async fn assign(
    write: &mut Write<'_>,
    port: &mut Port,
    wanted: Option<&[FixedIpWanted]>,
) -> Result<()> {
    let subnets = subnets_for(write, port, wanted).await?;
    let before = std::mem::take(&mut port.fixed_ips);
    if !before.is_empty() {
        store::fixed_ip_delete_port(&mut write.tx, &port.row.id).await?;
    }
    let router = is_router_owner(&port.row.device_owner);
    match wanted {
        Some(wanted) => {
            let kept = keep(wanted, before);
            for (request, kept) in wanted.iter().zip(kept) {
                one(write, port, &subnets, request, kept).await?;
            }
            if !wanted.is_empty() && !router {
                automatic(write, port, &subnets).await?;
            }
        }
        None => {
            for version in [4, 6] {
                any(write, port, &subnets, version).await?;
            }
            if !router {
                automatic(write, port, &subnets).await?;
            }
        }
    }
    if port.fixed_ips.len() > limits::FIXED_IPS_MAX {
        return Err(Error::invalid_input(format!(
            "fixed_ips: Exceeded maximum amount of fixed ips per port: {}",
            limits::FIXED_IPS_MAX
        )));
    }
    Ok(())
}

/// The subnets that a port may take addresses from where it is: those for everybody and those for ports of its owner, the
/// latter first. Settles `ip_allocation`.
async fn subnets_for(
    write: &mut Write<'_>,
    port: &mut Port,
    wanted: Option<&[FixedIpWanted]>,
) -> Result<Vec<SubnetRow>> {
    let mut subnets = subnet_list_network(write.conn(), &port.row.network_id).await?;
    let any = !subnets.is_empty();
    subnets.retain(|subnet| serves(subnet, &port.row.device_owner));
    if any && subnets.is_empty() && wanted.is_none_or(|wanted| !wanted.is_empty()) {
        return Err(Error::conflict(
            "IpAddressGenerationFailureNoMatchingSubnet",
            format!(
                "No valid service subnet for the given device owner, network {}, service type {}.",
                port.row.network_id, port.row.device_owner
            ),
        ));
    }
    let named = wanted.is_some_and(|wanted| !wanted.is_empty());
    let mut subnets = port_segment::reachable(write, &port.row, subnets, named).await?;
    if any && wanted.is_none() {
        let allocation = if subnets.is_empty() {
            DEFERRED
        } else {
            IMMEDIATE
        };
        allocation.clone_into(&mut port.row.ip_allocation);
    } else if named {
        IMMEDIATE.clone_into(&mut port.row.ip_allocation);
    }
    subnets.sort_by_key(|subnet| subnet.service_types.0.is_empty());
    Ok(subnets)
}

/// Whether ports of this owner may take addresses from a subnet. DHCP serves whatever subnet it is enabled on.
fn serves(subnet: &SubnetRow, device_owner: &str) -> bool {
    let types = &subnet.service_types.0;
    types.is_empty()
        || types.iter().any(|owner| owner == device_owner)
        || (device_owner == "network:dhcp" && subnet.enable_dhcp)
}

/// Pairs each wish with the address that the port has already and that fulfils it: named addresses first.
fn keep(wanted: &[FixedIpWanted], mut before: Vec<FixedIpRow>) -> Vec<Option<FixedIpRow>> {
    let mut kept: Vec<Option<FixedIpRow>> = vec![None; wanted.len()];
    for named in [true, false] {
        for (wish, slot) in wanted.iter().zip(&mut kept) {
            let fulfils = |have: &FixedIpRow| match wish.ip_address {
                Some(ip) => named && have.ip_key == ip_key(ip),
                None => !named && wish.subnet_id.as_ref() == Some(&have.subnet_id),
            };
            if let (None, Some(found)) = (&slot, before.iter().position(fulfils)) {
                *slot = Some(before.swap_remove(found));
            }
        }
    }
    kept
}

/// Fulfils one wish.
async fn one(
    write: &mut Write<'_>,
    port: &mut Port,
    subnets: &[SubnetRow],
    wish: &FixedIpWanted,
    kept: Option<FixedIpRow>,
) -> Result<()> {
    let network = &port.row.network_id;
    let subnet = match (&wish.subnet_id, wish.ip_address) {
        (Some(id), _) => subnets.iter().find(|subnet| subnet.id == *id).ok_or_else(|| {
            Error::invalid_input(format!(
                "Failed to create port on network {network}, because fixed_ips included invalid \
                 subnet {id}"
            ))
        })?,
        (None, Some(ip)) => subnets.iter().find(|s| range_of(s).contains(&ip)).ok_or_else(|| {
            Error::invalid(
                "InvalidIpForNetwork",
                format!(
                    "IP address {ip} is not a valid IP for any of the subnets on the specified network."
                ),
            )
        })?,
        (None, None) => {
            return Err(Error::invalid_input("IP allocation requires subnet_id or ip_address"));
        }
    };
    let router = is_router_owner(&port.row.device_owner);
    let ip = match (kept, wish.ip_address) {
        (Some(kept), _) => ip_of_key(&kept.ip_key),
        (None, Some(ip)) => Some(named(port, subnet, ip, router)?),
        (None, None) if is_auto_address(subnet) && !router => formed(port, subnet)?,
        (None, None) => next_free(write, subnet).await?,
    };
    match ip {
        Some(ip) => take(write, port, subnet, ip).await,
        None => Err(exhausted(network)),
    }
}

/// Checks an address that was named.
fn named(port: &Port, subnet: &SubnetRow, ip: IpAddr, router: bool) -> Result<IpAddr> {
    let range = range_of(subnet);
    let hosts = ipam::hosts(range);
    let host = (hosts.first..=hosts.last).contains(&ipam::number(ip));
    // A router may have the subnet-router anycast address.
    if !range.contains(&ip) || !(host || (router && ip.is_ipv6())) {
        return Err(Error::invalid(
            "InvalidIpForSubnet",
            format!("IP address {ip} is not a valid IP for the specified subnet."),
        ));
    }
    if is_auto_address(subnet) && !router && formed(port, subnet)? != Some(ip) {
        return Err(Error::invalid_input(format!(
            "IPv6 address {ip} can not be directly assigned to a port on subnet {} since the subnet \
             is configured for automatic addresses",
            subnet.id
        )));
    }
    Ok(ip)
}

/// The address that the port's MAC address gives it.
fn formed(port: &Port, subnet: &SubnetRow) -> Result<Option<IpAddr>> {
    let mac = port
        .row
        .mac_address
        .parse()
        .map_err(|error| Error::invalid_input(format!("mac_address: {error}")))?;
    Ok(ipam::eui64(range_of(subnet), mac))
}

/// Takes one address of a family, from the first subnet that has one left.
async fn any(
    write: &mut Write<'_>,
    port: &mut Port,
    subnets: &[SubnetRow],
    version: i64,
) -> Result<()> {
    let candidates: Vec<&SubnetRow> = subnets
        .iter()
        .filter(|subnet| subnet.ip_version == version && !is_auto_address(subnet))
        .collect();
    if candidates.is_empty() {
        return Ok(());
    }
    for subnet in candidates {
        if let Some(ip) = next_free(write, subnet).await? {
            return take(write, port, subnet, ip).await;
        }
    }
    Err(exhausted(&port.row.network_id))
}

/// Adds the addresses that IPv6 forms by itself, one for each subnet that has them.
async fn automatic(write: &mut Write<'_>, port: &mut Port, subnets: &[SubnetRow]) -> Result<()> {
    for subnet in subnets {
        if !is_auto_address(subnet)
            || port
                .fixed_ips
                .iter()
                .any(|have| have.subnet_id == subnet.id)
        {
            continue;
        }
        if let Some(ip) = formed(port, subnet)? {
            take(write, port, subnet, ip).await?;
        }
    }
    Ok(())
}

/// Writes an address down as the port's.
async fn take(
    write: &mut Write<'_>,
    port: &mut Port,
    subnet: &SubnetRow,
    ip: IpAddr,
) -> Result<()> {
    let row = FixedIpRow {
        subnet_id: subnet.id.clone(),
        ip_key: ip_key(ip),
        ip_address: ip.to_string(),
        port_id: port.row.id.clone(),
        position: i64::try_from(port.fixed_ips.len()).unwrap_or(i64::MAX),
    };
    match fixed_ip_insert(&mut write.tx, &row).await {
        Err(StoreError::Conflict(_)) => Err(Error::conflict(
            "IpAddressAlreadyAllocated",
            format!("IP address {ip} already allocated in subnet {}", subnet.id),
        )),
        done => {
            done?;
            port.fixed_ips.push(row);
            Ok(())
        }
    }
}

fn exhausted(network: &str) -> Error {
    Error::conflict(
        "IpAddressGenerationFailure",
        format!("No more IP addresses available on network {network}."),
    )
}

/// The next free address of a subnet's pools behind the one given last, round to it again.
async fn next_free(write: &mut Write<'_>, subnet: &SubnetRow) -> Result<Option<IpAddr>> {
    let pools: Vec<Range> = subnet
        .allocation_pools
        .0
        .iter()
        .map(|pool| range_of_pool(*pool))
        .collect();
    let Some(first) = pools.first().map(|pool| pool.first) else {
        return Ok(None);
    };
    let cursor = cursor_get(write.conn(), &subnet.id).await?;
    let cursor = cursor
        .as_deref()
        .and_then(ip_of_key)
        .map_or(first, |ip| ipam::number(ip) + 1);
    let mut found = search(write, &subnet.id, &pools, cursor).await?;
    if found.is_none() && cursor > first {
        found = search(write, &subnet.id, &pools, first).await?;
    }
    if let Some(ip) = found {
        cursor_set(&mut write.tx, &subnet.id, &ip_key(ip)).await?;
    }
    Ok(found)
}

async fn search(
    write: &mut Write<'_>,
    subnet: &str,
    pools: &[Range],
    from: u128,
) -> Result<Option<IpAddr>> {
    let mut from = from;
    loop {
        let keys =
            ip_keys_used(write.conn(), subnet, &ip_key(ipam::address(from)), STRETCH).await?;
        let used: Vec<u128> = keys
            .iter()
            .filter_map(|key| ip_of_key(key))
            .map(ipam::number)
            .collect();
        let complete = keys.len() < STRETCH as usize;
        match ipam::first_free(pools, from, &used, complete) {
            Step::Free(number) => return Ok(Some(ipam::address(number))),
            Step::Exhausted => return Ok(None),
            // Each stretch ends behind at least one used address, so this comes to an end.
            Step::Continue(at) => from = at.max(from + 1),
        }
    }
}

/// Gives the ports that a network has already their addresses in a new subnet with automatic ones.
pub(super) async fn add_auto_addresses(write: &mut Write<'_>, subnet: &SubnetRow) -> Result<()> {
    for mut port in store::port_list_network(write.conn(), &subnet.network_id).await? {
        if is_router_owner(&port.row.device_owner)
            || !serves(subnet, &port.row.device_owner)
            || port.fixed_ips.len() >= limits::FIXED_IPS_MAX
        {
            continue;
        }
        if let Some(ip) = formed(&port, subnet)?
            && fixed_ip_owner(write.conn(), &subnet.id, &ip_key(ip))
                .await?
                .is_none()
        {
            take(write, &mut port, subnet, ip).await?;
            rows::update(&mut write.tx, &mut port.row).await?;
        }
    }
    Ok(())
}

/// Gives the routers that have their gateway in a network already an address in a new subnet of it, if they have none of
/// that family.
pub(super) async fn add_gateway_addresses(write: &mut Write<'_>, subnet: &SubnetRow) -> Result<()> {
    for mut port in store::port_list_network(write.conn(), &subnet.network_id).await? {
        let of_family = |ip: &FixedIpRow| {
            ip_of_key(&ip.ip_key).is_some_and(|ip| ip.is_ipv6() == (subnet.ip_version == 6))
        };
        let has = port.fixed_ips.iter().any(of_family);
        if has || port.row.device_owner != ROUTER_GATEWAY || !serves(subnet, ROUTER_GATEWAY) {
            continue;
        }
        if let Some(ip) = next_free(write, subnet).await? {
            take(write, &mut port, subnet, ip).await?;
            rows::update(&mut write.tx, &mut port.row).await?;
        }
    }
    Ok(())
}

/// Takes a port's addresses in a subnet away.
pub(super) async fn remove_subnet(
    write: &mut Write<'_>,
    mut port: Port,
    subnet: &str,
) -> Result<()> {
    store::fixed_ip_delete_port(&mut write.tx, &port.row.id).await?;
    port.fixed_ips.retain(|ip| ip.subnet_id != subnet);
    for (n, ip) in port.fixed_ips.iter_mut().enumerate() {
        ip.position = i64::try_from(n).unwrap_or(i64::MAX);
        fixed_ip_insert(&mut write.tx, ip).await?;
    }
    rows::update(&mut write.tx, &mut port.row).await?;
    write.tx.touch(Resource::Port, &port.row.id).await?;
    Ok(())
}

/// A subnet of the port's network by id.
pub(super) async fn subnet_of(write: &mut Write<'_>, id: &str) -> Result<SubnetRow> {
    rows::get::<SubnetRow>(write.conn(), id)
        .await?
        .ok_or_else(|| super::resource::not_found::<subnet::Subnet>(id))
}
