//! Slots: the numbers by which maps and programs name ports, networks, routers and uplinks.
//!
//! Guarantees: an id keeps its slot as long as it is there; a slot that was freed is given away again only when no
//! fresh one is left, and `reused` says so, because sessions may still name it.

use crate::error::EngineError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The slots of one kind of resource.
#[derive(Clone, Debug)]
pub(crate) struct Slots<K: Ord> {
    what: &'static str,
    first: u32,
    max: u32,
    fresh: u32,
    by_id: BTreeMap<K, u32>,
    by_slot: BTreeMap<u32, K>,
    free: VecDeque<u32>,
}

impl<K: Ord + Copy> Slots<K> {
    /// None taken; slots are `first..first + max`.
    pub(crate) fn new(what: &'static str, first: u32, max: u32) -> Self {
        Self {
            what,
            first,
            max,
            fresh: first,
            by_id: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            free: VecDeque::new(),
        }
    }

    /// Takes over what an earlier process assigned.
    pub(crate) fn adopt(&mut self, id: K, slot: u32) {
        self.by_id.insert(id, slot);
        self.by_slot.insert(slot, id);
        for skipped in self.fresh..slot {
            self.free.push_back(skipped);
        }
        self.free.retain(|free| *free != slot);
        self.fresh = self.fresh.max(slot + 1);
    }

    /// Frees the slots of the ids that are gone, assigns one to each new id, and says which slots were used before.
    pub(crate) fn assign(&mut self, ids: impl Iterator<Item = K>) -> Result<Vec<u32>, EngineError> {
        let ids: BTreeSet<K> = ids.collect();
        let gone: Vec<K> = self
            .by_id
            .keys()
            .filter(|id| !ids.contains(id))
            .copied()
            .collect();
        for id in gone {
            if let Some(slot) = self.by_id.remove(&id) {
                self.by_slot.remove(&slot);
                self.free.push_back(slot);
            }
        }
        let mut reused = Vec::new();
        for id in ids {
            if self.by_id.contains_key(&id) {
                continue;
            }
            let slot = if self.fresh < self.first + self.max {
                self.fresh += 1;
                self.fresh - 1
            } else {
                let slot = self.free.pop_front();
                let slot = slot.ok_or(EngineError::Full {
                    what: self.what,
                    max: self.max as usize,
                })?;
                reused.push(slot);
                slot
            };
            self.by_id.insert(id, slot);
            self.by_slot.insert(slot, id);
        }
        Ok(reused)
    }

    /// The slot of an id.
    pub(crate) fn get(&self, id: K) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// The id in a slot.
    pub(crate) fn id(&self, slot: u32) -> Option<K> {
        self.by_slot.get(&slot).copied()
    }

    /// All ids and their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.by_id.iter().map(|(id, slot)| (*id, *slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_slots_and_freed_ones_come_last() {
        let mut slots: Slots<u8> = Slots::new("ports", 1, 3);
        assert!(slots.assign([7, 8].into_iter()).unwrap().is_empty());
        assert_eq!((slots.get(7), slots.get(8)), (Some(1), Some(2)));
        assert!(slots.assign([8, 9].into_iter()).unwrap().is_empty());
        assert_eq!(
            (slots.get(7), slots.get(8), slots.get(9)),
            (None, Some(2), Some(3))
        );
        assert_eq!(slots.assign([8, 9, 10].into_iter()).unwrap(), [1]);
        assert!(slots.assign([8, 9, 10, 11].into_iter()).is_err());
    }

    #[test]
    fn adopted_slots_are_not_given_away() {
        let mut slots: Slots<u8> = Slots::new("ports", 0, 4);
        slots.adopt(5, 2);
        slots.assign([5, 6].into_iter()).unwrap();
        assert_eq!((slots.get(5), slots.get(6)), (Some(2), Some(3)));
    }
}
