//! Where a port is bound and how it is attached there: what Nova asks for and what it is told.
//!
//! A port has one binding in force, which is the port's own. A guest that moves has more, which come in force by being
//! activated; the one before stays until it is deleted.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take, mac_of};
use super::error::{Error, Result};
use super::policy::Caller;
use super::port::{self, Port};
use super::port_attribute::{VNIC_TYPES, host, profile};
use super::port_mac::{mac_free, mac_taken};
use super::resource::{self, Write};
use super::view::View;
use super::{App, port_segment, trunk};
use crate::store::port::{self as store, Port as Item, PortRow, port_get};
use crate::store::port_binding::{
    BindingRow, VhostUser, binding_delete, binding_list, binding_set, vhost_user_host_get,
};
use crate::store::{self as rows, Conn, JsonText, ServerEventKind};
use serde_json::{Map, Value, json};

/// The interface of ordinary guests: the only one that Weft's engines serve.
pub(super) const NORMAL: &str = "normal";
/// A whole device of the host's, whose MAC address the port must have.
const DIRECT_PHYSICAL: &str = "direct-physical";

/// What a further binding may say.
const ATTRIBUTES: &[Attribute] = &[
    Attribute::new("host", Kind::Custom(host)).required(),
    Attribute::new("vnic_type", Kind::OneOf(VNIC_TYPES))
        .post(Default::Text(NORMAL))
        .put(),
    Attribute::new("profile", Kind::Custom(profile))
        .post(Default::Unset)
        .put()
        .nullable(),
];

/// `vif_type` and `vif_details` of a binding.
fn vif(host: &str, vnic_type: &str, vhost_user: Option<&VhostUser>) -> (&'static str, Value) {
    match vhost_user {
        _ if host.is_empty() => ("unbound", json!({})),
        // No engine serves devices that are handed to the guest whole or in part.
        _ if vnic_type != NORMAL => ("binding_failed", json!({})),
        None => ("tap", json!({ "port_filter": true })),
        Some(vhost_user) => (
            "vhostuser",
            json!({
                "port_filter": true,
                "vhostuser_socket": vhost_user.socket,
                "vhostuser_mode": vhost_user.mode,
                "vhostuser_ovs_plug": false,
            }),
        ),
    }
}

/// The profile as the API shows it: what Nova gave, and that the port is trusted.
fn profile_view(profile: &Map<String, Value>, trusted: Option<bool>) -> Value {
    let mut profile = profile.clone();
    if let Some(trusted) = trusted {
        profile.insert("trusted".to_owned(), trusted.into());
    }
    Value::Object(profile)
}

/// Adds the binding in force to a port's view.
pub(super) fn add_view(row: &PortRow, view: &mut View) {
    let vhost_user = row.binding_vhost_user.0.as_ref();
    let (vif_type, details) = vif(&row.binding_host_id, &row.binding_vnic_type, vhost_user);
    view.put("binding:host_id", &row.binding_host_id);
    view.put("binding:vnic_type", &row.binding_vnic_type);
    view.put(
        "binding:profile",
        &profile_view(&row.binding_profile.0, row.trusted),
    );
    view.put("binding:vif_type", vif_type);
    view.put("binding:vif_details", &details);
}

/// What hardware offload asks of the host goes into the profile, where Nova looks.
pub(super) fn add_capability(profile: &mut Map<String, Value>, capability: Option<&str>) {
    let Some(capability) = capability else {
        return;
    };
    let entry = profile.entry("capabilities").or_insert_with(|| json!([]));
    match entry {
        Value::Array(list) if list.iter().all(|have| have != capability) => {
            list.push(capability.into());
        }
        Value::Array(_) => {}
        other => *other = json!([capability]),
    }
}

/// How the host attaches a guest's port: asked when the port is bound, and kept while it is.
async fn vhost_user(conn: &mut Conn, port: &PortRow, host: &str) -> Result<Option<VhostUser>> {
    if host.is_empty() || !port::is_guest(port) {
        return Ok(None);
    }
    let found = vhost_user_host_get(conn, host).await?;
    Ok(found.and_then(|found| {
        Some(VhostUser {
            // Neutron's name: `vhu` and the first 11 characters of the port's id.
            socket: format!("{}/vhu{:.11}", found.socket_folder, port.id),
            mode: serde_json::from_value(found.mode.into()).ok()?,
        })
    }))
}

/// Settles how a port with a new host is attached.
pub(super) async fn attach(conn: &mut Conn, row: &mut PortRow) -> Result<()> {
    row.binding_vhost_user = JsonText(vhost_user(conn, row, &row.binding_host_id).await?);
    Ok(())
}

/// Carries out what a port's change says of the binding in force.
pub(super) async fn update(
    write: &mut Write<'_>,
    item: &mut Item,
    given: &mut Attributes,
) -> Result<()> {
    let before = item.row.clone();
    let row = &mut item.row;
    if let Some(vnic_type) = given.text_opt("binding:vnic_type")
        && vnic_type != row.binding_vnic_type
    {
        if !row.binding_host_id.is_empty() {
            return Err(in_use(row));
        }
        row.binding_vnic_type = vnic_type;
    }
    if let Some(profile) = given.remove("binding:profile") {
        row.binding_profile = JsonText(serde_json::from_value(profile).unwrap_or_default());
    }
    if let Some(host) = given.text_or_null("binding:host_id") {
        row.binding_host_id = host.unwrap_or_default();
    }
    if row.binding_host_id != before.binding_host_id {
        binding_delete(&mut write.tx, &row.id, &row.binding_host_id).await?;
        attach(write.tx.conn(), row).await?;
        // The new host has yet to say that it enforces the port.
        port::first_status(row).clone_into(&mut row.status);
    }
    let changed = row.binding_host_id != before.binding_host_id
        || row.binding_profile != before.binding_profile;
    if changed && row.binding_vnic_type == DIRECT_PHYSICAL {
        physical_mac(write, row).await?;
    }
    Ok(())
}

fn in_use(row: &PortRow) -> Error {
    Error::conflict(
        "PortInUse",
        format!(
            "Unable to complete operation on port {} for network {}. Port already has an attached \
             device {}.",
            row.id, row.network_id, row.device_id
        ),
    )
}

/// A port that is a physical device has the device's MAC address; let go, it has one of its own again, so that the
/// device's is free for the next port.
async fn physical_mac(write: &mut Write<'_>, row: &mut PortRow) -> Result<()> {
    let device = row.binding_profile.0.get("device_mac_address");
    let mac = match device.filter(|_| !row.binding_host_id.is_empty()) {
        Some(device) => mac_of(device)
            .map_err(|reason| Error::attribute("binding:profile", reason))?
            .to_string(),
        None => mac_free(write, &row.network_id).await?,
    };
    if mac != row.mac_address {
        if store::mac_taken(write.conn(), &row.network_id, &mac).await? {
            return Err(mac_taken(&row.network_id, &mac));
        }
        row.mac_address = mac;
    }
    Ok(())
}

/// A binding's view.
fn view(port: &PortRow, binding: &BindingRow, status: &str) -> Value {
    let (vif_type, details) = vif(
        &binding.host,
        &binding.vnic_type,
        binding.vhost_user.0.as_ref(),
    );
    json!({
        "host": binding.host,
        "status": status,
        "vif_type": vif_type,
        "vif_details": details,
        "vnic_type": binding.vnic_type,
        "profile": profile_view(&binding.profile.0, port.trusted),
    })
}

/// The binding in force, as the others are.
fn active(port: &PortRow) -> Option<BindingRow> {
    (!port.binding_host_id.is_empty()).then(|| BindingRow {
        port_id: port.id.clone(),
        host: port.binding_host_id.clone(),
        vnic_type: port.binding_vnic_type.clone(),
        profile: port.binding_profile.clone(),
        vhost_user: port.binding_vhost_user.clone(),
    })
}

fn permit(app: &App, caller: &Caller, rule: &str) -> Result<()> {
    if app.policy.allows(rule, caller, &Attributes::new()) {
        Ok(())
    } else {
        Err(Error::Forbidden(format!("rule:{rule}")))
    }
}

/// The port, if it may have several bindings.
async fn port_of(conn: &mut Conn, id: &str) -> Result<Item> {
    let port = port_get(conn, id).await?;
    let port = port.ok_or_else(|| resource::not_found::<Port>(id))?;
    let owner = port.row.device_owner.as_str();
    if owner.starts_with("compute:") || owner.starts_with("manila:") {
        return Ok(port);
    }
    Err(Error::invalid(
        "BadRequest",
        format!(
            "Bad port request: Invalid port {id}. Operation only valid on compute and shared \
             filesystem ports."
        ),
    ))
}

fn not_found(port: &str, host: &str) -> Error {
    let host: String = host.chars().take(64).collect();
    Error::not_found(
        "PortBindingNotFound",
        format!("Binding for port {port} for host {host} could not be found."),
    )
}

async fn begin<'a>(
    app: &'a App,
    caller: &'a Caller,
    rule: &str,
    port: &str,
) -> Result<(Write<'a>, Item)> {
    permit(app, caller, rule)?;
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let item = port_of(write.conn(), port).await?;
    Ok((write, item))
}

/// Writes a port whose binding in force has changed: its host has yet to say that it enforces it.
async fn port_write(write: &mut Write<'_>, before: &Item, mut item: Item) -> Result<PortRow> {
    port::first_status(&item.row).clone_into(&mut item.row.status);
    port_segment::host_changed(write, before, &mut item).await?;
    rows::update(&mut write.tx, &mut item.row).await?;
    trunk::parent_changed(write, before, &item).await?;
    write
        .tx
        .announce(ServerEventKind::NetworkChanged, &item.row);
    Ok(item.row)
}

fn body_of(body: Value) -> Result<Attributes> {
    match body {
        Value::Object(mut body) if body.len() == 1 => match body.remove("binding") {
            Some(Value::Object(binding)) => Ok(binding),
            _ => Err(Error::bad_request(
                "Unable to find 'binding' in request body",
            )),
        },
        _ => Err(Error::bad_request(
            "Unable to find 'binding' in request body",
        )),
    }
}

/// GET of a port's bindings; the query's `host`, `status`, `vif_type` and `vnic_type` choose.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::NotFound`].
pub async fn list(
    app: &App,
    caller: &Caller,
    port: &str,
    pairs: &[(String, String)],
) -> Result<Value> {
    permit(app, caller, "get_port_binding")?;
    let mut read = app.store.read().await?;
    let item = port_of(read.conn(), port).await?;
    let further = binding_list(read.conn(), port).await?;
    drop(read);
    let active = active(&item.row)
        .into_iter()
        .map(|row| view(&item.row, &row, "ACTIVE"));
    let further = further.iter().map(|row| view(&item.row, row, "INACTIVE"));
    let wanted = |binding: &Value| {
        let filters = ["host", "status", "vif_type", "vnic_type"];
        filters.iter().all(|filter| {
            let mut values = pairs.iter().filter(|(name, _)| name == filter).peekable();
            values.peek().is_none() || values.any(|(_, value)| binding[*filter] == **value)
        })
    };
    let bindings: Vec<Value> = active.chain(further).filter(wanted).collect();
    Ok(json!({ "bindings": bindings }))
}

/// GET of one.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::NotFound`].
pub async fn show(app: &App, caller: &Caller, port: &str, host: &str) -> Result<Value> {
    let bindings = list(app, caller, port, &[("host".to_owned(), host.to_owned())]).await?;
    match bindings["bindings"].get(0) {
        Some(binding) => Ok(json!({ "binding": binding })),
        None => Err(not_found(port, host)),
    }
}

/// POST: in force if there is none yet.
///
/// # Errors
/// [`Error`].
pub async fn create(app: &App, caller: &Caller, port: &str, body: Value) -> Result<Value> {
    let given = body_of(body)?;
    let mut given = attribute::prepare_create(ATTRIBUTES, attribute::STANDARD_BARE, given)?;
    let (mut write, item) = begin(app, caller, "create_port_binding", port).await?;
    let host = given.text("host");
    let taken = item.row.binding_host_id == host
        || binding_list(write.conn(), port)
            .await?
            .iter()
            .any(|row| row.host == host);
    if host.is_empty() || taken {
        return Err(Error::conflict(
            "PortBindingAlreadyExists",
            format!("Binding for port {port} on host {host} already exists."),
        ));
    }
    let binding = BindingRow {
        port_id: port.to_owned(),
        vnic_type: given.text("vnic_type"),
        profile: JsonText(given.shaped("profile").unwrap_or_default()),
        vhost_user: JsonText(vhost_user(write.conn(), &item.row, &host).await?),
        host,
    };
    let shown = if item.row.binding_host_id.is_empty() {
        let mut bound = item.clone();
        put_in_force(&mut bound.row, binding.clone());
        let row = port_write(&mut write, &item, bound).await?;
        view(&row, &binding, "ACTIVE")
    } else {
        binding_set(&mut write.tx, &binding).await?;
        view(&item.row, &binding, "INACTIVE")
    };
    write.tx.commit().await?;
    Ok(json!({ "binding": shown }))
}

fn put_in_force(row: &mut PortRow, binding: BindingRow) {
    row.binding_host_id = binding.host;
    row.binding_vnic_type = binding.vnic_type;
    row.binding_profile = binding.profile;
    row.binding_vhost_user = binding.vhost_user;
}

/// PUT of one: its profile and kind of interface.
///
/// # Errors
/// [`Error`].
pub async fn change(
    app: &App,
    caller: &Caller,
    port: &str,
    host: &str,
    body: Value,
) -> Result<Value> {
    let given = body_of(body)?;
    let mut given = attribute::prepare_update(ATTRIBUTES, attribute::STANDARD_BARE, given)?;
    let (mut write, item) = begin(app, caller, "create_port_binding", port).await?;
    let in_force = active(&item.row).filter(|active| active.host == host);
    let status = if in_force.is_some() {
        "ACTIVE"
    } else {
        "INACTIVE"
    };
    let further = binding_list(write.conn(), port).await?;
    let further = further.into_iter().find(|row| row.host == host);
    let mut binding = in_force.or(further).ok_or_else(|| not_found(port, host))?;
    if let Some(vnic_type) = given.text_opt("vnic_type") {
        binding.vnic_type = vnic_type;
    }
    if let Some(profile) = given.remove("profile") {
        binding.profile = JsonText(serde_json::from_value(profile).unwrap_or_default());
    }
    let shown = view(&item.row, &binding, status);
    if status == "ACTIVE" {
        let mut bound = item.clone();
        put_in_force(&mut bound.row, binding);
        port_write(&mut write, &item, bound).await?;
    } else {
        binding_set(&mut write.tx, &binding).await?;
    }
    write.tx.commit().await?;
    Ok(json!({ "binding": shown }))
}

/// DELETE: the one in force too, and then the port is unbound.
///
/// # Errors
/// [`Error`].
pub async fn delete(app: &App, caller: &Caller, port: &str, host: &str) -> Result<()> {
    let (mut write, item) = begin(app, caller, "delete_port_binding", port).await?;
    if active(&item.row).is_some_and(|active| active.host == host) {
        let mut bound = item.clone();
        let unbound = BindingRow {
            vnic_type: NORMAL.to_owned(),
            ..BindingRow::default()
        };
        put_in_force(&mut bound.row, unbound);
        port_write(&mut write, &item, bound).await?;
    } else if !binding_delete(&mut write.tx, port, host).await? {
        return Err(not_found(port, host));
    }
    write.tx.commit().await?;
    Ok(())
}

/// PUT …/activate: the guest has moved.
///
/// # Errors
/// [`Error`].
pub async fn activate(app: &App, caller: &Caller, port: &str, host: &str) -> Result<Value> {
    let (mut write, item) = begin(app, caller, "activate", port).await?;
    let before = active(&item.row);
    if before.as_ref().is_some_and(|active| active.host == host) {
        return Err(Error::conflict(
            "PortBindingAlreadyActive",
            format!("Binding for port {port} on host {host} is already active."),
        ));
    }
    let further = binding_list(write.conn(), port).await?;
    let binding = further.into_iter().find(|row| row.host == host);
    let binding = binding.ok_or_else(|| not_found(port, host))?;
    binding_delete(&mut write.tx, port, host).await?;
    if let Some(before) = before {
        binding_set(&mut write.tx, &before).await?;
    }
    let mut bound = item.clone();
    put_in_force(&mut bound.row, binding.clone());
    let row = port_write(&mut write, &item, bound).await?;
    write.tx.commit().await?;
    Ok(json!({ "binding": view(&row, &binding, "ACTIVE") }))
}
