//! `distributed` and `ha`: kept as they are asked for, since every router of Weft is both.

use super::attribute::Attributes;
use super::error::{Error, Result};
use crate::store::router::RouterRow;
use serde_json::Value;

/// What a body says of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) distributed: Option<bool>,
    pub(super) ha: Option<bool>,
}

impl Modes {
    pub(super) fn of(given: &Attributes) -> Self {
        let truth = |name: &str| given.get(name).and_then(Value::as_bool);
        Self {
            distributed: truth("distributed"),
            ha: truth("ha"),
        }
    }
}

/// Changes a router's modes; only while it is down, before and (for `distributed`) after the change.
pub(super) fn change(row: &mut RouterRow, was_up: bool, asked: Modes) -> Result<()> {
    let distributed = asked.distributed.unwrap_or(row.distributed);
    let ha = asked.ha.unwrap_or(row.ha);
    if (distributed, ha) == (row.distributed, row.ha) {
        return Ok(());
    }
    if row.flavor_id.is_some() {
        return Err(Error::invalid_input(
            "Changing the 'ha' and 'distributed' attributes on a router associated with a flavor is \
             not supported",
        ));
    }
    if distributed != row.distributed && (was_up || row.admin_state_up) {
        return Err(active("the 'distributed' attribute"));
    }
    if ha != row.ha && row.admin_state_up {
        return Err(active("HA attribute"));
    }
    (row.distributed, row.ha) = (distributed, ha);
    Ok(())
}

fn active(what: &str) -> Error {
    Error::invalid(
        "BadRequest",
        format!(
            "Bad router request: Cannot change {what} of active routers. Please set router \
             admin_state_up to False prior to upgrade."
        ),
    )
}
