//! Why a packet died. One enum for all engines; the number is the index of the counter in the kernel's maps and
//! must never change its meaning. Every reason has a counter, a sentence (here, and so in `weft stats` and the
//! docs) and a vector in tests/vectors.

use crate::Stage;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! drop_reasons {
    ($($number:literal $variant:ident $name:literal $stage:ident $sentence:literal;)*) => {
        /// Why a packet died. See the module's text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] #[serde(rename = $name)] $variant = $number,)*
        }

        impl DropReason {
            /// All reasons, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name as counters, traces and vectors write it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The stage that dropped.
            #[must_use]
            pub fn stage(self) -> Stage {
                match self { $(Self::$variant => Stage::$stage,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }

            /// The reason with this number.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

drop_reasons! {
    1 Malformed "malformed" Decode "The frame is shorter than its headers say, or a header is not valid.";
    2 VlanUnexpected "vlan_unexpected" Decode "The guest sent a tag where its port is no trunk and its network not VLAN-transparent, a second one, or one of 802.1ad.";
    3 EthertypeUnsupported "ethertype_unsupported" Decode "The frame is neither IPv4, IPv6 nor ARP.";
    4 Ipv6ExtensionHeaders "ipv6_extension_headers" Decode "More IPv6 extension headers than the limit, or a routing header of type 0 (RFC 5095).";
    5 PortDown "port_down" PortSecurity "The port is administratively down.";
    6 SpoofedMac "spoofed_mac" PortSecurity "The source MAC address is neither the port's nor one of its allowed address pairs'.";
    7 SpoofedIp "spoofed_ip" PortSecurity "The source IP address is neither one of the port's nor one of its allowed address pairs'.";
    8 SpoofedArp "spoofed_arp" PortSecurity "The ARP sender's hardware or protocol address is not the port's.";
    9 SpoofedNd "spoofed_nd" PortSecurity "The neighbour advertisement or solicitation speaks for an address that is not the port's.";
    10 RogueRa "rogue_ra" PortSecurity "The guest sent a router advertisement or redirect.";
    11 RogueDhcp "rogue_dhcp" PortSecurity "The guest sent a DHCP or DHCPv6 server's message.";
    12 ArpUnanswered "arp_unanswered" ArpNd "No address of the network that Weft knows is meant: the ARP request has no answer here.";
    13 NdUnanswered "nd_unanswered" ArpNd "No address of the network that Weft knows is meant: the neighbour solicitation has no answer here.";
    14 ArpIgnored "arp_ignored" ArpNd "An ARP packet that needs no answer: a reply, an announcement, or a probe for the sender's own address.";
    15 NdIgnored "nd_ignored" ArpNd "An ND or MLD packet that needs no answer: an advertisement, a report, or a probe for the sender's own address.";
    16 ServiceRateLimit "service_rate_limit" Dhcp "The port asked the host's services (DHCP, RA, ICMP errors) more often than it may.";
    17 ServiceOff "service_off" Dhcp "DHCP or router advertisement is not enabled on the port's subnets.";
    18 FragmentUnknown "fragment_unknown" Session "A later fragment of an IP packet whose first fragment was not seen.";
    19 TcpNoSession "tcp_no_session" Session "A TCP segment other than a SYN, and no session that it belongs to.";
    20 IcmpNoSession "icmp_no_session" Session "An ICMP reply or error without a session that it belongs to, or an ICMP message that is no query.";
    21 SessionQuota "session_quota" Session "The port holds as many sessions as it may.";
    22 SessionTableFull "session_table_full" Session "The host's session table is full.";
    23 SessionRevoked "session_revoked" Session "The policy or topology changed and the session's translation no longer holds.";
    24 SecurityGroupEgressDenied "security_group_egress_denied" SecurityGroupEgress "No egress rule of the port's security groups allows it.";
    25 SecurityGroupIngressDenied "security_group_ingress_denied" SecurityGroupIngress "No ingress rule of the destination's security groups allows it.";
    26 DestinationMacUnknown "destination_mac_unknown" Bridge "No port or router on the network has the destination MAC address.";
    27 MulticastUnsupported "multicast_unsupported" Bridge "A multicast or broadcast IP packet on a network with more ports and hosts than it is copied to.";
    28 DestinationPortDown "destination_port_down" Bridge "The destination port is down or its interface is missing.";
    29 RouterDown "router_down" Router "The router is administratively down.";
    30 TtlExceeded "ttl_exceeded" Router "The TTL or hop limit ran out at the router.";
    31 NoRoute "no_route" Router "The router has no route to the destination.";
    32 NeighbourUnknown "neighbour_unknown" Router "No port on the destination's subnet has the destination address.";
    33 NeighbourUnresolved "neighbour_unresolved" Router "The next hop on the physical network did not answer ARP or ND yet.";
    34 RouterLocalUnsupported "router_local_unsupported" Router "The packet is for the router itself, which answers only echo requests.";
    35 LinkLocalNotRouted "link_local_not_routed" Router "A link-local, multicast, loopback or unspecified address does not pass a router (RFC 4291 2.5.6, RFC 1812 5.3.7).";
    36 NatPortsExhausted "nat_ports_exhausted" Nat "No free port on the gateway's address for this destination.";
    37 NatNoSession "nat_no_session" Nat "A packet to the gateway's own address, or to a port of a floating IP that is not forwarded, that belongs to no session.";
    38 NatPrivateDestination "nat_private_destination" Nat "From outside to an internal IPv4 address behind a router with SNAT.";
    40 MtuExceeded "mtu_exceeded" Mtu "The packet is larger than the MTU of the network that it is routed to.";
    41 QosRateLimit "qos_rate_limit" Qos "Above the rate of the QoS policy.";
    42 TunnelUnsupported "tunnel_unsupported" Tunnel "The destination lives on another host and there is no tunnel to it: the network is local, or one of the two hosts has no tunnel address of the other's family.";
    43 UplinkMissing "uplink_missing" Deliver "The physical network is mapped to no interface of this host.";
    44 EngineError "engine_error" Deliver "The engine failed: a kernel helper refused, or a map is inconsistent. A bug, or no memory.";
    45 RogueSource "rogue_source" PortSecurity "From outside with a source address that only this side may use: the router's own, a floating IP of this host, or a loopback, multicast or unspecified address.";
    46 GuestQueueFull "guest_queue_full" Deliver "The guest takes no more frames: its receive queue is full, or its buffers are too short for the frame.";
    47 TunnelSenderUnknown "tunnel_sender_unknown" Tunnel "A tunnelled packet from an address of the underlay that is no host of this cloud.";
    48 TunnelMalformed "tunnel_malformed" Tunnel "A tunnelled packet whose outer headers are cut or contradict each other.";
    49 TunnelNetworkUnknown "tunnel_network_unknown" Tunnel "A tunnelled packet for a network that this host has nothing to do with.";
    50 TunnelOptionUnknown "tunnel_option_unknown" Tunnel "A GENEVE packet with an option that its sender calls critical and that is not known here.";
    51 MulticastRateLimit "multicast_rate_limit" Bridge "Multicast and broadcast IP packets above the number of copies that one port may cause in a second.";
    52 VlanUnknown "vlan_unknown" Decode "The guest sent an 802.1Q tag that no subport of its trunk has.";
    53 PvlanIsolated "pvlan_isolated" Bridge "The two ports of the network are kept apart: one is isolated, or they are of different communities.";
    56 NdpProxyUnknown "ndp_proxy_unknown" Router "From outside to an IPv6 address behind a router with NDP proxies, none of which is for it.";
    57 AddressScopeMismatch "address_scope_mismatch" Router "Routed without translation from a network to one of another address scope.";
}

impl DropReason {
    /// The number, 1 to 63: 0 means "not dropped" in the kernel's records.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_fit_the_counter_table() {
        let numbers: BTreeSet<u8> = DropReason::ALL.iter().map(|r| r.number()).collect();
        let names: BTreeSet<&str> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(numbers.len(), DropReason::ALL.len());
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(
            numbers
                .iter()
                .all(|n| (1..crate::limits::DROP_REASONS_MAX).contains(&usize::from(*n)))
        );
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(reason.number()), Some(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }
}
