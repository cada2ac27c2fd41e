//! What the configuration maps hold, and the difference of two such states.

use std::collections::BTreeMap;
use zerocopy::{Immutable, IntoBytes};

/// Keys and values of one map, as bytes.
pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

macro_rules! tables {
    ($($name:ident,)*) => {
        /// All configuration maps.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Tables {
            $(pub(crate) $name: Contents,)*
        }

        /// Their names.
        pub(crate) const TABLES: &[&str] = &[$(stringify!($name),)*];

        impl Tables {
            /// By name, in the order of [`TABLES`].
            pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Contents)> {
                [$((stringify!($name), &self.$name),)*].into_iter()
            }

            /// By name.
            pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Contents> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

// In the order in which changes are written: what narrows (a port's addresses and policy) before what leads to it.
tables! {
    qos,
    accounts,
    ports,
    subports,
    networks,
    tunnel_hosts,
    meter_sets,
    meter_ranges,
    meter_regions,
    routers,
    router_addresses,
    forwardings,
    floatings,
    floating_srcs,
    local_ips,
    owners,
    routes,
    snat_blocks,
    fdb,
    uplinks,
    members,
    wires,
    tunnel_slots,
    tunnel_nets,
    gre_keys,
    transits,
}

/// What leads from one state of a table to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference<'a> {
    /// Keys that are there no more.
    pub(crate) gone: Vec<&'a Vec<u8>>,
    /// Entries that are new, or another.
    pub(crate) new: Vec<(&'a Vec<u8>, &'a Vec<u8>)>,
}

impl<'a> Difference<'a> {
    /// Between two whole states.
    pub(crate) fn between(have: &'a Contents, want: &'a Contents) -> Self {
        Self {
            gone: only_in(have, want, |_, _| false)
                .map(|(key, _)| key)
                .collect(),
            new: only_in(want, have, |one, other| one != other).collect(),
        }
    }

    /// Where of the wanted state only these keys' entries are there.
    pub(crate) fn at(keys: &'a [Vec<u8>], have: &'a Contents, want: &'a Contents) -> Self {
        let gone = |key: &&Vec<u8>| have.contains_key(*key) && !want.contains_key(*key);
        let another = |(key, value): &(&Vec<u8>, &Vec<u8>)| have.get(*key) != Some(*value);
        Self {
            gone: keys.iter().filter(gone).collect(),
            new: want.iter().filter(another).collect(),
        }
    }
}

/// The entries of one state whose key the other does not have, or whose value there is `another`. Both are walked once, side by
/// side: of tens of thousands nearly all are the same.
fn only_in<'a>(
    one: &'a Contents,
    other: &'a Contents,
    another: impl Fn(&Vec<u8>, &Vec<u8>) -> bool,
) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
    let mut others = other.iter().peekable();
    one.iter().filter(move |(key, value)| {
        while others.next_if(|(known, _)| known < key).is_some() {}
        others
            .next_if(|(known, _)| known == key)
            .is_none_or(|(_, known)| another(value, known))
    })
}

/// Puts a typed entry.
pub(crate) fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    table: &mut Contents,
    key: &K,
    value: &V,
) {
    table.insert(key.as_bytes().to_vec(), value.as_bytes().to_vec());
}

/// Puts a typed entry unless the key is taken: the first one counts.
pub(crate) fn put_first<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    table: &mut Contents,
    key: &K,
    value: &V,
) {
    table
        .entry(key.as_bytes().to_vec())
        .or_insert_with(|| value.as_bytes().to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn contents() -> impl Strategy<Value = Contents> {
        let bytes = |most| prop::collection::vec(0u8..3, 1..most);
        prop::collection::btree_map(bytes(3), bytes(2), 0..12)
    }

    proptest! {
        #[test]
        fn what_only_one_state_has_is_found((one, other) in (contents(), contents())) {
            let keys: BTreeSet<Vec<u8>> = one.keys().chain(other.keys()).cloned().collect();
            let keys: Vec<Vec<u8>> = keys.into_iter().collect();
            let found = Difference::between(&one, &other);
            prop_assert_eq!(&found, &Difference::at(&keys, &one, &other));
            let mut changed = one.clone();
            found.gone.iter().for_each(|key| drop(changed.remove(*key)));
            changed.extend(found.new.iter().map(|(key, value)| ((*key).clone(), (*value).clone())));
            prop_assert_eq!(changed, other);
        }
    }
}
