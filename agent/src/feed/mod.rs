//! The feed's client: keeps the host's snapshot as control wants it, and takes the agent's reports back.
//!
//! Guarantees: a snapshot that it hands on has passed `HostSnapshot::validate` and is this host's; what the server
//! says is checked, bounded and refused with a reason; when the connection is lost it comes back by itself, resumes
//! by revision, and says again what the host enforces. A report that could not be delivered is merged with later
//! ones, so that nothing queues up.
//!
//! Over TLS (`https://`) it shows this host's certificate, which it gets for a token and renews ([`identity`]).
//!
//! It enforces nothing and keeps nothing on disk but that certificate. Losing control changes no snapshot: the last one stays.

mod identity;
mod lines;
mod reports;
#[cfg(test)]
mod tests;
mod transport;
mod watch;

use identity::Identity;
pub use identity::IdentityError;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch as state};
use tokio_util::sync::CancellationToken;
pub use transport::TlsError;
use transport::Transport;
use weft_model::{HostName, HostReport, HostSnapshot, limits};

/// For a report's whole way there and back.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream without a line for so long is dead: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_millis(3 * limits::FEED_HEARTBEAT_MS);
/// Bytes of a server's words that an error repeats.
const EXCERPT_BYTES: usize = 512;

/// Where the feed is and how patient the client is.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// The servers, such as `http://127.0.0.1:9697`; several with commas between them. When one fails the next is tried.
    pub url: String,
    /// Which of them is tried, or in use.
    pub server: Arc<AtomicUsize>,
    /// This host, as in `binding:host_id`.
    pub host: HostName,
    /// The wait after a first failure; doubles with every further one.
    pub backoff_min: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Bytes of one line; [`limits::SNAPSHOT_BYTES_MAX`] unless a test wants less.
    pub line_bytes_max: usize,
    /// The longest time between two reports; [`limits::FEED_REPORT_MS`] unless a test wants less.
    pub report_every: Duration,
    /// The physical networks that the host is connected to, in order: said with every report.
    pub physical_networks: Vec<String>,
    /// The host's address in the underlay: said with every report.
    pub tunnel_ip: Option<IpAddr>,
    /// Of the hosts that this one looks after, those that it does not reach: said at once when it changes, and with every report.
    pub unreachable: state::Receiver<Option<BTreeSet<HostName>>>,
    /// Where this host's certificate is kept, and looked for a token to join with; counts for `https://` only.
    pub identity_folder: PathBuf,
    /// How the connection is; whoever wants to know subscribes.
    pub status: state::Sender<FeedStatus>,
}

impl FeedConfig {
    /// The usual patience: 100 ms to 5 s.
    #[must_use]
    pub fn new(url: String, host: HostName) -> Self {
        Self {
            url,
            server: Arc::default(),
            host,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            line_bytes_max: limits::SNAPSHOT_BYTES_MAX,
            report_every: Duration::from_millis(limits::FEED_REPORT_MS),
            physical_networks: Vec::new(),
            tunnel_ip: None,
            unreachable: state::Sender::new(None).subscribe(),
            identity_folder: PathBuf::new(),
            status: state::Sender::new(FeedStatus::default()),
        }
    }

    fn address(&self, what: &str) -> String {
        format!("{}/feed/v1/hosts/{}/{what}", self.server(), self.host)
    }

    /// The server that is tried, or in use.
    fn server(&self) -> &str {
        let servers = self.url.split(',');
        let count = servers.clone().count().max(1);
        let which = self.server.load(Ordering::Relaxed) % count;
        let server = servers.into_iter().nth(which).unwrap_or_default();
        server.trim().trim_end_matches('/')
    }

    /// Goes on to the next server.
    fn failed(&self) {
        self.server.fetch_add(1, Ordering::Relaxed);
    }
}

/// How the connection to control is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedStatus {
    /// Whether the stream is open and has spoken.
    pub connected: bool,
    /// How often it was.
    pub connections: u64,
    /// Why it is not, in words.
    pub error: Option<String>,
}

/// Why the client could not be started.
#[derive(Debug, thiserror::Error)]
pub enum FeedStartError {
    /// The host's certificate is there and cannot be used.
    #[error("cannot use this host's certificate")]
    Identity(#[from] IdentityError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Follows the feed until `shutdown` is cancelled: puts every snapshot into `snapshots` and delivers `reports`. A
/// snapshot that is in `snapshots` at the start is resumed from.
///
/// # Errors
/// The host's certificate is there and cannot be used; everything later is retried.
pub async fn run(
    config: FeedConfig,
    snapshots: state::Sender<Option<Arc<HostSnapshot>>>,
    reports: mpsc::Receiver<HostReport>,
    shutdown: CancellationToken,
) -> Result<(), FeedStartError> {
    let secure = config.url.trim_start().starts_with("https://");
    let identity = match secure {
        true => Identity::load(&config.identity_folder)?,
        false => None,
    };
    let http = Transport::new(identity.as_ref())?;
    let certified = async {
        match secure {
            true => identity::keep(&config, &http, identity).await,
            false => std::future::pending().await,
        }
    };
    let (refusals, refused) = mpsc::channel(1);
    let following = watch::follow(&config, &http, &snapshots, &refusals);
    let delivering = reports::deliver(&config, &http, &snapshots, reports, refused);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = following => {}
        () = delivering => {}
        () = certified => {}
    }
    Ok(())
}

/// The waits between tries: doubling, bounded, and each shortened at random by up to half, so that agents that lost
/// the same server do not return as one.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(config: &FeedConfig) -> Self {
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            next: config.backoff_min,
        }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// The wait that is due; `chance` lies in 0..1.
    fn due(&mut self, chance: f64) -> Duration {
        let wait = self.next.min(self.max);
        self.next = wait.saturating_mul(2);
        wait.mul_f64(1.0 - chance / 2.0)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.due(fastrand::f64())).await;
    }
}

/// An error and its sources, one after the other.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What a server wrote, cut and made printable.
fn excerpt(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(EXCERPT_BYTES)];
    String::from_utf8_lossy(bytes).escape_debug().to_string()
}
