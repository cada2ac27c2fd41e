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
