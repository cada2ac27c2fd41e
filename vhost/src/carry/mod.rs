//! Sessions over a restart of the switch: a file holds what of them outlives it, and the switch that comes after takes them over
//! (docs/adr/0015-sessions-in-a-file.md).
//!
//! Guarantees: packets do nothing for it; the first worker writes what has come or gone every 10 ms and before it sleeps, and looks
//! through all the others in turn, a little at a time. What is taken over is judged again by its next packet. Whatever the file
//! holds, there is a warning at most: a switch without its sessions is better than none.
//!
//! It does not guarantee that a session of the last moments is there after a kill, nor the second of its newest packet: the look in turn
//! takes some seconds for a large table. Who ends in order writes all.

mod earlier;
mod layout;
mod mirror;

use crate::engine::{CHANGES_MAX, Engine, Left, Now, Place};
use crate::memory::Handle;
use earlier::{Earlier, Found};
use mirror::Mirror;
use std::io;
use std::path::Path;
use uuid::Uuid;
use weft_model::limits::SESSIONS_KEPT_MAX;

/// Changes are written so often.
const EVERY_NS: u64 = 10_000_000;
/// Sessions that are written at once: some microseconds' work.
const STEP: usize = 64;
/// Sessions that are looked through every time, whether anything has come of them or not.
const LOOK: usize = 512;
/// The same once more have come or gone than are remembered, until all were looked through.
const LOOK_BEHIND: usize = 2_048;

/// Why sessions are not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another switch has it.
    #[error("another process keeps its sessions there; name another file")]
    InUse,
    /// It must not be written over.
    #[error("what is there is no file of sessions; remove it, or name another file")]
    Foreign,
    /// More than the file may have.
    #[error("agent.sessions_max is larger than {SESSIONS_KEPT_MAX}")]
    Sessions,
}

/// What became of an earlier switch's sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// They go on.
    pub sessions: usize,
    /// A port or network of theirs is gone.
    pub gone: usize,
    /// Nothing came for longer than their timeout.
    pub idle: usize,
    /// There was no room, or the port's quota was used up.
    pub full: usize,
    /// They were spoilt, or there were newer ones.
    pub wrong: usize,
}

/// A file of sessions, and how far it is written.
#[derive(Debug)]
pub struct Keeping {
    mirror: Mirror,
    /// Until the first snapshot is in force.
    earlier: Option<Earlier>,
    installed: bool,
    /// What has come or gone and is still to be written.
    changed: Vec<u32>,
    due_ns: u64,
    look_left: usize,
    look_at: usize,
    /// So many are to be looked through before all that has come or gone is written.
    behind: usize,
    /// Numbers of ports and networks that are written, and how often some were taken back before.
    numbers: (usize, u32),
}

fn boot() -> io::Result<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Uuid::parse_str(text.trim()).map_err(io::Error::other)
}

impl Keeping {
    /// Reads what an earlier switch has left at this path, and begins a file that takes its place once a snapshot is in force.
    /// `salt` is one that no file had before, from a source of chance.
    ///
    /// # Errors
    /// The path cannot be used.
    pub fn start(path: &Path, sessions_max: u32, salt: u64) -> Result<Self, KeepError> {
        let sessions = usize::try_from(sessions_max).ok();
        let sessions = sessions.filter(|_| sessions_max <= SESSIONS_KEPT_MAX);
        let boot = boot()?;
        let found = Earlier::open(path, boot)?;
        let mirror = Mirror::create(path, sessions.ok_or(KeepError::Sessions)?, boot, salt)?;
        if !mirror.is_on_tmpfs() {
            tracing::warn!(
                "{} is not on a tmpfs: who polls the guests may wait for a disk; name another place for it",
                path.display()
            );
        }
        let earlier = match found {
            Found::Sessions(earlier) => Some(earlier),
            Found::Nothing => None,
            Found::Refused(why) => {
                tracing::warn!(
                    "the sessions in {} do not go on: {why}; connections that a security group lets pass by their session alone begin anew",
                    path.display()
                );
                None
            }
        };
        Ok(Self {
            mirror,
            earlier,
            installed: false,
            changed: Vec::new(),
            due_ns: 0,
            look_left: 0,
            look_at: 0,
            behind: 0,
            numbers: (0, 0),
        })
    }

    /// Where sessions are in memory, and bytes of each: [`Engine::changes_remember`] wants to know.
    #[must_use]
    pub fn memory(&self) -> (usize, usize) {
        self.mirror.memory()
    }

    /// Another snapshot is in force. The first time the earlier sessions are taken over, and what became of them is told.
    pub fn applied(&mut self, engine: &mut Engine, now_s: u32) -> Option<Adopted> {
        let (count, taken_back) = engine.numbers();
        if taken_back != self.numbers.1 {
            // Numbers may be others' by now.
            self.mirror.forget();
            self.numbers = (0, taken_back);
        }
        for number in self.numbers.0..count {
            let place = u16::try_from(number).map(Place).ok();
            let ingress = place.and_then(|place| engine.ingress(place));
            self.mirror.name_put(number, ingress);
        }
        self.numbers.0 = count;
        if self.installed {
            return None;
        }
        self.installed = true;
        let adopted = self.earlier.take().map(|earlier| {
            let mut adopted = Adopted::default();
            let read = earlier.each(|session| {
                let session = session.ok_or(Left::Wrong);
                let done = session.and_then(|session| engine.adopt(&session, now_s));
                let counter = match done {
                    Ok(()) => &mut adopted.sessions,
                    Err(Left::Gone) => &mut adopted.gone,
                    Err(Left::Idle) => &mut adopted.idle,
                    Err(Left::Full) => &mut adopted.full,
                    Err(Left::Wrong) => &mut adopted.wrong,
                };
                *counter += 1;
            });
            if let Err(error) = read {
                tracing::warn!("some sessions of the switch before could not be read: {error}");
            }
            adopted
        });
        self.all(engine);
        if let Err(error) = self.mirror.install() {
            tracing::warn!("sessions are not kept for the switch that comes after: {error}");
        }
        adopted
    }

    /// Whether something is to be written before the worker sleeps.
    #[must_use]
    pub fn is_behind(&self, engine: &Engine) -> bool {
        self.behind > 0 || !self.changed.is_empty() || engine.is_changed()
    }

    /// Whether there is something to do for [`Self::look`].
    #[inline]
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        now.ns >= self.due_ns || self.look_left > 0 || !self.changed.is_empty()
    }

    /// Writes a little, if it is time to; with `idle`, what has changed is written at once.
    pub fn look(&mut self, engine: &Handle<Engine>, now: Now, idle: bool) {
        if self.changed.is_empty() && self.look_left == 0 {
            let due = now.ns >= self.due_ns;
            if !(due || idle) {
                return;
            }
            if engine.read().is_changed() {
                let empty = std::mem::take(&mut self.changed);
                let mut engine = engine.write();
                self.changed = engine.changes_take(empty);
                if self.changed.len() >= CHANGES_MAX {
                    self.behind = engine.session_places();
                }
            }
            if due || self.behind > 0 {
                self.due_ns = now.ns.saturating_add(EVERY_NS);
                self.look_left = if self.behind > 0 { LOOK_BEHIND } else { LOOK };
            }
        }
        let engine = engine.read();
        let rest = self.changed.len().saturating_sub(STEP);
        let some = self.changed.get(rest..).unwrap_or_default();
        for at in some.iter().flat_map(|at| usize::try_from(*at)) {
            self.mirror.put(at, engine.carried(at).as_ref());
        }
        if !some.is_empty() {
            self.changed.truncate(rest);
            return;
        }
        let to = engine.session_places();
        let end = to.min(self.look_at + STEP.min(self.look_left));
        for at in self.look_at..end {
            self.mirror.put(at, engine.carried(at).as_ref());
        }
        self.behind = self.behind.saturating_sub(end.saturating_sub(self.look_at));
        self.look_left = self.look_left.saturating_sub(STEP);
        // At the end it begins again; once round is enough, but for what it is behind.
        (self.look_at, self.look_left) = match end < to {
            true => (end, self.look_left),
            false => (0, self.look_left.min(self.behind)),
        };
    }

    /// Writes all that there is.
    pub fn all(&mut self, engine: &Engine) {
        for at in 0..engine.session_places() {
            self.mirror.put(at, engine.carried(at).as_ref());
        }
    }

    /// Whether what is written goes nowhere by now.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mirror.is_lost()
    }
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
