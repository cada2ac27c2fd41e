//! Subnets on segments: routed networks, whose segments are networks of their own to a guest and reach each other by
//! the gateways of their subnets.
//!
//! Guarantees: either all subnets of a network are on segments or none is (but those for routed addresses); a subnet
//! tells its guests the way to the subnets of the other segments.

use super::error::{Error, Result};
use super::resource::Write;
use super::segment;
use super::subnet::{Row, range_of};
use crate::store::segment::segment_list;
use crate::store::subnet::{Route, subnet_list_network};
use crate::store::{self as rows};
use ipnet::IpNet;
use std::net::IpAddr;
use weft_model::limits;

/// The service type of subnets whose addresses are routed to wherever they are in use: on no segment of their own.
const ROUTED: &str = "network:routed";

fn counts(row: &Row) -> bool {
    !row.service_types.0.iter().any(|owner| owner == ROUTED)
}

fn not_all(network: &str) -> Error {
    Error::invalid(
        "SubnetsNotAllAssociatedWithSegments",
        format!(
            "All of the subnets on network '{network}' must either all be associated with segments or \
             all not associated with any segment."
        ),
    )
}

/// Checks the segment of a new subnet, and gives it the routes to its peers.
pub(super) async fn join(write: &mut Write<'_>, row: &mut Row) -> Result<()> {
    if let Some(id) = &row.segment_id {
        segment::of_network(write, &row.network_id, id).await?;
    }
    let peers = subnet_list_network(write.conn(), &row.network_id).await?;
    let apart = |peer: &Row| counts(peer) && peer.segment_id.is_some() != row.segment_id.is_some();
    if counts(row) && peers.iter().any(apart) {
        return Err(not_all(&row.network_id));
    }
    add_routes(row, &peers);
    Ok(())
}

/// Checks another segment of a subnet that is there: one that is on none goes onto the only one of its network.
pub(super) async fn change(
    write: &mut Write<'_>,
    row: &mut Row,
    wanted: Option<String>,
) -> Result<()> {
    if wanted == row.segment_id {
        return Ok(());
    }
    let peers = subnet_list_network(write.conn(), &row.network_id).await?;
    if peers.iter().filter(|peer| counts(peer)).count() > 1 {
        return Err(not_all(&row.network_id));
    }
    if row.segment_id.is_some() {
        return Err(Error::invalid(
            "SubnetSegmentAssociationChangeNotAllowed",
            "A subnet that is already associated with a segment cannot have its segment association \
             changed.",
        ));
    }
    if segment_list(write.conn(), &[&row.network_id]).await?.len() > 1 {
        return Err(Error::invalid(
            "NoUpdateSubnetWhenMultipleSegmentsOnNetwork",
            format!(
                "The network '{}' has multiple segments, it is only possible to associate an existing \
                 subnet with a segment on networks with a single segment.",
                row.network_id
            ),
        ));
    }
    if let Some(id) = &wanted {
        segment::of_network(write, &row.network_id, id).await?;
    }
    row.segment_id = wanted;
    Ok(())
}

/// After a change of its gateway or routes, a subnet still tells the way to its peers.
pub(super) async fn reroute(write: &mut Write<'_>, before: &Row, row: &mut Row) -> Result<()> {
    if row.segment_id.is_none() {
        return Ok(());
    }
    let peers = subnet_list_network(write.conn(), &row.network_id).await?;
    if before.gateway_ip != row.gateway_ip {
        let old = gateway(before);
        let to_peer = |route: &Route| peers.iter().any(|peer| range_of(peer) == route.destination);
        row.host_routes
            .0
            .retain(|route| Some(route.nexthop) != old || !to_peer(route));
    }
    add_routes(row, &peers);
    Ok(())
}

/// Tells the other subnets of a routed network that there is a new one.
pub(super) async fn joined(write: &mut Write<'_>, row: &Row) -> Result<()> {
    if row.segment_id.is_none() {
        return Ok(());
    }
    let all = subnet_list_network(write.conn(), &row.network_id).await?;
    for mut peer in all.clone() {
        let before = peer.host_routes.clone();
        add_routes(&mut peer, &all);
        if peer.host_routes != before {
            rows::update(&mut write.tx, &mut peer).await?;
        }
    }
    Ok(())
}

/// Tells the other subnets of a routed network that one is gone.
pub(super) async fn left(write: &mut Write<'_>, row: &Row) -> Result<()> {
    if row.segment_id.is_none() {
        return Ok(());
    }
    let gone = range_of(row);
    for mut peer in subnet_list_network(write.conn(), &row.network_id).await? {
        let nexthop = gateway(&peer);
        let before = peer.host_routes.0.len();
        peer.host_routes
            .0
            .retain(|route| route.destination != gone || Some(route.nexthop) != nexthop);
        if peer.host_routes.0.len() != before {
            rows::update(&mut write.tx, &mut peer).await?;
        }
    }
    Ok(())
}

fn gateway(row: &Row) -> Option<IpAddr> {
    row.gateway_ip.as_deref().and_then(|text| text.parse().ok())
}

/// Adds routes by the gateway to the subnets of other segments, but to those that a route leads to already. There are
/// never more than a subnet may have.
fn add_routes(row: &mut Row, peers: &[Row]) {
    let (Some(nexthop), Some(_)) = (gateway(row), &row.segment_id) else {
        return;
    };
    for peer in peers {
        let elsewhere = peer.id != row.id
            && peer.segment_id != row.segment_id
            && peer.ip_version == row.ip_version;
        let destination = range_of(peer);
        let covered = |route: &Route| covers(route.destination, destination);
        if elsewhere
            && !row.host_routes.0.iter().any(covered)
            && row.host_routes.0.len() < limits::HOST_ROUTES_MAX
        {
            row.host_routes.0.push(Route {
                destination,
                nexthop,
            });
        }
    }
    row.host_routes.0.sort();
}

fn covers(wide: IpNet, narrow: IpNet) -> bool {
    wide.contains(&narrow.network()) && wide.prefix_len() <= narrow.prefix_len()
}
