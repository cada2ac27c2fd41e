//! Addresses of ports, and reading what hangs on many rows at once.

use super::sql::{self, AssertSqlSafe, FromRow, record};
use super::{Conn, Result, WriteTx};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Parents of one SELECT: keeps below the databases' limits on parameters.
const PARENTS_MAX: usize = 512;

record! {
    /// An address of a port.
    pub struct FixedIpRow {
        /// The subnet it was taken from.
        pub subnet_id: String,
        /// [`ip_key`] of the address.
        pub ip_key: String,
        /// The address.
        pub ip_address: String,
        /// Whose it is.
        pub port_id: String,
        /// Its place among the port's addresses, from 0.
        pub position: i64,
    }
}

/// An address as 32 hex digits (IPv4 behind `::ffff:`): text order is numeric order.
#[must_use]
pub fn ip_key(address: IpAddr) -> String {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    format!("{:032x}", v6.to_bits())
}

/// The address of a key; none if it is no key.
#[must_use]
pub fn ip_of_key(key: &str) -> Option<IpAddr> {
    let bits = u128::from_str_radix(key, 16).ok()?;
    Some(IpAddr::V6(bits.into()).to_canonical())
}

/// Reads children of many parents, in chunks: `select` ends in `IN`.
pub(super) async fn by_parents<T: FromRow>(
    conn: &mut Conn,
    select: &str,
    order: &str,
    parents: &[&str],
) -> Result<Vec<T>> {
    let mut children = Vec::new();
    for chunk in parents.chunks(PARENTS_MAX) {
        // Few different lengths, so that the statements are found compiled: the last parent stands in for more.
        let places = chunk.len().next_power_of_two();
        let mut text = format!("{select} (");
        for n in 1..=places {
            let comma = if n == 1 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}${n}");
        }
        let _ = write!(text, ") {order}");
        let mut query = sql::query_as(AssertSqlSafe(text));
        for parent in chunk
            .iter()
            .chain(chunk.last().into_iter().cycle())
            .take(places)
        {
            query = query.bind(*parent);
        }
        children.extend(query.fetch_all(&mut *conn).await?);
    }
    Ok(children)
}

/// Gives a port an address.
///
/// # Errors
/// [`super::StoreError::Conflict`] if another port has it.
pub async fn fixed_ip_insert(tx: &mut WriteTx, row: &FixedIpRow) -> Result<()> {
    sql::query(
        "INSERT INTO port_fixed_ips (subnet_id, ip_key, ip_address, port_id, position) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&row.subnet_id)
    .bind(&row.ip_key)
    .bind(&row.ip_address)
    .bind(&row.port_id)
    .bind(row.position)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes all addresses from a port.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn fixed_ip_delete_port(tx: &mut WriteTx, port: &str) -> Result<()> {
    sql::query("DELETE FROM port_fixed_ips WHERE port_id = $1")
        .bind(port)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The addresses of some ports, by port and place.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn fixed_ip_list(conn: &mut Conn, ports: &[&str]) -> Result<Vec<FixedIpRow>> {
    by_parents(
        conn,
        "SELECT subnet_id, ip_key, ip_address, port_id, position FROM port_fixed_ips WHERE port_id IN",
        "ORDER BY port_id, position",
        ports,
    )
    .await
}

/// Keys in use in a subnet, from one on, in order, at most `limit`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ip_keys_used(
    conn: &mut Conn,
    subnet: &str,
    from: &str,
    limit: u32,
) -> Result<Vec<String>> {
    sql::query_scalar(
        "SELECT ip_key FROM port_fixed_ips WHERE subnet_id = $1 AND ip_key >= $2 ORDER BY ip_key LIMIT $3",
    )
    .bind(subnet)
    .bind(from)
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await
}

/// How many addresses of some subnets are in use; nothing for those of which none is.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn used_by_subnet(conn: &mut Conn, subnets: &[&str]) -> Result<Vec<(String, i64)>> {
    by_parents(
        conn,
        "SELECT subnet_id, COUNT(*) FROM port_fixed_ips WHERE subnet_id IN",
        "GROUP BY subnet_id ORDER BY subnet_id",
        subnets,
    )
    .await
}

/// How many addresses of a subnet between two keys, both included, are in use.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn used_in_range(
    conn: &mut Conn,
    subnet: &str,
    first_key: &str,
    last_key: &str,
) -> Result<i64> {
    sql::query_scalar(
        "SELECT COUNT(*) FROM port_fixed_ips WHERE subnet_id = $1 AND ip_key BETWEEN $2 AND $3",
    )
    .bind(subnet)
    .bind(first_key)
    .bind(last_key)
    .fetch_one(conn)
    .await
}

/// Who has an address of a subnet.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn fixed_ip_owner(conn: &mut Conn, subnet: &str, ip_key: &str) -> Result<Option<String>> {
    sql::query_scalar("SELECT port_id FROM port_fixed_ips WHERE subnet_id = $1 AND ip_key = $2")
        .bind(subnet)
        .bind(ip_key)
        .fetch_optional(conn)
        .await
}

/// The ports with an address of a subnet whose device owner is none of `network:dhcp` and the like, at most
/// `limit`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn ports_of_subnet(conn: &mut Conn, subnet: &str, limit: u32) -> Result<Vec<String>> {
    sql::query_scalar("SELECT DISTINCT port_id FROM port_fixed_ips WHERE subnet_id = $1 LIMIT $2")
        .bind(subnet)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
}
