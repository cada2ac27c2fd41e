//! What a subnet's attributes of a shape of their own must look like.

use super::attribute::{cidr_of, ip_of, objects_of, only_keys, text_of};
use super::error::{quote, quote_value};
use crate::store::subnet::{AllocationPool, Route};
use serde_json::Value;
use weft_model::limits;

/// Allocation pools of one subnet.
const POOLS_MAX: usize = 64;
/// Service types of one subnet.
const SERVICE_TYPES_MAX: usize = 32;

pub(super) fn cidr(value: &Value) -> Result<Value, String> {
    cidr_of(value).map(|cidr| cidr.trunc().to_string().into())
}

pub(super) fn pools(value: &Value) -> Result<Value, String> {
    let pools = objects_of(value, POOLS_MAX, "IP pools", |pool| {
        only_keys(pool, &["start", "end"])?;
        Ok(AllocationPool {
            start: ip_of(pool.get("start").unwrap_or(&Value::Null))?,
            end: ip_of(pool.get("end").unwrap_or(&Value::Null))?,
        })
    })?;
    serde_json::to_value(pools).map_err(|error| error.to_string())
}

pub(super) fn nameservers(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!(
            "Invalid data format for nameserver: {}",
            quote_value(value)
        ));
    };
    if list.len() > limits::DNS_NAMESERVERS_MAX {
        return Err(format!(
            "at most {} nameservers",
            limits::DNS_NAMESERVERS_MAX
        ));
    }
    let mut addresses: Vec<String> = Vec::new();
    for item in list {
        let address = ip_of(item)?.to_string();
        if addresses.contains(&address) {
            return Err(format!("Duplicate nameserver '{address}'"));
        }
        addresses.push(address);
    }
    Ok(addresses.into())
}

/// Reads `host_routes` of a subnet or `routes` of a router.
pub(super) fn routes_of(value: &Value, max: usize) -> Result<Value, String> {
    let mut routes = objects_of(value, max, "hostroute", |route| {
        only_keys(route, &["destination", "nexthop"])?;
        let destination = cidr_of(route.get("destination").unwrap_or(&Value::Null))?.trunc();
        let nexthop = ip_of(route.get("nexthop").unwrap_or(&Value::Null))?;
        if destination.addr().is_ipv6() != nexthop.is_ipv6() {
            return Err(format!(
                "destination {destination} and nexthop {nexthop} are of different families"
            ));
        }
        Ok(Route {
            destination,
            nexthop,
        })
    })?;
    let given = routes.len();
    routes.sort();
    routes.dedup();
    if routes.len() < given {
        return Err("Duplicate hostroute".to_owned());
    }
    serde_json::to_value(routes).map_err(|error| error.to_string())
}

pub(super) fn host_routes(value: &Value) -> Result<Value, String> {
    routes_of(value, limits::HOST_ROUTES_MAX)
}

/// Device owners whose ports may take addresses: `network:router_gateway`, `compute:nova`.
pub(super) fn service_types(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err("Subnet service types must be a list".to_owned());
    };
    if list.len() > SERVICE_TYPES_MAX {
        return Err(format!("more than {SERVICE_TYPES_MAX} service types"));
    }
    let mut types: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        let text = text_of(item, 255)?;
        if text.split_once(':').is_none_or(|(kind, _)| kind.is_empty()) {
            return Err(format!(
                "Subnet service type {} does not correspond to a valid device owner",
                quote(&text)
            ));
        }
        if types.contains(&text) {
            return Err(format!("Duplicate service type {}", quote(&text)));
        }
        types.push(text);
    }
    Ok(types.into())
}
