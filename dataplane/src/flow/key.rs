//! Where a packet came in, its tuple, and the key of a session's entry.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use weft_model::{NetworkId, PortId};

/// Where a frame enters, and, for the other direction, where it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ingress {
    /// A guest's port.
    Port(PortId),
    /// The uplink of a physical network.
    Network(NetworkId),
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(id) => write!(f, "port {id}"),
            Self::Network(id) => write!(f, "the uplink of network {id}"),
        }
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
        }
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
        } = self;
        write!(
            f,
            "protocol {protocol} {source}:{source_port} > {destination}:{destination_port}"
        )
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
