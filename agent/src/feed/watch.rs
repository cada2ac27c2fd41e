//! The stream from control: connect, read lines, apply, and begin again when it breaks.

use super::lines::{LineTooLong, Lines};
use super::transport::{Transport, TransportError};
use super::{Backoff, FeedConfig, SILENCE_MAX, excerpt, sentence};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use std::sync::Arc;
use tokio::sync::{mpsc, watch as state};
use weft_model::{DeltaError, Epoch, FeedMessage, HostName, HostSnapshot, Invalid, Revision};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("control cannot be reached at {url}")]
    Connect { url: String, source: TransportError },
    #[error("control answered {status}: {text}")]
    Status { status: StatusCode, text: String },
    #[error("the feed broke off")]
    Read(#[source] hyper::Error),
    #[error("the feed was closed by control")]
    Closed,
    #[error("the feed was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error(transparent)]
    Line(#[from] LineTooLong),
    #[error("a line of the feed is no message of Weft's: it begins with \"{begin}\"")]
    Message {
        begin: String,
        source: serde_json::Error,
    },
    #[error("a snapshot for host {said} came on the feed of host {ours}")]
    Host { said: HostName, ours: HostName },
    #[error("the snapshot of revision {revision} is refused: {first} (mistakes in all: {count})")]
    Invalid {
        epoch: Epoch,
        revision: Revision,
        first: Invalid,
        count: usize,
    },
    #[error("a delta came before any snapshot")]
    DeltaFirst,
    #[error("a delta is refused")]
    Delta { epoch: Epoch, source: DeltaError },
}

impl WatchError {
    /// Whether the stream cannot go on from what the host has: a whole snapshot is needed.
    fn lost(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Status { .. }
            | Self::Read(_)
            | Self::Closed
            | Self::Silent => false,
            Self::Line(_)
            | Self::Message { .. }
            | Self::Host { .. }
            | Self::Invalid { .. }
            | Self::DeltaFirst
            | Self::Delta { .. } => true,
        }
    }

    /// What control should hear of: a duty that this host refuses.
    fn refusal(&self) -> Option<Refusal> {
        let (epoch, revision) = match self {
            Self::Invalid {
                epoch, revision, ..
            } => (*epoch, *revision),
            Self::Delta {
                epoch,
                source: DeltaError::Invalid { to, .. },
            } => (*epoch, *to),
            _ => return None,
        };
        Some(Refusal {
            epoch,
            revision,
            text: sentence(self),
        })
    }
}

/// A duty that this host refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    /// Why, in words.
    pub(super) text: String,
}

type Snapshots = state::Sender<Option<Arc<HostSnapshot>>>;

/// Follows the feed for ever.
pub(super) async fn follow(
    config: &FeedConfig,
    http: &Transport,
    snapshots: &Snapshots,
    refusals: &mpsc::Sender<Refusal>,
) {
    let mut backoff = Backoff::new(config);
    let mut lost = false;
    loop {
        let Err(error) = stream(config, http, snapshots, &mut backoff, lost).await;
        lost = error.lost();
        config.failed();
        if let Some(refusal) = error.refusal() {
            // A full channel holds a refusal that is still on its way: one is enough.
            let _full = refusals.try_send(refusal);
        }
        let text = sentence(&error);
        config.status.send_modify(|status| {
            if status.error.as_ref() != Some(&text) {
                tracing::warn!(host = %config.host, "{text}; trying again");
            }
            status.connected = false;
            status.error = Some(text);
        });
        backoff.wait().await;
    }
}

/// One connection, until it ends, which is always an error.
async fn stream(
    config: &FeedConfig,
    http: &Transport,
    snapshots: &Snapshots,
    backoff: &mut Backoff,
    lost: bool,
) -> Result<std::convert::Infallible, WatchError> {
    let mut url = config.address("watch");
    if let Some(have) = snapshots.borrow().as_ref().filter(|_| !lost) {
        url = format!("{url}?epoch={}&revision={}", have.epoch, have.revision);
    }
    let answer = tokio::time::timeout(SILENCE_MAX, http.get(&url)).await;
    let mut response = answer
        .map_err(|_elapsed| WatchError::Silent)?
        .map_err(|source| WatchError::Connect {
            url: config.server().to_owned(),
            source,
        })?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(WatchError::Status {
            status,
            text: begin(&mut response).await,
        });
    }
    let mut lines = Lines::new(config.line_bytes_max);
    loop {
        while let Some(line) = lines.next()? {
            take(config, snapshots, line)?;
            backoff.reset();
            connected(config);
        }
        let chunk = tokio::time::timeout(SILENCE_MAX, chunk(&mut response)).await;
        let chunk = chunk.map_err(|_elapsed| WatchError::Silent)?;
        let chunk = chunk.map_err(WatchError::Read)?;
        lines.push(&chunk.ok_or(WatchError::Closed)?)?;
    }
}

/// The body's next bytes; none at its end.
async fn chunk(response: &mut Response<Incoming>) -> Result<Option<Bytes>, hyper::Error> {
    while let Some(frame) = response.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// The beginning of an error's body.
pub(super) async fn begin(response: &mut Response<Incoming>) -> String {
    match tokio::time::timeout(SILENCE_MAX, chunk(response)).await {
        Ok(Ok(Some(chunk))) => excerpt(&chunk),
        _ => "no text".to_owned(),
    }
}

fn connected(config: &FeedConfig) {
    config.status.send_if_modified(|status| {
        let news = !status.connected;
        if news {
            tracing::info!(host = %config.host, url = config.server(), "the feed is connected");
            status.connected = true;
            status.connections += 1;
            status.error = None;
        }
        news
    });
}

/// Takes one line in.
fn take(config: &FeedConfig, snapshots: &Snapshots, line: &[u8]) -> Result<(), WatchError> {
    let message = serde_json::from_slice(line).map_err(|source| WatchError::Message {
        begin: excerpt(&line[..line.len().min(80)]),
        source,
    })?;
    let next = match message {
        FeedMessage::Heartbeat { .. } => return Ok(()),
        FeedMessage::Snapshot(snapshot) => {
            if snapshot.host != config.host {
                return Err(WatchError::Host {
                    said: snapshot.host,
                    ours: config.host.clone(),
                });
            }
            let mistakes = snapshot.validate();
            if let Some(first) = mistakes.first() {
                let (epoch, revision) = (snapshot.epoch, snapshot.revision);
                let (first, count) = (first.clone(), mistakes.len());
                return Err(WatchError::Invalid {
                    epoch,
                    revision,
                    first,
                    count,
                });
            }
            *snapshot
        }
        FeedMessage::Delta(delta) => {
            let have = snapshots.borrow().clone().ok_or(WatchError::DeltaFirst)?;
            let epoch = have.epoch;
            have.apply(*delta)
                .map_err(|source| WatchError::Delta { epoch, source })?
        }
    };
    snapshots.send_replace(Some(Arc::new(next)));
    Ok(())
}
