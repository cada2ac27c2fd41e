//! The stream to the agents: newline-delimited JSON over HTTP/1.1 (docs/adr/0002).
//!
//! Guarantees: an agent is sent the whole snapshot of its host or what changed since the one it has; a slow reader
//! gets one bigger delta and never a queue that grows; ports turn ACTIVE and DOWN by their host's word only; what the
//! API shows as agents are the hosts that report.
//!
//! With TLS (`[feed] tls`) each agent has a certificate of its own, which it gets for a token, and is told of its host
//! alone; without, whoever reaches the listener is believed, so it must be on loopback.

pub(crate) mod agent;
mod authority;
pub(crate) mod host;
pub(crate) mod hub;
mod latency;
mod report;
mod server;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
pub(crate) mod wait;

pub use crate::store::feed_certificate::Revoked;
pub use authority::{Authority, AuthorityError};
pub use hub::{HostState, Hub, HubError, Round};
pub use latency::Latency;
pub use server::{HostsView, LatencyView, RealizeView, router, serve, serve_tls};
