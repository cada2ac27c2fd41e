//! Who has an address of allowed address pairs: the guest that said so last.

use super::fixed_ip::by_parents;
use super::sql;
use super::{Conn, Resource, Result, WriteTx};

/// The addresses that some ports have claimed, by port.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn claimed_ip_list(conn: &mut Conn, ports: &[&str]) -> Result<Vec<(String, String)>> {
    by_parents(
        conn,
        "SELECT port_id, ip_address FROM claimed_ips WHERE port_id IN",
        "ORDER BY port_id, ip_address",
        ports,
    )
    .await
}

/// Who has an address of a network by claim.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn claimed_ip_get(conn: &mut Conn, network: &str, ip: &str) -> Result<Option<String>> {
    sql::query_scalar("SELECT port_id FROM claimed_ips WHERE network_id = $1 AND ip_address = $2")
        .bind(network)
        .bind(ip)
        .fetch_optional(conn)
        .await
}

/// Notes that a port has an address of its network now, and nobody else; `before` had it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn claimed_ip_set(
    tx: &mut WriteTx,
    (network, ip): (&str, &str),
    port: &str,
    before: Option<&str>,
) -> Result<()> {
    for port in before.into_iter().chain([port]) {
        tx.touch(Resource::ClaimedIp, port).await?;
    }
    sql::query(
        "INSERT INTO claimed_ips (network_id, ip_address, port_id) VALUES ($1, $2, $3) \
         ON CONFLICT (network_id, ip_address) DO UPDATE SET port_id = excluded.port_id",
    )
    .bind(network)
    .bind(ip)
    .bind(port)
    .execute(tx.conn())
    .await?;
    Ok(())
}
