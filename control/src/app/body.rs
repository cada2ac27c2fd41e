//! Bodies of requests that write: one object under the resource's name, or many under the collection's.

use super::attribute::Attributes;
use super::error::{Error, Result, quote};
use super::resource::Resource;
use serde_json::Value;

/// Items of one bulk request.
pub const BULK_ITEMS_MAX: usize = 10_000;

/// The body's one object, or the objects of a bulk request.
pub fn unwrap_body<R: Resource>(body: Value, bulk: bool) -> Result<(Vec<Attributes>, bool)> {
    let Value::Object(mut body) = body else {
        return Err(Error::bad_request("The request body must be a JSON object"));
    };
    let beside = body
        .keys()
        .find(|key| *key != R::NAME && *key != R::COLLECTION);
    if let Some(beside) = beside
        && (body.contains_key(R::NAME) || body.contains_key(R::COLLECTION))
    {
        return Err(Error::bad_request(format!(
            "{} stands beside the body's resource, where nothing is expected",
            quote(beside)
        )));
    }
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
        let objects: Option<Vec<_>> = list.into_iter().map(unwrap_item::<R>).collect();
        let wrong = || Error::bad_request(format!("'{}' must hold objects only", R::COLLECTION));
        return Ok((objects.ok_or_else(wrong)?, true));
    }
    Err(Error::bad_request(format!(
        "Unable to find '{}' in request body: expected {{\"{}\": {{…}}}} and nothing else",
        R::NAME,
        R::NAME
    )))
}

/// One item of a bulk request: its attributes, or (as Neutron's own clients write it) an object that holds them under
/// the resource's name.
fn unwrap_item<R: Resource>(item: Value) -> Option<Attributes> {
    let Value::Object(mut object) = item else {
        return None;
    };
    match object.get_mut(R::NAME) {
        Some(Value::Object(inner)) => {
            let inner = std::mem::take(inner);
            (object.len() == 1).then_some(inner)
        }
        _ => Some(object),
    }
}
