//! Lists: filters, visibility, order and pages, turned into one SELECT for any resource.
//!
//! Pages are found by key and not by offset: a page costs the same wherever it is. Everything that comes from a
//! request is bound, never written into the SQL.

use super::sql::{self, Argument, AssertSqlSafe, Bind};
use super::{Conn, Result, Row};
use std::fmt::Write as _;

/// What a resource may be filtered and sorted by.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The API's name for it.
    pub attribute: &'static str,
    /// A condition with `{}` in the place of a list of values.
    pub condition: &'static str,
    /// What it sorts by, if it does.
    pub sort: Option<&'static str>,
}

impl Column {
    /// An attribute that is a column of the same name.
    pub const fn sorted(
        attribute: &'static str,
        condition: &'static str,
        sort: &'static str,
    ) -> Self {
        Self {
            attribute,
            condition,
            sort: Some(sort),
        }
    }

    /// An attribute that can be filtered by only.
    pub const fn filter(attribute: &'static str, condition: &'static str) -> Self {
        Self {
            attribute,
            condition,
            sort: None,
        }
    }
}

/// A value to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
}

/// One attribute is one of some values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// [`Column::attribute`].
    pub attribute: String,
    /// At least one.
    pub values: Vec<Value>,
}

/// One key of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// [`Column::attribute`].
    pub attribute: String,
    /// Largest first.
    pub descending: bool,
}

/// Whose rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    #[default]
    All,
    /// The asking project's, and what is visible to it ([`Row::VISIBLE`]).
    Project,
}

/// What is asked for. Unknown attributes match nothing (the API refuses them before).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The project that asks: what is shared is shared with it.
    pub project: String,
    /// Whose rows.
    pub scope: Scope,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// The order; the id always comes last.
    pub sort: Vec<Sort>,
    /// The id behind which the page begins.
    pub marker: Option<String>,
    /// Rows at most.
    pub limit: Option<u32>,
    /// The page that ends before the marker, and not the one that begins behind it.
    pub page_reverse: bool,
}

/// The four filters by tags.
#[derive(Clone, Copy)]
struct TagRule {
    all: bool,
    not: bool,
}

impl TagRule {
    fn of(attribute: &str) -> Option<Self> {
        let (all, not) = match attribute {
            "tags" => (true, false),
            "tags-any" => (false, false),
            "not-tags" => (true, true),
            "not-tags-any" => (false, true),
            _ => return None,
        };
        Some(Self { all, not })
    }

    /// Tags are stored as a JSON list of texts: a tag is in it if its own JSON text is.
    fn condition(self, b: &mut Build<'_>, values: &[Value]) {
        let has: Vec<String> = values
            .iter()
            .map(|value| {
                let tag = match value {
                    Value::Text(tag) => tag.as_str(),
                    _ => "",
                };
                let json = serde_json::Value::from(tag).to_string();
                let at = b.bind(json);
                format!("REPLACE(tags, {at}, '') <> tags")
            })
            .collect();
        let has = has.join(if self.all { " AND " } else { " OR " });
        let not = if self.not { "NOT " } else { "" };
        let _ = write!(b.sql, " AND {not}({has})");
    }
}

struct Build<'q> {
    sql: String,
    arguments: Vec<Argument<'q>>,
}

impl<'q> Build<'q> {
    fn bind(&mut self, value: impl Bind<'q>) -> String {
        self.arguments.push(value.argument());
        format!("${}", self.arguments.len())
    }
}

impl<'q> Bind<'q> for &'q Value {
    fn argument(self) -> Argument<'q> {
        match self {
            Value::Text(text) => text.argument(),
            Value::Int(number) => number.argument(),
            Value::Bool(truth) => truth.argument(),
        }
    }
}

pub(super) async fn rows<R: Row>(conn: &mut Conn, query: &ListQuery) -> Result<Vec<R>> {
    let build = build::<R>(query);
    let mut select = sql::query_as::<R>(AssertSqlSafe(build.sql));
    for argument in build.arguments {
        select = select.bind(argument);
    }
    let mut rows = select.fetch_all(conn).await?;
    if query.page_reverse {
        rows.reverse();
    }
    Ok(rows)
}

fn column<R: Row>(attribute: &str) -> Option<&'static Column> {
    R::FILTERS
        .iter()
        .find(|column| column.attribute == attribute)
}

fn build<R: Row>(query: &ListQuery) -> Build<'_> {
    let mut b = Build {
        sql: R::sql().select.to_string(),
        arguments: Vec::new(),
    };
    // $1, which R::VISIBLE and the filters' conditions may use too.
    let p = b.bind(&query.project);
    match query.scope {
        Scope::All => {
            let _ = write!(b.sql, "{p} = {p}");
        }
        Scope::Project => {
            let _ = write!(b.sql, "(project_id = {p}");
            if let Some(visible) = R::VISIBLE {
                let _ = write!(b.sql, " OR {visible}");
            }
            b.sql.push(')');
        }
    }
    for filter in &query.filters {
        if let Some(rule) = TagRule::of(&filter.attribute) {
            rule.condition(&mut b, &filter.values);
            continue;
        }
        let Some(column) = column::<R>(&filter.attribute) else {
            b.sql.push_str(" AND FALSE");
            continue;
        };
        let values: Vec<String> = filter.values.iter().map(|value| b.bind(value)).collect();
        let condition = column.condition.replace("{}", &values.join(", "));
        let _ = write!(b.sql, " AND ({condition})");
    }
    order::<R>(&mut b, query);
    if let Some(limit) = query.limit {
        let _ = write!(b.sql, " LIMIT {limit}");
    }
    b
}

/// The ORDER BY, and with a marker the condition that the row comes behind it: for keys a, b it is
/// `a > A OR (a = A AND b > B) OR (a = A AND b = B AND id > ID)`.
fn order<'q, R: Row>(b: &mut Build<'q>, query: &'q ListQuery) {
    let mut keys: Vec<(&'static str, bool)> = query
        .sort
        .iter()
        .filter_map(|sort| Some((column::<R>(&sort.attribute)?.sort?, sort.descending)))
        .collect();
    if !keys.iter().any(|(key, _)| *key == "id") {
        keys.push(("id", false));
    }
    for key in &mut keys {
        key.1 ^= query.page_reverse;
    }
    if let Some(marker) = &query.marker {
        let m = b.bind(marker);
        let at = |key: &str| match key {
            "id" => m.clone(),
            _ => format!("(SELECT {key} FROM {} WHERE id = {m})", R::TABLE),
        };
        let mut equal = String::new();
        b.sql.push_str(" AND (");
        for (n, (key, descending)) in keys.iter().enumerate() {
            let or = if n == 0 { "" } else { " OR " };
            let than = if *descending { "<" } else { ">" };
            let value = at(key);
            let _ = write!(b.sql, "{or}({equal}{key} {than} {value})");
            let _ = write!(equal, "{key} = {value} AND ");
        }
        b.sql.push(')');
    }
    b.sql.push_str(" ORDER BY ");
    for (n, (key, descending)) in keys.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        let direction = if *descending { " DESC" } else { "" };
        let _ = write!(b.sql, "{comma}{key}{direction}");
    }
}
