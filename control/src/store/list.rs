//! Lists: filters, visibility, order and pages, turned into one SELECT for any resource.
//!
//! Pages are found by key and not by offset: a page costs the same wherever it is, and however many rows there are where
//! an index has the order. What a project sees is a page of its own rows, merged with one of those of others that it sees:
//! no index has both in one order. Everything that comes from a request is bound, never written into the SQL.

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
    fn condition(self, b: &mut Build<'_>, values: &[Value]) -> String {
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
        format!("{not}({has})")
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

pub(super) async fn rows<R: Row>(conn: &mut Conn, query: &ListQuery) -> Result<Vec<Box<R>>> {
    let build = build::<R>(query);
    let mut select = sql::query_as::<Box<R>>(AssertSqlSafe(build.sql));
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

/// Rows of a page above which it is read as a whole list is.
const PAGE_ROWS_MAX: u32 = 1_000;

fn build<R: Row>(query: &ListQuery) -> Build<'_> {
    let mut b = Build {
        sql: String::new(),
        arguments: Vec::new(),
    };
    // $1, which R::VISIBLE and the filters' conditions may use too.
    let project = b.bind(&query.project);
    let filters = filters::<R>(&mut b, query);
    let keys = keys::<R>(query);
    let behind = behind::<R>(&mut b, query, &keys);
    let order = order(&keys);
    let limit = query.limit.map(|limit| format!(" LIMIT {limit}"));
    let limit = limit.unwrap_or_default();
    let select = &R::sql().select;
    let own = format!("project_id = {project}");
    let paged = query.limit.is_some_and(|limit| limit <= PAGE_ROWS_MAX);
    b.sql = match query.scope {
        Scope::All => format!("{select}{project} = {project}{filters}{behind}{order}{limit}"),
        Scope::Project if paged && !R::VISIBLE.is_empty() => {
            let mut pages =
                format!("SELECT * FROM ({select}{own}{filters}{behind}{order}{limit}) own");
            for (n, visible) in R::VISIBLE.iter().enumerate() {
                let _ = write!(
                    pages,
                    " UNION ALL SELECT * FROM ({select}project_id <> {project} AND ({visible})\
                     {filters}{behind}{order}{limit}) visible_{n}"
                );
            }
            format!("SELECT * FROM ({pages}) pages{order}{limit}")
        }
        Scope::Project => {
            let mut whose = own;
            for visible in R::VISIBLE {
                let _ = write!(whose, " OR ({visible})");
            }
            format!("{select}({whose}){filters}{behind}{order}{limit}")
        }
    };
    b
}

/// ` AND …` for each filter.
fn filters<'q, R: Row>(b: &mut Build<'q>, query: &'q ListQuery) -> String {
    let mut sql = String::new();
    for filter in &query.filters {
        let _ = match (
            TagRule::of(&filter.attribute),
            column::<R>(&filter.attribute),
        ) {
            (Some(rule), _) => write!(sql, " AND {}", rule.condition(b, &filter.values)),
            (None, Some(column)) => {
                let values: Vec<String> = filter.values.iter().map(|value| b.bind(value)).collect();
                let condition = column.condition.replace("{}", &values.join(", "));
                write!(sql, " AND ({condition})")
            }
            (None, None) => write!(sql, " AND FALSE"),
        };
    }
    sql
}

/// What the rows are in the order of, and whether that is descending. The id comes last, and as the key before it does,
/// so that an index has the order of both.
fn keys<R: Row>(query: &ListQuery) -> Vec<(&'static str, bool)> {
    let mut keys: Vec<(&'static str, bool)> = query
        .sort
        .iter()
        .filter_map(|sort| Some((column::<R>(&sort.attribute)?.sort?, sort.descending)))
        .collect();
    if !keys.iter().any(|(key, _)| *key == "id") {
        let descending = keys.last().is_some_and(|(_, descending)| *descending);
        keys.push(("id", descending));
    }
    for key in &mut keys {
        key.1 ^= query.page_reverse;
    }
    keys
}

/// With a marker, that the row comes behind it: for keys a, b in one direction it is `(a, b, id) > (A, B, ID)`, for which
/// an index serves; else `a > A OR (a = A AND b < B) OR (a = A AND b = B AND id > ID)`.
fn behind<'q, R: Row>(
    b: &mut Build<'q>,
    query: &'q ListQuery,
    keys: &[(&'static str, bool)],
) -> String {
    let Some(marker) = &query.marker else {
        return String::new();
    };
    let m = b.bind(marker);
    let at = |key: &str| match key {
        "id" => m.clone(),
        _ => format!("(SELECT {key} FROM {} WHERE id = {m})", R::TABLE),
    };
    let than = |descending: bool| if descending { "<" } else { ">" };
    if keys.iter().all(|(_, descending)| *descending == keys[0].1) {
        let names: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
        let values: Vec<String> = names.iter().map(|key| at(key)).collect();
        let (names, values) = (names.join(", "), values.join(", "));
        return format!(" AND ({names}) {} ({values})", than(keys[0].1));
    }
    let (mut sql, mut equal) = (String::new(), String::new());
    for (n, (key, descending)) in keys.iter().enumerate() {
        let or = if n == 0 { "" } else { " OR " };
        let value = at(key);
        let _ = write!(sql, "{or}({equal}{key} {} {value})", than(*descending));
        let _ = write!(equal, "{key} = {value} AND ");
    }
    format!(" AND ({sql})")
}

/// The ORDER BY.
fn order(keys: &[(&'static str, bool)]) -> String {
    let keys: Vec<String> = keys
        .iter()
        .map(|(key, descending)| format!("{key}{}", if *descending { " DESC" } else { "" }))
        .collect();
    format!(" ORDER BY {}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::port::PortRow;
    use crate::store::{Durability, Store};
    use std::sync::Arc;

    /// How SQLite answers a query: a line a step.
    async fn plan<R: Row>(store: &Store, query: &ListQuery) -> Vec<String> {
        let build = build::<R>(query);
        let text = format!("EXPLAIN QUERY PLAN {}", build.sql);
        let mut explain = sql::query_as::<(i64, i64, i64, String)>(AssertSqlSafe(text));
        for argument in build.arguments {
            explain = explain.bind(argument);
        }
        let mut view = store.read().await.unwrap();
        let steps = explain.fetch_all(view.conn()).await.unwrap();
        steps.into_iter().map(|(_, _, _, step)| step).collect()
    }

    /// Every page that may be asked for by one key: whose, in which direction, from where.
    fn pages(key: &str, filters: &[Filter]) -> Vec<ListQuery> {
        let page = |n: u32| ListQuery {
            project: "p".to_owned(),
            scope: [Scope::All, Scope::Project][usize::from(n & 1 > 0)],
            filters: filters.to_vec(),
            sort: vec![Sort {
                attribute: key.to_owned(),
                descending: n & 2 > 0,
            }],
            marker: (n & 4 > 0).then(|| "m".to_owned()),
            limit: Some(100),
            page_reverse: n & 8 > 0,
        };
        (0..16).map(page).collect()
    }

    async fn store() -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| 0)).await;
        (store.unwrap(), folder)
    }

    /// Nothing is looked at that is not on the page: an index has the order. What is sorted are the pages that a project's
    /// is merged from, which are as short.
    fn assert_flat(query: &ListQuery, table: &str, plan: &[String]) {
        let unordered = plan.contains(&format!("SCAN {table}"));
        assert!(!unordered, "{query:?}: {plan:#?}");
        for (of, sort) in plan.iter().zip(&plan[1..]) {
            let short = ["SCAN own", "SCAN visible_0", "SCAN pages"].contains(&of.as_str());
            assert!(short || !sort.contains("ORDER BY"), "{query:?}: {plan:#?}");
        }
    }

    #[tokio::test]
    async fn pages_of_ports_are_found_by_an_index() {
        let (store, _folder) = store().await;
        // What a project sees is found by the project, and sorted, if it is by another key.
        let of_all = ["mac_address", "device_id", "status"];
        let of_both = ["id", "name", "project_id", "network_id"];
        let network = Filter {
            attribute: "network_id".to_owned(),
            values: vec![Value::Text("n".to_owned())],
        };
        let mut queries = pages("id", &[network]);
        queries.extend(of_both.iter().flat_map(|key| pages(key, &[])));
        let others = of_all.iter().flat_map(|key| pages(key, &[]));
        queries.extend(others.filter(|query| query.scope == Scope::All));
        for query in queries {
            let plan = plan::<PortRow>(&store, &query).await;
            assert_flat(&query, "ports", &plan);
        }
    }
}
