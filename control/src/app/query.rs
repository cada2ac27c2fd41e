//! The query string of a list or show request: filters, sorting, pages, fields.
//!
//! Guarantees: only attributes that the resource allows get through; everything else is refused by name (Neutron's
//! filter-validation extension).

use super::attribute::{self, Attribute, Kind, bool_of, find, int_of};
use super::error::{Error, Result, quote};
use crate::store::{Filter, ListQuery, Sort, Value};
use serde_json::Value as Json;

/// Rows of one answer, whatever the caller asks for; `…_links` leads on.
pub const LIST_ROWS_MAX: u32 = 100_000;
/// Values in one query string.
const VALUES_MAX: usize = 1_024;

/// What the query string asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Filters, order and page.
    pub list: ListQuery,
    /// The attributes to show; empty for all.
    pub fields: Vec<String>,
    /// Whether a limit was given, so that links to the next and previous page are wanted.
    pub paged: bool,
}

/// Reads a query string's pairs for a resource.
///
/// # Errors
/// [`Error::Invalid`], naming the parameter.
pub fn read(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    pairs: &[(String, String)],
) -> Result<Asked> {
    if pairs.len() > VALUES_MAX {
        return Err(Error::bad_request(format!(
            "The query string has more than {VALUES_MAX} parameters"
        )));
    }
    let mut asked = Asked::default();
    let (mut keys, mut directions) = (Vec::new(), Vec::new());
    for (name, value) in pairs {
        if value.contains('\0') {
            return Err(Error::attribute(name, "it contains a null character"));
        }
        match name.as_str() {
            "fields" => {
                let names = value.split(',').filter(|field| !field.is_empty());
                asked.fields.extend(names.map(str::to_owned));
            }
            "sort_key" => keys.push(rename(value)),
            "sort_dir" => directions.push(value.as_str()),
            "marker" => asked.list.marker = (!value.is_empty()).then(|| value.clone()),
            "limit" => asked.list.limit = limit(value)?,
            "page_reverse" => {
                asked.list.page_reverse = bool_of(&Json::from(value.as_str()))
                    .map_err(|reason| Error::attribute("page_reverse", reason))?;
            }
            _ => filter(own, standard, &mut asked.list.filters, name, value)?,
        }
    }
    asked.paged = asked.list.limit.is_some();
    asked.list.limit = Some(asked.list.limit.unwrap_or(LIST_ROWS_MAX).min(LIST_ROWS_MAX));
    asked.list.sort = sort(own, standard, keys, &directions)?;
    Ok(asked)
}

/// The attributes to show that a query string names; empty for all.
pub fn fields(pairs: &[(String, String)]) -> Vec<String> {
    pairs
        .iter()
        .filter(|(name, _)| name == "fields")
        .flat_map(|(_, value)| value.split(',').map(rename))
        .filter(|field| !field.is_empty())
        .collect()
}

fn rename(name: &str) -> String {
    if name == "tenant_id" {
        "project_id".to_owned()
    } else {
        name.to_owned()
    }
}

/// None for 0, which means no limit.
fn limit(value: &str) -> Result<Option<u32>> {
    let number = int_of(&Json::from(value), 0, i64::MAX).map_err(|reason| {
        Error::bad_request(format!("Invalid input for limit. Reason: {reason}."))
    })?;
    Ok(Some(u32::try_from(number).unwrap_or(u32::MAX)).filter(|limit| *limit > 0))
}

fn sort(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    keys: Vec<String>,
    directions: &[&str],
) -> Result<Vec<Sort>> {
    if !directions.is_empty() && directions.len() != keys.len() {
        return Err(Error::bad_request(
            "The number of sort_keys and sort_dirs must be same",
        ));
    }
    keys.into_iter()
        .enumerate()
        .map(|(n, attribute)| {
            if !find(own, standard, &attribute).is_some_and(|a| a.sort) {
                return Err(Error::bad_request(format!(
                    "{} is an invalid attribute for sort keys",
                    quote(&attribute)
                )));
            }
            let descending = match directions.get(n).copied() {
                None | Some("asc") => false,
                Some("desc") => true,
                Some(other) => {
                    return Err(Error::bad_request(format!(
                        "{} is an invalid value for sort directions, valid values are 'asc' and 'desc'",
                        quote(other)
                    )));
                }
            };
            Ok(Sort { attribute, descending })
        })
        .collect()
}

fn filter(
    own: &'static [Attribute],
    standard: &'static [Attribute],
    filters: &mut Vec<Filter>,
    name: &str,
    value: &str,
) -> Result<()> {
    let refused = || Error::bad_request(format!("Invalid filters {} for resource", quote(name)));
    let (attribute, value) = match name {
        "fixed_ips" if find(own, standard, name).is_some() => {
            // fixed_ips=ip_address=192.0.2.1 or subnet_id=… or ip_address_substr=…
            let (key, value) = value.split_once('=').ok_or_else(|| {
                Error::attribute("fixed_ips", format!("{} is not KEY=VALUE", quote(value)))
            })?;
            if !["ip_address", "subnet_id", "ip_address_substr"].contains(&key) {
                return Err(Error::attribute(
                    "fixed_ips",
                    format!("unknown key {}", quote(key)),
                ));
            }
            (format!("fixed_ips:{key}"), canonical_ip(key, value))
        }
        "tags" | "tags-any" | "not-tags" | "not-tags-any"
            if find(own, standard, "tags").is_some() =>
        {
            for tag in value.split(',') {
                push(filters, name.to_owned(), Value::Text(tag.to_owned()));
            }
            return Ok(());
        }
        "changed_since" => {
            let when = changed_since(value)?;
            filters.push(Filter {
                attribute: name.to_owned(),
                values: vec![when],
            });
            return Ok(());
        }
        _ => {
            let found = find(own, standard, name)
                .filter(|a| a.filter)
                .ok_or_else(refused)?;
            (found.name.to_owned(), filter_value(found, value)?)
        }
    };
    push(filters, attribute, value);
    Ok(())
}

/// Adds a value to an attribute's filter.
fn push(filters: &mut Vec<Filter>, attribute: String, value: Value) {
    match filters
        .iter_mut()
        .find(|filter| filter.attribute == attribute)
    {
        Some(filter) => filter.values.push(value),
        None => filters.push(Filter {
            attribute,
            values: vec![value],
        }),
    }
}

fn canonical_ip(key: &str, value: &str) -> Value {
    let address = (key == "ip_address")
        .then(|| value.parse::<std::net::IpAddr>().ok())
        .flatten();
    Value::Text(address.map_or_else(|| value.to_owned(), |address| address.to_string()))
}

fn filter_value(attribute: &Attribute, value: &str) -> Result<Value> {
    let json = Json::from(value);
    let refused = |reason: String| Error::attribute(attribute.name, reason);
    Ok(match attribute.kind {
        Kind::Bool => Value::Bool(bool_of(&json).map_err(refused)?),
        Kind::Int(..) => Value::Int(int_of(&json, i64::MIN, i64::MAX).map_err(refused)?),
        Kind::Mac => Value::Text(value.to_ascii_lowercase()),
        // Neutron's database knows no case here, and clients write these words as they like.
        Kind::OneOf(words) => {
            let known = words.iter().find(|word| word.eq_ignore_ascii_case(value));
            Value::Text(known.map_or_else(|| value.to_owned(), |word| (*word).to_owned()))
        }
        Kind::Ip => Value::Text(
            attribute::ip_of(&json).map_or_else(|_| value.to_owned(), |ip| ip.to_string()),
        ),
        _ => Value::Text(value.to_owned()),
    })
}

fn changed_since(value: &str) -> Result<Value> {
    let bad = || {
        let message = format!(
            "The changed_since filter must be in ISO 8601 format (YYYY-MM-DDTHH:MM:SS), not {}",
            quote(value)
        );
        Error::invalid("InvalidInput", message)
    };
    let text = value.trim_end_matches('Z');
    let civil: jiff::civil::DateTime = text.parse().map_err(|_not_a_time| bad())?;
    let instant = civil
        .to_zoned(jiff::tz::TimeZone::UTC)
        .map_err(|_out_of_range| bad())?;
    Ok(Value::Int(instant.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::attribute::{Default, STANDARD};

    const OWN: &[Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .sort(),
        Attribute::new("mtu", Kind::Int(0, 9_000)).filter(),
        Attribute::new("fixed_ips", Kind::UuidList).filter(),
    ];

    fn ask(text: &str) -> Result<Asked> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        read(OWN, STANDARD, &pairs)
    }

    #[test]
    fn a_repeated_filter_is_one_of_several_values() {
        let asked = ask("name=a&name=b&mtu=1500&limit=2&marker=x&fields=id&fields=name").unwrap();
        assert_eq!(asked.list.filters.len(), 2);
        assert_eq!(
            asked.list.filters[0].values,
            [Value::Text("a".into()), Value::Text("b".into())]
        );
        assert_eq!(asked.list.filters[1].values, [Value::Int(1500)]);
        assert_eq!((asked.list.limit, asked.paged), (Some(2), true));
        assert_eq!(asked.fields, ["id", "name"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("nonsense=1", "nonsense"),
            ("limit=x", "limit"),
            ("limit=-1", "limit"),
            ("sort_key=mtu", "mtu"),
            ("sort_key=name&sort_dir=up", "up"),
            ("sort_key=name&sort_dir=asc&sort_dir=asc", "sort_dirs"),
            ("mtu=big", "mtu"),
            ("fixed_ips=1.2.3.4", "fixed_ips"),
            ("changed_since=yesterday", "changed_since"),
        ] {
            let error = ask(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn tenant_id_is_project_id() {
        let asked = ask("tenant_id=p&sort_key=tenant_id").unwrap();
        assert_eq!(asked.list.filters[0].attribute, "project_id");
        assert_eq!(asked.list.sort[0].attribute, "project_id");
    }
}
