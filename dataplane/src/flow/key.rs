//! Where a packet came in, its tuple, and the key of a session's entry.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use weft_model::{NetworkId, PortId};

/// Where a frame enters, and, for the other direction, where it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ingress {
    /// A guest's port.
    Port(PortId),
    /// The uplink of a physical network, or the tunnel of another. Where a frame enters an engine, it is the interface
    /// that the network's physical network is mapped to: the frame's tag says which of the networks there it is of.
    Network(NetworkId),
    /// The interface towards other hosts, before anything is taken out of its tunnel. No session has it.
    Underlay,
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(id) => write!(f, "port {id}"),
            Self::Network(id) => write!(f, "the uplink or tunnel of network {id}"),
            Self::Underlay => f.write_str("the underlay"),
        }
    }
}

/// The VLAN that guests of a transparent network are in by tags of their own, 1 to 4094; 0: none.
/// docs/pipeline.md, "Guests' own tags".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct GuestVlan(pub u16);

impl GuestVlan {
    /// Set beside the VLAN's number for what members of the VLAN tell each other of their neighbours.
    const NEIGHBOUR: u16 = 1 << 12;

    /// No tag.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Whether the packet is ARP, ND or MLD within a VLAN: no rule is asked for it.
    #[must_use]
    pub fn is_neighbour(self) -> bool {
        self.0 & Self::NEIGHBOUR != 0
    }

    /// The same of such a packet.
    #[must_use]
    pub fn neighbour(self) -> Self {
        Self(self.0 | Self::NEIGHBOUR)
    }
}

/// What identifies a flow on one link: docs/pipeline.md, section 1. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// IP protocol; in IPv6 that of the upper layer.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Source port, or the identifier of an ICMP query.
    pub source_port: u16,
    /// Destination port, or the identifier of an ICMP reply.
    pub destination_port: u16,
    /// The VLAN that its guests are in by tags of their own.
    #[serde(default, skip_serializing_if = "GuestVlan::is_none")]
    pub vlan: GuestVlan,
}

impl Tuple {
    /// The tuple of the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            vlan: self.vlan,
        }
    }

    /// A number made of it: docs/pipeline.md, "SNAT's port" and section 7.
    #[must_use]
    pub fn hash(self) -> u32 {
        let mut words = vec![u32::from(self.protocol)];
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(a) => words.push(u32::from(a)),
                IpAddr::V6(a) => {
                    let pairs = a.segments();
                    let pairs = pairs.chunks_exact(2);
                    words.extend(pairs.map(|p| u32::from(p[0]) << 16 | u32::from(p[1])));
                }
            }
        }
        words.push(u32::from(self.source_port) << 16 | u32::from(self.destination_port));
        words.into_iter().fold(0x9e37_79b9_u32, |h, w| {
            let h = (h ^ w).wrapping_mul(0x85eb_ca6b);
            h ^ (h >> 13)
        })
    }

    /// Whether the family is IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        self.source.is_ipv6()
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            source,
            destination,
            source_port,
            destination_port,
            vlan,
        } = self;
        let from = SocketAddr::new(*source, *source_port);
        let to = SocketAddr::new(*destination, *destination_port);
        if !vlan.is_none() {
            write!(f, "VLAN {} ", vlan.0 & !GuestVlan::NEIGHBOUR)?;
        }
        write!(f, "protocol {protocol} {from} > {to}")
    }
}

/// The key of one entry of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// Where its packets enter.
    pub ingress: Ingress,
    /// What they carry.
    pub tuple: Tuple,
}
