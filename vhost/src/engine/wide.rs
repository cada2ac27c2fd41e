//! Addresses of sessions that are too long for a cache line: both of IPv6, and those of VLANs of the guests' own.
//!
//! Guarantees: a place is kept until it is given back.

use weft_dataplane::GuestVlan;

/// Where they are kept.
#[derive(Debug, Default)]
pub(super) struct Wide {
    places: Vec<[u128; 2]>,
    /// Beside those in a VLAN: which. As long as there ever was one.
    vlans: Vec<GuestVlan>,
    free: Vec<u32>,
}

impl Wide {
    /// Keeps two addresses, and says where.
    pub(super) fn put(&mut self, addresses: [u128; 2]) -> u32 {
        if let Some(free) = self.free.pop() {
            let place = usize::try_from(free)
                .ok()
                .and_then(|at| self.places.get_mut(at));
            if let Some(place) = place {
                *place = addresses;
            }
            return free;
        }
        self.places.push(addresses);
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    /// The same of two in a VLAN.
    pub(super) fn put_tagged(&mut self, addresses: [u128; 2], vlan: GuestVlan) -> u32 {
        let kept = self.put(addresses);
        self.vlans.resize(self.places.len(), GuestVlan::default());
        let at = usize::try_from(kept).ok();
        if let Some(place) = at.and_then(|at| self.vlans.get_mut(at)) {
            *place = vlan;
        }
        kept
    }

    /// What is kept there.
    pub(super) fn get(&self, kept: u64) -> [u128; 2] {
        let kept = usize::try_from(kept).ok();
        let kept = kept.and_then(|kept| self.places.get(kept));
        kept.copied().unwrap_or_default()
    }

    /// In which VLAN, of one that is in one.
    pub(super) fn vlan(&self, kept: u64) -> GuestVlan {
        let kept = usize::try_from(kept).ok();
        let kept = kept.and_then(|kept| self.vlans.get(kept));
        kept.copied().unwrap_or_default()
    }

    /// Gives a place back.
    pub(super) fn give(&mut self, kept: u64) {
        self.free.extend(u32::try_from(kept));
    }
}
