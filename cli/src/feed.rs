//! `weft feed`: which hosts may join. It works on the server's database, whether a server runs or not.

use crate::arguments::{FeedRevoke, FeedToken};
use crate::config::Config;
use crate::output::{complain, print, print_json};
use anyhow::{Context, bail};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;
use weft_control::feed::{Authority, Revoked};
use weft_control::{Database, store_open};
use weft_model::HostName;

/// How long a host may wait that joins by itself.
const OWN_TOKEN: Duration = Duration::from_secs(600);

/// The authority of the server's database, which must be there: a new one's tokens would be of no use.
async fn authority(config: &Config) -> anyhow::Result<Authority> {
    let database = config.store.database();
    if let Database::Sqlite(file) = &database {
        // One that cannot be looked at is refused with the reason when it is opened.
        if matches!(file.try_exists(), Ok(false)) {
            bail!(
                "the database {} is missing: name the server's configuration by --config FILE, or start the server once",
                file.display()
            );
        }
    }
    let store = store_open(database, config.store.durability).await?;
    Ok(Authority::open(&store).await?)
}

/// Prints a token.
pub(crate) async fn token(args: &FeedToken, json: bool) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    let authority = authority(&config).await?;
    if config.feed.tls_names.is_empty() {
        complain(
            "warning: feed.tls_names is empty in this configuration: a server that runs by it speaks no TLS, and no host \
             can join it by a token",
        );
    }
    let time = Duration::from_secs(args.valid.into());
    let token = authority.token(&args.host, time).await?;
    if json {
        return print_json(&serde_json::json!({ "host": args.host, "token": token }));
    }
    Ok(print(&format!("{token}\n"))?)
}

/// Takes back what a host has.
pub(crate) async fn revoke(args: &FeedRevoke, json: bool) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    let revoked = authority(&config).await?.revoke(&args.host).await?;
    let (
        host,
        Revoked {
            certificates,
            tokens,
        },
    ) = (&args.host, revoked);
    if certificates == 0 && tokens == 0 {
        bail!("{host} has no certificate and no token: nothing was taken back");
    }
    if json {
        let answer =
            serde_json::json!({ "host": host, "certificates": certificates, "tokens": tokens });
        return print_json(&answer);
    }
    let certificates = counted(certificates, "certificate");
    let tokens = counted(tokens, "token");
    Ok(print(&format!(
        "{certificates} and {tokens} of {host} taken back\n"
    ))?)
}

/// How many of a thing.
fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
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
