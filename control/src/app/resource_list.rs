//! GET of a collection: whose rows, which of them, and the answer's text.
//!
//! Guarantees: a list of thousands is never in memory as values. It is read and written in parts, the one while the
//! other: what hangs on the rows of a part is read while the text of the part before is written.

use super::App;
use super::attribute::Attributes;
use super::error::Result;
use super::policy::Caller;
use super::query::{self, Asked};
use super::resource::{Resource, not_found};
use super::view;
use crate::store::{Conn, Filter, ReadTx, Row, Scope, StoreError};
use serde_json::Value;
use tokio::task::spawn_blocking;

/// Rows of a part.
const PART_ROWS: usize = 512;

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
    /// The view of the data in which what hangs on the rows is read too; none if the caller may see none at all.
    read: Option<ReadTx>,
    rows: Vec<Box<R::Row>>,
    asked: Asked,
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
    let Some(mut read) = found.read else {
        return Ok(Listed::empty::<R>(found.asked));
    };
    let ends = found.rows.first().zip(found.rows.last());
    let ends = ends.map(|(first, last)| (first.id().to_owned(), last.id().to_owned()));
    let mut rows = found.rows.into_iter();
    let (mut written, mut count) = (Vec::new(), 0);
    let mut text = format!("{{\"{}\":[", R::COLLECTION).into_bytes();
    let mut last = Vec::new();
    while rows.len() > 0 {
        let part: Vec<R::Row> = rows.by_ref().take(PART_ROWS).map(|row| *row).collect();
        let items = R::complete(read.conn(), part).await?;
        let shared = view::shared_of::<R>(read.conn(), caller, &items).await?;
        count += items.len();
        let (app, caller, fields) = (app.clone(), caller.clone(), found.asked.fields.clone());
        let write = move || view::list_text::<R>(&app, &caller, &fields, &items, &shared);
        if rows.len() > 0 {
            written.push(spawn_blocking(write));
        } else {
            last = write();
        }
    }
    drop(read);
    for part in written {
        let part = part
            .await
            .map_err(|gone| StoreError::Database(gone.into()))?;
        text.extend_from_slice(&part);
    }
    text.extend_from_slice(&last);
    // The comma behind the last item.
    text.pop_if(|end| *end == b',');
    text.push(b']');
    let text = String::from_utf8(text).map_err(|error| StoreError::Database(error.into()))?;
    Ok(Listed {
        text,
        count,
        ends,
        asked: found.asked,
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
    let listed = list_asked::<R>(app, caller, None, asked).await?;
    let mut body: Attributes = serde_json::from_str(&listed.body(None))
        .map_err(|error| StoreError::Database(error.into()))?;
    match body.remove(R::COLLECTION) {
        Some(Value::Array(views)) => Ok(views),
        _ => Ok(Vec::new()),
    }
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
        return Ok(Selected {
            read: None,
            rows: Vec::new(),
            asked,
        });
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
    Ok(Selected {
        read: Some(read),
        rows,
        asked,
    })
}
