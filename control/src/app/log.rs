//! Logs: which decisions of security groups are to be written down.
//!
//! The agents of the hosts concerned write them down.

use super::App;
use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_UNTAGGED, Take};
use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::log::{self as store, LogRow};
use crate::store::port::PortRow;
use crate::store::security_group::SecurityGroupRow;
use crate::store::{self as rows, Conn};
use serde_json::{Value, json};
use uuid::Uuid;

/// Kinds of resources whose decisions can be written down.
const TYPES: &[&str] = &["security_group"];

/// The resource.
pub struct Log;

impl Resource for Log {
    type Row = LogRow;
    type Item = LogRow;

    const NAME: &'static str = "log";
    const COLLECTION: &'static str = "logs";
    const NOT_FOUND: &'static str = "LogResourceNotFound";
    const TITLE: &'static str = "Log resource";
    const STANDARD: &'static [Attribute] = STANDARD_UNTAGGED;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("enabled", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("event", Kind::OneOf(&["ACCEPT", "DROP", "ALL"]))
            .post(Default::Text("ALL"))
            .filter(),
        Attribute::new("resource_type", Kind::Text(255))
            .required()
            .sort(),
        Attribute::new("resource_id", Kind::Uuid)
            .post(Default::Null)
            .nullable()
            .sort(),
        Attribute::new("target_id", Kind::Uuid)
            .post(Default::Null)
            .nullable()
            .sort(),
    ];

    fn row(item: &LogRow) -> &LogRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<LogRow>) -> Result<Vec<LogRow>> {
        Ok(rows)
    }

    fn view(row: &LogRow) -> View {
        view! { row;
            "name" => row.name,
            "enabled" => row.enabled,
            "event" => row.event,
            "resource_type" => row.resource_type,
            "resource_id" => row.resource_id,
            "target_id" => row.target_id,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<LogRow> {
        let mut row = LogRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            enabled: given.truth("enabled").unwrap_or(true),
            event: given.text("event"),
            resource_type: given.text("resource_type"),
            resource_id: given.text_opt("resource_id"),
            target_id: given.text_opt("target_id"),
            ..LogRow::default()
        };
        check(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: LogRow,
        mut given: Attributes,
    ) -> Result<LogRow> {
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        row.enabled = given.truth("enabled").unwrap_or(row.enabled);
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: LogRow) -> Result<()> {
        rows::delete::<LogRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// What a log names must be there and, unless an admin asks, the project's own.
async fn check(write: &mut Write<'_>, row: &LogRow) -> Result<()> {
    if !TYPES.contains(&row.resource_type.as_str()) {
        return Err(Error::invalid(
            "InvalidLogResourceType",
            format!("Invalid log resource_type: {}.", quote(&row.resource_type)),
        ));
    }
    let caller = write.caller;
    let own = |project: &str| caller.is_admin() || project == row.project_id;
    if let Some(id) = &row.resource_id {
        rows::get::<SecurityGroupRow>(write.conn(), id)
            .await?
            .filter(|group| own(&group.project_id))
            .ok_or_else(|| {
                Error::not_found(
                    "ResourceNotFound",
                    format!("Resource {id} could not be found."),
                )
            })?;
    }
    let Some(port) = &row.target_id else {
        return Ok(());
    };
    rows::get::<PortRow>(write.conn(), port)
        .await?
        .filter(|port| own(&port.project_id))
        .ok_or_else(|| {
            Error::not_found(
                "TargetResourceNotFound",
                format!("Target resource {port} could not be found."),
            )
        })?;
    if let Some(group) = &row.resource_id
        && !store::port_is_in_group(write.conn(), port, group).await?
    {
        return Err(Error::invalid(
            "InvalidResourceConstraint",
            format!(
                "Invalid resource constraint between resource ({} {group}) and target resource (port {port}).",
                row.resource_type
            ),
        ));
    }
    Ok(())
}

/// GET /v2.0/log/loggable-resources
///
/// # Errors
/// [`Error::Forbidden`].
pub fn loggable_resources(app: &App, caller: &Caller) -> Result<Value> {
    let mut target = Attributes::new();
    target.insert("project_id".to_owned(), caller.project_id.clone().into());
    app.permit("get_loggable_resource", caller, &target)?;
    let types: Vec<Value> = TYPES.iter().map(|name| json!({ "type": name })).collect();
    Ok(json!({ "loggable_resources": types }))
}
