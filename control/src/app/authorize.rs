//! What a caller may see of an item and do to it, the same for every resource.

use super::App;
use super::attribute::{self, Attributes, is_explicit};
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{Resource, Write, find, not_found};
use super::view;
use crate::store::{Conn, Row};
use serde_json::Value;

/// Reads an item as this caller may: what it may not see is not there.
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn see<R: Resource>(write: &mut Write<'_>, id: &str) -> Result<R::Item> {
    let (app, caller) = (write.app, write.caller);
    let item = find::<R>(write.conn(), caller, id.into()).await?;
    authorize::<R>(app, write.conn(), caller, "get", &item).await?;
    Ok(item)
}

/// What the policy looks at of a parent that belongs to a project, for what lives under its path.
///
/// # Errors
/// [`Error::NotFound`] for another project's, unless the caller administers everything.
pub(super) async fn owned_parent<P: Resource>(
    conn: &mut Conn,
    caller: &Caller,
    id: &str,
) -> Result<Attributes> {
    let row = crate::store::get::<P::Row>(conn, id).await?;
    let row = row.filter(|row| caller.is_admin() || row.project_id() == caller.project_id);
    let row = row.ok_or_else(|| not_found::<P>(id))?;
    let mut of = Attributes::new();
    of.insert("ext_parent:project_id".to_owned(), row.project_id().into());
    Ok(of)
}

/// Fails as if it were not there unless the caller may see it, and as forbidden unless it may do `action` to it.
pub(super) async fn authorize<R: Resource>(
    app: &App,
    conn: &mut Conn,
    caller: &Caller,
    action: &str,
    item: &R::Item,
) -> Result<Attributes> {
    let mut target = view::full_of::<R>(app, conn, caller, item)
        .await?
        .attributes();
    let mut of = target.clone();
    if let Some(parent) = R::PARENT {
        of.insert(parent.to_owned(), R::parent_id(item).into());
    }
    target.extend(R::target(conn, caller, &of).await?);
    if !app
        .policy
        .allows(&format!("get_{}", R::POLICY), caller, &target)
    {
        return Err(not_found::<R>(R::row(item).id()));
    }
    let mut rule = format!("{action}_{}", R::POLICY);
    if !app.policy.has(&rule) {
        // Neutron has no rule for updates of security group rules: whoever may delete one may describe it.
        rule = format!("delete_{}", R::POLICY);
    }
    if action != "get" && !app.policy.allows(&rule, caller, &target) {
        let row = R::row(item);
        if R::HIDES_FROM_UPDATES && action == "update" && row.project_id() != caller.project_id {
            return Err(not_found::<R>(row.id()));
        }
        return Err(Error::Forbidden(format!("rule:{rule}")));
    }
    Ok(target)
}

/// Refuses the attributes that need a permission which the caller lacks, down to the keys of objects.
pub(super) fn authorize_attributes<R: Resource>(
    app: &App,
    caller: &Caller,
    action: &str,
    given: &Attributes,
    target: &Attributes,
) -> Result<()> {
    let check = |rule: String| {
        if app.policy.has(&rule) && !app.policy.allows(&rule, caller, target) {
            return Err(Error::Forbidden(format!("rule:{rule}")));
        }
        Ok(())
    };
    for (name, value) in given {
        let explicit = action != "create"
            || attribute::find(R::ATTRIBUTES, R::STANDARD, name)
                .is_none_or(|a| is_explicit(a, value));
        if !explicit || name == "project_id" {
            continue;
        }
        let rule = format!("{action}_{}:{name}", R::POLICY);
        check(rule.clone())?;
        let objects = match value {
            Value::Object(object) => std::slice::from_ref(object).iter().collect(),
            Value::Array(list) => list.iter().filter_map(Value::as_object).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        for key in objects.into_iter().flat_map(Attributes::keys) {
            check(format!("{rule}:{key}"))?;
        }
    }
    Ok(())
}
