//! The user engine: a vhost-user switch for KVM guests.
//!
//! Guests share their memory and rings by the vhost-user protocol; a worker polls the rings and copies each frame once, from
//! guest to guest. What becomes of a frame says docs/pipeline.md, as for the other engines.

pub mod alone;
pub mod carry;
mod clock;
pub mod dirty;
pub mod driver;
pub mod engine;
pub mod frontend;
pub mod inflight;
pub mod memory;
pub mod protocol;
pub mod queue;
pub mod ring;
#[cfg(test)]
// Here, for tests/interleavings compiles `ring` over another memory, which these know nothing of.
#[path = "ring/ring_tests.rs"]
mod ring_tests;
pub mod socket_file;
pub mod worker;
pub mod xdp;
