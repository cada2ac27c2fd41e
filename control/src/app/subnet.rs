//! Subnets: where their range comes from, gateways, allocation pools, who may take addresses.

use super::attribute::{Attribute, Attributes, Default, Kind, Take, ip_of};
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::subnet_attribute::{cidr, host_routes, nameservers, pools, service_types};
use super::subnet_check::{check_gateway, check_modes, check_mtu, check_pools, check_range};
use super::subnetpool_allocation::{self, Wanted};
use super::view::{View, view};
use super::{address_scope, network, port_address, rbac_policy, subnet_segment, subnetpool};
use crate::ipam::{self, Range};
use crate::store::network::{NetworkRow, external_of};
use crate::store::port::{fixed_ip_owner, ip_key, port_get, ports_of_subnet};
use crate::store::subnet::{AllocationPool, subnet_list_network};
use crate::store::subnetpool::SubnetpoolRow;
use crate::store::{self as rows, Conn, JsonText};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::HashSet;
use std::net::IpAddr;
use uuid::Uuid;

pub use crate::store::subnet::SubnetRow as Row;

/// The resource.
pub struct Subnet;

/// Ports that a subnet with automatic addresses is looked through for at its end.
const PORTS_MAX: u32 = 100_000;
const MODES: &[&str] = &["dhcpv6-stateful", "dhcpv6-stateless", "slaac"];

impl Resource for Subnet {
    type Row = Row;
    type Item = Item;

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
        Attribute::new("ip_version", Kind::Custom(address_scope::ip_version))
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
        Attribute::new("service_types", Kind::Custom(service_types))
            .post(Default::EmptyList)
            .put(),
        Attribute::new("dns_publish_fixed_ip", Kind::Bool)
            .post(Default::Bool(false))
            .put(),
        Attribute::new("segment_id", Kind::Uuid)
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        Attribute::new("router:external", Kind::Bool).filter(),
        Attribute::new("shared", Kind::Bool).filter(),
        Attribute::new("subnetpool_id", Kind::Uuid)
            .post(Default::Null)
            .nullable()
            .sort(),
        // These two say how to choose the range, and are not shown.
        Attribute::new("use_default_subnetpool", Kind::Bool).post(Default::Bool(false)),
        Attribute::new("prefixlen", Kind::Int(0, 128)).post(Default::Unset),
    ];

    fn row(item: &Item) -> &Row {
        &item.row
    }

    async fn complete(conn: &mut Conn, subnets: Vec<Row>) -> Result<Vec<Item>> {
        let mut networks: Vec<&str> = subnets.iter().map(|row| row.network_id.as_str()).collect();
        networks.sort_unstable();
        networks.dedup();
        let external: HashSet<String> = external_of(conn, &networks).await?.into_iter().collect();
        Ok(subnets
            .into_iter()
            .map(|row| Item {
                external: external.contains(&row.network_id),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
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
            "service_types" => row.service_types.0,
            "dns_publish_fixed_ip" => row.dns_publish_fixed_ip,
            "subnetpool_id" => row.subnetpool_id,
            "segment_id" => row.segment_id,
            "router:external" => item.external,
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

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let network =
            network::usable(write.tx.conn(), write.caller, &given.text("network_id")).await?;
        let source = source_wanted(write, &mut given).await?;
        let mut row = row_wanted(&network, &mut given);
        check_mtu(&network, row.ip_version, network.mtu)?;
        let range = source.range(write, &row.project_id).await?;
        row.cidr = range.to_string();
        row.subnetpool_id = source.pool.map(|pool| pool.id);
        if row.subnetpool_id.is_some() {
            subnetpool_allocation::key(&mut row);
        }
        check_modes(&row)?;
        check_range(&row, range)?;
        check_apart(write, &row, range).await?;
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
        subnet_segment::join(write, &mut row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        if is_auto_address(&row) {
            port_address::add_auto_addresses(write, &row).await?;
        }
        if network.external {
            port_address::add_gateway_addresses(write, &row).await?;
        }
        subnet_segment::joined(write, &row).await?;
        touch_network(write, &row).await?;
        Ok(Item {
            row,
            external: network.external,
        })
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let Item { mut row, external } = item;
        let (range, before) = (range_of(&row), row.clone());
        update_plain(&mut row, &mut given);
        check_modes(&row)?;
        if let Some(segment) = given.text_or_null("segment_id") {
            subnet_segment::change(write, &mut row, segment).await?;
        }
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
        subnet_segment::reroute(write, &before, &mut row).await?;
        rows::update(&mut write.tx, &mut row).await?;
        Ok(Item { row, external })
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let row = item.row;
        let auto = is_auto_address(&row);
        for id in ports_of_subnet(write.conn(), &row.id, PORTS_MAX).await? {
            let Some(port) = port_get(write.conn(), &id).await? else {
                continue;
            };
            // Automatic addresses go with their subnet; a router's leg was asked for and stays.
            // In a routed network the port would be left with no address at all.
            let stranded =
                row.segment_id.is_some() && port.fixed_ips.iter().all(|ip| ip.subnet_id == row.id);
            let owner = port.row.device_owner.as_str();
            let keeps = !auto || stranded || port_address::is_router_owner(owner);
            if keeps && !port_address::goes_along(owner) {
                return Err(in_use(&row.id));
            }
            port_address::remove_subnet(write, port, &row.id).await?;
        }
        remove(write, &row).await?;
        subnet_segment::left(write, &row).await?;
        touch_network(write, &row).await
    }
}

/// A subnet with what it shows of its network.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: Row,
    /// Whether its network is external.
    pub external: bool,
}

/// Deletes a subnet that no port has an address of; its range goes back to the pool.
pub(super) async fn remove(write: &mut Write<'_>, row: &Row) -> Result<()> {
    rows::delete::<Row>(&mut write.tx, &row.id).await?;
    if let Some(pool) = &row.subnetpool_id {
        subnetpool_allocation::give_back(write, pool, row).await?;
    }
    Ok(())
}

fn in_use(id: &str) -> Error {
    Error::conflict(
        "SubnetInUse",
        format!(
            "Unable to complete operation on subnet {id}: One or more ports have an IP allocation \
             from this subnet."
        ),
    )
}

/// Where a new subnet's range comes from.
struct Source {
    /// The pool, if it is from one.
    pool: Option<SubnetpoolRow>,
    /// The range, if it was named.
    cidr: Option<IpNet>,
    /// The length, if it was named.
    prefixlen: Option<i64>,
}

impl Source {
    /// The range, taken from the pool if there is one.
    async fn range(&self, write: &mut Write<'_>, project: &str) -> Result<IpNet> {
        match (&self.pool, self.cidr) {
            (Some(pool), cidr) => {
                let wanted = cidr.map_or(Wanted::Prefixlen(self.prefixlen), Wanted::Cidr);
                subnetpool_allocation::allocate(write, pool, project, wanted).await
            }
            (None, Some(cidr)) => Ok(cidr),
            (None, None) => Err(bad(
                "a subnetpool must be specified in the absence of a cidr",
            )),
        }
    }
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid("BadRequest", format!("Bad subnets request: {reason}."))
}

/// Reads what a POST says about the range.
async fn source_wanted(write: &mut Write<'_>, given: &mut Attributes) -> Result<Source> {
    let ip_version = given.get("ip_version").and_then(Value::as_i64).unwrap_or(4);
    let cidr = given.text_opt("cidr");
    let cidr: Option<IpNet> = cidr.and_then(|text| text.parse().ok());
    let prefixlen = given.int("prefixlen");
    let named = given.text_opt("subnetpool_id");
    let default = given.truth("use_default_subnetpool").unwrap_or(false);
    if cidr.is_some() && prefixlen.is_some() {
        return Err(bad("cidr and prefixlen must not be supplied together"));
    }
    let caller = write.caller;
    let pool = match (named, default) {
        (Some(_), true) => {
            return Err(bad(
                "subnetpool_id and use_default_subnetpool cannot both be specified",
            ));
        }
        (Some(id), false) => Some(subnetpool::usable(write.conn(), caller, &id).await?),
        (None, true) => {
            let pool = subnetpool::default_of(write.conn(), ip_version).await?;
            let none = || bad(format!("No default subnetpool found for IPv{ip_version}"));
            Some(pool.ok_or_else(none)?)
        }
        (None, false) => None,
    };
    if let Some(pool) = pool.as_ref().filter(|pool| pool.ip_version != ip_version) {
        return Err(bad(format!(
            "Cannot allocate IPv{ip_version} subnet from IPv{} subnet pool",
            pool.ip_version
        )));
    }
    if pool.is_none() && cidr.is_none() {
        return Err(bad(
            "a subnetpool must be specified in the absence of a cidr",
        ));
    }
    if cidr.is_none() && given.contains_key("allocation_pools") {
        return Err(bad(
            "allocation_pools allowed only for specific subnet requests",
        ));
    }
    if let Some(cidr) = cidr.filter(|cidr| cidr.addr().is_ipv6() != (ip_version == 6)) {
        return Err(Error::invalid_input(format!(
            "ip_version {ip_version} does not match the cidr {cidr}"
        )));
    }
    Ok(Source {
        pool,
        cidr,
        prefixlen,
    })
}

/// Subnets of a network do not overlap, and are of one pool or scope.
async fn check_apart(write: &mut Write<'_>, row: &Row, range: IpNet) -> Result<()> {
    for other in subnet_list_network(write.conn(), &row.network_id).await? {
        if overlap(range_of(&other), range) {
            return Err(Error::invalid_input(format!(
                "Requested subnet with cidr: {} for network: {} overlaps with another subnet (CIDR {} \
                 of subnet {})",
                row.cidr, row.network_id, other.cidr, other.id
            )));
        }
    }
    let pool = match &row.subnetpool_id {
        Some(id) => rows::get::<SubnetpoolRow>(write.conn(), id).await?,
        None => None,
    };
    let pool = pool.as_ref();
    subnetpool_allocation::check_affinity(write, &row.network_id, row.ip_version, pool).await
}

/// What nothing else depends on.
fn update_plain(row: &mut Row, given: &mut Attributes) {
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
    if let Some(types) = given.texts("service_types") {
        row.service_types = JsonText(types);
    }
    row.enable_dhcp = given.truth("enable_dhcp").unwrap_or(row.enable_dhcp);
    row.dns_publish_fixed_ip = given
        .truth("dns_publish_fixed_ip")
        .unwrap_or(row.dns_publish_fixed_ip);
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
    [&row.ipv6_address_mode, &row.ipv6_ra_mode]
        .into_iter()
        .any(|mode| matches!(mode.as_deref(), Some("slaac" | "dhcpv6-stateless")))
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn row_wanted(network: &NetworkRow, given: &mut Attributes) -> Row {
    Row {
        id: Uuid::new_v4().to_string(),
        project_id: given.text("project_id"),
        network_id: network.id.clone(),
        name: given.text("name"),
        description: given.text("description"),
        ip_version: given.int("ip_version").unwrap_or(4),
        enable_dhcp: given.truth("enable_dhcp").unwrap_or(true),
        ipv6_ra_mode: given.text_opt("ipv6_ra_mode"),
        ipv6_address_mode: given.text_opt("ipv6_address_mode"),
        dns_nameservers: JsonText(given.shaped("dns_nameservers").unwrap_or_default()),
        host_routes: JsonText(given.shaped("host_routes").unwrap_or_default()),
        service_types: JsonText(given.texts("service_types").unwrap_or_default()),
        segment_id: given.text_opt("segment_id"),
        dns_publish_fixed_ip: given.truth("dns_publish_fixed_ip").unwrap_or(false),
        ..Row::default()
    }
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
