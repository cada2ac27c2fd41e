//! Weft's test kit: a lab of network namespaces, guests with stock clients, the weft process, and an API client.
//!
//! Guarantees: everything that it makes carries the name of its run and is removed when the [`Lab`] goes, also at
//! SIGINT, SIGTERM and SIGHUP; what a killed run left is removed by the next one. It touches nothing else, and nothing
//! here is a mock: packets pass the kernel, requests pass HTTP.

pub mod capture;
pub mod clock;
pub mod command;
pub mod frame;
pub mod guest;
pub mod kernel;
pub mod lab;
pub mod namespace;
pub mod openstack;
pub mod ping;
pub mod recording;
pub mod snapshot;
pub mod tcp;
pub mod trunk;
pub mod weft;

pub use guest::{Guest, PortFacts};
pub use lab::Lab;
pub use namespace::Namespace;
pub use openstack::{Client, Cloud, Operator, Stock};
pub use recording::Recording;
pub use trunk::Trunk;
pub use weft::{Site, Weft, WeftOptions};
