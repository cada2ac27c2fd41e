//! The system seen from outside: the story that the demo tells, and the scene that it and the system tests play on.
//!
//! Nothing here knows how Weft works inside. It speaks the API, plugs guests, sends packets and looks at what arrives.

pub mod agents;
pub mod gateways;
pub mod hosts;
pub mod over_hosts;
pub mod qemu;
pub mod report;
pub mod scene;
pub mod story;
pub mod tunnelled;
pub mod vhost_guest;
pub mod vm;
pub mod vm_story;
pub mod wire;
pub mod witness;
