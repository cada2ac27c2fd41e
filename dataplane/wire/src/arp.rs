//! ARP for IPv4 over Ethernet (RFC 826). Other kinds of ARP are malformed here.

use crate::bytes::{get, ipv4_at, put, u16_at};
use crate::{Mac, Malformed};
use std::net::Ipv4Addr;

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 28;
/// Operation: who has?
pub const REQUEST: u16 = 1;
/// Operation: I have.
pub const REPLY: u16 = 2;

/// A checked view of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// Checks length, hardware type 1, protocol type 0x0800 and the lengths of the addresses.
    ///
    /// # Errors
    /// One of them is something else.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        Malformed::unless(b.len() >= PACKET_BYTES, "ARP", "28 bytes")?;
        let good = b[..6] == [0, 1, 8, 0, 6, 4];
        Malformed::unless(good, "ARP", "IPv4 addresses over Ethernet").map(|()| Self(bytes))
    }

    /// 1 request, 2 reply; hostile senders may write anything.
    #[must_use]
    pub fn operation(&self) -> u16 {
        u16_at(self.0.as_ref(), 6)
    }

    /// Sender hardware address.
    #[must_use]
    pub fn sender_mac(&self) -> Mac {
        get(self.0.as_ref(), 8)
    }

    /// Sender protocol address.
    #[must_use]
    pub fn sender_ip(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 14)
    }

    /// Target hardware address.
    #[must_use]
    pub fn target_mac(&self) -> Mac {
        get(self.0.as_ref(), 18)
    }

    /// Target protocol address.
    #[must_use]
    pub fn target_ip(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 24)
    }
}

/// A packet as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// The packet's fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        }
    }

    /// The packet's bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; PACKET_BYTES] {
        let mut b = [0; PACKET_BYTES];
        put(&mut b, 0, [0, 1, 8, 0, 6, 4]);
        put(&mut b, 6, self.operation.to_be_bytes());
        put(&mut b, 8, self.sender_mac);
        put(&mut b, 14, self.sender_ip.octets());
        put(&mut b, 18, self.target_mac);
        put(&mut b, 24, self.target_ip.octets());
        b
    }
}
