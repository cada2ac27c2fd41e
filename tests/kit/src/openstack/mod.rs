//! What an operator types: `openstack …` lines, carried out by the kit's own small client or by the stock one.
//!
//! A line has the same meaning in both, so that one script serves the demo (fast, in this process) and the proof that
//! the unmodified client can do it. Lines are split at blanks; no value may hold one.

mod client;
mod further;
mod line;
mod stock;

pub use client::Client;
pub use stock::{Stock, StockError};

use anyhow::Result;
use serde_json::Value;

/// Who asks, and where: the contents of an openrc file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cloud {
    /// Keystone's address, ending in `/v3`.
    pub auth_url: String,
    /// The user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The project that the token is for.
    pub project: String,
}

impl Cloud {
    /// The same cloud as another user of another project.
    #[must_use]
    pub fn with(&self, username: &str, password: &str, project: &str) -> Self {
        Self {
            auth_url: self.auth_url.clone(),
            username: username.to_owned(),
            password: password.to_owned(),
            project: project.to_owned(),
        }
    }

    /// The environment that the stock client reads.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OS_AUTH_TYPE", "password".to_owned()),
            ("OS_AUTH_URL", self.auth_url.clone()),
            ("OS_IDENTITY_API_VERSION", "3".to_owned()),
            ("OS_USERNAME", self.username.clone()),
            ("OS_PASSWORD", self.password.clone()),
            ("OS_PROJECT_NAME", self.project.clone()),
            ("OS_USER_DOMAIN_NAME", "Default".to_owned()),
            ("OS_PROJECT_DOMAIN_NAME", "Default".to_owned()),
            ("OS_REGION_NAME", "RegionOne".to_owned()),
        ]
    }

    /// An openrc file.
    #[must_use]
    pub fn openrc(&self) -> String {
        self.environment()
            .iter()
            .map(|(key, value)| format!("export {key}={value}\n"))
            .collect()
    }
}

/// Somebody who can carry out `openstack` lines.
pub trait Operator: std::fmt::Debug {
    /// Carries out a line (without the word `openstack`) and gives what the API said of the resource; null for commands
    /// that print nothing.
    ///
    /// # Errors
    /// The API refuses: with its own words.
    fn openstack(&mut self, cloud: &Cloud, line: &str) -> Result<Value>;

    /// Carries out lines that do not depend on each other, and gives their results in order.
    ///
    /// # Errors
    /// As [`Operator::openstack`], for the first line that fails.
    fn openstack_all(&mut self, cloud: &Cloud, lines: &[String]) -> Result<Vec<Value>> {
        lines
            .iter()
            .map(|line| self.openstack(cloud, line))
            .collect()
    }

    /// Whether it starts quickly enough that what follows a request can be measured from the request on.
    fn is_quick(&self) -> bool;
}
