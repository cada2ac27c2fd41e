//! What a write would change at which host, without its being made.
//!
//! Guarantees: the answer is the difference of what realize makes of the rows before and after, so it is what would
//! happen and no guess; it is computed outside the transaction.

use super::rows::Rows;
use super::snapshot::View;
use crate::store::observer::Touched;
use crate::store::{Conn, StoreError};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use weft_model::{Epoch, HostName};

/// Requests for a copy of the rows that wait at most.
const COPIES_WAITING_MAX: usize = 16;

/// Asks realize for a copy of its rows.
#[derive(Clone, Debug)]
pub struct RowsCopy(mpsc::Sender<oneshot::Sender<Rows>>);

/// Realize's end of it.
#[derive(Debug)]
pub struct CopyRequests(mpsc::Receiver<oneshot::Sender<Rows>>);

/// The two ends.
#[must_use]
pub fn rows_copy() -> (RowsCopy, CopyRequests) {
    let (ask, answer) = mpsc::channel(COPIES_WAITING_MAX);
    (RowsCopy(ask), CopyRequests(answer))
}

impl RowsCopy {
    /// A trial on a copy of the rows as they are now; none if realize does not answer.
    pub async fn trial(&self) -> Option<Trial> {
        let (ask, answer) = oneshot::channel();
        self.0.send(ask).await.ok()?;
        let before = answer.await.ok()?;
        Some(Trial(Mutex::new(Both {
            before,
            after: Rows::default(),
        })))
    }
}

impl CopyRequests {
    /// Waits for a request. Never resolves if nobody can ask.
    pub(super) async fn asked(&mut self) -> oneshot::Sender<Rows> {
        match self.0.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// The rows before a write and after it.
#[derive(Debug)]
struct Both {
    before: Rows,
    after: Rows,
}

/// One write that is tried.
#[derive(Debug)]
pub struct Trial(Mutex<Both>);

impl Trial {
    /// Reads what a transaction has written; called within it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn look(&self, conn: &mut Conn, touched: &[Touched]) -> Result<(), StoreError> {
        let mut before = std::mem::take(&mut self.lock().before);
        before.update_view(conn).await?;
        let mut after = before.clone();
        for row in touched {
            let name = row.resource.name();
            after.changed(conn, name, &[row.id.as_str()]).await?;
        }
        *self.lock() = Both { before, after };
        Ok(())
    }

    /// The hosts whose duty would be another, of these and all that have guests.
    pub fn hosts(self, known: &BTreeSet<HostName>, epoch: Epoch) -> BTreeSet<HostName> {
        let Both { before, after } = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if after == Rows::default() {
            return BTreeSet::new();
        }
        let (old, new) = (View::new(&before), View::new(&after));
        let mut hosts = known.clone();
        hosts.extend(old.hosts().chain(new.hosts()).cloned());
        let differs = |host: &&HostName| {
            let mut old = old.snapshot(host, &hosts, epoch);
            let new = new.snapshot(host, &hosts, epoch);
            old.revision = new.revision;
            old != new
        };
        hosts.iter().filter(differs).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
