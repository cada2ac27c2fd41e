//! The extensions that hold: what clients look at to know what they may ask for.

use super::error::{Error, Result};
use serde_json::{Value, json};

/// One extension a line: alias, name and description between tabs. An alias stands there once all that it says holds.
const EXTENSIONS: &str = include_str!("../../extensions.tsv");

/// Alias, name, description.
fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    EXTENSIONS.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        Some((fields.next()?, fields.next()?, fields.next()?))
    })
}

fn view((alias, name, description): (&str, &str, &str)) -> Value {
    json!({
        "alias": alias,
        "name": name,
        "description": description,
        "updated": "2026-01-01T00:00:00-00:00",
        "links": [],
    })
}

/// GET /v2.0/extensions
#[must_use]
pub fn list() -> Value {
    json!({ "extensions": all().map(view).collect::<Vec<_>>() })
}

/// GET /v2.0/extensions/{alias}
///
/// # Errors
/// [`Error::NotFound`].
pub fn show(alias: &str) -> Result<Value> {
    let found = all().find(|(known, _, _)| *known == alias);
    let found = found.ok_or_else(|| {
        let shown: String = alias.chars().take(64).collect();
        Error::not_found(
            "HTTPNotFound",
            format!("Extension with alias {shown} does not exist"),
        )
    })?;
    Ok(json!({ "extension": view(found) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_line_is_an_extension_in_order_and_none_is_there_twice() {
        let aliases: Vec<_> = all().map(|(alias, _, _)| alias).collect();
        assert_eq!(aliases.len(), EXTENSIONS.lines().count());
        let sorted: Vec<_> = aliases
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(aliases, sorted);
    }
}
