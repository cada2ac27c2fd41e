//! NDP proxies: IPv6 addresses of guests that their router's gateway answers for outside, so that they are reached there
//! without a route. Inside and outside must be of one address scope.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_UNTAGGED, Take};
use super::authorize;
use super::error::{Error, Result};
use super::port::Port;
use super::resource::{Resource, Write};
use super::router::{Item as RouterItem, Router, interfaces};
use super::view::{View, view};
use crate::store::ndp_proxy::{NdpProxyRow, ndp_proxy_list, ndp_proxy_list_port};
use crate::store::port::{FixedIpRow, Port as PortItem};
use crate::store::router::RouterRow;
use crate::store::row::Resource as Kinds;
use crate::store::subnet::subnet_list_network;
use crate::store::subnetpool::address_scopes_of;
use crate::store::{self as rows, Conn};
use std::net::Ipv6Addr;
use uuid::Uuid;
use weft_model::limits;

/// The resource.
pub struct NdpProxy;

impl Resource for NdpProxy {
    type Row = NdpProxyRow;
    type Item = NdpProxyRow;

    const NAME: &'static str = "ndp_proxy";
    const COLLECTION: &'static str = "ndp_proxies";
    const NOT_FOUND: &'static str = "NDPProxyNotFound";
    const TITLE: &'static str = "Ndp proxy";
    const STANDARD: &'static [Attribute] = STANDARD_UNTAGGED;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("router_id", Kind::Uuid).required().sort(),
        Attribute::new("port_id", Kind::Uuid).required().sort(),
        Attribute::new("ip_address", Kind::Ip)
            .post(Default::Null)
            .nullable()
            .sort(),
    ];

    fn row(item: &NdpProxyRow) -> &NdpProxyRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<NdpProxyRow>) -> Result<Vec<NdpProxyRow>> {
        Ok(rows)
    }

    fn view(row: &NdpProxyRow) -> View {
        view! { row;
            "name" => row.name,
            "router_id" => row.router_id,
            "port_id" => row.port_id,
            "ip_address" => row.ip_address,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<NdpProxyRow> {
        let port = authorize::see::<Port>(write, &given.text("port_id")).await?;
        let router = authorize::see::<Router>(write, &given.text("router_id")).await?;
        let address = address_of(write, &router, &port, given.text_opt("ip_address")).await?;
        let existing = ndp_proxy_list(write.conn(), &[&router.row.id]).await?;
        if existing.len() >= limits::NDP_PROXIES_MAX {
            return Err(Error::invalid_input(format!(
                "a router has at most {} NDP proxies",
                limits::NDP_PROXIES_MAX
            )));
        }
        let mut row = NdpProxyRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            router_id: router.row.id,
            port_id: port.row.id,
            ip_address: address,
            ..NdpProxyRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        write.tx.touch(Kinds::Router, &row.router_id).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: NdpProxyRow,
        mut given: Attributes,
    ) -> Result<NdpProxyRow> {
        row.name = given.text_opt("name").unwrap_or(row.name);
        row.description = given.text_opt("description").unwrap_or(row.description);
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: NdpProxyRow) -> Result<()> {
        remove(write, &row).await
    }
}

async fn remove(write: &mut Write<'_>, row: &NdpProxyRow) -> Result<()> {
    rows::delete::<NdpProxyRow>(&mut write.tx, &row.id).await?;
    write.tx.touch(Kinds::Router, &row.router_id).await?;
    Ok(())
}

fn is_v6(ip: &FixedIpRow) -> bool {
    ip.ip_address.parse::<Ipv6Addr>().is_ok()
}

/// The address scope of a network's IPv6 subnets.
async fn scope_of(conn: &mut Conn, network: &str) -> Result<Option<String>> {
    let scopes = address_scopes_of(conn, &[network]).await?;
    let mut v6 = scopes.into_iter().filter(|(_, version, _)| *version == 6);
    Ok(v6.find_map(|(_, _, scope)| scope))
}

/// The address to answer for: the one that is wanted, else the port's first in a subnet of the router's.
async fn address_of(
    write: &mut Write<'_>,
    router: &RouterItem,
    port: &PortItem,
    wanted: Option<String>,
) -> Result<String> {
    let (router_id, port_id) = (&router.row.id, &port.row.id);
    let unreachable = || {
        Error::conflict(
            "PortUnreachableRouter",
            format!("The port {port_id} cannot reach the router {router_id} by IPv6 subnet."),
        )
    };
    let legs = interfaces(write, router_id).await?;
    let mut near = legs
        .iter()
        .filter(|leg| leg.row.network_id == port.row.network_id);
    if near.clone().next().is_none() {
        return Err(unreachable());
    }
    let Some(gateway) = router
        .gateway
        .as_ref()
        .filter(|_| router.row.enable_ndp_proxy)
    else {
        return Err(Error::conflict(
            "RouterNDPProxyNotEnable",
            format!(
                "The enable_ndp_proxy parameter of router {router_id} must be set as True while create \
                 ndp proxy entry on it."
            ),
        ));
    };
    let inside: Vec<&FixedIpRow> = port.fixed_ips.iter().filter(|ip| is_v6(ip)).collect();
    if inside.is_empty() {
        return Err(Error::invalid(
            "BadRequest",
            format!(
                "Bad ndp_proxy request: Requested port {port_id} must allocate one IPv6 address at \
                 least."
            ),
        ));
    }
    let reached = |ip: &FixedIpRow| {
        near.any(|leg| {
            leg.fixed_ips
                .iter()
                .any(|own| own.subnet_id == ip.subnet_id)
        })
    };
    let found = choose(&inside, wanted, reached, router_id, port_id)?.ok_or_else(unreachable)?;
    let outside = scope_of(write.conn(), &gateway.row.network_id).await?;
    let own = scope_of(write.conn(), &port.row.network_id).await?;
    if outside != own {
        let name = |scope: Option<String>| scope.unwrap_or_else(|| "None".to_owned());
        return Err(Error::conflict(
            "AddressScopeConflict",
            format!(
                "The IPv6 address scope {} of external network conflict with internal network's IPv6 \
                 address scope {}.",
                name(outside),
                name(own)
            ),
        ));
    }
    Ok(found)
}

fn choose(
    inside: &[&FixedIpRow],
    wanted: Option<String>,
    mut reached: impl FnMut(&FixedIpRow) -> bool,
    router: &str,
    port: &str,
) -> Result<Option<String>> {
    let Some(wanted) = wanted else {
        let found = inside.iter().find(|ip| reached(ip));
        return Ok(found.map(|ip| ip.ip_address.clone()));
    };
    let reason = match inside.iter().find(|ip| ip.ip_address == wanted) {
        None => format!("This address not belong to the port {port}"),
        Some(ip) if !reached(ip) => format!("This address cannot reach the router {router}"),
        Some(_) => return Ok(Some(wanted)),
    };
    Err(Error::invalid(
        "InvalidAddress",
        format!("The address {wanted} is invalid, reason: {reason}."),
    ))
}

/// A port goes: so do the proxies for its addresses.
pub(super) async fn port_gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    for row in ndp_proxy_list_port(write.conn(), port).await? {
        remove(write, &row).await?;
    }
    Ok(())
}

/// A port has other addresses now: proxies for those that it lost go.
pub(super) async fn addresses_gone(write: &mut Write<'_>, port: &PortItem) -> Result<()> {
    for row in ndp_proxy_list_port(write.conn(), &port.row.id).await? {
        let there = |ip: &FixedIpRow| ip.ip_address == row.ip_address;
        if !port.fixed_ips.iter().any(there) {
            remove(write, &row).await?;
        }
    }
    Ok(())
}

fn gateway_not_valid(router: &str, reason: &str) -> Error {
    Error::conflict(
        "RouterGatewayNotValid",
        format!("Can not enable ndp proxy on router {router}, {reason}."),
    )
}

/// Sets `enable_ndp_proxy`, which needs a gateway with an IPv6 address in a network with an IPv6 address scope.
pub(super) async fn enable(
    write: &mut Write<'_>,
    item: &mut RouterItem,
    wanted: Option<bool>,
) -> Result<()> {
    let Some(gateway) = &item.gateway else {
        item.row.enable_ndp_proxy = false;
        return match wanted {
            Some(true) => Err(gateway_not_valid(
                &item.row.id,
                "The router has no external gateway",
            )),
            _ => Ok(()),
        };
    };
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let network = gateway.row.network_id.clone();
    let addressed = gateway.fixed_ips.iter().any(is_v6);
    if wanted {
        let mut subnets = subnet_list_network(write.conn(), &network)
            .await?
            .into_iter();
        let outside = subnets.any(|subnet| subnet.ip_version == 6);
        if !addressed || !outside || scope_of(write.conn(), &network).await?.is_none() {
            return Err(gateway_not_valid(
                &item.row.id,
                "the external gateway port has no IPv6 address or IPv6 address scope",
            ));
        }
    }
    item.row.enable_ndp_proxy = wanted;
    Ok(())
}

/// Refuses to take a router's gateway away while proxies need it.
pub(super) async fn gateway_unused(write: &mut Write<'_>, row: &RouterRow) -> Result<()> {
    if ndp_proxy_list(write.conn(), &[&row.id]).await?.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(
        "RouterGatewayInUseByNDPProxy",
        format!(
            "Unable to unset external gateway of router {}, There are one or more ndp proxies still in \
             use on the router.",
            row.id
        ),
    ))
}

/// Refuses to take the gateway's IPv6 addresses away while the router answers for others under them.
pub(super) fn gateway_keeps_ipv6(row: &RouterRow, gateway: &PortItem) -> Result<()> {
    if !row.enable_ndp_proxy || gateway.fixed_ips.iter().any(is_v6) {
        return Ok(());
    }
    Err(Error::conflict(
        "RouterIPv6GatewayInUse",
        format!(
            "Can't remove the IPv6 subnet from external gateway of router {}, the IPv6 subnet in use by \
             the router's ndp proxy.",
            row.id
        ),
    ))
}

/// Refuses to take a router's leg in a subnet away while a proxy is for an address there.
pub(super) async fn interface_unused(
    write: &mut Write<'_>,
    router: &str,
    subnet: &str,
) -> Result<()> {
    for proxy in ndp_proxy_list(write.conn(), &[router]).await? {
        let port = rows::port::port_get(write.conn(), &proxy.port_id).await?;
        let mut ips = port.iter().flat_map(|port| &port.fixed_ips);
        if ips.any(|ip| ip.ip_address == proxy.ip_address && ip.subnet_id == subnet) {
            return Err(Error::conflict(
                "RouterInterfaceInUseByNDPProxy",
                format!(
                    "Unable to remove subnet {subnet} from router {router}, There are one or more ndp \
                     proxies still in use on the subnet."
                ),
            ));
        }
    }
    Ok(())
}
