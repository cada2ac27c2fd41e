//! RBAC policies: who may use what of other projects.

use super::attribute::{Attribute, Attributes, Kind, Take, text_of};
use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::address_scope::AddressScopeRow;
use crate::store::network::NetworkRow;
use crate::store::rbac_policy::{
    self as store, EVERYBODY, ObjectKind, RbacPolicyRow, granted, policies_of,
};
use crate::store::subnetpool::SubnetpoolRow;
use crate::store::{self as rows, Conn};
use serde_json::Value;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The action that shares an object.
pub const SHARED: &str = "access_as_shared";
/// The action that lets a network be used as an external one.
pub const EXTERNAL: &str = "access_as_external";

/// The resource.
pub struct RbacPolicy;

/// An object that can be shared.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Neutron's name of its kind.
    pub object_type: &'static str,
    /// Its id.
    pub id: &'a str,
    /// Whose it is.
    pub project_id: &'a str,
}

fn target(value: &Value) -> Result<Value, String> {
    let text = text_of(value, 255)?;
    if text.is_empty() {
        return Err("a target must be a project's id, or * for all".to_owned());
    }
    Ok(text.into())
}

impl Resource for RbacPolicy {
    type Row = RbacPolicyRow;
    type Item = RbacPolicyRow;

    const NAME: &'static str = "rbac_policy";
    const COLLECTION: &'static str = "rbac_policies";
    const NOT_FOUND: &'static str = "RbacPolicyNotFound";
    const TITLE: &'static str = "RBAC policy";
    const STANDARD: &'static [Attribute] = super::attribute::STANDARD_BARE;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("object_type", Kind::Text(255))
            .required()
            .sort(),
        Attribute::new("object_id", Kind::Uuid).required().sort(),
        Attribute::new("action", Kind::Text(255)).required().sort(),
        Attribute::new("target_tenant", Kind::Custom(target))
            .required()
            .put()
            .sort(),
    ];

    fn row(item: &RbacPolicyRow) -> &RbacPolicyRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<RbacPolicyRow>) -> Result<Vec<RbacPolicyRow>> {
        Ok(rows)
    }

    fn view(row: &RbacPolicyRow) -> View {
        view! { bare row;
            "object_type" => row.object_type,
            "object_id" => row.object_id,
            "action" => row.action,
            "target_tenant" => row.target_project,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<RbacPolicyRow> {
        let mut row = RbacPolicyRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            object_type: given.text("object_type"),
            object_id: given.text("object_id"),
            action: given.text("action"),
            target_project: given.text("target_tenant"),
            ..RbacPolicyRow::default()
        };
        let kind = kind_of(&row)?;
        let owner = store::owner(write.conn(), kind, &row.object_id).await?;
        let caller = write.caller;
        // Whether it is not there or not the caller's is the same to who may not see it.
        if owner.is_none_or(|owner| owner != caller.project_id && !caller.is_admin()) {
            return Err(Error::invalid_input(format!(
                "Only admins can manipulate policies on objects they do not own, and there is no {} {} of yours",
                kind.name, row.object_id
            )));
        }
        check_address_scope(write.conn(), kind, &row).await?;
        match rows::insert(&mut write.tx, &mut row).await {
            Err(rows::StoreError::Conflict(_)) => return Err(duplicate()),
            done => done?,
        }
        changed(write, kind, &row.object_id).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        row: RbacPolicyRow,
        mut given: Attributes,
    ) -> Result<RbacPolicyRow> {
        let mut new = row.clone();
        if let Some(target) = given.text_opt("target_tenant") {
            new.target_project = target;
        }
        if new.target_project == row.target_project {
            return Ok(row);
        }
        let kind = kind_of(&row)?;
        // As in Neutron, only a network's policy may be narrowed to the very project that uses it.
        let kept = (kind.name == "network").then_some(&new);
        refuse_if_needed(write, kind, &row, kept).await?;
        check_address_scope(write.conn(), kind, &new).await?;
        match rows::update(&mut write.tx, &mut new).await {
            Err(rows::StoreError::Conflict(_)) => return Err(duplicate()),
            done => done?,
        }
        changed(write, kind, &row.object_id).await?;
        Ok(new)
    }

    async fn delete(write: &mut Write<'_>, row: RbacPolicyRow) -> Result<()> {
        let kind = kind_of(&row)?;
        refuse_if_needed(write, kind, &row, None).await?;
        rows::delete::<RbacPolicyRow>(&mut write.tx, &row.id).await?;
        changed(write, kind, &row.object_id).await
    }
}

fn duplicate() -> Error {
    Error::conflict(
        "DuplicateRbacPolicy",
        "An RBAC policy already exists with those values.",
    )
}

/// The kind of a policy's object; the action must be one of its own.
fn kind_of(row: &RbacPolicyRow) -> Result<&'static ObjectKind> {
    let Some(kind) = store::kind(&row.object_type) else {
        let known: Vec<&str> = store::KINDS.iter().map(|kind| kind.name).collect();
        return Err(Error::invalid_input(format!(
            "'object_type' {} is not one of {}",
            quote(&row.object_type),
            known.join(", ")
        )));
    };
    if kind.actions.iter().any(|action| action.name == row.action) {
        return Ok(kind);
    }
    let known: Vec<&str> = kind.actions.iter().map(|action| action.name).collect();
    Err(Error::invalid(
        "RbacPolicyInvalidAction",
        format!(
            "Invalid action {} for object type '{}'. Valid actions: {}",
            quote(&row.action),
            kind.name,
            known.join(", ")
        ),
    ))
}

/// A subnet pool can be shared with those only who may use its address scope: they could not cut subnets from it.
async fn check_address_scope(
    conn: &mut Conn,
    kind: &'static ObjectKind,
    policy: &RbacPolicyRow,
) -> Result<()> {
    if kind.name != "subnetpool" {
        return Ok(());
    }
    let pool = rows::get::<SubnetpoolRow>(conn, &policy.object_id).await?;
    let Some(id) = pool.and_then(|pool| pool.address_scope_id) else {
        return Ok(());
    };
    let target = policy.target_project.as_str();
    let own = rows::get::<AddressScopeRow>(conn, &id)
        .await?
        .is_some_and(|scope| scope.project_id == target);
    if own
        || !granted(conn, "address_scope", target, &[&id])
            .await?
            .is_empty()
    {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "the subnet pool {} cannot be shared with {}: its address scope {id} is not",
        policy.object_id,
        quote(target)
    )))
}

/// Refuses to take a policy away (or to replace it by another) while a project uses the object by it alone.
async fn refuse_if_needed(
    write: &mut Write<'_>,
    kind: &'static ObjectKind,
    old: &RbacPolicyRow,
    new: Option<&RbacPolicyRow>,
) -> Result<()> {
    let conn = write.conn();
    let mut left = policies_of(conn, kind.name, &[&old.object_id]).await?;
    left.retain(|policy| policy.action == old.action && policy.id != old.id);
    left.extend(new.cloned());
    let covers = |policy: &RbacPolicyRow, project: &str| {
        policy.target_project == EVERYBODY || policy.target_project == project
    };
    let owner = store::owner(conn, kind, &old.object_id).await?;
    let users: BTreeSet<String> = store::users(conn, kind, &old.action, &old.object_id).await?;
    let left_out = users
        .iter()
        .filter(|user| !user.is_empty() && Some(*user) != owner.as_ref())
        .find(|user| covers(old, user) && !left.iter().any(|policy| covers(policy, user)));
    if let Some(project) = left_out {
        return Err(in_use(
            &old.object_id,
            &format!("project {project} uses it"),
        ));
    }
    let is_default = old.action == EXTERNAL
        && old.target_project == EVERYBODY
        && rows::get::<NetworkRow>(write.conn(), &old.object_id)
            .await?
            .is_some_and(|network| network.is_default);
    if is_default {
        return Err(in_use(&old.object_id, "it is the default external network"));
    }
    Ok(())
}

fn in_use(object: &str, details: &str) -> Error {
    Error::conflict(
        "RbacPolicyInUse",
        format!(
            "RBAC policy on object {object} cannot be removed because other objects depend on it. \
             Details: {details}."
        ),
    )
}

/// Follows a change of an object's policies: a network is external as long as somebody may use it as such, and the
/// object is newer.
async fn changed(write: &mut Write<'_>, kind: &'static ObjectKind, id: &str) -> Result<()> {
    if kind.name == "network" {
        let external = policies_of(write.conn(), kind.name, &[id])
            .await?
            .iter()
            .any(|policy| policy.action == EXTERNAL);
        if let Some(mut network) = rows::get::<NetworkRow>(write.conn(), id).await?
            && network.external != external
        {
            network.external = external;
            rows::update(&mut write.tx, &mut network).await?;
            return Ok(());
        }
    }
    Ok(store::object_bump(&mut write.tx, kind, id).await?)
}

/// Sets whether everybody may use an object.
pub(super) async fn everybody_set(
    write: &mut Write<'_>,
    object: Object<'_>,
    action: &str,
    allowed: bool,
) -> Result<()> {
    let there = policies_of(write.conn(), object.object_type, &[object.id])
        .await?
        .into_iter()
        .find(|policy| policy.target_project == EVERYBODY && policy.action == action);
    match there {
        None if allowed => {
            let mut row = RbacPolicyRow {
                id: Uuid::new_v4().to_string(),
                project_id: object.project_id.to_owned(),
                object_type: object.object_type.to_owned(),
                object_id: object.id.to_owned(),
                target_project: EVERYBODY.to_owned(),
                action: action.to_owned(),
                ..RbacPolicyRow::default()
            };
            rows::insert(&mut write.tx, &mut row).await?;
        }
        Some(policy) if !allowed => {
            rows::delete::<RbacPolicyRow>(&mut write.tx, &policy.id).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Takes an action on an object away from all.
pub(super) async fn action_gone(
    write: &mut Write<'_>,
    object: Object<'_>,
    action: &str,
) -> Result<()> {
    Ok(store::action_gone(&mut write.tx, object.object_type, object.id, action).await?)
}

/// Whether everybody may use an object.
pub(super) async fn everybody(conn: &mut Conn, object: Object<'_>, action: &str) -> Result<bool> {
    Ok(policies_of(conn, object.object_type, &[object.id])
        .await?
        .iter()
        .any(|policy| policy.target_project == EVERYBODY && policy.action == action))
}

/// Whether the caller may use an object: it is its own, it administers everything, or an RBAC policy says so.
pub(super) async fn usable(conn: &mut Conn, caller: &Caller, object: Object<'_>) -> Result<bool> {
    if object.project_id == caller.project_id || caller.is_admin() || caller.has_role("service") {
        return Ok(true);
    }
    let granted = granted(conn, object.object_type, &caller.project_id, &[object.id]).await?;
    Ok(!granted.is_empty())
}

/// Whether an object is shared with the caller's project.
pub(super) async fn shared(conn: &mut Conn, caller: &Caller, object: Object<'_>) -> Result<bool> {
    let granted = granted(conn, object.object_type, &caller.project_id, &[object.id]).await?;
    Ok(granted.iter().any(|(_, action)| action == SHARED))
}
