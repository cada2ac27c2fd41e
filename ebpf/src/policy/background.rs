//! The thread that compiles policies while the interpreter already enforces them.
//!
//! Guarantees: of several changes of one policy only the newest is compiled, unless an older one is already under way;
//! at most one job a slot waits; dropping it ends the thread, after the compile under way. It installs nothing.

use super::Policy;
use super::compile::{CompileError, Compiled, PartPlaces, compile};
use super::emit::Target;
use super::table::PolicyMaps;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The tree's builder recurses as deep as the tree is, at most `DEPTH_MAX` cuts and their second parts.
const STACK_BYTES: usize = 16 << 20;

/// What is to be compiled.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) slot: u32,
    /// Grows with every job; tells a stale result.
    pub(super) generation: u64,
    pub(super) policy: Arc<Policy>,
    pub(super) domain: u32,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) result: Result<Compiled, CompileError>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u32, Job>,
    working: bool,
    done: Vec<Done>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's handle.
#[derive(Debug)]
pub(super) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start(
        maps: Arc<PolicyMaps>,
        places: PartPlaces,
        parts_min: usize,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("policy-compile".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || work(&of_thread, &maps, &places, parts_min))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Adds a job; it replaces one of the same slot that waits.
    pub(super) fn add(&self, job: Job) {
        self.shared.lock().waiting.insert(job.slot, job);
        self.shared.changed.notify_all();
    }

    /// Forgets the job of a slot, if it waits.
    pub(super) fn forget(&self, slot: u32) {
        self.shared.lock().waiting.remove(&slot);
    }

    /// What has been finished since the last call.
    pub(super) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut self.shared.lock().done)
    }

    /// Nothing waits, runs, or is to be fetched.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.waiting.is_empty() && !state.working && state.done.is_empty()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed by it; there is nothing else to tell.
            let _ = thread.join();
        }
    }
}

/// The descriptors of the maps as instructions name them.
pub(super) fn target(maps: &PolicyMaps) -> Target {
    Target {
        walks: maps.walks.as_fd().as_raw_fd(),
        stages: maps.stages.as_fd().as_raw_fd(),
        members: maps.members.as_fd().as_raw_fd(),
        programs: maps.programs.as_fd().as_raw_fd(),
    }
}

fn work(shared: &Shared, maps: &PolicyMaps, places: &PartPlaces, parts_min: usize) {
    let target = target(maps);
    while let Some(job) = next_job(shared) {
        let result = compile(&job.policy, job.domain, &target, places, parts_min);
        let mut state = shared.lock();
        state.working = false;
        state.done.push(Done {
            slot: job.slot,
            generation: job.generation,
            result,
        });
    }
}

/// Waits for the oldest job; none when it is over.
fn next_job(shared: &Shared) -> Option<Job> {
    let mut state = shared.lock();
    loop {
        if state.ended {
            return None;
        }
        let oldest = state
            .waiting
            .values()
            .min_by_key(|job| job.generation)
            .map(|job| job.slot);
        if let Some(job) = oldest.and_then(|slot| state.waiting.remove(&slot)) {
            state.working = true;
            return Some(job);
        }
        state = shared
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
