//! Floating IPs: an address of an external network, and the port it leads to.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::authorize;
use super::error::{Error, Result};
use super::port::{self, FLOATING_IP, New, Port};
use super::port_attribute::FixedIpWanted;
use super::port_forwarding::{single_external, single_internal};
use super::qos_policy;
use super::resource::{Resource, Write};
use super::router::Router;
use super::view::{View, view};
use super::{dns, network, port_address};
use crate::store::floating_ip::{FloatingIpRow, floating_ip_list_port};
use crate::store::network::NetworkRow;
use crate::store::port::{FixedIpRow, Port as PortItem, PortRow, port_get, port_list_ids};
use crate::store::port_forwarding::{
    PortForwardingRow, port_forwarding_list, port_forwarding_list_port,
};
use crate::store::router::RouterRow;
use crate::store::subnet::subnet_list_network;
use crate::store::{self as rows, Conn, ServerEventKind};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use uuid::Uuid;

/// The resource.
pub struct FloatingIp;

/// A floating IP with what hangs on it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: FloatingIpRow,
    /// The port that it leads to.
    pub port: Option<PortRow>,
    /// Its port forwardings.
    pub port_forwardings: Vec<PortForwardingRow>,
}

impl Resource for FloatingIp {
    type Row = FloatingIpRow;
    type Item = Item;

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
        Attribute::new("router_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        Attribute::new("dns_name", Kind::Custom(dns::relative_name)).post(Default::Text("")),
        Attribute::new("dns_domain", Kind::Custom(dns::domain)).post(Default::Text("")),
        Attribute::new("status", Kind::Text(16)).sort(),
        Attribute::new("port_details", Kind::Text(0)),
        Attribute::new("port_forwardings", Kind::Text(0)),
    ];

    fn row(item: &Item) -> &FloatingIpRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, rows: Vec<FloatingIpRow>) -> Result<Vec<Item>> {
        let ports: Vec<&str> = rows
            .iter()
            .filter_map(|row| row.port_id.as_deref())
            .collect();
        let ports = port_list_ids(&mut *conn, &ports).await?;
        let mut ports: HashMap<String, PortRow> = ports
            .into_iter()
            .map(|port| (port.row.id.clone(), port.row))
            .collect();
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let mut forwardings: HashMap<String, Vec<PortForwardingRow>> = HashMap::new();
        for row in port_forwarding_list(conn, &ids).await? {
            let of = forwardings.entry(row.floatingip_id.clone()).or_default();
            of.push(row);
        }
        Ok(rows
            .into_iter()
            .map(|row| Item {
                port: row.port_id.as_ref().and_then(|port| ports.remove(port)),
                port_forwardings: forwardings.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let forwardings: Vec<Value> = item.port_forwardings.iter().map(forwarding_view).collect();
        view! { row;
            "floating_network_id" => row.floating_network_id,
            "floating_ip_address" => row.floating_ip_address,
            "router_id" => row.router_id,
            "port_id" => row.port_id,
            "fixed_ip_address" => row.fixed_ip_address,
            "qos_policy_id" => row.qos_policy_id,
            "dns_name" => row.dns_name,
            "dns_domain" => row.dns_domain,
            "status" => if row.router_id.is_some() { "ACTIVE" } else { "DOWN" },
            "port_details" => item.port.as_ref().map(port_details),
            "port_forwardings" => forwardings,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
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
            dns_name: given.text("dns_name"),
            dns_domain: given.text("dns_domain"),
            ..FloatingIpRow::default()
        };
        let wanted = given.text_opt("qos_policy_id");
        row.qos_policy_id = qos_policy::change(write, None, wanted).await?;
        let port = lead(write, &mut row, Wish::of(&mut given)).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        let port = port.map(|port| port.row);
        servers_told(write, [port.as_ref(), None]);
        Ok(Item {
            row,
            port,
            port_forwardings: Vec::new(),
        })
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        let blank = given.is_empty();
        if let Some(description) = given.text_opt("description") {
            item.row.description = description;
        }
        if let Some(wanted) = given.text_or_null("qos_policy_id") {
            let had = item.row.qos_policy_id.take();
            item.row.qos_policy_id = qos_policy::change(write, had, wanted).await?;
        }
        let names_port = given.contains_key("port_id");
        let mut wish = Wish::of(&mut given);
        if wish.port_id.is_some() && !item.port_forwardings.is_empty() {
            return Err(in_use(&item.row.id));
        }
        if !names_port && !blank {
            // Whoever names no port means the one that it leads to already.
            wish.port_id.clone_from(&item.row.port_id);
            if wish.port_id.is_some() {
                let (router, fixed) = (&item.row.router_id, &item.row.fixed_ip_address);
                wish.router_id = wish.router_id.or_else(|| router.clone());
                wish.fixed_ip_address = wish.fixed_ip_address.or_else(|| fixed.clone());
            }
        }
        let between = item.row.router_id.take();
        item.row.port_id = None;
        item.row.fixed_ip_address = None;
        if !item.port_forwardings.is_empty() {
            item.row.router_id = between;
        }
        let before = item.port.take();
        item.port = lead(write, &mut item.row, wish).await?.map(|port| port.row);
        rows::update(&mut write.tx, &mut item.row).await?;
        servers_told(write, [before.as_ref(), item.port.as_ref()]);
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        if !item.port_forwardings.is_empty() {
            return Err(in_use(&item.row.id));
        }
        servers_told(write, [item.port.as_ref(), None]);
        // The floating IP refers to the port that holds its address: it goes first.
        rows::delete::<FloatingIpRow>(&mut write.tx, &item.row.id).await?;
        port::delete(write, &item.row.floating_port_id).await
    }
}

/// The servers behind these ports have other addresses than before.
fn servers_told(write: &mut Write<'_>, ports: [Option<&PortRow>; 2]) {
    for port in ports.into_iter().flatten() {
        write.tx.announce(ServerEventKind::NetworkChanged, port);
    }
}

/// As the API shows it within its floating IP.
fn forwarding_view(row: &PortForwardingRow) -> Value {
    json!({
        "id": row.id,
        "protocol": row.protocol,
        "external_port": single_external(row),
        "internal_port": single_internal(row),
        "internal_port_id": row.internal_port_id,
        "internal_ip_address": row.internal_ip_address,
    })
}

fn port_details(port: &PortRow) -> Value {
    json!({
        "name": port.name,
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "device_id": port.device_id,
        "device_owner": port.device_owner,
    })
}

fn in_use(id: &str) -> Error {
    Error::conflict(
        "FipInUseByPortForwarding",
        format!("Floating IP {id} in use by Port Forwarding resources."),
    )
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

/// Where a caller wants a floating IP to lead.
#[derive(Clone, Debug, std::default::Default)]
struct Wish {
    port_id: Option<String>,
    fixed_ip_address: Option<String>,
    router_id: Option<String>,
}

impl Wish {
    fn of(given: &mut Attributes) -> Self {
        Self {
            port_id: given.text_opt("port_id"),
            fixed_ip_address: given.text_opt("fixed_ip_address"),
            router_id: given.text_opt("router_id"),
        }
    }
}

/// Lets a floating IP lead to a port, or nowhere; answers the port.
async fn lead(
    write: &mut Write<'_>,
    row: &mut FloatingIpRow,
    wish: Wish,
) -> Result<Option<PortItem>> {
    let Some(port_id) = wish.port_id else {
        for (name, given) in [
            ("fixed_ip_address", &wish.fixed_ip_address),
            ("router_id", &wish.router_id),
        ] {
            if given.is_some() {
                return Err(bad(format!("{name} cannot be specified without a port_id")));
            }
        }
        return Ok(None);
    };
    let port = port_usable(write, row, &port_id).await?;
    let address = address_of(&port, wish.fixed_ip_address)?;
    let bound = floating_ip_list_port(write.conn(), &port_id).await?;
    if bound.iter().any(|other| {
        other.id != row.id
            && other.floating_network_id == row.floating_network_id
            && other.fixed_ip_address.as_ref() == Some(&address.ip_address)
    }) {
        return Err(taken(row, &port_id, Some(&address.ip_address)));
    }
    let router = match wish.router_id {
        Some(router) => router_wanted(write, row, &port, &address, &router).await?,
        None => router_between(write, &row.floating_network_id, &port, &address).await?,
    };
    let router_row = rows::get::<RouterRow>(write.conn(), &router).await?;
    let forwarded = port_forwarding_list_port(write.conn(), &port_id).await?;
    if !forwarded.is_empty() && router_row.is_some_and(|router| router.distributed) {
        return Err(Error::invalid(
            "PortHasPortForwarding",
            format!(
                "Cannot associate floating IP to port {port_id} because it already has a Port \
                 Forwarding binding."
            ),
        ));
    }
    row.router_id = Some(router);
    row.fixed_ip_address = Some(address.ip_address);
    row.port_id = Some(port_id);
    Ok(Some(port))
}

/// The error for an address that has a floating IP of the network already, or a floating IP that leads elsewhere.
pub(super) fn taken(row: &FloatingIpRow, port: &str, fixed: Option<&str>) -> Error {
    Error::conflict(
        "FloatingIPPortAlreadyAssociated",
        format!(
            "Cannot associate floating IP {} ({}) with port {port} using fixed IP {}, as that fixed \
             IP already has a floating IP on external network {}.",
            row.floating_ip_address,
            row.id,
            fixed.unwrap_or("None"),
            row.floating_network_id
        ),
    )
}

fn address_of(port: &PortItem, wanted: Option<String>) -> Result<FixedIpRow> {
    let id = &port.row.id;
    if let Some(wanted) = wanted {
        if wanted.parse::<Ipv4Addr>().is_err() {
            return Err(bad(format!(
                "Cannot process floating IP association with {wanted}, since that is not an IPv4 \
                 address"
            )));
        }
        let found = port.fixed_ips.iter().find(|ip| ip.ip_address == wanted);
        return found
            .cloned()
            .ok_or_else(|| bad(format!("Port {id} does not have fixed ip {wanted}")));
    }
    let mut v4 = port.fixed_ips.iter().filter(|ip| is_v4(ip));
    let first = v4.next().ok_or_else(|| {
        bad(format!(
            "Cannot add floating IP to port {id} that has no fixed IPv4 addresses"
        ))
    })?;
    if v4.next().is_some() {
        return Err(bad(format!(
            "Port {id} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when \
             assigning a floating IP"
        )));
    }
    Ok(first.clone())
}

/// A port that the caller may see, of the floating IP's project.
async fn port_usable(write: &mut Write<'_>, row: &FloatingIpRow, id: &str) -> Result<PortItem> {
    let port = authorize::see::<Port>(write, id).await?;
    if port.row.project_id != row.project_id && !write.caller.is_admin() {
        return Err(bad(format!(
            "Cannot process floating IP association with Port {id}, since that port is owned by a \
             different project"
        )));
    }
    Ok(port)
}

/// Whether a router has its gateway in a network.
async fn has_gateway_in(conn: &mut Conn, router: &RouterRow, network: &str) -> Result<bool> {
    let Some(gateway) = &router.gateway_port_id else {
        return Ok(false);
    };
    let gateway = port_get(conn, gateway).await?;
    Ok(gateway.is_some_and(|port| port.row.network_id == network))
}

/// The router that the caller named: it must be the way between the port and the floating IP's network.
async fn router_wanted(
    write: &mut Write<'_>,
    row: &FloatingIpRow,
    port: &PortItem,
    address: &FixedIpRow,
    id: &str,
) -> Result<String> {
    let router = authorize::see::<Router>(write, id).await?;
    if !has_gateway_in(write.conn(), &router.row, &row.floating_network_id).await? {
        return Err(Error::conflict(
            "ExternalGatewayForFloatingIPConflict",
            format!(
                "Router {id} has no gateway on external network {}.",
                row.floating_network_id
            ),
        ));
    }
    let conn = write.conn();
    let legs = crate::store::router::router_list_subnet(conn, &address.subnet_id).await?;
    if legs.iter().any(|leg| leg.id == id) {
        return Ok(id.to_owned());
    }
    Err(unreachable_from(&row.floating_network_id, port, address))
}

/// The router with a leg in the port's subnet and its gateway in the external network; if there are several, the one
/// that is the subnet's gateway.
pub(super) async fn router_between(
    write: &mut Write<'_>,
    external: &str,
    port: &PortItem,
    address: &FixedIpRow,
) -> Result<String> {
    let conn = write.conn();
    let candidates = crate::store::router::router_list_subnet(conn, &address.subnet_id).await?;
    let mut reachable = Vec::new();
    for candidate in candidates {
        if has_gateway_in(write.conn(), &candidate, external).await? {
            reachable.push(candidate.id);
        }
    }
    if reachable.len() > 1 {
        let subnet = port_address::subnet_of(write, &address.subnet_id).await?;
        for id in &reachable {
            let legs = super::router::interfaces(write, id).await?;
            let mut ips = legs.iter().flat_map(|leg| &leg.fixed_ips);
            if ips.any(|ip| Some(&ip.ip_address) == subnet.gateway_ip.as_ref()) {
                return Ok(id.clone());
            }
        }
    }
    let first = reachable.into_iter().next();
    first.ok_or_else(|| unreachable_from(external, port, address))
}

fn unreachable_from(external: &str, port: &PortItem, address: &FixedIpRow) -> Error {
    Error::not_found(
        "ExternalGatewayForFloatingIPNotFound",
        format!(
            "External network {external} is not reachable from subnet {}.  Therefore, cannot associate \
             Port {} with a Floating IP.",
            address.subnet_id, port.row.id
        ),
    )
}

/// A port goes: floating IPs that led to it lead nowhere.
pub(super) async fn port_gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    for mut row in floating_ip_list_port(write.conn(), port).await? {
        row.port_id = None;
        row.fixed_ip_address = None;
        row.router_id = None;
        rows::update(&mut write.tx, &mut row).await?;
    }
    Ok(())
}

/// A port has other addresses now: it must still have those that floating IPs lead to.
pub(super) async fn addresses_kept(write: &mut Write<'_>, port: &PortItem) -> Result<()> {
    for row in floating_ip_list_port(write.conn(), &port.row.id).await? {
        let there = |ip: &FixedIpRow| row.fixed_ip_address.as_ref() == Some(&ip.ip_address);
        if !port.fixed_ips.iter().any(there) {
            return Err(Error::invalid(
                "BadRequest",
                format!(
                    "Bad port request: Cannot update the fixed_ips of the port {}, because its original \
                     fixed_ip has been associated to a floating ip.",
                    port.row.id
                ),
            ));
        }
    }
    Ok(())
}
