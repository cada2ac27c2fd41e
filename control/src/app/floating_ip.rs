//! Floating IPs: an address of an external network, and the port it leads to.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::network;
use super::policy::Caller;
use super::port::{self, FLOATING_IP, New};
use super::port_attribute::FixedIpWanted;
use super::qos_policy;
use super::resource::{self, Resource, Write};
use super::view::view;
use crate::store::floating_ip::{FloatingIpRow, floating_ip_list_port};
use crate::store::network::NetworkRow;
use crate::store::port::{FixedIpRow, Port as PortItem, port_get};
use crate::store::subnet::subnet_list_network;
use crate::store::{self as rows, Conn};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// The resource.
pub struct FloatingIp;

impl Resource for FloatingIp {
    type Row = FloatingIpRow;
    type Item = FloatingIpRow;

    const NAME: &'static str = "floatingip";
    const COLLECTION: &'static str = "floatingips";
    const NOT_FOUND: &'static str = "FloatingIPNotFound";
    const TITLE: &'static str = "Floating IP";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("floating_network_id", Kind::Uuid)
            .required()
            .sort(),
        Attribute::new("floating_ip_address", Kind::Ip)
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("subnet_id", Kind::Uuid)
            .post(Default::Null)
            .nullable(),
        Attribute::new("port_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable()
            .filter(),
        Attribute::new("fixed_ip_address", Kind::Ip)
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        Attribute::new("qos_policy_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("router_id", Kind::Uuid).sort(),
        Attribute::new("status", Kind::Text(16)).sort(),
    ];

    fn row(item: &FloatingIpRow) -> &FloatingIpRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<FloatingIpRow>) -> Result<Vec<FloatingIpRow>> {
        Ok(rows)
    }

    fn view(row: &FloatingIpRow) -> Attributes {
        view! { row;
            "floating_network_id" => row.floating_network_id,
            "floating_ip_address" => row.floating_ip_address,
            "router_id" => row.router_id,
            "port_id" => row.port_id,
            "fixed_ip_address" => row.fixed_ip_address,
            "qos_policy_id" => row.qos_policy_id,
            "status" => if row.port_id.is_some() { "ACTIVE" } else { "DOWN" },
        }
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        qos_policy::unenforced(view)
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<FloatingIpRow> {
        let network_id = given.text("floating_network_id");
        let network = network::usable(write.tx.conn(), write.caller, &network_id).await?;
        if !network.external {
            return Err(bad(format!(
                "Network {network_id} is not a valid external network"
            )));
        }
        let id = Uuid::new_v4().to_string();
        let holder = holder_create(write, &network, &id, &mut given).await?;
        let address = holder
            .fixed_ips
            .iter()
            .find(|ip| is_v4(ip))
            .cloned()
            .unwrap_or_default();
        let mut row = FloatingIpRow {
            id,
            project_id: given.text("project_id"),
            description: given.text("description"),
            floating_network_id: network.id,
            floating_ip_address: address.ip_address,
            floating_port_id: holder.row.id,
            ..FloatingIpRow::default()
        };
        let wanted = given.text_opt("qos_policy_id");
        row.qos_policy_id = qos_policy::change(write, None, wanted).await?;
        let port = given.text_opt("port_id");
        let fixed = given.text_opt("fixed_ip_address");
        lead(write, &mut row, port, fixed).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: FloatingIpRow,
        mut given: Attributes,
    ) -> Result<FloatingIpRow> {
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            row.qos_policy_id = qos_policy::change(write, row.qos_policy_id, wanted).await?;
        }
        let fixed = given.text_opt("fixed_ip_address");
        if let Some(port) = given.text_or_null("port_id") {
            row.router_id = None;
            row.port_id = None;
            row.fixed_ip_address = None;
            lead(write, &mut row, port, fixed).await?;
        } else if fixed.is_some() {
            let port = row.port_id.take();
            lead(write, &mut row, port, fixed).await?;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: FloatingIpRow) -> Result<()> {
        // The floating IP refers to the port that holds its address: it goes first.
        rows::delete::<FloatingIpRow>(&mut write.tx, &row.id).await?;
        port::delete(write, &row.floating_port_id).await
    }
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid("BadRequest", format!("Bad floatingip request: {reason}."))
}

fn is_v4(ip: &FixedIpRow) -> bool {
    ip.ip_address.parse::<Ipv4Addr>().is_ok()
}

/// Makes the port that holds the address on the external network.
async fn holder_create(
    write: &mut Write<'_>,
    network: &NetworkRow,
    id: &str,
    given: &mut Attributes,
) -> Result<PortItem> {
    let subnets = subnet_list_network(write.conn(), &network.id).await?;
    let v4: Vec<Option<String>> = subnets
        .iter()
        .filter(|subnet| subnet.ip_version == 4)
        .map(|subnet| Some(subnet.id.clone()))
        .collect();
    if v4.is_empty() {
        return Err(bad(format!(
            "Network {} does not contain any IPv4 subnet",
            network.id
        )));
    }
    let address = match given.text_opt("floating_ip_address") {
        Some(text) => Some(
            text.parse::<Ipv4Addr>()
                .map_err(|_v6| Error::attribute("floating_ip_address", "not an IPv4 address"))?,
        ),
        None => None,
    };
    let subnet = given.text_opt("subnet_id");
    let choices: Vec<Option<String>> = match (&subnet, address) {
        (None, None) => v4,
        _ => vec![subnet],
    };
    let mut last = bad("no address left");
    for subnet_id in choices {
        let new = New {
            // The port belongs to no project, so that it is neither seen nor counted there (as in Neutron).
            admin_state_up: true,
            device_id: id.to_owned(),
            device_owner: FLOATING_IP.to_owned(),
            fixed_ips: Some(vec![FixedIpWanted {
                subnet_id,
                ip_address: address.map(Into::into),
            }]),
            security_groups: Some(Vec::new()),
            ..New::default()
        };
        match port::create(write, network, new).await {
            Err(
                full @ Error::Conflict {
                    kind: "IpAddressGenerationFailure",
                    ..
                },
            ) => last = full,
            other => return other,
        }
    }
    Err(last)
}

/// Lets a floating IP lead to a port, or nowhere.
async fn lead(
    write: &mut Write<'_>,
    row: &mut FloatingIpRow,
    port: Option<String>,
    fixed: Option<String>,
) -> Result<()> {
    let Some(port_id) = port else {
        if fixed.is_some() {
            return Err(bad(
                "fixed_ip_address cannot be specified without a port_id",
            ));
        }
        return Ok(());
    };
    let port = port_usable(write, &port_id).await?;
    let address = match &fixed {
        Some(fixed) => port
            .fixed_ips
            .iter()
            .find(|ip| ip.ip_address == *fixed)
            .ok_or_else(|| bad(format!("Port {port_id} does not have fixed ip {fixed}")))?,
        None => {
            let mut v4 = port.fixed_ips.iter().filter(|ip| is_v4(ip));
            let first = v4.next().ok_or_else(|| {
                bad(format!(
                    "Cannot add floating IP to port {port_id} that has no fixed IPv4 addresses"
                ))
            })?;
            if v4.next().is_some() {
                return Err(bad(format!(
                    "Port {port_id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 \
                     address when assigning a floating IP"
                )));
            }
            first
        }
    };
    if !is_v4(address) {
        return Err(bad(format!(
            "{} is not an IPv4 address",
            address.ip_address
        )));
    }
    let taken = floating_ip_list_port(write.conn(), &port_id).await?;
    if let Some(other) = taken.iter().find(|other| {
        other.id != row.id && other.fixed_ip_address.as_ref() == Some(&address.ip_address)
    }) {
        return Err(Error::conflict(
            "FloatingIPPortAlreadyAssociated",
            format!(
                "Cannot associate floating IP {} ({}) with port {port_id} using fixed IP {}, as that \
                 fixed IP already has a floating IP on external network {}.",
                row.floating_ip_address,
                row.floating_port_id,
                address.ip_address,
                other.floating_network_id
            ),
        ));
    }
    row.router_id = Some(router_between(write, row, &port, address).await?);
    row.fixed_ip_address = Some(address.ip_address.clone());
    row.port_id = Some(port_id);
    Ok(())
}

async fn port_usable(write: &mut Write<'_>, id: &str) -> Result<PortItem> {
    let port = port_get(write.conn(), id).await?;
    let caller: &Caller = write.caller;
    port.filter(|port| port.row.project_id == caller.project_id || caller.is_admin())
        .ok_or_else(|| resource::not_found::<port::Port>(id))
}

/// The router with a leg in the port's subnet and its gateway in the floating IP's network.
async fn router_between(
    write: &mut Write<'_>,
    row: &FloatingIpRow,
    port: &PortItem,
    address: &FixedIpRow,
) -> Result<String> {
    let candidates =
        crate::store::router::router_list_subnet(write.conn(), &address.subnet_id).await?;
    for candidate in candidates {
        let Some(gateway) = &candidate.gateway_port_id else {
            continue;
        };
        let gateway = port_get(write.conn(), gateway).await?;
        if gateway.is_some_and(|port| port.row.network_id == row.floating_network_id) {
            return Ok(candidate.id);
        }
    }
    Err(Error::not_found(
        "ExternalGatewayForFloatingIPNotFound",
        format!(
            "External network {} is not reachable from subnet {}.  Therefore, cannot associate Port {} \
             with a Floating IP.",
            row.floating_network_id, address.subnet_id, port.row.id
        ),
    ))
}

/// A port goes: floating IPs that led to it lead nowhere.
pub(super) async fn port_gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    for row in floating_ip_list_port(write.conn(), port).await? {
        nowhere(write, row).await?;
    }
    Ok(())
}

/// A port has other addresses now: floating IPs that led to those it lost lead nowhere.
pub(super) async fn addresses_gone(write: &mut Write<'_>, port: &PortItem) -> Result<()> {
    for row in floating_ip_list_port(write.conn(), &port.row.id).await? {
        let there = |ip: &FixedIpRow| row.fixed_ip_address.as_ref() == Some(&ip.ip_address);
        if !port.fixed_ips.iter().any(there) {
            nowhere(write, row).await?;
        }
    }
    Ok(())
}

async fn nowhere(write: &mut Write<'_>, mut row: FloatingIpRow) -> Result<()> {
    row.port_id = None;
    row.fixed_ip_address = None;
    row.router_id = None;
    rows::update(&mut write.tx, &mut row).await?;
    Ok(())
}
