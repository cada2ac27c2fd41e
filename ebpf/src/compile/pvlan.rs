//! Private VLANs: roles as the programs compare them.
//!
//! A community keeps its number as long as a port here or elsewhere is in it, and a new one gets a number that none has had
//! beside it: while entries are written, no two communities share one.

use super::Input;
use std::collections::{BTreeMap, BTreeSet};
use weft_ebpf_common::constants::role;
use weft_model::{HostSnapshot, PvlanRole};

/// The numbers of all communities, those that were there as before.
pub(super) fn communities(
    snapshot: &HostSnapshot,
    before: &BTreeMap<String, u32>,
) -> BTreeMap<String, u32> {
    let here = snapshot.ports.values().map(|port| &port.pvlan);
    let there = snapshot.remote_ports.values().map(|port| &port.pvlan);
    let names = here.chain(there).filter_map(|role| match role {
        Some(PvlanRole::Community { community }) => Some(community),
        _ => None,
    });
    let names: BTreeSet<&String> = names.collect();
    let taken: BTreeSet<u32> = before.values().copied().collect();
    let mut fresh = (role::COMMUNITIES..).filter(|number| !taken.contains(number));
    let number = |name: &String| before.get(name).copied().or_else(|| fresh.next());
    let mut number = number;
    let numbered = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), number(name)?)));
    numbered.collect()
}

/// A role's number.
pub(super) fn number(input: &Input<'_>, role: Option<&PvlanRole>) -> u32 {
    match role {
        None => role::PROMISCUOUS,
        Some(PvlanRole::Isolated) => role::ISOLATED,
        Some(PvlanRole::Community { community }) => {
            let number = input.slots.communities.get(community).copied();
            number.unwrap_or(role::ISOLATED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, MacAddress, RemotePort};

    #[test]
    fn communities_keep_their_numbers_and_never_take_one_that_was_just_left() {
        let snapshot = |names: &[&str]| {
            let epoch = Epoch::from(uuid::Uuid::nil());
            let mut snapshot = HostSnapshot::empty("host".parse().unwrap(), epoch);
            for (number, name) in (1..).zip(names) {
                let port = RemotePort {
                    network_id: uuid::Uuid::nil().into(),
                    mac_address: MacAddress([2, 0, 0, 0, 0, 1]),
                    fixed_ips: vec![],
                    claimed_ips: vec![],
                    host: "other".parse().unwrap(),
                    pvlan: Some(PvlanRole::Community {
                        community: (*name).to_owned(),
                    }),
                };
                let id = uuid::Uuid::from_u128(number);
                snapshot.remote_ports.insert(id.into(), port.into());
            }
            snapshot
        };
        let of = |numbers: &BTreeMap<String, u32>, name: &str| numbers.get(name).copied();
        let first = communities(&snapshot(&["b"]), &BTreeMap::new());
        assert_eq!(of(&first, "b"), Some(role::COMMUNITIES));
        let second = communities(&snapshot(&["a", "b"]), &first);
        assert_eq!(of(&second, "b"), Some(role::COMMUNITIES), "as before");
        let third = communities(&snapshot(&["c"]), &second);
        assert!(of(&third, "c") > of(&second, "a"), "{third:?}");
    }
}
