//! Ports: MAC addresses, addresses, security groups, bindings.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::port_attribute::{FixedIpWanted, address_pairs, dhcp_opts, fixed_ips, host, profile};
use super::resource::{Resource, Write};
use super::view::view;
use super::{
    floating_ip, network, port_address, qos_policy, resource_request, security_group, subnet,
};
use crate::store::network::NetworkRow;
use crate::store::port::{self as store, AddressPair, DhcpOpt, Port as Item, PortRow};
use crate::store::{self as rows, Conn, JsonText};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use uuid::Uuid;
use weft_model::{MacAddress, limits};

/// `device_owner` of a router's leg in a project network.
pub const ROUTER_INTERFACE: &str = "network:router_interface";
/// `device_owner` of a router's leg in an external network.
pub const ROUTER_GATEWAY: &str = "network:router_gateway";
/// `device_owner` of the port that holds a floating IP's address.
pub const FLOATING_IP: &str = "network:floatingip";

/// The resource.
pub struct Port;

const VNIC_TYPES: &[&str] = &[
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
];
/// MAC addresses tried before a create is refused: 2^24 can be had, so the second is hardly ever wanted.
const MAC_TRIES_MAX: usize = 16;

impl Resource for Port {
    type Row = PortRow;
    type Item = Item;

    const NAME: &'static str = "port";
    const COLLECTION: &'static str = "ports";
    const NOT_FOUND: &'static str = "PortNotFound";
    const TITLE: &'static str = "Port";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("network_id", Kind::Uuid).required().sort(),
        Attribute::new("admin_state_up", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("mac_address", Kind::Mac)
            .post(Default::Unset)
            .put()
            .nullable()
            .sort(),
        Attribute::new("fixed_ips", Kind::Custom(fixed_ips))
            .post(Default::Unset)
            .put(),
        Attribute::new("device_id", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("device_owner", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("security_groups", Kind::UuidList)
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("allowed_address_pairs", Kind::Custom(address_pairs))
            .post(Default::EmptyList)
            .put()
            .nullable(),
        Attribute::new("extra_dhcp_opts", Kind::Custom(dhcp_opts))
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("port_security_enabled", Kind::Bool)
            .post(Default::Unset)
            .put(),
        Attribute::new("binding:host_id", Kind::Custom(host))
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new("binding:vnic_type", Kind::OneOf(VNIC_TYPES))
            .post(Default::Text("normal"))
            .put(),
        Attribute::new("binding:profile", Kind::Custom(profile))
            .post(Default::Unset)
            .put()
            .nullable(),
        Attribute::new("qos_policy_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("qos_network_policy_id", Kind::Uuid),
        Attribute::new("resource_request", Kind::Text(0)),
        Attribute::new("binding:vif_type", Kind::Text(64)),
        Attribute::new("binding:vif_details", Kind::Text(64)),
        Attribute::new("status", Kind::Text(16)).sort(),
    ];

    fn row(item: &Item) -> &PortRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, ports: Vec<PortRow>) -> Result<Vec<Item>> {
        Ok(store::complete(conn, ports).await?)
    }

    fn view(item: &Item) -> Attributes {
        let row = &item.row;
        let fixed_ips: Vec<Value> = item
            .fixed_ips
            .iter()
            .map(|ip| json!({ "subnet_id": ip.subnet_id, "ip_address": ip.ip_address }))
            .collect();
        let bound = !row.binding_host_id.is_empty();
        view! { row;
            "name" => row.name,
            "network_id" => row.network_id,
            "admin_state_up" => row.admin_state_up,
            "mac_address" => row.mac_address,
            "fixed_ips" => fixed_ips,
            "device_id" => row.device_id,
            "device_owner" => row.device_owner,
            "status" => row.status,
            "security_groups" => item.security_groups,
            "allowed_address_pairs" => row.allowed_address_pairs.0,
            "extra_dhcp_opts" => row.extra_dhcp_opts.0,
            "port_security_enabled" => row.port_security_enabled,
            "binding:host_id" => row.binding_host_id,
            "binding:vnic_type" => row.binding_vnic_type,
            "binding:profile" => row.binding_profile.0,
            "qos_policy_id" => row.qos_policy_id,
            "qos_network_policy_id" => item.qos_network_policy_id,
            "resource_request" => resource_request::view(item),
            "binding:vif_type" => if bound { "tap" } else { "unbound" },
            "binding:vif_details" => if bound { json!({ "port_filter": true }) } else { json!({}) },
        }
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        qos_policy::unenforced(view)
    }

    async fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        subnet::network_target(conn, caller, attributes).await
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = attributes
            .get("network_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        network::usable(conn, caller, id).await.map(|_network| ())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let network =
            network::usable(write.tx.conn(), write.caller, &given.text("network_id")).await?;
        let new = New {
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            mac_address: given.text_opt("mac_address"),
            device_id: given.text("device_id"),
            device_owner: given.text("device_owner"),
            binding_host_id: given.text("binding:host_id"),
            binding_vnic_type: given.text("binding:vnic_type"),
            binding_profile: given.shaped("binding:profile").unwrap_or_default(),
            port_security_enabled: given.truth("port_security_enabled"),
            fixed_ips: given.shaped("fixed_ips"),
            security_groups: given.remove("security_groups").map(strings),
            allowed_address_pairs: given.remove("allowed_address_pairs").unwrap_or_default(),
            extra_dhcp_opts: opts_of(given.remove("extra_dhcp_opts"), Vec::new()),
            qos_policy_id: given.text_opt("qos_policy_id"),
        };
        create(write, &network, new).await
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let mut item = item;
        let before = item.clone();
        update_plain(&mut item.row, &mut given);
        update_mac(write, &mut item, &mut given).await?;
        if let Some(host) = given.text_or_null("binding:host_id") {
            item.row.binding_host_id = host.unwrap_or_default();
            if item.row.binding_host_id != before.row.binding_host_id {
                // The new host has yet to say that it enforces the port.
                item.row.status = first_status(&item.row.device_owner).to_owned();
            }
        }
        let wanted: Option<Vec<FixedIpWanted>> = given.shaped("fixed_ips");
        let mac_changed = before.row.mac_address != item.row.mac_address;
        if wanted.is_some() || mac_changed {
            let same: Vec<FixedIpWanted> = before
                .fixed_ips
                .iter()
                .map(|ip| wish_again(ip, mac_changed))
                .collect();
            port_address::assign(write, &mut item, Some(wanted.as_deref().unwrap_or(&same)))
                .await?;
            floating_ip::addresses_changed(write, &item).await?;
        }
        if !item.row.project_id.is_empty() {
            // As in Neutron: a project that has ports has a default group.
            security_group::default_ensure(write, &item.row.project_id).await?;
        }
        update_security(write, &mut item, &mut given).await?;
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            let before = item.row.qos_policy_id.take();
            item.row.qos_policy_id = qos_policy::change(write, before, wanted).await?;
            store::qos_complete(write.conn(), std::slice::from_mut(&mut item)).await?;
        }
        rows::update(&mut write.tx, &mut item.row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let owner = item.row.device_owner.as_str();
        let in_use = match owner {
            ROUTER_INTERFACE | ROUTER_GATEWAY => {
                crate::store::router::router_of_port(write.conn(), &item.row.id)
                    .await?
                    .is_some()
            }
            FLOATING_IP => {
                let conn = write.conn();
                crate::store::floating_ip::floating_ip_of_floating_port(conn, &item.row.id)
                    .await?
                    .is_some()
            }
            _ => false,
        };
        if in_use {
            return Err(Error::conflict(
                "ServicePortInUse",
                format!(
                    "Port {} cannot be deleted directly via the port API: has device owner {owner}.",
                    item.row.id
                ),
            ));
        }
        delete(write, &item.row.id).await
    }
}

/// A port to be made, by a caller or by another resource's rules.
#[derive(Clone, Debug, std::default::Default)]
pub(super) struct New {
    pub(super) project_id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) admin_state_up: bool,
    pub(super) mac_address: Option<String>,
    pub(super) device_id: String,
    pub(super) device_owner: String,
    pub(super) binding_host_id: String,
    pub(super) binding_vnic_type: String,
    pub(super) binding_profile: Map<String, Value>,
    pub(super) port_security_enabled: Option<bool>,
    /// None: one address a family.
    pub(super) fixed_ips: Option<Vec<FixedIpWanted>>,
    /// None: the project's default group.
    pub(super) security_groups: Option<Vec<String>>,
    pub(super) allowed_address_pairs: Value,
    pub(super) extra_dhcp_opts: Vec<DhcpOpt>,
    pub(super) qos_policy_id: Option<String>,
}

/// Makes a port.
pub(super) async fn create(write: &mut Write<'_>, network: &NetworkRow, new: New) -> Result<Item> {
    // Ports of the network's own services are trusted (Neutron's is_port_trusted).
    let trusted = new.device_owner.starts_with("network:");
    let port_security_enabled = new
        .port_security_enabled
        .unwrap_or(network.port_security_enabled && !trusted);
    let mac_address = match new.mac_address {
        Some(mac) => mac,
        None => mac_free(write, &network.id).await?,
    };
    let row = PortRow {
        id: Uuid::new_v4().to_string(),
        network_id: network.id.clone(),
        name: new.name,
        description: new.description,
        admin_state_up: new.admin_state_up,
        status: first_status(&new.device_owner).to_owned(),
        port_security_enabled,
        allowed_address_pairs: JsonText(pairs_of(new.allowed_address_pairs, &mac_address)),
        extra_dhcp_opts: JsonText(new.extra_dhcp_opts),
        binding_host_id: new.binding_host_id,
        binding_vnic_type: match new.binding_vnic_type {
            empty if empty.is_empty() => "normal".to_owned(),
            given => given,
        },
        binding_profile: JsonText(new.binding_profile),
        device_id: new.device_id,
        device_owner: new.device_owner,
        project_id: new.project_id,
        qos_policy_id: qos_policy::change(write, None, new.qos_policy_id).await?,
        mac_address,
        ..PortRow::default()
    };
    let mut item = Item {
        row,
        ..Item::default()
    };
    check_pairs(&item.row)?;
    let groups = match new.security_groups {
        Some(groups) if !groups.is_empty() && !port_security_enabled => {
            return Err(security_group_needs_security());
        }
        Some(groups) => groups,
        None if port_security_enabled && !trusted => {
            vec![security_group::default_ensure(write, &item.row.project_id).await?]
        }
        None => Vec::new(),
    };
    match rows::insert(&mut write.tx, &mut item.row).await {
        Err(rows::StoreError::Conflict(_)) => {
            return Err(mac_taken(&network.id, &item.row.mac_address));
        }
        done => done?,
    }
    port_address::assign(write, &mut item, new.fixed_ips.as_deref()).await?;
    set_groups(write, &mut item, groups).await?;
    store::qos_complete(write.conn(), std::slice::from_mut(&mut item)).await?;
    Ok(item)
}

/// Deletes a port with what hangs on it; floating IPs that lead to it lead nowhere then.
pub(super) async fn delete(write: &mut Write<'_>, id: &str) -> Result<()> {
    floating_ip::port_gone(write, id).await?;
    rows::delete::<PortRow>(&mut write.tx, id).await?;
    Ok(())
}

/// A guest's port is DOWN until its host enforces it; nobody reports on ports that are not a guest's.
fn first_status(device_owner: &str) -> &'static str {
    match device_owner {
        ROUTER_INTERFACE | ROUTER_GATEWAY => "ACTIVE",
        FLOATING_IP => "N/A",
        _ => "DOWN",
    }
}

/// The wish that keeps an address; a changed MAC address changes the automatic ones.
fn wish_again(ip: &store::FixedIpRow, mac_changed: bool) -> FixedIpWanted {
    let address: Option<IpAddr> = ip.ip_address.parse().ok();
    let keep = !(mac_changed && address.is_some_and(|ip| ip.is_ipv6()));
    FixedIpWanted {
        subnet_id: Some(ip.subnet_id.clone()),
        ip_address: address.filter(|_| keep),
    }
}

async fn mac_free(write: &mut Write<'_>, network: &str) -> Result<String> {
    for _ in 0..MAC_TRIES_MAX {
        let random = Uuid::new_v4();
        let [a, b, c, ..] = *random.as_bytes();
        let mac = MacAddress([0xfa, 0x16, 0x3e, a, b, c]).to_string();
        if !store::mac_taken(write.conn(), network, &mac).await? {
            return Ok(mac);
        }
    }
    Err(Error::conflict(
        "MacAddressGenerationFailure",
        format!("Unable to generate unique mac on network {network}."),
    ))
}

fn mac_taken(network: &str, mac: &str) -> Error {
    Error::conflict(
        "MacAddressInUse",
        format!(
            "Unable to complete operation for network {network}. The mac address {mac} is in use."
        ),
    )
}

fn strings(value: Value) -> Vec<String> {
    serde_json::from_value(value).unwrap_or_default()
}

/// Fills in the port's own MAC address where a pair names none.
fn pairs_of(value: Value, mac: &str) -> Vec<AddressPair> {
    let list = if let Value::Array(list) = value {
        list
    } else {
        Vec::new()
    };
    list.into_iter()
        .filter_map(|mut pair| {
            pair.as_object_mut()?
                .entry("mac_address")
                .or_insert_with(|| mac.into());
            serde_json::from_value(pair).ok()
        })
        .collect()
}

/// On update, an option without a value is taken away, and options not named stay.
fn opts_of(value: Option<Value>, before: Vec<DhcpOpt>) -> Vec<DhcpOpt> {
    let mut opts = before;
    let Some(Value::Array(list)) = value else {
        return opts;
    };
    for item in list {
        let name = item["opt_name"].as_str().unwrap_or_default().to_owned();
        let ip_version = if item["ip_version"].as_i64() == Some(6) {
            6
        } else {
            4
        };
        opts.retain(|have| have.opt_name != name || have.ip_version != ip_version);
        if let Some(value) = item["opt_value"].as_str() {
            opts.push(DhcpOpt {
                opt_name: name,
                opt_value: value.to_owned(),
                ip_version,
            });
        }
    }
    opts
}

fn check_pairs(row: &PortRow) -> Result<()> {
    if !row.allowed_address_pairs.0.is_empty() && !row.port_security_enabled {
        return Err(Error::conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        ));
    }
    Ok(())
}

fn security_group_needs_security() -> Error {
    Error::invalid(
        "PortSecurityAndIPRequiredForSecurityGroups",
        "Port security must be enabled and port must have an IP address in order to use security groups.",
    )
}

async fn set_groups(write: &mut Write<'_>, item: &mut Item, groups: Vec<String>) -> Result<()> {
    if groups.len() > limits::SECURITY_GROUPS_PER_PORT_MAX {
        return Err(Error::invalid_input(format!(
            "security_groups: at most {} on a port",
            limits::SECURITY_GROUPS_PER_PORT_MAX
        )));
    }
    security_group::usable_together(write, &groups, &item.row.project_id).await?;
    if groups != item.security_groups {
        store::security_groups_set(&mut write.tx, &item.row.id, &groups).await?;
        item.security_groups = groups;
    }
    Ok(())
}

fn update_plain(row: &mut PortRow, given: &mut Attributes) {
    let texts = [
        ("name", &mut row.name),
        ("description", &mut row.description),
        ("device_id", &mut row.device_id),
        ("device_owner", &mut row.device_owner),
        ("binding:vnic_type", &mut row.binding_vnic_type),
    ];
    for (name, field) in texts {
        if let Some(text) = given.text_opt(name) {
            *field = text;
        }
    }
    row.admin_state_up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
    if let Some(profile) = given.remove("binding:profile") {
        row.binding_profile = JsonText(serde_json::from_value(profile).unwrap_or_default());
    }
    if let Some(opts) = given.remove("extra_dhcp_opts") {
        let before = std::mem::take(&mut row.extra_dhcp_opts.0);
        row.extra_dhcp_opts = JsonText(opts_of(Some(opts), before));
    }
}

async fn update_mac(write: &mut Write<'_>, item: &mut Item, given: &mut Attributes) -> Result<()> {
    let Some(mac) = given.text_or_null("mac_address") else {
        return Ok(());
    };
    let mac = match mac {
        Some(mac) if mac == item.row.mac_address => return Ok(()),
        Some(mac) => mac,
        None => mac_free(write, &item.row.network_id).await?,
    };
    if item.row.device_owner.starts_with("compute:") && !item.row.binding_host_id.is_empty() {
        return Err(Error::conflict(
            "PortBound",
            format!(
                "Unable to complete operation on port {}, port is already bound, port type: tap, \
                 old_mac {}, new_mac {mac}.",
                item.row.id, item.row.mac_address
            ),
        ));
    }
    if store::mac_taken(write.conn(), &item.row.network_id, &mac).await? {
        return Err(mac_taken(&item.row.network_id, &mac));
    }
    for pair in &mut item.row.allowed_address_pairs.0 {
        if pair.mac_address == item.row.mac_address {
            pair.mac_address.clone_from(&mac);
        }
    }
    item.row.mac_address = mac;
    Ok(())
}

/// Port security, address pairs and security groups, which depend on each other.
async fn update_security(
    write: &mut Write<'_>,
    item: &mut Item,
    given: &mut Attributes,
) -> Result<()> {
    if let Some(enabled) = given.truth("port_security_enabled") {
        item.row.port_security_enabled = enabled;
    }
    if let Some(pairs) = given.remove("allowed_address_pairs") {
        let pairs = pairs_of(pairs, &item.row.mac_address);
        item.row.allowed_address_pairs = JsonText(pairs);
    }
    check_pairs(&item.row)?;
    let groups = given.remove("security_groups").map(strings);
    match groups {
        Some(groups) if !groups.is_empty() && !item.row.port_security_enabled => {
            Err(security_group_needs_security())
        }
        Some(groups) => set_groups(write, item, groups).await,
        None if !item.row.port_security_enabled && !item.security_groups.is_empty() => {
            Err(Error::conflict(
                "PortSecurityPortHasSecurityGroup",
                "Port has security group associated. Cannot disable port security or IP address \
                 until security group is removed.",
            ))
        }
        None => Ok(()),
    }
}
