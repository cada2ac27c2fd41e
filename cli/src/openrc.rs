//! The administrator's password, and the environment that the stock client needs.

use crate::config::{Config, here};
use crate::output::{print, print_json};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use weft_control::identity::IdentityMode;

/// Prints the environment.
pub(crate) fn openrc(config: &Config, json: bool) -> anyhow::Result<()> {
    if config.identity.mode == IdentityMode::Keystone {
        let url = &config.identity.keystone.auth_url;
        bail!("users are those of the Keystone at {url}: use its environment");
    }
    let password = match &config.identity.admin_password {
        Some(password) => password.clone(),
        None => {
            let file = password_file(config);
            let text = std::fs::read_to_string(&file).with_context(|| {
                format!("no admin_password is configured, and {} cannot be read: start Weft once, and be root", file.display())
            })?;
            text.trim().to_owned()
        }
    };
    let environment = environment(config, password);
    if json {
        print_json(&environment)
    } else {
        Ok(print(&text(&environment))?)
    }
}

fn environment(config: &Config, password: String) -> BTreeMap<&'static str, String> {
    let here = || format!("http://{}", here(config.api.listen));
    let url = config.api.public_url.clone().unwrap_or_else(here);
    let url = format!("{}/identity/v3", url.trim_end_matches('/'));
    [
        ("OS_AUTH_TYPE", "password".to_owned()),
        ("OS_AUTH_URL", url),
        ("OS_IDENTITY_API_VERSION", "3".to_owned()),
        ("OS_USERNAME", "admin".to_owned()),
        ("OS_PASSWORD", password),
        ("OS_PROJECT_NAME", "admin".to_owned()),
        ("OS_USER_DOMAIN_NAME", "Default".to_owned()),
        ("OS_PROJECT_DOMAIN_NAME", "Default".to_owned()),
        ("OS_REGION_NAME", config.identity.region.clone()),
    ]
    .into()
}

fn text(environment: &BTreeMap<&str, String>) -> String {
    environment
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect()
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Where a password that was made is kept.
fn password_file(config: &Config) -> PathBuf {
    config.store.path.with_extension("admin-password")
}

/// The configured password, else the one that was made at the first start, else a new one, kept for the next time.
pub(crate) fn admin_password(config: &Config) -> anyhow::Result<String> {
    if let Some(password) = &config.identity.admin_password {
        return Ok(password.clone());
    }
    let file = password_file(config);
    let at = || {
        format!(
            "cannot keep the administrator's password in {}",
            file.display()
        )
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(at),
    }
    let password = uuid::Uuid::new_v4().simple().to_string();
    let mut options = std::fs::OpenOptions::new();
    let mut kept = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .with_context(at)?;
    writeln!(kept, "{password}")
        .and_then(|()| kept.sync_all())
        .with_context(at)?;
    tracing::info!(file = %file.display(), "made a password for admin: `weft openrc` prints it");
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_is_made_once_and_only_root_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = folder.path().join("weft.sqlite");
        assert!(
            openrc(&config, true)
                .unwrap_err()
                .to_string()
                .contains("start Weft once")
        );
        let made = admin_password(&config).unwrap();
        assert_eq!((admin_password(&config).unwrap(), made.len()), (made, 32));
        let mode = std::fs::metadata(password_file(&config))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        openrc(&config, true).unwrap();
        config.identity.admin_password = Some("chosen".to_owned());
        assert_eq!(admin_password(&config).unwrap(), "chosen");
    }

    #[test]
    fn the_environment_survives_a_shell() {
        assert_eq!(
            quoted("http://127.0.0.1:9696/v3"),
            "http://127.0.0.1:9696/v3"
        );
        assert_eq!(
            (quoted(""), quoted("it's $1")),
            ("''".to_owned(), r"'it'\''s $1'".to_owned())
        );
        let text = text(&environment(&Config::default(), "p".to_owned()));
        assert!(
            text.contains("export OS_AUTH_URL=http://127.0.0.1:9696/identity/v3\n"),
            "{text}"
        );
    }
}
