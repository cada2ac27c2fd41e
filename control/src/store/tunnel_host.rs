//! Where the tunnels to each host lead: written when its agent says so.

use super::sql::{self, record};
use super::{Conn, Resource, Result, WriteTx};

record! {
    /// One host's end of tunnels.
    pub struct TunnelHostRow {
        /// The host.
        pub host: String,
        /// Its address in the underlay.
        pub tunnel_ip: String,
    }
}

/// All of them.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn tunnel_host_list(conn: &mut Conn) -> Result<Vec<TunnelHostRow>> {
    sql::query_as("SELECT host, tunnel_ip FROM tunnel_hosts")
        .fetch_all(conn)
        .await
}

/// One host's.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn tunnel_host_get(conn: &mut Conn, host: &str) -> Result<Option<TunnelHostRow>> {
    sql::query_as("SELECT host, tunnel_ip FROM tunnel_hosts WHERE host = $1")
        .bind(host)
        .fetch_optional(conn)
        .await
}

/// Notes a host's, or that it has none any more.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn tunnel_host_set(tx: &mut WriteTx, host: &str, tunnel_ip: Option<&str>) -> Result<()> {
    tx.touch(Resource::TunnelHost, host).await?;
    sql::query("DELETE FROM tunnel_hosts WHERE host = $1")
        .bind(host)
        .execute(tx.conn())
        .await?;
    if let Some(tunnel_ip) = tunnel_ip {
        sql::query("INSERT INTO tunnel_hosts (host, tunnel_ip) VALUES ($1, $2)")
            .bind(host)
            .bind(tunnel_ip)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}
