//! DHCPv4 messages (RFC 2131 2) from a client with an Ethernet address, and their options (RFC 2132, RFC 3396).
//!
//! Views start at the `op` field, behind the UDP header. Options in the `file` and `sname` fields (option 52) are not
//! looked for: only servers put them there.

use crate::bytes::{get, ipv4_at, put, u16_at, u32_at};
use crate::{Mac, Malformed};
use std::net::Ipv4Addr;

/// Bytes up to and with the magic cookie.
pub const FIXED_BYTES: usize = 240;
/// A BOOTP message's smallest size (RFC 951, RFC 1542 2.1); shorter ones are padded.
pub const MESSAGE_BYTES_MIN: usize = 300;
/// UDP port of servers.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// `op` of a client's message.
pub const REQUEST: u8 = 1;
/// `op` of a server's message.
pub const REPLY: u8 = 2;
/// The flag by which a client asks for an answer to all.
pub const FLAG_BROADCAST: u16 = 0x8000;

const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// Message types (option 53).
pub mod message_type {
    /// DHCPDISCOVER.
    pub const DISCOVER: u8 = 1;
    /// DHCPOFFER.
    pub const OFFER: u8 = 2;
    /// DHCPREQUEST.
    pub const REQUEST: u8 = 3;
    /// DHCPDECLINE.
    pub const DECLINE: u8 = 4;
    /// DHCPACK.
    pub const ACK: u8 = 5;
    /// DHCPNAK.
    pub const NAK: u8 = 6;
    /// DHCPRELEASE.
    pub const RELEASE: u8 = 7;
    /// DHCPINFORM.
    pub const INFORM: u8 = 8;
}

/// Options by number (RFC 2132, and as named).
pub mod option {
    /// Subnet mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers.
    pub const ROUTER: u8 = 3;
    /// Domain name servers.
    pub const DNS_SERVER: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Domain name.
    pub const DOMAIN_NAME: u8 = 15;
    /// Interface MTU.
    pub const MTU: u8 = 26;
    /// Broadcast address.
    pub const BROADCAST: u8 = 28;
    /// Requested IP address.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// IP address lease time.
    pub const LEASE_TIME: u8 = 51;
    /// Message type.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier.
    pub const SERVER_ID: u8 = 54;
    /// Parameter request list.
    pub const REQUEST_LIST: u8 = 55;
    /// An error's text.
    pub const MESSAGE: u8 = 56;
    /// Maximum DHCP message size.
    pub const MESSAGE_BYTES_MAX: u8 = 57;
    /// Renewal time, T1.
    pub const RENEWAL_TIME: u8 = 58;
    /// Rebinding time, T2.
    pub const REBINDING_TIME: u8 = 59;
    /// Client identifier.
    pub const CLIENT_ID: u8 = 61;
    /// Relay agent information (RFC 3046).
    pub const RELAY_AGENT: u8 = 82;
    /// Classless static routes (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The same as Windows asked for it before RFC 3442.
    pub const CLASSLESS_ROUTES_MICROSOFT: u8 = 249;
    /// End of the options.
    pub const END: u8 = 255;
}

/// A checked view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<T>(T);

impl<T: AsRef<[u8]>> Message<T> {
    /// Checks the length, the magic cookie, and that the client's hardware address is an Ethernet one.
    ///
    /// # Errors
    /// One of them is something else.
    pub fn new_checked(bytes: T) -> Result<Self, Malformed> {
        let b = bytes.as_ref();
        Malformed::unless(b.len() >= FIXED_BYTES, "DHCP", "at least 240 bytes")?;
        Malformed::unless(b[236..FIXED_BYTES] == COOKIE, "DHCP", "the magic cookie")?;
        let good = b[1..3] == [1, 6];
        Malformed::unless(good, "DHCP", "an Ethernet address of 6 bytes").map(|()| Self(bytes))
    }

    /// [`REQUEST`] or [`REPLY`]; hostile senders may write anything.
    #[must_use]
    pub fn operation(&self) -> u8 {
        self.0.as_ref()[0]
    }

    /// Transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> u32 {
        u32_at(self.0.as_ref(), 4)
    }

    /// Flags, such as [`FLAG_BROADCAST`].
    #[must_use]
    pub fn flags(&self) -> u16 {
        u16_at(self.0.as_ref(), 10)
    }

    /// `ciaddr`: the address that the client holds.
    #[must_use]
    pub fn client_address(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 12)
    }

    /// `yiaddr`: the address that the server gives.
    #[must_use]
    pub fn your_address(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 16)
    }

    /// `siaddr`: the next server to boot from.
    #[must_use]
    pub fn next_server(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 20)
    }

    /// `giaddr`: the relay.
    #[must_use]
    pub fn relay_address(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 24)
    }

    /// `chaddr`.
    #[must_use]
    pub fn client_mac(&self) -> Mac {
        get(self.0.as_ref(), 28)
    }

    /// Number and body of each option, pads skipped. Ends at the end option or the first one that is malformed.
    pub fn options(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut bytes = &self.0.as_ref()[FIXED_BYTES..];
        std::iter::from_fn(move || {
            while let Some((0, rest)) = bytes.split_first() {
                bytes = rest;
            }
            let number = *bytes.first()?;
            let length = usize::from(*bytes.get(1)?);
            if number == option::END {
                return None;
            }
            let body = bytes.get(2..2 + length)?;
            bytes = &bytes[2 + length..];
            Some((number, body))
        })
    }

    /// The first option of a number, if it is there.
    #[must_use]
    pub fn option(&self, number: u8) -> Option<&[u8]> {
        self.options().find(|(n, _)| *n == number).map(|(_, b)| b)
    }

    /// The first option of a number that has exactly so many bytes.
    #[must_use]
    pub fn option_of<const N: usize>(&self, number: u8) -> Option<[u8; N]> {
        self.option(number)?.try_into().ok()
    }

    /// The message type; none without one.
    #[must_use]
    pub fn message_type(&self) -> Option<u8> {
        self.option_of::<1>(option::MESSAGE_TYPE).map(|[kind]| kind)
    }
}

/// The fixed fields as a value; what is not here is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// [`REQUEST`] or [`REPLY`].
    pub operation: u8,
    /// Transaction id.
    pub transaction_id: u32,
    /// Flags.
    pub flags: u16,
    /// `ciaddr`.
    pub client_address: Ipv4Addr,
    /// `yiaddr`.
    pub your_address: Ipv4Addr,
    /// `siaddr`.
    pub next_server: Ipv4Addr,
    /// `giaddr`.
    pub relay_address: Ipv4Addr,
    /// `chaddr`.
    pub client_mac: Mac,
}

impl Repr {
    /// The message's fixed fields.
    #[must_use]
    pub fn parse<T: AsRef<[u8]>>(message: &Message<T>) -> Self {
        Self {
            operation: message.operation(),
            transaction_id: message.transaction_id(),
            flags: message.flags(),
            client_address: message.client_address(),
            your_address: message.your_address(),
            next_server: message.next_server(),
            relay_address: message.relay_address(),
            client_mac: message.client_mac(),
        }
    }

    /// The message with these options (bytes as [`push_option`] writes them; the end is appended), padded to
    /// [`MESSAGE_BYTES_MIN`].
    #[must_use]
    pub fn emit(&self, options: &[u8]) -> Vec<u8> {
        let mut b = vec![0; FIXED_BYTES];
        put(&mut b, 0, [self.operation, 1, 6, 0]);
        put(&mut b, 4, self.transaction_id.to_be_bytes());
        put(&mut b, 10, self.flags.to_be_bytes());
        put(&mut b, 12, self.client_address.octets());
        put(&mut b, 16, self.your_address.octets());
        put(&mut b, 20, self.next_server.octets());
        put(&mut b, 24, self.relay_address.octets());
        put(&mut b, 28, self.client_mac);
        put(&mut b, 236, COOKIE);
        b.extend(options);
        b.push(option::END);
        let bytes = b.len().max(MESSAGE_BYTES_MIN);
        b.resize(bytes, 0);
        b
    }
}

/// Appends an option, in pieces of at most 255 bytes (RFC 3396).
pub fn push_option(options: &mut Vec<u8>, number: u8, body: &[u8]) {
    for piece in body.chunks(255) {
        options.push(number);
        options.extend(u8::try_from(piece.len()));
        options.extend(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repr() -> Repr {
        Repr {
            operation: REPLY,
            transaction_id: 0xdead_beef,
            flags: FLAG_BROADCAST,
            client_address: [192, 0, 2, 1].into(),
            your_address: [192, 0, 2, 2].into(),
            next_server: [192, 0, 2, 3].into(),
            relay_address: [192, 0, 2, 4].into(),
            client_mac: [2, 0, 0, 0, 0, 1],
        }
    }

    #[test]
    fn what_is_emitted_parses_to_the_same() {
        let mut options = Vec::new();
        push_option(&mut options, option::MESSAGE_TYPE, &[message_type::OFFER]);
        push_option(&mut options, option::CLASSLESS_ROUTES, &[7; 300]);
        let bytes = repr().emit(&options);
        let message = Message::new_checked(&bytes).unwrap();
        assert_eq!(Repr::parse(&message), repr());
        assert_eq!(message.message_type(), Some(message_type::OFFER));
        let lengths: Vec<usize> = message.options().map(|(_, body)| body.len()).collect();
        assert_eq!(lengths, [1, 255, 45]);
        assert_eq!(repr().emit(&[]).len(), MESSAGE_BYTES_MIN);
    }

    #[test]
    fn what_is_malformed_is_refused_or_ends_the_options() {
        let good = repr().emit(&[]);
        assert!(Message::new_checked(&good[..239]).is_err());
        for (at, byte) in [(1, 6), (2, 16), (236, 0)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Message::new_checked(&bad).is_err(), "byte {at}");
        }
        let mut cut = repr().emit(&[0, 0, 53, 1, 1, 50, 4, 1, 2]);
        cut.truncate(FIXED_BYTES + 9);
        let message = Message::new_checked(&cut).unwrap();
        assert_eq!(
            message.options().count(),
            1,
            "pads skipped, the cut one not read"
        );
        assert_eq!(message.option_of::<4>(option::MESSAGE_TYPE), None);
    }
}
