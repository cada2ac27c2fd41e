//! Local IPs: an address of a network under which guests reach a port of their own host.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_UNTAGGED, Take};
use super::authorize;
use super::error::{Error, Result};
use super::network;
use super::port::{self, New, Port};
use super::port_attribute::FixedIpWanted;
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::local_ip::{LocalIpRow, association_list};
use crate::store::port::{Port as PortItem, port_get};
use crate::store::subnet::subnet_list_network;
use crate::store::{self as rows, Conn};
use std::net::Ipv4Addr;
use uuid::Uuid;

/// The resource.
pub struct LocalIp;

/// `device_owner` of the port that holds an address of its own.
const LOCAL_IP: &str = "network:local_ip";

impl Resource for LocalIp {
    type Row = LocalIpRow;
    type Item = LocalIpRow;

    const NAME: &'static str = "local_ip";
    const COLLECTION: &'static str = "local_ips";
    const NOT_FOUND: &'static str = "LocalIPNotFound";
    const TITLE: &'static str = "Local IP";
    const STANDARD: &'static [Attribute] = STANDARD_UNTAGGED;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("network_id", Kind::Uuid)
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("local_port_id", Kind::Uuid)
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("local_ip_address", Kind::Ip)
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("ip_mode", Kind::OneOf(&["translate", "passthrough"]))
            .post(Default::Text("translate"))
            .sort(),
    ];

    fn row(item: &LocalIpRow) -> &LocalIpRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<LocalIpRow>) -> Result<Vec<LocalIpRow>> {
        Ok(rows)
    }

    fn view(row: &LocalIpRow) -> View {
        view! { row;
            "name" => row.name,
            "network_id" => row.network_id,
            "local_port_id" => row.local_port_id,
            "local_ip_address" => row.local_ip_address,
            "ip_mode" => row.ip_mode,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<LocalIpRow> {
        let id = Uuid::new_v4().to_string();
        let project_id = given.text("project_id");
        let wanted = given.text_opt("local_ip_address");
        let port = given.text_opt("local_port_id");
        let network = given.text_opt("network_id");
        let (holder, address) = match (port, network) {
            (Some(port), _) => {
                let port = port_of(write, &port).await?;
                let address = address_of(&port, wanted)?;
                (port, address)
            }
            (None, Some(network)) => {
                let holder = holder_create(write, &network, &id, &project_id, wanted).await?;
                let address = address_of(&holder, None)?;
                (holder, address)
            }
            (None, None) => {
                return Err(Error::invalid(
                    "LocalIPPortOrNetworkRequired",
                    "Either Port ID or Network ID must be specified for Local IP create.",
                ));
            }
        };
        let mut row = LocalIpRow {
            id,
            project_id,
            name: given.text("name"),
            description: given.text("description"),
            network_id: holder.row.network_id,
            local_port_id: holder.row.id,
            local_ip_address: address,
            ip_mode: given.text("ip_mode"),
            ..LocalIpRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: LocalIpRow,
        mut given: Attributes,
    ) -> Result<LocalIpRow> {
        row.name = given.text_opt("name").unwrap_or(row.name);
        row.description = given.text_opt("description").unwrap_or(row.description);
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: LocalIpRow) -> Result<()> {
        if !association_list(write.conn(), &[&row.id]).await?.is_empty() {
            return Err(Error::conflict(
                "LocalIPInUse",
                format!(
                    "Local IP {} is still associated with one or more ports.",
                    row.id
                ),
            ));
        }
        rows::delete::<LocalIpRow>(&mut write.tx, &row.id).await?;
        let holder = port_get(write.conn(), &row.local_port_id).await?;
        match holder.filter(|port| port.row.device_owner == LOCAL_IP) {
            Some(own) => port::delete(write, &own.row.id).await,
            None => Ok(()),
        }
    }
}

/// A port that the caller may see; a request that names another is a bad one, not one for a thing that is not there.
pub(super) async fn port_of(write: &mut Write<'_>, id: &str) -> Result<PortItem> {
    match authorize::see::<Port>(write, id).await {
        Err(Error::NotFound { .. }) => Err(bad(format!("Port {id} not found"))),
        other => other,
    }
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid("BadRequest", format!("Bad local_ip request: {reason}."))
}

/// The address of a port that is meant: the one that is named, or the only one.
pub(super) fn address_of(port: &PortItem, wanted: Option<String>) -> Result<String> {
    let id = &port.row.id;
    let has = |wanted: &str| port.fixed_ips.iter().any(|ip| ip.ip_address == wanted);
    match (port.fixed_ips.as_slice(), wanted) {
        ([], _) => Err(Error::invalid(
            "LocalIPNoIP",
            format!("Specified Port {id} has no fixed IPs configured."),
        )),
        (_, Some(wanted)) if has(&wanted) => Ok(wanted),
        (_, Some(wanted)) => Err(Error::invalid(
            "LocalIPRequestedIPNotFound",
            format!("Specified Port {id} does not have requested IP address: {wanted}."),
        )),
        ([only], None) => Ok(only.ip_address.clone()),
        (_, None) => Err(Error::invalid(
            "LocalIPNoRequestedIP",
            format!(
                "Specified Port {id} has several IPs, should specify exact IP address to use for Local \
                 IP."
            ),
        )),
    }
}

/// Makes a port that holds an IPv4 address for a local IP.
async fn holder_create(
    write: &mut Write<'_>,
    network: &str,
    local_ip: &str,
    project_id: &str,
    wanted: Option<String>,
) -> Result<PortItem> {
    let network = network::usable(write.tx.conn(), write.caller, network).await?;
    let subnets = subnet_list_network(write.conn(), &network.id).await?;
    let v4 = subnets.iter().find(|subnet| subnet.ip_version == 4);
    let v4 = v4.ok_or_else(|| {
        bad(format!(
            "Network {} does not contain any IPv4 subnet",
            network.id
        ))
    })?;
    let wish = match wanted {
        Some(text) => FixedIpWanted {
            subnet_id: None,
            ip_address: Some(
                text.parse::<Ipv4Addr>()
                    .map_err(|_v6| Error::attribute("local_ip_address", "not an IPv4 address"))?
                    .into(),
            ),
        },
        None => FixedIpWanted {
            subnet_id: Some(v4.id.clone()),
            ip_address: None,
        },
    };
    let new = New {
        project_id: project_id.to_owned(),
        admin_state_up: true,
        device_id: local_ip.to_owned(),
        device_owner: LOCAL_IP.to_owned(),
        fixed_ips: Some(vec![wish]),
        security_groups: Some(Vec::new()),
        ..New::default()
    };
    port::create(write, &network, new).await
}
