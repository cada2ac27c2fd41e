//! What the services did, as numbers that only grow.

use serde::{Deserialize, Serialize};

macro_rules! service_counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of the host's services since the agent started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct ServiceCounters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl ServiceCounters {
            /// Names, values and sentences, in order.
            pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64, &'static str)> {
                [$((stringify!($name), self.$name, concat!($($doc),*).trim_ascii()),)*].into_iter()
            }
        }
    };
}

service_counters! {
    /// DHCPOFFERs sent.
    dhcp_offers,
    /// DHCPACKs sent.
    dhcp_acks,
    /// DHCPNAKs sent: the client asked for an address that is not its port's.
    dhcp_naks,
    /// DHCPRELEASEs and DHCPDECLINEs taken note of.
    dhcp_releases,
    /// DHCP messages without an answer: malformed, relayed, for another server, or with another hardware address.
    dhcp_ignored,
    /// DHCPv6 messages answered.
    dhcpv6_answers,
    /// DHCPv6 messages without an answer: malformed, for another server, or such as RFC 8415 16 discards.
    dhcpv6_ignored,
    /// Router advertisements sent, solicited ones included.
    router_advertisements,
    /// Router advertisements sent because a guest solicited them.
    router_advertisements_solicited,
    /// ARP requests and neighbour solicitations sent.
    neighbour_probes,
    /// Neighbours learned, or learned anew with another MAC address.
    neighbours_learned,
    /// Neighbours forgotten because they did not answer any more.
    neighbours_lost,
    /// Frames that waited for a neighbour and were sent.
    neighbour_frames_sent,
    /// Frames that waited for a neighbour in vain, or found the queue full.
    neighbour_frames_dropped,
    /// Gratuitous ARP requests and unsolicited neighbour advertisements sent.
    announcements,
    /// Addresses of allowed address pairs that guests said are theirs, told to control.
    claims,
    /// ICMP errors sent.
    icmp_errors,
    /// ICMP errors not sent, as RFC 1812 4.3.2.7 and RFC 4443 2.4 (e) demand, or because no address of the router fits.
    icmp_errors_withheld,
    /// Frames of all services that could not be sent: the interface is missing, down or full.
    frames_unsent,
    /// Events above the rate that one port or network may ask.
    rate_limited,
    /// Events of a kind that no service answers.
    unanswered,
}
