//! GRE (RFC 2784) with a key (RFC 2890): the header in front of a tunnelled frame.

use crate::Malformed;
use crate::bytes::{put, u16_at};

/// Bytes of the header with its key.
pub const HEADER_BYTES: usize = 8;
/// Protocol type: an Ethernet frame.
pub const ETHERNET: u16 = 0x6558;
/// Flag K: there is a key.
const HAS_KEY: u16 = 0x2000;
/// The version's bits.
const VERSION: u16 = 0x0007;

/// Whether these bytes begin a GRE packet of version 0 with a key and an Ethernet frame; else it is somebody else's.
#[must_use]
pub fn is_keyed_ethernet(bytes: &[u8]) -> bool {
    bytes.len() >= 4
        && u16_at(bytes, 0) & (HAS_KEY | VERSION) == HAS_KEY
        && u16_at(bytes, 2) == ETHERNET
}

/// A checked view of a GRE packet with a key and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks that the header is there, and has a key and no other flag.
    ///
    /// # Errors
    /// One of these is not so.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        let good = b.len() >= HEADER_BYTES && u16_at(b, 0) == HAS_KEY && u16_at(b, 2) == ETHERNET;
        Malformed::unless(good, "GRE", "a key, no other flag, an Ethernet frame")
            .map(|()| Self(bytes))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> u32 {
        match self.0.as_ref() {
            [_, _, _, _, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => 0,
        }
    }

    /// The frame inside.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_BYTES..]
    }
}

/// A header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The key.
    pub key: u32,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self { key: packet.key() }
    }

    /// The header with this frame behind it.
    #[must_use]
    pub fn emit(&self, frame: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        put(&mut b, 0, HAS_KEY.to_be_bytes());
        put(&mut b, 2, ETHERNET.to_be_bytes());
        put(&mut b, 4, self.key.to_be_bytes());
        b.extend(frame);
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_parses_and_other_flags_do_not() {
        let key = 0xdead_beef;
        let bytes = Repr { key }.emit(b"frame");
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((packet.key(), packet.payload()), (key, &b"frame"[..]));
        assert!(is_keyed_ethernet(&bytes[..4]));
        assert!(Packet::new_checked(&bytes[..7]).is_err());
        for (at, bit, ours) in [
            (0, 0x80, true),
            (0, 0x10, true),
            (1, 0x01, false),
            (0, 0x20, false),
        ] {
            let mut other = bytes.clone();
            other[at] ^= bit;
            assert!(Packet::new_checked(&other[..]).is_err());
            assert_eq!(is_keyed_ethernet(&other), ours, "{at}: {bit:#x}");
        }
    }
}
