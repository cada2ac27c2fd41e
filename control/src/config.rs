//! The control plane's configuration.

use crate::app::config::NetworkConfig;
use crate::identity::IdentityConfig;
use crate::nova::NovaConfig;
use crate::store::Durability;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where all rows are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Database {
    /// SQLite's file; its folder is made if it is missing.
    Sqlite(PathBuf),
    /// PostgreSQL's URL.
    Postgresql(String),
}

impl fmt::Display for Database {
    /// Without the user and password that a URL may have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgresql(url) => {
                let rest = url.split_once("://").map_or("", |(_, rest)| rest);
                let rest = rest.split('?').next().unwrap_or_default();
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                write!(f, "postgresql://{place}")
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All that an operator sets about the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Where the API (and the built-in identity, under /identity) listens.
    pub api_listen: SocketAddr,
    /// Where agents find the feed.
    pub feed_listen: SocketAddr,
    /// The DNS names and addresses that agents know this server by: with any, the feed speaks TLS, and only to agents with
    /// a certificate.
    pub feed_tls_names: Vec<String>,
    /// Where all rows are.
    pub database: Database,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// The URL that clients reach the API by; none for the one that each request came to.
    pub public_url: Option<String>,
    /// Rules in the place of the default ones, in oslo.policy's form.
    pub policy_file: Option<PathBuf>,
    /// Networks.
    pub network: NetworkConfig,
    /// The built-in identity.
    pub identity: IdentityConfig,
    /// Nova.
    pub nova: NovaConfig,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            api_listen: SocketAddr::from(([127, 0, 0, 1], 9_696)),
            feed_listen: SocketAddr::from(([127, 0, 0, 1], 9_697)),
            feed_tls_names: Vec::new(),
            database: Database::Sqlite("/var/lib/weft/weft.sqlite".into()),
            durability: Durability::default(),
            public_url: None,
            policy_file: None,
            network: NetworkConfig::default(),
            identity: IdentityConfig::default(),
            nova: NovaConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_without_its_password() {
        let cases = [
            (
                "postgresql://weft:secret@db.example/weft?sslmode=require",
                "postgresql://db.example/weft",
            ),
            ("postgresql://weft:p@ss@db/weft", "postgresql://db/weft"),
            (
                "postgresql:///weft?host=/run/postgresql&password=secret",
                "postgresql:///weft",
            ),
            ("secret", "postgresql://"),
        ];
        for (url, shown) in cases {
            let database = Database::Postgresql(url.to_owned());
            assert_eq!(
                (database.to_string(), format!("{database:?}")),
                (shown.to_owned(), shown.to_owned())
            );
        }
        assert_eq!(Database::Sqlite("/a/b".into()).to_string(), "/a/b");
    }
}
