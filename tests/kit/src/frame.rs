//! Frames built by hand, for what no honest network stack would send.
//!
//! Only what the lab needs; engines are tested with the corpus in tests/vectors, not with these.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A MAC address as bytes.
pub type Mac = [u8; 6];

/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// Reads `fa:16:3e:…`.
///
/// # Errors
/// Not six hexadecimal numbers.
pub fn mac(text: &str) -> Result<Mac> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect();
    bytes
        .ok()
        .and_then(|bytes| Mac::try_from(bytes).ok())
        .with_context(|| format!("{text} is no MAC"))
}

/// The lower part of a frame.
#[must_use]
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &destination[..],
        &source[..],
        &ethertype.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// One side of an ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct ArpSide {
    /// Hardware address.
    pub mac: Mac,
    /// Protocol address.
    pub ip: Ipv4Addr,
}

/// An ARP frame to everybody; `operation` 1 asks, 2 answers (RFC 826).
#[must_use]
pub fn arp(source: Mac, operation: u16, sender: ArpSide, target: ArpSide) -> Vec<u8> {
    let payload = [
        &[0, 1, 8, 0, 6, 4][..],
        &operation.to_be_bytes(),
        &sender.mac,
        &sender.ip.octets(),
        &target.mac,
        &target.ip.octets(),
    ]
    .concat();
    ethernet(BROADCAST, source, 0x0806, &payload)
}

/// An IPv4 packet (RFC 791) with TTL 64.
#[must_use]
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut header = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 1, 0, 0, 64, protocol, 0, 0],
        &source.octets(),
        &destination.octets(),
    ]
    .concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

/// An ICMP echo request (RFC 792).
#[must_use]
pub fn echo_request(identifier: u16) -> Vec<u8> {
    let mut message = [
        &[8, 0, 0, 0][..],
        &identifier.to_be_bytes(),
        &[0, 1],
        b"weft-kit",
    ]
    .concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A UDP datagram without checksum, which IPv4 allows (RFC 768).
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    [
        &source.to_be_bytes()[..],
        &destination.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// A router advertisement to all nodes (RFC 4861, 4.2) that names its sender as default router.
#[must_use]
pub fn router_advertisement(source_mac: Mac, source: Ipv6Addr) -> Vec<u8> {
    let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    icmpv6(
        source_mac,
        source,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        &message,
    )
}

/// An unsolicited neighbour advertisement (RFC 4861, 4.4) that claims `target`.
#[must_use]
pub fn neighbour_advertisement(source_mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let message = [
        &[136, 0, 0, 0, 0x20, 0, 0, 0][..],
        &target.octets(),
        &[2, 1],
        &source_mac,
    ]
    .concat();
    icmpv6(
        source_mac,
        source,
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        &message,
    )
}

/// An ICMPv6 message with hop limit 255 to a multicast address.
fn icmpv6(source_mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let pseudo = [
        &source.octets()[..],
        &destination.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, 58],
        message,
    ]
    .concat();
    let mut message = message.to_vec();
    message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let packet = [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[58, 255],
        &source.octets(),
        &destination.octets(),
        &message,
    ]
    .concat();
    ethernet([0x33, 0x33, 0, 0, 0, 1], source_mac, 0x86dd, &packet)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_sums_up_to_zero() {
        let packet = ipv4(
            [192, 0, 2, 1].into(),
            [192, 0, 2, 2].into(),
            1,
            &echo_request(7),
        );
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
    }

    #[test]
    fn a_mac_address_is_read_and_refused() {
        assert_eq!(
            mac("fa:16:3e:00:01:0a").unwrap(),
            [0xfa, 0x16, 0x3e, 0, 1, 10]
        );
        assert!(mac("fa:16:3e").is_err());
        assert!(mac("fa:16:3e:00:01:zz").is_err());
    }
}
