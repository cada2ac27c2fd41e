//! Port forwardings: ports of a floating IP, and the ports of guests that they lead to.

use super::attribute::{
    Attribute, Attributes, Default, Kind, STANDARD_BARE, Take, int_of, text_of,
};
use super::authorize;
use super::error::{Error, Result, quote_value};
use super::floating_ip::{self, FloatingIp};
use super::policy::Caller;
use super::port::Port;
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use crate::store::floating_ip::{FloatingIpRow, floating_ip_list_port};
use crate::store::port::{FixedIpRow, Port as PortItem};
use crate::store::port_forwarding::{
    PortForwardingRow, port_forwarding_list, port_forwarding_list_port,
};
use crate::store::row::Resource as Kinds;
use crate::store::{self as rows, Conn};
use serde_json::Value;
use std::net::Ipv4Addr;
use uuid::Uuid;
use weft_model::limits;

/// The resource.
pub struct PortForwarding;

/// Protocols that have ports to forward, and Neutron's other names of them.
const PROTOCOLS: &[(&str, i64)] = &[
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6-icmp", 58),
    ("sctp", 132),
];

/// Reads a protocol: a name in any case, or a number that has one.
pub(super) fn protocol(value: &Value) -> Result<Value, String> {
    let named = |name: &str| PROTOCOLS.iter().find(|(known, _)| *known == name);
    let numbered = |number: i64| PROTOCOLS.iter().find(|(_, known)| *known == number);
    let found = match value {
        Value::String(text) => {
            named(&text.to_ascii_lowercase()).or_else(|| text.parse().ok().and_then(numbered))
        }
        other => other.as_i64().and_then(numbered),
    };
    found.map(|(name, _)| Value::from(*name)).ok_or_else(|| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("{} is not one of {}", quote_value(value), names.join(", "))
    })
}

/// Reads `first:last` or one port; becomes `first:last`.
fn port_range(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        other => text_of(other, 11)?,
    };
    let (first, last) = text.split_once(':').unwrap_or((&text, &text));
    let port = |text: &str| int_of(&Value::from(text), 1, 65_535);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {text} ends before it begins"));
    }
    Ok(range_text(first, last).into())
}

fn range_text(first: i64, last: i64) -> String {
    format!("{first}:{last}")
}

impl Resource for PortForwarding {
    type Row = PortForwardingRow;
    type Item = PortForwardingRow;

    const NAME: &'static str = "port_forwarding";
    const COLLECTION: &'static str = "port_forwardings";
    const NOT_FOUND: &'static str = "PortForwardingNotFound";
    const TITLE: &'static str = "Port Forwarding";
    const POLICY: &'static str = "floatingip_port_forwarding";
    const PARENT: Option<&'static str> = Some("floatingip_id");
    const STANDARD: &'static [Attribute] = STANDARD_BARE;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("description", Kind::Text(1_024))
            .post(Default::Text(""))
            .put()
            .filter(),
        Attribute::new("protocol", Kind::Custom(protocol))
            .required()
            .put()
            .sort(),
        Attribute::new("external_port", Kind::Int(1, 65_535))
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        Attribute::new("external_port_range", Kind::Custom(port_range))
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        Attribute::new("internal_port_id", Kind::Uuid)
            .required()
            .put()
            .sort(),
        Attribute::new("internal_ip_address", Kind::Ip)
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("internal_port", Kind::Int(1, 65_535))
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("internal_port_range", Kind::Custom(port_range))
            .post(Default::Null)
            .put()
            .nullable(),
    ];

    fn row(item: &PortForwardingRow) -> &PortForwardingRow {
        item
    }

    fn parent_id(item: &PortForwardingRow) -> &str {
        &item.floatingip_id
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<PortForwardingRow>,
    ) -> Result<Vec<PortForwardingRow>> {
        Ok(rows)
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        let kept = view.get("external_port_range") == view.get("internal_port_range");
        match view.get("protocol").and_then(Value::as_str) {
            Some("icmp" | "ipv6-icmp") => vec!["a protocol without ports is not forwarded"],
            Some("sctp") if !kept => vec!["SCTP is forwarded only where no port changes"],
            _ => vec![],
        }
    }

    fn view(row: &PortForwardingRow) -> View {
        let (external, internal) = (single_external(row), single_internal(row));
        let mut view = view! { bare row;
            "description" => row.description,
            "protocol" => row.protocol,
            "external_port" => external,
            "external_port_range" => range_text(row.external_port_first, row.external_port_last),
            "internal_port_id" => row.internal_port_id,
            "internal_ip_address" => row.internal_ip_address,
            "internal_port" => internal,
            "internal_port_range" => range_text(row.internal_port_first, row.internal_port_last),
        };
        // It belongs to the floating IP's project, and does not say so.
        view.remove("project_id");
        view
    }

    async fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        authorize::owned_parent::<FloatingIp>(conn, caller, floating_ip_of(attributes)).await
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = floating_ip_of(attributes);
        let of = authorize::owned_parent::<FloatingIp>(conn, caller, id).await;
        of.map(|_target| ())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<PortForwardingRow> {
        let mut fip = parent_row(write, &given.text("floatingip_id")).await?;
        let mut row = PortForwardingRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            description: given.text("description"),
            floatingip_id: fip.id.clone(),
            protocol: given.text("protocol"),
            internal_port_id: given.text("internal_port_id"),
            ..PortForwardingRow::default()
        };
        set_ranges(&mut row, &mut given)?;
        if fip.port_id.is_some() {
            return Err(floating_ip::taken(&fip, &row.internal_port_id, None));
        }
        let address = given.text_opt("internal_ip_address");
        let router = lead(write, &fip, &mut row, address).await?;
        check_collisions(write, &row).await?;
        if fip.router_id.is_none() {
            fip.router_id = Some(router);
            rows::update(&mut write.tx, &mut fip).await?;
        }
        rows::insert(&mut write.tx, &mut row).await?;
        write.tx.touch(Kinds::FloatingIp, &fip.id).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: PortForwardingRow,
        mut given: Attributes,
    ) -> Result<PortForwardingRow> {
        let fip = parent_row(write, &row.floatingip_id).await?;
        row.description = given.text_opt("description").unwrap_or(row.description);
        row.protocol = given.text_opt("protocol").unwrap_or(row.protocol);
        set_ranges(&mut row, &mut given)?;
        let mut address = given.text_opt("internal_ip_address");
        match given.text_opt("internal_port_id") {
            Some(port) => row.internal_port_id = port,
            // The address that it has already, unless another is named.
            None => address = address.or_else(|| Some(row.internal_ip_address.clone())),
        }
        lead(write, &fip, &mut row, address).await?;
        check_collisions(write, &row).await?;
        rows::update(&mut write.tx, &mut row).await?;
        write.tx.touch(Kinds::FloatingIp, &fip.id).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: PortForwardingRow) -> Result<()> {
        remove(write, &row).await
    }
}

/// The external port, if it is one only.
pub(super) fn single_external(row: &PortForwardingRow) -> Option<i64> {
    (row.external_port_first == row.external_port_last).then_some(row.external_port_first)
}

/// The internal port, if it is one only.
pub(super) fn single_internal(row: &PortForwardingRow) -> Option<i64> {
    (row.internal_port_first == row.internal_port_last).then_some(row.internal_port_first)
}

fn floating_ip_of(attributes: &Attributes) -> &str {
    attributes
        .get("floatingip_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

async fn parent_row(write: &mut Write<'_>, id: &str) -> Result<FloatingIpRow> {
    let row = rows::get::<FloatingIpRow>(write.conn(), id).await?;
    row.ok_or_else(|| resource::not_found::<FloatingIp>(id))
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid(
        "BadRequest",
        format!("Bad port_forwarding request: {reason}."),
    )
}

/// Takes the ports that are given; those that are not stay.
fn set_ranges(row: &mut PortForwardingRow, given: &mut Attributes) -> Result<()> {
    let external = range_given(given, "external_port", "external_port_range")?;
    let internal = range_given(given, "internal_port", "internal_port_range")?;
    if let Some((first, last)) = external {
        (row.external_port_first, row.external_port_last) = (first, last);
    }
    if let Some((first, last)) = internal {
        (row.internal_port_first, row.internal_port_last) = (first, last);
    }
    for (name, first) in [
        ("external", row.external_port_first),
        ("internal", row.internal_port_first),
    ] {
        if first == 0 {
            return Err(bad(format!(
                "{name}_port or {name}_port_range must be given"
            )));
        }
    }
    let external = row.external_port_last - row.external_port_first;
    let internal = row.internal_port_last - row.internal_port_first;
    if internal > 0 && internal != external {
        return Err(bad(
            "Invalid ranges of internal and/or external ports. The relation between internal and \
             external ports must be N-N or 1-N",
        ));
    }
    Ok(())
}

/// One port or a range of them, as the body says; both only if they are the same.
fn range_given(given: &mut Attributes, one: &str, range: &str) -> Result<Option<(i64, i64)>> {
    let port = given.int(one).map(|port| (port, port));
    let range_text = given.text_opt(range);
    let ports = range_text.as_deref().and_then(|text| {
        let (first, last) = text.split_once(':')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    match (port, ports) {
        (Some(port), Some(ports)) if port != ports => {
            Err(bad(format!("{one} and {range} contradict each other")))
        }
        (port, ports) => Ok(ports.or(port)),
    }
}

fn is_v4(ip: &FixedIpRow) -> bool {
    ip.ip_address.parse::<Ipv4Addr>().is_ok()
}

/// Lets a forwarding lead to its port's address (the first IPv4 one if none is named), and answers the router between.
async fn lead(
    write: &mut Write<'_>,
    fip: &FloatingIpRow,
    row: &mut PortForwardingRow,
    address: Option<String>,
) -> Result<String> {
    let port = authorize::see::<Port>(write, &row.internal_port_id).await?;
    let bound = floating_ip_list_port(write.conn(), &port.row.id).await?;
    if let Some(other) = bound.first() {
        return Err(Error::conflict(
            "PortHasBindingFloatingIP",
            format!(
                "Cannot create port forwarding to floating IP {} ({}) with port {} using fixed IP {}, \
                 as that port already has a binding floating IP.",
                other.floating_ip_address,
                other.id,
                port.row.id,
                address.unwrap_or_default()
            ),
        ));
    }
    let inside = address_of(&port, address)?;
    let router = floating_ip::router_between(write, &fip.floating_network_id, &port, &inside);
    let router = router.await.map_err(|_unreachable| {
        bad(format!(
            "External network {} is not reachable from subnet {}. Cannot set Port forwarding for port \
             {} with Floating IP {}",
            fip.floating_network_id, inside.subnet_id, port.row.id, fip.id
        ))
    })?;
    if let Some(own) = fip.router_id.as_ref().filter(|own| **own != router) {
        return Err(bad(format!(
            "The Floating IP {} had been set on router {own}, the internal Neutron port {} can not \
             reach it",
            fip.id, port.row.id
        )));
    }
    row.internal_ip_address = inside.ip_address;
    Ok(router)
}

fn address_of(port: &PortItem, wanted: Option<String>) -> Result<FixedIpRow> {
    let mut v4 = port.fixed_ips.iter().filter(|ip| is_v4(ip));
    let Some(wanted) = wanted else {
        return v4.next().cloned().ok_or_else(|| {
            bad(format!(
                "Requested internal port {} must allocate an IPv4 address at least",
                port.row.id
            ))
        });
    };
    let found = v4.find(|ip| ip.ip_address == wanted).cloned();
    found.ok_or_else(|| {
        bad(format!(
            "Requested internal IP address {wanted} is not suitable for internal neutron port {}",
            port.row.id
        ))
    })
}

/// Two forwardings must not share a port outside, nor one inside.
async fn check_collisions(write: &mut Write<'_>, row: &PortForwardingRow) -> Result<()> {
    let mut others = port_forwarding_list(write.conn(), &[&row.floatingip_id]).await?;
    if others.len() >= limits::PORT_FORWARDINGS_MAX && !others.iter().any(|o| o.id == row.id) {
        return Err(bad(format!(
            "at most {} port forwardings of one floating IP",
            limits::PORT_FORWARDINGS_MAX
        )));
    }
    others.extend(port_forwarding_list_port(write.conn(), &row.internal_port_id).await?);
    for other in others {
        if other.id == row.id || other.protocol != row.protocol {
            continue;
        }
        let outside = other.floatingip_id == row.floatingip_id
            && overlap(
                (other.external_port_first, other.external_port_last),
                (row.external_port_first, row.external_port_last),
            );
        let inside = other.internal_port_id == row.internal_port_id
            && other.internal_ip_address == row.internal_ip_address
            && overlap(
                (other.internal_port_first, other.internal_port_last),
                (row.internal_port_first, row.internal_port_last),
            );
        if outside || inside {
            let side = if outside { "external" } else { "internal" };
            return Err(bad(format!(
                "There is a port collision with the {side}_port_range of port forwarding {}",
                other.id
            )));
        }
    }
    Ok(())
}

fn overlap(a: (i64, i64), b: (i64, i64)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Takes a forwarding away; the floating IP's last one leaves it without a router.
async fn remove(write: &mut Write<'_>, row: &PortForwardingRow) -> Result<()> {
    rows::delete::<PortForwardingRow>(&mut write.tx, &row.id).await?;
    let left = port_forwarding_list(write.conn(), &[&row.floatingip_id]).await?;
    let mut fip = parent_row(write, &row.floatingip_id).await?;
    if left.is_empty() {
        fip.router_id = None;
        rows::update(&mut write.tx, &mut fip).await?;
    }
    write.tx.touch(Kinds::FloatingIp, &fip.id).await?;
    Ok(())
}

/// A port goes: so do the forwardings that lead to it.
pub(super) async fn port_gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    for row in port_forwarding_list_port(write.conn(), port).await? {
        remove(write, &row).await?;
    }
    Ok(())
}

/// A port has other addresses now: forwardings to those it lost go.
pub(super) async fn addresses_gone(write: &mut Write<'_>, port: &PortItem) -> Result<()> {
    for row in port_forwarding_list_port(write.conn(), &port.row.id).await? {
        let there = |ip: &FixedIpRow| ip.ip_address == row.internal_ip_address;
        if !port.fixed_ips.iter().any(there) {
            remove(write, &row).await?;
        }
    }
    Ok(())
}
