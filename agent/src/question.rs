//! What the control socket asks the thread that owns the engine.

use crate::capture::{Place, Taps};
use crate::socket::{Neighbour, PhysicalNetworkState, PortState, Sessions, Stats, UnderlayState};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use weft_model::{HostSnapshot, MacAddress, NetworkId, Revision, Unsupported};

/// The owner's part of a status.
#[derive(Debug)]
pub(crate) struct HostStatus {
    pub(crate) in_force: Option<Arc<HostSnapshot>>,
    pub(crate) received: Option<Revision>,
    pub(crate) refused: Option<(Revision, String)>,
    pub(crate) ports: Vec<PortState>,
    pub(crate) physical_networks: Vec<PhysicalNetworkState>,
    pub(crate) underlay: Option<UnderlayState>,
    pub(crate) unsupported: Vec<Unsupported>,
    pub(crate) neighbours: Vec<Neighbour>,
}

/// What a trace needs of the host's state.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) snapshot: Arc<HostSnapshot>,
    pub(crate) neighbours: Vec<(NetworkId, IpAddr, MacAddress)>,
    pub(crate) sessions: Sessions,
}

/// A question and where its answer goes. Who asked may be gone; the answer is then dropped.
#[derive(Debug)]
pub(crate) enum Question {
    Status(oneshot::Sender<HostStatus>),
    Stats(oneshot::Sender<Result<Stats, String>>),
    Sessions(usize, oneshot::Sender<Result<Sessions, String>>),
    /// None before the first snapshot.
    Ground(oneshot::Sender<Option<Ground>>),
    /// A capture of this number begins; answers what vhost-user guests send and are sent, by the place in the list.
    Watch(u64, Vec<Place>, oneshot::Sender<Taps>),
    /// It has ended.
    Unwatch(u64, Vec<Place>),
}
