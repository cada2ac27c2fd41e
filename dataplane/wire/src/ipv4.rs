//! IPv4 (RFC 791). The header checksum is not verified by the view: `header_checksum_is_right` asks for it.

use crate::bytes::{ipv4_at, length_u16, put, u16_at};
use crate::{Malformed, checksum};
use std::net::Ipv4Addr;

/// Bytes of a header without options.
pub const HEADER_BYTES_MIN: usize = 20;
/// Flag: don't fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Flag: more fragments.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// A checked view of a packet. Bytes behind the total length are kept and ignored.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

/// Lowers the TTL of a header and updates the checksum, as [`Packet::set_ttl`] does, for those who have checked it before.
#[inline]
pub fn ttl_lower(header: &mut [u8; HEADER_BYTES_MIN], by: u8) {
    let [.., ttl, protocol, high, low, _, _, _, _, _, _, _, _] = header;
    let old = u16::from_be_bytes([*ttl, *protocol]);
    *ttl = ttl.saturating_sub(by);
    let new = u16::from_be_bytes([*ttl, *protocol]);
    if new != old {
        let sum = u64::from(!u16::from_be_bytes([*high, *low])) + u64::from(!old) + u64::from(new);
        [*high, *low] = (!checksum::fold(sum)).to_be_bytes();
    }
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks the version and that header and total length lie within the bytes.
    ///
    /// # Errors
    /// One of them does not.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        Malformed::unless(
            bytes.as_ref().len() >= HEADER_BYTES_MIN,
            "IPv4",
            "a header of 20 bytes",
        )?;
        let packet = Self::new_header_checked(bytes)?;
        let total = packet.total_length();
        let good = packet.header_bytes() <= total && total <= packet.0.as_ref().len();
        Malformed::unless(
            good,
            "IPv4",
            "a total length between the header's and the frame's",
        )
        .map(|()| packet)
    }

    /// Checks the version and that the whole header is there, but not the total length: for packets quoted in an ICMP
    /// error, which are cut.
    ///
    /// # Errors
    /// One of them is not so.
    pub fn new_header_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        Malformed::unless(b.len() >= HEADER_BYTES_MIN, "IPv4", "a header of 20 bytes")?;
        let header_bytes = usize::from(b[0] & 0xf) * 4;
        let good = b[0] >> 4 == 4 && header_bytes >= HEADER_BYTES_MIN && header_bytes <= b.len();
        Malformed::unless(good, "IPv4", "version 4 and a header of 20 to 60 bytes")
            .map(|()| Self(bytes))
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 0xf) * 4
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn total_length(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), 2))
    }

    /// Identification, shared by a packet's fragments.
    #[must_use]
    pub fn identification(&self) -> u16 {
        u16_at(self.0.as_ref(), 4)
    }

    /// Flag DF.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), 6) & DONT_FRAGMENT != 0
    }

    /// Flag MF.
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        u16_at(self.0.as_ref(), 6) & MORE_FRAGMENTS != 0
    }

    /// In units of 8 bytes.
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        u16_at(self.0.as_ref(), 6) & 0x1fff
    }

    /// Time to live.
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }

    /// The payload's protocol.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }

    /// The header's checksum.
    #[must_use]
    pub fn header_checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), 10)
    }

    /// Whether the header's checksum is right.
    #[must_use]
    pub fn header_checksum_is_right(&self) -> bool {
        checksum::checksum(&self.0.as_ref()[..self.header_bytes()]) == 0
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 12)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 16)
    }

    /// What follows the header, up to the total length or the end of the bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let b = self.0.as_ref();
        let start = self.header_bytes();
        &b[start..self.total_length().clamp(start, b.len())]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    fn rewrite<const N: usize>(
        &mut self,
        at: usize,
        new: [u8; N],
        checked: std::ops::Range<usize>,
    ) {
        let b = self.0.as_mut();
        // Four bytes at most are checked at once: an address.
        let (mut old, bytes) = ([0; 4], checked.len());
        old[..bytes].copy_from_slice(&b[checked.clone()]);
        put(b, at, new);
        let sum = checksum::update(u16_at(b, 10), &old[..bytes], &b[checked]);
        put(b, 10, sum.to_be_bytes());
    }

    /// Writes the DSCP (RFC 2474, the upper six bits of the second byte) and updates the checksum.
    pub fn set_dscp(&mut self, dscp: u8) {
        let ecn = self.0.as_ref()[1] & 3;
        self.rewrite(1, [dscp << 2 | ecn], 0..2);
    }

    /// Writes the TTL and updates the checksum.
    pub fn set_ttl(&mut self, ttl: u8) {
        self.rewrite(8, [ttl], 8..10);
    }

    /// Writes the source address and updates the checksum.
    pub fn set_source(&mut self, address: Ipv4Addr) {
        self.rewrite(12, address.octets(), 12..16);
    }

    /// Writes the destination address and updates the checksum.
    pub fn set_destination(&mut self, address: Ipv4Addr) {
        self.rewrite(16, address.octets(), 16..20);
    }

    /// The payload, to be changed.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let start = self.header_bytes();
        let total = self.total_length();
        let b = self.0.as_mut();
        let end = total.clamp(start, b.len());
        &mut b[start..end]
    }
}

/// A header as a value; options are skipped in parsing and never emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// The payload's protocol.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub identification: u16,
    /// Flag DF.
    pub dont_fragment: bool,
    /// Flag MF.
    pub more_fragments: bool,
    /// In units of 8 bytes, at most 8,191.
    pub fragment_offset: u16,
}

impl Repr {
    /// A whole packet of TTL 64 that may be fragmented.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
        }
    }

    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            identification: packet.identification(),
            dont_fragment: packet.dont_fragment(),
            more_fragments: packet.more_fragments(),
            fragment_offset: packet.fragment_offset(),
        }
    }

    /// The packet with this payload (at most 65,515 bytes), its header checksum right.
    #[must_use]
    pub fn emit(&self, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES_MIN];
        b[0] = 0x45;
        put(
            &mut b,
            2,
            length_u16(HEADER_BYTES_MIN + payload.len()).to_be_bytes(),
        );
        put(&mut b, 4, self.identification.to_be_bytes());
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 }
            | if self.more_fragments {
                MORE_FRAGMENTS
            } else {
                0
            };
        put(
            &mut b,
            6,
            (flags | self.fragment_offset & 0x1fff).to_be_bytes(),
        );
        b[8] = self.ttl;
        b[9] = self.protocol;
        put(&mut b, 12, self.source.octets());
        put(&mut b, 16, self.destination.octets());
        let sum = checksum::checksum(&b);
        put(&mut b, 10, sum.to_be_bytes());
        b.extend(payload);
        b
    }
}
