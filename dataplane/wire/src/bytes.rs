//! Reading and writing big-endian fields at fixed offsets. Callers have checked that the bytes are there.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(get(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(get(bytes, at))
}

pub(crate) fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(get::<4>(bytes, at))
}

pub(crate) fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(get::<16>(bytes, at))
}

/// A length as a 16-bit field; what does not fit is a caller's mistake and saturates.
pub(crate) fn length_u16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}
