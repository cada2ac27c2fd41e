//! What a worker does with nothing to do: looks again at once, then with pauses, then sleeps until somebody kicks.
//!
//! Guarantees: no kick is lost between the last look and the sleep: notifications are asked for first, and the rings looked
//! at once more. It sleeps for a second at most, so that idle sessions go. Of queues that another worker polls by now nothing is
//! taken away: their kicks stay unread, and stay asked for.

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
    /// `queues` are those that this worker polls at the moment.
    pub(super) fn sleep<'a, Q: Iterator<Item = (&'a PortQueues, usize)>>(
        &mut self,
        queues: impl Fn() -> Q,
        ways: Option<BorrowedFd<'_>>,
        now: Duration,
    ) {
        let mut kicks = Vec::new();
        let mut more = false;
        for (port, number) in queues() {
            if let Some(mut queue) = port.lock(number).filter(|queue| queue.ring.is_some()) {
                more |= queue.kicks_ask(true);
                // A ring without a kick is one that must be polled.
                more |= queue.kick.is_none();
                kicks.extend(queue.kick.clone());
            }
        }
        let ready = if more {
            self.since = Some(now);
            Vec::new()
        } else {
            self.wait(&kicks, ways)
        };
        // Those that were given away meanwhile are not among them: their new worker may sleep already.
        for (port, number) in queues() {
            if let Some(mut queue) = port.lock(number) {
                queue.kicks_ask(false);
                let kick = queue.kick.as_ref();
                if let Some(kick) = kick.filter(|kick| ready.iter().any(|r| Arc::ptr_eq(r, kick))) {
                    drain(kick);
                }
            }
        }
    }

    /// Waits, and says which queues were kicked.
    fn wait(&mut self, kicks: &[Arc<OwnedFd>], ways: Option<BorrowedFd<'_>>) -> Vec<Arc<OwnedFd>> {
        let all = kicks.iter().map(|kick| &**kick).chain([&*self.bell]);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        fds.extend(ways.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // Whatever ends it, the rings are looked at.
        let _ended = rustix::event::poll(&mut fds, Some(&ASLEEP));
        self.since = None;
        let kicked = kicks.iter().zip(&fds);
        let kicked = kicked.filter(|(_, fd)| !fd.revents().is_empty());
        let kicked = kicked.map(|(kick, _)| Arc::clone(kick)).collect();
        drain(&self.bell);
        kicked
    }
}

/// Reads a count, if there is one still: a front-end's eventfd may be one that waits.
fn drain(fd: &OwnedFd) {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    if rustix::event::poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
        // What a front-end passed as its eventfd may be anything: reading it is all that we do.
        let _count = rustix::io::read(fd, &mut [0; 8]);
    }
}
