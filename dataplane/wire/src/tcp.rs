//! TCP (RFC 9293 3.1): ports, flags and the checksum; options are bytes.

use crate::bytes::{put, u16_at, u32_at};
use crate::{Malformed, checksum, protocol};
use std::net::IpAddr;

/// Bytes of a header without options.
pub const HEADER_BYTES_MIN: usize = 20;
/// Flag FIN.
pub const FIN: u8 = 1;
/// Flag SYN.
pub const SYN: u8 = 2;
/// Flag RST.
pub const RST: u8 = 4;
/// Flag PSH.
pub const PSH: u8 = 8;
/// Flag ACK.
pub const ACK: u8 = 16;

/// A checked view of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<T>(T);

impl<T: AsRef<[u8]>> Segment<T> {
    /// Checks that 20 bytes are there and the data offset is at least 5; options may be cut.
    ///
    /// # Errors
    /// One of them is not so.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        let good = b.len() >= HEADER_BYTES_MIN && b[12] >> 4 >= 5;
        Malformed::unless(good, "TCP", "a header of at least 20 bytes").map(|()| Self(bytes))
    }

    /// Source port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16_at(self.0.as_ref(), 0)
    }

    /// Destination port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16_at(self.0.as_ref(), 2)
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32_at(self.0.as_ref(), 4)
    }

    /// Acknowledgment number.
    #[must_use]
    pub fn acknowledgment(&self) -> u32 {
        u32_at(self.0.as_ref(), 8)
    }

    /// The low eight flags: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0.as_ref()[13]
    }

    /// Receive window.
    #[must_use]
    pub fn window(&self) -> u16 {
        u16_at(self.0.as_ref(), 14)
    }

    /// Checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), 16)
    }

    /// What follows the header and its options; empty if they are cut.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let b = self.0.as_ref();
        b.get(usize::from(b[12] >> 4) * 4..).unwrap_or_default()
    }
}

/// A segment without options, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// The low eight flags.
    pub flags: u8,
    /// Receive window.
    pub window: u16,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(segment: &Segment<T>) -> Self {
        Self {
            source_port: segment.source_port(),
            destination_port: segment.destination_port(),
            sequence: segment.sequence(),
            acknowledgment: segment.acknowledgment(),
            flags: segment.flags(),
            window: segment.window(),
        }
    }

    /// The segment with this payload, its checksum right for these addresses.
    #[must_use]
    pub fn emit(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES_MIN];
        put(&mut b, 0, self.source_port.to_be_bytes());
        put(&mut b, 2, self.destination_port.to_be_bytes());
        put(&mut b, 4, self.sequence.to_be_bytes());
        put(&mut b, 8, self.acknowledgment.to_be_bytes());
        b[12] = 5 << 4;
        b[13] = self.flags;
        put(&mut b, 14, self.window.to_be_bytes());
        b.extend(payload);
        let sum = checksum::transport(source, destination, protocol::TCP, &b);
        put(&mut b, 16, sum.to_be_bytes());
        b
    }
}
