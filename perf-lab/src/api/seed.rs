//! A million ports, written straight into SQLite's file while no server runs: what is measured on them is reading.

use anyhow::{Context, Result};
use rusqlite::Connection;
use std::path::Path;

/// Multiplies `port` (an id) until there are `count` more, spread over the networks whose name begins with `prefix`. They
/// belong to the first of two projects, every ten thousandth to the second. Many have the same name.
pub(crate) fn ports(
    file: &Path,
    port: &str,
    prefix: &str,
    [most, few]: [&str; 2],
    count: u32,
) -> Result<()> {
    let mut conn = Connection::open(file)?;
    conn.pragma_update(None, "synchronous", "OFF")?;
    let tx = conn.transaction()?;
    tx.execute_batch(
        "CREATE TEMP TABLE seed_networks (n INTEGER PRIMARY KEY, id TEXT);
         CREATE TEMP TABLE seed_ports (n INTEGER PRIMARY KEY, id TEXT);",
    )?;
    let networks = tx.execute(
        "INSERT INTO seed_networks SELECT row_number() OVER (ORDER BY id) - 1, id FROM networks WHERE name LIKE ?1 || '%'",
        [prefix],
    )?;
    // Ids in no order, as random ones are: the multiplier is odd, so no two are the same.
    tx.execute(
        "INSERT INTO seed_ports WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1)
         SELECT n, printf('%08x-5eed-4000-8000-%012x', (n * 2654435761) % 4294967296, n) FROM n",
        [count],
    )?;
    let network = format!("(SELECT w.id FROM seed_networks w WHERE w.n = s.n % {networks})");
    let project = format!("CASE s.n % 10000 WHEN 0 THEN '{few}' ELSE '{most}' END");
    let mac = "printf('fa:16:%02x:%02x:%02x:%02x', (s.n >> 24) & 255, (s.n >> 16) & 255, (s.n >> 8) & 255, s.n & 255)";
    let port = &("seed_ports", port);
    copy(
        &tx,
        "ports",
        "id",
        port,
        &[
            ("id", "s.id"),
            ("project_id", &project),
            ("name", "printf('lab-%d', s.n % 100)"),
            ("network_id", &network),
            ("mac_address", mac),
        ],
    )?;
    let key = "printf('00000000000000000000ffff%08x', 2130706432 + s.n)";
    let address = "printf('127.%d.%d.%d', (s.n >> 16) & 255, (s.n >> 8) & 255, s.n & 255)";
    copy(
        &tx,
        "port_fixed_ips",
        "port_id",
        port,
        &[
            ("port_id", "s.id"),
            ("ip_key", key),
            ("ip_address", address),
        ],
    )?;
    copy(
        &tx,
        "port_security_groups",
        "port_id",
        port,
        &[("port_id", "s.id")],
    )?;
    tx.commit()?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
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
    let value = |column: &String| {
        let new = changed.iter().find(|(name, _)| name == column);
        new.map_or_else(|| format!("t.{column}"), |(_, value)| (*value).to_owned())
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let insert = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {table} t CROSS JOIN {seeds} s WHERE t.{key} = ?1",
        columns.join(", "),
        values.join(", ")
    );
    tx.execute(&insert, [id])
        .with_context(|| format!("seeding {table}"))?;
    Ok(())
}

/// The id of the seed port in the middle of all, in order of ids.
pub(crate) fn middle(file: &Path, count: u32) -> Result<String> {
    let conn = Connection::open(file)?;
    Ok(conn.query_row(
        "SELECT id FROM ports ORDER BY id LIMIT 1 OFFSET ?1",
        [count / 2],
        |row| row.get(0),
    )?)
}
