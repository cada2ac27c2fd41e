//! A router's legs in project networks: add_router_interface and remove_router_interface.

use super::attribute::{self, Attributes};
use super::error::{Error, Result, quote};
use super::network;
use super::policy::Caller;
use super::port::{self, New, ROUTER_INTERFACE};
use super::port_attribute::FixedIpWanted;
use super::resource::Write;
use super::resource::{self};
use super::router::{Item, Router, interfaces};
use super::subnet::{Subnet, range_of};
use super::{App, ndp_proxy, port_address};
use crate::store::floating_ip::floating_ip_list_router;
use crate::store::network::NetworkRow;
use crate::store::port::{FixedIpRow, Port as PortItem, port_get};
use crate::store::router as store;
use crate::store::subnet::SubnetRow;
use crate::store::{self as rows, JsonText};
use serde_json::{Value, json};
use std::net::IpAddr;
use weft_model::limits;

/// What add_router_interface and remove_router_interface are told.
struct Leg {
    subnet_id: Option<String>,
    port_id: Option<String>,
}

fn leg_of(body: &Value) -> Result<Leg> {
    let object = body.as_object().ok_or_else(|| {
        Error::bad_request("Invalid request body: expected {\"subnet_id\": …} or {\"port_id\": …}")
    })?;
    let read = |key: &str| {
        object
            .get(key)
            .filter(|value| !value.is_null())
            .map(|value| attribute::uuid_of(value).map_err(|reason| Error::attribute(key, reason)))
            .transpose()
    };
    if let Some(key) = object
        .keys()
        .find(|key| !["subnet_id", "port_id"].contains(&key.as_str()))
    {
        return Err(Error::bad_request(format!(
            "Unrecognized attribute(s) {}",
            quote(key)
        )));
    }
    let leg = Leg {
        subnet_id: read("subnet_id")?,
        port_id: read("port_id")?,
    };
    if leg.subnet_id.is_none() && leg.port_id.is_none() {
        return Err(Error::invalid(
            "BadRequest",
            "Bad router request: Either subnet_id or port_id must be specified.",
        ));
    }
    Ok(leg)
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid("BadRequest", format!("Bad router request: {reason}."))
}

fn answer(item: &Item, leg: &PortItem, subnet: &str) -> Value {
    let subnets: Vec<&String> = leg.fixed_ips.iter().map(|ip| &ip.subnet_id).collect();
    json!({
        "id": item.row.id,
        "project_id": item.row.project_id,
        "tenant_id": item.row.project_id,
        "port_id": leg.row.id,
        "network_id": leg.row.network_id,
        "subnet_id": subnet,
        "subnet_ids": if subnets.is_empty() { vec![subnet.to_owned()] } else { subnets.into_iter().cloned().collect() },
    })
}

/// PUT /v2.0/routers/{id}/add_router_interface
///
/// # Errors
/// [`Error`].
pub async fn add_interface(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let leg = leg_of(body)?;
    let (mut write, mut item, target) =
        resource::begin::<Router>(app, caller, "update", id.into(), None).await?;
    permit(app, caller, "add_router_interface", &target)?;
    let (port, subnet) = match (leg.subnet_id, leg.port_id) {
        (Some(_), Some(_)) => return Err(bad("Cannot specify both subnet-id and port-id")),
        (Some(subnet), None) => add_subnet(&mut write, &item, &subnet).await?,
        (None, port) => add_port(&mut write, &item, &port.unwrap_or_default()).await?,
    };
    rows::update(&mut write.tx, &mut item.row).await?;
    write.tx.commit().await?;
    Ok(answer(&item, &port, &subnet))
}

pub(super) fn permit(app: &App, caller: &Caller, rule: &str, target: &Attributes) -> Result<()> {
    if app.policy.allows(rule, caller, target) {
        Ok(())
    } else {
        Err(Error::Forbidden(format!("rule:{rule}")))
    }
}

/// A subnet that the caller may connect, with its network.
async fn subnet_usable(write: &mut Write<'_>, id: &str) -> Result<(SubnetRow, NetworkRow)> {
    let subnet = port_address::subnet_of(write, id).await?;
    let network = network::usable(write.tx.conn(), write.caller, &subnet.network_id).await;
    let network = network.map_err(|_hidden| resource::not_found::<Subnet>(id))?;
    Ok((subnet, network))
}

/// Refuses a subnet that overlaps with one that the router has a leg in, or that it has already.
async fn check_overlap(
    write: &mut Write<'_>,
    item: &Item,
    new: &SubnetRow,
) -> Result<Vec<PortItem>> {
    let legs = interfaces(write, &item.row.id).await?;
    let gateway = item.gateway.iter();
    for ip in legs.iter().chain(gateway).flat_map(|leg| &leg.fixed_ips) {
        if ip.subnet_id == new.id {
            return Err(bad(format!(
                "Router already has a port on subnet {}",
                new.id
            )));
        }
        let other = port_address::subnet_of(write, &ip.subnet_id).await?;
        let (a, b) = (range_of(&other), range_of(new));
        if a.contains(&b.network()) || b.contains(&a.network()) {
            return Err(bad(format!(
                "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
                new.cidr, new.id, other.cidr, other.id
            )));
        }
    }
    if legs.len() >= limits::ROUTER_INTERFACES_MAX {
        return Err(bad(format!(
            "at most {} interfaces",
            limits::ROUTER_INTERFACES_MAX
        )));
    }
    Ok(legs)
}

/// Adds a leg with the subnet's gateway address. An IPv6 subnet joins the leg that the router has for IPv6 in the
/// same network.
pub(super) async fn add_subnet(
    write: &mut Write<'_>,
    item: &Item,
    id: &str,
) -> Result<(PortItem, String)> {
    let (subnet, network) = subnet_usable(write, id).await?;
    let gateway: Option<IpAddr> = subnet
        .gateway_ip
        .as_deref()
        .and_then(|text| text.parse().ok());
    let Some(gateway) = gateway else {
        return Err(bad("Subnet for router interface must have a gateway IP"));
    };
    let legs = check_overlap(write, item, &subnet).await?;
    let wish = FixedIpWanted {
        subnet_id: Some(subnet.id.clone()),
        ip_address: Some(gateway),
    };
    let joined = legs.into_iter().find(|leg| {
        subnet.ip_version == 6
            && leg.row.network_id == network.id
            && leg
                .fixed_ips
                .first()
                .is_some_and(|ip| ip.ip_address.contains(':'))
    });
    if let Some(mut leg) = joined {
        let mut wanted: Vec<FixedIpWanted> = leg.fixed_ips.iter().map(wish_of).collect();
        wanted.push(wish);
        port_address::assign(write, &mut leg, Some(&wanted)).await?;
        rows::update(&mut write.tx, &mut leg.row).await?;
        return Ok((leg, subnet.id));
    }
    let new = New {
        project_id: item.row.project_id.clone(),
        admin_state_up: true,
        device_id: item.row.id.clone(),
        device_owner: ROUTER_INTERFACE.to_owned(),
        fixed_ips: Some(vec![wish]),
        security_groups: Some(Vec::new()),
        ..New::default()
    };
    let leg = port::create(write, &network, new).await?;
    store::interface_insert(&mut write.tx, &item.row.id, &leg.row.id).await?;
    Ok((leg, subnet.id))
}

fn wish_of(ip: &FixedIpRow) -> FixedIpWanted {
    FixedIpWanted {
        subnet_id: Some(ip.subnet_id.clone()),
        ip_address: ip.ip_address.parse().ok(),
    }
}

/// Makes a port that is there a leg.
async fn add_port(write: &mut Write<'_>, item: &Item, id: &str) -> Result<(PortItem, String)> {
    let not_found = || resource::not_found::<port::Port>(id);
    let mut leg = port_get(write.conn(), id).await?.ok_or_else(not_found)?;
    let caller = write.caller;
    if leg.row.project_id != caller.project_id && !caller.is_admin() {
        return Err(not_found());
    }
    if !leg.row.device_id.is_empty() && leg.row.device_id != item.row.id
        || leg.row.device_owner == ROUTER_INTERFACE
    {
        return Err(Error::conflict(
            "PortInUse",
            format!(
                "Unable to complete operation on port {id} for network {}. Port already has an \
                 attached device {}.",
                leg.row.network_id, leg.row.device_id
            ),
        ));
    }
    let Some(first) = leg.fixed_ips.first().map(|ip| ip.subnet_id.clone()) else {
        return Err(bad(format!(
            "Router port must have at least one fixed IP: port {id} has none"
        )));
    };
    let v4 = leg
        .fixed_ips
        .iter()
        .filter(|ip| !ip.ip_address.contains(':'))
        .count();
    if v4 > 1 {
        return Err(bad("Cannot have multiple IPv4 subnets on router port"));
    }
    for ip in &leg.fixed_ips {
        let subnet = port_address::subnet_of(write, &ip.subnet_id).await?;
        check_overlap(write, item, &subnet).await?;
    }
    leg.row.device_id.clone_from(&item.row.id);
    ROUTER_INTERFACE.clone_into(&mut leg.row.device_owner);
    "ACTIVE".clone_into(&mut leg.row.status);
    leg.row.port_security_enabled = false;
    leg.row.allowed_address_pairs = JsonText(Vec::new());
    crate::store::port::security_groups_set(&mut write.tx, id, &[]).await?;
    leg.security_groups.clear();
    rows::update(&mut write.tx, &mut leg.row).await?;
    store::interface_insert(&mut write.tx, &item.row.id, id).await?;
    Ok((leg, first))
}

/// PUT /v2.0/routers/{id}/remove_router_interface
///
/// # Errors
/// [`Error`].
pub async fn remove_interface(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let wanted = leg_of(body)?;
    let (mut write, mut item, target) =
        resource::begin::<Router>(app, caller, "update", id.into(), None).await?;
    permit(app, caller, "remove_router_interface", &target)?;
    let legs = interfaces(&mut write, id).await?;
    let (leg, subnet) = leg_wanted(&legs, &item, &wanted)?;
    let going: Vec<String> = match &wanted.port_id {
        Some(_) => leg
            .fixed_ips
            .iter()
            .map(|ip| ip.subnet_id.clone())
            .collect(),
        None => vec![subnet.clone()],
    };
    check_unused(&mut write, &item, &going).await?;
    let answer = answer(&item, &leg, &subnet);
    if going.len() < leg.fixed_ips.len() {
        // The leg stays for its other IPv6 subnets.
        port_address::remove_subnet(&mut write, leg, &subnet).await?;
    } else {
        store::interface_delete(&mut write.tx, id, &leg.row.id).await?;
        port::delete(&mut write, &leg.row.id).await?;
    }
    rows::update(&mut write.tx, &mut item.row).await?;
    write.tx.commit().await?;
    Ok(answer)
}

fn leg_wanted(legs: &[PortItem], item: &Item, wanted: &Leg) -> Result<(PortItem, String)> {
    let router = &item.row.id;
    if let Some(port) = &wanted.port_id {
        let leg = legs.iter().find(|leg| leg.row.id == *port).ok_or_else(|| {
            Error::not_found(
                "RouterInterfaceNotFound",
                format!("Router {router} does not have an interface with id {port}"),
            )
        })?;
        let first = leg
            .fixed_ips
            .first()
            .map(|ip| ip.subnet_id.clone())
            .unwrap_or_default();
        if let Some(subnet) = &wanted.subnet_id
            && !leg.fixed_ips.iter().any(|ip| ip.subnet_id == *subnet)
        {
            return Err(Error::conflict(
                "SubnetMismatchForPort",
                format!("Subnet on port {port} does not match the requested subnet {subnet}"),
            ));
        }
        return Ok((leg.clone(), first));
    }
    let subnet = wanted.subnet_id.clone().unwrap_or_default();
    let on_subnet = |leg: &&PortItem| leg.fixed_ips.iter().any(|ip| ip.subnet_id == subnet);
    let leg = legs.iter().find(on_subnet).ok_or_else(|| {
        Error::not_found(
            "RouterInterfaceNotFoundForSubnet",
            format!("Router {router} has no interface on subnet {subnet}"),
        )
    })?;
    Ok((leg.clone(), subnet))
}

/// A leg cannot go while a floating IP or a route needs it.
async fn check_unused(write: &mut Write<'_>, item: &Item, going: &[String]) -> Result<()> {
    let router = &item.row.id;
    let mut ranges = Vec::new();
    for subnet in going {
        ndp_proxy::interface_unused(write, router, subnet).await?;
        ranges.push((
            range_of(&port_address::subnet_of(write, subnet).await?),
            subnet,
        ));
    }
    for fip in floating_ip_list_router(write.conn(), router).await? {
        let fixed: Option<IpAddr> = fip
            .fixed_ip_address
            .as_deref()
            .and_then(|ip| ip.parse().ok());
        for (range, subnet) in &ranges {
            if fixed.is_some_and(|fixed| range.contains(&fixed)) {
                return Err(Error::conflict(
                    "RouterInterfaceInUseByFloatingIP",
                    format!(
                        "Router interface for subnet {subnet} on router {router} cannot be deleted, \
                         as it is required by one or more floating IPs."
                    ),
                ));
            }
        }
    }
    for (range, subnet) in &ranges {
        if item
            .row
            .routes
            .0
            .iter()
            .any(|route| range.contains(&route.nexthop))
        {
            return Err(Error::conflict(
                "RouterInterfaceInUseByRoute",
                format!(
                    "Router interface for subnet {subnet} on router {router} cannot be deleted, as \
                     it is required by one or more routes."
                ),
            ));
        }
    }
    Ok(())
}
