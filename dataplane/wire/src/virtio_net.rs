//! The header that virtio-net puts before a frame (virtio 1.2, 5.1.6): work on it that its sender left to others.
//!
//! Guarantees: a [`Load`] that `parse` accepted fits its frame, so that whoever does the work stays inside of it. A frame may lack
//! a checksum (of which the pseudo header's part is in its place), or be several segments in one.

use crate::bytes::{length_u16, put, u16_at, u32_at};
use crate::ethernet::ethertype;
use crate::{Malformed, checksum, ethernet, ipv4, ipv6, protocol, tcp, udp};
use std::net::IpAddr;

/// Bytes of the header, without the number of buffers that newer devices have behind it.
pub const HEADER_BYTES: usize = 10;
/// Segments of one frame at most.
pub const SEGMENTS_MAX: usize = 1_024;

const FLAG_PARTIAL: u8 = 1;
const FLAG_VALID: u8 = 2;
const KIND_TCP_V4: u8 = 1;
const KIND_TCP_V6: u8 = 4;
const KIND_UDP: u8 = 5;
const KIND_ECN: u8 = 0x80;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// TCP's flag that says once that the window was reduced.
const CWR: u8 = 0x80;
/// Extension headers in front of segmented layer 4.
const EXTENSION_HEADERS_MAX: usize = 8;

/// What segments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either.
    Udp,
}

/// A frame of several segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// What they are.
    pub kind: Kind,
    /// Whether the first of them says that the window was reduced.
    pub ecn: bool,
    /// Bytes of all headers, the link's to layer 4's, which each segment has.
    pub header_bytes: u16,
    /// Bytes of payload of each but the last.
    pub payload_bytes: u16,
}

/// Where a checksum that is still to be completed starts, and where it goes, from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first byte that it covers.
    pub start: u16,
    /// Where it stands, behind `start`.
    pub offset: u16,
}

/// Work that was left to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// A checksum to complete.
    pub partial: Option<Partial>,
    /// Segments to cut.
    pub segments: Option<Segments>,
    /// Somebody who is trusted has verified the checksums.
    pub valid: bool,
}

/// Where layer 4 is in a frame, as far as its first bytes tell.
struct Layers {
    /// Where the packet starts: behind a tag, if there is one.
    packet: usize,
    v6: bool,
    protocol: u8,
    l4: usize,
    fragment: bool,
}

impl Layers {
    fn of(head: &[u8]) -> Option<Self> {
        let link = ethernet::Frame::new_checked(head).ok()?;
        let (at, kind) = match link.ethertype() {
            ethertype::VLAN if head.len() >= ethernet::TAGGED_HEADER_BYTES => (
                ethernet::TAGGED_HEADER_BYTES,
                u16_at(head, ethernet::TAGGED_HEADER_BYTES - 2),
            ),
            kind => (ethernet::HEADER_BYTES, kind),
        };
        let packet = head.get(at..)?;
        match kind {
            ethertype::IPV4 => {
                let header = ipv4::Packet::new_header_checked(packet).ok()?;
                Some(Self {
                    packet: at,
                    v6: false,
                    protocol: header.protocol(),
                    l4: at + header.header_bytes(),
                    fragment: header.more_fragments() || header.fragment_offset() != 0,
                })
            }
            ethertype::IPV6 => {
                let header = ipv6::Packet::new_header_checked(packet).ok()?;
                let behind = packet.get(ipv6::HEADER_BYTES..)?;
                let upper = ipv6::walk(header.next_header(), behind, EXTENSION_HEADERS_MAX).ok()?;
                Some(Self {
                    packet: at,
                    v6: true,
                    protocol: upper.protocol,
                    l4: at + ipv6::HEADER_BYTES + upper.offset,
                    fragment: upper.fragment.is_some(),
                })
            }
            _ => None,
        }
    }

    /// Where layer 4 keeps its checksum, and the bytes of its header.
    fn transport(&self, head: &[u8]) -> Option<(usize, usize)> {
        match self.protocol {
            protocol::TCP => {
                let bytes = usize::from(head.get(self.l4 + 12)? >> 4) * 4;
                (bytes >= tcp::HEADER_BYTES_MIN).then_some((TCP_CHECKSUM, bytes))
            }
            protocol::UDP => Some((UDP_CHECKSUM, udp::HEADER_BYTES)),
            _ => None,
        }
    }

    /// The pseudo-header's sum for a message of so many bytes.
    fn pseudo_header(&self, head: &[u8], bytes: usize) -> u64 {
        let packet = head.get(self.packet..).unwrap_or_default();
        let ends: Option<(IpAddr, IpAddr)> = if self.v6 {
            let header = ipv6::Packet::new_header_checked(packet);
            header
                .ok()
                .map(|h| (h.source().into(), h.destination().into()))
        } else {
            let header = ipv4::Packet::new_header_checked(packet);
            header
                .ok()
                .map(|h| (h.source().into(), h.destination().into()))
        };
        ends.map_or(0, |(source, destination)| {
            checksum::pseudo_header(source, destination, self.protocol, bytes)
        })
    }

    /// Bytes from layer 4 to the end of the packet, as the IP header says.
    fn l4_bytes(&self, head: &[u8]) -> usize {
        let packet = head.get(self.packet..).unwrap_or_default();
        let end = if self.v6 {
            let header = ipv6::Packet::new_header_checked(packet);
            header.map_or(0, |h| ipv6::HEADER_BYTES + h.payload_length())
        } else {
            ipv4::Packet::new_header_checked(packet).map_or(0, |h| h.total_length())
        };
        (self.packet + end).saturating_sub(self.l4)
    }
}

fn check(good: bool, expected: &'static str) -> Result<(), Malformed> {
    Malformed::unless(good, "virtio-net header", expected)
}

impl Segments {
    /// Of a frame with this checksum to complete.
    fn new(
        (kind, ecn): (Kind, bool),
        payload_bytes: u16,
        partial: Option<Partial>,
        head: &[u8],
        frame_bytes: usize,
    ) -> Result<Self, Malformed> {
        check(payload_bytes > 0, "segments with a payload")?;
        let layers = Layers::of(head).filter(|layers| !layers.fragment);
        let fits = layers.and_then(|layers| {
            let (offset, bytes) = layers.transport(head)?;
            let expected = match kind {
                Kind::TcpV4 => (protocol::TCP, false),
                Kind::TcpV6 => (protocol::TCP, true),
                Kind::Udp => (protocol::UDP, layers.v6),
            };
            let own = Partial {
                start: length_u16(layers.l4),
                offset: length_u16(offset),
            };
            let fits = (layers.protocol, layers.v6) == expected && partial == Some(own);
            fits.then_some(layers.l4 + bytes)
        });
        check(
            fits.is_some(),
            "segments of the protocol that is there, with its checksum to complete",
        )?;
        let header_bytes = fits.unwrap_or_default();
        let segments = Self {
            kind,
            ecn,
            header_bytes: length_u16(header_bytes),
            payload_bytes,
        };
        check(
            header_bytes <= frame_bytes.min(head.len()),
            "all headers in the first bytes",
        )?;
        check(
            segments.count(frame_bytes) <= SEGMENTS_MAX,
            "fewer segments",
        )?;
        Ok(segments)
    }

    /// How many a frame of so many bytes has.
    #[must_use]
    pub fn count(&self, frame_bytes: usize) -> usize {
        let payload = frame_bytes.saturating_sub(usize::from(self.header_bytes));
        payload
            .div_ceil(usize::from(self.payload_bytes).max(1))
            .max(1)
    }

    /// Bytes of the longest one's IP packet, out of a frame of so many bytes.
    #[must_use]
    pub fn packet_bytes(&self, frame_bytes: usize) -> usize {
        let longest = usize::from(self.header_bytes) + usize::from(self.payload_bytes);
        longest
            .min(frame_bytes)
            .saturating_sub(ethernet::HEADER_BYTES)
    }
}

impl Load {
    /// Nothing is left to do.
    pub const NONE: Self = Self {
        partial: None,
        segments: None,
        valid: false,
    };

    /// Whether nothing is left to do.
    #[inline]
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.partial.is_none() && self.segments.is_none() && !self.valid
    }

    /// The same of the frame without its tag.
    #[must_use]
    pub fn behind_tag(&self) -> Self {
        let tag = length_u16(ethernet::TAGGED_HEADER_BYTES - ethernet::HEADER_BYTES);
        Self {
            partial: self.partial.map(|partial| Partial {
                start: partial.start.saturating_sub(tag),
                ..partial
            }),
            segments: self.segments.map(|segments| Segments {
                header_bytes: segments.header_bytes.saturating_sub(tag),
                ..segments
            }),
            valid: self.valid,
        }
    }

    /// Reads the header of a frame of so many bytes, of which the first ones are at hand. `trusted`: whether its sender may say
    /// that checksums are verified.
    ///
    /// # Errors
    /// What it says does not fit the frame.
    pub fn parse(
        header: &[u8; HEADER_BYTES],
        head: &[u8],
        frame_bytes: usize,
        trusted: bool,
    ) -> Result<Self, Malformed> {
        let [flags, kind, _, _, a, b, c, d, e, f] = *header;
        let partial = (flags & FLAG_PARTIAL != 0).then(|| Partial {
            start: u16::from_le_bytes([c, d]),
            offset: u16::from_le_bytes([e, f]),
        });
        if let Some(Partial { start, offset }) = partial {
            let start = usize::from(start);
            let inside =
                start >= ethernet::HEADER_BYTES && start + usize::from(offset) + 2 <= frame_bytes;
            check(inside, "a checksum inside of the frame")?;
        }
        let ecn = kind & KIND_ECN != 0;
        let kind = match kind & !KIND_ECN {
            0 => None,
            KIND_TCP_V4 => Some(Kind::TcpV4),
            KIND_TCP_V6 => Some(Kind::TcpV6),
            KIND_UDP if !ecn => Some(Kind::Udp),
            _ => {
                check(false, "segments of TCP or UDP")?;
                None
            }
        };
        let payload_bytes = u16::from_le_bytes([a, b]);
        let segments =
            kind.map(|kind| Segments::new((kind, ecn), payload_bytes, partial, head, frame_bytes));
        Ok(Self {
            partial,
            segments: segments.transpose()?,
            valid: trusted && flags & FLAG_VALID != 0,
        })
    }

    /// The header that says so.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        if self.valid {
            b[0] |= FLAG_VALID;
        }
        if let Some(Partial { start, offset }) = self.partial {
            b[0] |= FLAG_PARTIAL;
            put(&mut b, 6, start.to_le_bytes());
            put(&mut b, 8, offset.to_le_bytes());
        }
        if let Some(segments) = self.segments {
            let ecn = if segments.ecn { KIND_ECN } else { 0 };
            b[1] = ecn
                | match segments.kind {
                    Kind::TcpV4 => KIND_TCP_V4,
                    Kind::TcpV6 => KIND_TCP_V6,
                    Kind::Udp => KIND_UDP,
                };
            put(&mut b, 2, segments.header_bytes.to_le_bytes());
            put(&mut b, 4, segments.payload_bytes.to_le_bytes());
        }
        b
    }

    /// The pseudo-header's part of layer 4's own partial checksum, written anew after addresses have changed: into the first
    /// bytes of a frame, which hold its headers. A checksum further inside stays as it is.
    pub fn renew(&self, head: &mut [u8]) {
        let (Some(partial), Some(layers)) = (self.partial, Layers::of(head)) else {
            return;
        };
        let own = layers.transport(head).map(|(offset, _)| Partial {
            start: length_u16(layers.l4),
            offset: length_u16(offset),
        });
        let at = usize::from(partial.start) + usize::from(partial.offset);
        if own != Some(partial) || at + 2 > head.len() {
            return;
        }
        let sum = layers.pseudo_header(head, layers.l4_bytes(head));
        put(head, at, checksum::fold(sum).to_be_bytes());
    }

    /// Completes the checksum of a whole frame.
    pub fn complete(&self, frame: &mut [u8]) {
        let Some(partial) = self.partial else { return };
        let start = usize::from(partial.start);
        let at = start + usize::from(partial.offset);
        if at + 2 > frame.len() {
            return;
        }
        // What is behind the packet's end is no part of it.
        let own = Layers::of(frame).filter(|layers| layers.l4 == start);
        let end = own.map_or(frame.len(), |layers| start + layers.l4_bytes(frame));
        let covered = frame.get(start..end.min(frame.len())).unwrap_or_default();
        let sum = match checksum::checksum(covered) {
            // Nobody's checksum is 0 but UDP's, where it would say that there is none.
            0 => 0xffff,
            sum => sum,
        };
        put(frame, at, sum.to_be_bytes());
    }

    /// Cuts the segment of this number out of a whole frame, checksums complete; none behind the last one.
    #[must_use]
    pub fn segment(&self, frame: &[u8], number: usize) -> Option<Vec<u8>> {
        let segments = self.segments?;
        let headers = usize::from(segments.header_bytes);
        let each = usize::from(segments.payload_bytes);
        let layers = Layers::of(frame)?;
        let end = (layers.l4 + layers.l4_bytes(frame)).min(frame.len());
        let payload = frame.get(headers..end)?;
        let count = payload.len().div_ceil(each.max(1)).max(1);
        let from = number.checked_mul(each).filter(|_| number < count)?;
        let part = payload.get(from..payload.len().min(from + each))?;
        let mut segment = frame.get(..headers)?.to_vec();
        segment.extend(part);
        let place = Numbered {
            number,
            last: number + 1 == count,
        };
        layers.length_write(&mut segment, place);
        match segments.kind {
            Kind::Udp => {
                let bytes = length_u16(segment.len() - layers.l4);
                put(&mut segment, layers.l4 + 4, bytes.to_be_bytes());
            }
            Kind::TcpV4 | Kind::TcpV6 => tcp_write(&mut segment[layers.l4..], from, place),
        }
        let (offset, _) = layers.transport(frame)?;
        let sum = layers.pseudo_header(&segment, segment.len() - layers.l4);
        put(
            &mut segment,
            layers.l4 + offset,
            checksum::fold(sum).to_be_bytes(),
        );
        self.complete(&mut segment);
        Some(segment)
    }
}

/// A segment among the others.
#[derive(Clone, Copy)]
struct Numbered {
    number: usize,
    last: bool,
}

impl Layers {
    /// The IP header of a segment, whose length is the slice's.
    fn length_write(&self, segment: &mut [u8], place: Numbered) {
        let packet = &mut segment[self.packet..];
        let bytes = packet.len();
        if self.v6 {
            put(
                packet,
                4,
                length_u16(bytes - ipv6::HEADER_BYTES).to_be_bytes(),
            );
            return;
        }
        let header = self.l4 - self.packet;
        put(packet, 2, length_u16(bytes).to_be_bytes());
        let identification = u16_at(packet, 4).wrapping_add(length_u16(place.number));
        put(packet, 4, identification.to_be_bytes());
        put(packet, 10, [0, 0]);
        let sum = checksum::checksum(&packet[..header]);
        put(packet, 10, sum.to_be_bytes());
    }
}

/// Sequence number and flags of a segment whose payload starts so many bytes behind the first one's.
fn tcp_write(segment: &mut [u8], from: usize, place: Numbered) {
    let ahead = u32::try_from(from).unwrap_or(u32::MAX);
    let sequence = u32_at(segment, 4).wrapping_add(ahead);
    put(segment, 4, sequence.to_be_bytes());
    if !place.last {
        segment[13] &= !(tcp::FIN | tcp::PSH);
    }
    if place.number > 0 {
        segment[13] &= !CWR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{self, Ip, Link};
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn link() -> Link {
        Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
        }
    }

    fn addresses(v6: bool) -> Ip {
        if v6 {
            let address = |n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
            Ip::new(address(1), address(2))
        } else {
            Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
        }
    }

    fn stream(v6: bool, payload: &[u8]) -> Vec<u8> {
        let segment = tcp::Repr {
            source_port: 1_000,
            destination_port: 22,
            sequence: u32::MAX - 1_000,
            acknowledgment: 7,
            flags: tcp::ACK | tcp::PSH | tcp::FIN | CWR,
            window: 100,
        };
        frame::tcp(link(), addresses(v6), segment, payload)
    }

    fn datagram(v6: bool, payload: &[u8]) -> Vec<u8> {
        let ports = udp::Repr {
            source_port: 1_000,
            destination_port: 53,
        };
        frame::udp(link(), addresses(v6), ports, payload)
    }

    /// As a guest leaves it: the pseudo-header's sum in place.
    fn left(mut frame: Vec<u8>, kind: Option<u8>, payload_bytes: u16) -> (Vec<u8>, Load) {
        let layers = Layers::of(&frame).unwrap();
        let (offset, _) = layers.transport(&frame).unwrap();
        let mut header = [0; HEADER_BYTES];
        header[0] = FLAG_PARTIAL;
        header[1] = kind.unwrap_or(0);
        put(&mut header, 4, payload_bytes.to_le_bytes());
        put(&mut header, 6, length_u16(layers.l4).to_le_bytes());
        put(&mut header, 8, length_u16(offset).to_le_bytes());
        let load = Load::parse(&header, &frame, frame.len(), false).unwrap();
        load.renew(&mut frame);
        (frame, load)
    }

    fn payload(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n % 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn a_completed_checksum_is_as_if_sent_so() {
        for v6 in [false, true] {
            for whole in [stream(v6, b"odd"), datagram(v6, b"question")] {
                let (mut frame, load) = left(whole.clone(), None, 0);
                assert_ne!(frame, whole);
                load.complete(&mut frame);
                assert_eq!(frame, whole);
            }
        }
    }

    #[test]
    fn segments_are_as_if_sent_so() {
        let all = payload(2_500);
        for v6 in [false, true] {
            let (frame, load) = left(stream(v6, &all), Some(if v6 { 0x84 } else { 0x81 }), 1_000);
            let segments = load.segments.unwrap();
            let headers = usize::from(segments.header_bytes);
            assert!(segments.ecn);
            assert_eq!(segments.count(frame.len()), 3);
            assert_eq!(segments.packet_bytes(frame.len()), headers - 14 + 1_000);
            let cut: Vec<Vec<u8>> = (0..4).map_while(|n| load.segment(&frame, n)).collect();
            assert_eq!(cut.len(), 3);
            for (n, segment) in (0u32..).zip(&cut) {
                let part = &all[n as usize * 1_000..2_500.min((n as usize + 1) * 1_000)];
                let last = if n == 2 { tcp::PSH | tcp::FIN } else { 0 };
                let repr = tcp::Repr {
                    source_port: 1_000,
                    destination_port: 22,
                    sequence: (u32::MAX - 1_000).wrapping_add(n * 1_000),
                    acknowledgment: 7,
                    flags: tcp::ACK | last | if n == 0 { CWR } else { 0 },
                    window: 100,
                };
                let mut expected = frame::tcp(link(), addresses(v6), repr, part);
                if !v6 {
                    let number = length_u16(usize::try_from(n).unwrap());
                    let was = u16_at(&expected, 18);
                    put(&mut expected, 18, was.wrapping_add(number).to_be_bytes());
                    put(&mut expected, 24, [0, 0]);
                    let sum = checksum::checksum(&expected[14..34]);
                    put(&mut expected, 24, sum.to_be_bytes());
                }
                assert_eq!(*segment, expected, "segment {n}");
            }
            let (frame, load) = left(datagram(v6, &all), Some(KIND_UDP), 2_000);
            let cut: Vec<Vec<u8>> = (0..3).map_while(|n| load.segment(&frame, n)).collect();
            assert_eq!(cut.len(), 2);
            assert_eq!(cut[1][headers_of_udp(v6)..], all[2_000..]);
            if v6 {
                assert_eq!(cut[0], datagram(v6, &all[..2_000]));
            }
        }
    }

    fn headers_of_udp(v6: bool) -> usize {
        if v6 { 14 + 40 + 8 } else { 14 + 20 + 8 }
    }

    #[test]
    fn a_tag_moves_the_headers_and_changes_nothing_else() {
        let all = payload(2_500);
        for v6 in [false, true] {
            let (frame, load) = left(stream(v6, &all), Some(if v6 { 0x84 } else { 0x81 }), 1_000);
            let tagged = ethernet::tag(&frame, 5);
            let mut moved = load;
            let (partial, segments) = (moved.partial.as_mut(), moved.segments.as_mut());
            partial.unwrap().start += 4;
            segments.unwrap().header_bytes += 4;
            let parsed = Load::parse(&moved.emit(), &tagged[..128], tagged.len(), false);
            assert_eq!(parsed.unwrap(), moved);
            for number in 0..4 {
                let plain = load.segment(&frame, number);
                let plain = plain.map(|segment| ethernet::tag(&segment, 5));
                assert_eq!(moved.segment(&tagged, number), plain);
            }
        }
    }

    #[test]
    fn a_partial_checksum_follows_the_addresses() {
        let (mut frame, load) = left(stream(false, b"data"), None, 0);
        frame[29] = 99;
        load.renew(&mut frame);
        load.complete(&mut frame);
        let layers = Layers::of(&frame).unwrap();
        let sum = layers.pseudo_header(&frame, layers.l4_bytes(&frame));
        assert_eq!(
            checksum::fold(sum + checksum::sum(&frame[layers.l4..])),
            0xffff
        );
    }

    #[test]
    fn a_checksum_further_inside_is_completed_there_and_not_renewed() {
        // A datagram in a datagram, of which the inner checksum was left.
        let inner = datagram(false, b"inner");
        let frame = datagram(false, &inner);
        let start = headers_of_udp(false) + 34;
        let load = Load {
            partial: Some(Partial {
                start: length_u16(start),
                offset: 6,
            }),
            ..Load::NONE
        };
        let mut same = frame.clone();
        load.renew(&mut same);
        assert_eq!(same, frame);
        load.complete(&mut same);
        assert_eq!(same[..start + 6], frame[..start + 6]);
        assert_ne!(same[start + 6..start + 8], frame[start + 6..start + 8]);
    }

    #[test]
    fn headers_that_do_not_fit_their_frame_are_refused() {
        let frame = stream(false, &payload(3_000));
        let good = {
            let (_, load) = left(frame.clone(), Some(KIND_TCP_V4), 1_000);
            load.emit()
        };
        let parse = |spoil: fn(&mut [u8; HEADER_BYTES])| {
            let mut header = good;
            spoil(&mut header);
            Load::parse(&header, &frame[..128], frame.len(), false)
        };
        assert_eq!(parse(|_| ()).unwrap().emit(), good);
        let spoils: [fn(&mut [u8; HEADER_BYTES]); 10] = [
            |h| h[4..6].fill(0),
            |h| h[4..6].copy_from_slice(&[1, 0]),
            |h| h[6..8].fill(0xff),
            |h| h[8..10].fill(0xff),
            |h| h[6] = 13,
            |h| h[8] = 6,
            |h| h[0] = 0,
            |h| h[1] = KIND_TCP_V6,
            |h| h[1] = KIND_UDP,
            |h| h[1] = 3,
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            assert!(parse(spoil).is_err(), "case {number}");
        }
        // A fragment has no segments.
        let mut fragment = frame.clone();
        fragment[20] = 0x20;
        assert!(Load::parse(&good, &fragment, fragment.len(), false).is_err());
        assert!(
            parse(|h| h[0] |= FLAG_VALID).is_ok_and(|load| !load.valid),
            "not trusted"
        );
        assert!(
            Load::parse(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[], 0, true).is_ok_and(|load| load.valid)
        );
    }

    proptest! {
        /// Whatever header meets whatever frame, work on it stays inside and comes to an end.
        #[test]
        fn any_header_is_survived(
            header: [u8; HEADER_BYTES],
            noise in prop::collection::vec((0usize..120, any::<u8>()), 0..6),
            small in 1u16..2_000,
            v6: bool,
            bytes in 0usize..4_000,
            fitting: bool,
        ) {
            let mut frame = stream(v6, &payload(bytes));
            let mut header = header;
            if fitting {
                header = left(frame.clone(), Some(if v6 { 4 } else { 1 }), small.max(4)).1.emit();
            }
            for (at, byte) in noise {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            let head = frame.len().min(128);
            let Ok(load) = Load::parse(&header, &frame[..head], frame.len(), false) else {
                return Ok(());
            };
            prop_assert_eq!(Load::parse(&load.emit(), &frame[..head], frame.len(), false), Ok(load));
            let mut same = frame.clone();
            load.renew(&mut same);
            load.complete(&mut same);
            let cut = (0..=SEGMENTS_MAX).map_while(|n| load.segment(&frame, n)).count();
            prop_assert!(cut <= SEGMENTS_MAX);
        }
    }
}
