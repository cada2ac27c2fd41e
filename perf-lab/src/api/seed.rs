//! A million ports, written straight into the database while no server runs: what is measured on them is reading.

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A server's database.
#[derive(Clone, Debug)]
pub(crate) enum Database {
    /// SQLite's file.
    Sqlite(PathBuf),
    /// PostgreSQL's URL: it is written to by apt's psql.
    Postgresql(String),
}

impl Database {
    /// What its server's configuration says of it.
    pub(crate) fn config(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("path = \"{}\"", file.display()),
            Self::Postgresql(url) => format!("url = \"{url}\""),
        }
    }

    /// What it answers to one question, a line a row.
    fn ask(&self, text: &str) -> Result<Vec<String>> {
        match self {
            Self::Sqlite(file) => {
                let conn = Connection::open(file)?;
                let mut select = conn.prepare(text)?;
                let rows = select.query_map([], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            }
            Self::Postgresql(url) => {
                let answer = psql(url, text)?;
                Ok(answer.lines().map(str::to_owned).collect())
            }
        }
    }

    /// Carries out statements.
    fn run(&self, text: &str) -> Result<()> {
        match self {
            Self::Sqlite(file) => {
                let conn = Connection::open(file)?;
                conn.pragma_update(None, "synchronous", "OFF")?;
                Ok(conn.execute_batch(text)?)
            }
            Self::Postgresql(url) => psql(url, text).map(drop),
        }
    }

    fn columns(&self, table: &str) -> Result<Vec<String>> {
        self.ask(&match self {
            Self::Sqlite(_) => format!("SELECT name FROM pragma_table_info('{table}')"),
            Self::Postgresql(_) => format!(
                "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
            ),
        })
    }

    /// A number as so many hexadecimal digits.
    fn hex(&self, number: &str, digits: usize) -> String {
        match self {
            Self::Sqlite(_) => format!("printf('%0{digits}x', {number})"),
            Self::Postgresql(_) => format!("lpad(to_hex({number}), {digits}, '0')"),
        }
    }

    /// The indexes of some tables but for those of keys: their names, and how they are made.
    fn indexes(&self, tables: &str) -> Result<Vec<(String, String)>> {
        let (name, definition, from) = match self {
            Self::Sqlite(_) => (
                "name",
                "sql",
                format!(
                    "sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({tables})"
                ),
            ),
            Self::Postgresql(_) => (
                "indexname",
                "indexdef",
                format!(
                    "pg_indexes WHERE tablename IN ({tables}) \
                     AND indexname NOT IN (SELECT conname FROM pg_constraint)"
                ),
            ),
        };
        let column = |column| self.ask(&format!("SELECT {column} FROM {from} ORDER BY {name}"));
        Ok(column(name)?.into_iter().zip(column(definition)?).collect())
    }

    /// How it is told to believe that what is written fits together, and to take room for sorting.
    fn trusting(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            Self::Postgresql(_) => {
                "SET session_replication_role = replica; SET maintenance_work_mem = '256MB';"
            }
        }
    }

    /// Ends what was written by [`Database::run`].
    fn settle(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "PRAGMA wal_checkpoint(TRUNCATE);",
            Self::Postgresql(_) => "VACUUM ANALYZE;",
        }
    }
}

fn psql(url: &str, text: &str) -> Result<String> {
    let mut child = Command::new("psql")
        .args([url, "-v", "ON_ERROR_STOP=1", "-qAt"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("psql")?;
    let mut input = child.stdin.take().context("no input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "psql: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Multiplies `port` (an id) until there are `count` more, spread over the networks whose name begins with `prefix`. They
/// belong to the first of two projects, every ten thousandth to the second. Many have the same name.
pub(crate) fn ports(
    database: &Database,
    port: &str,
    prefix: &str,
    [most, few]: [&str; 2],
    count: u32,
) -> Result<()> {
    // Ids in no order, as random ones are: the multiplier is odd, so no two are the same.
    let first = database.hex("(n * 2654435761) % 4294967296", 8);
    let last = database.hex("n", 12);
    let networks = format!("FROM networks WHERE name LIKE '{prefix}%'");
    // Indexes are made once all is there: so it takes a minute, and not ten.
    let indexes = database.indexes("'ports', 'port_fixed_ips', 'port_security_groups'")?;
    let drops: String = (indexes.iter())
        .map(|(name, _)| format!("DROP INDEX {name};\n"))
        .collect();
    let trusting = database.trusting();
    let mut text = format!(
        "{trusting}
         BEGIN;
         {drops}
         CREATE TEMP TABLE seed_networks AS SELECT row_number() OVER (ORDER BY id) - 1 AS n, id, project_id
           {networks};
         CREATE INDEX seed_networks_n ON seed_networks (n);
         CREATE TEMP TABLE seed_ports AS
           WITH RECURSIVE n (n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {count})
           SELECT n, {first} || '-5eed-4000-8000-' || {last} AS id FROM n;"
    );
    let byte = |shift: u32| format!("((s.n >> {shift}) & 255)");
    let places = format!("(SELECT COUNT(*) {networks})");
    let network = format!("(SELECT w.id FROM seed_networks w WHERE w.n = s.n % {places})");
    let owner = format!("(SELECT w.project_id FROM seed_networks w WHERE w.n = s.n % {places})");
    let project = format!("CASE s.n % 10000 WHEN 0 THEN '{few}' ELSE '{most}' END");
    let shown_to = format!("NULLIF({owner}, {project})");
    let [mac24, mac16, mac8, mac0] = [24, 16, 8, 0].map(|shift| database.hex(&byte(shift), 2));
    let mac = format!("'fa:16:' || {mac24} || ':' || {mac16} || ':' || {mac8} || ':' || {mac0}");
    let key = database.hex("(2130706432 + s.n)", 8);
    let key = format!("'00000000000000000000ffff' || {key}");
    let [ip16, ip8, ip0] = [16, 8, 0].map(byte);
    let address = format!("'127.' || {ip16} || '.' || {ip8} || '.' || {ip0}");
    let ports: &[(&str, &str)] = &[
        ("id", "s.id"),
        ("project_id", &project),
        ("shown_to", &shown_to),
        ("name", "'lab-' || (s.n % 100)"),
        ("network_id", &network),
        ("mac_address", &mac),
    ];
    let addresses: &[(&str, &str)] = &[
        ("port_id", "s.id"),
        ("ip_key", &key),
        ("ip_address", &address),
    ];
    for (table, key, changed) in [
        ("ports", "id", ports),
        ("port_fixed_ips", "port_id", addresses),
        ("port_security_groups", "port_id", &[("port_id", "s.id")]),
    ] {
        let columns = database.columns(table)?;
        let insert = insert(table, key, "seed_ports", &columns, changed);
        text += &format!("{};\n", insert.replace("?1", &format!("'{port}'")));
    }
    for (_, definition) in &indexes {
        text += &format!("{definition};\n");
    }
    text += "COMMIT;\n";
    database.run(&text).context("seeding")?;
    database.run(database.settle())
}

/// Copies the rows of `table` whose `key` is `id` for every row `s` of the table `seeds`, with some columns changed.
pub(crate) fn copy(
    tx: &rusqlite::Transaction<'_>,
    table: &str,
    key: &str,
    (seeds, id): &(&str, &str),
    changed: &[(&str, &str)],
) -> Result<()> {
    let mut columns: Vec<String> = Vec::new();
    let mut info = tx.prepare(&format!("PRAGMA table_info({table})"))?;
    let mut rows = info.query([])?;
    while let Some(row) = rows.next()? {
        columns.push(row.get(1)?);
    }
    tx.execute(&insert(table, key, seeds, &columns, changed), [id])
        .with_context(|| format!("seeding {table}"))?;
    Ok(())
}

/// The statement of a copy; `?1` is the id.
fn insert(
    table: &str,
    key: &str,
    seeds: &str,
    columns: &[String],
    changed: &[(&str, &str)],
) -> String {
    let value = |column: &String| {
        let new = changed.iter().find(|(name, _)| name == column);
        new.map_or_else(|| format!("t.{column}"), |(_, value)| (*value).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {table} t CROSS JOIN {seeds} s WHERE t.{key} = ?1",
        columns.join(", "),
        values.join(", ")
    )
}

/// The id of the seed port in the middle of all, in order of ids.
pub(crate) fn middle(database: &Database, count: u32) -> Result<String> {
    let half = count / 2;
    let rows = database.ask(&format!(
        "SELECT id FROM ports ORDER BY id LIMIT 1 OFFSET {half}"
    ))?;
    rows.into_iter().next().context("no port")
}
