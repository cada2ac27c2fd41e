//! Create, list, show, update and delete, the same for every resource: who may, what is visible, quotas, revisions,
//! bulk. A resource adds its attributes and its own rules by [`Resource`].
//!
//! Guarantees: one request is one transaction; a bulk request is carried out whole or not at all; what a caller may
//! not see does not exist for it.

use super::attribute::{self, Attribute, Attributes, is_explicit};
use super::error::{Error, Result};
use super::policy::Caller;
use super::query::{self, Asked};
use super::{App, quota};
use crate::store::{Conn, Row, Scope, WriteTx};
use serde_json::Value;
use std::future::Future;

/// Items of one bulk request.
pub const BULK_ITEMS_MAX: usize = 10_000;

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

    /// The item's own row.
    fn row(item: &Self::Item) -> &Self::Row;
    /// Adds what hangs on the rows.
    fn complete(
        conn: &mut Conn,
        rows: Vec<Self::Row>,
    ) -> impl Future<Output = Result<Vec<Self::Item>>> + Send;
    /// All that it shows, to whom may see all of it; the standard attributes are added.
    fn view(item: &Self::Item) -> Attributes;
    /// What the policy looks at beside the item's own attributes: of the parent that `attributes` names.
    fn target(
        conn: &mut Conn,
        attributes: &Attributes,
    ) -> impl Future<Output = Result<Attributes>> + Send {
        let _ = (conn, attributes);
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
    /// What must be there before a list is read.
    fn before_list(app: &App, caller: &Caller) -> impl Future<Output = Result<()>> + Send {
        let _ = (app, caller);
        async { Ok(()) }
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

/// The error for an id that is not there.
pub fn not_found<R: Resource>(id: &str) -> Error {
    let shown: String = id.chars().take(64).collect();
    Error::not_found(
        R::NOT_FOUND,
        format!("{} {shown} could not be found.", R::TITLE),
    )
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

/// The view with the standard attributes.
fn full_view<R: Resource>(item: &R::Item) -> Attributes {
    let mut view = R::view(item);
    if let Some(project) = view.get("project_id").cloned() {
        view.insert("tenant_id".to_owned(), project);
    }
    view
}

/// Keeps what this caller may see, and of it what was asked for.
fn show_to<R: Resource>(
    app: &App,
    caller: &Caller,
    mut view: Attributes,
    fields: &[String],
) -> Value {
    if !caller.is_admin() {
        let hidden: Vec<String> = view
            .keys()
            .filter(|name| {
                let rule = format!("get_{}:{name}", R::NAME);
                app.policy.has(&rule) && !app.policy.allows(&rule, caller, &view)
            })
            .cloned()
            .collect();
        for name in hidden {
            view.remove(&name);
        }
    }
    if !fields.is_empty() {
        view.retain(|name, _| {
            let name = if name == "tenant_id" {
                "project_id"
            } else {
                name
            };
            fields.iter().any(|field| field == name)
        });
    }
    Value::Object(view)
}

/// Fails as if it were not there unless the caller may see it, and as forbidden unless it may do `action` to it.
async fn authorize<R: Resource>(
    app: &App,
    conn: &mut Conn,
    caller: &Caller,
    action: &str,
    item: &R::Item,
) -> Result<Attributes> {
    let mut target = full_view::<R>(item);
    let more = R::target(conn, &target).await?;
    target.extend(more);
    if !app
        .policy
        .allows(&format!("get_{}", R::NAME), caller, &target)
    {
        return Err(not_found::<R>(R::row(item).id()));
    }
    let mut rule = format!("{action}_{}", R::NAME);
    if !app.policy.has(&rule) {
        // Neutron has no rule for updates of security group rules: whoever may delete one may describe it.
        rule = format!("delete_{}", R::NAME);
    }
    if action != "get" && !app.policy.allows(&rule, caller, &target) {
        return Err(Error::Forbidden(format!("rule:{rule}")));
    }
    Ok(target)
}

/// Refuses the attributes that need a permission which the caller lacks, down to the keys of objects.
fn authorize_attributes<R: Resource>(
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
            || attribute::find(R::ATTRIBUTES, name).is_none_or(|a| is_explicit(a, value));
        if !explicit || name == "project_id" {
            continue;
        }
        let rule = format!("{action}_{}:{name}", R::NAME);
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

/// The body's one object, or the objects of a bulk request.
pub fn unwrap_body<R: Resource>(body: Value, bulk: bool) -> Result<(Vec<Attributes>, bool)> {
    let Value::Object(mut body) = body else {
        return Err(Error::bad_request("The request body must be a JSON object"));
    };
    if let (Some(Value::Object(one)), true) = (body.remove(R::NAME), body.is_empty()) {
        return Ok((vec![one], false));
    }
    if bulk && let (Some(Value::Array(list)), true) = (body.remove(R::COLLECTION), body.is_empty())
    {
        if list.is_empty() || list.len() > BULK_ITEMS_MAX {
            return Err(Error::bad_request(format!(
                "Resources required: '{}' must hold 1 to {BULK_ITEMS_MAX} objects",
                R::COLLECTION
            )));
        }
        let objects: Option<Vec<_>> = list
            .into_iter()
            .map(|item| {
                if let Value::Object(object) = item {
                    Some(object)
                } else {
                    None
                }
            })
            .collect();
        let wrong = || Error::bad_request(format!("'{}' must hold objects only", R::COLLECTION));
        return Ok((objects.ok_or_else(wrong)?, true));
    }
    Err(Error::bad_request(format!(
        "Unable to find '{}' in request body: expected {{\"{}\": {{…}}}} and nothing else",
        R::NAME,
        R::NAME
    )))
}

/// The project of a new resource: the caller's, unless an admin names another.
fn project_of(caller: &Caller, attributes: &mut Attributes) -> Result<()> {
    match attributes.get("project_id").and_then(Value::as_str) {
        None => {
            attributes.insert("project_id".to_owned(), caller.project_id.clone().into());
        }
        Some(project) if project == caller.project_id || caller.is_admin() => {}
        Some(_) => {
            return Err(Error::bad_request(
                "Specifying 'project_id' or 'tenant_id' other than the authenticated project in \
                 request requires admin privileges",
            ));
        }
    }
    Ok(())
}

/// POST: one or many.
///
/// # Errors
/// [`Error`].
pub async fn create<R: Resource>(app: &App, caller: &Caller, body: Value) -> Result<Value> {
    let (objects, bulk) = unwrap_body::<R>(body, true)?;
    let mut prepared = Vec::with_capacity(objects.len());
    for object in objects {
        let mut attributes = attribute::prepare_create(R::ATTRIBUTES, object)?;
        project_of(caller, &mut attributes)?;
        prepared.push(attributes);
    }
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let mut views = Vec::with_capacity(prepared.len());
    let mut projects: Vec<(String, i64)> = Vec::new();
    for attributes in prepared {
        R::parent(write.conn(), caller, &attributes).await?;
        let mut target = attributes.clone();
        target.extend(R::target(write.conn(), &attributes).await?);
        let rule = format!("create_{}", R::NAME);
        if !app.policy.allows(&rule, caller, &target) {
            return Err(Error::Forbidden(format!("rule:{rule}")));
        }
        authorize_attributes::<R>(app, caller, "create", &attributes, &target)?;
        let project = attributes
            .get("project_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        match projects.iter_mut().find(|(counted, _)| counted == project) {
            Some((_, count)) => *count += 1,
            None => projects.push((project.to_owned(), 1)),
        }
        let item = R::create(&mut write, attributes).await?;
        views.push(show_to::<R>(app, caller, full_view::<R>(&item), &[]));
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
    Ok(Value::Object(body))
}

/// A page of a list.
pub struct Listed {
    /// The items as the caller sees them.
    pub items: Vec<Value>,
    /// The ids of the first and the last one.
    pub ends: Option<(String, String)>,
    /// What was asked.
    pub asked: Asked,
}

/// GET of the collection.
///
/// # Errors
/// [`Error`].
pub async fn list<R: Resource>(
    app: &App,
    caller: &Caller,
    pairs: &[(String, String)],
) -> Result<Listed> {
    let mut asked = query::read(R::ATTRIBUTES, pairs)?;
    let allows = |project: &str| {
        let mut target = Attributes::new();
        target.insert("project_id".to_owned(), project.into());
        target.insert("security_group:project_id".to_owned(), project.into());
        app.policy
            .allows(&format!("get_{}", R::NAME), caller, &target)
    };
    // A project that nobody has: whoever may see its rows may see all.
    asked.list.scope = match (allows("*"), allows(&caller.project_id)) {
        (true, _) => Scope::All,
        (false, true) => Scope::Project(caller.project_id.clone()),
        (false, false) => {
            return Ok(Listed {
                items: Vec::new(),
                ends: None,
                asked,
            });
        }
    };
    R::before_list(app, caller).await?;
    let mut read = app.store.read().await?;
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
    drop(read);
    let items = items
        .iter()
        .map(|item| show_to::<R>(app, caller, full_view::<R>(item), &asked.fields))
        .collect();
    Ok(Listed { items, ends, asked })
}

/// GET of one.
///
/// # Errors
/// [`Error`].
pub async fn show<R: Resource>(
    app: &App,
    caller: &Caller,
    id: &str,
    pairs: &[(String, String)],
) -> Result<Value> {
    let fields: Vec<_> = pairs
        .iter()
        .filter(|(name, _)| name == "fields")
        .cloned()
        .collect();
    let asked = query::read(R::ATTRIBUTES, &fields)?;
    let mut read = app.store.read().await?;
    let item = get::<R>(read.conn(), id)
        .await?
        .ok_or_else(|| not_found::<R>(id))?;
    authorize::<R>(app, read.conn(), caller, "get", &item).await?;
    drop(read);
    Ok(wrap::<R>(show_to::<R>(
        app,
        caller,
        full_view::<R>(&item),
        &asked.fields,
    )))
}

fn wrap<R: Resource>(view: Value) -> Value {
    let mut body = Attributes::new();
    body.insert(R::NAME.to_owned(), view);
    Value::Object(body)
}

/// Begins a change of an item: finds it, asks the policy, compares the revision.
///
/// # Errors
/// [`Error`].
pub async fn begin<'a, R: Resource>(
    app: &'a App,
    caller: &'a Caller,
    action: &str,
    id: &str,
    if_match: Option<i64>,
) -> Result<(Write<'a>, R::Item, Attributes)> {
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let item = get::<R>(write.conn(), id)
        .await?
        .ok_or_else(|| not_found::<R>(id))?;
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
    id: &str,
    if_match: Option<i64>,
    body: Value,
) -> Result<Value> {
    let (mut objects, _) = unwrap_body::<R>(body, false)?;
    let attributes = attribute::prepare_update(R::ATTRIBUTES, objects.pop().unwrap_or_default())?;
    let (mut write, item, mut target) = begin::<R>(app, caller, "update", id, if_match).await?;
    for (name, value) in &attributes {
        target.insert(name.clone(), value.clone());
    }
    authorize_attributes::<R>(app, caller, "update", &attributes, &target)?;
    let item = R::update(&mut write, item, attributes).await?;
    write.tx.commit().await?;
    Ok(wrap::<R>(show_to::<R>(
        app,
        caller,
        full_view::<R>(&item),
        &[],
    )))
}

/// DELETE.
///
/// # Errors
/// [`Error`].
pub async fn delete<R: Resource>(
    app: &App,
    caller: &Caller,
    id: &str,
    if_match: Option<i64>,
) -> Result<()> {
    let (mut write, item, _) = begin::<R>(app, caller, "delete", id, if_match).await?;
    R::delete(&mut write, item).await?;
    write.tx.commit().await?;
    Ok(())
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
            crate::app::resource::time_text($row.created_at).into(),
        );
        $view.insert(
            "updated_at".to_owned(),
            crate::app::resource::time_text($row.updated_at).into(),
        );
        $view.insert("revision_number".to_owned(), $row.revision_number.into());
        $view.insert("tags".to_owned(), serde_json::Value::Array(Vec::new()));
    };
}
pub(super) use standard_view;

/// Builds a view: `view! { row; "name" => value, … }` with the row's standard attributes.
macro_rules! view {
    ($row:expr; $($name:literal => $value:expr,)*) => {{
        let mut view = crate::app::attribute::Attributes::new();
        crate::app::resource::standard_view!(view, $row);
        $(view.insert($name.to_owned(), serde_json::json!($value));)*
        view
    }};
}
pub(super) use view;
