//! What the first worker does beside: idle sessions go, queues move between workers, and sessions are kept for the switch that
//! comes after.
//!
//! Guarantees: little at a time, so that frames do not wait for it.

use super::Worker;
use super::spread::balance;
use crate::carry::Adopted;
use crate::clock;
use crate::engine::{Now, Prepared};

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
    /// Enforces a snapshot; by the first one, sessions of the switch before go on.
    pub(super) fn enforce(&mut self, prepared: Prepared) {
        let now = Now::from(clock::now().duration_since(self.seat.start));
        let mut engine = self.engine.write();
        engine.enforce(prepared);
        let keeping = self.keeping.as_mut();
        let adopted = keeping.and_then(|keeping| keeping.applied(&mut engine, now.s));
        if let Some(adopted) = adopted {
            let Adopted {
                sessions,
                gone,
                idle,
                full,
                wrong,
            } = adopted;
            tracing::info!(
                sessions,
                gone,
                idle,
                full,
                wrong,
                "sessions of the switch before go on"
            );
        }
    }

    /// Keeps a little of the sessions for the switch that comes after.
    #[inline]
    pub(super) fn keep(&mut self, now: Now, idle: bool) {
        let Some(keeping) = &self.keeping else {
            return;
        };
        if keeping.is_due(now) || idle && self.keeps_more() {
            self.keep_some(now, idle);
        }
    }

    fn keep_some(&mut self, now: Now, idle: bool) {
        if let Some(keeping) = &mut self.keeping {
            keeping.look(&self.engine, now, idle);
            if keeping.is_lost() {
                tracing::warn!(
                    "sessions are no longer kept for the switch that comes after: their file was truncated, or there is no \
                     memory for it"
                );
                self.keeping = None;
            }
        }
    }

    /// Whether that is to go on before the worker sleeps.
    pub(super) fn keeps_more(&self) -> bool {
        let engine = self.engine.read();
        let keeping = self.keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.is_behind(&engine))
    }

    /// Keeps all of them.
    pub(super) fn keep_all(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.all(&self.engine.read());
        }
    }
}
