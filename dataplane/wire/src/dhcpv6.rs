//! DHCPv6 messages between client and server (RFC 8415 8) and their options. Relays' messages are malformed here.
//!
//! Views start at the `msg-type` field, behind the UDP header.

use crate::Malformed;
use crate::bytes::{get, u16_at};

/// Bytes in front of the options.
pub const HEADER_BYTES: usize = 4;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 546;
/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 547;

/// Message types (RFC 8415 7.3).
pub mod message_type {
    /// SOLICIT.
    pub const SOLICIT: u8 = 1;
    /// ADVERTISE.
    pub const ADVERTISE: u8 = 2;
    /// REQUEST.
    pub const REQUEST: u8 = 3;
    /// CONFIRM.
    pub const CONFIRM: u8 = 4;
    /// RENEW.
    pub const RENEW: u8 = 5;
    /// REBIND.
    pub const REBIND: u8 = 6;
    /// REPLY.
    pub const REPLY: u8 = 7;
    /// RELEASE.
    pub const RELEASE: u8 = 8;
    /// DECLINE.
    pub const DECLINE: u8 = 9;
    /// INFORMATION-REQUEST.
    pub const INFORMATION_REQUEST: u8 = 11;
}

/// Option codes (RFC 8415 21, RFC 3646).
pub mod option {
    /// Client identifier.
    pub const CLIENT_ID: u16 = 1;
    /// Server identifier.
    pub const SERVER_ID: u16 = 2;
    /// Identity association for non-temporary addresses.
    pub const IA_NA: u16 = 3;
    /// An address of an identity association.
    pub const IA_ADDRESS: u16 = 5;
    /// Status code.
    pub const STATUS: u16 = 13;
    /// Rapid commit.
    pub const RAPID_COMMIT: u16 = 14;
    /// Recursive name servers (RFC 3646 3).
    pub const DNS_SERVERS: u16 = 23;
    /// Domain search list (RFC 3646 4).
    pub const DOMAIN_LIST: u16 = 24;
}

/// Status codes (RFC 8415 21.13).
pub mod status {
    /// Success.
    pub const SUCCESS: u16 = 0;
    /// NoAddrsAvail.
    pub const NO_ADDRESSES: u16 = 2;
    /// NotOnLink.
    pub const NOT_ON_LINK: u16 = 4;
}

/// A checked view of a message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// Checks the length and that it is no relay's message.
    ///
    /// # Errors
    /// One of them is something else.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let good = bytes.len() >= HEADER_BYTES && (1..=11).contains(&bytes[0]);
        Malformed::unless(good, "DHCPv6", "a client's or server's message").map(|()| Self(bytes))
    }

    /// The message type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.0[0]
    }

    /// The transaction id.
    #[must_use]
    pub fn transaction_id(&self) -> [u8; 3] {
        get(self.0, 1)
    }

    /// The options.
    pub fn options(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        options(&self.0[HEADER_BYTES..])
    }

    /// The first option of a code.
    #[must_use]
    pub fn option(&self, code: u16) -> Option<&'a [u8]> {
        self.options().find(|(c, _)| *c == code).map(|(_, b)| b)
    }
}

/// Code and body of each option in these bytes. Ends at the first one that is malformed.
pub fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let (code, length) = (u16_at(header, 0), usize::from(u16_at(header, 2)));
        let body = bytes.get(4..4 + length)?;
        bytes = &bytes[4 + length..];
        Some((code, body))
    })
}

/// Appends an option; a body that is too long for one is left out.
pub fn push_option(message: &mut Vec<u8>, code: u16, body: &[u8]) {
    if let Ok(length) = u16::try_from(body.len()) {
        message.extend(code.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.extend(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_up_to_the_first_that_is_cut() {
        let mut bytes = vec![message_type::SOLICIT, 1, 2, 3];
        push_option(&mut bytes, option::CLIENT_ID, &[1, 2]);
        push_option(&mut bytes, option::RAPID_COMMIT, &[]);
        bytes.extend([0, 23, 0, 16, 1]);
        let message = Message::new_checked(&bytes).unwrap();
        assert_eq!(message.kind(), message_type::SOLICIT);
        assert_eq!(message.transaction_id(), [1, 2, 3]);
        assert_eq!(message.option(option::CLIENT_ID), Some(&[1, 2][..]));
        assert_eq!(message.options().count(), 2);
        assert!(Message::new_checked(&bytes[..3]).is_err());
        bytes[0] = 12;
        assert!(Message::new_checked(&bytes).is_err(), "RELAY-FORW");
    }
}
