//! Weft's kernel engine: a host's snapshot, enforced by eBPF programs on its devices.
//!
//! Guarantees: what docs/pipeline.md says of a packet, for every device that was announced; see [`Engine`]. The programs
//! are in `ebpf/programs`, their layouts in `weft-ebpf-common`; [`sys`] is the only unsafe code.
//!
//! It does not watch devices, answer DHCP or resolve neighbours (the agent does), and has no thread of its own but the
//! policy compiler's.

mod carry;
mod compile;
mod device;
mod engine;
mod error;
mod event;
mod expire;
mod host;
mod link_info;
mod load;
pub mod policy;
mod steer;
mod stub;
mod subport;
pub mod sys;
mod test_run;
mod view;

pub use carry::Carried;
pub use engine::{Applied, Engine, EngineConfig};
pub use error::EngineError;
pub use event::{Event, EventKind, Ingress, LogEvent};
pub use host::{MissingFeature, check_host};
pub use link_info::{LinkAbout, link_about};
pub use steer::Steering;
pub use test_run::{TestRun, Verdict};
pub use view::{Counters, DeviceCounters, SessionState, SessionView};

/// Uplinks that one host can have, and the underlay: in tables by device they stand before the ports.
pub const UPLINKS_MAX: u32 = weft_ebpf_common::constants::slot::UPLINKS_MAX;
