//! The names of the pipeline's stages. Their order is data in `dataplane/src/pipeline.rs`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One step of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Frame to headers; refuses what is malformed.
    Decode,
    /// Anti-spoofing by MAC, IP, ARP and ND; the built-in rules.
    PortSecurity,
    /// Answers ARP and ND for addresses that Weft knows.
    ArpNd,
    /// Hands DHCP, DHCPv6 and router solicitations to the agent.
    Dhcp,
    /// Exact lookup of an established packet's recorded transformation.
    Session,
    /// Egress rules of the source port (evaluated at a session miss).
    SecurityGroupEgress,
    /// Destination by MAC address on the same network.
    Bridge,
    /// Destination by IP address through a router; TTL; the router's own addresses.
    Router,
    /// SNAT to the gateway's address, floating IPs.
    Nat,
    /// Ingress rules of the destination port.
    SecurityGroupIngress,
    /// The network's MTU.
    Mtu,
    /// Rate limits and marks.
    Qos,
    /// Encapsulation towards another host.
    Tunnel,
    /// Out of the engine.
    Deliver,
}

impl Stage {
    /// The stage's name as it is written everywhere: `security_group_egress`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::PortSecurity => "port_security",
            Self::ArpNd => "arp_nd",
            Self::Dhcp => "dhcp",
            Self::Session => "session",
            Self::SecurityGroupEgress => "security_group_egress",
            Self::Bridge => "bridge",
            Self::Router => "router",
            Self::Nat => "nat",
            Self::SecurityGroupIngress => "security_group_ingress",
            Self::Mtu => "mtu",
            Self::Qos => "qos",
            Self::Tunnel => "tunnel",
            Self::Deliver => "deliver",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
