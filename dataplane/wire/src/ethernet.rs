//! Ethernet II frames (IEEE 802.3 3.2.6), without a frame check sequence.

use crate::bytes::{get, put, u16_at};
use crate::{Mac, Malformed};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 14;
/// Bytes of the header with a tag.
pub const TAGGED_HEADER_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// ff:ff:ff:ff:ff:ff
pub const BROADCAST: Mac = [0xff; 6];

/// Where a tag stands: behind both addresses.
const TAG_AT: usize = 12;
/// Bytes of a tag.
const TAG_BYTES: usize = 4;
/// The VLAN id's bits of a tag; above it are priority and DEI.
const VLAN_ID_MASK: u16 = 0x0fff;

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

/// A frame's outermost 802.1Q tag (IEEE 802.1Q 9.6): its VLAN id, and the frame without it; none if it has none.
#[must_use]
pub fn untag(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (tci, frame) = untag_whole(frame)?;
    Some((tag_vlan_id(tci), frame))
}

/// The same with all of the tag's control information.
#[must_use]
pub fn untag_whole(frame: &[u8]) -> Option<(u16, Vec<u8>)> {
    let tci = tag_seen(frame)?;
    let (addresses, rest) = frame.split_at_checked(TAG_AT)?;
    let behind = rest.get(TAG_BYTES..)?;
    (behind.len() >= 2).then(|| (tci, [addresses, behind].concat()))
}

/// The frame with an 802.1Q tag of this VLAN id, priority 0.
#[must_use]
pub fn tag(frame: &[u8], vlan_id: u16) -> Vec<u8> {
    tag_whole(frame, vlan_id & VLAN_ID_MASK)
}

/// The frame with an 802.1Q tag of this control information: priority, DEI and VLAN id.
#[must_use]
pub fn tag_whole(frame: &[u8], tci: u16) -> Vec<u8> {
    let (addresses, behind) = frame.split_at(frame.len().min(TAG_AT));
    let tpid = ethertype::VLAN.to_be_bytes();
    [addresses, &tpid, &tci.to_be_bytes(), behind].concat()
}

/// The control information of a frame's outermost 802.1Q tag, if it has one.
#[must_use]
pub fn tag_seen(frame: &[u8]) -> Option<u16> {
    let [a, b, c, d] = *frame.get(TAG_AT..)?.first_chunk::<TAG_BYTES>()?;
    (u16::from_be_bytes([a, b]) == ethertype::VLAN).then_some(u16::from_be_bytes([c, d]))
}

/// The VLAN id in a tag's control information.
#[must_use]
pub fn tag_vlan_id(tci: u16) -> u16 {
    tci & VLAN_ID_MASK
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_off_as_it_was_put_on() {
        let frame: Vec<u8> = (0..60).collect();
        let tagged = tag(&frame, 101);
        assert_eq!(tagged[12..16], [0x81, 0, 0, 101]);
        assert_eq!(untag(&tagged), Some((101, frame.clone())));
        let mut urgent = tagged.clone();
        urgent[14] |= 0xf0;
        assert_eq!(untag(&urgent), Some((101, frame.clone())), "priority, DEI");
        assert_eq!(untag(&frame), None);
        assert_eq!(untag(&tagged[..17]), None, "no EtherType behind it");
        assert!(untag(&tagged[..18]).is_some());
    }
}
