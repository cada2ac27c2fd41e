//! Frames in tunnels, as they were seen on the wire between hosts.

use anyhow::Result;
use std::net::IpAddr;
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_wire::{ethernet, geneve, gre, ipv4, ipv6, udp, vxlan};

/// A frame in a tunnel, as it was seen on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnelled {
    /// The sending host.
    pub from: IpAddr,
    /// The receiving host.
    pub to: IpAddr,
    /// The outer destination port: the kind of tunnel; 0 for GRE.
    pub destination_port: u16,
    /// The network's number.
    pub vni: u32,
    /// The outer source port.
    pub source_port: u16,
    /// TTL or hop limit of the outer header.
    pub outer_ttl: u8,
    /// The frame inside.
    pub frame: Vec<u8>,
}

impl Tunnelled {
    /// What a frame of the wire carries, if it is a VXLAN, GENEVE or GRE packet.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let link = ethernet::Frame::new_checked(frame).ok()?;
        let (from, to, outer_ttl, number, datagram): (IpAddr, IpAddr, u8, u8, &[u8]) = match link
            .ethertype()
        {
            ethernet::ethertype::IPV4 => {
                let packet = ipv4::Packet::new_checked(&frame[ethernet::HEADER_BYTES..]).ok()?;
                let (from, to) = (packet.source().into(), packet.destination().into());
                let start = ethernet::HEADER_BYTES + packet.header_bytes();
                (from, to, packet.ttl(), packet.protocol(), &frame[start..])
            }
            ethernet::ethertype::IPV6 => {
                let packet = ipv6::Packet::new_checked(&frame[ethernet::HEADER_BYTES..]).ok()?;
                let (from, to) = (packet.source().into(), packet.destination().into());
                let start = ethernet::HEADER_BYTES + ipv6::HEADER_BYTES;
                let (ttl, number) = (packet.hop_limit(), packet.next_header());
                (from, to, ttl, number, &frame[start..])
            }
            _ => return None,
        };
        if number == 47 {
            let packet = gre::Packet::new_checked(datagram).ok()?;
            return Some(Self {
                from,
                to,
                destination_port: 0,
                vni: packet.key(),
                source_port: 0,
                outer_ttl,
                frame: packet.payload().to_vec(),
            });
        }
        let header = (number == 17).then(|| udp::Datagram::new_checked(datagram).ok())??;
        let payload = &datagram[udp::HEADER_BYTES..];
        let (vni, frame) = match header.destination_port() {
            vxlan::UDP_PORT => {
                let packet = vxlan::Packet::new_checked(payload).ok()?;
                (packet.vni(), packet.payload().to_vec())
            }
            geneve::UDP_PORT => {
                let packet = geneve::Packet::new_checked(payload).ok()?;
                (packet.vni(), packet.payload().to_vec())
            }
            _ => return None,
        };
        Some(Self {
            from,
            to,
            destination_port: header.destination_port(),
            vni,
            source_port: header.source_port(),
            outer_ttl,
            frame,
        })
    }

    /// Both MAC addresses of the frame inside, as text: source, destination.
    #[must_use]
    pub fn macs(&self) -> (String, String) {
        let text = |mac: &[u8]| {
            let pairs: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.join(":")
        };
        let (destination, rest) = self.frame.split_at(self.frame.len().min(6));
        (text(&rest[..rest.len().min(6)]), text(destination))
    }

    /// Source, destination and TTL of the IP packet inside.
    #[must_use]
    pub fn ip(&self) -> Option<(IpAddr, IpAddr, u8)> {
        ends(&self.frame)
    }
}

/// Source, destination and TTL (hop limit) of the IP packet in a frame.
#[must_use]
pub fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr, u8)> {
    let link = ethernet::Frame::new_checked(frame).ok()?;
    let packet = &frame[ethernet::HEADER_BYTES..];
    match link.ethertype() {
        ethernet::ethertype::IPV4 => {
            let packet = ipv4::Packet::new_checked(packet).ok()?;
            let ends = (packet.source().into(), packet.destination().into());
            Some((ends.0, ends.1, packet.ttl()))
        }
        ethernet::ethertype::IPV6 => {
            let packet = ipv6::Packet::new_checked(packet).ok()?;
            let ends = (packet.source().into(), packet.destination().into());
            Some((ends.0, ends.1, packet.hop_limit()))
        }
        _ => None,
    }
}

/// All tunnelled frames between two addresses that were captured so far.
///
/// # Errors
/// The interface went away.
pub fn tunnelled(capture: &mut Capture, a: IpAddr, b: IpAddr) -> Result<Vec<Tunnelled>> {
    let mut found = Vec::new();
    let quiet = Duration::from_millis(100);
    capture.find(quiet, |frame| {
        let seen = Tunnelled::parse(frame);
        let ends = seen.as_ref().and_then(Tunnelled::ip);
        if ends.is_some_and(|(from, to, _)| [(a, b), (b, a)].contains(&(from, to))) {
            found.extend(seen);
        }
        false
    })?;
    Ok(found)
}
