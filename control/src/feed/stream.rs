//! One host's stream, line by line.
//!
//! Guarantees: a line is made only when the connection takes one, from the newest snapshot at that moment, so that
//! what a slow reader missed arrives as one delta; the first line comes as soon as the host's duty is known; no
//! [`limits::FEED_HEARTBEAT_MS`] passes without a line; however many agents come at once, few whole snapshots are made at a
//! time, and never where other connections would wait for that.

use super::host::Subscription;
use axum::body::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use weft_model::{FeedMessage, HostName, limits};

/// An open stream.
pub(super) struct FeedStream {
    host: HostName,
    subscription: Subscription,
    shutdown: CancellationToken,
    /// Resolves when whoever reads may not any more.
    no_longer: BoxFuture<'static, ()>,
    turns: Arc<Semaphore>,
}

impl FeedStream {
    /// `turns` are those of who makes a whole snapshot.
    pub(super) fn new(
        host: HostName,
        subscription: Subscription,
        (shutdown, no_longer): (CancellationToken, BoxFuture<'static, ()>),
        turns: Arc<Semaphore>,
    ) -> Self {
        Self {
            host,
            subscription,
            shutdown,
            no_longer,
            turns,
        }
    }

    /// The next line, and what comes after it; none ends the stream.
    pub(super) async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            let whole = self.subscription.whole_is_due();
            if !whole && let Some(message) = self.subscription.message() {
                return self.with(&message);
            }
            let shutdown = self.shutdown.clone();
            let mut revision = self.subscription.revision.clone();
            // Begun anew for each line: a turn that is given to a connection which takes nothing would be nobody's.
            let turn = self.turns.clone().acquire_owned();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = &mut self.no_longer => return None,
                () = self.subscription.superseded() => {
                    tracing::warn!(host = %self.host, "a stream ends: newer ones of the same host took its place");
                    return None;
                }
                turn = turn, if whole => return self.with_whole(turn.ok()?).await,
                changed = revision.changed(), if !whole => changed.ok()?,
                () = tokio::time::sleep(Duration::from_millis(limits::FEED_HEARTBEAT_MS)) => {
                    let revision = *self.subscription.realized.borrow();
                    return self.with(&FeedMessage::Heartbeat { revision });
                }
            }
        }
    }

    /// The whole snapshot, made aside.
    async fn with_whole(mut self, turn: OwnedSemaphorePermit) -> Option<(Bytes, Self)> {
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let message = self.subscription.message()?;
            self.with(&message)
        });
        made.await.ok()?
    }

    fn with(self, message: &FeedMessage) -> Option<(Bytes, Self)> {
        Some((self.encoded(message)?, self))
    }

    fn encoded(&self, message: &FeedMessage) -> Option<Bytes> {
        let mut line = match serde_json::to_vec(message) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(host = %self.host, %error, "a feed message cannot be written");
                return None;
            }
        };
        line.push(b'\n');
        if line.len() > limits::SNAPSHOT_BYTES_MAX {
            let (bytes, max) = (line.len(), limits::SNAPSHOT_BYTES_MAX);
            tracing::error!(host = %self.host, bytes, max, "the host's snapshot is too large to send");
            return None;
        }
        self.subscription.sending(line.len());
        Some(line.into())
    }
}
