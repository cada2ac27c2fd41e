//! One corpus, all engines: vectors (tests/vectors), and random cases that look for differences between engines.
//!
//! Guarantees: a failure names the line of the vector, or is a vector itself, shrunk from a random case. It knows no
//! engine's inside: what it sees is [`EngineUnderTest`].

pub mod chance;
pub mod differential;
pub mod ebpf_engine;
pub mod engine;
pub mod frame_text;
pub mod generate;
mod generate_frames;
pub mod generate_snapshot;
pub mod members;
pub mod script;
pub mod snapshot_text;
pub mod user_engine;
mod user_restarts;
pub mod vector;

pub use ebpf_engine::{EbpfUnderTest, Policies};
pub use engine::{EngineUnderTest, Limits, Observed, ReferenceUnderTest, SessionSeen};
pub use user_engine::UserUnderTest;
