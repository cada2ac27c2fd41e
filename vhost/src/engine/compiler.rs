//! Snapshots made ready for an engine, beside it: whoever polls packets has no time to compile a policy.
//!
//! Guarantees: one compiler for one engine, whose numbers for ports and networks it gives out; what it prepares is to be
//! enforced in the order in which it was prepared.

use super::key::Seeds;
use super::map::Seed;
use super::place::Places;
use super::plan::Plan;
use std::sync::Arc;
use weft_model::HostSnapshot;

/// Prepares snapshots.
#[derive(Debug)]
pub struct Compiler {
    seed: Seed,
    places: Places,
}

/// A snapshot that an engine can enforce at once.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) plan: Arc<Plan>,
    pub(super) places: Arc<Places>,
    /// Places that were taken back: their sessions must go.
    pub(super) gone: Option<Vec<bool>>,
}

impl Compiler {
    /// A compiler for an engine with these seeds.
    #[must_use]
    pub fn new(seeds: Seeds) -> Self {
        let seed = Seed(seeds.0[3]);
        Self {
            seed,
            places: Places::new(seed),
        }
    }

    /// Prepares a snapshot, which must be valid.
    #[must_use]
    pub fn prepare(&mut self, snapshot: &Arc<HostSnapshot>) -> Prepared {
        let gone = self.places.give(snapshot);
        Prepared {
            plan: Arc::new(Plan::new(snapshot, &self.places, self.seed)),
            places: Arc::new(self.places.clone()),
            gone,
        }
    }
}
