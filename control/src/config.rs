//! The control plane's configuration.

use crate::app::config::NetworkConfig;
use crate::identity::IdentityConfig;
use crate::store::Durability;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// All that an operator sets about the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Where the API (and the built-in identity, under /identity) listens.
    pub api_listen: SocketAddr,
    /// Where agents find the feed.
    pub feed_listen: SocketAddr,
    /// The database's file; its folder is made if it is missing.
    pub database: PathBuf,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// The URL that clients reach the API by; none for the one that each request came to.
    pub public_url: Option<String>,
    /// Networks.
    pub network: NetworkConfig,
    /// The built-in identity.
    pub identity: IdentityConfig,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            api_listen: SocketAddr::from(([127, 0, 0, 1], 9_696)),
            feed_listen: SocketAddr::from(([127, 0, 0, 1], 9_697)),
            database: PathBuf::from("/var/lib/weft/weft.sqlite"),
            durability: Durability::default(),
            public_url: None,
            network: NetworkConfig::default(),
            identity: IdentityConfig::default(),
        }
    }
}
