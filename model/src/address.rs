//! MAC addresses and the IPv6 link-local address that follows from one.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// An IEEE 802 MAC-48 address. Text form: six lower-case hex pairs joined by colons, as Neutron prints them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// A text that is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a MAC address: expected six hex pairs joined by colons, such as fa:16:3e:00:00:01"
)]
pub struct MacAddressError(String);

impl MacAddress {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Group bit set (IEEE 802-2014 8.2.2): broadcast or multicast.
    #[must_use]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// All zero: never a station's address.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

/// The link-local address that SLAAC forms from a MAC address by modified EUI-64 (RFC 4291 2.5.1, appendix A).
#[must_use]
pub fn eui64_link_local(mac: MacAddress) -> Ipv6Addr {
    let m = mac.0;
    let mut a = [0u8; 16];
    a[0] = 0xfe;
    a[1] = 0x80;
    a[8..].copy_from_slice(&[m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]]);
    Ipv6Addr::from(a)
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = self.0;
        write!(
            f,
            "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
            m[0], m[1], m[2], m[3], m[4], m[5]
        )
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || MacAddressError(text.chars().take(64).collect());
        let mut mac = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or_else(bad)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_parse| bad())?;
        }
        if parts.next().is_some() {
            Err(bad())
        } else {
            Ok(Self(mac))
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trip() {
        let mac: MacAddress = "FA:16:3e:00:0a:01".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:00:0a:01");
        for bad in [
            "",
            "fa:16:3e:00:0a",
            "fa:16:3e:00:0a:01:02",
            "fa-16-3e-00-0a-01",
            "+a:16:3e:00:0a:01",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn eui64_flips_the_universal_bit() {
        let mac: MacAddress = "fa:16:3e:12:34:56".parse().unwrap();
        assert_eq!(
            eui64_link_local(mac),
            "fe80::f816:3eff:fe12:3456".parse::<Ipv6Addr>().unwrap()
        );
    }
}
