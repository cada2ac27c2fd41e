//! Extra routes of routers: what a next hop must be, and adding or removing some of them at once.

use super::body::unwrap_body;
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{self, Resource as _, Write};
use super::router::{Item, Router, interfaces};
use super::router_interface::permit;
use super::subnet::range_of;
use super::subnet_attribute::routes_of;
use super::{App, port_address, view};
use crate::store::port::FixedIpRow;
use crate::store::subnet::Route;
use crate::store::{self as rows, JsonText};
use serde_json::{Value, json};
use weft_model::limits;

/// Reads `routes`.
pub(super) fn read(value: &Value) -> Result<Value, String> {
    routes_of(value, limits::ROUTER_ROUTES_MAX)
}

/// Gives a router these routes. Every next hop must be a neighbour on a leg, and not the router itself.
pub(super) async fn set(write: &mut Write<'_>, item: &mut Item, routes: Vec<Route>) -> Result<()> {
    check(write, item, &routes).await?;
    item.row.routes = JsonText(routes);
    Ok(())
}

async fn check(write: &mut Write<'_>, item: &Item, routes: &[Route]) -> Result<()> {
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

/// What to do with the routes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// PUT …/add_extraroutes: these too.
    Add,
    /// PUT …/remove_extraroutes: all but these; one that is not there is no mistake.
    Remove,
}

/// The routes of a body `{"router": {"routes": […]}}`.
fn wanted(body: Value) -> Result<Vec<Route>> {
    let (mut objects, _) = unwrap_body::<Router>(body, false)?;
    let mut object = objects.pop().unwrap_or_default();
    let routes = object.remove("routes").filter(|_| object.is_empty());
    let routes = routes.ok_or_else(|| {
        Error::bad_request("Invalid request body: expected {\"router\": {\"routes\": […]}}")
    })?;
    let routes = read(&routes).map_err(|reason| Error::attribute("routes", reason))?;
    Ok(serde_json::from_value(routes).unwrap_or_default())
}

/// PUT /v2.0/routers/{id}/add_extraroutes and /remove_extraroutes
///
/// # Errors
/// [`Error`].
pub async fn change(
    app: &App,
    caller: &Caller,
    id: &str,
    change: Change,
    body: Value,
) -> Result<Value> {
    let wanted = wanted(body)?;
    let (mut write, mut item, target) =
        resource::begin::<Router>(app, caller, "update", id.into(), None).await?;
    let rule = match change {
        Change::Add => "add_extraroutes",
        Change::Remove => "remove_extraroutes",
    };
    permit(app, caller, rule, &target)?;
    let mut routes = item.row.routes.0.clone();
    match change {
        Change::Add => routes.extend(wanted),
        Change::Remove => routes.retain(|route| !wanted.contains(route)),
    }
    routes.sort();
    routes.dedup();
    if routes.len() > limits::ROUTER_ROUTES_MAX {
        return Err(Error::invalid(
            "RoutesExhausted",
            format!(
                "Unable to complete operation for {id}. The number of routes exceeds the maximum {}.",
                limits::ROUTER_ROUTES_MAX
            ),
        ));
    }
    set(&mut write, &mut item, routes).await?;
    rows::update(&mut write.tx, &mut item.row).await?;
    let view = view::full_of::<Router>(app, write.conn(), caller, &item).await?;
    write.tx.commit().await?;
    Ok(json!({ Router::NAME: view::show_to::<Router>(app, caller, &view, &[]) }))
}
