//! Bindings of ports beside the one in force, and how hosts attach their guests.

use super::sql::{self, record};
use super::{Conn, JsonText, Result, WriteTx};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use weft_model::VhostUserMode;

/// How a guest finds its port's vhost-user socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VhostUser {
    /// The socket's path on the host.
    pub socket: String,
    /// Who listens.
    pub mode: VhostUserMode,
}

record! {
    /// A host that a port's guest may move to.
    pub struct BindingRow {
        /// The port.
        pub port_id: String,
        /// The host.
        pub host: String,
        /// normal, direct, …
        pub vnic_type: String,
        /// As Nova gave it.
        pub profile: JsonText<Map<String, Json>>,
        /// None for a tap.
        pub vhost_user: JsonText<Option<VhostUser>>,
    }
}

record! {
    /// A host whose agent has a vhost-user engine.
    pub struct VhostUserHostRow {
        /// The host.
        pub host: String,
        /// The folder of its sockets.
        pub socket_folder: String,
        /// Who listens: server, client.
        pub mode: String,
    }
}

/// A port's further bindings, by host.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn binding_list(conn: &mut Conn, port: &str) -> Result<Vec<BindingRow>> {
    sql::query_as(
        "SELECT port_id, host, vnic_type, profile, vhost_user FROM port_bindings \
         WHERE port_id = $1 ORDER BY host",
    )
    .bind(port)
    .fetch_all(conn)
    .await
}

/// Writes a further binding; one of the same host is replaced.
///
/// # Errors
/// [`super::StoreError::Reference`] if the port is gone.
pub async fn binding_set(tx: &mut WriteTx, row: &BindingRow) -> Result<()> {
    sql::query(
        "INSERT INTO port_bindings (port_id, host, vnic_type, profile, vhost_user) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (port_id, host) DO UPDATE SET \
         vnic_type = excluded.vnic_type, profile = excluded.profile, \
         vhost_user = excluded.vhost_user",
    )
    .bind(&row.port_id)
    .bind(&row.host)
    .bind(&row.vnic_type)
    .bind(&row.profile)
    .bind(&row.vhost_user)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a further binding away; whether it was there.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn binding_delete(tx: &mut WriteTx, port: &str, host: &str) -> Result<bool> {
    let done = sql::query("DELETE FROM port_bindings WHERE port_id = $1 AND host = $2")
        .bind(port)
        .bind(host)
        .execute(tx.conn())
        .await?;
    Ok(done > 0)
}

/// How a host attaches its guests; none for taps.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn vhost_user_host_get(conn: &mut Conn, host: &str) -> Result<Option<VhostUserHostRow>> {
    sql::query_as("SELECT host, socket_folder, mode FROM vhost_user_hosts WHERE host = $1")
        .bind(host)
        .fetch_optional(conn)
        .await
}

/// Notes how a host attaches its guests.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn vhost_user_host_set(
    tx: &mut WriteTx,
    host: &str,
    row: Option<&VhostUserHostRow>,
) -> Result<()> {
    sql::query("DELETE FROM vhost_user_hosts WHERE host = $1")
        .bind(host)
        .execute(tx.conn())
        .await?;
    if let Some(row) = row {
        sql::query("INSERT INTO vhost_user_hosts (host, socket_folder, mode) VALUES ($1, $2, $3)")
            .bind(host)
            .bind(&row.socket_folder)
            .bind(&row.mode)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}
