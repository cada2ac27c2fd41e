//! The stream to the agents: newline-delimited JSON over HTTP/1.1 (docs/adr/0002).
//!
//! Guarantees: an agent is sent the whole snapshot of its host or what changed since the one it has; a slow reader
//! gets one bigger delta and never a queue that grows; ports turn ACTIVE and DOWN by their host's word only; what the
//! API shows as agents are the hosts that report.
//!
//! It does not authenticate anybody yet: it listens on loopback until hosts have certificates.

pub(crate) mod agent;
pub(crate) mod hub;
mod latency;
mod report;
mod server;
mod stream;
#[cfg(test)]
mod tests;

pub use hub::{HostState, Hub, HubError, Round};
pub use latency::Latency;
pub use server::{HostsView, LatencyView, RealizeView, router, serve};
