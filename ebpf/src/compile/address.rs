//! Addresses as keys: IPv4 in the first four bytes, the rest zero.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_ebpf_common::constants::family;
use weft_ebpf_common::layout::AddressKey;

/// An address as the maps hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressBytes {
    pub(crate) family: u8,
    pub(crate) bytes: [u8; 16],
}

impl From<IpAddr> for AddressBytes {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                Self {
                    family: family::V4,
                    bytes,
                }
            }
            IpAddr::V6(v6) => Self {
                family: family::V6,
                bytes: v6.octets(),
            },
        }
    }
}

/// The address back from its bytes.
pub(crate) fn address_ip(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == family::V4 {
        Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
    } else {
        Ipv6Addr::from(bytes).into()
    }
}

/// A range's mask, in the same form.
pub(crate) fn mask_bytes(range: IpNet) -> [u8; 16] {
    AddressBytes::from(range.netmask()).bytes
}

/// The key of an address in a scope (a network's or router's slot).
pub(crate) fn address_key(scope: u32, address: IpAddr) -> AddressKey {
    let a = AddressBytes::from(address);
    AddressKey {
        scope,
        family: a.family.into(),
        address: a.bytes,
    }
}

/// An IPv4 address as the programs load it: a word in network order.
pub(crate) fn ipv4_word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}
