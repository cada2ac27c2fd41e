//! What one request's transactions wrote, for whoever asks more of a write than that it is done.
//!
//! A store with an observer tells it of every commit; with one that tries only, no commit happens: the transaction is
//! shown to the observer as it would be, and undone.

use super::{Conn, How, Resource, Result};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// A changed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its kind.
    pub resource: Resource,
    /// Its id.
    pub id: String,
    /// What happened to it.
    pub how: How,
    /// The project that owns it, where that is known; empty for what belongs to none.
    pub project_id: Option<String>,
}

/// One entry a row, in the order in which they were first touched.
pub(super) fn merged(touched: Vec<Touched>) -> Vec<Touched> {
    let mut places: HashMap<(Resource, String), usize> = HashMap::new();
    let mut merged: Vec<Touched> = Vec::with_capacity(touched.len());
    for row in touched {
        match places.entry((row.resource, row.id.clone())) {
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push(row);
            }
            Entry::Occupied(place) => {
                // The place was taken when the row was pushed.
                if let Some(known) = merged.get_mut(*place.get()) {
                    known.how = match (known.how, row.how) {
                        (_, How::Deleted) => How::Deleted,
                        (How::Changed, how) => how,
                        (how, _) => how,
                    };
                    known.project_id = row.project_id.or(known.project_id.take());
                }
            }
        }
    }
    merged
}

/// Looks at a transaction that will be undone.
pub type Inspect =
    Box<dyn for<'a> Fn(&'a mut Conn, &'a [Touched]) -> BoxFuture<'a, Result<()>> + Send + Sync>;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The newest revision; none if nothing that has one was written.
    pub revision: Option<i64>,
    /// All rows, in order, some perhaps twice.
    pub touched: Vec<Touched>,
}

/// Collects what is written.
#[derive(Default)]
pub struct Observer {
    trial: Option<Inspect>,
    written: Mutex<Written>,
}

impl Observer {
    /// One whose store writes nothing.
    #[must_use]
    pub fn trial(inspect: Inspect) -> Self {
        Self {
            trial: Some(inspect),
            ..Self::default()
        }
    }

    /// What was written until now, or would have been.
    #[must_use]
    pub fn written(&self) -> Written {
        self.lock().clone()
    }

    /// How a transaction is to be looked at and undone; none if it is to be committed.
    pub(super) fn inspect(&self) -> Option<&Inspect> {
        self.trial.as_ref()
    }

    pub(super) fn note(&self, revision: Option<i64>, touched: Vec<Touched>) {
        let mut written = self.lock();
        written.revision = revision.or(written.revision);
        written.touched.extend(touched);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_named_once_with_all_that_happened_to_it() {
        let row = |how, project: Option<&str>| Touched {
            resource: Resource::Port,
            id: "p".to_owned(),
            how,
            project_id: project.map(str::to_owned),
        };
        for (touched, how) in [
            (vec![How::Created, How::Changed], How::Created),
            (vec![How::Changed, How::Changed], How::Changed),
            (vec![How::Changed, How::Deleted], How::Deleted),
            (vec![How::Created, How::Deleted], How::Deleted),
        ] {
            let mut touched: Vec<_> = touched.into_iter().map(|how| row(how, None)).collect();
            touched[0].project_id = Some("x".to_owned());
            assert_eq!(merged(touched), [row(how, Some("x"))]);
        }
    }
}
