//! One host's stream, line by line.
//!
//! Guarantees: a line is made only when the connection takes one, from the newest snapshot at that moment, so that
//! what a slow reader missed arrives as one delta; the first line comes as soon as the host's duty is known; no
//! [`limits::FEED_HEARTBEAT_MS`] passes without a line.

use super::hub::Subscription;
use axum::body::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weft_model::{FeedMessage, HostName, HostSnapshot, SnapshotDelta, limits};

/// An open stream.
#[derive(Debug)]
pub(super) struct FeedStream {
    host: HostName,
    subscription: Subscription,
    /// Whether the agent was told that it is up to date.
    greeted: bool,
    shutdown: CancellationToken,
}

impl FeedStream {
    pub(super) fn new(
        host: HostName,
        subscription: Subscription,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            host,
            subscription,
            greeted: false,
            shutdown,
        }
    }

    /// The next line; none ends the stream.
    pub(super) async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.message() {
                self.greeted = true;
                return self.encoded(&message);
            }
            let shutdown = self.shutdown.clone();
            let mut snapshot = self.subscription.snapshot.clone();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = self.subscription.superseded() => {
                    tracing::warn!(host = %self.host, "a stream ends: newer ones of the same host took its place");
                    return None;
                }
                changed = snapshot.changed() => changed.ok()?,
                () = tokio::time::sleep(Duration::from_millis(limits::FEED_HEARTBEAT_MS)) => {
                    let revision = *self.subscription.realized.borrow();
                    return self.encoded(&FeedMessage::Heartbeat { revision });
                }
            }
        }
    }

    /// What the agent must be told now, if anything.
    fn message(&mut self) -> Option<FeedMessage> {
        let newest = self.subscription.snapshot.borrow_and_update().clone()?;
        let message = match &self.subscription.sent {
            Some(sent) if Arc::ptr_eq(sent, &newest) && self.greeted => return None,
            Some(sent) if Arc::ptr_eq(sent, &newest) => FeedMessage::Heartbeat {
                revision: *self.subscription.realized.borrow(),
            },
            Some(sent) => FeedMessage::Delta(Box::new(SnapshotDelta::between(sent, &newest))),
            None => FeedMessage::Snapshot(Box::new(HostSnapshot::clone(&newest))),
        };
        self.subscription.sent = Some(newest);
        Some(message)
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
        Some(line.into())
    }
}
