//! Weft's host daemon: snapshot in, engines, report out.
//!
//! Guarantees: it wires, and decides nothing about packets: what passes is the engines' business (`weft-ebpf`,
//! docs/pipeline.md). It answers what the engines hand up (`service`), watches the interfaces, keeps one thread for the
//! engine's system calls, and tells control what is *enforced*. While control is away the last snapshot stays in force;
//! while the agent is away the kernel goes on.
//!
//! It keeps nothing on disk but its control socket and the engine's pins.

mod agent;
mod alone;
mod capture;
mod clock;
mod decision_log;
pub mod feed;
mod host;
mod links;
mod owner;
mod probe;
mod question;
mod report;
pub mod service;
pub mod socket;
mod trace;
mod user;
mod view;
mod wire_socket;

pub use agent::{AgentConfig, AgentError, Source, Underlay, run};
pub use alone::AloneSocket;
pub use links::LinksError;
pub use owner::OwnerError;
pub use weft_ebpf::{MissingFeature, check_host};
