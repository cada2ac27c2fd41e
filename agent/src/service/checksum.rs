//! The layer-4 checksum of frames that a guest left to its device (checksum offload): the agent sends them by a packet
//! socket, where no device does it.

use weft_wire::{checksum, ethernet, ethernet::ethertype, ipv4, ipv6, protocol};

/// Extension headers looked through.
const HEADERS_MAX: usize = weft_model::limits::IPV6_EXTENSION_HEADERS_MAX;

/// Writes the right TCP or UDP checksum into a whole frame; fragments and other protocols, which no device completes,
/// stay as they are, and so does UDP without a checksum in IPv4.
pub(super) fn complete(frame: &mut [u8]) {
    let Some((start, end, number, pseudo)) = segment(frame) else {
        return;
    };
    let at = start + if number == protocol::TCP { 16 } else { 6 };
    let Some(message) = frame.get_mut(start..end).filter(|_| at + 2 <= end) else {
        return;
    };
    let field = at - start..at - start + 2;
    if number == protocol::UDP && pseudo.0.is_ipv4() && message[field.clone()] == [0, 0] {
        return;
    }
    message[field.clone()].fill(0);
    let sum = match checksum::transport(pseudo.0, pseudo.1, number, message) {
        0 if number == protocol::UDP => 0xffff,
        sum => sum,
    };
    message[field].copy_from_slice(&sum.to_be_bytes());
}

type Addresses = (std::net::IpAddr, std::net::IpAddr);

/// Where a TCP or UDP segment starts and ends in the frame, its protocol and addresses.
fn segment(frame: &[u8]) -> Option<(usize, usize, u8, Addresses)> {
    const L3: usize = ethernet::HEADER_BYTES;
    let ethernet = ethernet::Frame::new_checked(frame).ok()?;
    let found = match ethernet.ethertype() {
        ethertype::IPV4 => {
            let packet = ipv4::Packet::new_checked(ethernet.payload()).ok()?;
            if packet.fragment_offset() != 0 || packet.more_fragments() {
                return None;
            }
            let addresses = (packet.source().into(), packet.destination().into());
            let (start, end) = (packet.header_bytes(), packet.total_length());
            (L3 + start, L3 + end, packet.protocol(), addresses)
        }
        ethertype::IPV6 => {
            let packet = ipv6::Packet::new_checked(ethernet.payload()).ok()?;
            let upper = packet.upper_layer(HEADERS_MAX).ok()?;
            if upper.fragment.is_some() {
                return None;
            }
            let addresses = (packet.source().into(), packet.destination().into());
            let behind = L3 + ipv6::HEADER_BYTES;
            let end = behind + packet.payload_length();
            (behind + upper.offset, end, upper.protocol, addresses)
        }
        _ => return None,
    };
    matches!(found.2, protocol::TCP | protocol::UDP).then_some(found)
}
