//! What is noted for a successor: nothing, for here is none. The engine's own notes are in files.

use crate::ring::SetupError;

/// Nobody has any here.
#[derive(Clone, Debug)]
pub enum Notes {}

type PackedUsed = (u16, bool);

impl Notes {
    pub(crate) fn split_begin(&self, _used: u16, _recover: bool) -> Result<bool, SetupError> {
        match *self {}
    }

    pub(crate) fn split_used(&self, _used: u16) {
        match *self {}
    }

    pub(crate) fn packed_begin(
        &self,
        _told: PackedUsed,
        _recover: bool,
        _is_given: impl Fn(PackedUsed) -> bool,
    ) -> Result<PackedUsed, SetupError> {
        match *self {}
    }

    pub(crate) fn packed_used(&self, _new: PackedUsed, _old: PackedUsed) {
        match *self {}
    }
}
