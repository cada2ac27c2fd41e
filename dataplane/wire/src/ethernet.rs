//! Ethernet II frames (IEEE 802.3 3.2.6), without a frame check sequence.

use crate::bytes::{get, put, u16_at};
use crate::{Mac, Malformed};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;
/// ff:ff:ff:ff:ff:ff
pub const BROADCAST: Mac = [0xff; 6];

/// EtherTypes by name.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Whether the group bit is set.
#[must_use]
pub fn is_multicast(mac: Mac) -> bool {
    mac[0] & 1 == 1
}

/// The MAC address that an IPv6 multicast address maps to (RFC 2464 7).
#[must_use]
pub fn ipv6_multicast(address: std::net::Ipv6Addr) -> Mac {
    let a = address.octets();
    [0x33, 0x33, a[12], a[13], a[14], a[15]]
}

/// A checked view of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<T>(T);

impl<T: AsRef<[u8]>> Frame<T> {
    /// Checks that the header is there.
    ///
    /// # Errors
    /// The frame is shorter than its header.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let good = bytes.as_ref().len() >= HEADER_BYTES;
        Malformed::unless(good, "Ethernet", "a header of 14 bytes").map(|()| Self(bytes))
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Mac {
        get(self.0.as_ref(), 0)
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Mac {
        get(self.0.as_ref(), 6)
    }

    /// EtherType.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        u16_at(self.0.as_ref(), 12)
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_BYTES..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Writes the destination address.
    pub fn set_destination(&mut self, mac: Mac) {
        put(self.0.as_mut(), 0, mac);
    }

    /// Writes the source address.
    pub fn set_source(&mut self, mac: Mac) {
        put(self.0.as_mut(), 6, mac);
    }

    /// What follows the header, to be changed.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.0.as_mut()[HEADER_BYTES..]
    }
}

/// A header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub source: Mac,
    /// Destination address.
    pub destination: Mac,
    /// EtherType.
    pub ethertype: u16,
}

impl Repr {
    /// The header's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(frame: &Frame<T>) -> Self {
        Self {
            source: frame.source(),
            destination: frame.destination(),
            ethertype: frame.ethertype(),
        }
    }

    /// The frame with this payload.
    #[must_use]
    pub fn emit(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.extend(self.destination);
        frame.extend(self.source);
        frame.extend(self.ethertype.to_be_bytes());
        frame.extend(payload);
        frame
    }
}
