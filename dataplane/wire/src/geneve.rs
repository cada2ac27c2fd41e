//! GENEVE (RFC 8926): the header in front of a tunnelled frame, and its options.

use crate::Malformed;
use crate::bytes::{put, u16_at};

/// Bytes of the header without options.
pub const HEADER_BYTES: usize = 8;
/// The UDP port that it is known by.
pub const UDP_PORT: u16 = 6081;
/// Protocol type: an Ethernet frame.
pub const ETHERNET: u16 = 0x6558;
/// Flag O: a control packet.
const CONTROL: u8 = 0x80;
/// In an option's type: who does not know it must drop the packet.
const CRITICAL: u8 = 0x80;

/// A checked view of a GENEVE packet, the UDP payload.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks version and length, that it carries an Ethernet frame and is no control packet, and that its options fill
    /// their length.
    ///
    /// # Errors
    /// One of these is not so.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        let head = b.first_chunk::<HEADER_BYTES>();
        let good = head.is_some_and(|head| {
            let plain = head[0] >> 6 == 0 && head[1] & CONTROL == 0;
            let end = HEADER_BYTES + usize::from(head[0] & 0x3f) * 4;
            plain && u16_at(b, 2) == ETHERNET && options(b.get(HEADER_BYTES..end)).is_some()
        });
        let expected = "version 0, an Ethernet frame, options that fill their length";
        Malformed::unless(good, "GENEVE", expected).map(|()| Self(bytes))
    }

    /// The virtual network's number.
    #[must_use]
    pub fn vni(&self) -> u32 {
        match self.0.as_ref() {
            [_, _, _, _, a, b, c, ..] => u32::from_be_bytes([0, *a, *b, *c]),
            _ => 0,
        }
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.0.as_ref()[0] & 0x3f) * 4
    }

    /// Whether an option is critical.
    #[must_use]
    pub fn has_critical_option(&self) -> bool {
        options(self.0.as_ref().get(HEADER_BYTES..self.header_bytes())).unwrap_or(true)
    }

    /// The frame inside.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_bytes()..]
    }
}

/// Whether one of these options is critical; none if they do not fill their bytes.
fn options(bytes: Option<&[u8]>) -> Option<bool> {
    let (mut rest, mut critical) = (bytes?, false);
    while let [_, _, kind, words, behind @ ..] = rest {
        critical |= kind & CRITICAL != 0;
        rest = behind.get(usize::from(words & 0x1f) * 4..)?;
    }
    rest.is_empty().then_some(critical)
}

/// A header as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repr {
    /// The virtual network's number, 24 bits.
    pub vni: u32,
    /// Options as they stand, whole words, at most 252 bytes.
    pub options: Vec<u8>,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            vni: packet.vni(),
            options: packet.0.as_ref()[HEADER_BYTES..packet.header_bytes()].to_vec(),
        }
    }

    /// The header with this frame behind it; flag C is set if an option is critical.
    #[must_use]
    pub fn emit(&self, frame: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        b[0] = u8::try_from(self.options.len() / 4).unwrap_or(0x3f) & 0x3f;
        b[1] = match options(Some(&self.options)) {
            Some(true) => 0x40,
            _ => 0,
        };
        put(&mut b, 2, ETHERNET.to_be_bytes());
        put(&mut b, 4, (self.vni << 8).to_be_bytes());
        b.extend(&self.options);
        b.extend(frame);
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_skipped_or_critical_or_too_long() {
        let with = |options: &[u8]| {
            let options = options.to_vec();
            Repr {
                vni: 0x0a_0b0c,
                options,
            }
            .emit(b"frame")
        };
        let plain = with(&[]);
        let packet = Packet::new_checked(&plain[..]).unwrap();
        assert_eq!((packet.vni(), packet.payload()), (0x0a_0b0c, &b"frame"[..]));
        assert_eq!(plain[..8], [0, 0, 0x65, 0x58, 0x0a, 0x0b, 0x0c, 0]);
        let skipped = with(&[1, 2, 3, 1, 9, 9, 9, 9]);
        let packet = Packet::new_checked(&skipped[..]).unwrap();
        assert!(!packet.has_critical_option() && packet.payload() == b"frame");
        let critical = with(&[1, 2, 0x83, 0]);
        assert!(
            Packet::new_checked(&critical[..])
                .unwrap()
                .has_critical_option()
        );
        assert!(Packet::new_checked(&with(&[1, 2, 3, 2, 9, 9, 9, 9])[..]).is_err());
        assert!(Packet::new_checked(&plain[..7]).is_err());
    }
}
