//! What a worker does with nothing to do: looks again at once, then with pauses, then sleeps until somebody kicks.
//!
//! Guarantees: no kick is lost between the last look and the sleep: notifications are asked for first, and the rings looked
//! at once more. It sleeps for a second at most, so that idle sessions go.

use crate::queue::PortQueues;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Looks again at once for so long: a batch of the other side's takes about that.
const BUSY: Duration = Duration::from_micros(20);
/// Looks with pauses for so long; then it sleeps.
const PAUSING: Duration = Duration::from_micros(200);
/// Pauses between two looks.
const PAUSES: usize = 32;
/// Sleeps for so long at most.
const ASLEEP: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A worker's idle time.
#[derive(Debug)]
pub(super) struct Idle {
    bell: Arc<OwnedFd>,
    since: Option<Duration>,
}

impl Idle {
    pub(super) fn new(bell: Arc<OwnedFd>) -> Self {
        Self { bell, since: None }
    }

    /// Says how a turn ended, and whether it is time to sleep.
    pub(super) fn spent(&mut self, frames: usize, now: Duration) -> bool {
        if frames > 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let idle = now.saturating_sub(since);
        if idle > BUSY {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
        idle > PAUSING
    }

    /// Sleeps until one of the queues is kicked, something comes by one of the ways, the bell rings, or a second is over.
    pub(super) fn sleep<'a>(
        &mut self,
        queues: impl Iterator<Item = (&'a PortQueues, usize)> + Clone,
        ways: Option<BorrowedFd<'_>>,
        now: Duration,
    ) {
        let mut kicks = Vec::new();
        let mut more = false;
        for (port, number) in queues.clone() {
            if let Some(mut queue) = port.lock(number).filter(|queue| queue.ring.is_some()) {
                more |= queue.kicks_ask(true);
                // A ring without a kick is one that must be polled.
                more |= queue.kick.is_none();
                kicks.extend(queue.kick.clone());
            }
        }
        if more {
            self.since = Some(now);
        } else {
            self.wait(&kicks, ways);
        }
        for (port, number) in queues {
            if let Some(mut queue) = port.lock(number) {
                queue.kicks_ask(false);
            }
        }
    }

    fn wait(&mut self, kicks: &[Arc<OwnedFd>], ways: Option<BorrowedFd<'_>>) {
        let all = kicks.iter().map(|kick| &**kick).chain([&*self.bell]);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        // Behind the others: it is not read.
        fds.extend(ways.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // Whatever ends it, the rings are looked at.
        let _ended = rustix::event::poll(&mut fds, Some(&ASLEEP));
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let all = kicks.iter().map(|kick| &**kick).chain([&*self.bell]);
        let mut count = [0; 8];
        for (fd, _) in all.zip(ready).filter(|(_, ready)| *ready) {
            // What a front-end passed as its eventfd may be anything: reading it is all that we do.
            let _count = rustix::io::read(fd, &mut count);
        }
        self.since = None;
    }
}
