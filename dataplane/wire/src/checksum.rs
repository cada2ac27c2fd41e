//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! Sums are kept unfolded in 64 bits, so that no frame can overflow one.

use std::net::IpAddr;

/// The unfolded ones' complement sum of bytes taken as big-endian 16-bit words; an odd last byte is padded with zero.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let whole: u64 = words
        .by_ref()
        .map(|w| u64::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    whole
        + words
            .remainder()
            .first()
            .map_or(0, |last| u64::from(*last) << 8)
}

/// A sum folded to 16 bits. Zero only if the sum is zero.
#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The checksum of bytes whose checksum field is zero (or whose checksum is right: then the result is 0).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1). Addresses of different families give a meaningless sum.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    sum(&octets(source)) + sum(&octets(destination)) + u64::from(protocol) + length as u64
}

/// The checksum of a layer-4 message whose checksum field is zero.
#[must_use]
pub fn transport(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    !fold(pseudo_header(source, destination, protocol, message.len()) + sum(message))
}

/// The checksum after a field of even offset and even length changed: RFC 1624 equation 3, HC' = ~(~HC + ~m + m').
#[must_use]
pub fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    debug_assert!(
        old.len() == new.len() && old.len().is_multiple_of(2),
        "whole words of equal number"
    );
    let inverted: u64 = old
        .chunks_exact(2)
        .map(|w| u64::from(!u16::from_be_bytes([w[0], w[1]])))
        .sum();
    !fold(u64::from(!checksum) + inverted + sum(new))
}

/// The bytes of an address, 4 or 16.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn rfc1624_example() {
        assert_eq!(update(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
    }

    proptest! {
        #[test]
        fn update_agrees_with_a_fresh_sum(mut bytes in prop::collection::vec(any::<u8>(), 8..64), new in any::<[u8; 4]>()) {
            let before = checksum(&bytes);
            let old = [bytes[2], bytes[3], bytes[4], bytes[5]];
            bytes[2..6].copy_from_slice(&new);
            let (a, b) = (update(before, &old, &new), checksum(&bytes));
            prop_assert!(a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0), "{a:#x} {b:#x}");
        }
    }
}
