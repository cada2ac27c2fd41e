//! Address scopes: spaces in which addresses are unique.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result, quote_value};
use super::policy::Caller;
use super::rbac_policy::{self, Object, SHARED};
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use crate::store::address_scope::{AddressScopeRow, address_scope_used};
use crate::store::{self as rows, Conn};
use serde_json::Value;
use uuid::Uuid;

/// The resource.
pub struct AddressScope;

/// Reads an IP version.
pub(super) fn ip_version(value: &Value) -> Result<Value, String> {
    match attribute::int_of(value, i64::MIN, i64::MAX)? {
        version @ (4 | 6) => Ok(version.into()),
        _ => Err(format!("{} is not in [4, 6]", quote_value(value))),
    }
}

impl Resource for AddressScope {
    type Row = AddressScopeRow;
    type Item = AddressScopeRow;

    const NAME: &'static str = "address_scope";
    const COLLECTION: &'static str = "address_scopes";
    const NOT_FOUND: &'static str = "AddressScopeNotFound";
    const TITLE: &'static str = "Address scope";
    const STANDARD: &'static [Attribute] = attribute::STANDARD_BARE;
    const RBAC: Option<&'static str> = Some("address_scope");
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("ip_version", Kind::Custom(ip_version))
            .required()
            .sort(),
        Attribute::new("shared", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .sort(),
    ];

    fn row(item: &AddressScopeRow) -> &AddressScopeRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<AddressScopeRow>,
    ) -> Result<Vec<AddressScopeRow>> {
        Ok(rows)
    }

    fn view(row: &AddressScopeRow) -> View {
        view! { bare row;
            "name" => row.name,
            "ip_version" => row.ip_version,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<AddressScopeRow> {
        let mut row = AddressScopeRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            ip_version: given.int("ip_version").unwrap_or(4),
            ..AddressScopeRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        let shared = given.truth("shared").unwrap_or(false);
        rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: AddressScopeRow,
        mut given: Attributes,
    ) -> Result<AddressScopeRow> {
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(shared) = given.truth("shared") {
            let was = rbac_policy::everybody(write.conn(), object(&row), SHARED).await?;
            if was && !shared {
                return Err(Error::invalid(
                    "AddressScopeUpdateError",
                    format!(
                        "Unable to update address scope {} : Shared address scope can't be unshared.",
                        row.id
                    ),
                ));
            }
            rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: AddressScopeRow) -> Result<()> {
        if address_scope_used(write.conn(), &row.id).await? {
            return Err(Error::conflict(
                "AddressScopeInUse",
                format!(
                    "Unable to complete operation on address scope {}. There are one or more subnet \
                     pools in use on the address scope.",
                    row.id
                ),
            ));
        }
        rows::delete::<AddressScopeRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// The scope as RBAC policies name it.
pub(super) fn object(row: &AddressScopeRow) -> Object<'_> {
    Object {
        object_type: "address_scope",
        id: &row.id,
        project_id: &row.project_id,
    }
}

/// A scope, if the caller may put subnet pools into it.
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<AddressScopeRow> {
    let not_found = || resource::not_found::<AddressScope>(id);
    let row = rows::get::<AddressScopeRow>(conn, id)
        .await?
        .ok_or_else(not_found)?;
    if rbac_policy::usable(conn, caller, object(&row)).await? {
        Ok(row)
    } else {
        Err(not_found())
    }
}
