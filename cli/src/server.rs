//! The control plane's part.

use crate::config::Config;
use crate::daemon::Parts;
use crate::feed;
use crate::openrc;
use anyhow::Context;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use weft_control::identity::IdentityMode;
use weft_control::{Control, ControlConfig, Database};

/// Opens the store, listens, and starts to serve. Answers where agents find the feed; one of them may be of this process.
pub(crate) async fn start(
    config: &Config,
    parts: &mut Parts,
    own_agent: bool,
) -> anyhow::Result<SocketAddr> {
    let database = config.store.database();
    let file = match &database {
        Database::Sqlite(path) => path.parent(),
        Database::Postgresql(_) => None,
    };
    if let Some(folder) = file.filter(|folder| !folder.as_os_str().is_empty()) {
        // Others have no business here: passwords and tokens are in the database, if only as hashes.
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let mut identity = config.identity.clone();
    if identity.mode == IdentityMode::Builtin {
        identity.admin_password = Some(openrc::admin_password(config)?);
    }
    let control = Control::bind(ControlConfig {
        api_listen: config.api.listen,
        feed_listen: config.feed.listen,
        feed_tls_names: config.feed.tls_names.clone(),
        database: database.clone(),
        durability: config.store.durability,
        public_url: config.api.public_url.clone(),
        policy_file: config.api.policy_file.clone(),
        network: config.network.clone(),
        identity,
        nova: config.nova.clone(),
    });
    let control = control.await.context("the control plane does not start")?;
    if let Some(authority) = control.feed_authority().filter(|_| own_agent) {
        feed::join_myself(authority, &config.host, &config.feed.identity_folder).await?;
    }
    let (api, feed) = (control.api_address(), control.feed_address());
    tracing::info!(%api, %feed, store = %database, "the control plane listens");
    let shutdown = parts.shutdown.clone();
    parts.spawn("the control plane", async move {
        Ok(control.run(shutdown).await?)
    });
    Ok(feed)
}
