//! `weft identity register`: tells Keystone's catalogue where the Networking API is.

use crate::arguments::Register;
use crate::config::Config;
use crate::output::{print, print_json};
use anyhow::Context;
use std::sync::Arc;
use weft_control::Credentials;
use weft_control::identity::{Registration, register as registered};

/// Registers, and prints what it changed.
pub(crate) async fn register(args: &Register, json: bool) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    let here = || format!("http://{}", config.api.listen);
    let url = args.url.clone().or_else(|| config.api.public_url.clone());
    let registration = Registration {
        region: config.identity.region.clone(),
        url: url.unwrap_or_else(here),
    };
    let credentials = credentials(&config, |name| std::env::var(name).ok());
    let changes = registered(credentials, &registration, Arc::new(now))
        .await
        .context("Keystone's catalogue is not changed as asked")?;
    if json {
        return print_json(&changes);
    }
    let mut text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    if text.is_empty() {
        text = format!("{} stands in the catalogue already\n", registration.url);
    }
    Ok(print(&text)?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a command reads the clock itself"
)]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

/// Whoever the environment names, as for the openstack client; otherwise the user of the configuration.
fn credentials(config: &Config, environment: impl Fn(&str) -> Option<String>) -> Credentials {
    let mut credentials = config.identity.keystone.credentials();
    let fields = [
        ("OS_AUTH_URL", &mut credentials.auth_url),
        ("OS_USERNAME", &mut credentials.username),
        ("OS_PASSWORD", &mut credentials.password),
        ("OS_PROJECT_NAME", &mut credentials.project),
        ("OS_USER_DOMAIN_NAME", &mut credentials.user_domain),
        ("OS_PROJECT_DOMAIN_NAME", &mut credentials.project_domain),
    ];
    for (name, field) in fields {
        if let Some(value) = environment(name) {
            *field = value;
        }
    }
    credentials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_goes_before_the_file() {
        let mut config = Config::default();
        config.identity.keystone.password = "service".to_owned();
        let own = credentials(&config, |_| None);
        assert_eq!(
            (own.username.as_str(), own.password.as_str()),
            ("neutron", "service")
        );
        let admin = credentials(&config, |name| {
            (name == "OS_USERNAME").then(|| "admin".to_owned())
        });
        assert_eq!(
            (admin.username.as_str(), admin.project.as_str()),
            ("admin", "service")
        );
    }
}
