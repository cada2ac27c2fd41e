//! The vhost-user protocol, from the back-end's side: how a front-end (QEMU, DPDK's virtio-user) hands over a guest's
//! memory and rings.
//!
//! Guarantees: a message is checked before anything is done; what is wrong ends the connection with a reason, and nothing
//! but that port notices. The order in which messages come is the front-end's choice: QEMU 7.2 enables rings before it
//! sets features. Waits for nobody.
//!
//! It is our own server, not that of rust-vmm: docs/adr/0005-own-vhost-user-server.md.

mod connection;
mod device;
#[cfg(test)]
mod device_tests;
pub mod feature;
mod message;
mod server;
#[cfg(test)]
mod server_tests;

pub use connection::{Connection, Incoming};
pub use device::{Device, Reply};
pub use message::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, Request, RingAddress};
pub use server::{Endpoint, Server, ServerHandle};

use crate::memory::MemoryError;
use crate::ring::SetupError;

/// Why a connection was ended.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The socket failed, or the other side went away.
    #[error("the socket failed")]
    Socket(#[from] std::io::Error),
    /// A header that is none.
    #[error("a message header with version or flags {flags:#x} and {bytes} bytes")]
    Header {
        /// Its flags.
        flags: u32,
        /// What it says of its payload.
        bytes: u32,
    },
    /// A payload that is too short, or carries other descriptors than it must.
    #[error("request {0} with a payload or file descriptors that do not fit it")]
    Payload(u32),
    /// A request that was not offered.
    #[error("request {0}, which this back-end did not offer")]
    Unsupported(u32),
    /// Features that were not offered.
    #[error("features {0:#x}, which this back-end did not offer")]
    Features(u64),
    /// A ring that is not there.
    #[error("ring {0}, of which there are {1}")]
    RingIndex(u32, usize),
    /// A ring at an address that is in no memory region.
    #[error("ring {0} lies outside of the guest's memory")]
    RingAddress(u32),
    /// A ring that cannot be one.
    #[error("ring {0} cannot be used")]
    Ring(u32, #[source] SetupError),
    /// An area of what is in flight that cannot be used.
    #[error("the memory of what is in flight is refused")]
    Inflight(#[source] std::io::Error),
    /// A log that cannot be mapped.
    #[error("the log of dirty pages is refused")]
    Log(#[source] std::io::Error),
    /// Memory that cannot be mapped.
    #[error("the guest's memory is refused")]
    Memory(#[from] MemoryError),
}
