//! Subnets: ranges, gateways, allocation pools, IPv6 modes.

use super::attribute::{
    self, Attribute, Attributes, Default, Kind, Take, cidr_of, ip_of, objects_of, only_keys,
};
use super::error::{Error, Result, quote_value};
use super::network;
use super::policy::Caller;
use super::port_address;
use super::rbac_policy;
use super::resource::{Resource, Write};
use super::view::view;
use crate::ipam::{self, Range};
use crate::store::network::NetworkRow;
use crate::store::port::{fixed_ip_owner, ip_key, port_get, ports_of_subnet};
use crate::store::subnet::{AllocationPool, Route, subnet_list_network};
use crate::store::{self as rows, Conn, JsonText};
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;
use uuid::Uuid;
use weft_model::limits;

pub use crate::store::subnet::SubnetRow as Row;

/// The resource.
pub struct Subnet;

/// Allocation pools of one subnet.
const POOLS_MAX: usize = 64;
/// Ports that a subnet with automatic addresses is looked through for at its end.
const PORTS_MAX: u32 = 100_000;
const MODES: &[&str] = &["dhcpv6-stateful", "dhcpv6-stateless", "slaac"];

fn cidr(value: &Value) -> Result<Value, String> {
    cidr_of(value).map(|cidr| cidr.trunc().to_string().into())
}

fn version(value: &Value) -> Result<Value, String> {
    match attribute::int_of(value, i64::MIN, i64::MAX)? {
        version @ (4 | 6) => Ok(version.into()),
        _ => Err(format!("{} is not in [4, 6]", quote_value(value))),
    }
}

fn pools(value: &Value) -> Result<Value, String> {
    let pools = objects_of(value, POOLS_MAX, "IP pools", |pool| {
        only_keys(pool, &["start", "end"])?;
        Ok(AllocationPool {
            start: ip_of(pool.get("start").unwrap_or(&Value::Null))?,
            end: ip_of(pool.get("end").unwrap_or(&Value::Null))?,
        })
    })?;
    serde_json::to_value(pools).map_err(|error| error.to_string())
}

fn nameservers(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!(
            "Invalid data format for nameserver: {}",
            quote_value(value)
        ));
    };
    if list.len() > limits::DNS_NAMESERVERS_MAX {
        return Err(format!(
            "at most {} nameservers",
            limits::DNS_NAMESERVERS_MAX
        ));
    }
    let mut addresses: Vec<String> = Vec::new();
    for item in list {
        let address = ip_of(item)?.to_string();
        if addresses.contains(&address) {
            return Err(format!("Duplicate nameserver '{address}'"));
        }
        addresses.push(address);
    }
    Ok(addresses.into())
}

/// Reads `host_routes` of a subnet or `routes` of a router.
pub(super) fn routes_of(value: &Value, max: usize) -> Result<Value, String> {
    let mut routes = objects_of(value, max, "hostroute", |route| {
        only_keys(route, &["destination", "nexthop"])?;
        let destination = cidr_of(route.get("destination").unwrap_or(&Value::Null))?.trunc();
        let nexthop = ip_of(route.get("nexthop").unwrap_or(&Value::Null))?;
        if destination.addr().is_ipv6() != nexthop.is_ipv6() {
            return Err(format!(
                "destination {destination} and nexthop {nexthop} are of different families"
            ));
        }
        Ok(Route {
            destination,
            nexthop,
        })
    })?;
    let given = routes.len();
    routes.sort();
    routes.dedup();
    if routes.len() < given {
        return Err("Duplicate hostroute".to_owned());
    }
    serde_json::to_value(routes).map_err(|error| error.to_string())
}

fn host_routes(value: &Value) -> Result<Value, String> {
    routes_of(value, limits::HOST_ROUTES_MAX)
}

impl Resource for Subnet {
    type Row = Row;
    type Item = Row;

    const NAME: &'static str = "subnet";
    const COLLECTION: &'static str = "subnets";
    const NOT_FOUND: &'static str = "SubnetNotFound";
    const TITLE: &'static str = "Subnet";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("network_id", Kind::Uuid).required().sort(),
        Attribute::new("ip_version", Kind::Custom(version))
            .required()
            .sort(),
        Attribute::new("cidr", Kind::Custom(cidr))
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("gateway_ip", Kind::Ip)
            .post(Default::Unset)
            .put()
            .nullable()
            .sort(),
        Attribute::new("enable_dhcp", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("ipv6_ra_mode", Kind::OneOf(MODES))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("ipv6_address_mode", Kind::OneOf(MODES))
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("allocation_pools", Kind::Custom(pools))
            .post(Default::Unset)
            .put(),
        Attribute::new("dns_nameservers", Kind::Custom(nameservers))
            .post(Default::EmptyList)
            .put()
            .nullable(),
        Attribute::new("host_routes", Kind::Custom(host_routes))
            .post(Default::EmptyList)
            .put()
            .nullable(),
        Attribute::new("router:external", Kind::Bool).filter(),
        Attribute::new("shared", Kind::Bool).filter(),
        Attribute::new("subnetpool_id", Kind::Uuid)
            .post(Default::Null)
            .nullable()
            .sort(),
    ];

    fn row(item: &Row) -> &Row {
        item
    }

    async fn complete(_conn: &mut Conn, subnets: Vec<Row>) -> Result<Vec<Row>> {
        Ok(subnets)
    }

    fn view(row: &Row) -> Attributes {
        view! { row;
            "name" => row.name,
            "network_id" => row.network_id,
            "ip_version" => row.ip_version,
            "cidr" => row.cidr,
            "gateway_ip" => row.gateway_ip,
            "enable_dhcp" => row.enable_dhcp,
            "ipv6_ra_mode" => row.ipv6_ra_mode,
            "ipv6_address_mode" => row.ipv6_address_mode,
            "allocation_pools" => row.allocation_pools.0,
            "dns_nameservers" => row.dns_nameservers.0,
            "host_routes" => row.host_routes.0,
            "subnetpool_id" => Value::Null,
        }
    }

    /// The network's owner may do with the subnet what its own may; shared and external are the network's.
    async fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        network_target(conn, caller, attributes).await
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = attributes
            .get("network_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        network::usable(conn, caller, id).await.map(|_network| ())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Row> {
        let network =
            network::usable(write.tx.conn(), write.caller, &given.text("network_id")).await?;
        let mut row = row_wanted(&network, &mut given)?;
        check_modes(&row)?;
        let range = range_of(&row);
        check_range(&row, range)?;
        for other in subnet_list_network(write.conn(), &network.id).await? {
            if overlap(range_of(&other), range) {
                return Err(Error::invalid_input(format!(
                    "Requested subnet with cidr: {} for network: {} overlaps with another subnet \
                     (CIDR {} of subnet {})",
                    row.cidr, network.id, other.cidr, other.id
                )));
            }
        }
        let gateway = match given.remove("gateway_ip") {
            None => Some(ipam::address(ipam::hosts(range).first)),
            Some(value) => ip_of(&value).ok(),
        };
        row.gateway_ip = gateway.map(|gateway| gateway.to_string());
        row.allocation_pools = JsonText(
            match given.shaped::<Vec<AllocationPool>>("allocation_pools") {
                Some(pools) => pools,
                None => ipam::default_pools(range, gateway)
                    .into_iter()
                    .map(pool_of)
                    .collect(),
            },
        );
        check_gateway(&row, range)?;
        check_pools(&mut row, range)?;
        rows::insert(&mut write.tx, &mut row).await?;
        if is_auto_address(&row) {
            port_address::add_auto_addresses(write, &row).await?;
        }
        touch_network(write, &row).await?;
        Ok(row)
    }

    async fn update(write: &mut Write<'_>, mut row: Row, mut given: Attributes) -> Result<Row> {
        let range = range_of(&row);
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        if let Some(value) = given.remove("dns_nameservers") {
            row.dns_nameservers = JsonText(serde_json::from_value(value).unwrap_or_default());
        }
        if let Some(value) = given.remove("host_routes") {
            row.host_routes = JsonText(serde_json::from_value(value).unwrap_or_default());
        }
        row.enable_dhcp = given.truth("enable_dhcp").unwrap_or(row.enable_dhcp);
        check_modes(&row)?;
        if let Some(gateway) = given.text_or_null("gateway_ip")
            && gateway != row.gateway_ip
        {
            gateway_unused(write, &row).await?;
            row.gateway_ip = gateway;
        }
        if let Some(pools) = given.shaped("allocation_pools") {
            row.allocation_pools = JsonText(pools);
        }
        check_range(&row, range)?;
        check_gateway(&row, range)?;
        check_pools(&mut row, range)?;
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: Row) -> Result<()> {
        let auto = is_auto_address(&row);
        for id in ports_of_subnet(write.conn(), &row.id, PORTS_MAX).await? {
            let Some(port) = port_get(write.conn(), &id).await? else {
                continue;
            };
            // Automatic addresses go with their subnet; a router's leg was asked for and stays.
            if !auto || port_address::is_router_owner(&port.row.device_owner) {
                return Err(Error::conflict(
                    "SubnetInUse",
                    format!(
                        "Unable to complete operation on subnet {}: One or more ports have an IP \
                         allocation from this subnet.",
                        row.id
                    ),
                ));
            }
            port_address::remove_subnet(write, port, &row.id).await?;
        }
        rows::delete::<Row>(&mut write.tx, &row.id).await?;
        touch_network(write, &row).await
    }
}

/// What the policy wants to know of the network that `attributes` names.
pub(super) async fn network_target(
    conn: &mut Conn,
    caller: &Caller,
    attributes: &Attributes,
) -> Result<Attributes> {
    let id = attributes
        .get("network_id")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut target = Attributes::new();
    if let Some(network) = rows::get::<NetworkRow>(conn, id).await? {
        let shared = rbac_policy::shared(conn, caller, network::object(&network)).await?;
        target.insert("shared".to_owned(), shared.into());
        target.insert("network:project_id".to_owned(), network.project_id.into());
        target.insert("router:external".to_owned(), network.external.into());
    }
    Ok(target)
}

/// A network shows its subnets, so it changes with them.
async fn touch_network(write: &mut Write<'_>, row: &Row) -> Result<()> {
    if let Some(mut network) = rows::get::<NetworkRow>(write.conn(), &row.network_id).await? {
        rows::update(&mut write.tx, &mut network).await?;
    }
    Ok(())
}

/// The range of a subnet that was stored.
pub(super) fn range_of(row: &Row) -> IpNet {
    // Only checked ranges are stored; a damaged one holds nothing.
    row.cidr
        .parse()
        .unwrap_or_else(|_| IpNet::from(IpAddr::from([0, 0, 0, 0])))
}

/// Whether ports get their address in it from their MAC address.
pub(super) fn is_auto_address(row: &Row) -> bool {
    matches!(
        row.ipv6_address_mode.as_deref(),
        Some("slaac" | "dhcpv6-stateless")
    )
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn row_wanted(network: &NetworkRow, given: &mut Attributes) -> Result<Row> {
    if given.text_opt("subnetpool_id").is_some() {
        return Err(Error::invalid_input("subnetpool_id names no subnet pool"));
    }
    let Some(cidr) = given.text_opt("cidr") else {
        return Err(Error::invalid(
            "BadRequest",
            "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
        ));
    };
    let row = Row {
        id: Uuid::new_v4().to_string(),
        project_id: given.text("project_id"),
        network_id: network.id.clone(),
        name: given.text("name"),
        description: given.text("description"),
        ip_version: given.int("ip_version").unwrap_or(4),
        cidr,
        enable_dhcp: given.truth("enable_dhcp").unwrap_or(true),
        ipv6_ra_mode: given.text_opt("ipv6_ra_mode"),
        ipv6_address_mode: given.text_opt("ipv6_address_mode"),
        dns_nameservers: JsonText(given.shaped("dns_nameservers").unwrap_or_default()),
        host_routes: JsonText(given.shaped("host_routes").unwrap_or_default()),
        ..Row::default()
    };
    if range_of(&row).addr().is_ipv6() != (row.ip_version == 6) {
        return Err(Error::invalid_input(format!(
            "ip_version {} does not match the cidr {}",
            row.ip_version, row.cidr
        )));
    }
    Ok(row)
}

fn check_range(row: &Row, range: IpNet) -> Result<()> {
    if range.prefix_len() == 0 {
        return Err(Error::invalid_input(
            "0 is not allowed as CIDR prefix length",
        ));
    }
    let address = range.network();
    let bad = address.is_multicast()
        || address.is_loopback()
        || matches!(address, IpAddr::V4(v4) if v4.is_link_local() && range.prefix_len() < 16)
        || matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if bad {
        return Err(Error::invalid_input(format!(
            "cidr {} is a multicast, loopback or link-local range",
            row.cidr
        )));
    }
    if row.ip_version == 4 && row.enable_dhcp && range.prefix_len() > 30 {
        return Err(Error::invalid_input(format!(
            "cidr {}: Subnet has a prefix length that is incompatible with DHCP service enabled",
            row.cidr
        )));
    }
    let family = |ip: &IpAddr| ip.is_ipv6() == (row.ip_version == 6);
    if let Some(wrong) = row.dns_nameservers.0.iter().find(|ip| !family(ip)) {
        return Err(Error::invalid_input(format!(
            "dns_nameservers: {wrong} is not an address of IP version {}",
            row.ip_version
        )));
    }
    if let Some(wrong) = row
        .host_routes
        .0
        .iter()
        .find(|route| !family(&route.nexthop))
    {
        return Err(Error::invalid_input(format!(
            "host_routes: nexthop {} is not an address of IP version {}",
            wrong.nexthop, row.ip_version
        )));
    }
    Ok(())
}

fn check_modes(row: &Row) -> Result<()> {
    let modes = [
        ("ipv6_ra_mode", &row.ipv6_ra_mode),
        ("ipv6_address_mode", &row.ipv6_address_mode),
    ];
    if modes.iter().all(|(_, mode)| mode.is_none()) {
        return Ok(());
    }
    if row.ip_version == 4 {
        return Err(Error::invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when ip_version is 4",
        ));
    }
    if !row.enable_dhcp {
        return Err(Error::invalid_input(
            "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is set to False",
        ));
    }
    if let (Some(ra), Some(address)) = (&row.ipv6_ra_mode, &row.ipv6_address_mode)
        && ra != address
    {
        return Err(Error::invalid_input(format!(
            "ipv6_ra_mode set to '{ra}' with ipv6_address_mode set to '{address}' is not valid. \
             If both attributes are set, they must be the same value"
        )));
    }
    let slaac =
        |mode: &&Option<String>| matches!(mode.as_deref(), Some("slaac" | "dhcpv6-stateless"));
    if modes.iter().any(|(_, mode)| slaac(mode)) && range_of(row).prefix_len() != 64 {
        return Err(Error::invalid_input(format!(
            "Invalid CIDR {} for IPv6 address mode. OpenStack uses the EUI-64 address format, which \
             requires the prefix to be /64",
            row.cidr
        )));
    }
    Ok(())
}

fn check_gateway(row: &Row, range: IpNet) -> Result<()> {
    let Some(gateway) = row
        .gateway_ip
        .as_deref()
        .and_then(|text| text.parse::<IpAddr>().ok())
    else {
        return Ok(());
    };
    let hosts = ipam::hosts(range);
    let inside =
        !range.contains(&gateway) || (hosts.first..=hosts.last).contains(&ipam::number(gateway));
    if gateway.is_ipv6() != (row.ip_version == 6) || !inside || gateway.is_multicast() {
        return Err(Error::invalid_input(format!(
            "gateway_ip: Gateway {gateway} is not valid on subnet {}",
            row.cidr
        )));
    }
    Ok(())
}

/// Puts the pools into order and checks them.
fn check_pools(row: &mut Row, range: IpNet) -> Result<()> {
    let cidr = row.cidr.clone();
    let hosts = ipam::hosts(range);
    row.allocation_pools
        .0
        .sort_by_key(|pool| ipam::number(pool.start));
    let mut before: Option<AllocationPool> = None;
    for pool in &row.allocation_pools.0 {
        let Range { first, last } = range_of_pool(*pool);
        let shown = format!("{}-{}", pool.start, pool.end);
        if pool.start.is_ipv6() != pool.end.is_ipv6() || first > last {
            return Err(Error::invalid(
                "InvalidAllocationPool",
                format!("The allocation pool {shown} is not valid."),
            ));
        }
        if first < hosts.first || last > hosts.last {
            return Err(Error::invalid(
                "OutOfBoundsAllocationPool",
                format!("The allocation pool {shown} spans beyond the subnet cidr {cidr}."),
            ));
        }
        if let Some(before) = before
            && ipam::number(before.end) >= first
        {
            return Err(Error::conflict(
                "OverlappingAllocationPools",
                format!(
                    "Found overlapping allocation pools: {}-{} {shown} for subnet {cidr}.",
                    before.start, before.end
                ),
            ));
        }
        let gateway = row.gateway_ip.as_deref().and_then(|text| text.parse().ok());
        if gateway
            .map(ipam::number)
            .is_some_and(|gateway| (first..=last).contains(&gateway))
        {
            return Err(Error::conflict(
                "GatewayConflictWithAllocationPools",
                format!(
                    "Gateway ip {} conflicts with allocation pool {shown}.",
                    row.gateway_ip.as_deref().unwrap_or_default()
                ),
            ));
        }
        before = Some(*pool);
    }
    Ok(())
}

/// A pool as numbers.
pub(super) fn range_of_pool(pool: AllocationPool) -> Range {
    Range {
        first: ipam::number(pool.start),
        last: ipam::number(pool.end),
    }
}

fn pool_of(range: Range) -> AllocationPool {
    AllocationPool {
        start: ipam::address(range.first),
        end: ipam::address(range.last),
    }
}

/// The gateway cannot change while a router has its address.
async fn gateway_unused(write: &mut Write<'_>, row: &Row) -> Result<()> {
    let Some(gateway) = row.gateway_ip.as_deref().and_then(|text| text.parse().ok()) else {
        return Ok(());
    };
    let Some(port) = fixed_ip_owner(write.conn(), &row.id, &ip_key(gateway)).await? else {
        return Ok(());
    };
    let owner = port_get(write.conn(), &port).await?;
    if owner.is_some_and(|p| port_address::is_router_owner(&p.row.device_owner)) {
        return Err(Error::conflict(
            "GatewayIpInUse",
            format!(
                "Current gateway ip {gateway} already in use by port {port}. Unable to update."
            ),
        ));
    }
    Ok(())
}
