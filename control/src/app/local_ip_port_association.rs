//! Port associations of local IPs: which ports stand for one, called by the port's id.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::authorize;
use super::error::{Error, Result};
use super::local_ip::{LocalIp, address_of, port_of};
use super::policy::Caller;
use super::resource::{Place, Resource, Write};
use super::view::{View, view};
use crate::store::local_ip::{
    LocalIpPortAssociationRow, LocalIpRow, association_list, association_list_port, local_ip_list,
};
use crate::store::port::{Port as PortItem, port_list_ids};
use crate::store::row::Resource as Kinds;
use crate::store::{self as rows, Conn};
use serde_json::Value;
use std::collections::HashMap;
use weft_model::limits;

/// The resource.
pub struct LocalIpPortAssociation;

/// An association with what it shows of its ends.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: LocalIpPortAssociationRow,
    /// The local IP's address.
    pub local_ip_address: String,
    /// The port's host; empty for none.
    pub host: String,
}

fn id_of(local_ip: &str, port: &str) -> String {
    format!("{local_ip}:{port}")
}

impl Resource for LocalIpPortAssociation {
    type Row = LocalIpPortAssociationRow;
    type Item = Item;

    const NAME: &'static str = "port_association";
    const COLLECTION: &'static str = "port_associations";
    const NOT_FOUND: &'static str = "LocalIPAssociationNotFound";
    const TITLE: &'static str = "Local IP association with port";
    const POLICY: &'static str = "local_ip_port_association";
    const PARENT: Option<&'static str> = Some("local_ip_id");
    const STANDARD: &'static [Attribute] = &[];
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("fixed_port_id", Kind::Uuid)
            .required()
            .sort(),
        Attribute::new("fixed_ip", Kind::Ip)
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("local_ip_id", Kind::Uuid),
        Attribute::new("local_ip_address", Kind::Ip).filter(),
        Attribute::new("host", Kind::Text(255)).filter(),
        Attribute::new("project_id", Kind::Text(255)).post(Default::Unset),
    ];

    fn row(item: &Item) -> &LocalIpPortAssociationRow {
        &item.row
    }

    fn parent_id(item: &Item) -> &str {
        &item.row.local_ip_id
    }

    fn row_id(place: Place<'_>) -> String {
        id_of(place.parent.unwrap_or_default(), place.id)
    }

    async fn complete(conn: &mut Conn, rows: Vec<LocalIpPortAssociationRow>) -> Result<Vec<Item>> {
        let ports: Vec<&str> = rows.iter().map(|row| row.fixed_port_id.as_str()).collect();
        let hosts: HashMap<String, String> = port_list_ids(&mut *conn, &ports)
            .await?
            .into_iter()
            .map(|port| (port.row.id, port.row.binding_host_id))
            .collect();
        let ips: Vec<&str> = rows.iter().map(|row| row.local_ip_id.as_str()).collect();
        let addresses: HashMap<String, String> = local_ip_list(conn, &ips)
            .await?
            .into_iter()
            .map(|ip| (ip.id, ip.local_ip_address))
            .collect();
        let of = |map: &HashMap<String, String>, id: &str| map.get(id).cloned().unwrap_or_default();
        Ok(rows
            .into_iter()
            .map(|row| Item {
                local_ip_address: of(&addresses, &row.local_ip_id),
                host: of(&hosts, &row.fixed_port_id),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        view! { none;
            "local_ip_id" => item.row.local_ip_id,
            "local_ip_address" => item.local_ip_address,
            "fixed_port_id" => item.row.fixed_port_id,
            "fixed_ip" => item.row.fixed_ip,
            "host" => item.host,
        }
    }

    async fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        authorize::owned_parent::<LocalIp>(conn, caller, local_ip_of(attributes)).await
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = local_ip_of(attributes);
        let of = authorize::owned_parent::<LocalIp>(conn, caller, id).await;
        of.map(|_target| ())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let local_ip = given.text("local_ip_id");
        let port = port_of(write, &given.text("fixed_port_id")).await?;
        let fixed_ip = address_of(&port, given.text_opt("fixed_ip"))?;
        let others = association_list(write.conn(), &[&local_ip]).await?;
        if others.len() >= limits::LOCAL_IP_TARGETS_MAX {
            return Err(Error::invalid_input(format!(
                "a local IP leads to at most {} ports",
                limits::LOCAL_IP_TARGETS_MAX
            )));
        }
        let mut row = LocalIpPortAssociationRow {
            id: id_of(&local_ip, &port.row.id),
            project_id: given.text("project_id"),
            local_ip_id: local_ip,
            fixed_port_id: port.row.id.clone(),
            fixed_ip,
            ..LocalIpPortAssociationRow::default()
        };
        match rows::insert(&mut write.tx, &mut row).await {
            Err(rows::StoreError::Conflict(_)) => {
                return Err(Error::conflict(
                    "Conflict",
                    format!(
                        "Local IP {} association with port {} already exists.",
                        row.local_ip_id, row.fixed_port_id
                    ),
                ));
            }
            done => done?,
        }
        let local_ip = rows::get::<LocalIpRow>(write.conn(), &row.local_ip_id).await?;
        write.tx.touch(Kinds::LocalIp, &row.local_ip_id).await?;
        Ok(Item {
            local_ip_address: local_ip.map(|ip| ip.local_ip_address).unwrap_or_default(),
            host: port.row.binding_host_id,
            row,
        })
    }

    async fn update(_write: &mut Write<'_>, item: Item, _given: Attributes) -> Result<Item> {
        // None of its attributes can change.
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        remove(write, &item.row).await
    }
}

fn local_ip_of(attributes: &Attributes) -> &str {
    attributes
        .get("local_ip_id")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

async fn remove(write: &mut Write<'_>, row: &LocalIpPortAssociationRow) -> Result<()> {
    rows::delete::<LocalIpPortAssociationRow>(&mut write.tx, &row.id).await?;
    write.tx.touch(Kinds::LocalIp, &row.local_ip_id).await?;
    Ok(())
}

/// A port goes: it stands for no local IP any more.
pub(super) async fn port_gone(write: &mut Write<'_>, port: &str) -> Result<()> {
    for row in association_list_port(write.conn(), port).await? {
        remove(write, &row).await?;
    }
    Ok(())
}

/// A port has other addresses now: it stands for no local IP by those that it lost.
pub(super) async fn addresses_gone(write: &mut Write<'_>, port: &PortItem) -> Result<()> {
    for row in association_list_port(write.conn(), &port.row.id).await? {
        if !port
            .fixed_ips
            .iter()
            .any(|ip| ip.ip_address == row.fixed_ip)
        {
            remove(write, &row).await?;
        }
    }
    Ok(())
}
