//! The packet pipeline as a library: the order of the stages, sessions, and the reference engine.
//!
//! Guarantees: a packet's fate is a function of the snapshot, the neighbours, the packets before it and the seconds given;
//! no I/O, no clock, no randomness. Every discard has a [`weft_model::DropReason`], every decision a sentence.
//!
//! It is not fast, and not meant to be: it is the oracle of the other engines' tests, and what explains a packet.

pub mod flow;
pub mod mutant;
pub mod pipeline;
pub mod reference;
pub mod stage;
pub mod topology;
pub mod trace;
pub mod walk;

pub use flow::key::{GuestVlan, Ingress, SessionKey, Tuple};
pub use flow::session::{Session, State, Way};
pub use reference::{Reference, ReferenceConfig};
pub use trace::{Copy, Decision, Encounter, Outcome, Service, SessionNote, Step, Verdict};
