//! Places: a small number for every port and network, kept as long as sessions may name it.
//!
//! Guarantees: a number is never given to another port while a session could still have it: when all are used up, those
//! of ports that are gone are given out again, after their sessions were deleted.

use super::key::Place;
use super::map::{FastMap, Seed};
use weft_dataplane::Ingress;
use weft_model::HostSnapshot;

/// Places at most; number 0 is nobody's.
const PLACES_MAX: usize = 65_535;

/// Who has which number.
#[derive(Clone, Debug)]
pub(super) struct Places {
    by_ingress: FastMap<Ingress, Place>,
    by_place: Vec<Option<Ingress>>,
}

impl Places {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            by_ingress: FastMap::with_hasher(seed),
            by_place: vec![None],
        }
    }

    pub(super) fn of(&self, ingress: Ingress) -> Option<Place> {
        self.by_ingress.get(&ingress).copied()
    }

    pub(super) fn ingress(&self, place: Place) -> Option<Ingress> {
        self.by_place.get(place.at()).copied().flatten()
    }

    /// How many numbers there are, the unused included.
    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }

    /// Gives every port and network of a snapshot a number. Where there are not enough, those whose owner is gone are
    /// taken back and told: all sessions that name one must be deleted.
    pub(super) fn give(&mut self, snapshot: &HostSnapshot) -> Option<Vec<bool>> {
        let mut taken_back = None;
        let ports = snapshot.ports.keys().map(|id| Ingress::Port(*id));
        let networks = snapshot.networks.keys().map(|id| Ingress::Network(*id));
        let wanted: Vec<Ingress> = ports.chain(networks).collect();
        let new = wanted.iter().filter(|ingress| self.of(**ingress).is_none());
        if self.by_place.len() + new.count() > PLACES_MAX {
            let mut gone = vec![true; self.by_place.len()];
            for place in wanted.iter().filter_map(|ingress| self.of(*ingress)) {
                if let Some(gone) = gone.get_mut(place.at()) {
                    *gone = false;
                }
            }
            for (at, gone) in gone.iter().enumerate() {
                if let Some(ingress) = self.by_place.get_mut(at)
                    && *gone
                    && let Some(ingress) = ingress.take()
                {
                    self.by_ingress.remove(&ingress);
                }
            }
            taken_back = Some(gone);
        }
        let mut free = 1;
        for ingress in wanted {
            if self.by_ingress.contains_key(&ingress) {
                continue;
            }
            // Free ones in the middle are there only after some were taken back.
            while self.by_place.get(free).is_some_and(Option::is_some) {
                free += 1;
            }
            if free == self.by_place.len() {
                self.by_place.push(None);
            }
            if let (Ok(number), Some(owner)) = (u16::try_from(free), self.by_place.get_mut(free)) {
                *owner = Some(ingress);
                self.by_ingress.insert(ingress, Place(number));
            }
        }
        taken_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, Network, NetworkType, Segment};

    fn snapshot(ids: std::ops::Range<u128>) -> HostSnapshot {
        let epoch = Epoch::from(uuid::Uuid::nil());
        let mut snapshot = HostSnapshot::empty("host".parse().unwrap(), epoch);
        let segment = Segment {
            network_type: NetworkType::Local,
            physical_network: None,
            segmentation_id: None,
        };
        for id in ids {
            let network = Network {
                segment: segment.clone(),
                mtu: 1500,
                external: false,
                dns_domain: String::new(),
                transit: None,
                vlan_transparent: false,
            };
            snapshot
                .networks
                .insert(uuid::Uuid::from_u128(id).into(), network);
        }
        snapshot
    }

    #[test]
    fn numbers_are_kept_and_given_again_only_when_all_are_used() {
        let mut places = Places::new(Seed(1));
        let one = Ingress::Network(uuid::Uuid::from_u128(1).into());
        assert_eq!(places.give(&snapshot(1..3)), None, "there is room");
        let first = places.of(one).unwrap();
        assert_eq!(places.give(&snapshot(0..0)), None, "there is room");
        assert_eq!(places.of(one), Some(first), "it may come back");
        assert_eq!(places.give(&snapshot(10..65_542)), None, "there is room");
        assert_eq!(places.len(), PLACES_MAX);
        let gone = places.give(&snapshot(10..65_543)).unwrap();
        let forgotten = gone.iter().filter(|gone| **gone).count();
        assert_eq!(
            (forgotten, places.of(one)),
            (3, None),
            "two networks, and number 0"
        );
        let new = Ingress::Network(uuid::Uuid::from_u128(65_542).into());
        assert_eq!(places.of(new), Some(first));
        assert_eq!(places.ingress(first), Some(new));
    }
}
