//! DHCPv4 options as operators write them (`extra_dhcp_opts`: dnsmasq's name or the number, a text) to their bytes.
//!
//! Guarantees: what it returns is a valid body for the option's type (RFC 2132 and the RFCs named in the table); text
//! that does not fit the type gives none, and the option is then left out.

use std::net::Ipv4Addr;

/// How an option's text becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Addresses,
    Text,
    U8,
    U16,
    U32,
    Flag,
    /// Domain names, uncompressed (RFC 3397).
    Names,
    /// Pairs of range and next hop, separated by commas (RFC 3442).
    Routes,
    /// A number that nobody named: addresses, a number, hex pairs, else text, as dnsmasq guesses.
    Guess,
}

use Kind::{Addresses, Flag, Names, Routes, Text, U8, U16, U32};

/// dnsmasq's names (`dnsmasq --help dhcp`) of the options that a server may set.
const OPTIONS: &[(&str, u8, Kind)] = &[
    ("netmask", 1, Addresses),
    ("time-offset", 2, U32),
    ("router", 3, Addresses),
    ("dns-server", 6, Addresses),
    ("log-server", 7, Addresses),
    ("lpr-server", 9, Addresses),
    ("hostname", 12, Text),
    ("boot-file-size", 13, U16),
    ("domain-name", 15, Text),
    ("swap-server", 16, Addresses),
    ("root-path", 17, Text),
    ("extension-path", 18, Text),
    ("ip-forward-enable", 19, Flag),
    ("non-local-source-routing", 20, Flag),
    ("policy-filter", 21, Addresses),
    ("max-datagram-reassembly", 22, U16),
    ("default-ttl", 23, U8),
    ("mtu", 26, U16),
    ("all-subnets-local", 27, Flag),
    ("broadcast", 28, Addresses),
    ("router-discovery", 31, Flag),
    ("router-solicitation", 32, Addresses),
    ("static-route", 33, Addresses),
    ("trailer-encapsulation", 34, Flag),
    ("arp-timeout", 35, U32),
    ("ethernet-encap", 36, Flag),
    ("tcp-ttl", 37, U8),
    ("tcp-keepalive", 38, U32),
    ("nis-domain", 40, Text),
    ("nis-server", 41, Addresses),
    ("ntp-server", 42, Addresses),
    ("netbios-ns", 44, Addresses),
    ("netbios-dd", 45, Addresses),
    ("netbios-nodetype", 46, U8),
    ("netbios-scope", 47, Text),
    ("x-windows-fs", 48, Addresses),
    ("x-windows-dm", 49, Addresses),
    ("lease-time", 51, U32),
    ("T1", 58, U32),
    ("T2", 59, U32),
    ("vendor-class", 60, Text),
    ("nis+-domain", 64, Text),
    ("nis+-server", 65, Addresses),
    ("tftp-server", 66, Text),
    ("bootfile-name", 67, Text),
    ("mobile-ip-home", 68, Addresses),
    ("smtp-server", 69, Addresses),
    ("pop3-server", 70, Addresses),
    ("nntp-server", 71, Addresses),
    ("irc-server", 74, Addresses),
    ("posix-timezone", 100, Text),
    ("tzdb-timezone", 101, Text),
    ("domain-search", 119, Names),
    ("classless-static-route", 121, Routes),
    ("tftp-server-address", 150, Addresses),
    ("server-ip-address", SERVER_ADDRESS, Addresses),
];

/// Not on the wire: the header's `siaddr` field, which dnsmasq calls `server-ip-address`.
pub const SERVER_ADDRESS: u8 = 255;

/// The option's number by name or number; `option:` in front, as dnsmasq allows it, is skipped. None if unknown.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    let name = name.strip_prefix("option:").unwrap_or(name);
    if let Ok(number) = name.parse::<u8>() {
        return (1..=254).contains(&number).then_some(number);
    }
    OPTIONS
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(name))
        .map(|(_, number, _)| *number)
}

/// The option's body; none if the text is no value of the option's type or is longer than 1,020 bytes.
#[must_use]
pub fn body(number: u8, text: &str) -> Option<Vec<u8>> {
    let kind = OPTIONS
        .iter()
        .find(|(_, known, _)| *known == number)
        .map_or(Kind::Guess, |(.., kind)| *kind);
    let text = text.trim();
    let body = match kind {
        Addresses => addresses(text)?,
        Text => text.trim_matches('"').as_bytes().to_vec(),
        U8 => vec![text.parse().ok()?],
        U16 => text.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        U32 => text
            .parse::<u32>()
            .ok()
            .or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))?
            .to_be_bytes()
            .to_vec(),
        Flag => vec![flag(text)?],
        Names => names(text)?,
        Routes => routes(text)?,
        Kind::Guess => guess(text),
    };
    (1..=4 * 255).contains(&body.len()).then_some(body)
}

fn flag(text: &str) -> Option<u8> {
    match text {
        "0" | "false" | "no" => Some(0),
        "1" | "true" | "yes" => Some(1),
        _ => None,
    }
}

fn addresses(text: &str) -> Option<Vec<u8>> {
    let each = text.split(',').map(|a| a.trim().parse::<Ipv4Addr>());
    let all: Vec<Ipv4Addr> = each.collect::<Result<_, _>>().ok()?;
    Some(all.iter().flat_map(Ipv4Addr::octets).collect())
}

fn names(text: &str) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for name in text.split(',') {
        let name = name.trim().trim_end_matches('.');
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok()?;
            if !(1..=63).contains(&length) {
                return None;
            }
            body.push(length);
            body.extend(label.as_bytes());
        }
        body.push(0);
    }
    Some(body)
}

fn routes(text: &str) -> Option<Vec<u8>> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut body = Vec::new();
    for pair in parts.chunks(2) {
        let [range, hop] = pair else { return None };
        body.extend(route(range.parse().ok()?, hop.parse().ok()?));
    }
    Some(body)
}

/// One classless route: the prefix's length, its significant bytes, the next hop (RFC 3442).
#[must_use]
pub fn route(range: ipnet::Ipv4Net, hop: Ipv4Addr) -> Vec<u8> {
    let significant = usize::from(range.prefix_len()).div_ceil(8);
    let mut body = vec![range.prefix_len()];
    body.extend(&range.network().octets()[..significant]);
    body.extend(hop.octets());
    body
}

fn guess(text: &str) -> Vec<u8> {
    if let Some(body) = addresses(text) {
        return body;
    }
    if let Ok(number) = text.parse::<u32>() {
        let bytes = number.to_be_bytes();
        let skip = match number {
            0..=0xff => 3,
            0x100..=0xffff => 2,
            _ => 0,
        };
        return bytes[skip..].to_vec();
    }
    let hex = |pair: &str| (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok());
    let pairs: Option<Vec<u8>> = text.split(':').map(|pair| hex(pair).flatten()).collect();
    match pairs {
        Some(bytes) if text.contains(':') => bytes,
        _ => text.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        assert_eq!(number("mtu"), Some(26));
        assert_eq!(number("option:MTU"), Some(26));
        assert_eq!(number("26"), Some(26));
        assert_eq!(number("0"), None);
        assert_eq!(number("255"), None);
        assert_eq!(number("nonsense"), None);
        let mut numbers: Vec<u8> = OPTIONS.iter().map(|o| o.1).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), OPTIONS.len(), "sorted and unique");
    }

    #[test]
    fn text_becomes_the_type_of_the_option() {
        assert_eq!(body(26, "1400").unwrap(), [0x05, 0x78]);
        assert_eq!(body(26, "70000"), None);
        assert_eq!(
            body(42, "192.0.2.1, 192.0.2.2").unwrap(),
            [192, 0, 2, 1, 192, 0, 2, 2]
        );
        assert_eq!(body(42, "ntp.example.org"), None);
        assert_eq!(body(67, "pxelinux.0").unwrap(), b"pxelinux.0");
        assert_eq!(
            body(119, "a.example,b.example.").unwrap(),
            b"\x01a\x07example\0\x01b\x07example\0"
        );
        assert_eq!(body(119, "a..b"), None);
        assert_eq!(
            body(121, "10.0.0.0/8,192.0.2.1,0.0.0.0/0,192.0.2.2").unwrap(),
            [8, 10, 192, 0, 2, 1, 0, 192, 0, 2, 2]
        );
        assert_eq!(body(121, "10.0.0.0/8"), None);
        assert_eq!(body(2, "-3600").unwrap(), (-3600i32).to_be_bytes());
        assert_eq!(body(19, "2"), None);
    }

    #[test]
    fn what_nobody_named_is_guessed_as_dnsmasq_does() {
        assert_eq!(body(224, "10.1.2.3").unwrap(), [10, 1, 2, 3]);
        assert_eq!(body(224, "7").unwrap(), [7]);
        assert_eq!(body(224, "700").unwrap(), [2, 188]);
        assert_eq!(body(224, "70000").unwrap(), [0, 1, 17, 112]);
        assert_eq!(body(224, "01:02:ff").unwrap(), [1, 2, 255]);
        assert_eq!(body(224, "http://x/").unwrap(), b"http://x/");
        assert_eq!(body(224, ""), None);
        assert_eq!(body(224, &"x".repeat(1021)), None);
    }
}
