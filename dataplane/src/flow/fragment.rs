//! What a packet's first fragment said about layer 4, for the later ones.
//!
//! Guarantees: at most [`weft_model::limits::FRAGMENTS_MAX`] entries; the oldest goes first.

use super::key::{GuestVlan, Ingress, Tuple};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use weft_model::limits::FRAGMENTS_MAX;

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Where they enter.
    pub ingress: Ingress,
    /// In which VLAN of the guests' own.
    pub vlan: GuestVlan,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Identification.
    pub identification: u32,
}

/// What the first one said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFragment {
    /// Its tuple.
    pub tuple: Tuple,
    /// Its ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Its TCP flags.
    pub tcp_flags: u8,
}

/// First fragments seen lately.
#[derive(Clone, Debug, Default)]
pub struct FragmentTable {
    entries: BTreeMap<FragmentKey, FirstFragment>,
    order: VecDeque<FragmentKey>,
}

impl FragmentTable {
    /// Remembers a first fragment.
    pub fn put(&mut self, key: FragmentKey, first: FirstFragment) {
        if self.entries.insert(key, first).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > FRAGMENTS_MAX as usize
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }

    /// The first fragment of the same packet.
    #[must_use]
    pub fn get(&self, key: &FragmentKey) -> Option<FirstFragment> {
        self.entries.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_oldest_entry_makes_room_for_one_above_the_limit() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let key = |identification| FragmentKey {
            ingress: Ingress::Port(uuid::Uuid::nil().into()),
            vlan: GuestVlan::default(),
            source: address,
            destination: address,
            protocol: 17,
            identification,
        };
        let tuple = Tuple {
            protocol: 17,
            source: address,
            destination: address,
            source_port: 1,
            destination_port: 2,
            vlan: GuestVlan::default(),
        };
        let first = FirstFragment {
            tuple,
            icmp: None,
            tcp_flags: 0,
        };
        let mut table = FragmentTable::default();
        for identification in 0..FRAGMENTS_MAX {
            table.put(key(identification), first);
        }
        assert_eq!(table.get(&key(0)), Some(first));
        table.put(key(FRAGMENTS_MAX), first);
        assert_eq!(
            (table.get(&key(0)), table.get(&key(1))),
            (None, Some(first))
        );
    }
}
