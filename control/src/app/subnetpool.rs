//! Subnet pools: prefixes from which subnets are cut. Cutting is `subnetpool_allocation`'s.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take, cidr_of, text_of};
use super::error::{Error, Result, quote_value};
use super::policy::Caller;
use super::rbac_policy::{self, Object, SHARED};
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use super::{App, address_scope, network, subnet};
use crate::prefix;
use crate::store::subnet::{SubnetRow, subnet_list_network};
use crate::store::subnetpool::{self as store, SubnetpoolRow};
use crate::store::{self as rows, Conn, JsonText};
use ipnet::IpNet;
use serde_json::{Value, json};
use uuid::Uuid;

/// The resource.
pub struct Subnetpool;

/// Prefixes of one pool.
const PREFIXES_MAX: usize = 1_024;

/// A text with something in it.
fn name(value: &Value) -> Result<Value, String> {
    match text_of(value, 255)? {
        blank if blank.trim().is_empty() => Err(format!(
            "{} Blank strings are not permitted",
            quote_value(value)
        )),
        name => Ok(name.into()),
    }
}

/// Reads prefixes: host bits become zero, neighbours become one.
fn prefixes(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!("{} is not a list", quote_value(value)));
    };
    if list.len() > PREFIXES_MAX {
        return Err(format!("a list of more than {PREFIXES_MAX} prefixes"));
    }
    let prefixes = list
        .iter()
        .map(|item| match cidr_of(item)?.trunc() {
            mapped if prefix::is_mapped(mapped) => {
                Err(format!("{mapped} holds IPv4-mapped addresses"))
            }
            cidr => Ok(cidr),
        })
        .collect::<Result<Vec<IpNet>, String>>()?;
    serde_json::to_value(prefixes).map_err(|error| error.to_string())
}

const PREFIXLEN: Kind = Kind::Int(0, 128);

impl Resource for Subnetpool {
    type Row = SubnetpoolRow;
    type Item = SubnetpoolRow;

    const NAME: &'static str = "subnetpool";
    const COLLECTION: &'static str = "subnetpools";
    const NOT_FOUND: &'static str = "SubnetPoolNotFound";
    const TITLE: &'static str = "Subnet pool";
    const RBAC: Option<&'static str> = Some("subnetpool");
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Custom(name))
            .required()
            .put()
            .sort(),
        Attribute::new("prefixes", Kind::Custom(prefixes))
            .required()
            .put(),
        Attribute::new("default_quota", Kind::Int(0, i64::MAX))
            .post(Default::Unset)
            .put()
            .sort(),
        Attribute::new("min_prefixlen", PREFIXLEN)
            .post(Default::Unset)
            .put()
            .sort(),
        Attribute::new("max_prefixlen", PREFIXLEN)
            .post(Default::Unset)
            .put()
            .sort(),
        Attribute::new("default_prefixlen", PREFIXLEN)
            .post(Default::Unset)
            .put()
            .sort(),
        Attribute::new("ip_version", Kind::Int(4, 6)).sort(),
        Attribute::new("is_default", Kind::Bool)
            .post(Default::Bool(false))
            .put()
            .sort(),
        Attribute::new("shared", Kind::Bool)
            .post(Default::Bool(false))
            .sort(),
        Attribute::new("address_scope_id", Kind::Uuid)
            .post(Default::Unset)
            .put()
            .nullable()
            .sort(),
    ];

    fn row(item: &SubnetpoolRow) -> &SubnetpoolRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<SubnetpoolRow>) -> Result<Vec<SubnetpoolRow>> {
        Ok(rows)
    }

    fn view(row: &SubnetpoolRow) -> View {
        // Neutron shows prefix lengths as texts.
        view! { row;
            "name" => row.name,
            "ip_version" => row.ip_version,
            "prefixes" => row.prefixes.0,
            "min_prefixlen" => row.min_prefixlen.to_string(),
            "max_prefixlen" => row.max_prefixlen.to_string(),
            "default_prefixlen" => row.default_prefixlen.to_string(),
            "default_quota" => row.default_quota,
            "is_default" => row.is_default,
            "address_scope_id" => row.address_scope_id,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<SubnetpoolRow> {
        let mut row = SubnetpoolRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            is_default: given.truth("is_default").unwrap_or(false),
            ..SubnetpoolRow::default()
        };
        set_prefixes(
            &mut row,
            &given.shaped::<Vec<IpNet>>("prefixes").unwrap_or_default(),
        )?;
        let (min, max) = if row.ip_version == 4 {
            (8, 32)
        } else {
            (64, 128)
        };
        row.min_prefixlen = given.int("min_prefixlen").unwrap_or(min);
        row.max_prefixlen = given.int("max_prefixlen").unwrap_or(max);
        row.default_prefixlen = given.int("default_prefixlen").unwrap_or(row.min_prefixlen);
        row.default_quota = given.int("default_quota");
        row.address_scope_id = given.text_opt("address_scope_id");
        check_bounds(&row)?;
        if row.is_default {
            no_default_yet(write, row.ip_version).await?;
        }
        check_scope(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        let shared = given.truth("shared").unwrap_or(false);
        rbac_policy::everybody_set(write, object(&row), SHARED, shared).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        row: SubnetpoolRow,
        given: Attributes,
    ) -> Result<SubnetpoolRow> {
        change(write, row, given).await
    }

    async fn delete(write: &mut Write<'_>, row: SubnetpoolRow) -> Result<()> {
        if store::subnetpool_used(write.conn(), &row.id).await? {
            return Err(Error::invalid(
                "SubnetPoolDeleteError",
                "Unable to delete subnet pool: Subnet pool has existing allocations.",
            ));
        }
        rows::delete::<SubnetpoolRow>(&mut write.tx, &row.id).await?;
        Ok(())
    }
}

/// The pool as RBAC policies name it.
pub(super) fn object(row: &SubnetpoolRow) -> Object<'_> {
    Object {
        object_type: "subnetpool",
        id: &row.id,
        project_id: &row.project_id,
    }
}

/// A pool, if the caller may take subnets from it.
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, id: &str) -> Result<SubnetpoolRow> {
    let not_found = || resource::not_found::<Subnetpool>(id);
    let row = rows::get::<SubnetpoolRow>(conn, id)
        .await?
        .ok_or_else(not_found)?;
    if rbac_policy::usable(conn, caller, object(&row)).await? {
        Ok(row)
    } else {
        Err(not_found())
    }
}

/// The default pool of a family.
pub(super) async fn default_of(conn: &mut Conn, ip_version: i64) -> Result<Option<SubnetpoolRow>> {
    Ok(store::subnetpool_default(conn, ip_version).await?)
}

async fn change(
    write: &mut Write<'_>,
    mut row: SubnetpoolRow,
    mut given: Attributes,
) -> Result<SubnetpoolRow> {
    let before = row.clone();
    if let Some(scope) = &before.address_scope_id {
        may_change_within(write, &row, scope).await?;
    }
    if let Some(name) = given.text_opt("name") {
        row.name = name;
    }
    if let Some(description) = given.text_opt("description") {
        row.description = description;
    }
    if let Some(prefixes) = given.shaped::<Vec<IpNet>>("prefixes") {
        set_prefixes(&mut row, &prefixes)?;
        if !before
            .prefixes
            .0
            .iter()
            .all(|cidr| prefix::contains(&row.prefixes.0, *cidr))
        {
            return Err(illegal_prefixes(
                "Existing prefixes must be a subset of the new prefixes",
            ));
        }
    }
    row.min_prefixlen = given.int("min_prefixlen").unwrap_or(row.min_prefixlen);
    row.max_prefixlen = given.int("max_prefixlen").unwrap_or(row.max_prefixlen);
    row.default_prefixlen = given
        .int("default_prefixlen")
        .unwrap_or(row.default_prefixlen);
    row.default_quota = given.int("default_quota").or(row.default_quota);
    row.is_default = given.truth("is_default").unwrap_or(row.is_default);
    if let Some(scope) = given.text_or_null("address_scope_id") {
        row.address_scope_id = scope;
    }
    check_bounds(&row)?;
    if row.is_default && !before.is_default {
        no_default_yet(write, row.ip_version).await?;
    }
    let scope_changed = row.address_scope_id != before.address_scope_id;
    if scope_changed || row.prefixes != before.prefixes {
        check_scope(write, &row).await?;
    }
    if scope_changed && store::pool_shares_a_network(write.conn(), &row.id).await? {
        return Err(scope_affinity());
    }
    if row.prefixes != before.prefixes {
        store::cursors_reset(&mut write.tx, &row.id).await?;
    }
    rows::update(&mut write.tx, &mut row).await?;
    Ok(row)
}

/// Whoever does not own a pool's address scope cannot change the pool: it was let in as it is.
async fn may_change_within(write: &mut Write<'_>, row: &SubnetpoolRow, scope: &str) -> Result<()> {
    let caller = write.caller;
    let owner = address_scope::usable(write.conn(), caller, scope)
        .await?
        .project_id;
    if owner == caller.project_id || caller.is_admin() {
        return Ok(());
    }
    Err(illegal_update(format!(
        "subnetpool {} cannot be updated when associated with shared address scope {scope}",
        row.id
    )))
}

fn illegal_update(reason: impl std::fmt::Display) -> Error {
    Error::invalid(
        "IllegalSubnetPoolUpdate",
        format!("Illegal subnetpool update : {reason}."),
    )
}

fn illegal_prefixes(reason: impl std::fmt::Display) -> Error {
    Error::invalid(
        "IllegalSubnetPoolPrefixUpdate",
        format!("Illegal update to prefixes: {reason}."),
    )
}

/// All subnets of a network and family are in one address scope.
pub(super) fn scope_affinity() -> Error {
    Error::invalid(
        "NetworkAddressScopeAffinityError",
        "Subnets of the same address family hosted on the same network must all participate in the \
         same address scope.",
    )
}

/// Puts prefixes into a pool, in order and merged, with the family that they are of.
fn set_prefixes(row: &mut SubnetpoolRow, prefixes: &[IpNet]) -> Result<()> {
    let Some(first) = prefixes.first() else {
        return Err(Error::invalid(
            "EmptySubnetPoolPrefixList",
            "Empty subnet pool prefix list.",
        ));
    };
    let v6 = first.addr().is_ipv6();
    let ip_version = if v6 { 6 } else { 4 };
    let mixed = prefixes.iter().any(|cidr| cidr.addr().is_ipv6() != v6);
    if mixed || (row.ip_version != 0 && row.ip_version != ip_version) {
        return Err(Error::invalid(
            "PrefixVersionMismatch",
            "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.",
        ));
    }
    row.ip_version = ip_version;
    let merged = prefix::union(prefixes);
    if merged.len() > PREFIXES_MAX {
        return Err(illegal_prefixes(format!(
            "more than {PREFIXES_MAX} prefixes"
        )));
    }
    row.prefixes = JsonText(merged);
    Ok(())
}

fn check_bounds(row: &SubnetpoolRow) -> Result<()> {
    let family = if row.ip_version == 4 { 32 } else { 128 };
    let (min, max) = (row.min_prefixlen, row.max_prefixlen);
    let default = row.default_prefixlen;
    let wrong = [
        (min > max, "min_prefixlen", min, "max_prefixlen", max),
        (max > family, "max_prefixlen", max, "ip_version_max", family),
        (
            default < min,
            "default_prefixlen",
            default,
            "min_prefixlen",
            min,
        ),
        (
            default > max,
            "default_prefixlen",
            default,
            "max_prefixlen",
            max,
        ),
    ];
    match wrong.into_iter().find(|(wrong, ..)| *wrong) {
        None => Ok(()),
        Some((_, name, value, base, bound)) => Err(Error::invalid(
            "IllegalSubnetPoolPrefixBounds",
            format!("Illegal prefix bounds: {name}={value}, {base}={bound}."),
        )),
    }
}

async fn no_default_yet(write: &mut Write<'_>, ip_version: i64) -> Result<()> {
    match default_of(write.conn(), ip_version).await? {
        None => Ok(()),
        Some(_) => Err(Error::invalid_input(
            "A default subnetpool for this IP family has already been set. Only one default may exist \
             per IP family",
        )),
    }
}

/// A pool may be in an address scope that the caller may use, of its family, in which no other pool has its addresses.
async fn check_scope(write: &mut Write<'_>, row: &SubnetpoolRow) -> Result<()> {
    let Some(id) = &row.address_scope_id else {
        return Ok(());
    };
    let caller = write.caller;
    let scope = address_scope::usable(write.conn(), caller, id).await?;
    if scope.ip_version != row.ip_version {
        return Err(Error::invalid(
            "IllegalSubnetPoolIpVersionAssociationToAddressScope",
            format!(
                "Illegal subnetpool association: subnetpool {} cannot associate with address scope \
                 {id} because subnetpool ip_version is not {}.",
                row.id, scope.ip_version
            ),
        ));
    }
    for other in store::subnetpool_list_scope(write.conn(), id).await? {
        if other.id != row.id && prefix::intersect(&other.prefixes.0, &row.prefixes.0) {
            return Err(Error::conflict(
                "AddressScopePrefixConflict",
                "Failed to associate address scope: subnetpools within an address scope must have \
                 unique prefixes.",
            ));
        }
    }
    Ok(())
}

/// The prefixes of an operation's body.
fn prefixes_given(body: &Value) -> Result<Vec<IpNet>> {
    let given = body.get("prefixes").filter(|list| list.is_array());
    let given = given
        .ok_or_else(|| Error::bad_request("The request body must be {\"prefixes\": [...]}"))?;
    let list = prefixes(given).map_err(|reason| Error::attribute("prefixes", reason))?;
    Ok(serde_json::from_value(list).unwrap_or_default())
}

/// PUT …/add_prefixes
///
/// # Errors
/// [`Error`].
pub async fn add_prefixes(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let new = prefixes_given(body)?;
    let (mut write, mut row, target) =
        resource::begin::<Subnetpool>(app, caller, "update", id.into(), None).await?;
    app.permit("add_prefixes", caller, &target)?;
    if !new.is_empty() {
        row = with_prefixes(&mut write, row, new).await?;
        write.tx.commit().await?;
    }
    Ok(json!({ "prefixes": row.prefixes.0 }))
}

async fn with_prefixes(
    write: &mut Write<'_>,
    row: SubnetpoolRow,
    new: Vec<IpNet>,
) -> Result<SubnetpoolRow> {
    let all: Vec<IpNet> = row.prefixes.0.iter().copied().chain(new).collect();
    let mut given = Attributes::new();
    given.insert("prefixes".to_owned(), json!(all));
    change(write, row, given).await
}

/// PUT …/remove_prefixes
///
/// # Errors
/// [`Error`].
pub async fn remove_prefixes(app: &App, caller: &Caller, id: &str, body: &Value) -> Result<Value> {
    let gone = prefixes_given(body)?;
    let (mut write, mut row, target) =
        resource::begin::<Subnetpool>(app, caller, "update", id.into(), None).await?;
    app.permit("remove_prefixes", caller, &target)?;
    if !prefix::intersect(&row.prefixes.0, &gone) {
        return Ok(json!({ "prefixes": row.prefixes.0 }));
    }
    let used = store::cidrs_of_pool(write.conn(), &row.id, None).await?;
    let used: Vec<IpNet> = used.iter().filter_map(|cidr| cidr.parse().ok()).collect();
    if prefix::intersect(&used, &gone) {
        return Err(illegal_prefixes(
            "One or more of the prefixes to be removed is in use by a subnet",
        ));
    }
    row.prefixes = JsonText(prefix::difference(&row.prefixes.0, &gone));
    if row.prefixes.0.len() > PREFIXES_MAX {
        return Err(illegal_prefixes(format!(
            "more than {PREFIXES_MAX} prefixes are left"
        )));
    }
    rows::update(&mut write.tx, &mut row).await?;
    write.tx.commit().await?;
    Ok(json!({ "prefixes": row.prefixes.0 }))
}

/// PUT …/onboard_network_subnets: takes the subnets that a network has already into the pool.
///
/// # Errors
/// [`Error`].
pub async fn onboard_network_subnets(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &Value,
) -> Result<Value> {
    let network_id = body.get("network_id").filter(|id| !id.is_null());
    let network_id =
        network_id.ok_or_else(|| Error::invalid_input("network_id must be specified"))?;
    let network_id =
        attribute::uuid_of(network_id).map_err(|reason| Error::attribute("network_id", reason))?;
    let (mut write, row, target) =
        resource::begin::<Subnetpool>(app, caller, "update", id.into(), None).await?;
    app.permit("onboard_network_subnets", caller, &target)?;
    let network = network::usable(write.conn(), caller, &network_id).await?;
    if network.project_id != caller.project_id && !caller.is_admin() {
        return Err(Error::Forbidden("rule:onboard_network_subnets".to_owned()));
    }
    let mut subnets = subnet_list_network(write.conn(), &network.id).await?;
    subnets.retain(|subnet| subnet.ip_version == row.ip_version);
    let used = store::cidrs_of_pool(write.conn(), &row.id, None).await?;
    let used: Vec<IpNet> = used.iter().filter_map(|cidr| cidr.parse().ok()).collect();
    for subnet in &subnets {
        if prefix::intersect(&used, &[subnet::range_of(subnet)]) {
            return Err(illegal_update(format!(
                "Onboarding subnet {}: {} conflicts with allocated prefixes in subnet pool {}",
                subnet.id, subnet.cidr, row.id
            )));
        }
    }
    let new = subnets.iter().map(subnet::range_of).collect();
    let row = with_prefixes(&mut write, row, new).await?;
    let mut onboarded = Vec::with_capacity(subnets.len());
    for subnet in subnets {
        onboarded.push(json!({ "id": subnet.id, "cidr": subnet.cidr }));
        join(&mut write, subnet, &row).await?;
    }
    write.tx.commit().await?;
    Ok(Value::Array(onboarded))
}

/// Writes a subnet down as the pool's.
async fn join(write: &mut Write<'_>, mut subnet: SubnetRow, pool: &SubnetpoolRow) -> Result<()> {
    if let Some(before) = subnet.subnetpool_id.replace(pool.id.clone()) {
        super::subnetpool_allocation::give_back(write, &before, &subnet).await?;
    }
    super::subnetpool_allocation::key(&mut subnet);
    rows::update(&mut write.tx, &mut subnet).await?;
    Ok(())
}
