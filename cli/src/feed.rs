//! `weft feed`: which hosts may join. It works on the server's database, whether a server runs or not.

use crate::arguments::{FeedRevoke, FeedToken};
use crate::config::Config;
use crate::output::{print, print_json};
use anyhow::Context;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use weft_control::feed::Authority;
use weft_control::store_open;
use weft_model::HostName;

/// How long a host may wait that joins by itself.
const OWN_TOKEN: Duration = Duration::from_secs(600);

async fn authority(config: Option<&Path>) -> anyhow::Result<Authority> {
    let config = Config::load(config)?;
    let store = store_open(config.store.database(), config.store.durability).await?;
    Ok(Authority::open(&store).await?)
}

/// Prints a token.
pub(crate) async fn token(args: &FeedToken, json: bool) -> anyhow::Result<()> {
    let authority = authority(args.config.as_deref()).await?;
    let time = Duration::from_secs(args.valid.into());
    let token = authority.token(&args.host, time).await?;
    if json {
        return print_json(&serde_json::json!({ "host": args.host, "token": token }));
    }
    Ok(print(&format!("{token}\n"))?)
}

/// Takes back what a host has.
pub(crate) async fn revoke(args: &FeedRevoke, json: bool) -> anyhow::Result<()> {
    let authority = authority(args.config.as_deref()).await?;
    let count = authority.revoke(&args.host).await?;
    if json {
        return print_json(&serde_json::json!({ "host": args.host, "certificates": count }));
    }
    Ok(print(&format!(
        "{count} certificates of {} taken back\n",
        args.host
    ))?)
}

/// Lets the agent of the server's own process join, unless it did.
pub(crate) async fn join_myself(
    authority: &Authority,
    host: &HostName,
    folder: &Path,
) -> anyhow::Result<()> {
    let file = folder.join("token");
    if folder.join("identity.json").exists() || file.exists() {
        return Ok(());
    }
    let token = authority.token(host, OWN_TOKEN).await?;
    let write = || {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let mut options = std::fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?;
        out.write_all(token.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}
