//! The control plane's parts: store, realize, feed, API.

use crate::config::Config;
use crate::daemon::Parts;
use anyhow::Context;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;
use weft_control::feed::{self, Hub};
use weft_control::realize;
use weft_control::store::Store;

/// Opens the store and starts everything that stands on it.
pub(crate) async fn start(config: &Config, parts: &mut Parts) -> anyhow::Result<()> {
    let store = store(config).await?;
    let hub = Arc::new(Hub::new(store.epoch()));
    let feed = listener("feed.listen", config.feed.listen).await?;
    let _api = listener("api.listen", config.api.listen).await?;
    let shutdown = parts.shutdown.clone();

    let (realize_store, realize_hub, stop) = (store.clone(), hub.clone(), shutdown.clone());
    parts.spawn("realize", async move {
        realize::run(realize_store, &realize_hub, stop).await;
        Ok(())
    });
    let routes = feed::router(hub, store.clone(), shutdown.clone());
    parts.spawn("the feed", async move {
        Ok(feed::serve(feed, routes, shutdown).await?)
    });
    Ok(())
}

async fn store(config: &Config) -> anyhow::Result<Store> {
    let path = &config.store.path;
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        // Others have no business here: tokens and passwords are in the database, if only as hashes.
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let store = Store::open(path, config.store.durability, Arc::new(now_us)).await;
    store.with_context(|| format!("cannot open the database {}", path.display()))
}

async fn listener(field: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} ({field}): is another Weft running?"))
}

/// Microseconds since 1970 (UTC).
#[allow(
    clippy::disallowed_methods,
    reason = "the process's only wall clock, handed to all who need the time"
)]
fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
