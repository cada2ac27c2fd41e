//! What a caller sees of an item: its attributes, what RBAC adds, and what the policy hides.

use super::App;
use super::attribute::{self, Attributes};
use super::error::Result;
use super::policy::Caller;
use super::resource::Resource;
use crate::store::rbac_policy::granted;
use crate::store::{Conn, Row};
use serde_json::Value;
use std::collections::HashSet;

/// Whether an attribute is added to every view of this resource here, and not by the resource.
pub(super) fn is_added<R: Resource>(name: &str) -> bool {
    R::RBAC.is_some() && name == "shared"
}

/// Which of some items are shared with this caller's project.
pub(super) async fn shared_of<R: Resource>(
    conn: &mut Conn,
    caller: &Caller,
    items: &[R::Item],
) -> Result<HashSet<String>> {
    let Some(object_type) = R::RBAC else {
        return Ok(HashSet::new());
    };
    let ids: Vec<&str> = items.iter().map(|item| R::row(item).id()).collect();
    let all = granted(conn, object_type, &caller.project_id, &ids).await?;
    let shared = all
        .into_iter()
        .filter(|(_, action)| action == "access_as_shared");
    Ok(shared.map(|(id, _)| id).collect())
}

/// The view of an item, which is shared with the caller's project if it is in `shared`.
pub(super) fn with_shared<R: Resource>(item: &R::Item, shared: &HashSet<String>) -> Attributes {
    let mut view = R::view(item);
    if let Some(project) = view.get("project_id").cloned() {
        view.insert("tenant_id".to_owned(), project);
    }
    if R::RBAC.is_some() {
        let shared = shared.contains(R::row(item).id());
        view.insert("shared".to_owned(), shared.into());
    }
    if !std::ptr::eq(R::STANDARD, attribute::STANDARD) {
        drop_what_it_lacks::<R>(&mut view);
    }
    view
}

/// Takes out the standard attributes that this resource has not.
fn drop_what_it_lacks<R: Resource>(view: &mut Attributes) {
    for standard in attribute::STANDARD {
        if attribute::find(R::ATTRIBUTES, R::STANDARD, standard.name).is_none() {
            view.remove(standard.name);
            if standard.name == "project_id" {
                view.remove("tenant_id");
            }
        }
    }
}

/// The view of one item.
pub(super) async fn full_of<R: Resource>(
    conn: &mut Conn,
    caller: &Caller,
    item: &R::Item,
) -> Result<Attributes> {
    let shared = shared_of::<R>(conn, caller, std::slice::from_ref(item)).await?;
    Ok(with_shared::<R>(item, &shared))
}

/// Keeps what this caller may see, and of it what was asked for.
pub(super) fn show_to<R: Resource>(
    app: &App,
    caller: &Caller,
    mut view: Attributes,
    fields: &[String],
) -> Value {
    R::finish(app, &mut view);
    if !caller.is_admin() {
        let hidden: Vec<String> = view
            .keys()
            .filter(|name| {
                let rule = format!("get_{}:{name}", R::POLICY);
                app.policy.has(&rule) && !app.policy.allows(&rule, caller, &view)
            })
            .cloned()
            .collect();
        for name in hidden {
            view.remove(&name);
        }
    }
    if !fields.is_empty() {
        view.retain(|name, _| fields.iter().any(|field| field == name));
    }
    Value::Object(view)
}

/// A time as Neutron prints it.
pub fn time_text(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// The standard attributes of a row, into its view.
macro_rules! standard_view {
    ($view:ident, $row:expr) => {
        $view.insert("id".to_owned(), $row.id.clone().into());
        $view.insert("project_id".to_owned(), $row.project_id.clone().into());
        $view.insert("description".to_owned(), $row.description.clone().into());
        $view.insert(
            "created_at".to_owned(),
            crate::app::view::time_text($row.created_at).into(),
        );
        $view.insert(
            "updated_at".to_owned(),
            crate::app::view::time_text($row.updated_at).into(),
        );
        $view.insert("revision_number".to_owned(), $row.revision_number.into());
        $view.insert("tags".to_owned(), serde_json::json!($row.tags.0));
    };
}
pub(super) use standard_view;

/// Builds a view: `view! { row; "name" => value, … }` with the row's standard attributes, or
/// `view! { bare row; … }` with its id and project only.
macro_rules! view {
    (bare $row:expr; $($name:literal => $value:expr,)*) => {{
        let mut view = crate::app::attribute::Attributes::new();
        view.insert("id".to_owned(), $row.id.clone().into());
        view.insert("project_id".to_owned(), $row.project_id.clone().into());
        $(view.insert($name.to_owned(), serde_json::json!($value));)*
        view
    }};
    ($row:expr; $($name:literal => $value:expr,)*) => {{
        let mut view = crate::app::attribute::Attributes::new();
        crate::app::view::standard_view!(view, $row);
        $(view.insert($name.to_owned(), serde_json::json!($value));)*
        view
    }};
}
pub(super) use view;
