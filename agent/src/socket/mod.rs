//! The agent's control socket: HTTP/1.1 with JSON over a unix socket, for `weft status`, `stats`, `sessions` and `trace`.
//!
//! Guarantees: only the socket's owner may connect (mode 0600); bodies, lists and connections are bounded; a question
//! changes nothing. The types here are the protocol, on both sides.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/stats` | [`Stats`] |
//! | `GET /v1/sessions?limit=N` | [`Sessions`] |
//! | `POST /v1/trace` with a [`TraceRequest`] | [`TraceAnswer`] |
//! | `POST /v1/capture` with a [`CaptureRequest`] | a pcapng file, until it ends |
//!
//! Anything else is answered by an HTTP status and an [`Error`].

mod client;
pub(crate) mod server;

pub use client::{Client, ClientError};
pub use server::SocketError;

use crate::service::ServiceCounters;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use weft_model::{
    DropReason, Epoch, HostName, MacAddress, Metered, MeteringLabelId, NetworkId, PortId,
    PortStatus, Revision, SecurityGroupRuleId, Stage, Unsupported, VhostUserMode,
};

/// Where the socket is unless configured.
pub const PATH_DEFAULT: &str = "/run/weft/agent.sock";
/// Bytes of a request's body.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer that the client takes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Entries of [`Sessions`] at most.
pub const SESSIONS_MAX: usize = 65_536;
/// Sessions that statistics count at most: the engine's thread walks its table for them.
pub const SESSIONS_COUNTED_MAX: usize = 8_192;
/// Entries of [`Sessions`] unless asked otherwise.
pub const SESSIONS_DEFAULT: usize = 1_000;

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong and what to do.
    pub error: String,
}

/// What the agent is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This host, as in `binding:host_id`.
    pub host: HostName,
    /// The agent's version.
    pub version: String,
    /// The name under which the engine's pins are kept.
    pub instance: String,
    /// The engine: `ebpf` in an agent, `vhost-user` where the switch runs alone.
    pub engine: String,
    /// Since when, in seconds.
    pub uptime_s: u64,
    /// The database that `revision` belongs to; none before the first snapshot.
    pub epoch: Option<Epoch>,
    /// The revision in force; none before the first snapshot.
    pub revision: Option<Revision>,
    /// The newest revision received.
    pub revision_received: Option<Revision>,
    /// The last snapshot that the engine refused, and why; none once a later one is in force.
    pub refused: Option<(Revision, String)>,
    /// How the connection to control is.
    pub feed: FeedState,
    /// Every port of the snapshot.
    pub ports: Vec<PortState>,
    /// Every physical network that is configured here.
    pub physical_networks: Vec<PhysicalNetworkState>,
    /// The way to other hosts, if it is configured.
    #[serde(default)]
    pub underlay: Option<UnderlayState>,
    /// What the snapshot asks and nobody does.
    pub unsupported: Vec<Unsupported>,
    /// Neighbours known on physical networks.
    pub neighbours: Vec<Neighbour>,
}

/// The feed, as the agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedState {
    /// The server; none if the agent runs from a file.
    pub url: Option<String>,
    /// Whether the stream is open and has spoken.
    pub connected: bool,
    /// Why it is not.
    pub error: Option<String>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// The port.
    pub port_id: PortId,
    /// Its network.
    pub network_id: NetworkId,
    /// Its interface's name.
    pub interface: String,
    /// Who listens on `interface`, if it is a vhost-user socket.
    #[serde(default)]
    pub vhost_user: Option<VhostUserMode>,
    /// Its MAC address.
    pub mac_address: MacAddress,
    /// Its addresses.
    pub fixed_ips: Vec<IpAddr>,
    /// As it was reported to control.
    pub status: PortStatus,
    /// Why it is not ACTIVE; empty if it is.
    pub reason: String,
}

/// A physical network of this host's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalNetworkState {
    /// Its name.
    pub name: String,
    /// The interface that it is mapped to.
    pub interface: String,
    /// Whether the interface is there.
    pub attached: bool,
}

/// The interface that leads to other hosts, of this host's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderlayState {
    /// The interface.
    pub interface: String,
    /// Whether it is there.
    pub attached: bool,
}

/// A neighbour on a physical network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The network.
    pub network_id: NetworkId,
    /// Its address.
    pub ip_address: IpAddr,
    /// Where it is.
    pub mac_address: MacAddress,
}

/// What passed and what did not, since the engine's maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Every port that the engine counts for.
    pub ports: Vec<PortStats>,
    /// Every physical network's side.
    pub networks: Vec<NetworkStats>,
    /// Tunnels to other hosts, with their outer headers.
    #[serde(default)]
    pub underlay: UnderlayStats,
    /// What metering labels have counted here, at the gateways of routers.
    #[serde(default)]
    pub metering_labels: Vec<MeteringStats>,
    /// The sum over ports and networks.
    pub total: Traffic,
    /// The sum of drops over ports, networks and tunnels, by reason.
    pub drops: Vec<DropCount>,
    /// Sessions in the engine's table; [`SESSIONS_COUNTED_MAX`] if there are so many or more.
    pub sessions: u64,
    /// What the services did since the agent started.
    pub services: ServiceCounters,
}

/// Packets and bytes; `rx` is what came from the guest (or the wire), `tx` what went to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

/// One port's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port.
    pub port_id: PortId,
    /// Its interface's name; empty if the port is gone.
    pub interface: String,
    /// What passed.
    pub traffic: Traffic,
    /// What was dropped on its way in from the port.
    pub drops: Vec<DropCount>,
}

/// One physical network's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// The network.
    pub network_id: NetworkId,
    /// What passed.
    pub traffic: Traffic,
    /// What was dropped on its way in from the wire.
    pub drops: Vec<DropCount>,
}

/// What a metering label has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeteringStats {
    /// The label.
    pub metering_label_id: MeteringLabelId,
    /// How much.
    #[serde(flatten)]
    pub metered: Metered,
}

/// The tunnels' counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderlayStats {
    /// What passed.
    pub traffic: Traffic,
    /// What was dropped on its way in from other hosts.
    pub drops: Vec<DropCount>,
    /// What AF_XDP dropped, where that is the way to other hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<XdpStats>,
}

/// What the kernel dropped in front of AF_XDP sockets, before any engine saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdpStats {
    /// Sockets: one for each queue of the interface.
    pub queues: u64,
    /// Packets that came while there was no buffer for them, or that did not fit one.
    pub rx_dropped: u64,
    /// Packets that came while nobody had taken what came before.
    pub rx_ring_full: u64,
    /// How often there was no buffer: why packets are among `rx_dropped`.
    pub fill_ring_empty: u64,
    /// Descriptors that the kernel refused, both ways.
    pub refused: u64,
}

impl XdpStats {
    /// Each counter with its name and what it means.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
        [
            (
                "rx_dropped",
                self.rx_dropped,
                "There was no buffer for them: nobody polled in time",
            ),
            (
                "rx_ring_full",
                self.rx_ring_full,
                "Nobody took in time what had come before",
            ),
            (
                "fill_ring_empty",
                self.fill_ring_empty,
                "So often no buffer was there (of rx_dropped)",
            ),
            (
                "refused",
                self.refused,
                "The kernel refused descriptors of the rings",
            ),
        ]
        .into_iter()
    }
}

/// How many packets died of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason.
    pub reason: DropReason,
    /// The stage that dropped.
    pub stage: Stage,
    /// Packets.
    pub packets: u64,
    /// The reason in a sentence.
    pub sentence: String,
}

/// Tracked connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// At most as many as were asked for, in no order.
    pub sessions: Vec<Session>,
    /// Whether there are more.
    pub truncated: bool,
}

/// One tracked connection, as its opener sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Where the opener's packets come in.
    pub ingress: TraceIngress,
    /// Where they go out; none if it is not known any more.
    pub egress: Option<TraceIngress>,
    /// The opener's packets.
    pub tuple: FiveTuple,
    /// The VLAN that the guests' own tags say, 1 to 4094; none without a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The same as they leave, if addresses or ports are translated.
    pub translated: Option<FiveTuple>,
    /// `opening`, `established` or `closing`.
    pub state: String,
    /// Seconds since its last packet.
    pub idle_s: u32,
    /// Packets of both directions.
    pub packets: u64,
    /// Bytes of both directions.
    pub bytes: u64,
}

/// A port or a physical network's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceIngress {
    /// From a guest.
    Port(PortId),
    /// From the wire.
    Network(NetworkId),
}

/// A packet's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiveTuple {
    /// IP protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port; ICMP: the identifier of a query.
    #[serde(default)]
    pub source_port: u16,
    /// Destination port; ICMP: the identifier of a reply.
    #[serde(default)]
    pub destination_port: u16,
}

/// What is to be traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracePacket {
    /// A whole frame in hex digits, from the Ethernet header on; blanks and colons are skipped.
    Frame(String),
    /// A packet of these addresses: the opener's first (TCP: a SYN; ICMP: an echo request), sent by the port itself or by
    /// a neighbour on the wire, with the MAC addresses that a stack would choose.
    FiveTuple(FiveTuple),
}

/// A question: what happens to this packet?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// Where it comes in.
    pub ingress: TraceIngress,
    /// The packet.
    pub packet: TracePacket,
}

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Ports, and physical networks by the networks on them; with `underlay` false and none here, all that the host has.
    pub places: Vec<TraceIngress>,
    /// The interface that leads to other hosts.
    pub underlay: bool,
    /// Bytes of a frame that are kept.
    pub bytes_max: usize,
    /// Frames after which it ends.
    pub count: u64,
    /// Seconds after which it ends.
    pub seconds: u64,
    /// Whether frames that come in are explained, in comments.
    pub why: bool,
}

/// What would happen to the packet, by the reference engine under the snapshot in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// The revision it was traced under.
    pub revision: Revision,
    /// The frame that was traced, in hex digits.
    pub frame: String,
    /// The stages in their order.
    pub steps: Vec<TraceStep>,
    /// What becomes of it: `drop`, `deliver`, `uplink`, `reply`, `service` or `pass`.
    pub verdict: String,
    /// The verdict in words, with port, network or reason.
    pub verdict_text: String,
    /// Why it is dropped, if it is.
    pub drop_reason: Option<DropReason>,
    /// The frame that comes out, in hex digits.
    pub output: Option<String>,
    /// What the trace does not know of the engine's state, in sentences.
    pub notes: Vec<String>,
}

/// One stage's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The stage.
    pub stage: Stage,
    /// What it decided, in words.
    pub decision: String,
    /// The security group rule that decided.
    pub rule: Option<SecurityGroupRuleId>,
}
