//! What a worker does with nothing to do: looks again at once, then with pauses, then sleeps until somebody kicks. How long it pauses
//! depends on what came of it: if the last sleep ended soon, whoever woke it had to wait for a processor to wake for nothing
//! worth it, and it looks on for longer the next time.
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
/// For so long while frames come within that time: a thousand a second keep it awake, though some of them come late.
const PAUSING_MAX: Duration = Duration::from_micros(4_000);
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
    /// Since when nothing had come before it slept, until it is known what ended that.
    slept: Option<Duration>,
    pausing: Duration,
}

impl Idle {
    pub(super) fn new(bell: Arc<OwnedFd>) -> Self {
        Self {
            bell,
            since: None,
            slept: None,
            pausing: PAUSING,
        }
    }

    /// Says how a turn ended, and whether it is time to sleep.
    pub(super) fn spent(&mut self, frames: usize, now: Duration) -> bool {
        if let Some(since) = self.slept.take() {
            let soon = frames > 0 && now.saturating_sub(since) <= PAUSING_MAX;
            self.pausing = match soon {
                true => PAUSING_MAX,
                // One that came late says little.
                false => PAUSING.max(self.pausing / 2),
            };
        }
        if frames > 0 {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let idle = now.saturating_sub(since);
        if idle > BUSY {
            (0..PAUSES).for_each(|_| std::hint::spin_loop());
        }
        idle > self.pausing
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
            self.slept = self.since;
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
        let rung = fds.get(kicks.len());
        if rung.is_some_and(|bell| !bell.revents().is_empty()) {
            drain(&self.bell);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// Ends turns without frames, one each 10 us, until it is time to sleep, and sleeps; when that was.
    fn asleep(idle: &mut Idle, from: Duration) -> Duration {
        let mut now = from;
        while !idle.spent(0, now) {
            now += Duration::from_micros(10);
        }
        rustix::io::write(&idle.bell, &1u64.to_ne_bytes()).unwrap();
        idle.sleep(std::iter::empty, None, now);
        now
    }

    #[test]
    fn it_looks_on_for_longer_while_frames_come_soon_after_it_slept() {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let mut idle = Idle::new(Arc::new(bell));
        let us = Duration::from_micros;
        assert_eq!(asleep(&mut idle, us(0)), us(210));
        // A frame within the longest time: it will wait so long for the next one.
        assert!(!idle.spent(1, us(1_000)));
        assert_eq!(asleep(&mut idle, us(1_000)), us(5_010));
        // A frame later, and one much later: each time for half as long.
        assert!(!idle.spent(1, us(10_000)));
        assert_eq!(asleep(&mut idle, us(10_000)), us(12_010));
        assert!(!idle.spent(1, us(900_000)));
        assert_eq!(asleep(&mut idle, us(900_000)), us(901_010));
        // Nothing came at all, again and again.
        assert_eq!(asleep(&mut idle, us(902_000)), us(902_510));
        assert_eq!(asleep(&mut idle, us(903_000)), us(903_260));
        assert_eq!(asleep(&mut idle, us(904_000)), us(904_210));
        // Soon again; what comes before it sleeps says nothing about sleeps.
        assert!(!idle.spent(1, us(904_300)) && !idle.spent(1, us(904_400)));
        assert_eq!(asleep(&mut idle, us(904_400)), us(908_410));
    }
}
