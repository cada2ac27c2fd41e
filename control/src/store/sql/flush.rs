//! Making committed transactions safe from a power cut, many at a time.
//!
//! SQLite appends a transaction to its log in microseconds; to flush the log to the disk takes up to milliseconds. So a
//! commit does not flush: it is numbered, and waits until a flush that began after it has ended. One thread flushes
//! again and again for as long as somebody waits: whoever commits while a flush is under way shares the next one. While
//! more writers are in line, a flush waits for a few of them, but not for long.
//! After a flush that failed nothing can be trusted any more: this and every later commit fails.

use crate::store::{Result, StoreError};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use weft_model::Revision;

/// Commits that a flush waits for while writers are in line.
const GROUP: u64 = 4;
/// How long it waits for them at most: the writer whose turn it is may have much to do.
const GROUP_WAIT: Duration = Duration::from_millis(1);

/// The thread, and who waits for it. It ends with this value.
pub(super) struct Flusher {
    asked: Arc<Asked>,
    done: watch::Receiver<Done>,
}

#[derive(Default)]
struct Asked {
    commits: Mutex<Commits>,
    more: Condvar,
}

#[derive(Clone, Copy, Default)]
struct Commits {
    /// How many there were.
    count: u64,
    /// The newest revision among them.
    revision: Revision,
    /// How many of them the flushes that have begun are for.
    flushed: u64,
    /// At how many the thread wants to be woken.
    wanted: u64,
    /// Writers whose turn it is, or that wait for theirs.
    writers: usize,
    closed: bool,
}

#[derive(Clone, Default)]
struct Done {
    /// How many commits are safe.
    count: u64,
    failed: Option<Arc<io::Error>>,
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.asked.lock().closed = true;
        self.asked.more.notify_one();
    }
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Commits> {
        // Every change is one assignment.
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a flush is due, and answers what it is for; none if there will be no more.
    fn wait(&self) -> Option<Commits> {
        let mut commits = self.lock();
        let mut waited = false;
        loop {
            let new = commits.count - commits.flushed;
            if commits.closed && new == 0 {
                return None;
            }
            let last = commits.writers == 0 || commits.closed;
            if new >= GROUP || new > 0 && (last || waited) {
                commits.flushed = commits.count;
                return Some(*commits);
            }
            let enough = if last { 1 } else { GROUP };
            commits.wanted = commits.flushed + enough;
            if last {
                let woken = self.more.wait(commits);
                commits = woken.unwrap_or_else(PoisonError::into_inner);
            } else {
                let woken = self.more.wait_timeout(commits, GROUP_WAIT);
                let (lock, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
                (commits, waited) = (lock, timeout.timed_out());
            }
        }
    }
}

/// A writer, from when it stands in line to the end of its turn.
pub(super) struct Writer(Arc<Asked>);

impl Writer {
    /// Numbers its transaction, which was just committed: before the next one's turn.
    pub(super) fn committed(self, revision: Option<i64>) -> u64 {
        let mut commits = self.0.lock();
        commits.count += 1;
        let revision = Revision(revision.unwrap_or_default().unsigned_abs());
        commits.revision = commits.revision.max(revision);
        commits.count
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut commits = self.0.lock();
        commits.writers -= 1;
        let last = commits.writers == 0 && commits.count > commits.flushed;
        if last || commits.count >= commits.wanted {
            drop(commits);
            self.0.more.notify_one();
        }
    }
}

impl Flusher {
    /// Starts the thread. `flush` makes all safe that was written before it was called; `nudge` is told of the revisions
    /// that are safe.
    pub(super) fn start(
        flush: impl Fn() -> io::Result<()> + Send + 'static,
        nudge: watch::Sender<Revision>,
    ) -> io::Result<Self> {
        let asked = Arc::new(Asked::default());
        let (sender, done) = watch::channel(Done::default());
        let waits = asked.clone();
        let run = move || {
            while let Some(commits) = waits.wait() {
                let failed = flush().err().map(Arc::new);
                if let Some(error) = &failed {
                    tracing::error!(%error, "the database's log cannot be flushed: nothing is written any more");
                } else {
                    crate::store::nudge(&nudge, commits.revision);
                }
                let stop = failed.is_some();
                sender.send_replace(Done {
                    count: commits.count,
                    failed,
                });
                if stop {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("store-flush".to_owned())
            .spawn(run)?;
        Ok(Self { asked, done })
    }

    /// Somebody who wants to write stands in line.
    pub(super) fn writer(&self) -> Writer {
        self.asked.lock().writers += 1;
        Writer(self.asked.clone())
    }

    /// Waits until this commit is safe.
    pub(super) async fn safe(&self, number: u64) -> Result<()> {
        let mut done = self.done.clone();
        let waited = done.wait_for(|done| done.failed.is_some() || done.count >= number);
        match waited.await {
            Ok(done) => failure(&done),
            Err(closed) => Err(StoreError::Database(closed.into())),
        }
    }

    /// An error if a flush has failed.
    pub(super) fn check(&self) -> Result<()> {
        failure(&self.done.borrow())
    }
}

fn failure(done: &Done) -> Result<()> {
    match &done.failed {
        Some(error) => Err(StoreError::Database(Box::new(error.clone()))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[tokio::test]
    async fn commits_share_flushes_and_revisions_are_told_once_safe() {
        let (begun, begins) = mpsc::channel();
        let (go, may) = mpsc::channel();
        let flushes = Arc::new(AtomicUsize::new(0));
        let count = flushes.clone();
        let flush = move || {
            count.fetch_add(1, Ordering::SeqCst);
            begun.send(()).unwrap();
            may.recv().map_err(io::Error::other)
        };
        let (nudge, told) = watch::channel(Revision(0));
        let flusher = Flusher::start(flush, nudge).unwrap();
        let first = flusher.writer().committed(Some(1));
        begins.recv().unwrap();
        // While the first flush is under way: both wait for the second.
        let (second, third) = (
            flusher.writer().committed(Some(2)),
            flusher.writer().committed(None),
        );
        assert_eq!(*told.borrow(), Revision(0));
        go.send(()).unwrap();
        flusher.safe(first).await.unwrap();
        begins.recv().unwrap();
        assert_eq!(*told.borrow(), Revision(1));
        go.send(()).unwrap();
        let (second, third) = tokio::join!(flusher.safe(second), flusher.safe(third));
        second.and(third).unwrap();
        assert_eq!(flushes.load(Ordering::SeqCst), 2);
        assert_eq!(*told.borrow(), Revision(2));
        flusher.check().unwrap();
    }

    #[tokio::test]
    async fn a_writer_whose_turn_takes_long_holds_up_no_flush() {
        let (nudge, told) = watch::channel(Revision(0));
        let flusher = Flusher::start(|| Ok(()), nudge).unwrap();
        let slow = flusher.writer();
        let number = flusher.writer().committed(Some(1));
        flusher.safe(number).await.unwrap();
        assert_eq!(*told.borrow(), Revision(1));
        // One that gives up may be the last that a flush waits for.
        let number = flusher.writer().committed(Some(2));
        drop(slow);
        flusher.safe(number).await.unwrap();
        let number = flusher.writer().committed(Some(3));
        flusher.safe(number).await.unwrap();
        assert_eq!(*told.borrow(), Revision(3));
    }

    #[tokio::test]
    async fn after_a_failed_flush_nothing_is_acknowledged() {
        let (nudge, told) = watch::channel(Revision(0));
        let full = || Err(io::Error::from(io::ErrorKind::StorageFull));
        let flusher = Flusher::start(full, nudge).unwrap();
        let first = flusher.writer().committed(Some(1));
        assert!(flusher.safe(first).await.is_err());
        let second = flusher.writer().committed(Some(2));
        assert!(flusher.safe(second).await.is_err());
        assert!(flusher.check().is_err());
        assert_eq!(*told.borrow(), Revision(0));
    }
}
