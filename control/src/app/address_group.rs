//! Address groups: named sets of address ranges that security group rules refer to.

use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_UNTAGGED, Take, ip_of};
use super::error::{Error, Result, quote_value};
use super::policy::Caller;
use super::rbac_policy::{self, Object};
use super::resource::{self, Place, Resource, Write, not_found};
use super::view::{self, View, view};
use super::{App, attribute};
use crate::store::address_group::{self as store, AddressGroupRow};
use crate::store::{self as rows, Conn, JsonText};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;
use weft_model::limits::ADDRESS_GROUP_ADDRESSES_MAX;

/// The resource.
pub struct AddressGroup;

/// The ranges of a list, host bits zero, in order. Whether a bare address is a range of one is the caller's choice.
fn ranges(value: &Value, bare: bool) -> Result<BTreeSet<IpNet>, String> {
    let Value::Array(list) = value else {
        return Err(format!("{} is not a list", quote_value(value)));
    };
    if list.len() > ADDRESS_GROUP_ADDRESSES_MAX {
        return Err(format!(
            "a list of more than {ADDRESS_GROUP_ADDRESSES_MAX} addresses"
        ));
    }
    list.iter()
        .map(|item| match (bare, ip_of(item)) {
            (true, Ok(ip)) => Ok(IpNet::from(ip)),
            _ => attribute::cidr_of(item).map(|cidr| cidr.trunc()),
        })
        .collect()
}

fn addresses(value: &Value) -> Result<Value, String> {
    ranges(value, false).map(|ranges| json!(texts(&ranges)))
}

fn texts(ranges: &BTreeSet<IpNet>) -> Vec<String> {
    ranges.iter().map(IpNet::to_string).collect()
}

impl Resource for AddressGroup {
    type Row = AddressGroupRow;
    type Item = AddressGroupRow;

    const NAME: &'static str = "address_group";
    const COLLECTION: &'static str = "address_groups";
    const NOT_FOUND: &'static str = "AddressGroupNotFound";
    const TITLE: &'static str = "Address group";
    const RBAC: Option<&'static str> = Some("address_group");
    const STANDARD: &'static [Attribute] = STANDARD_UNTAGGED;
    const HIDES_FROM_UPDATES: bool = true;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("description", Kind::Text(1_024))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("addresses", Kind::Custom(addresses)).post(Default::EmptyList),
        Attribute::new("shared", Kind::Bool).filter(),
    ];

    fn row(item: &AddressGroupRow) -> &AddressGroupRow {
        item
    }

    async fn complete(
        _conn: &mut Conn,
        rows: Vec<AddressGroupRow>,
    ) -> Result<Vec<AddressGroupRow>> {
        Ok(rows)
    }

    fn view(row: &AddressGroupRow) -> View {
        view! { row;
            "name" => row.name,
            "addresses" => row.addresses.0,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<AddressGroupRow> {
        let mut row = AddressGroupRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            addresses: JsonText(given.texts("addresses").unwrap_or_default()),
            ..AddressGroupRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: AddressGroupRow,
        mut given: Attributes,
    ) -> Result<AddressGroupRow> {
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: AddressGroupRow) -> Result<()> {
        if store::address_group_in_use(write.conn(), &row.id).await? {
            return Err(Error::conflict(
                "AddressGroupInUse",
                format!(
                    "Address group {} is in use on one or more security group rules.",
                    row.id
                ),
            ));
        }
        rows::delete::<AddressGroupRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// An address group's row, if the caller may use it in rules.
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<AddressGroupRow> {
    let row = rows::get::<AddressGroupRow>(conn, id)
        .await?
        .ok_or_else(|| not_found::<AddressGroup>(id))?;
    let object = Object {
        object_type: "address_group",
        id: &row.id,
        project_id: &row.project_id,
    };
    if rbac_policy::usable(conn, caller, object).await? {
        Ok(row)
    } else {
        Err(not_found::<AddressGroup>(id))
    }
}

/// PUT …/add_addresses
///
/// # Errors
/// [`Error`].
pub async fn add_addresses(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    change(app, caller, id, body, |have, given| {
        let there: BTreeSet<IpNet> = have.intersection(given).copied().collect();
        if !there.is_empty() {
            return Err(Error::invalid(
                "AddressesAlreadyExist",
                format!(
                    "Addresses {} already exist in the address group {id}.",
                    texts(&there).join(", ")
                ),
            ));
        }
        have.extend(given);
        if have.len() > ADDRESS_GROUP_ADDRESSES_MAX {
            return Err(Error::invalid_input(format!(
                "an address group has at most {ADDRESS_GROUP_ADDRESSES_MAX} addresses"
            )));
        }
        Ok(())
    })
    .await
}

/// PUT …/remove_addresses
///
/// # Errors
/// [`Error`].
pub async fn remove_addresses(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    change(app, caller, id, body, |have, given| {
        let missing: BTreeSet<IpNet> = given.difference(have).copied().collect();
        if !missing.is_empty() {
            return Err(Error::not_found(
                "AddressesNotFound",
                format!(
                    "Addresses {} not found in the address group {id}.",
                    texts(&missing).join(", ")
                ),
            ));
        }
        have.retain(|range| !given.contains(range));
        Ok(())
    })
    .await
}

/// Changes a group's ranges by those of the body.
async fn change(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &Value,
    apply: impl FnOnce(&mut BTreeSet<IpNet>, &BTreeSet<IpNet>) -> Result<()>,
) -> Result<Value> {
    // The stock client wraps the list in the resource's name, the SDK does not.
    let body = body.get(AddressGroup::NAME).unwrap_or(body);
    let given = body
        .as_object()
        .filter(|body| body.len() == 1)
        .and_then(|body| body.get("addresses"))
        .ok_or_else(|| {
            Error::bad_request(
                "Unable to find 'addresses' in request body: expected {\"addresses\": […]}",
            )
        })?;
    let given = ranges(given, true).map_err(|reason| Error::attribute("addresses", reason))?;
    let (mut write, mut row, _) =
        resource::begin::<AddressGroup>(app, caller, "update", Place::from(id), None).await?;
    let mut have: BTreeSet<IpNet> = row
        .addresses
        .0
        .iter()
        .filter_map(|range| range.parse().ok())
        .collect();
    apply(&mut have, &given)?;
    row.addresses = JsonText(texts(&have));
    rows::update(&mut write.tx, &mut row).await?;
    let view = view::full_of::<AddressGroup>(app, write.conn(), caller, &row).await?;
    write.tx.commit().await?;
    Ok(json!({ AddressGroup::NAME: view::show_to::<AddressGroup>(app, caller, &view, &[]) }))
}
