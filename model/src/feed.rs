//! What control and agents say to each other.
//!
//! Control sends [`FeedMessage`]s, one JSON value a line, over one long HTTP response; the agent answers with
//! [`HostReport`]s by separate requests. docs/adr/0002 says why.

use crate::{Epoch, HostName, HostSnapshot, PortId, Revision, SnapshotDelta, VhostUserMode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One line of the feed, from control to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FeedMessage {
    /// All that the host must do. The first message, unless the agent could resume.
    Snapshot(Box<HostSnapshot>),
    /// What changed since the revision that the agent was sent last.
    Delta(Box<SnapshotDelta>),
    /// Nothing changed for this host up to this revision; sent at least every
    /// [`crate::limits::FEED_HEARTBEAT_MS`].
    Heartbeat {
        /// The newest revision.
        revision: Revision,
    },
}

/// Whether a port carries traffic under the enforced policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortStatus {
    /// Its interface is there and the policy is enforced.
    Active,
    /// Its interface is missing, or the port is administratively down.
    Down,
    /// The engine could not enforce it; `message` of the report says why.
    Error,
}

/// An agent's word on one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortReport {
    /// The port.
    pub port_id: PortId,
    /// Its state.
    pub status: PortStatus,
    /// What is wrong, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Something in the snapshot that an engine does not enforce.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsupported {
    /// The path in the snapshot, such as `ports.<id>.qos_policy_id`.
    pub path: String,
    /// What holds instead.
    pub message: String,
}

/// A guest says that an address of its port's allowed address pairs is its own from now on, as VRRP's masters do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its port.
    pub port_id: PortId,
    /// The address.
    pub ip_address: IpAddr,
}

/// How a host attaches its guests, if it does so by vhost-user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostUserHost {
    /// The folder of the sockets, an absolute path of at most [`crate::limits::SOCKET_FOLDER_BYTES_MAX`].
    pub socket_folder: String,
    /// Who listens.
    pub mode: VhostUserMode,
}

/// From an agent to control: what it enforces now. Sent at each change, and at least every
/// [`crate::limits::FEED_REPORT_MS`]: it is the sign that the agent lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostReport {
    /// Who says it.
    pub host: HostName,
    /// The database that the revision belongs to.
    pub epoch: Epoch,
    /// The revision that every engine of the host enforces.
    pub revision: Revision,
    /// All ports if `full`, else those whose state changed since the last report.
    pub ports: Vec<PortReport>,
    /// Whether `ports` is the whole list.
    pub full: bool,
    /// A snapshot or delta that was refused whole: its revision, and why. The previous one stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(Revision, String)>,
    /// What the engines do not enforce, at most [`crate::limits::UNSUPPORTED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<Unsupported>,
    /// How ports that are bound to this host from now on are attached; none for taps. Looked at in full reports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vhost_user: Option<VhostUserHost>,
    /// The physical networks that the host is connected to, in order, at most
    /// [`crate::limits::PHYSICAL_NETWORKS_PER_HOST_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub physical_networks: Vec<String>,
    /// Of the hosts that this one looks after (`probed` of the snapshot's tunnel hosts), those that it does not reach in the
    /// underlay; none: it does not say. At most [`crate::limits::PROBED_HOSTS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<BTreeSet<HostName>>,
    /// Where other hosts' tunnels to this one lead; none: nowhere. Looked at in full reports only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_ip: Option<IpAddr>,
    /// What guests have claimed since the last report, in order: of two claims to an address the later one counts. At most
    /// [`crate::limits::CLAIMS_PER_REPORT_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
}
