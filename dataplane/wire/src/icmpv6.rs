//! ICMPv6 (RFC 4443): echo and the errors that a router sends. Neighbour discovery is in [`crate::ndisc`].

use crate::bytes::{get, put, u16_at};
use crate::{Malformed, checksum, protocol};
use std::net::{IpAddr, Ipv6Addr};

/// Bytes of a header with its four type-specific bytes.
pub const HEADER_BYTES: usize = 8;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 1;
/// Type: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 129;

/// A checked view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<T>(T);

impl<T: AsRef<[u8]>> Message<T> {
    /// Checks that the header is there.
    ///
    /// # Errors
    /// It is cut.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let good = bytes.as_ref().len() >= HEADER_BYTES;
        Malformed::unless(good, "ICMPv6", "a header of 8 bytes").map(|()| Self(bytes))
    }

    /// Type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.0.as_ref()[0]
    }

    /// Code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.0.as_ref()[1]
    }

    /// Checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), 2)
    }

    /// An echo's identifier.
    #[must_use]
    pub fn identifier(&self) -> u16 {
        u16_at(self.0.as_ref(), 4)
    }

    /// An echo's sequence number.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        u16_at(self.0.as_ref(), 6)
    }

    /// What follows the header; in errors, the packet that they are about.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_BYTES..]
    }
}

/// A message's header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: identifier and sequence number, an MTU, a pointer, flags, or 0.
    pub rest: [u8; 4],
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(message: &Message<T>) -> Self {
        Self {
            kind: message.kind(),
            code: message.code(),
            rest: get(message.0.as_ref(), 4),
        }
    }

    /// An echo request or reply.
    #[must_use]
    pub fn echo(kind: u8, identifier: u16, sequence: u16) -> Self {
        let (i, s) = (identifier.to_be_bytes(), sequence.to_be_bytes());
        Self {
            kind,
            code: 0,
            rest: [i[0], i[1], s[0], s[1]],
        }
    }

    /// The message with this payload, its checksum right for these addresses.
    #[must_use]
    pub fn emit(&self, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![self.kind, self.code, 0, 0];
        b.extend(self.rest);
        b.extend(payload);
        let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
        let sum = checksum::transport(source, destination, protocol::ICMPV6, &b);
        put(&mut b, 2, sum.to_be_bytes());
        b
    }
}
