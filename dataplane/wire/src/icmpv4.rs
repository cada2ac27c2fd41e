//! ICMP (RFC 792): echo and the errors that a router sends (RFC 1812 4.3).

use crate::bytes::{put, u16_at};
use crate::{Malformed, checksum};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;
/// Type: echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Type: destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Type: echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Type: time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;
/// Code of type 3: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;

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
        Malformed::unless(good, "ICMP", "a header of 8 bytes").map(|()| Self(bytes))
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

    /// A query's identifier.
    #[must_use]
    pub fn identifier(&self) -> u16 {
        u16_at(self.0.as_ref(), 4)
    }

    /// A query's sequence number; in "fragmentation needed" the next hop's MTU (RFC 1191 4).
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
    /// Bytes 4 and 5: a query's identifier, else 0.
    pub identifier: u16,
    /// Bytes 6 and 7: a query's sequence number, or the MTU in "fragmentation needed".
    pub sequence: u16,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(message: &Message<T>) -> Self {
        Self {
            kind: message.kind(),
            code: message.code(),
            identifier: message.identifier(),
            sequence: message.sequence(),
        }
    }

    /// The message with this payload, its checksum right.
    #[must_use]
    pub fn emit(&self, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        b[0] = self.kind;
        b[1] = self.code;
        put(&mut b, 4, self.identifier.to_be_bytes());
        put(&mut b, 6, self.sequence.to_be_bytes());
        b.extend(payload);
        let sum = checksum::checksum(&b);
        put(&mut b, 2, sum.to_be_bytes());
        b
    }
}

/// Writes a message's type (ICMP or ICMPv6), and updates its checksum. What is cut stays.
pub fn set_kind(message: &mut [u8], kind: u8) {
    if message.len() >= HEADER_BYTES {
        let old = [message[0], message[1]];
        message[0] = kind;
        let sum = checksum::update(u16_at(message, 2), &old, &[kind, old[1]]);
        put(message, 2, sum.to_be_bytes());
    }
}
