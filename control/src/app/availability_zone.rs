//! Availability zones: hosts are in one, called as OpenStack's default one.

use super::attribute::text_of;
use super::error::{Error, Result, quote, quote_value};
use serde_json::Value;

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
