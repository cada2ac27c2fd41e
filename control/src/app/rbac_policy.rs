//! RBAC policies: who may use what of other projects.

use super::error::Result;
use super::policy::Caller;
use super::resource::Write;
use crate::store::rbac_policy::{EVERYBODY, RbacPolicyRow, granted, policies_of};
use crate::store::{self as rows, Conn};
use uuid::Uuid;

/// The action that shares an object.
pub const SHARED: &str = "access_as_shared";
/// The action that lets a network be used as an external one.
pub const EXTERNAL: &str = "access_as_external";

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
