//! UDP (RFC 768).

use crate::bytes::{length_u16, put, u16_at};
use crate::{Malformed, checksum, protocol};
use std::net::IpAddr;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;

/// A checked view of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<T>(T);

impl<T: AsRef<[u8]>> Datagram<T> {
    /// Checks that the header is there; the length field is clamped where it is used.
    ///
    /// # Errors
    /// The header is cut.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let good = bytes.as_ref().len() >= HEADER_BYTES;
        Malformed::unless(good, "UDP", "a header of 8 bytes").map(|()| Self(bytes))
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

    /// Bytes of header and payload, as the sender says.
    #[must_use]
    pub fn length(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), 4))
    }

    /// Checksum; 0 in IPv4 means none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), 6)
    }

    /// What follows the header, up to the length or the end of the bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let b = self.0.as_ref();
        &b[HEADER_BYTES..self.length().clamp(HEADER_BYTES, b.len())]
    }
}

/// A datagram's ports as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(datagram: &Datagram<T>) -> Self {
        Self {
            source_port: datagram.source_port(),
            destination_port: datagram.destination_port(),
        }
    }

    /// The datagram with this payload (at most 65,527 bytes), its checksum right for these addresses.
    #[must_use]
    pub fn emit(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut b = self.emit_without_checksum(payload);
        let sum = match checksum::transport(source, destination, protocol::UDP, &b) {
            0 => 0xffff,
            sum => sum,
        };
        put(&mut b, 6, sum.to_be_bytes());
        b
    }

    /// The same with checksum 0, which is none: in IPv6 for tunnels only (RFC 6935).
    #[must_use]
    pub fn emit_without_checksum(&self, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        put(&mut b, 0, self.source_port.to_be_bytes());
        put(&mut b, 2, self.destination_port.to_be_bytes());
        put(
            &mut b,
            4,
            length_u16(HEADER_BYTES + payload.len()).to_be_bytes(),
        );
        b.extend(payload);
        b
    }
}
