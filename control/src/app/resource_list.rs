//! GET of a collection: whose rows, which of them, and the answer's text.
//!
//! Guarantees: a list of thousands is never in memory as values; each item's text is written when its view is made.

use super::attribute::Attributes;
use super::error::Result;
use super::policy::Caller;
use super::query::{self, Asked};
use super::resource::{Resource, not_found};
use super::{App, view};
use crate::store::{Conn, Filter, Row, Scope, StoreError};
use serde_json::Value;
use std::collections::HashSet;

/// Threads that write one list.
const WRITERS_MAX: usize = 4;
/// Items that are too few for a second thread.
const WRITTEN_ALONE_MAX: usize = 256;

/// A page of a list.
pub struct Listed {
    /// The beginning of the answer's text, up to the end of the list: each item is written as soon as it is made, for a
    /// list of thousands as values, or a copy of its text, would be tens of megabytes for a moment.
    text: String,
    /// How many items there are.
    pub count: usize,
    /// The ids of the first and the last one.
    pub ends: Option<(String, String)>,
    /// What was asked.
    pub asked: Asked,
}

impl Listed {
    /// A list without items.
    pub fn empty<R: Resource>(asked: Asked) -> Self {
        Self {
            text: format!("{{\"{}\":[]", R::COLLECTION),
            count: 0,
            ends: None,
            asked,
        }
    }

    /// The answer's body, with another member if there is one.
    #[must_use]
    pub fn body(self, more: Option<(String, Value)>) -> String {
        let mut text = self.text;
        if let Some((name, value)) = more {
            text.push_str(&format!(",\"{name}\":{value}"));
        }
        text.push('}');
        text
    }
}

/// Whose rows the caller may list.
async fn list_scope<R: Resource>(
    app: &App,
    conn: &mut Conn,
    caller: &Caller,
    parent: Option<&str>,
) -> Result<Option<Scope>> {
    let rule = format!("get_{}", R::POLICY);
    if let (Some(name), Some(id)) = (R::PARENT, parent) {
        let mut of = Attributes::new();
        of.insert(name.to_owned(), id.into());
        R::parent(conn, caller, &of).await?;
        let target = R::target(conn, caller, &of).await?;
        let allowed = app.policy.allows(&rule, caller, &target);
        return Ok(allowed.then_some(Scope::All));
    }
    let allows = |project: &str| {
        let mut target = Attributes::new();
        target.insert("project_id".to_owned(), project.into());
        target.insert("security_group:project_id".to_owned(), project.into());
        target.insert("ext_parent:project_id".to_owned(), project.into());
        app.policy.allows(&rule, caller, &target)
    };
    // A project that nobody has: whoever may see its rows may see all.
    Ok(match (allows("*"), allows(&caller.project_id)) {
        (true, _) => Some(Scope::All),
        (false, true) => Some(Scope::Project),
        (false, false) => None,
    })
}

/// GET of the collection; `parent` is the id in the path of what has a [`Resource::PARENT`].
///
/// # Errors
/// [`Error`].
pub async fn list<R: Resource>(
    app: &App,
    caller: &Caller,
    parent: Option<&str>,
    pairs: &[(String, String)],
) -> Result<Listed> {
    let asked = query::read(R::ATTRIBUTES, R::STANDARD, pairs)?;
    list_asked::<R>(app, caller, parent, asked).await
}

/// What a query found.
struct Selected<R: Resource> {
    items: Vec<R::Item>,
    /// Which of them are shared with the caller's project.
    shared: HashSet<String>,
    ends: Option<(String, String)>,
    asked: Asked,
}

impl<R: Resource> Selected<R> {
    fn empty(asked: Asked) -> Self {
        Self {
            items: Vec::new(),
            shared: HashSet::new(),
            ends: None,
            asked,
        }
    }
}

/// [`list`], of a query that is read.
///
/// # Errors
/// [`Error`].
pub async fn list_asked<R: Resource>(
    app: &App,
    caller: &Caller,
    parent: Option<&str>,
    asked: Asked,
) -> Result<Listed> {
    let found = select::<R>(app, caller, parent, asked).await?;
    if found.items.is_empty() {
        return Ok(Listed::empty::<R>(found.asked));
    }
    let mut text = format!("{{\"{}\":[", R::COLLECTION).into_bytes();
    written(app, caller, &found, &mut text).map_err(StoreError::Database)?;
    text.push(b']');
    let text = String::from_utf8(text).map_err(|error| StoreError::Database(error.into()))?;
    Ok(Listed {
        text,
        count: found.items.len(),
        ends: found.ends,
        asked: found.asked,
    })
}

/// Writes the items one behind the other; many of them by several threads, each a part.
fn written<R: Resource>(
    app: &App,
    caller: &Caller,
    found: &Selected<R>,
    text: &mut Vec<u8>,
) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let write = |items: &[R::Item], text: &mut Vec<u8>| -> serde_json::Result<()> {
        let before = text.len();
        for (n, item) in items.iter().enumerate() {
            if n == 1 {
                // The others are about as long as the first.
                text.reserve((text.len() - before + 16) * items.len());
            }
            if n > 0 {
                text.push(b',');
            }
            let view = view::with_shared::<R>(item, &found.shared);
            let shown = view::show_to::<R>(app, caller, view, &found.asked.fields);
            serde_json::to_writer(&mut *text, &shown)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.clamp(1, WRITERS_MAX);
    if threads == 1 || found.items.len() < WRITTEN_ALONE_MAX {
        return Ok(write(&found.items, text)?);
    }
    let (own, others) = found.items.split_at(found.items.len().div_ceil(threads));
    std::thread::scope(|scope| {
        let parts = others.chunks(own.len());
        let parts: Vec<_> = parts
            .map(|part| {
                scope.spawn(|| {
                    let mut text = Vec::new();
                    write(part, &mut text).map(|()| text)
                })
            })
            .collect();
        write(own, text)?;
        for part in parts {
            let part = part.join().map_err(|_panic| "a list's writer panicked")??;
            text.push(b',');
            text.extend_from_slice(&part);
        }
        Ok(())
    })
}

/// [`list_asked`], as values.
///
/// # Errors
/// [`Error`].
pub async fn list_views<R: Resource>(
    app: &App,
    caller: &Caller,
    asked: Asked,
) -> Result<Vec<Value>> {
    let found = select::<R>(app, caller, None, asked).await?;
    let view = |item| {
        let view = view::with_shared::<R>(item, &found.shared);
        view::show_to::<R>(app, caller, view, &found.asked.fields)
    };
    Ok(found.items.iter().map(view).collect())
}

async fn select<R: Resource>(
    app: &App,
    caller: &Caller,
    parent: Option<&str>,
    mut asked: Asked,
) -> Result<Selected<R>> {
    R::before_list(app, caller, &asked.list).await?;
    let mut read = app.store.read().await?;
    let Some(scope) = list_scope::<R>(app, read.conn(), caller, parent).await? else {
        return Ok(Selected::empty(asked));
    };
    asked.list.scope = scope;
    asked.list.project.clone_from(&caller.project_id);
    if let (Some(name), Some(id)) = (R::PARENT, parent) {
        asked.list.filters.push(Filter {
            attribute: name.to_owned(),
            values: vec![crate::store::Value::Text(id.to_owned())],
        });
    }
    if let Some((attribute, value)) = R::KIND {
        asked.list.filters.push(Filter {
            attribute: attribute.to_owned(),
            values: vec![crate::store::Value::Text(value.to_owned())],
        });
    }
    if let Some(marker) = &asked.list.marker
        && crate::store::get::<R::Row>(read.conn(), marker)
            .await?
            .is_none()
    {
        return Err(not_found::<R>(marker));
    }
    let rows = crate::store::list::<R::Row>(read.conn(), &asked.list).await?;
    let ends = rows
        .first()
        .zip(rows.last())
        .map(|(a, b)| (a.id().to_owned(), b.id().to_owned()));
    let items = R::complete(read.conn(), rows).await?;
    let shared = view::shared_of::<R>(read.conn(), caller, &items).await?;
    Ok(Selected {
        items,
        shared,
        ends,
        asked,
    })
}
