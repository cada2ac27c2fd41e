//! Weft's control plane: the OpenStack Networking API v2.0 with a small built-in identity, its store, and what
//! turns rows into every host's duty.
//!
//! A request goes `http` (decode, encode) → `app` (the rules of each resource) → `store` (SQL); a commit bumps the
//! revision and nudges whoever turns rows into snapshots. This crate never names a packet or an engine.

pub mod app;
mod config;
mod connection;
pub mod feed;
pub mod http;
pub mod identity;
pub mod ipam;
mod nova;
pub mod prefix;
pub mod realize;
mod remote;
mod serve;
pub mod store;

pub use config::{ControlConfig, Database};
pub use nova::NovaConfig;
pub use remote::RemoteError;
pub use remote::session::Credentials;
pub use serve::{Control, ServeError, serve, store_open};
