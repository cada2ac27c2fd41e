//! Create, list, show, update and delete, the same for every resource: who may, what is visible, quotas, revisions,
//! bulk. A resource adds its attributes and its own rules by [`Resource`].
//!
//! Guarantees: one request is one transaction; a bulk request is carried out whole or not at all; what a caller may
//! not see does not exist for it.

use super::attribute::{self, Attribute, Attributes, Take};
use super::authorize::{authorize, authorize_attributes};
use super::body::unwrap_body;
use super::error::{Error, Result};
use super::policy::Caller;
use super::query;
use super::view::{self, Sight, View};
use super::{App, quota};
use crate::store::{Conn, ListQuery, Row, StoreError, WriteTx};
use serde_json::Value;
use std::future::Future;

/// A request that writes: its transaction and who asks.
pub struct Write<'a> {
    /// The transaction.
    pub tx: WriteTx,
    /// Who asks.
    pub caller: &'a Caller,
    /// The rest of the application.
    pub app: &'a App,
}

impl Write<'_> {
    /// The transaction's connection, for reading.
    pub fn conn(&mut self) -> &mut Conn {
        self.tx.conn()
    }
}

/// One kind of resource.
pub trait Resource: Send + Sync + 'static {
    /// Its own row.
    type Row: Row;
    /// The row with what hangs on it.
    type Item: Send + Sync;

    /// Neutron's name, singular: the key in bodies, and the policy's.
    const NAME: &'static str;
    /// The plural: the key in lists.
    const COLLECTION: &'static str;
    /// The exception for one that is not there.
    const NOT_FOUND: &'static str;
    /// What it is called in messages.
    const TITLE: &'static str;
    /// All but the standard ones.
    const ATTRIBUTES: &'static [Attribute];
    /// The standard ones that it has.
    const STANDARD: &'static [Attribute] = attribute::STANDARD;
    /// What it is called in the policy's rules.
    const POLICY: &'static str = Self::NAME;
    /// Whether those who see it by its being shared only are told that there is nothing to update.
    const HIDES_FROM_UPDATES: bool = false;
    /// What it is called in RBAC policies, if it can be shared by them.
    const RBAC: Option<&'static str> = None;
    /// The attribute that names its parent, for what lives under another resource's path.
    const PARENT: Option<&'static str> = None;
    /// What distinguishes its rows where several kinds share a table: the filter's attribute and its value. Rows of
    /// other kinds are for [`Resource::complete`] to leave out.
    const KIND: Option<(&'static str, &'static str)> = None;

    /// The item's own row.
    fn row(item: &Self::Item) -> &Self::Row;
    /// The parent's id, for what has a [`Resource::PARENT`].
    fn parent_id(item: &Self::Item) -> &str {
        let _ = item;
        ""
    }
    /// Adds what hangs on the rows.
    fn complete(
        conn: &mut Conn,
        rows: Vec<Self::Row>,
    ) -> impl Future<Output = Result<Vec<Self::Item>>> + Send;
    /// All that it shows, to whom may see all of it; what the policy, RBAC and tags add is added.
    fn view(item: &Self::Item) -> View;
    /// Adds to a view what depends on the server's configuration.
    fn finish(app: &App, item: &Self::Item, view: &mut View) {
        let _ = (app, item, view);
    }
    /// What of it no engine enforces yet, as sentences: the answer to a write says so in a Warning header.
    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        let _ = view;
        Vec::new()
    }
    /// What the policy looks at beside the item's own attributes: of the parent that `attributes` names.
    fn target(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> impl Future<Output = Result<Attributes>> + Send {
        let _ = (conn, caller, attributes);
        async { Ok(Attributes::new()) }
    }
    /// Fails as if it were not there unless the caller may see the parent that `attributes` names.
    fn parent(
        conn: &mut Conn,
        caller: &Caller,
        attributes: &Attributes,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (conn, caller, attributes);
        async { Ok(()) }
    }
    /// The id of its row, for what is called by another's id within its parent.
    fn row_id(place: Place<'_>) -> String {
        place.id.to_owned()
    }
    /// What must be there before a list is read.
    fn before_list(
        app: &App,
        caller: &Caller,
        asked: &ListQuery,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (app, caller, asked);
        async { Ok(()) }
    }
    /// What must hold of all that are made by one request, beside what must hold of each.
    ///
    /// # Errors
    /// [`Error`], and none is made.
    fn together(all: &[Attributes]) -> Result<()> {
        let _ = all;
        Ok(())
    }
    /// Its rules for a new one. The attributes are prepared and permitted; `project_id` is there.
    fn create(
        write: &mut Write<'_>,
        attributes: Attributes,
    ) -> impl Future<Output = Result<Self::Item>> + Send;
    /// Its rules for a change. The attributes are prepared and permitted.
    fn update(
        write: &mut Write<'_>,
        item: Self::Item,
        attributes: Attributes,
    ) -> impl Future<Output = Result<Self::Item>> + Send;
    /// Its rules for its end.
    fn delete(write: &mut Write<'_>, item: Self::Item) -> impl Future<Output = Result<()>> + Send;
}

/// What describes a kind of resource to those who only read about it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its rows' name in the record of changes.
    pub kind: &'static str,
    /// [`Resource::NAME`]
    pub name: &'static str,
    /// [`Resource::COLLECTION`]
    pub collection: &'static str,
    /// [`Resource::POLICY`]: also what distinguishes kinds with the same name.
    pub policy: &'static str,
    /// [`Resource::ATTRIBUTES`]
    pub attributes: &'static [Attribute],
    /// [`Resource::STANDARD`]
    pub standard: &'static [Attribute],
}

impl Shape {
    /// That of a resource.
    #[must_use]
    pub fn of<R: Resource>() -> Self {
        Self {
            kind: R::Row::RESOURCE.name(),
            name: R::NAME,
            collection: R::COLLECTION,
            policy: R::POLICY,
            attributes: R::ATTRIBUTES,
            standard: R::STANDARD,
        }
    }
}

/// The error for an id that is not there.
pub fn not_found<R: Resource>(id: &str) -> Error {
    let shown: String = id.chars().take(64).collect();
    Error::not_found(
        R::NOT_FOUND,
        format!("{} {shown} could not be found.", R::TITLE),
    )
}

/// Where an item is: its id, and its parent's for what has a [`Resource::PARENT`].
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The parent's id in the path.
    pub parent: Option<&'a str>,
    /// Its own.
    pub id: &'a str,
}

impl<'a> From<&'a str> for Place<'a> {
    fn from(id: &'a str) -> Self {
        Self { parent: None, id }
    }
}

/// Reads the item at a place; its parent must be visible.
pub(super) async fn find<R: Resource>(
    conn: &mut Conn,
    caller: &Caller,
    place: Place<'_>,
) -> Result<R::Item> {
    if let (Some(name), Some(id)) = (R::PARENT, place.parent) {
        let mut of = Attributes::new();
        of.insert(name.to_owned(), id.into());
        R::parent(conn, caller, &of).await?;
    }
    get::<R>(conn, &R::row_id(place))
        .await?
        .filter(|item| place.parent.is_none_or(|id| R::parent_id(item) == id))
        .ok_or_else(|| not_found::<R>(place.id))
}

/// Reads an item, whoever asks.
///
/// # Errors
/// [`Error::Internal`].
pub async fn get<R: Resource>(conn: &mut Conn, id: &str) -> Result<Option<R::Item>> {
    let row = crate::store::get::<R::Row>(&mut *conn, id).await?;
    Ok(R::complete(conn, row.into_iter().collect())
        .await?
        .into_iter()
        .next())
}

/// The project of a new resource: the caller's, unless an admin names another.
fn project_of(caller: &Caller, attributes: &mut Attributes) -> Result<()> {
    match attributes.get("project_id") {
        None => {
            attributes.insert("project_id".to_owned(), caller.project_id.clone().into());
        }
        Some(project) if *project == caller.project_id || caller.is_admin() => {}
        Some(_) => {
            return Err(Error::bad_request(
                "Specifying 'project_id' or 'tenant_id' other than the authenticated project in \
                 request requires admin privileges",
            ));
        }
    }
    Ok(())
}

/// A write that is done.
pub struct Done {
    /// The answer's body.
    pub body: Value,
    /// What of it no engine enforces yet ([`Resource::unenforced`]).
    pub warnings: Vec<&'static str>,
}

/// POST: one or many; `parent` is the id in the path of what has a [`Resource::PARENT`].
///
/// # Errors
/// [`Error`].
pub async fn create<R: Resource>(
    app: &App,
    caller: &Caller,
    parent: Option<&str>,
    body: Value,
) -> Result<Done> {
    let (objects, bulk) = unwrap_body::<R>(body, true)?;
    let mut prepared = Vec::with_capacity(objects.len());
    for object in objects {
        let mut attributes = attribute::prepare_create(R::ATTRIBUTES, R::STANDARD, object)?;
        project_of(caller, &mut attributes)?;
        if let (Some(name), Some(id)) = (R::PARENT, parent) {
            attributes.insert(name.to_owned(), id.into());
        }
        prepared.push(attributes);
    }
    R::together(&prepared)?;
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let mut views = Vec::with_capacity(prepared.len());
    let mut warnings = Vec::new();
    let mut projects: Vec<(String, i64)> = Vec::new();
    for attributes in prepared {
        let item = create_one::<R>(&mut write, attributes).await?;
        let project = R::row(&item).project_id();
        match projects.iter_mut().find(|(counted, _)| counted == project) {
            Some((_, count)) => *count += 1,
            None => projects.push((project.to_owned(), 1)),
        }
        let view = view::full_of::<R>(app, write.conn(), caller, &item).await?;
        warnings.extend(R::unenforced(&view.attributes()));
        views.push(view::show_to::<R>(app, caller, &view, &[]));
    }
    for (project, new) in &projects {
        quota::check::<R>(&mut write, project, *new).await?;
    }
    write.tx.commit().await?;
    let mut body = Attributes::new();
    if bulk {
        body.insert(R::COLLECTION.to_owned(), views.into());
    } else if let Some(view) = views.pop() {
        body.insert(R::NAME.to_owned(), view);
    }
    warnings.sort_unstable();
    warnings.dedup();
    Ok(Done {
        body: Value::Object(body),
        warnings,
    })
}

/// Checks what the caller may do, and makes one.
async fn create_one<R: Resource>(
    write: &mut Write<'_>,
    mut attributes: Attributes,
) -> Result<R::Item> {
    let (app, caller) = (write.app, write.caller);
    R::parent(write.conn(), caller, &attributes).await?;
    let mut target = attributes.clone();
    target.extend(R::target(write.conn(), caller, &attributes).await?);
    let rule = format!("create_{}", R::POLICY);
    if !app.policy.allows(&rule, caller, &target) {
        return Err(Error::Forbidden(format!("rule:{rule}")));
    }
    authorize_attributes::<R>(app, caller, "create", &attributes, &target)?;
    let tags = attributes.texts("tags").unwrap_or_default();
    let mut item = R::create(write, attributes).await?;
    if !tags.is_empty() {
        crate::store::tags_write::<R::Row>(&mut write.tx, R::row(&item).id(), tags).await?;
        let id = R::row(&item).id().to_owned();
        item = get::<R>(write.conn(), &id)
            .await?
            .ok_or_else(|| not_found::<R>(&id))?;
    }
    Ok(item)
}

/// GET of one: the answer's text.
///
/// # Errors
/// [`Error`].
pub async fn show<R: Resource>(
    app: &App,
    caller: &Caller,
    place: Place<'_>,
    pairs: &[(String, String)],
) -> Result<String> {
    let fields: Vec<_> = pairs
        .iter()
        .filter(|(name, _)| name == "fields")
        .cloned()
        .collect();
    let asked = query::read(R::ATTRIBUTES, R::STANDARD, &fields)?;
    let view = seen::<R>(app, caller, place).await?;
    let mut text = format!("{{\"{}\":", R::NAME).into_bytes();
    Sight::of::<R>(app, caller, &asked.fields).write(&view, &mut text);
    text.push(b'}');
    String::from_utf8(text).map_err(|error| StoreError::Database(error.into()).into())
}

/// One as this caller may see it, with all that it shows.
///
/// # Errors
/// [`Error::NotFound`]
pub(super) async fn seen<R: Resource>(
    app: &App,
    caller: &Caller,
    place: Place<'_>,
) -> Result<View> {
    let mut read = app.store.read().await?;
    let item = find::<R>(read.conn(), caller, place).await?;
    let target = authorize::<R>(app, read.conn(), caller, "get", &item).await?;
    let shared = target.get("shared") == Some(&Value::Bool(true));
    Ok(view::with_shared::<R>(app, &item, shared))
}

/// Begins a change of an item: finds it, asks the policy, compares the revision.
///
/// # Errors
/// [`Error`].
pub async fn begin<'a, R: Resource>(
    app: &'a App,
    caller: &'a Caller,
    action: &str,
    place: Place<'_>,
    if_match: Option<i64>,
) -> Result<(Write<'a>, R::Item, Attributes)> {
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let item = find::<R>(write.conn(), caller, place).await?;
    let target = authorize::<R>(app, write.conn(), caller, action, &item).await?;
    if let Some(wanted) = if_match {
        let current = R::row(&item).revision_number();
        if current != wanted {
            return Err(Error::RevisionMismatch { wanted, current });
        }
    }
    Ok((write, item, target))
}

/// PUT.
///
/// # Errors
/// [`Error`].
pub async fn update<R: Resource>(
    app: &App,
    caller: &Caller,
    place: Place<'_>,
    if_match: Option<i64>,
    body: Value,
) -> Result<Done> {
    let (mut objects, _) = unwrap_body::<R>(body, false)?;
    let object = objects.pop().unwrap_or_default();
    let attributes = attribute::prepare_update(R::ATTRIBUTES, R::STANDARD, object)?;
    let (mut write, item, mut target) = begin::<R>(app, caller, "update", place, if_match).await?;
    for (name, value) in &attributes {
        target.insert(name.clone(), value.clone());
    }
    authorize_attributes::<R>(app, caller, "update", &attributes, &target)?;
    let item = R::update(&mut write, item, attributes).await?;
    let view = view::full_of::<R>(app, write.conn(), caller, &item).await?;
    write.tx.commit().await?;
    let warnings = R::unenforced(&view.attributes());
    let mut body = Attributes::new();
    body.insert(
        R::NAME.to_owned(),
        view::show_to::<R>(app, caller, &view, &[]),
    );
    Ok(Done {
        body: Value::Object(body),
        warnings,
    })
}

/// DELETE.
///
/// # Errors
/// [`Error`].
pub async fn delete<R: Resource>(
    app: &App,
    caller: &Caller,
    place: Place<'_>,
    if_match: Option<i64>,
) -> Result<()> {
    let (mut write, item, _) = begin::<R>(app, caller, "delete", place, if_match).await?;
    let id = R::row(&item).id().to_owned();
    R::delete(&mut write, item).await?;
    if let Some(object_type) = R::RBAC {
        crate::store::rbac_policy::object_gone(&mut write.tx, object_type, &id).await?;
    }
    write.tx.commit().await?;
    Ok(())
}
