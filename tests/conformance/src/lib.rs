//! OpenStack's own API suites against a `weft server`, with its own identity or with a real Keystone.
//!
//! Everything is on loopback, on ports that the kernel chooses, so that several runs do not meet. Python's programs are
//! installed from PyPI, at pinned versions, into the target directory.

#![allow(
    clippy::print_stdout,
    reason = "what a command for people is made of, whose output is its purpose"
)]

pub mod agent;
pub mod cloud;
pub mod keystone;
pub mod openapi;
pub mod python;
pub mod reference;
pub mod report;
pub mod server;
pub mod suite;
