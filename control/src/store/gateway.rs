//! What hosts share of external networks: transits, blocks of a gateway's ports, and what agents say of physical networks
//! and of each other.
//!
//! Guarantees: two hosts never have one port of a gateway's address, and no network has a transit's number.

use super::sql::{self, record};
use super::{Conn, Resource, Result, WriteTx};

record! {
    /// How hosts exchange a network's frames.
    pub struct TransitRow {
        /// The network.
        pub network_id: String,
        /// The VNI.
        pub vni: i64,
        /// The largest IP packet.
        pub mtu: i64,
    }
}

record! {
    /// A host's ports of a router's gateway address.
    pub struct SnatPortBlockRow {
        /// The router.
        pub router_id: String,
        /// Whose ports they are.
        pub host: String,
        /// The first one.
        pub first_port: i64,
        /// The last one.
        pub last_port: i64,
    }
}

/// All transits.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn transit_list(conn: &mut Conn) -> Result<Vec<TransitRow>> {
    sql::query_as("SELECT network_id, vni, mtu FROM transits")
        .fetch_all(conn)
        .await
}

/// One network's.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn transit_get(conn: &mut Conn, network: &str) -> Result<Option<TransitRow>> {
    sql::query_as("SELECT network_id, vni, mtu FROM transits WHERE network_id = $1")
        .bind(network)
        .fetch_optional(conn)
        .await
}

/// Whether a VNI is a transit's.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn transit_has_vni(conn: &mut Conn, vni: i64) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar("SELECT vni FROM transits WHERE vni = $1")
        .bind(vni)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// Gives a network its transit.
///
/// # Errors
/// [`super::StoreError::Conflict`] if it has one, or the VNI is another's.
pub async fn transit_insert(tx: &mut WriteTx, row: &TransitRow) -> Result<()> {
    tx.touch(Resource::Network, &row.network_id).await?;
    sql::query("INSERT INTO transits (network_id, vni, mtu) VALUES ($1, $2, $3)")
        .bind(row.network_id.as_str())
        .bind(row.vni)
        .bind(row.mtu)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// All blocks, by router.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn snat_port_block_list_all(conn: &mut Conn) -> Result<Vec<SnatPortBlockRow>> {
    sql::query_as(
        "SELECT router_id, host, first_port, last_port FROM snat_port_blocks \
         ORDER BY router_id, first_port",
    )
    .fetch_all(conn)
    .await
}

/// A router's blocks.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn snat_port_block_list(conn: &mut Conn, router: &str) -> Result<Vec<SnatPortBlockRow>> {
    sql::query_as(
        "SELECT router_id, host, first_port, last_port FROM snat_port_blocks \
         WHERE router_id = $1 ORDER BY first_port",
    )
    .bind(router)
    .fetch_all(conn)
    .await
}

/// Gives a host a block.
///
/// # Errors
/// [`super::StoreError::Conflict`] if it has one, or another host has it; [`super::StoreError::Reference`] if the router is gone.
pub async fn snat_port_block_insert(tx: &mut WriteTx, row: &SnatPortBlockRow) -> Result<()> {
    tx.touch(Resource::Router, &row.router_id).await?;
    sql::query(
        "INSERT INTO snat_port_blocks (router_id, host, first_port, last_port) \
         VALUES ($1, $2, $3, $4)",
    )
    .bind(row.router_id.as_str())
    .bind(row.host.as_str())
    .bind(row.first_port)
    .bind(row.last_port)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a host's block.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn snat_port_block_delete(tx: &mut WriteTx, router: &str, host: &str) -> Result<()> {
    tx.touch(Resource::Router, router).await?;
    sql::query("DELETE FROM snat_port_blocks WHERE router_id = $1 AND host = $2")
        .bind(router)
        .bind(host)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// All hosts' physical networks: host, name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn physical_network_list_all(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    sql::query_as("SELECT host, physical_network FROM host_physical_networks")
        .fetch_all(conn)
        .await
}

/// Those of some hosts: host, name, in the order of both.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn physical_network_list_hosts(
    conn: &mut Conn,
    hosts: &[&str],
) -> Result<Vec<(String, String)>> {
    super::fixed_ip::by_parents(
        conn,
        "SELECT host, physical_network FROM host_physical_networks WHERE host IN",
        "ORDER BY host, physical_network",
        hosts,
    )
    .await
}

/// One host's, in the order of names.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn physical_network_list(conn: &mut Conn, host: &str) -> Result<Vec<String>> {
    sql::query_scalar(
        "SELECT physical_network FROM host_physical_networks WHERE host = $1 \
         ORDER BY physical_network",
    )
    .bind(host)
    .fetch_all(conn)
    .await
}

/// Notes which ones a host has.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn physical_network_set(tx: &mut WriteTx, host: &str, names: &[String]) -> Result<()> {
    tx.touch(Resource::GatewayHost, host).await?;
    sql::query("DELETE FROM host_physical_networks WHERE host = $1")
        .bind(host)
        .execute(tx.conn())
        .await?;
    for name in names {
        sql::query("INSERT INTO host_physical_networks (host, physical_network) VALUES ($1, $2)")
            .bind(host)
            .bind(name.as_str())
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

/// All hosts that others do not reach: host, by whom.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn unreachable_list_all(conn: &mut Conn) -> Result<Vec<(String, String)>> {
    sql::query_as("SELECT host, said_by FROM unreachable_hosts")
        .fetch_all(conn)
        .await
}

/// Who does not reach a host.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn unreachable_list(conn: &mut Conn, host: &str) -> Result<Vec<String>> {
    sql::query_scalar("SELECT said_by FROM unreachable_hosts WHERE host = $1")
        .bind(host)
        .fetch_all(conn)
        .await
}

/// Whom a host does not reach, in the order of names.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn unreachable_said_by(conn: &mut Conn, host: &str) -> Result<Vec<String>> {
    sql::query_scalar("SELECT host FROM unreachable_hosts WHERE said_by = $1 ORDER BY host")
        .bind(host)
        .fetch_all(conn)
        .await
}

/// Notes that a host reaches another, or does not.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn unreachable_set(tx: &mut WriteTx, said_by: &str, host: &str, yes: bool) -> Result<()> {
    tx.touch(Resource::GatewayHost, host).await?;
    let text = if yes {
        "INSERT INTO unreachable_hosts (host, said_by) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM unreachable_hosts WHERE host = $1 AND said_by = $2"
    };
    sql::query(text)
        .bind(host)
        .bind(said_by)
        .execute(tx.conn())
        .await?;
    Ok(())
}
