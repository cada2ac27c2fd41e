//! Routers: legs in project networks, extra routes. The leg in an external network is `router_gateway`'s.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result, quote};
use super::port::{self, New, ROUTER_INTERFACE};
use super::port_attribute::FixedIpWanted;
use super::resource::{self, Resource, Write};
use super::router_gateway::{self, Gateway};
use super::subnet::{Subnet, range_of};
use super::subnet_attribute::routes_of;
use super::view::view;
use super::{App, network, policy::Caller, port_address};
use crate::store::floating_ip::floating_ip_list_router;
use crate::store::network::NetworkRow;
use crate::store::port::{FixedIpRow, Port as PortItem, port_get};
use crate::store::router::{self as store, RouterRow, interface_list};
use crate::store::subnet::{Route, SubnetRow};
use crate::store::{self as rows, Conn, JsonText};
use serde_json::{Value, json};
use std::net::IpAddr;
use uuid::Uuid;
use weft_model::limits;

/// The resource.
pub struct Router;

/// A router with its gateway's port.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: RouterRow,
    /// The port in the external network.
    pub gateway: Option<PortItem>,
}

fn routes(value: &Value) -> Result<Value, String> {
    routes_of(value, limits::ROUTER_ROUTES_MAX)
}

impl Resource for Router {
    type Row = RouterRow;
    type Item = Item;

    const NAME: &'static str = "router";
    const COLLECTION: &'static str = "routers";
    const NOT_FOUND: &'static str = "RouterNotFound";
    const TITLE: &'static str = "Router";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("admin_state_up", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("external_gateway_info", Kind::Custom(router_gateway::read))
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("routes", Kind::Custom(routes))
            .put()
            .nullable(),
        Attribute::new("distributed", Kind::Bool)
            .post(Default::Unset)
            .put()
            .nullable(),
        Attribute::new("ha", Kind::Bool)
            .post(Default::Unset)
            .put()
            .nullable(),
        Attribute::new("status", Kind::Text(16)).sort(),
    ];

    fn row(item: &Item) -> &RouterRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, routers: Vec<RouterRow>) -> Result<Vec<Item>> {
        let mut items = Vec::with_capacity(routers.len());
        for row in routers {
            let gateway = match &row.gateway_port_id {
                Some(port) => port_get(&mut *conn, port).await?,
                None => None,
            };
            items.push(Item { row, gateway });
        }
        Ok(items)
    }

    fn view(item: &Item) -> Attributes {
        let row = &item.row;
        view! { row;
            "name" => row.name,
            "admin_state_up" => row.admin_state_up,
            "status" => "ACTIVE",
            "external_gateway_info" => router_gateway::view(item),
            "routes" => row.routes.0,
            "distributed" => row.distributed,
            "ha" => row.ha,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let mut row = RouterRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            distributed: given.truth("distributed").unwrap_or(false),
            ha: given.truth("ha").unwrap_or(false),
            enable_snat: true,
            ..RouterRow::default()
        };
        let gateway: Option<Gateway> = given.shaped("external_gateway_info");
        rows::insert(&mut write.tx, &mut row).await?;
        let mut item = Item { row, gateway: None };
        if let Some(wanted) = gateway.filter(|gateway| gateway.network_id.is_some()) {
            router_gateway::set(write, &mut item, wanted).await?;
            let revision_number = item.row.revision_number;
            rows::update(&mut write.tx, &mut item.row).await?;
            item.row.revision_number = revision_number;
        }
        Ok(item)
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        if let Some(name) = given.text_opt("name") {
            item.row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            item.row.description = description;
        }
        item.row.admin_state_up = given
            .truth("admin_state_up")
            .unwrap_or(item.row.admin_state_up);
        item.row.distributed = given.truth("distributed").unwrap_or(item.row.distributed);
        item.row.ha = given.truth("ha").unwrap_or(item.row.ha);
        if let Some(wanted) = given.remove("external_gateway_info") {
            let wanted: Gateway = serde_json::from_value(wanted).unwrap_or_default();
            if wanted.network_id.is_some() {
                router_gateway::set(write, &mut item, wanted).await?;
            } else {
                router_gateway::clear(write, &mut item).await?;
            }
        }
        if let Some(routes) = given.remove("routes") {
            let routes: Vec<Route> = serde_json::from_value(routes).unwrap_or_default();
            check_routes(write, &item, &routes).await?;
            item.row.routes = JsonText(routes);
        }
        rows::update(&mut write.tx, &mut item.row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, mut item: Item) -> Result<()> {
        let id = item.row.id.clone();
        if !interface_list(write.conn(), &[&id]).await?.is_empty() {
            return Err(Error::conflict(
                "RouterInUse",
                format!("Router {id} still has ports"),
            ));
        }
        router_gateway::clear(write, &mut item).await?;
        rows::delete::<RouterRow>(&mut write.tx, &id).await?;
        Ok(())
    }
}

/// The ports of a router's legs in project networks.
pub(super) async fn interfaces(write: &mut Write<'_>, router: &str) -> Result<Vec<PortItem>> {
    let mut ports = Vec::new();
    for interface in interface_list(write.conn(), &[router]).await? {
        ports.extend(port_get(write.conn(), &interface.port_id).await?);
    }
    Ok(ports)
}

/// Every next hop must be a neighbour on a leg, and not the router itself.
async fn check_routes(write: &mut Write<'_>, item: &Item, routes: &[Route]) -> Result<()> {
    if routes.is_empty() {
        return Ok(());
    }
    let mut legs = interfaces(write, &item.row.id).await?;
    legs.extend(item.gateway.clone());
    let own: Vec<&FixedIpRow> = legs.iter().flat_map(|leg| &leg.fixed_ips).collect();
    let mut ranges = Vec::new();
    for ip in &own {
        ranges.push(range_of(
            &port_address::subnet_of(write, &ip.subnet_id).await?,
        ));
    }
    for route in routes {
        let nexthop = route.nexthop.to_string();
        let reason = if own.iter().any(|ip| ip.ip_address == nexthop) {
            "the nexthop is used by router"
        } else if !ranges.iter().any(|range| range.contains(&route.nexthop)) {
            "the nexthop is not connected with router"
        } else {
            continue;
        };
        return Err(Error::invalid(
            "InvalidRoutes",
            format!(
                "Invalid format for routes: destination {}, nexthop {nexthop}: {reason}",
                route.destination
            ),
        ));
    }
    Ok(())
}

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

fn permit(app: &App, caller: &Caller, rule: &str, target: &Attributes) -> Result<()> {
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
async fn add_subnet(write: &mut Write<'_>, item: &Item, id: &str) -> Result<(PortItem, String)> {
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
