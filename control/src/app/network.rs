//! Networks: provider attributes, the choice of a segment, sharing, external networks.

use super::attribute::{Attribute, Attributes, Default, Kind, Take, int_of, text_of};
use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::rbac_policy::{self, EXTERNAL, Object, SHARED};
use super::resource::{Resource, Write};
use super::subnet_check::check_mtu;
use super::view::view;
use super::{port, qos_policy, security_group, subnet};
use crate::store::network::{self as store, NetworkRow, SegmentRow};
use crate::store::port::port_list_network;
use crate::store::subnet::subnet_list_network;
use crate::store::subnetpool::address_scopes_of;
use crate::store::{self as rows, Conn, JsonText};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;
use weft_model::NetworkType;

/// The resource.
pub struct Network;

/// A network with its segments and the ids of its subnets.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: NetworkRow,
    /// By their place; at least one.
    pub segments: Vec<SegmentRow>,
    /// Ids of its subnets.
    pub subnets: Vec<String>,
    /// The address scope of its IPv4 subnets.
    pub ipv4_address_scope: Option<String>,
    /// The address scope of its IPv6 subnets.
    pub ipv6_address_scope: Option<String>,
}

/// An attribute of the provider extension that may be unset; null means not given.
fn text_64(value: &Value) -> Result<Value, String> {
    text_of(value, 64).map(Value::from)
}

fn segmentation_id(value: &Value) -> Result<Value, String> {
    int_of(value, 0, i64::from(u32::MAX)).map(Value::from)
}

impl Resource for Network {
    type Row = NetworkRow;
    type Item = Item;

    const NAME: &'static str = "network";
    const COLLECTION: &'static str = "networks";
    const NOT_FOUND: &'static str = "NetworkNotFound";
    const TITLE: &'static str = "Network";
    const RBAC: Option<&'static str> = Some("network");
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("admin_state_up", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("shared", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        Attribute::new("router:external", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        Attribute::new("is_default", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        Attribute::new("mtu", Kind::Int(0, 65_535))
            .post(Default::Int(0))
            .put()
            .sort(),
        Attribute::new("port_security_enabled", Kind::Bool)
            .post(Default::Bool(true))
            .put(),
        Attribute::new("qos_policy_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("provider:network_type", Kind::Text(32))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("provider:physical_network", Kind::Custom(text_64))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("provider:segmentation_id", Kind::Custom(segmentation_id))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("status", Kind::Text(16)).sort(),
        Attribute::new("subnets", Kind::UuidList),
        Attribute::new("ipv4_address_scope", Kind::Uuid),
        Attribute::new("ipv6_address_scope", Kind::Uuid),
    ];

    fn row(item: &Item) -> &NetworkRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, networks: Vec<NetworkRow>) -> Result<Vec<Item>> {
        let ids: Vec<&str> = networks.iter().map(|row| row.id.as_str()).collect();
        let mut segments: HashMap<String, Vec<SegmentRow>> = HashMap::new();
        for segment in store::segment_list(conn, &ids).await? {
            segments
                .entry(segment.network_id.clone())
                .or_default()
                .push(segment);
        }
        let mut subnets: HashMap<String, Vec<String>> = HashMap::new();
        for (network, subnet) in store::subnet_ids(conn, &ids).await? {
            subnets.entry(network).or_default().push(subnet);
        }
        let mut scopes: HashMap<(String, i64), String> = HashMap::new();
        for (network, ip_version, scope) in address_scopes_of(conn, &ids).await? {
            if let Some(scope) = scope {
                scopes.insert((network, ip_version), scope);
            }
        }
        Ok(networks
            .into_iter()
            .map(|row| Item {
                segments: segments.remove(&row.id).unwrap_or_default(),
                subnets: subnets.remove(&row.id).unwrap_or_default(),
                ipv4_address_scope: scopes.remove(&(row.id.clone(), 4)),
                ipv6_address_scope: scopes.remove(&(row.id.clone(), 6)),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> Attributes {
        let row = &item.row;
        let segment = item.segments.first();
        view! { row;
            "name" => row.name,
            "admin_state_up" => row.admin_state_up,
            "status" => "ACTIVE",
            "router:external" => row.external,
            "is_default" => row.is_default,
            "mtu" => row.mtu,
            "port_security_enabled" => row.port_security_enabled,
            "qos_policy_id" => row.qos_policy_id,
            "subnets" => item.subnets,
            "ipv4_address_scope" => item.ipv4_address_scope,
            "ipv6_address_scope" => item.ipv6_address_scope,
            "provider:network_type" => segment.map(|s| &s.network_type),
            "provider:physical_network" => segment.and_then(|s| s.physical_network.as_ref()),
            "provider:segmentation_id" => segment.and_then(|s| s.segmentation_id),
        }
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        qos_policy::unenforced(view)
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let id = Uuid::new_v4().to_string();
        let mut segment = segment_wanted(write, &mut given)?;
        segment.network_id.clone_from(&id);
        let network_type = network_type_of(&segment.network_type)?;
        let mtu = mtu_wanted(write, network_type, given.int("mtu").unwrap_or(0))?;
        let mut row = NetworkRow {
            id,
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            external: given.truth("router:external").unwrap_or(false),
            is_default: given.truth("is_default").unwrap_or(false),
            mtu,
            port_security_enabled: given.truth("port_security_enabled").unwrap_or(true),
            availability_zone_hints: JsonText(Vec::new()),
            ..NetworkRow::default()
        };
        row.qos_policy_id = match given.text_opt("qos_policy_id") {
            None => qos_policy::default_of(write, &row.project_id).await?,
            wanted => qos_policy::change(write, None, wanted).await?,
        };
        security_group::default_ensure(write, &row.project_id).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        let shared = given.truth("shared").unwrap_or(false);
        rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        rbac_policy::everybody_set(write, object(&row), EXTERNAL, row.external).await?;
        segment_take(write, &mut segment).await?;
        Ok(Item {
            row,
            segments: vec![segment],
            subnets: Vec::new(),
            ipv4_address_scope: None,
            ipv6_address_scope: None,
        })
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        provider_unchanged(&item.segments, &given)?;
        let row = &mut item.row;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        row.admin_state_up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
        row.is_default = given.truth("is_default").unwrap_or(row.is_default);
        row.port_security_enabled = given
            .truth("port_security_enabled")
            .unwrap_or(row.port_security_enabled);
        if let (Some(mtu), Some(segment)) = (given.int("mtu"), item.segments.first()) {
            row.mtu = mtu_wanted(write, network_type_of(&segment.network_type)?, mtu)?;
            for subnet in subnet_list_network(write.conn(), &row.id).await? {
                check_mtu(row, subnet.ip_version, row.mtu)?;
            }
        }
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            row.qos_policy_id = qos_policy::change(write, row.qos_policy_id.take(), wanted).await?;
        }
        update_sharing(write, row, &mut given).await?;
        rows::update(&mut write.tx, row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let id = &item.row.id;
        if !port_list_network(write.conn(), id).await?.is_empty() {
            return Err(Error::conflict(
                "NetworkInUse",
                format!(
                    "Unable to complete operation on network {id}. There are one or more ports \
                     still in use on the network."
                ),
            ));
        }
        for subnet in subnet_list_network(write.conn(), id).await? {
            subnet::remove(write, &subnet).await?;
        }
        rows::delete::<NetworkRow>(&mut write.tx, id).await?;
        Ok(())
    }
}

/// A network's row, if the caller may use it (for ports, subnets, gateways).
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<NetworkRow> {
    let not_found = || super::resource::not_found::<Network>(id);
    let row = rows::get::<NetworkRow>(conn, id)
        .await?
        .ok_or_else(not_found)?;
    if rbac_policy::usable(conn, caller, object(&row)).await? {
        Ok(row)
    } else {
        Err(not_found())
    }
}

/// The network as RBAC policies name it.
pub(super) fn object(row: &NetworkRow) -> Object<'_> {
    Object {
        object_type: "network",
        id: &row.id,
        project_id: &row.project_id,
    }
}

/// The network's segment's type.
fn network_type_of(text: &str) -> Result<NetworkType> {
    serde_json::from_value(Value::from(text)).map_err(|_unknown| {
        Error::invalid_input(format!("Unknown provider:network_type {}", quote(text)))
    })
}

fn type_name(network_type: NetworkType) -> String {
    // A unit variant serialises to its name.
    serde_json::to_value(network_type)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// What the provider attributes ask for, checked; the number may still be missing.
fn segment_wanted(write: &Write<'_>, given: &mut Attributes) -> Result<SegmentRow> {
    let config = &write.app.config;
    let network_type = given.text_opt("provider:network_type");
    let physical_network = given
        .text_opt("provider:physical_network")
        .filter(|name| !name.is_empty());
    let segmentation_id = given.int("provider:segmentation_id");
    let Some(network_type) = network_type.filter(|text| !text.is_empty()) else {
        if physical_network.is_some() || segmentation_id.is_some() {
            return Err(Error::invalid_input("provider:network_type required"));
        }
        return Ok(SegmentRow {
            id: Uuid::new_v4().to_string(),
            network_type: type_name(config.default_network_type),
            physical_network: (config.default_network_type == NetworkType::Vlan)
                .then(|| config.vlan_ranges.keys().next().cloned())
                .flatten(),
            ..SegmentRow::default()
        });
    };
    let kind = network_type_of(&network_type)?;
    match (kind.is_physical(), &physical_network) {
        (true, None) => {
            return Err(Error::invalid_input(format!(
                "provider:physical_network required for {network_type} network"
            )));
        }
        (false, Some(_)) => {
            return Err(Error::invalid_input(format!(
                "provider:physical_network specified for {network_type} network"
            )));
        }
        (true, Some(name))
            if !config.physical_networks.is_empty() && !config.physical_networks.contains(name) =>
        {
            return Err(Error::invalid_input(format!(
                "physical_network {} unknown for {network_type} provider network",
                quote(name)
            )));
        }
        _ => {}
    }
    let (first, last) = match kind {
        NetworkType::Local | NetworkType::Flat if segmentation_id.is_some() => {
            return Err(Error::invalid_input(format!(
                "provider:segmentation_id specified for {network_type} network"
            )));
        }
        NetworkType::Vlan => (1, 4_094),
        NetworkType::Gre => (1, i64::from(u32::MAX)),
        _ => (1, 0xff_ffff),
    };
    if let Some(id) = segmentation_id
        && !(first..=last).contains(&id)
    {
        return Err(Error::invalid_input(format!(
            "segmentation_id out of range ({first} through {last}) for {network_type} network"
        )));
    }
    Ok(SegmentRow {
        id: Uuid::new_v4().to_string(),
        network_id: String::new(),
        segment_index: 0,
        network_type,
        physical_network,
        segmentation_id,
    })
}

/// Chooses the segment's number where none was given, and writes it.
async fn segment_take(write: &mut Write<'_>, segment: &mut SegmentRow) -> Result<()> {
    let kind = network_type_of(&segment.network_type)?;
    let numbered = !matches!(kind, NetworkType::Local | NetworkType::Flat);
    if numbered && segment.segmentation_id.is_none() {
        let config = &write.app.config;
        let range = match (kind, &segment.physical_network) {
            (NetworkType::Vlan, Some(physical)) => config.vlan_ranges.get(physical).copied(),
            (NetworkType::Vlan, None) => None,
            _ => Some(config.tunnel_id_range),
        };
        let Some(range) = range else {
            return Err(no_network());
        };
        segment.segmentation_id = store::segmentation_id_free(
            write.conn(),
            &segment.network_type,
            segment.physical_network.as_deref(),
            i64::from(range.first),
            i64::from(range.last),
        )
        .await?;
        if segment.segmentation_id.is_none() {
            return Err(no_network());
        }
    }
    match store::segment_insert(&mut write.tx, segment).await {
        Err(rows::StoreError::Conflict(_)) => Err(segment_taken(segment)),
        other => Ok(other?),
    }
}

fn no_network() -> Error {
    Error::conflict(
        "NoNetworkAvailable",
        "Unable to create the network. No available network found in maximum allowed attempts.",
    )
}

fn segment_taken(segment: &SegmentRow) -> Error {
    let physical = segment.physical_network.as_deref().unwrap_or_default();
    match (segment.network_type.as_str(), segment.segmentation_id) {
        ("flat", _) => Error::conflict(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {physical} is in use."),
        ),
        ("vlan", Some(id)) => Error::conflict(
            "VlanIdInUse",
            format!(
                "Unable to create the network. The VLAN {id} on physical network {physical} is in use."
            ),
        ),
        (_, id) => Error::conflict(
            "TunnelIdInUse",
            format!(
                "Unable to create the network. The tunnel ID {} is in use.",
                id.unwrap_or_default()
            ),
        ),
    }
}

/// The MTU to write: the type's largest for 0.
fn mtu_wanted(write: &Write<'_>, network_type: NetworkType, mtu: i64) -> Result<i64> {
    let max = i64::from(write.app.config.mtu_max(network_type));
    match mtu {
        0 => Ok(max),
        _ if mtu > max => Err(Error::invalid_input(format!(
            "Requested MTU is too big, maximum is {max}"
        ))),
        _ => Ok(mtu),
    }
}

/// A network cannot move to another segment; naming the one it has is no change.
fn provider_unchanged(segments: &[SegmentRow], given: &Attributes) -> Result<()> {
    let segment = segments.first();
    let now = [
        (
            "provider:network_type",
            segment.map(|s| Value::from(s.network_type.clone())),
        ),
        (
            "provider:physical_network",
            segment.map(|s| Value::from(s.physical_network.clone())),
        ),
        (
            "provider:segmentation_id",
            segment.map(|s| Value::from(s.segmentation_id)),
        ),
    ];
    for (name, value) in now {
        if given
            .get(name)
            .is_some_and(|wanted| Some(wanted) != value.as_ref())
        {
            return Err(Error::invalid_input(format!(
                "Plugin does not support updating the following provider network attribute: {name}"
            )));
        }
    }
    Ok(())
}

/// Changes who may use the network, unless others do already.
async fn update_sharing(
    write: &mut Write<'_>,
    row: &mut NetworkRow,
    given: &mut Attributes,
) -> Result<()> {
    let was_shared = rbac_policy::everybody(write.conn(), object(row), SHARED).await?;
    let shared = given.truth("shared").unwrap_or(was_shared);
    let external = given.truth("router:external").unwrap_or(row.external);
    if (was_shared && !shared) || (row.external && !external) {
        stop_sharing(write, row, was_shared && !shared, external).await?;
    }
    rbac_policy::everybody_set(write, object(row), SHARED, shared).await?;
    if external != row.external {
        rbac_policy::everybody_set(write, object(row), EXTERNAL, external).await?;
        if !external {
            rbac_policy::action_gone(write, object(row), EXTERNAL).await?;
        }
    }
    row.external = external;
    Ok(())
}

/// Refuses to close a network that others use.
async fn stop_sharing(
    write: &mut Write<'_>,
    row: &NetworkRow,
    unshare: bool,
    external: bool,
) -> Result<()> {
    let ports = port_list_network(write.conn(), &row.id).await?;
    let used_outside = ports.iter().any(|p| {
        matches!(
            p.row.device_owner.as_str(),
            port::ROUTER_GATEWAY | port::FLOATING_IP
        )
    });
    if row.external && !external && used_outside {
        return Err(Error::conflict(
            "ExternalNetworkInUse",
            format!(
                "External network {} cannot be updated to be made non-external, since it has \
                 existing gateway ports.",
                row.id
            ),
        ));
    }
    let foreign_port = ports
        .iter()
        .any(|p| !p.row.project_id.is_empty() && p.row.project_id != row.project_id);
    let foreign_subnet = subnet_list_network(write.conn(), &row.id)
        .await?
        .iter()
        .any(|subnet| subnet.project_id != row.project_id);
    if unshare && (foreign_port || foreign_subnet) {
        return Err(Error::conflict(
            "InvalidSharedSetting",
            format!(
                "Unable to reconfigure sharing settings for network {}. Multiple tenants are using it.",
                row.name
            ),
        ));
    }
    Ok(())
}
