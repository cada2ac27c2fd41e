//! Tunnels: which one leads to a host, what is put around a frame, and what is taken out. docs/pipeline.md, section 7.
//!
//! Guarantees: nothing comes out of a tunnel but from a host of the cloud, for a network of this host. Assumes nothing of what
//! comes in; what goes out has passed the MTU. Cost: a search for the network.

use crate::flow::key::Tuple;
use crate::flow::session::Tunnel;
use crate::mutant::Mutant;
use std::net::IpAddr;
use weft_model::{DropReason, HostName, HostSnapshot, NetworkId, NetworkType};
use weft_wire::ethernet::ethertype;
use weft_wire::{ethernet, geneve, gre, ipv4, ipv6, protocol, udp, vxlan};

/// The first of the source ports that spread flows over the underlay's paths.
const SOURCE_PORT_FIRST: u16 = 49_152;
/// How many there are.
const SOURCE_PORTS: u32 = 16_384;
/// TTL or hop limit of the outer header.
const TTL: u8 = 64;
/// What a frame from the underlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer<'a> {
    /// Not Weft's.
    Pass,
    /// A frame of this network; of a physical one, from its transit.
    Inner(NetworkId, &'a [u8]),
}

/// The tunnel of a network to a host, if there is one.
#[must_use]
pub fn to_host(snapshot: &HostSnapshot, network_id: NetworkId, host: &HostName) -> Option<Tunnel> {
    let network = snapshot.networks.get(&network_id)?;
    let kind = network.segment.network_type;
    let tunnelled = matches!(
        kind,
        NetworkType::Vxlan | NetworkType::Geneve | NetworkType::Gre
    );
    let vni = network.segment.segmentation_id.filter(|_| tunnelled)?;
    let (local, remote) = (
        snapshot.tunnel_ip()?,
        snapshot.tunnel_hosts.get(host)?.tunnel_ip,
    );
    (local.is_ipv6() == remote.is_ipv6()).then_some(Tunnel {
        network_id,
        kind,
        vni,
        local,
        remote,
        mtu: network.mtu,
    })
}

/// The tunnel of a physical network's transit to a host, if there is one.
#[must_use]
pub fn transit_to_host(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    host: &HostName,
) -> Option<Tunnel> {
    let transit = snapshot.networks.get(&network_id)?.transit?;
    let (local, remote) = (
        snapshot.tunnel_ip()?,
        snapshot.tunnel_hosts.get(host)?.tunnel_ip,
    );
    (local.is_ipv6() == remote.is_ipv6()).then_some(Tunnel {
        network_id,
        kind: NetworkType::Vxlan,
        vni: transit.vni,
        local,
        remote,
        mtu: transit.mtu,
    })
}

/// What tells the flow of a tuple apart in the underlay: UDP's source port, or IPv6's flow label.
#[must_use]
pub fn entropy(tuple: Tuple) -> u16 {
    SOURCE_PORT_FIRST + u16::try_from(tuple.hash() % SOURCE_PORTS).unwrap_or_default()
}

/// The frame with its outer headers; both outer MACs are zero. `tuple` is the frame's.
#[must_use]
pub fn encapsulate(frame: &[u8], tunnel: &Tunnel, tuple: Tuple, mutant: Option<Mutant>) -> Vec<u8> {
    let vni = if mutant == Some(Mutant::TunnelVni) {
        tunnel.vni ^ 1
    } else {
        tunnel.vni
    };
    let entropy = entropy(tuple);
    let datagram = |destination_port, payload: &[u8]| {
        let header = udp::Repr {
            source_port: entropy,
            destination_port,
        };
        (protocol::UDP, header.emit_without_checksum(payload))
    };
    let (number, payload) = match tunnel.kind {
        NetworkType::Gre => (protocol::GRE, gre::Repr { key: vni }.emit(frame)),
        NetworkType::Geneve => {
            let options = Vec::new();
            let header = geneve::Repr { vni, options };
            datagram(geneve::UDP_PORT, &header.emit(frame))
        }
        _ => datagram(vxlan::UDP_PORT, &vxlan::Repr { vni }.emit(frame)),
    };
    let (kind, packet) = match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = ipv4::Repr {
                ttl: TTL,
                dont_fragment: true,
                ..ipv4::Repr::new(source, destination, number)
            };
            (ethertype::IPV4, header.emit(&payload))
        }
        (local, remote) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(a) => a.to_ipv6_mapped(),
                IpAddr::V6(a) => a,
            };
            let header = ipv6::Repr {
                source: v6(local),
                destination: v6(remote),
                next_header: number,
                hop_limit: TTL,
            };
            // UDP has its port for that.
            let labelled = tunnel.kind == NetworkType::Gre;
            let label = if labelled { u32::from(entropy) } else { 0 };
            (ethertype::IPV6, header.emit_labelled(&payload, label))
        }
    };
    let link = ethernet::Repr {
        destination: [0; 6],
        source: [0; 6],
        ethertype: kind,
    };
    link.emit(&packet)
}

/// The outer header as far as it says whether it is Weft's.
struct Addressed<'a> {
    source: IpAddr,
    destination: IpAddr,
    /// UDP or GRE.
    protocol: u8,
    /// Bytes of the IP payload, as its header says.
    payload_bytes: usize,
    /// UDP or GRE and what is behind it, to the frame's end.
    datagram: &'a [u8],
}

impl<'a> Addressed<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let link = ethernet::Frame::new_checked(frame).ok()?;
        let packet = frame.get(ethernet::HEADER_BYTES..)?;
        match link.ethertype() {
            ethertype::IPV4 => {
                let header = ipv4::Packet::new_header_checked(packet).ok()?;
                let whole = header.fragment_offset() == 0 && !header.more_fragments();
                let plain = header.header_bytes() == ipv4::HEADER_BYTES_MIN && whole;
                (plain && carries_tunnels(header.protocol())).then(|| Self {
                    source: header.source().into(),
                    destination: header.destination().into(),
                    protocol: header.protocol(),
                    payload_bytes: header.total_length().saturating_sub(ipv4::HEADER_BYTES_MIN),
                    datagram: &packet[ipv4::HEADER_BYTES_MIN..],
                })
            }
            ethertype::IPV6 => {
                let header = ipv6::Packet::new_header_checked(packet).ok()?;
                carries_tunnels(header.next_header()).then(|| Self {
                    source: header.source().into(),
                    destination: header.destination().into(),
                    protocol: header.next_header(),
                    payload_bytes: header.payload_length(),
                    datagram: &packet[ipv6::HEADER_BYTES..],
                })
            }
            _ => None,
        }
    }
}

fn carries_tunnels(number: u8) -> bool {
    matches!(number, protocol::UDP | protocol::GRE)
}

impl Addressed<'_> {
    /// The kind of tunnel that it may belong to.
    fn kind(&self) -> Option<NetworkType> {
        if self.protocol == protocol::GRE {
            return gre::is_keyed_ethernet(self.datagram).then_some(NetworkType::Gre);
        }
        let datagram = udp::Datagram::new_checked(self.datagram).ok()?;
        match datagram.destination_port() {
            vxlan::UDP_PORT => Some(NetworkType::Vxlan),
            geneve::UDP_PORT => Some(NetworkType::Geneve),
            _ => None,
        }
    }

    /// Bytes in front of the frame inside, the network's number, and whether there is an option that must be known.
    fn header(&self, kind: NetworkType) -> Result<(usize, u32, bool), DropReason> {
        let malformed = |_cut| DropReason::TunnelMalformed;
        if kind == NetworkType::Gre {
            let packet = gre::Packet::new_checked(self.datagram).map_err(malformed)?;
            return Ok((gre::HEADER_BYTES, packet.key(), false));
        }
        let datagram = udp::Datagram::new_checked(self.datagram).map_err(malformed)?;
        let (bytes, vni, critical) = header_of(kind, &self.datagram[udp::HEADER_BYTES..])?;
        let headers = udp::HEADER_BYTES + bytes;
        let length = datagram.length();
        if length < headers + ethernet::HEADER_BYTES || length > self.payload_bytes {
            return Err(DropReason::TunnelMalformed);
        }
        Ok((headers, vni, critical))
    }
}

/// What a frame from the underlay carries.
///
/// # Errors
/// The reason to drop it: it is for this host's tunnels, and nothing that they take.
pub fn decapsulate<'a>(
    snapshot: &HostSnapshot,
    frame: &'a [u8],
    mutant: Option<Mutant>,
) -> Result<Outer<'a>, DropReason> {
    let Some(outer) = Addressed::parse(frame) else {
        return Ok(Outer::Pass);
    };
    let Some(kind) = outer.kind() else {
        return Ok(Outer::Pass);
    };
    if snapshot.tunnel_ip() != Some(outer.destination) {
        return Ok(Outer::Pass);
    }
    let mut others = snapshot
        .tunnel_hosts
        .iter()
        .filter(|(host, _)| **host != snapshot.host);
    let known = others.any(|(_, host)| host.tunnel_ip == outer.source);
    if !known && mutant != Some(Mutant::TunnelSender) {
        return Err(DropReason::TunnelSenderUnknown);
    }
    let (headers, vni, critical) = outer.header(kind)?;
    if outer.payload_bytes < headers + ethernet::HEADER_BYTES
        || outer.payload_bytes > outer.datagram.len()
    {
        return Err(DropReason::TunnelMalformed);
    }
    if critical {
        return Err(DropReason::TunnelOptionUnknown);
    }
    let network = snapshot.networks.iter().find(|(_, network)| {
        let transit = network.transit.map(|transit| transit.vni) == Some(vni);
        (network.segment.network_type == kind && network.segment.segmentation_id == Some(vni))
            || (kind == NetworkType::Vxlan && transit)
    });
    let (id, _) = network.ok_or(DropReason::TunnelNetworkUnknown)?;
    let inner = &outer.datagram[headers..];
    let link = ethernet::Frame::new_checked(inner).map_err(|_cut| DropReason::TunnelMalformed)?;
    if link.ethertype() == ethertype::ARP {
        return Err(DropReason::ArpIgnored);
    }
    Ok(Outer::Inner(*id, inner))
}

/// Bytes and VNI of a tunnel's header, and whether it has an option that must be known.
fn header_of(kind: NetworkType, bytes: &[u8]) -> Result<(usize, u32, bool), DropReason> {
    let malformed = |_cut| DropReason::TunnelMalformed;
    if kind == NetworkType::Geneve {
        let packet = geneve::Packet::new_checked(bytes).map_err(malformed)?;
        let critical = packet.has_critical_option();
        return Ok((packet.header_bytes(), packet.vni(), critical));
    }
    let packet = vxlan::Packet::new_checked(bytes).map_err(malformed)?;
    Ok((vxlan::HEADER_BYTES, packet.vni(), false))
}
