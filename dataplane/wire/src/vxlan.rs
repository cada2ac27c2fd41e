//! VXLAN (RFC 7348): the header in front of a tunnelled frame.

use crate::Malformed;
use crate::bytes::put;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;
/// The UDP port that it is known by.
pub const UDP_PORT: u16 = 4789;
/// Flag I: there is a VNI.
pub const HAS_VNI: u8 = 0x08;

/// A checked view of a VXLAN packet, the UDP payload.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks that the header is there, and says that it has a VNI. Reserved bits are ignored.
    ///
    /// # Errors
    /// The header is cut, or flag I is clear.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let header = bytes.as_ref().first_chunk::<HEADER_BYTES>();
        let good = header.is_some_and(|header| header[0] & HAS_VNI != 0);
        Malformed::unless(good, "VXLAN", "a header of 8 bytes with flag I").map(|()| Self(bytes))
    }

    /// The virtual network's number.
    #[must_use]
    pub fn vni(&self) -> u32 {
        match self.0.as_ref() {
            [_, _, _, _, a, b, c, ..] => u32::from_be_bytes([0, *a, *b, *c]),
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
    /// The virtual network's number, 24 bits.
    pub vni: u32,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self { vni: packet.vni() }
    }

    /// The header with this frame behind it.
    #[must_use]
    pub fn emit(&self, frame: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        b[0] = HAS_VNI;
        put(&mut b, 4, (self.vni << 8).to_be_bytes());
        b.extend(frame);
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_parses_and_what_is_cut_or_has_no_vni_does_not() {
        let bytes = Repr { vni: 0x0a_0b0c }.emit(b"frame");
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((packet.vni(), packet.payload()), (0x0a_0b0c, &b"frame"[..]));
        assert_eq!(bytes[..8], [8, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0]);
        assert!(Packet::new_checked(&bytes[..7]).is_err());
        assert!(Packet::new_checked(&[0; 20]).is_err());
    }
}
