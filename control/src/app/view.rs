//! What a caller sees of an item: its attributes, what RBAC adds, and what the policy hides.
//!
//! Guarantees: an attribute is turned into text once, where the item is; whoever wants values reads them from there.

use super::App;
use super::attribute::{self, Attributes};
use super::error::Result;
use super::policy::{Caller, Target};
use super::resource::Resource;
use crate::store::rbac_policy::granted;
use crate::store::{Conn, Row};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;

/// What an item shows: its attributes' JSON text, one behind the other in the order in which they are put.
#[derive(Default)]
pub struct View {
    /// `,"name":value` of each, also of those that are taken out again.
    text: Vec<u8>,
    attributes: Vec<Place>,
    /// Whether something is taken out.
    holes: bool,
}

/// Where an attribute stands in a view's text.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    start: usize,
    /// Where its value begins.
    value: usize,
    end: usize,
}

impl Target for View {
    fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        let place = self.attributes.iter().find(|place| place.name == key)?;
        match self.text.get(place.value..place.end)? {
            b"true" => Some("True".into()),
            b"false" => Some("False".into()),
            text => serde_json::from_slice::<String>(text).ok().map(Cow::Owned),
        }
    }
}

/// Of a view's text and its attributes: what most have room in.
const TEXT_BYTES: usize = 1_536;
const ATTRIBUTES: usize = 48;

impl View {
    /// One without attributes.
    pub(super) fn new() -> Self {
        Self {
            text: Vec::with_capacity(TEXT_BYTES),
            attributes: Vec::with_capacity(ATTRIBUTES),
            holes: false,
        }
    }

    /// Adds an attribute; none is put twice.
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        let start = self.text.len();
        self.text.extend_from_slice(b",\"");
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
        let value_at = self.text.len();
        if serde_json::to_writer(&mut self.text, value).is_err() {
            // Only a map whose keys are no texts has no JSON.
            self.text.truncate(value_at);
            self.text.extend_from_slice(b"null");
        }
        let end = self.text.len();
        self.attributes.push(Place {
            name,
            start,
            value: value_at,
            end,
        });
    }

    /// Takes attributes out.
    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let before = self.attributes.len();
        self.attributes.retain(|place| keep(place.name));
        self.holes |= self.attributes.len() < before;
    }

    /// Takes an attribute out.
    pub(super) fn remove(&mut self, name: &str) {
        self.retain(|other| other != name);
    }

    /// Writes it as an object, without the attributes that are left out.
    fn write(&self, out: &mut Vec<u8>, left_out: impl Fn(&str) -> bool) {
        out.push(b'{');
        let first = out.len();
        for place in &self.attributes {
            if !left_out(place.name) {
                let from = place.start + usize::from(out.len() == first);
                out.extend_from_slice(&self.text[from..place.end]);
            }
        }
        out.push(b'}');
    }

    /// Writes it whole.
    fn write_whole(&self, out: &mut Vec<u8>) {
        if self.holes {
            return self.write(out, |_| false);
        }
        out.push(b'{');
        out.extend_from_slice(self.text.get(1..).unwrap_or_default());
        out.push(b'}');
    }

    /// Its text, to stand within another's.
    pub(super) fn raw(&self) -> Option<Box<RawValue>> {
        let mut text = Vec::with_capacity(self.text.len() + 2);
        self.write_whole(&mut text);
        RawValue::from_string(String::from_utf8(text).ok()?).ok()
    }

    /// As values.
    pub(super) fn attributes(&self) -> Attributes {
        let mut text = Vec::with_capacity(self.text.len() + 2);
        self.write_whole(&mut text);
        // What serde_json has written it can read.
        serde_json::from_slice(&text).unwrap_or_default()
    }
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

/// The view of an item, which is shared with the caller's project or is not.
pub(super) fn with_shared<R: Resource>(app: &App, item: &R::Item, shared: bool) -> View {
    let mut view = R::view(item);
    R::finish(app, item, &mut view);
    if view
        .attributes
        .iter()
        .any(|place| place.name == "project_id")
    {
        view.put("tenant_id", R::row(item).project_id());
    }
    if R::RBAC.is_some() {
        view.put("shared", &shared);
    }
    if R::STANDARD.len() < attribute::STANDARD.len() {
        drop_what_it_lacks::<R>(&mut view);
    }
    view
}

/// Takes out the standard attributes that this resource has not.
fn drop_what_it_lacks<R: Resource>(view: &mut View) {
    let has = |name: &str| attribute::find(R::ATTRIBUTES, R::STANDARD, name).is_some();
    view.retain(|name| match name {
        "tenant_id" => has("project_id"),
        _ => has(name) || attribute::STANDARD.iter().all(|other| other.name != name),
    });
}

/// The view of one item.
pub(super) async fn full_of<R: Resource>(
    app: &App,
    conn: &mut Conn,
    caller: &Caller,
    item: &R::Item,
) -> Result<View> {
    let shared = shared_of::<R>(conn, caller, std::slice::from_ref(item)).await?;
    let shared = shared.contains(R::row(item).id());
    Ok(with_shared::<R>(app, item, shared))
}

/// What a caller may see of all items of a kind, and of that what it asked for.
pub(super) struct Sight<'a> {
    app: &'a App,
    caller: &'a Caller,
    /// The attributes to show; empty for all.
    fields: &'a [String],
    /// Attributes that are hidden, whatever the item is.
    hidden: Vec<&'a str>,
    /// Attributes whose rule looks at the item, and the rule.
    asked: Vec<(&'a str, &'a str)>,
}

impl<'a> Sight<'a> {
    /// This caller's on items of a kind.
    pub(super) fn of<R: Resource>(app: &'a App, caller: &'a Caller, fields: &'a [String]) -> Self {
        let (mut hidden, mut asked) = (Vec::new(), Vec::new());
        if !caller.is_admin() {
            for (attribute, rule) in app.policy.attribute_rules(&format!("get_{}:", R::POLICY)) {
                match app.policy.settled(rule, caller) {
                    Some(true) => {}
                    Some(false) => hidden.push(attribute),
                    None => asked.push((attribute, rule)),
                }
            }
        }
        Self {
            app,
            caller,
            fields,
            hidden,
            asked,
        }
    }

    /// Writes what it shows of a view, as an object.
    pub(super) fn write(&self, view: &View, out: &mut Vec<u8>) {
        if self.fields.is_empty() && self.hidden.is_empty() && self.asked.is_empty() {
            return view.write_whole(out);
        }
        let refused = self.refused(view);
        view.write(out, |name| {
            let asked_for = self.fields.is_empty() || self.fields.iter().any(|field| field == name);
            !asked_for || self.hidden.contains(&name) || refused.contains(&name)
        });
    }

    /// The attributes that this item's own attributes hide.
    fn refused(&self, view: &View) -> Vec<&'a str> {
        let refused = |(_, rule): &&(&str, &str)| !self.app.policy.allows(rule, self.caller, view);
        self.asked
            .iter()
            .filter(refused)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// The text of some items, each with a comma behind it.
pub(super) fn list_text<R: Resource>(
    app: &App,
    caller: &Caller,
    fields: &[String],
    items: &[R::Item],
    shared: &HashSet<String>,
) -> Vec<u8> {
    let sight = Sight::of::<R>(app, caller, fields);
    let mut text = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let shared = shared.contains(R::row(item).id());
        sight.write(&with_shared::<R>(app, item, shared), &mut text);
        text.push(b',');
        if n == 0 {
            // The others are about as long as the first.
            text.reserve((text.len() + 16) * items.len());
        }
    }
    text
}

/// What a caller may see of an item, and of it what was asked for.
pub(super) fn show_to<R: Resource>(
    app: &App,
    caller: &Caller,
    view: &View,
    fields: &[String],
) -> Value {
    let mut text = Vec::new();
    Sight::of::<R>(app, caller, fields).write(view, &mut text);
    serde_json::from_slice(&text).unwrap_or_default()
}

/// A time as Neutron prints it.
pub fn time_text(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// Builds a view: `view! { row; "name" => value, … }` with the row's standard attributes, `view! { bare row; … }` with
/// its id and project only, `view! { none; … }` with neither.
macro_rules! view {
    (none; $($name:expr => $value:expr,)*) => {{
        let mut view = crate::app::view::View::new();
        $(view.put($name, &$value);)*
        view
    }};
    (bare $row:expr; $($name:literal => $value:expr,)*) => {
        crate::app::view::view! { none;
            "id" => $row.id,
            "project_id" => $row.project_id,
            $($name => $value,)*
        }
    };
    ($row:expr; $($name:literal => $value:expr,)*) => {
        crate::app::view::view! { none;
            "id" => $row.id,
            "project_id" => $row.project_id,
            "description" => $row.description,
            "created_at" => crate::app::view::time_text($row.created_at),
            "updated_at" => crate::app::view::time_text($row.updated_at),
            "revision_number" => $row.revision_number,
            "tags" => $row.tags.0,
            $($name => $value,)*
        }
    };
}
pub(super) use view;
