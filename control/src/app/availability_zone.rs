//! Availability zones: hosts are in one, called as OpenStack's default one. It serves networks by its hosts' DHCP agents
//! and routers by their L3 agents, and is available while one of them works.

use super::App;
use super::agent::{DHCP, L3};
use super::attribute::{Attribute, Attributes, Kind, text_of};
use super::error::{Error, Result, quote, quote_value};
use super::policy::Caller;
use super::query;
use crate::store::Value as Wanted;
use crate::store::agent::agent_type_works;
use serde_json::{Value, json};

/// The zone of every host.
pub(super) const ZONE: &str = "nova";
/// Hints of one resource.
const HINTS_MAX: usize = 16;

/// Reads `availability_zone_hints`.
pub(super) fn hints(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!("{} is not a list", quote_value(value)));
    };
    if list.len() > HINTS_MAX {
        return Err(format!("more than {HINTS_MAX} hints"));
    }
    let hints = list.iter().map(|hint| text_of(hint, 255));
    let hints: Vec<String> = hints.collect::<Result<_, _>>()?;
    Ok(hints.into())
}

/// Refuses hints of zones that are not there.
///
/// # Errors
/// [`Error::NotFound`], with the first such zone.
pub(super) fn check(hints: &[String]) -> Result<()> {
    match hints.iter().find(|hint| *hint != ZONE) {
        None => Ok(()),
        Some(hint) => Err(Error::not_found(
            "AvailabilityZoneNotFound",
            format!("AvailabilityZone {} could not be found.", quote(hint)),
        )),
    }
}

/// The zones that serve a network or a router: all of them, since every host does.
pub(super) fn of_service() -> Vec<&'static str> {
    vec![ZONE]
}

/// A zone's attributes.
const ATTRIBUTES: &[Attribute] = &[
    Attribute::new("name", Kind::Text(255)).filter(),
    Attribute::new("resource", Kind::Text(255)).filter(),
    Attribute::new("state", Kind::Text(255)).filter(),
];

/// GET /v2.0/availability_zones
///
/// # Errors
/// [`Error`].
pub async fn list(app: &App, caller: &Caller, pairs: &[(String, String)]) -> Result<Value> {
    let asked = query::read(ATTRIBUTES, &[], pairs)?;
    let mut zones: Vec<Value> = Vec::new();
    let allowed = app
        .policy
        .allows("get_availability_zone", caller, &Attributes::new());
    if allowed {
        let mut read = app.store.read().await?;
        for (resource, agent_type) in [("network", DHCP), ("router", L3)] {
            let state = match agent_type_works(read.conn(), agent_type).await? {
                true => "available",
                false => "unavailable",
            };
            zones.push(json!({ "name": ZONE, "resource": resource, "state": state }));
        }
    }
    zones.retain(|zone| {
        asked.list.filters.iter().all(|filter| {
            let is = |value: &Wanted| matches!(value, Wanted::Text(text) if zone[&filter.attribute] == **text);
            filter.values.iter().any(is)
        })
    });
    for zone in zones.iter_mut().filter_map(Value::as_object_mut) {
        zone.retain(|name, _| asked.fields.is_empty() || asked.fields.contains(name));
    }
    Ok(json!({ "availability_zones": zones }))
}
