//! One host's stream, line by line.
//!
//! Guarantees: a line is made only when the connection takes one, from the newest snapshot at that moment, so that
//! what a slow reader missed arrives as one delta; the first line comes as soon as the host's duty is known; no
//! [`limits::FEED_HEARTBEAT_MS`] passes without a line.

use super::host::Subscription;
use axum::body::Bytes;
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weft_model::{FeedMessage, HostName, limits};

/// An open stream.
pub(super) struct FeedStream {
    host: HostName,
    subscription: Subscription,
    shutdown: CancellationToken,
    /// Resolves when whoever reads may not any more.
    no_longer: BoxFuture<'static, ()>,
}

impl FeedStream {
    pub(super) fn new(
        host: HostName,
        subscription: Subscription,
        shutdown: CancellationToken,
        no_longer: BoxFuture<'static, ()>,
    ) -> Self {
        Self {
            host,
            subscription,
            shutdown,
            no_longer,
        }
    }

    /// The next line; none ends the stream.
    pub(super) async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.subscription.message() {
                return self.encoded(&message);
            }
            let shutdown = self.shutdown.clone();
            let mut revision = self.subscription.revision.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = &mut self.no_longer => return None,
                () = self.subscription.superseded() => {
                    tracing::warn!(host = %self.host, "a stream ends: newer ones of the same host took its place");
                    return None;
                }
                changed = revision.changed() => changed.ok()?,
                () = tokio::time::sleep(Duration::from_millis(limits::FEED_HEARTBEAT_MS)) => {
                    let revision = *self.subscription.realized.borrow();
                    return self.encoded(&FeedMessage::Heartbeat { revision });
                }
            }
        }
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
