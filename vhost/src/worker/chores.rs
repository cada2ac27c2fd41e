//! What the first worker does beside: idle sessions go, and queues move between workers.
//!
//! Guarantees: little at a time, so that frames do not wait for it.

use super::Worker;
use super::spread::balance;
use crate::engine::Now;

/// Places of the session table that are looked at for idle ones every second.
const EXPIRE_PLACES: usize = 65_536;
/// And at once: about a microsecond's work.
const EXPIRE_STEP: usize = 128;

/// What was done up to now.
#[derive(Debug, Default)]
pub(super) struct Chores {
    second: u32,
    expired_to: usize,
    expire_left: usize,
}

impl Chores {
    /// Whether this second's work is not done yet.
    pub(super) fn more(&self) -> bool {
        self.expire_left > 0
    }
}

impl Worker {
    pub(super) fn chores(&mut self, now: Now) {
        if self.seat.number != 0 {
            return;
        }
        if now.s != self.chores.second {
            self.chores.second = now.s;
            self.chores.expire_left = EXPIRE_PLACES;
            self.even_out();
            self.remotes_ask(now);
        }
        if self.chores.expire_left > 0 {
            let from = self.chores.expired_to;
            let (idle, next) = self.engine.read().idle(from, EXPIRE_STEP, now.s);
            if idle {
                self.engine.write().expire(from, EXPIRE_STEP, now.s);
            }
            self.chores.expired_to = next;
            // Once round is enough.
            let left = self.chores.expire_left.saturating_sub(EXPIRE_STEP);
            self.chores.expire_left = if next == 0 { 0 } else { left };
        }
    }

    /// Gives a queue to another worker, if one has much more to do.
    fn even_out(&mut self) {
        let workers = self.seat.bells.len();
        if workers < 2 {
            return;
        }
        let shares = self.ports.iter().map(|port| &*port.share);
        let Some(moved) = balance(shares, workers) else {
            return;
        };
        if let Some(port) = self.ports.get(moved.port) {
            tracing::debug!(port = %port.ingress, pair = moved.pair, worker = moved.to, "a queue moves");
            port.share.give(moved.pair, moved.to);
            // Both must notice, and one of them may sleep: this wakes all.
            port.queues.changed();
        }
    }
}
