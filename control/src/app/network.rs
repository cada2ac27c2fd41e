//! Networks: their attributes, their segments' MTU, sharing, external networks. Which segments they get is
//! `network_segment`'s.

use super::attribute::{Attribute, Attributes, Default, Kind, Take, text_of};
use super::error::{Error, Result, quote};
use super::floating_ip::FloatingIp;
use super::network_segment::{self, mtu_max, physical_network, segmentation_id, segments};
use super::policy::Caller;
use super::rbac_policy::{self, EXTERNAL, Object, SHARED};
use super::resource::{self, Resource, Write};
use super::subnet_check::check_mtu;
use super::view::{View, view};
use super::{
    availability_zone, port, port_address, port_pvlan, qos_policy, security_group, subnet, transit,
};
use crate::store::floating_ip::floating_ip_of_floating_port;
use crate::store::network::{self as store, NetworkRow};
use crate::store::port::{PortRow, port_list_network};
use crate::store::segment::{SegmentRow, segment_list};
use crate::store::subnet::subnet_list_network;
use crate::store::subnetpool::address_scopes_of;
use crate::store::{self as rows, Conn, JsonText};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct Network;

/// A network with its segments and the ids of its subnets.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: NetworkRow,
    /// By their place.
    pub segments: Vec<SegmentRow>,
    /// Whether its subnets are on segments, so that its ports do not all see each other.
    pub routed: bool,
    /// Ids of its subnets.
    pub subnets: Vec<String>,
    /// The address scope of its IPv4 subnets.
    pub ipv4_address_scope: Option<String>,
    /// The address scope of its IPv6 subnets.
    pub ipv6_address_scope: Option<String>,
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
        Attribute::new("provider:physical_network", Kind::Custom(physical_network))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("provider:segmentation_id", Kind::Custom(segmentation_id))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("segments", Kind::Custom(segments))
            .post(Default::Unset)
            .put(),
        Attribute::new("dns_domain", Kind::Custom(dns_domain))
            .post(Default::Text(""))
            .put(),
        Attribute::new(
            "availability_zone_hints",
            Kind::Custom(availability_zone::hints),
        )
        .post(Default::EmptyList)
        .sort(),
        Attribute::new("availability_zones", Kind::Text(255)),
        Attribute::new("l2_adjacency", Kind::Bool),
        Attribute::new("vlan_transparent", Kind::Bool)
            .post(Default::Null)
            .nullable()
            .filter(),
        Attribute::new("pvlan", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .filter(),
        // What Neutron marks the networks of its own router clusters with; it is not shown.
        Attribute::new("ha", Kind::Bool).post(Default::Bool(false)),
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
        for segment in segment_list(conn, &ids).await? {
            segments
                .entry(segment.network_id.clone())
                .or_default()
                .push(segment);
        }
        let mut subnets: HashMap<String, (Vec<String>, bool)> = HashMap::new();
        for (network, subnet, segment) in store::subnet_ids(conn, &ids).await? {
            let (subnets, routed) = subnets.entry(network).or_default();
            subnets.push(subnet);
            *routed |= segment.is_some();
        }
        let mut scopes: HashMap<(String, i64), String> = HashMap::new();
        for (network, ip_version, scope) in address_scopes_of(conn, &ids).await? {
            if let Some(scope) = scope {
                scopes.insert((network, ip_version), scope);
            }
        }
        Ok(networks
            .into_iter()
            .map(|row| {
                let (subnets, routed) = subnets.remove(&row.id).unwrap_or_default();
                Item {
                    segments: segments.remove(&row.id).unwrap_or_default(),
                    routed,
                    subnets,
                    ipv4_address_scope: scopes.remove(&(row.id.clone(), 4)),
                    ipv6_address_scope: scopes.remove(&(row.id.clone(), 6)),
                    row,
                }
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let mut view = view! { row;
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
            "dns_domain" => row.dns_domain,
            "availability_zone_hints" => row.availability_zone_hints.0,
            "availability_zones" => availability_zone::of_service(),
            "l2_adjacency" => !item.routed,
            "vlan_transparent" => row.vlan_transparent,
            "pvlan" => row.pvlan,
        };
        network_segment::add_view(&item.segments, &mut view);
        view
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        let is = |name, value: Value| view.get(name) == Some(&value);
        if is("vlan_transparent", true.into()) && is("provider:network_type", "flat".into()) {
            vec![
                "vlan_transparent: on a flat network the VLANs of guests are those of the physical network; kept apart are only those of \
                 networks that their host knows",
            ]
        } else {
            Vec::new()
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let mut segments = network_segment::wanted_of(&write.app.config, &mut given)?;
        let zones = given.texts("availability_zone_hints").unwrap_or_default();
        availability_zone::check(&zones)?;
        let mut row = NetworkRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            external: given.truth("router:external").unwrap_or(false),
            is_default: given.truth("is_default").unwrap_or(false),
            mtu: mtu_wanted(write, &segments, given.int("mtu").unwrap_or(0))?,
            port_security_enabled: given.truth("port_security_enabled").unwrap_or(true),
            dns_domain: given.text("dns_domain"),
            availability_zone_hints: JsonText(zones),
            vlan_transparent: given.truth("vlan_transparent"),
            pvlan: given.truth("pvlan").unwrap_or(false),
            ..NetworkRow::default()
        };
        row.qos_policy_id = match given.text_opt("qos_policy_id") {
            None => qos_policy::default_of(write, &row.project_id).await?,
            wanted => qos_policy::change(write, None, wanted).await?,
        };
        one_default(write, &row).await?;
        if !row.project_id.is_empty() {
            security_group::default_ensure(write, &row.project_id).await?;
        }
        rows::insert(&mut write.tx, &mut row).await?;
        let shared = given.truth("shared").unwrap_or(false);
        rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        rbac_policy::everybody_set(write, object(&row), EXTERNAL, row.external).await?;
        for (segment, index) in segments.iter_mut().zip(0..) {
            segment.network_id.clone_from(&row.id);
            segment.segment_index = index;
            network_segment::take(write, segment, &row.project_id).await?;
        }
        if row.external {
            transit::ensure(write, &row.id, &segments).await?;
        }
        Ok(Item {
            row,
            segments,
            routed: false,
            subnets: Vec::new(),
            ipv4_address_scope: None,
            ipv6_address_scope: None,
        })
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        update_provider(write, &mut item.segments, &given).await?;
        let row = &mut item.row;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        if let Some(domain) = given.text_opt("dns_domain") {
            row.dns_domain = domain;
        }
        row.admin_state_up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
        row.is_default = given.truth("is_default").unwrap_or(row.is_default);
        row.port_security_enabled = given
            .truth("port_security_enabled")
            .unwrap_or(row.port_security_enabled);
        if let Some(mtu) = given.int("mtu") {
            row.mtu = mtu_wanted(write, &item.segments, mtu)?;
            for subnet in subnet_list_network(write.conn(), &row.id).await? {
                check_mtu(row, subnet.ip_version, row.mtu)?;
            }
        }
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            row.qos_policy_id = qos_policy::change(write, row.qos_policy_id.take(), wanted).await?;
        }
        if let Some(pvlan) = given.truth("pvlan") {
            port_pvlan::network_set(write, row, pvlan).await?;
        }
        update_sharing(write, row, &mut given).await?;
        one_default(write, row).await?;
        if row.external {
            transit::ensure(write, &row.id, &item.segments).await?;
        }
        rows::update(&mut write.tx, row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let id = &item.row.id;
        for port in port_list_network(write.conn(), id).await? {
            give_up(write, &port.row).await?;
        }
        for subnet in subnet_list_network(write.conn(), id).await? {
            subnet::remove(write, &subnet).await?;
        }
        rows::delete::<NetworkRow>(&mut write.tx, id).await?;
        Ok(())
    }
}

/// Lets go of a port that goes with its network: a service's, or that of a floating IP that leads nowhere. Any other
/// keeps the network.
async fn give_up(write: &mut Write<'_>, port: &PortRow) -> Result<()> {
    if port_address::goes_along(&port.device_owner) {
        return port::delete(write, &port.id).await;
    }
    let floating_ip = floating_ip_of_floating_port(write.conn(), &port.id).await?;
    let idle = match floating_ip.filter(|floating_ip| floating_ip.port_id.is_none()) {
        Some(row) => resource::get::<FloatingIp>(write.conn(), &row.id).await?,
        None => None,
    };
    match idle {
        Some(item) => FloatingIp::delete(write, item).await,
        None => Err(Error::conflict(
            "NetworkInUse",
            format!(
                "Unable to complete operation on network {}. There are one or more ports still in \
                 use on the network.",
                port.network_id
            ),
        )),
    }
}

/// A network's row, if the caller may use it (for ports, subnets, gateways).
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<NetworkRow> {
    let not_found = || resource::not_found::<Network>(id);
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

/// Reads a DNS domain: a fully qualified one, in lower case.
fn dns_domain(value: &Value) -> Result<Value, String> {
    // A name below it must still fit into 255 characters.
    let text = text_of(value, 253)?.to_ascii_lowercase();
    let Some(name) = text.strip_suffix('.') else {
        return if text.is_empty() {
            Ok(text.into())
        } else {
            Err(format!("{} is not a FQDN", quote(&text)))
        };
    };
    let labels: Vec<&str> = name.split('.').collect();
    let wrong = |label: &&&str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        label.is_empty()
            || label.len() > 63
            || label.starts_with('-')
            || label.ends_with('-')
            || !label.chars().all(inside)
    };
    if let Some(label) = labels.iter().find(wrong) {
        return Err(format!(
            "{} is no domain: label {} must have 1 to 63 letters, digits or hyphens, and not begin or \
             end with a hyphen",
            quote(&text),
            quote(label)
        ));
    }
    let numeric = |label: &&str| label.chars().all(|c| c.is_ascii_digit());
    if labels.len() > 1 && labels.last().is_some_and(numeric) {
        return Err(format!("TLD of {} must not be all numeric", quote(&text)));
    }
    Ok(text.into())
}

/// Only one external network is the default.
async fn one_default(write: &mut Write<'_>, row: &NetworkRow) -> Result<()> {
    if !(row.is_default && row.external) {
        return Ok(());
    }
    match store::network_default(write.conn()).await? {
        Some(other) if other.id != row.id => Err(Error::conflict(
            "DefaultExternalNetworkExists",
            format!("A default external network already exists: {}.", other.id),
        )),
        _ => Ok(()),
    }
}

/// The MTU to write: the largest that the segments allow for 0.
fn mtu_wanted(write: &Write<'_>, segments: &[SegmentRow], mtu: i64) -> Result<i64> {
    let max = mtu_max(&write.app.config, segments)?;
    match mtu {
        0 => Ok(max),
        _ if mtu > max => Err(Error::invalid_input(format!(
            "Requested MTU is too big, maximum is {max}"
        ))),
        _ => Ok(mtu),
    }
}

/// A network cannot move to other segments, but to another VLAN; naming what it has is no change.
async fn update_provider(
    write: &mut Write<'_>,
    segments: &mut [SegmentRow],
    given: &Attributes,
) -> Result<()> {
    let now = network_segment::view(segments).attributes();
    let number = "provider:segmentation_id";
    for name in ["provider:network_type", "provider:physical_network", number] {
        let changed = given.get(name).is_some_and(|wanted| {
            let unset = wanted.is_null() || wanted.as_str() == Some("");
            Some(wanted) != now.get(name) && !unset
        });
        match segments {
            _ if !changed => {}
            [segment] if name == number && segment.network_type == "vlan" => {
                let wanted = given.get(name).and_then(Value::as_i64);
                network_segment::renumber(write, segment, wanted.unwrap_or_default()).await?;
            }
            _ => return Err(unsupported(name)),
        }
    }
    match given.get("segments") {
        Some(wanted) if !network_segment::are(segments, wanted) => Err(unsupported("segments")),
        _ => Ok(()),
    }
}

fn unsupported(name: &str) -> Error {
    Error::invalid_input(format!(
        "Plugin does not support updating the following provider network attribute: {name}"
    ))
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
