//! What happens to a server's ports that whoever runs the server wants to hear of: Nova.
//!
//! An event is said after the transaction that brought it is committed, never before and never for one that was undone. It is
//! lost if this process dies in between, as with Neutron.

use super::port::PortRow;
use super::sql;
use super::{Result, Store, WriteTx};
use uuid::Uuid;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerEventKind {
    /// Addresses or floating IPs may be others.
    NetworkChanged,
    /// A host enforces the port.
    VifPlugged,
    /// A host cannot enforce it.
    VifPlugFailed,
    /// No host enforces it any more.
    VifUnplugged,
    /// It is deleted.
    VifDeleted,
}

/// Something that happened to a port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerEvent {
    /// What.
    pub kind: ServerEventKind,
    /// The server: the port's `device_id`.
    pub server_id: String,
    /// The port.
    pub port_id: String,
}

impl Store {
    /// Says what a committed transaction announced.
    pub(super) fn say(&self, announced: Vec<ServerEvent>) {
        let Some(listener) = self.0.server_events.get() else {
            return;
        };
        for event in announced {
            // A queue that is full is one whose reader has been away for long: a request must not wait for it.
            if let Err(error) = listener.try_send(event) {
                tracing::warn!(%error, "an event for a server is lost");
            }
        }
    }
}

impl WriteTx {
    /// Says what happens to a port, if it is a server's, once this is committed.
    pub fn announce(&mut self, kind: ServerEventKind, port: &PortRow) {
        self.announce_of(kind, &port.id, &port.device_owner, &port.device_id);
    }

    fn announce_of(&mut self, kind: ServerEventKind, port: &str, owner: &str, device: &str) {
        let server = owner.starts_with("compute:") && Uuid::try_parse(device).is_ok();
        if server && self.store.hears_server_events() {
            self.announced.push(ServerEvent {
                kind,
                server_id: device.to_owned(),
                port_id: port.to_owned(),
            });
        }
    }

    /// The same for a port whose status has become another.
    pub(super) async fn announce_status(&mut self, port: &str, status: &str) -> Result<()> {
        if !self.store.hears_server_events() {
            return Ok(());
        }
        let kind = match status {
            "ACTIVE" => ServerEventKind::VifPlugged,
            "ERROR" => ServerEventKind::VifPlugFailed,
            _ => ServerEventKind::VifUnplugged,
        };
        let found: Option<String> = sql::query_scalar(
            "SELECT device_id FROM ports WHERE id = $1 AND device_owner LIKE 'compute:%'",
        )
        .bind(port)
        .fetch_optional(self.conn())
        .await?;
        if let Some(device) = found {
            self.announce_of(kind, port, "compute:", &device);
        }
        Ok(())
    }
}
