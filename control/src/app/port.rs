//! Ports: what the API says of a guest's, a router's or a service's place on a network.

use super::attribute::{Attribute, Attributes, Take};
use super::error::{Error, Result};
use super::policy::Caller;
use super::port_attribute::{FixedIpWanted, opts_of};
use super::port_mac::{mac_free, mac_taken, update_mac};
use super::port_security::{
    check_pairs, pairs_of, security_group_needs_security, set_groups, strings, update_security,
};
use super::resource::{Resource, Write};
use super::view::{View, view};
use super::{
    App, network, port_address, port_attribute, port_binding, port_dns, port_pvlan, port_segment,
    port_use, qos_policy, resource_request, security_group, subnet, trunk,
};
use crate::store::network::NetworkRow;
use crate::store::port::{self as store, DhcpOpt, FixedIpRow, Port as Item, PortRow};
use crate::store::router::RouterRow;
use crate::store::{self as rows, Conn, JsonText, ServerEventKind};
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use uuid::Uuid;

/// `device_owner` of a router's leg in a project network.
pub const ROUTER_INTERFACE: &str = "network:router_interface";
/// `device_owner` of a router's leg in an external network.
pub const ROUTER_GATEWAY: &str = "network:router_gateway";
/// `device_owner` of the port that holds a floating IP's address.
pub const FLOATING_IP: &str = "network:floatingip";

/// An address as a port's view has it.
#[derive(Serialize)]
struct FixedIp<'a> {
    subnet_id: &'a str,
    ip_address: &'a str,
}

impl<'a> From<&'a FixedIpRow> for FixedIp<'a> {
    fn from(ip: &'a FixedIpRow) -> Self {
        Self {
            subnet_id: &ip.subnet_id,
            ip_address: &ip.ip_address,
        }
    }
}

/// The resource.
pub struct Port;

impl Resource for Port {
    type Row = PortRow;
    type Item = Item;

    const NAME: &'static str = "port";
    const COLLECTION: &'static str = "ports";
    const NOT_FOUND: &'static str = "PortNotFound";
    const TITLE: &'static str = "Port";
    const ATTRIBUTES: &'static [Attribute] = port_attribute::ALL;

    fn row(item: &Item) -> &PortRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, ports: Vec<PortRow>) -> Result<Vec<Item>> {
        Ok(store::complete(conn, ports).await?)
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let fixed_ips: Vec<_> = item.fixed_ips.iter().map(FixedIp::from).collect();
        let mut view = view! { row;
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
            "dns_name" => row.dns_name,
            "dns_domain" => row.dns_domain,
            "ip_allocation" => row.ip_allocation,
            "data_plane_status" => row.data_plane_status,
            "device_profile" => row.device_profile,
            "hardware_offload_type" => row.hardware_offload_type,
            "hints" => row.hints.0,
            "numa_affinity_policy" => row.numa_affinity_policy,
            "propagate_uplink_status" => row.propagate_uplink_status,
            "trusted" => row.trusted,
            "pvlan_type" => row.pvlan_type,
            "pvlan_community" => row.pvlan_community,
            "qos_policy_id" => row.qos_policy_id,
            "qos_network_policy_id" => item.qos_network_policy_id,
            "resource_request" => resource_request::view(item),
        };
        port_binding::add_view(row, &mut view);
        if let Some(trunk) = &item.trunk {
            view.put("trunk_details", &trunk::details_view(trunk));
        }
        view
    }

    fn finish(app: &App, item: &Item, view: &mut View) {
        port_dns::add_view(item, &app.config.dns_domain, view);
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
        let mut extended = PortRow {
            device_profile: given.text_opt("device_profile"),
            hardware_offload_type: given.text_opt("hardware_offload_type"),
            ..PortRow::default()
        };
        let row = &mut extended;
        set_extended(write.app, row, &mut given)?;
        port_pvlan::set(&network, row, &mut given)?;
        let mut profile: Map<String, Value> = given.shaped("binding:profile").unwrap_or_default();
        port_binding::add_capability(&mut profile, row.hardware_offload_type.as_deref());
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
            binding_profile: profile,
            port_security_enabled: given.truth("port_security_enabled"),
            fixed_ips: given.shaped("fixed_ips"),
            security_groups: given.remove("security_groups").map(strings),
            allowed_address_pairs: given.remove("allowed_address_pairs").unwrap_or_default(),
            extra_dhcp_opts: opts_of(given.remove("extra_dhcp_opts"), Vec::new()),
            qos_policy_id: given.text_opt("qos_policy_id"),
            extended: Some(extended),
        };
        check_device(write, &new.device_owner, &new.device_id).await?;
        create(write, &network, new).await
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let mut item = item;
        let before = item.clone();
        update_plain(&mut item.row, &mut given);
        set_extended(write.app, &mut item.row, &mut given)?;
        if given.contains_key("pvlan_type") || given.contains_key("pvlan_community") {
            let network = rows::get::<NetworkRow>(write.conn(), &item.row.network_id).await?;
            port_pvlan::set(&network.unwrap_or_default(), &mut item.row, &mut given)?;
        }
        if (&before.row.device_owner, &before.row.device_id)
            != (&item.row.device_owner, &item.row.device_id)
        {
            check_device(write, &item.row.device_owner, &item.row.device_id).await?;
        }
        update_mac(write, &mut item, &mut given).await?;
        port_binding::update(write, &mut item, &mut given).await?;
        if item.row.admin_state_up != before.row.admin_state_up && !is_guest(&item.row) {
            // No host reports on it.
            item.row.status = first_status(&item.row).to_owned();
        }
        let wanted: Option<Vec<FixedIpWanted>> = given.shaped("fixed_ips");
        if wanted.is_none() {
            port_segment::host_changed(write, &before, &mut item).await?;
        }
        let mac_changed = before.row.mac_address != item.row.mac_address;
        if wanted.is_some() || mac_changed {
            let same: Vec<FixedIpWanted> = before
                .fixed_ips
                .iter()
                .map(|ip| wish_again(ip, mac_changed))
                .collect();
            port_address::assign(write, &mut item, Some(wanted.as_deref().unwrap_or(&same)))
                .await?;
            port_use::addresses_changed(write, &item).await?;
        }
        if !item.row.project_id.is_empty() {
            // As in Neutron: a project that has ports has a default group.
            security_group::default_ensure(write, &item.row.project_id).await?;
        }
        update_security(write, &mut item, &mut given).await?;
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            let before = item.row.qos_policy_id.take();
            item.row.qos_policy_id = qos_policy::change(write, before, wanted).await?;
            store::network_complete(write.conn(), std::slice::from_mut(&mut item)).await?;
        }
        rows::update(&mut write.tx, &mut item.row).await?;
        trunk::parent_changed(write, &before, &item).await?;
        write
            .tx
            .announce(ServerEventKind::NetworkChanged, &item.row);
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        port_use::check_unused(write, &item).await?;
        write.tx.announce(ServerEventKind::VifDeleted, &item.row);
        trunk::check_port_unused(write, &item.row.id).await?;
        delete(write, &item.row.id).await
    }
}

/// A port to be made, by a caller or by another resource's rules.
#[derive(Clone, Debug, Default)]
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
    /// The columns that [`set_extended`] and creation alone set.
    pub(super) extended: Option<PortRow>,
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
    let no_address = new.fixed_ips.as_ref().is_some_and(Vec::is_empty);
    let row = PortRow {
        id: Uuid::new_v4().to_string(),
        network_id: network.id.clone(),
        name: new.name,
        description: new.description,
        admin_state_up: new.admin_state_up,
        port_security_enabled,
        allowed_address_pairs: JsonText(pairs_of(new.allowed_address_pairs, &mac_address)),
        extra_dhcp_opts: JsonText(new.extra_dhcp_opts),
        binding_host_id: new.binding_host_id,
        binding_vnic_type: match new.binding_vnic_type {
            empty if empty.is_empty() => port_binding::NORMAL.to_owned(),
            given => given,
        },
        binding_profile: JsonText(new.binding_profile),
        device_id: new.device_id,
        device_owner: new.device_owner,
        shown_to: shown_to(network, &new.project_id),
        project_id: new.project_id,
        qos_policy_id: qos_policy::change(write, None, new.qos_policy_id).await?,
        ip_allocation: if no_address {
            "none"
        } else {
            port_segment::IMMEDIATE
        }
        .to_owned(),
        mac_address,
        ..new.extended.unwrap_or_else(|| PortRow {
            propagate_uplink_status: true,
            ..PortRow::default()
        })
    };
    let mut item = Item {
        row,
        ..Item::default()
    };
    first_status(&item.row).clone_into(&mut item.row.status);
    port_binding::attach(write.conn(), &mut item.row).await?;
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
    if item.row.ip_allocation == port_segment::DEFERRED {
        // Known only now, with the row written already.
        store::ip_allocation_set(&mut write.tx, &item.row.id, port_segment::DEFERRED).await?;
    }
    set_groups(write, &mut item, groups).await?;
    store::network_complete(write.conn(), std::slice::from_mut(&mut item)).await?;
    Ok(item)
}

/// The project that sees a port because its network is that project's.
fn shown_to(network: &NetworkRow, project: &str) -> Option<String> {
    let owner = &network.project_id;
    (!owner.is_empty() && owner != project).then(|| owner.clone())
}

/// Deletes a port with what hangs on it; floating IPs that lead to it lead nowhere then.
pub(super) async fn delete(write: &mut Write<'_>, id: &str) -> Result<()> {
    port_use::gone(write, id).await?;
    rows::delete::<PortRow>(&mut write.tx, id).await?;
    Ok(())
}

/// Whether a host has an interface for it, and reports on it.
pub(super) fn is_guest(row: &PortRow) -> bool {
    !row.device_owner.starts_with("network:")
}

/// A guest's port is DOWN until its host enforces it; nobody reports on ports that are not a guest's.
pub(super) fn first_status(row: &PortRow) -> &'static str {
    match row.device_owner.as_str() {
        FLOATING_IP => "N/A",
        _ if !is_guest(row) && row.admin_state_up => "ACTIVE",
        _ => "DOWN",
    }
}

/// The wish that keeps an address; a changed MAC address changes the automatic ones.
fn wish_again(ip: &FixedIpRow, mac_changed: bool) -> FixedIpWanted {
    let address: Option<IpAddr> = ip.ip_address.parse().ok();
    let keep = !(mac_changed && address.is_some_and(|ip| ip.is_ipv6()));
    FixedIpWanted {
        subnet_id: Some(ip.subnet_id.clone()),
        ip_address: address.filter(|_| keep),
    }
}

/// Nobody makes a port the leg of another project's router.
async fn check_device(write: &mut Write<'_>, owner: &str, device: &str) -> Result<()> {
    if !port_address::is_router_owner(owner) || write.caller.is_admin() {
        return Ok(());
    }
    match rows::get::<RouterRow>(write.conn(), device).await? {
        Some(router) if router.project_id != write.caller.project_id => Err(Error::conflict(
            "DeviceIDNotOwnedByTenant",
            format!(
                "The following device_id {device} is not owned by your tenant or matches another \
                 tenants router."
            ),
        )),
        _ => Ok(()),
    }
}

fn update_plain(row: &mut PortRow, given: &mut Attributes) {
    let texts = [
        ("name", &mut row.name),
        ("description", &mut row.description),
        ("device_id", &mut row.device_id),
        ("device_owner", &mut row.device_owner),
    ];
    for (name, field) in texts {
        if let Some(text) = given.text_opt(name) {
            *field = text;
        }
    }
    row.admin_state_up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
    if let Some(opts) = given.remove("extra_dhcp_opts") {
        let before = std::mem::take(&mut row.extra_dhcp_opts.0);
        row.extra_dhcp_opts = JsonText(opts_of(Some(opts), before));
    }
}

/// Takes over what Neutron's extensions know of a port, as far as it is given.
fn set_extended(app: &App, row: &mut PortRow, given: &mut Attributes) -> Result<()> {
    if let Some(name) = given.text_opt("dns_name") {
        port_dns::check_within(&name, &app.config.dns_domain)?;
        row.dns_name = name;
    }
    if let Some(domain) = given.text_opt("dns_domain") {
        row.dns_domain = domain;
    }
    for (name, field) in [
        ("data_plane_status", &mut row.data_plane_status),
        ("numa_affinity_policy", &mut row.numa_affinity_policy),
    ] {
        if let Some(value) = given.text_or_null(name) {
            *field = value;
        }
    }
    if let Some(hints) = given.remove("hints") {
        row.hints = JsonText(serde_json::from_value(hints).unwrap_or_default());
    }
    row.propagate_uplink_status = given
        .truth("propagate_uplink_status")
        .unwrap_or(row.propagate_uplink_status);
    row.trusted = given.truth("trusted").or(row.trusted);
    Ok(())
}
