//! Conntrack helpers: which ports of a router's traffic carry a protocol that announces further connections.

use super::attribute::{Attribute, Attributes, Kind, Take};
use super::authorize;
use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::router::Router;
use super::view::{View, view};
use crate::store::conntrack_helper::ConntrackHelperRow;
use crate::store::row::Resource as Kinds;
use crate::store::{self as rows, Conn, StoreError};
use uuid::Uuid;

/// The resource.
pub struct ConntrackHelper;

/// The helpers that may be asked for, and the protocols each speaks (Neutron's defaults).
const ALLOWED: &[(&str, &[&str])] = &[
    ("amanda", &["tcp"]),
    ("ftp", &["tcp"]),
    ("h323", &["udp", "tcp"]),
    ("irc", &["tcp"]),
    ("netbios-ns", &["udp"]),
    ("pptp", &["tcp"]),
    ("sane", &["tcp"]),
    ("sip", &["udp", "tcp"]),
    ("snmp", &["udp"]),
    ("tftp", &["udp"]),
];

impl Resource for ConntrackHelper {
    type Row = ConntrackHelperRow;
    type Item = ConntrackHelperRow;

    const NAME: &'static str = "conntrack_helper";
    const COLLECTION: &'static str = "conntrack_helpers";
    const NOT_FOUND: &'static str = "ConntrackHelperNotFound";
    const TITLE: &'static str = "Conntrack Helper";
    const POLICY: &'static str = "router_conntrack_helper";
    const PARENT: Option<&'static str> = Some("router_id");
    const STANDARD: &'static [Attribute] = super::attribute::STANDARD_BARE;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("protocol", Kind::Custom(super::port_forwarding::protocol))
            .required()
            .put()
            .sort(),
        Attribute::new("port", Kind::Int(1, 65_535))
            .required()
            .put()
            .sort(),
        Attribute::new("helper", Kind::Text(64))
            .required()
            .put()
            .sort(),
    ];

    fn row(item: &ConntrackHelperRow) -> &ConntrackHelperRow {
        item
    }

    fn parent_id(item: &ConntrackHelperRow) -> &str {
        &item.router_id
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<ConntrackHelperRow>,
    ) -> Result<Vec<ConntrackHelperRow>> {
        Ok(rows)
    }

    fn view(row: &ConntrackHelperRow) -> View {
        let mut view = view! { bare row;
            "protocol" => row.protocol,
            "port" => row.port,
            "helper" => row.helper,
        };
        // It belongs to the router's project, and does not say so.
        view.remove("project_id");
        view
    }

    fn unenforced(_view: &Attributes) -> Vec<&'static str> {
        vec![
            "conntrack helpers are kept, but no engine follows announced connections (docs/adr/0014)",
        ]
    }

    async fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        authorize::owned_parent::<Router>(conn, caller, router_of(attributes)).await
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let of = authorize::owned_parent::<Router>(conn, caller, router_of(attributes)).await;
        of.map(|_target| ())
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<ConntrackHelperRow> {
        let mut row = ConntrackHelperRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            router_id: given.text("router_id"),
            protocol: given.text("protocol"),
            port: given.int("port").unwrap_or_default(),
            helper: given.text("helper"),
            ..ConntrackHelperRow::default()
        };
        check(&row)?;
        let done = rows::insert(&mut write.tx, &mut row).await;
        written(write, row, done).await
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: ConntrackHelperRow,
        mut given: Attributes,
    ) -> Result<ConntrackHelperRow> {
        row.protocol = given.text_opt("protocol").unwrap_or(row.protocol);
        row.port = given.int("port").unwrap_or(row.port);
        row.helper = given.text_opt("helper").unwrap_or(row.helper);
        check(&row)?;
        let done = rows::update(&mut write.tx, &mut row).await;
        written(write, row, done).await
    }

    async fn delete(write: &mut Write<'_>, row: ConntrackHelperRow) -> Result<()> {
        rows::delete::<ConntrackHelperRow>(&mut write.tx, &row.id).await?;
        write.tx.touch(Kinds::Router, &row.router_id).await?;
        Ok(())
    }
}

fn router_of(attributes: &Attributes) -> &str {
    attributes
        .get("router_id")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

fn check(row: &ConntrackHelperRow) -> Result<()> {
    let helper = ALLOWED.iter().find(|(name, _)| *name == row.helper);
    let Some((_, protocols)) = helper else {
        return Err(Error::invalid(
            "ConntrackHelperNotAllowed",
            format!("Conntrack Helper {} is not allowed.", quote(&row.helper)),
        ));
    };
    if !protocols.contains(&row.protocol.as_str()) {
        return Err(Error::invalid(
            "InvalidProtocolForHelper",
            format!(
                "Conntrack Helper {} does not support: {}. Supported protocols are: {}",
                row.helper,
                row.protocol,
                protocols.join(", ")
            ),
        ));
    }
    Ok(())
}

/// The router has changed with it; one that is there already is refused.
async fn written(
    write: &mut Write<'_>,
    row: ConntrackHelperRow,
    done: Result<(), StoreError>,
) -> Result<ConntrackHelperRow> {
    if let Err(StoreError::Conflict(_)) = done {
        return Err(Error::invalid(
            "BadRequest",
            format!(
                "Bad conntrack_helper request: A duplicate conntrack helper entry with same \
                 attributes already exists, conflicting values are helper {}, protocol {}, port {}.",
                row.helper, row.protocol, row.port
            ),
        ));
    }
    done?;
    write.tx.touch(Kinds::Router, &row.router_id).await?;
    Ok(row)
}
