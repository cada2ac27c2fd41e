//! Tags: words that callers hang on resources, the same for every resource that has them.

use super::attribute::{TAGS_MAX, tags_of, text_of};
use super::error::{Error, Result};
use super::policy::Caller;
use super::resource::{self, Place, Resource, Write};
use super::{App, view};
use crate::store::{self as rows, Row};
use serde_json::{Value, json};

/// What a request does to an item's tags.
#[derive(Clone, Debug)]
pub enum Change {
    /// PUT …/tags: these and no others.
    Replace(Value),
    /// POST …/tags: these too.
    Add(Value),
    /// PUT …/tags/{tag}
    AddOne(String),
    /// DELETE …/tags/{tag}
    RemoveOne(String),
    /// DELETE …/tags
    RemoveAll,
}

fn tag_not_found(tag: &str) -> Error {
    let shown: String = tag.chars().take(64).collect();
    Error::not_found("TagNotFound", format!("Tag {shown} could not be found."))
}

/// Whether the rule, or for want of one the resource's own, lets the caller do it.
fn permit<R: Resource>(
    app: &App,
    caller: &Caller,
    action: &str,
    target: &super::attribute::Attributes,
) -> Result<()> {
    let rule = format!("{action}_{}:tags", R::POLICY);
    if app.policy.has(&rule) && !app.policy.allows(&rule, caller, target) {
        return Err(Error::Forbidden(format!("rule:{rule}")));
    }
    Ok(())
}

/// GET …/tags
///
/// # Errors
/// [`Error`].
pub async fn list<R: Resource>(app: &App, caller: &Caller, id: &str) -> Result<Value> {
    let view = resource::seen::<R>(app, caller, Place::from(id)).await?;
    let shown = view::show_to::<R>(app, caller, &view, &["tags".to_owned()]);
    let tags = shown.get("tags").cloned().unwrap_or_else(|| json!([]));
    Ok(json!({ "tags": tags }))
}

/// GET …/tags/{tag}
///
/// # Errors
/// [`Error::NotFound`] if the item has not this tag.
pub async fn show<R: Resource>(app: &App, caller: &Caller, id: &str, tag: &str) -> Result<()> {
    let tags = list::<R>(app, caller, id).await?;
    let has = tags
        .get("tags")
        .and_then(Value::as_array)
        .is_some_and(|tags| tags.iter().any(|have| have == tag));
    if has { Ok(()) } else { Err(tag_not_found(tag)) }
}

/// Carries out a change; answers the tags as they are then.
///
/// # Errors
/// [`Error`].
pub async fn change<R: Resource>(
    app: &App,
    caller: &Caller,
    id: &str,
    change: Change,
) -> Result<Value> {
    let action = match change {
        Change::RemoveOne(_) | Change::RemoveAll => "delete",
        _ => "update",
    };
    // Whoever may change an item's tags need not be able to delete it.
    let (mut write, item, target): (Write<'_>, _, _) =
        resource::begin::<R>(app, caller, "update", Place::from(id), None).await?;
    permit::<R>(app, caller, action, &target)?;
    let mut row = R::row(&item).clone();
    let before = row.tags().to_vec();
    let tags = changed(before.clone(), change)?;
    if tags != before {
        row.tags_set(tags.clone());
        rows::update(&mut write.tx, &mut row).await?;
    }
    write.tx.commit().await?;
    Ok(json!({ "tags": tags }))
}

fn changed(mut tags: Vec<String>, change: Change) -> Result<Vec<String>> {
    match change {
        Change::Replace(body) => tags = wanted(&body)?,
        Change::Add(body) => {
            for tag in wanted(&body)? {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        Change::AddOne(tag) => {
            let tag =
                text_of(&tag.into(), 255).map_err(|reason| Error::attribute("tag", reason))?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Change::RemoveOne(tag) => {
            let at = tags.iter().position(|have| *have == tag);
            tags.remove(at.ok_or_else(|| tag_not_found(&tag))?);
        }
        Change::RemoveAll => tags.clear(),
    }
    if tags.len() > TAGS_MAX {
        return Err(Error::bad_request(format!(
            "Invalid input for tags. Reason: a resource has at most {TAGS_MAX} tags."
        )));
    }
    tags.sort();
    Ok(tags)
}

/// The tags of a body `{"tags": […]}`.
fn wanted(body: &Value) -> Result<Vec<String>> {
    let given = body
        .as_object()
        .filter(|body| body.len() == 1)
        .and_then(|body| body.get("tags"))
        .ok_or_else(|| {
            Error::invalid(
                "InvalidInput",
                "Invalid input for operation: the request body must be {\"tags\": […]}.",
            )
        })?;
    let tags = tags_of(given).map_err(|reason| Error::attribute("tags", reason))?;
    Ok(serde_json::from_value(tags).unwrap_or_default())
}
