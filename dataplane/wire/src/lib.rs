//! Packet formats: one protocol a file, each with a checked view over bytes and a `Repr` that can be emitted.
//!
//! Guarantees: a view that `new_checked` accepted never reads outside its bytes, whatever they hold; emitting what was
//! parsed gives a packet that parses to the same. Everything is computed from arguments: no I/O, no clock, no state.
//!
//! It does not decide what a packet is allowed to do (`weft-dataplane`), and knows no resource of the model: addresses
//! here are bytes and `std::net` types.

pub mod arp;
mod bytes;
pub mod checksum;
pub mod dhcp;
pub mod dhcpv6;
pub mod ethernet;
pub mod frame;
pub mod geneve;
pub mod gre;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndisc;
pub mod outer;
pub mod tcp;
pub mod translate;
pub mod udp;
pub mod virtio_net;
pub mod vxlan;

/// An IEEE 802 MAC-48 address as it stands in a frame.
pub type Mac = [u8; 6];

/// Bytes that are not what their place demands; the text says which check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {protocol}: expected {expected}")]
pub struct Malformed {
    /// The protocol whose header is wrong.
    pub protocol: &'static str,
    /// What should have been there.
    pub expected: &'static str,
}

impl Malformed {
    pub(crate) fn unless(
        good: bool,
        protocol: &'static str,
        expected: &'static str,
    ) -> Result<(), Self> {
        if good {
            Ok(())
        } else {
            Err(Self { protocol, expected })
        }
    }
}

/// IP protocol numbers (IANA) that this crate or the pipeline treats by name.
pub mod protocol {
    /// Hop-by-hop options (IPv6 extension header).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// GRE.
    pub const GRE: u8 = 47;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// Routing (IPv6 extension header).
    pub const ROUTING: u8 = 43;
    /// Fragment (IPv6 extension header).
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination options (IPv6 extension header).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}
