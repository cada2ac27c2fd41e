//! Service profiles: how a flavor's service is provided. Under a flavor's path they say which profiles it has.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_ID, Take};
use super::error::{Error, Result, quote};
use super::flavor::{self, Flavor};
use super::policy::Caller;
use super::resource::{self, Place, Resource, Write};
use super::service_provider;
use super::view::{View, view};
use crate::store::flavor::{
    FlavorRow, FlavorServiceProfileRow, ServiceProfileRow, service_profile_is_used,
};
use crate::store::{self as rows, Conn};
use serde_json::Value;
use uuid::Uuid;

/// The resource.
pub struct ServiceProfile;

impl Resource for ServiceProfile {
    type Row = ServiceProfileRow;
    type Item = ServiceProfileRow;

    const NAME: &'static str = "service_profile";
    const COLLECTION: &'static str = "service_profiles";
    const NOT_FOUND: &'static str = "ServiceProfileNotFound";
    const TITLE: &'static str = "Service Profile";
    const STANDARD: &'static [Attribute] = STANDARD_ID;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("description", Kind::Text(1_024))
            .post(Default::Text(""))
            .put()
            .nullable()
            .sort(),
        Attribute::new("driver", Kind::Text(1_024))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("metainfo", Kind::Text(4_096))
            .post(Default::Text(""))
            .put()
            .nullable()
            .sort(),
        Attribute::new("enabled", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
    ];

    fn row(item: &ServiceProfileRow) -> &ServiceProfileRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<ServiceProfileRow>,
    ) -> Result<Vec<ServiceProfileRow>> {
        Ok(rows)
    }

    fn view(row: &ServiceProfileRow) -> View {
        view! { bare row;
            "description" => row.description,
            "driver" => row.driver,
            "metainfo" => row.metainfo,
            "enabled" => row.enabled,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<ServiceProfileRow> {
        let mut row = ServiceProfileRow {
            id: Uuid::new_v4().to_string(),
            description: given.text("description"),
            driver: given.text("driver"),
            metainfo: given.text("metainfo"),
            enabled: given.truth("enabled").unwrap_or(true),
            ..ServiceProfileRow::default()
        };
        check(&row)?;
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: ServiceProfileRow,
        mut given: Attributes,
    ) -> Result<ServiceProfileRow> {
        check_unused(write, &row.id).await?;
        if let Some(description) = given.text_or_null("description") {
            row.description = description.unwrap_or_default();
        }
        if let Some(metainfo) = given.text_or_null("metainfo") {
            row.metainfo = metainfo.unwrap_or_default();
        }
        row.driver = given.text_opt("driver").unwrap_or(row.driver);
        row.enabled = given.truth("enabled").unwrap_or(row.enabled);
        check(&row)?;
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: ServiceProfileRow) -> Result<()> {
        check_unused(write, &row.id).await?;
        rows::delete::<ServiceProfileRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

pub(super) fn no_driver(driver: &str) -> Error {
    Error::not_found(
        "ServiceProfileDriverNotFound",
        format!(
            "Service Profile driver {} could not be found.",
            quote(driver)
        ),
    )
}

fn check(row: &ServiceProfileRow) -> Result<()> {
    match row.driver.as_str() {
        "" if row.metainfo.is_empty() => Err(Error::invalid(
            "ServiceProfileEmpty",
            "Service Profile needs either a driver or metainfo.",
        )),
        "" => Ok(()),
        driver => service_provider::by_driver(driver)
            .map(|_provider| ())
            .ok_or_else(|| no_driver(driver)),
    }
}

async fn check_unused(write: &mut Write<'_>, id: &str) -> Result<()> {
    if service_profile_is_used(write.conn(), id).await? {
        return Err(Error::conflict(
            "ServiceProfileInUse",
            format!("Service Profile {id} is used by some service instance."),
        ));
    }
    Ok(())
}

/// A profile of a flavor, called by the profile's id.
pub struct FlavorServiceProfile;

impl Resource for FlavorServiceProfile {
    type Row = FlavorServiceProfileRow;
    type Item = FlavorServiceProfileRow;

    const NAME: &'static str = "service_profile";
    const COLLECTION: &'static str = "service_profiles";
    const NOT_FOUND: &'static str = "FlavorServiceProfileBindingNotFound";
    const TITLE: &'static str = "Service Profile of the flavor";
    const POLICY: &'static str = "flavor_service_profile";
    const PARENT: Option<&'static str> = Some("flavor_id");
    const STANDARD: &'static [Attribute] = &[];
    const ATTRIBUTES: &'static [Attribute] = &[Attribute::new("id", Kind::Uuid).required().sort()];

    fn row(item: &FlavorServiceProfileRow) -> &FlavorServiceProfileRow {
        item
    }

    fn parent_id(item: &FlavorServiceProfileRow) -> &str {
        &item.flavor_id
    }

    fn row_id(place: Place<'_>) -> String {
        flavor::binding_id(place.parent.unwrap_or_default(), place.id)
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<FlavorServiceProfileRow>,
    ) -> Result<Vec<FlavorServiceProfileRow>> {
        Ok(rows)
    }

    fn view(row: &FlavorServiceProfileRow) -> View {
        view! { none; "id" => row.service_profile_id, }
    }

    async fn parent(conn: &mut Conn, _caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = attributes
            .get("flavor_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let flavor = rows::get::<FlavorRow>(conn, id).await?;
        flavor
            .map(|_flavor| ())
            .ok_or_else(|| resource::not_found::<Flavor>(id))
    }

    async fn create(
        write: &mut Write<'_>,
        mut given: Attributes,
    ) -> Result<FlavorServiceProfileRow> {
        let (flavor, profile) = (given.text("flavor_id"), given.text("id"));
        flavor::bind(write, &flavor, &profile).await
    }

    async fn update(
        _write: &mut Write<'_>,
        row: FlavorServiceProfileRow,
        _given: Attributes,
    ) -> Result<FlavorServiceProfileRow> {
        // None of its attributes can change.
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: FlavorServiceProfileRow) -> Result<()> {
        rows::delete::<FlavorServiceProfileRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}
