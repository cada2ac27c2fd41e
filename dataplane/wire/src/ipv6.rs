//! IPv6 (RFC 8200): the fixed header, and the walk over extension headers to the upper layer.

use crate::bytes::{ipv6_at, length_u16, put, u16_at, u32_at};
use crate::{Malformed, protocol};
use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;

/// A checked view of a packet. Bytes behind the payload length are kept and ignored.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks the version and that the payload lies within the bytes.
    ///
    /// # Errors
    /// One of them is not so.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let packet = Self::new_header_checked(bytes)?;
        let good = HEADER_BYTES + packet.payload_length() <= packet.0.as_ref().len();
        Malformed::unless(good, "IPv6", "a payload length within the frame").map(|()| packet)
    }

    /// Checks the version and that the fixed header is there, but not the payload length: for packets quoted in an
    /// ICMPv6 error, which are cut.
    ///
    /// # Errors
    /// One of them is not so.
    pub fn new_header_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        let good = b.len() >= HEADER_BYTES && b[0] >> 4 == 6;
        Malformed::unless(good, "IPv6", "version 6 and a header of 40 bytes").map(|()| Self(bytes))
    }

    /// Bytes behind the fixed header.
    #[must_use]
    pub fn payload_length(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), 4))
    }

    /// The type of what follows the fixed header.
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[6]
    }

    /// Hop limit.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        ipv6_at(self.0.as_ref(), 8)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        ipv6_at(self.0.as_ref(), 24)
    }

    /// What follows the fixed header, up to the payload length or the end of the bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let b = self.0.as_ref();
        &b[HEADER_BYTES..(HEADER_BYTES + self.payload_length()).min(b.len())]
    }

    /// Walks the extension headers; see [`walk`].
    ///
    /// # Errors
    /// As [`walk`].
    pub fn upper_layer(&self, headers_max: usize) -> Result<UpperLayer, WalkError> {
        walk(self.next_header(), self.payload(), headers_max)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Writes the DSCP (RFC 2474, the upper six bits of the traffic class).
    pub fn set_dscp(&mut self, dscp: u8) {
        let b = self.0.as_mut();
        b[0] = b[0] & 0xf0 | dscp >> 2 & 0x0f;
        b[1] = b[1] & 0x3f | dscp << 6;
    }

    /// Writes the hop limit.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.0.as_mut()[7] = hop_limit;
    }

    /// Writes the source address.
    pub fn set_source(&mut self, address: Ipv6Addr) {
        put(self.0.as_mut(), 8, address.octets());
    }

    /// Writes the destination address.
    pub fn set_destination(&mut self, address: Ipv6Addr) {
        put(self.0.as_mut(), 24, address.octets());
    }

    /// The payload, to be changed.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = HEADER_BYTES + self.payload_length();
        let b = self.0.as_mut();
        let end = end.min(b.len());
        &mut b[HEADER_BYTES..end]
    }
}

/// What a fragment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// In units of 8 bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Shared by a packet's fragments.
    pub identification: u32,
}

/// Where the upper layer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Its protocol; in a later fragment, the next header of the fragment header.
    pub protocol: u8,
    /// Its offset behind the fixed header.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
}

/// Why a walk found no upper layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// More headers than allowed, or a routing header of type 0 (RFC 5095).
    #[error("more extension headers than allowed, or a routing header of type 0")]
    Refused,
    /// A header runs over the end.
    #[error("an extension header runs over the end of the packet")]
    Malformed,
}

/// Walks the extension headers 0, 43, 44 and 60 from `next_header` on. For each, in this order: more than `headers_max`
/// are refused; it must have 8 bytes; its length must lie within the payload; type 0 routing is refused. The walk ends
/// at the first other header, and behind the header of a later fragment. Of several fragment headers the last one holds.
///
/// # Errors
/// See [`WalkError`].
pub fn walk(next_header: u8, payload: &[u8], headers_max: usize) -> Result<UpperLayer, WalkError> {
    let mut at = UpperLayer {
        protocol: next_header,
        offset: 0,
        fragment: None,
    };
    for headers in 0.. {
        if !is_extension(at.protocol) {
            break;
        }
        if headers >= headers_max {
            return Err(WalkError::Refused);
        }
        let header = payload
            .get(at.offset..at.offset + 8)
            .ok_or(WalkError::Malformed)?;
        let fragment = at.protocol == protocol::FRAGMENT;
        let length = if fragment {
            8
        } else {
            (usize::from(header[1]) + 1) * 8
        };
        if at.offset + length > payload.len() {
            return Err(WalkError::Malformed);
        }
        if at.protocol == protocol::ROUTING && header[2] == 0 {
            return Err(WalkError::Refused);
        }
        if fragment {
            let word = u16_at(header, 2);
            at.fragment = Some(Fragment {
                offset: word >> 3,
                more: word & 1 == 1,
                identification: u32_at(header, 4),
            });
        }
        at.protocol = header[0];
        at.offset += length;
        if at.fragment.is_some_and(|f| f.offset != 0) {
            break;
        }
    }
    Ok(at)
}

fn is_extension(header: u8) -> bool {
    matches!(
        header,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
    )
}

/// A fixed header as a value. Traffic class and flow label are skipped in parsing and emitted as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// The type of the payload's first header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            source: packet.source(),
            destination: packet.destination(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
        }
    }

    /// The packet with this payload (at most 65,535 bytes).
    #[must_use]
    pub fn emit(&self, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0; HEADER_BYTES];
        b[0] = 0x60;
        put(&mut b, 4, length_u16(payload.len()).to_be_bytes());
        b[6] = self.next_header;
        b[7] = self.hop_limit;
        put(&mut b, 8, self.source.octets());
        put(&mut b, 24, self.destination.octets());
        b.extend(payload);
        b
    }

    /// The same with a flow label (20 bits).
    #[must_use]
    pub fn emit_labelled(&self, payload: &[u8], label: u32) -> Vec<u8> {
        let mut b = self.emit(payload);
        put(
            &mut b,
            0,
            (0x6000_0000 | (label & 0x000f_ffff)).to_be_bytes(),
        );
        b
    }
}

/// A fragment header in front of a payload whose type is `next_header`.
#[must_use]
pub fn fragment_header(next_header: u8, fragment: Fragment) -> [u8; 8] {
    let mut b = [0; 8];
    b[0] = next_header;
    put(
        &mut b,
        2,
        (fragment.offset << 3 | u16::from(fragment.more)).to_be_bytes(),
    );
    put(&mut b, 4, fragment.identification.to_be_bytes());
    b
}
