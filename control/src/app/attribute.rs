//! Attributes as data: what a resource accepts on POST and PUT, what it fills in, what it shows, and what it may be
//! filtered and sorted by. Every resource's body is checked by the code here, from its table.
//!
//! Guarantees: what comes out of [`prepare_create`] and [`prepare_update`] has only known attributes, each of its
//! kind and within its bounds; messages name the attribute.

use super::error::{Error, Result, quote, quote_value};
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::net::IpAddr;
use uuid::Uuid;
use weft_model::MacAddress;

/// A JSON object: a resource's attributes.
pub type Attributes = Map<String, Value>;

/// What an attribute holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A truth value, or one of the texts that Python's oslo takes for one.
    Bool,
    /// A whole number between two, ends included.
    Int(i64, i64),
    /// A text of at most so many characters.
    Text(usize),
    /// A UUID.
    Uuid,
    /// One of some texts.
    OneOf(&'static [&'static str]),
    /// An address; becomes canonical.
    Ip,
    /// A MAC address; becomes lower case.
    Mac,
    /// A list of UUIDs without repetition.
    UuidList,
    /// What a function makes of it, or its reason to refuse it.
    Custom(fn(&Value) -> Result<Value, String>),
}

/// What stands for an attribute that a POST does not mention.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// Nothing: it must be given.
    Required,
    /// The resource's rules decide.
    Unset,
    /// null
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(&'static str),
    /// []
    EmptyList,
}

/// One attribute of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name in the API.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether null is a value.
    pub nullable: bool,
    /// Allowed in POST.
    pub post: bool,
    /// Allowed in PUT.
    pub put: bool,
    /// For POST.
    pub default: Default,
    /// Lists may be filtered by it.
    pub filter: bool,
    /// Lists may be sorted by it.
    pub sort: bool,
}

impl Attribute {
    /// An attribute that only the server writes.
    pub const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            nullable: false,
            post: false,
            put: false,
            default: Default::Unset,
            filter: false,
            sort: false,
        }
    }

    /// Must be given on POST, and cannot change.
    pub const fn required(mut self) -> Self {
        self.post = true;
        self.default = Default::Required;
        self
    }

    /// May be given on POST.
    pub const fn post(mut self, default: Default) -> Self {
        self.post = true;
        self.default = default;
        self
    }

    /// May be given on PUT.
    pub const fn put(mut self) -> Self {
        self.put = true;
        self
    }

    /// null is a value.
    pub const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Lists may be filtered by it.
    pub const fn filter(mut self) -> Self {
        self.filter = true;
        self
    }

    /// Lists may be sorted by it, and not filtered.
    pub const fn order(mut self) -> Self {
        self.sort = true;
        self
    }

    /// Lists may be filtered and sorted by it.
    pub const fn sort(mut self) -> Self {
        self.filter = true;
        self.sort = true;
        self
    }

    /// The value as the rules expect it, or the reason why it cannot be.
    ///
    /// # Errors
    /// The reason, without the attribute's name.
    pub fn check(&self, value: &Value) -> Result<Value, String> {
        if value.is_null() {
            return if self.nullable {
                Ok(Value::Null)
            } else {
                Err(self.null_refused())
            };
        }
        match self.kind {
            Kind::Bool => bool_of(value).map(Value::from),
            Kind::Int(min, max) => int_of(value, min, max).map(Value::from),
            Kind::Text(max) => text_of(value, max).map(Value::from),
            Kind::Uuid => uuid_of(value).map(Value::from),
            Kind::OneOf(values) => one_of(value, values),
            Kind::Ip => ip_of(value).map(|ip| Value::from(ip.to_string())),
            Kind::Mac => mac_of(value).map(|mac| Value::from(mac.to_string())),
            Kind::UuidList => uuid_list_of(value),
            Kind::Custom(check) => check(value),
        }
    }

    fn null_refused(&self) -> String {
        match self.kind {
            Kind::Bool => "'None' cannot be converted to boolean".to_owned(),
            Kind::Int(..) => "'None' is not an integer".to_owned(),
            Kind::Uuid => "'None' is not a valid UUID".to_owned(),
            _ => "'None' is not a valid value".to_owned(),
        }
    }
}

/// The standard attributes, those of fewer resources last.
const ALL: [Attribute; 7] = [
    Attribute::new("id", Kind::Uuid).sort(),
    Attribute::new("project_id", Kind::Text(255))
        .post(Default::Unset)
        .sort(),
    Attribute::new("description", Kind::Text(255))
        .post(Default::Text(""))
        .put()
        .filter(),
    Attribute::new("created_at", Kind::Text(255)),
    Attribute::new("updated_at", Kind::Text(255)),
    Attribute::new("revision_number", Kind::Int(0, i64::MAX)).filter(),
    Attribute::new("tags", Kind::Custom(tags_of)).post(Default::EmptyList),
];

/// Attributes of nearly every resource.
pub static STANDARD: &[Attribute] = &ALL;
/// The standard attributes of what has no tags.
pub static STANDARD_UNTAGGED: &[Attribute] = &[ALL[0], ALL[1], ALL[2], ALL[3], ALL[4], ALL[5]];
/// Those of what belongs to no project.
pub static STANDARD_GLOBAL: &[Attribute] = &[ALL[0], ALL[2], ALL[3], ALL[4], ALL[5]];
/// Those of what has only its id and project.
pub static STANDARD_BARE: &[Attribute] = &[ALL[0], ALL[1]];
/// Those of what has only its id, and belongs to no project.
pub static STANDARD_ID: &[Attribute] = &[ALL[0]];

/// Tags of one resource (Neutron's limit is the database's; this one is ours).
pub const TAGS_MAX: usize = 50;

/// Reads a list of tags: each a text of 1 to 255 characters, none twice.
///
/// # Errors
/// The reason.
pub fn tags_of(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!("{} is not a list", quote_value(value)));
    };
    if list.len() > TAGS_MAX {
        return Err(format!("a list of more than {TAGS_MAX} tags"));
    }
    let mut tags = Vec::with_capacity(list.len());
    for item in list {
        let tag = text_of(item, 255)?;
        if tag.is_empty() {
            return Err("a tag must not be empty".to_owned());
        }
        if tags.contains(&tag) {
            return Err(format!(
                "Duplicate items in the list: {}",
                quote_value(value)
            ));
        }
        tags.push(tag);
    }
    Ok(tags.into())
}

/// The attribute of this name, among a resource's own and the standard ones that it has.
pub fn find(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    name: &str,
) -> Option<&'static Attribute> {
    let name = if name == "tenant_id" {
        "project_id"
    } else {
        name
    };
    own.iter()
        .chain(standard)
        .find(|attribute| attribute.name == name)
}

/// tenant_id is the old name of project_id.
fn rename_tenant(body: &mut Attributes) -> Result<()> {
    if let Some(tenant) = body.remove("tenant_id") {
        if body
            .get("project_id")
            .is_some_and(|project| *project != tenant)
        {
            return Err(Error::bad_request(
                "'project_id' and 'tenant_id' do not match in the request body.",
            ));
        }
        body.insert("project_id".to_owned(), tenant);
    }
    Ok(())
}

/// Checks the body of a POST, fills in the defaults.
///
/// # Errors
/// [`Error::Invalid`], naming the attribute.
pub fn prepare_create(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    body: Attributes,
) -> Result<Attributes> {
    let mut ready = prepare(own, standard, body, "POST", |attribute| attribute.post)?;
    for attribute in own
        .iter()
        .chain(standard)
        .filter(|attribute| attribute.post)
    {
        if ready.contains_key(attribute.name) {
            continue;
        }
        let value = match attribute.default {
            Default::Required => {
                return Err(Error::bad_request(format!(
                    "Failed to parse request. Required attribute '{}' not specified",
                    attribute.name
                )));
            }
            Default::Unset => continue,
            Default::Null => Value::Null,
            Default::Bool(truth) => truth.into(),
            Default::Int(number) => number.into(),
            Default::Text(text) => text.into(),
            Default::EmptyList => Value::Array(Vec::new()),
        };
        ready.insert(attribute.name.to_owned(), value);
    }
    Ok(ready)
}

/// Checks the body of a PUT.
///
/// # Errors
/// [`Error::Invalid`], naming the attribute.
pub fn prepare_update(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    body: Attributes,
) -> Result<Attributes> {
    prepare(own, standard, body, "PUT", |attribute| attribute.put)
}

fn prepare(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    mut body: Attributes,
    method: &str,
    allowed: fn(&Attribute) -> bool,
) -> Result<Attributes> {
    rename_tenant(&mut body)?;
    let mut unknown: Vec<String> = Vec::new();
    let mut ready = Attributes::new();
    for (name, value) in &body {
        let Some(attribute) = find(own, standard, name) else {
            unknown.push(quote(name));
            continue;
        };
        if !allowed(attribute) {
            return Err(Error::bad_request(format!(
                "Attribute '{}' not allowed in {method}",
                attribute.name
            )));
        }
        let value = attribute
            .check(value)
            .map_err(|reason| Error::attribute(attribute.name, reason))?;
        ready.insert(attribute.name.to_owned(), value);
    }
    if unknown.is_empty() {
        Ok(ready)
    } else {
        unknown.truncate(16);
        Err(Error::bad_request(format!(
            "Unrecognized attribute(s) {}",
            unknown.join(", ")
        )))
    }
}

/// Whether a value in a prepared POST body was given and is not what would have been filled in anyhow.
pub fn is_explicit(attribute: &Attribute, value: &Value) -> bool {
    match attribute.default {
        Default::Required | Default::Unset => true,
        Default::Null => !value.is_null(),
        Default::Bool(truth) => value.as_bool() != Some(truth),
        Default::Int(number) => value.as_i64() != Some(number),
        Default::Text(text) => value.as_str() != Some(text),
        Default::EmptyList => value.as_array().is_none_or(|list| !list.is_empty()),
    }
}

/// Reads a truth value as oslo's strict `bool_from_string` does.
///
/// # Errors
/// The reason.
pub fn bool_of(value: &Value) -> Result<bool, String> {
    let refused = || format!("{} cannot be converted to boolean", quote_value(value));
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(refused()),
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(true),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(false),
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

/// Reads a whole number, from a number or a text.
///
/// # Errors
/// The reason.
pub fn int_of(value: &Value, min: i64, max: i64) -> Result<i64, String> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| format!("{} is not an integer", quote_value(value)))?;
    if number < min {
        Err(format!(
            "'{number}' is too small - must be at least '{min}'"
        ))
    } else if number > max {
        Err(format!(
            "'{number}' is too large - must be no larger than '{max}'"
        ))
    } else {
        Ok(number)
    }
}

/// Reads a text. NUL is refused: databases cannot hold it.
///
/// # Errors
/// The reason.
pub fn text_of(value: &Value, max: usize) -> Result<String, String> {
    let Value::String(text) = value else {
        return Err(format!("{} is not a valid string", quote_value(value)));
    };
    if text.chars().count() > max {
        Err(format!("{} exceeds maximum length of {max}", quote(text)))
    } else if text.contains('\0') {
        Err(format!("{} contains a null character", quote(text)))
    } else {
        Ok(text.clone())
    }
}

/// Reads a UUID; becomes its canonical text.
///
/// # Errors
/// The reason.
pub fn uuid_of(value: &Value) -> Result<String, String> {
    value
        .as_str()
        .and_then(|text| Uuid::try_parse(text).ok())
        .map(|uuid| uuid.to_string())
        .ok_or_else(|| format!("{} is not a valid UUID", quote_value(value)))
}

/// Reads an address.
///
/// # Errors
/// The reason.
pub fn ip_of(value: &Value) -> Result<IpAddr, String> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a valid IP address", quote_value(value)))
}

/// Reads a range, host bits as they are.
///
/// # Errors
/// The reason.
pub fn cidr_of(value: &Value) -> Result<IpNet, String> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("{} is not a valid IP subnet", quote_value(value)))
}

/// Reads a station's MAC address.
///
/// # Errors
/// The reason.
pub fn mac_of(value: &Value) -> Result<MacAddress, String> {
    value
        .as_str()
        .and_then(|text| text.replace('-', ":").parse::<MacAddress>().ok())
        .filter(|mac| !mac.is_zero())
        .ok_or_else(|| format!("{} is not a valid MAC address", quote_value(value)))
}

fn one_of(value: &Value, values: &[&str]) -> Result<Value, String> {
    match value.as_str() {
        Some(text) if values.contains(&text) => Ok(value.clone()),
        _ => Err(format!("{} is not in {values:?}", quote_value(value)).replace('"', "'")),
    }
}

fn uuid_list_of(value: &Value) -> Result<Value, String> {
    const UUIDS_MAX: usize = 1_024;
    let Value::Array(list) = value else {
        return Err(format!("{} is not a list", quote_value(value)));
    };
    if list.len() > UUIDS_MAX {
        return Err(format!("a list of more than {UUIDS_MAX} items"));
    }
    let mut uuids: Vec<String> = list.iter().map(uuid_of).collect::<Result<_, _>>()?;
    let given = uuids.len();
    uuids.sort();
    uuids.dedup();
    if uuids.len() < given {
        return Err(format!(
            "Duplicate items in the list: {}",
            quote_value(value)
        ));
    }
    Ok(uuids.into())
}

/// Reads a list of objects with a function, at most `max` of them.
///
/// # Errors
/// The reason.
pub fn objects_of<T>(
    value: &Value,
    max: usize,
    what: &str,
    read: impl Fn(&Attributes) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let Value::Array(list) = value else {
        return Err(format!(
            "Invalid data format for {what}: {}",
            quote_value(value)
        ));
    };
    if list.len() > max {
        return Err(format!("Exceeded maximum amount of {what}: at most {max}"));
    }
    list.iter()
        .map(|item| match item {
            Value::Object(object) => read(object),
            other => Err(format!(
                "Invalid data format for {what}: {}",
                quote_value(other)
            )),
        })
        .collect()
}

/// Refuses keys that an object may not have.
///
/// # Errors
/// The reason.
pub fn only_keys(object: &Attributes, keys: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "unexpected key {}; expected {}",
            quote(key),
            keys.join(", ")
        )),
    }
}

/// Takes attributes out of a prepared body, by type. What the table promised is there; anything else is as if not
/// given.
pub trait Take {
    /// A text; empty if not given.
    fn text(&mut self, name: &str) -> String;
    /// A text, if given and not null.
    fn text_opt(&mut self, name: &str) -> Option<String>;
    /// A truth value, if given.
    fn truth(&mut self, name: &str) -> Option<bool>;
    /// A number, if given.
    fn int(&mut self, name: &str) -> Option<i64>;
    /// A text that may be null: the outer level says whether it was given.
    fn text_or_null(&mut self, name: &str) -> Option<Option<String>>;
    /// A value of a known shape, if given and not null.
    fn shaped<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T>;
    /// A list of texts, if given.
    fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.shaped(name)
    }
}

impl Take for Attributes {
    fn text(&mut self, name: &str) -> String {
        self.text_opt(name).unwrap_or_default()
    }

    fn text_opt(&mut self, name: &str) -> Option<String> {
        match self.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn truth(&mut self, name: &str) -> Option<bool> {
        self.remove(name)?.as_bool()
    }

    fn int(&mut self, name: &str) -> Option<i64> {
        self.remove(name)?.as_i64()
    }

    fn text_or_null(&mut self, name: &str) -> Option<Option<String>> {
        match self.remove(name)? {
            Value::String(text) => Some(Some(text)),
            _ => Some(None),
        }
    }

    fn shaped<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        serde_json::from_value(self.remove(name)?).ok()
    }
}
