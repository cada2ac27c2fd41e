//! Starting and stopping: what runs in one process, and in which order it ends.
//!
//! Guarantees: SIGINT, SIGTERM and SIGHUP (the last one reloads in `weft run`) end everything within
//! [`SHUTDOWN_TIMEOUT`]; when one part fails the others end with it, and its error is the process's; a host that cannot
//! run the kernel engine is told before anything is opened.

use crate::config::Config;
use crate::server;
use crate::snapshot_file;
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_ebpf::check_host;
use weft_model::HostSnapshot;

#[allow(dead_code, reason = "the agent's entry point is not there yet")]
enum Source {
    Feed(String),
    Fixed(watch::Receiver<Option<Arc<HostSnapshot>>>),
}

/// From the signal to the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1_900);

/// `weft all-in-one`
pub(crate) async fn all_in_one(config: &Config) -> anyhow::Result<()> {
    host_checked()?;
    let mut parts = Parts::new();
    let feed = server::start(config, &mut parts).await?;
    agent_start(config, &mut parts, Source::Feed(config.feed_url(feed)))?;
    parts.run(None).await
}

/// `weft server`
pub(crate) async fn server(config: &Config) -> anyhow::Result<()> {
    let mut parts = Parts::new();
    server::start(config, &mut parts).await?;
    parts.run(None).await
}

/// `weft agent`
pub(crate) async fn agent(config: &Config) -> anyhow::Result<()> {
    host_checked()?;
    let mut parts = Parts::new();
    agent_start(
        config,
        &mut parts,
        Source::Feed(config.feed_url(config.feed.listen)),
    )?;
    parts.run(None).await
}

/// `weft run`
pub(crate) async fn run(config: &Config, file: PathBuf) -> anyhow::Result<()> {
    let mut source = snapshot_file::SnapshotFile::open(file)?;
    host_checked()?;
    let mut parts = Parts::new();
    agent_start(config, &mut parts, Source::Fixed(source.subscribe()))?;
    let (reload, reloads) = mpsc::channel(1);
    let shutdown = parts.shutdown.clone();
    parts.spawn("the snapshot file", async move {
        source.follow(reloads, shutdown).await;
        Ok(())
    });
    parts.run(Some(reload)).await
}

/// Says what the host lacks, if it lacks anything.
fn host_checked() -> anyhow::Result<()> {
    let missing = check_host();
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing
        .iter()
        .map(|missing| format!("\n  {missing}"))
        .collect();
    bail!(
        "this host cannot run the kernel engine; it lacks{}",
        lines.concat()
    );
}

/// The agent's part.
fn agent_start(config: &Config, parts: &mut Parts, source: Source) -> anyhow::Result<()> {
    let _ = (config, parts, source);
    Ok(())
}

/// Tasks that live and die together.
pub(crate) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    /// Cancelled when all must end.
    pub(crate) shutdown: CancellationToken,
}

impl Parts {
    fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
        }
    }

    /// Starts a part; `name` is for its error.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks
            .spawn(async move { part.await.with_context(|| format!("{name} failed")) });
    }

    /// Waits for a signal or for a part to end, then ends all of them. SIGHUP goes to `reload`, if there is one.
    async fn run(mut self, reload: Option<mpsc::Sender<()>>) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut done = Ok(());
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => match &reload {
                    // A full channel holds a reload that is still to come.
                    Some(reload) => drop(reload.try_send(())),
                    None => break,
                },
                Some(ended) = self.tasks.join_next() => {
                    done = ended.context("a part panicked").flatten();
                    break;
                }
            }
        }
        tracing::info!("ending");
        self.shutdown.cancel();
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = ended.context("a part panicked").flatten();
                done = std::mem::replace(&mut done, Ok(())).and(ended);
            }
        };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, rest).await.is_err() {
            bail!(
                "some parts did not end within {} ms and were cut off",
                SHUTDOWN_TIMEOUT.as_millis()
            );
        }
        done
    }
}
