//! The user engine's rings, the driver's side of them, and the lock of its workers: the engine's own files, compiled over a memory of
//! which loom tries every order that threads and the memory model allow. What is asserted is in `tests/`.
//!
//! Guarantees: no copy of the code under test. What the files need of `memory` is here in words of 16 bits, so that a longer
//! one may be seen half written, as the real one may be by a processor without x86's order.

#[path = "../../../vhost/src/driver.rs"]
pub mod driver;
mod inflight;
pub mod memory;
#[path = "../../../vhost/src/ring/mod.rs"]
pub mod ring;
