//! Trunks: one guest's port through which it reaches further ports, each tagged with a VLAN of its own.
//!
//! Guarantees: a port is in one trunk at most, as its parent or as a subport; subports are bound where their parent is.

use super::attribute::{
    Attribute, Attributes, Default, Kind, Take, int_of, objects_of, only_keys, text_of, uuid_of,
};
use super::error::{Error, Result, quote};
use super::port::{self, Port};
use super::resource::{self, Place, Resource, Write};
use super::view::{self, View, view};
use super::{App, policy::Caller};
use crate::store::network::NetworkRow;
use crate::store::port::{Port as PortItem, PortRow, TrunkDetails, port_get};
use crate::store::segment::segment_list;
use crate::store::trunk::{
    SubportRow, TrunkRow, places_of_ports, status_refresh, subport_delete, subport_insert,
    subport_list, trunk_of_parents,
};
use crate::store::{self as rows, Conn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;
use weft_model::limits;

/// The resource.
pub struct Trunk;

/// `device_owner` of a port that is reached through a trunk.
pub const SUBPORT: &str = "trunk:subport";

/// A trunk with its subports.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: TrunkRow,
    /// By their place.
    pub subports: Vec<SubportRow>,
}

/// What a caller says of a subport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    port_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation_id: Option<i64>,
}

/// Reads `sub_ports`.
fn sub_ports(value: &Value) -> Result<Value, String> {
    let max = limits::SUBPORTS_PER_TRUNK_MAX;
    let wanted = objects_of(value, max, "sub_ports", |subport| {
        only_keys(
            subport,
            &["port_id", "segmentation_type", "segmentation_id"],
        )?;
        let given = |key: &str| subport.get(key).filter(|value| !value.is_null());
        let port = given("port_id").ok_or("A valid port UUID must be specified")?;
        let wanted = Wanted {
            port_id: uuid_of(port)?,
            segmentation_type: given("segmentation_type")
                .map(|t| text_of(t, 36))
                .transpose()?,
            segmentation_id: given("segmentation_id")
                .map(|id| int_of(id, i64::MIN, i64::MAX))
                .transpose()?,
        };
        let inherit = wanted.segmentation_type.as_deref() == Some("inherit");
        let missing = wanted.segmentation_type.is_none() || wanted.segmentation_id.is_none();
        if !inherit && missing && subport.len() > 1 {
            return Err(format!(
                "Invalid subport details for {}: must specify both segmentation_id and \
                 segmentation_type",
                quote(&wanted.port_id)
            ));
        }
        Ok(wanted)
    })?;
    for (n, one) in wanted.iter().enumerate() {
        for before in &wanted[..n] {
            if before.port_id == one.port_id {
                return Err(format!(
                    "Non unique UUID for subport: {}",
                    quote(&one.port_id)
                ));
            }
            let same = before.segmentation_id == one.segmentation_id
                && before.segmentation_type == one.segmentation_type;
            if same && let Some(id) = one.segmentation_id {
                return Err(format!(
                    "Segmentation ID '{id}' for {} is not unique",
                    quote(&one.port_id)
                ));
            }
        }
    }
    Ok(json!(wanted))
}

impl Resource for Trunk {
    type Row = TrunkRow;
    type Item = Item;

    const NAME: &'static str = "trunk";
    const COLLECTION: &'static str = "trunks";
    const NOT_FOUND: &'static str = "TrunkNotFound";
    const TITLE: &'static str = "Trunk";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("admin_state_up", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("port_id", Kind::Uuid).required().sort(),
        Attribute::new("sub_ports", Kind::Custom(sub_ports)).post(Default::EmptyList),
        Attribute::new("status", Kind::Text(16)).sort(),
    ];

    fn row(item: &Item) -> &TrunkRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, trunks: Vec<TrunkRow>) -> Result<Vec<Item>> {
        let ids: Vec<&str> = trunks.iter().map(|row| row.id.as_str()).collect();
        let mut subports: HashMap<String, Vec<SubportRow>> = HashMap::new();
        for subport in subport_list(conn, &ids).await? {
            subports
                .entry(subport.trunk_id.clone())
                .or_default()
                .push(subport);
        }
        Ok(trunks
            .into_iter()
            .map(|row| Item {
                subports: subports.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let subports: Vec<Value> = item.subports.iter().map(subport_view).collect();
        view! { row;
            "name" => row.name,
            "admin_state_up" => row.admin_state_up,
            "status" => row.status,
            "port_id" => row.port_id,
            "sub_ports" => subports,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let parent = port_of(write, &given.text("port_id")).await?;
        check_free(write, &parent.row.id).await?;
        let mut row = TrunkRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            status: "DOWN".to_owned(),
            port_id: parent.row.id.clone(),
            ..TrunkRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        let mut item = Item {
            row,
            subports: Vec::new(),
        };
        let wanted: Vec<Wanted> = given.shaped("sub_ports").unwrap_or_default();
        add(write, &mut item, &parent, wanted).await?;
        reread(write, item).await
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let Item { mut row, subports } = item;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        let up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
        if up != row.admin_state_up {
            for subport in &subports {
                // Their host opens or closes them.
                write
                    .tx
                    .touch(rows::Resource::Port, &subport.port_id)
                    .await?;
            }
        }
        row.admin_state_up = up;
        rows::update(&mut write.tx, &mut row).await?;
        Ok(Item { row, subports })
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        check_enabled(&item.row)?;
        for subport in &item.subports {
            release(write, &subport.port_id).await?;
        }
        rows::delete::<TrunkRow>(&mut write.tx, &item.row.id).await?;
        Ok(())
    }
}

fn subport_view(subport: &SubportRow) -> Value {
    json!({
        "port_id": subport.port_id,
        "segmentation_type": subport.segmentation_type,
        "segmentation_id": subport.segmentation_id,
    })
}

/// A parent port's `trunk_details`.
pub(super) fn details_view(trunk: &TrunkDetails) -> Value {
    let subports: Vec<Value> = trunk
        .subports
        .iter()
        .map(|subport| {
            json!({
                "port_id": subport.port_id,
                "segmentation_type": subport.segmentation_type,
                "segmentation_id": subport.segmentation_id,
                "mac_address": subport.mac_address,
            })
        })
        .collect();
    json!({ "trunk_id": trunk.trunk_id, "sub_ports": subports })
}

/// A port that the caller may put into a trunk.
async fn port_of(write: &mut Write<'_>, id: &str) -> Result<PortItem> {
    let caller = write.caller;
    let port = port_get(write.conn(), id).await?;
    port.filter(|port| port.row.project_id == caller.project_id || caller.is_admin())
        .ok_or_else(|| resource::not_found::<Port>(id))
}

/// Refuses a port that is in a trunk.
async fn check_free(write: &mut Write<'_>, port: &str) -> Result<()> {
    if !places_of_ports(write.conn(), &[port]).await?.is_empty() {
        return Err(Error::conflict(
            "TrunkPortInUse",
            format!("Port {port} is in use by another trunk."),
        ));
    }
    if !trunk_of_parents(write.conn(), &[port]).await?.is_empty() {
        return Err(Error::conflict(
            "ParentPortInUse",
            format!(
                "Port {port} is currently in use and is not eligible for use as a parent port."
            ),
        ));
    }
    Ok(())
}

/// Refuses to delete a port that is in a trunk.
pub(super) async fn check_port_unused(write: &mut Write<'_>, port: &str) -> Result<()> {
    if let Some(place) = places_of_ports(write.conn(), &[port]).await?.pop() {
        return Err(Error::conflict(
            "PortInUseAsSubPort",
            format!(
                "Port {port} is currently a subport for trunk {}.",
                place.trunk_id
            ),
        ));
    }
    if let Some((_, trunk)) = trunk_of_parents(write.conn(), &[port]).await?.pop() {
        return Err(Error::conflict(
            "PortInUseAsTrunkParent",
            format!("Port {port} is currently a parent port for trunk {trunk}."),
        ));
    }
    Ok(())
}

fn check_enabled(row: &TrunkRow) -> Result<()> {
    if row.admin_state_up {
        return Ok(());
    }
    Err(Error::conflict(
        "TrunkDisabled",
        format!("Trunk {} is currently disabled.", row.id),
    ))
}

/// Adds subports to a trunk, and binds them where its parent is.
async fn add(
    write: &mut Write<'_>,
    item: &mut Item,
    parent: &PortItem,
    wanted: Vec<Wanted>,
) -> Result<()> {
    if item.subports.len() + wanted.len() > limits::SUBPORTS_PER_TRUNK_MAX {
        return Err(Error::invalid_input(format!(
            "sub_ports: at most {} on a trunk",
            limits::SUBPORTS_PER_TRUNK_MAX
        )));
    }
    let mtu = network_of(write, &parent.row)
        .await?
        .map(|network| network.mtu);
    let first = item.subports.last().map_or(0, |last| last.position + 1);
    for (position, one) in (first..).zip(wanted) {
        if one.port_id == parent.row.id {
            return Err(Error::conflict(
                "ParentPortInUse",
                format!(
                    "Port {} is currently in use and is not eligible for use as a parent port.",
                    one.port_id
                ),
            ));
        }
        let mut port = port_of(write, &one.port_id).await?;
        let (segmentation_type, segmentation_id) = place_of(write, item, &port, one, mtu).await?;
        check_free(write, &port.row.id).await?;
        if !port.row.device_id.is_empty() {
            return Err(Error::conflict(
                "PortInUse",
                format!(
                    "Unable to complete operation on port {} for network {}. Port already has an \
                     attached device {}.",
                    port.row.id, port.row.network_id, port.row.device_id
                ),
            ));
        }
        let row = SubportRow {
            port_id: port.row.id.clone(),
            trunk_id: item.row.id.clone(),
            segmentation_type,
            segmentation_id,
            position,
        };
        subport_insert(&mut write.tx, &row).await?;
        item.subports.push(row);
        SUBPORT.clone_into(&mut port.row.device_owner);
        follow(write, port.row, &parent.row.binding_host_id).await?;
    }
    status_refresh(&mut write.tx, &parent.row.id).await?;
    Ok(())
}

/// Which VLAN a subport gets on its trunk.
async fn place_of(
    write: &mut Write<'_>,
    item: &Item,
    port: &PortItem,
    one: Wanted,
    mtu_max: Option<i64>,
) -> Result<(String, i64)> {
    let network = network_of(write, &port.row).await?;
    if let (Some(network), Some(max)) = (&network, mtu_max)
        && network.mtu > max
    {
        return Err(Error::conflict(
            "SubPortMtuGreaterThanTrunkPortMtu",
            format!(
                "MTU {} of subport {} cannot be greater than MTU {max} of trunk {}.",
                network.mtu, port.row.id, item.row.id
            ),
        ));
    }
    let (segmentation_type, segmentation_id) = match one.segmentation_type.as_deref() {
        Some("inherit") => {
            let segments = segment_list(write.conn(), &[&port.row.network_id]).await?;
            let segment = segments.into_iter().next().unwrap_or_default();
            (Some(segment.network_type), segment.segmentation_id)
        }
        _ => (one.segmentation_type, one.segmentation_id),
    };
    let (Some(segmentation_type), Some(id)) = (segmentation_type, segmentation_id) else {
        return Err(Error::invalid_input(format!(
            "Invalid subport details for '{}': must specify both segmentation_id and \
             segmentation_type",
            port.row.id
        )));
    };
    if segmentation_type != "vlan" {
        return Err(Error::invalid_input(format!(
            "Unknown segmentation_type {}",
            quote(&segmentation_type)
        )));
    }
    if !(1..=4_094).contains(&id) {
        return Err(Error::invalid_input(format!(
            "Segmentation ID '{id}' is not in range"
        )));
    }
    let taken = |other: &SubportRow| {
        other.segmentation_type == segmentation_type && other.segmentation_id == id
    };
    if item.subports.iter().any(taken) {
        return Err(Error::conflict(
            "DuplicateSubPort",
            format!(
                "segmentation_type {segmentation_type} and segmentation_id {id} already in use on \
                 trunk {}.",
                item.row.id
            ),
        ));
    }
    Ok((segmentation_type, id))
}

async fn network_of(write: &mut Write<'_>, port: &PortRow) -> Result<Option<NetworkRow>> {
    Ok(rows::get::<NetworkRow>(write.conn(), &port.network_id).await?)
}

/// Binds a subport where its parent is.
async fn follow(write: &mut Write<'_>, mut row: PortRow, host: &str) -> Result<()> {
    if row.binding_host_id != host {
        host.clone_into(&mut row.binding_host_id);
        port::first_status(&row).clone_into(&mut row.status);
    }
    rows::update(&mut write.tx, &mut row).await?;
    Ok(())
}

/// Makes a subport an ordinary port again.
async fn release(write: &mut Write<'_>, port: &str) -> Result<()> {
    subport_delete(&mut write.tx, port).await?;
    if let Some(mut row) = rows::get::<PortRow>(write.conn(), port).await? {
        row.device_owner.clear();
        follow(write, row, "").await?;
    }
    Ok(())
}

/// A port was changed: if it is a trunk's parent and has another host, its subports follow.
pub(super) async fn parent_changed(
    write: &mut Write<'_>,
    before: &PortItem,
    after: &PortItem,
) -> Result<()> {
    let Some(trunk) = &after.trunk else {
        return Ok(());
    };
    let host = &after.row.binding_host_id;
    if *host != before.row.binding_host_id {
        for subport in &trunk.subports {
            if let Some(row) = rows::get::<PortRow>(write.conn(), &subport.port_id).await? {
                follow(write, row, host).await?;
            }
        }
    }
    status_refresh(&mut write.tx, &after.row.id).await?;
    Ok(())
}

/// The trunk as it is written now: its status may have followed its ports.
async fn reread(write: &mut Write<'_>, item: Item) -> Result<Item> {
    let found = resource::get::<Trunk>(write.conn(), &item.row.id).await?;
    Ok(found.unwrap_or(item))
}

/// The subports of a body `{"sub_ports": […]}`.
fn wanted_of(body: &Value) -> Result<Vec<Wanted>> {
    let given = body
        .as_object()
        .filter(|body| body.len() == 1)
        .and_then(|body| body.get("sub_ports"))
        .ok_or_else(|| Error::bad_request("The request body must be {\"sub_ports\": […]}"))?;
    let checked = sub_ports(given).map_err(Error::invalid_input)?;
    Ok(serde_json::from_value(checked).unwrap_or_default())
}

async fn begin<'a>(
    app: &'a App,
    caller: &'a Caller,
    rule: &str,
    id: &str,
) -> Result<(Write<'a>, Item)> {
    let (write, item, target) =
        resource::begin::<Trunk>(app, caller, "update", Place::from(id), None).await?;
    if !app.policy.allows(rule, caller, &target) {
        return Err(Error::Forbidden(format!("rule:{rule}")));
    }
    check_enabled(&item.row)?;
    Ok((write, item))
}

async fn done(mut write: Write<'_>, item: Item) -> Result<Value> {
    let mut item = reread(&mut write, item).await?;
    rows::update(&mut write.tx, &mut item.row).await?;
    let (app, caller) = (write.app, write.caller);
    let shown = view::full_of::<Trunk>(app, write.conn(), caller, &item).await?;
    let shown = view::show_to::<Trunk>(app, caller, &shown, &[]);
    write.tx.commit().await?;
    Ok(shown)
}

/// PUT …/add_subports
///
/// # Errors
/// [`Error`].
pub async fn add_subports(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let wanted = wanted_of(body)?;
    let (mut write, mut item) = begin(app, caller, "add_subports", id).await?;
    let parent = port_get(write.conn(), &item.row.port_id).await?;
    let parent = parent.ok_or_else(|| resource::not_found::<Port>(&item.row.port_id))?;
    add(&mut write, &mut item, &parent, wanted).await?;
    done(write, item).await
}

/// PUT …/remove_subports
///
/// # Errors
/// [`Error`].
pub async fn remove_subports(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let wanted = wanted_of(body)?;
    let (mut write, mut item) = begin(app, caller, "remove_subports", id).await?;
    for one in wanted {
        let place = item
            .subports
            .iter()
            .position(|have| have.port_id == one.port_id);
        let Some(place) = place else {
            return Err(Error::not_found(
                "SubPortNotFound",
                format!(
                    "SubPort on trunk {id} with parent port {} could not be found.",
                    one.port_id
                ),
            ));
        };
        item.subports.remove(place);
        release(&mut write, &one.port_id).await?;
    }
    status_refresh(&mut write.tx, &item.row.port_id).await?;
    done(write, item).await
}

/// GET …/get_subports
///
/// # Errors
/// [`Error`].
pub async fn get_subports(app: &App, caller: &Caller, id: &str) -> Result<Value> {
    let view = resource::seen::<Trunk>(app, caller, Place::from(id)).await?;
    let mut shown = view::show_to::<Trunk>(app, caller, &view, &["sub_ports".to_owned()]);
    Ok(json!({ "sub_ports": shown["sub_ports"].take() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subports_are_told_apart() {
        let id = |n: u8| format!("00000000-0000-4000-8000-0000000000{n:02}");
        let vlan = |n: u8, vlan: i64| json!({ "port_id": id(n), "segmentation_type": "vlan", "segmentation_id": vlan });
        let inherit = |n: u8| json!({ "port_id": id(n), "segmentation_type": "inherit" });
        for (list, good) in [
            (json!([vlan(1, 2), vlan(2, 3)]), true),
            (json!([vlan(1, 2), vlan(2, 2)]), false),
            (json!([vlan(1, 2), vlan(1, 3)]), false),
            (json!([inherit(1), inherit(2)]), true),
            (json!([{ "port_id": id(1) }]), true),
            (
                json!([{ "port_id": id(1), "segmentation_type": "vlan" }]),
                false,
            ),
            (json!([{ "port_id": id(1), "segmentation_id": 3 }]), false),
            (json!([{ "port_id": "x" }]), false),
            (
                json!([{ "segmentation_type": "vlan", "segmentation_id": 3 }]),
                false,
            ),
            (vlan(1, 2), false),
        ] {
            assert_eq!(sub_ports(&list).is_ok(), good, "{list}");
        }
    }

    #[test]
    fn a_trunk_has_a_bounded_number_of_subports() {
        let many = |n: usize| {
            let list = (0..n).map(|_| json!({ "port_id": Uuid::new_v4().to_string() }));
            Value::Array(list.collect())
        };
        assert!(sub_ports(&many(limits::SUBPORTS_PER_TRUNK_MAX)).is_ok());
        assert!(sub_ports(&many(limits::SUBPORTS_PER_TRUNK_MAX + 1)).is_err());
    }
}
