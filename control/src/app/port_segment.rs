//! Routed networks: a guest's addresses come from the segment that its host is connected to, so that a port without a
//! host has none yet (`ip_allocation` is `deferred`), and a port with some cannot go where they lead nowhere.
//!
//! A host is connected to the segments of the physical networks that its agent reports, and to those of tunnels.
//! Ports of the network's own services are on every segment.

use super::agent::L2;
use super::error::{Error, Result};
use super::port;
use super::port_address;
use super::resource::Write;
use crate::store::agent::agent_list_hosts;
use crate::store::gateway::physical_network_list;
use crate::store::port::{Port as Item, PortRow};
use crate::store::segment::segment_list;
use crate::store::subnet::{SubnetRow, subnet_list_network};
use std::collections::BTreeSet;

/// `ip_allocation` of a port that gets its addresses when it is bound.
pub(super) const DEFERRED: &str = "deferred";
/// `ip_allocation` of a port that has got its addresses.
pub(super) const IMMEDIATE: &str = "immediate";

/// Keeps the subnets that a port may have addresses of where it is; `named` is whether the caller names them.
pub(super) async fn reachable(
    write: &mut Write<'_>,
    row: &PortRow,
    mut subnets: Vec<SubnetRow>,
    named: bool,
) -> Result<Vec<SubnetRow>> {
    let routed = subnets.iter().any(|subnet| subnet.segment_id.is_some());
    let host = row.binding_host_id.as_str();
    if !routed || !port::is_guest(row) || (host.is_empty() && named) {
        return Ok(subnets);
    }
    let connected = match host.is_empty() {
        true => BTreeSet::new(),
        false => segments_of(write, host, &row.network_id).await?,
    };
    subnets.retain(|subnet| {
        let segment = subnet.segment_id.as_ref();
        segment.is_none_or(|segment| connected.contains(segment))
    });
    let segments: BTreeSet<&String> = subnets
        .iter()
        .filter_map(|s| s.segment_id.as_ref())
        .collect();
    let network = &row.network_id;
    if segments.len() > 1 {
        return Err(Error::conflict(
            "HostConnectedToMultipleSegments",
            format!(
                "Host {host} is connected to multiple segments on routed provider network '{network}'. \
                 It should be connected to one."
            ),
        ));
    }
    if subnets.is_empty() && !host.is_empty() {
        return Err(Error::conflict(
            "HostNotConnectedToAnySegment",
            format!(
                "Host {host} is not connected to any segments on routed provider network '{network}'. \
                 It should be connected to one."
            ),
        ));
    }
    Ok(subnets)
}

/// The segments of a network that a host is connected to; none before it has reported.
async fn segments_of(write: &mut Write<'_>, host: &str, network: &str) -> Result<BTreeSet<String>> {
    let agents = agent_list_hosts(write.conn(), &[host]).await?;
    if !agents.iter().any(|agent| agent.agent_type == L2) {
        return Ok(BTreeSet::new());
    }
    let names = physical_network_list(write.conn(), host).await?;
    let segments = segment_list(write.conn(), &[network]).await?;
    let connected = segments.into_iter().filter(|segment| {
        let physical = segment.physical_network.as_ref();
        physical.is_none_or(|name| names.contains(name))
    });
    Ok(connected.map(|segment| segment.id).collect())
}

/// A port that goes to another host must be able to keep its addresses there; one that has none yet gets them now.
pub(super) async fn host_changed(
    write: &mut Write<'_>,
    before: &Item,
    item: &mut Item,
) -> Result<()> {
    let host = &item.row.binding_host_id;
    if host.is_empty() || *host == before.row.binding_host_id {
        return Ok(());
    }
    if item.row.ip_allocation == DEFERRED && item.fixed_ips.is_empty() {
        return port_address::assign(write, item, None).await;
    }
    if item.fixed_ips.is_empty() || !port::is_guest(&item.row) {
        return Ok(());
    }
    let subnets = subnet_list_network(write.conn(), &item.row.network_id).await?;
    let subnets = reachable(write, &item.row, subnets, false).await?;
    let reached = |ip: &str| subnets.iter().any(|subnet| subnet.id == ip);
    if item.fixed_ips.iter().all(|ip| reached(&ip.subnet_id)) {
        return Ok(());
    }
    Err(Error::conflict(
        "HostNotCompatibleWithFixedIps",
        format!(
            "Host {} is not connected to a segment where the existing fixed_ips on port {} will \
             function given the routed network topology.",
            item.row.binding_host_id, item.row.id
        ),
    ))
}
