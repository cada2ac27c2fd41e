//! The control plane: store, realize, feed, API and identity, as one part of the process.

use crate::config::Config;
use crate::daemon::Parts;
use crate::openrc;
use anyhow::Context;
use std::os::unix::fs::DirBuilderExt;
use weft_control::identity::IdentityConfig;
use weft_control::{Control, ControlConfig};

/// Opens the database, listens, and serves from then on.
pub(crate) async fn start(config: &Config, parts: &mut Parts) -> anyhow::Result<()> {
    folder(config)?;
    let control = Control::bind(ControlConfig {
        api_listen: config.api.listen,
        feed_listen: config.feed.listen,
        database: config.store.path.clone(),
        durability: config.store.durability,
        identity: IdentityConfig {
            admin_password: Some(openrc::admin_password(config)?),
            ..IdentityConfig::default()
        },
        ..ControlConfig::default()
    })
    .await
    .context("the control plane cannot start")?;
    let shutdown = parts.shutdown.clone();
    parts.spawn("the control plane", async move {
        Ok(control.run(shutdown).await?)
    });
    Ok(())
}

/// Makes the database's folder, if it is missing.
fn folder(config: &Config) -> anyhow::Result<()> {
    let path = &config.store.path;
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    // Others have no business here: tokens and passwords are in the database, if only as hashes.
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display()))
}
