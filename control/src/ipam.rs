//! Which addresses a subnet has, and which one to give next. Pure: the store says which are in use.
//!
//! Guarantees: an address given is inside a pool and not among those in use; the search never needs the whole pool,
//! only the next stretch of used addresses behind where it stands.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};
use weft_model::MacAddress;

/// A stretch of addresses, both ends included, as numbers ([`number`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first address.
    pub first: u128,
    /// The last address.
    pub last: u128,
}

/// An address as a number; IPv4 behind `::ffff:0:0`, so that the families do not mix.
#[must_use]
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of a number.
#[must_use]
pub fn address(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(number)).to_canonical()
}

/// What a stretch of the search ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This address is free.
    Free(u128),
    /// All addresses up to here are in use: read the used ones from here on.
    Continue(u128),
    /// No address from where the search began to the last pool's end is free.
    Exhausted,
}

/// Looks for the first free address at or behind `from`. `pools` and `used` are in ascending order; `used` holds the
/// addresses in use from `from` on, and `complete` says whether there are none behind its last one.
#[must_use]
pub fn first_free(pools: &[Range], from: u128, used: &[u128], complete: bool) -> Step {
    let mut used = used
        .iter()
        .copied()
        .skip_while(|address| *address < from)
        .peekable();
    let mut seen_up_to = from;
    for pool in pools {
        let mut candidate = pool.first.max(from);
        while candidate <= pool.last {
            while used.next_if(|address| *address < candidate).is_some() {}
            match used.peek() {
                Some(address) if *address == candidate => {
                    used.next();
                    seen_up_to = candidate;
                    candidate += 1;
                }
                Some(_) => return Step::Free(candidate),
                None if complete => return Step::Free(candidate),
                None => return Step::Continue(candidate.max(seen_up_to)),
            }
        }
    }
    Step::Exhausted
}

/// The first and the last address that a host may have: for IPv4 not the network's and the broadcast address (unless
/// the range has no room for them, RFC 3021), for IPv6 not the subnet-router anycast address (RFC 4291 2.6.1).
#[must_use]
pub fn hosts(cidr: IpNet) -> Range {
    let first = number(cidr.network());
    let last = number(cidr.broadcast());
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    match (cidr, bits) {
        (_, 0) => Range { first, last },
        (IpNet::V4(_), 1) | (IpNet::V6(_), 1) => Range { first, last },
        (IpNet::V4(_), _) => Range {
            first: first + 1,
            last: last - 1,
        },
        (IpNet::V6(_), _) => Range {
            first: first + 1,
            last,
        },
    }
}

/// Neutron's default pools: all host addresses but the gateway.
#[must_use]
pub fn default_pools(cidr: IpNet, gateway: Option<IpAddr>) -> Vec<Range> {
    let all = hosts(cidr);
    let Some(gateway) = gateway.map(number) else {
        return vec![all];
    };
    if gateway < all.first || gateway > all.last {
        return vec![all];
    }
    let mut pools = Vec::new();
    if gateway > all.first {
        pools.push(Range {
            first: all.first,
            last: gateway - 1,
        });
    }
    if gateway < all.last {
        pools.push(Range {
            first: gateway + 1,
            last: all.last,
        });
    }
    pools
}

/// The address that SLAAC forms in a /64 from a MAC address (RFC 4291 appendix A).
#[must_use]
pub fn eui64(prefix: IpNet, mac: MacAddress) -> Option<IpAddr> {
    let IpNet::V6(v6) = prefix else { return None };
    let interface = weft_model::eui64_link_local(mac).to_bits() & u128::from(u64::MAX);
    Some(IpAddr::V6(Ipv6Addr::from_bits(
        v6.network().to_bits() | interface,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> u128 {
        number(text.parse().unwrap())
    }

    /// The search as the store drives it, with chunks of `chunk` used addresses.
    fn search(pools: &[Range], from: u128, used: &BTreeSet<u128>, chunk: usize) -> Option<u128> {
        let mut from = from;
        loop {
            let next: Vec<u128> = used.range(from..).take(chunk).copied().collect();
            match first_free(pools, from, &next, next.len() < chunk) {
                Step::Free(found) => return Some(found),
                Step::Exhausted => return None,
                Step::Continue(at) => from = at,
            }
        }
    }

    #[test]
    fn the_gateway_is_not_in_the_default_pools() {
        let pools = default_pools(net("192.0.2.0/24"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(
            pools,
            [Range {
                first: ip("192.0.2.2"),
                last: ip("192.0.2.254")
            }]
        );
        let pools = default_pools(net("192.0.2.0/24"), Some("192.0.2.9".parse().unwrap()));
        assert_eq!(pools.len(), 2);
        let pools = default_pools(net("2001:db8::/64"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(
            pools,
            [Range {
                first: ip("2001:db8::2"),
                last: ip("2001:db8::ffff:ffff:ffff:ffff")
            }]
        );
        assert_eq!(
            default_pools(net("192.0.2.0/31"), None)[0].last,
            ip("192.0.2.1")
        );
        assert_eq!(
            default_pools(net("192.0.2.7/32"), None)[0].first,
            ip("192.0.2.7")
        );
    }

    #[test]
    fn every_address_is_found_once_whatever_the_chunk() {
        let pools = [
            Range {
                first: ip("192.0.2.2"),
                last: ip("192.0.2.9"),
            },
            Range {
                first: ip("192.0.2.20"),
                last: ip("192.0.2.29"),
            },
        ];
        for chunk in 1..6 {
            let mut used: BTreeSet<u128> = [ip("192.0.2.4"), ip("192.0.2.15")].into();
            let mut found = 0;
            while let Some(address) = search(&pools, pools[0].first, &used, chunk) {
                assert!(used.insert(address), "given twice");
                assert!(
                    pools
                        .iter()
                        .any(|p| p.first <= address && address <= p.last)
                );
                found += 1;
            }
            assert_eq!(found, 17, "chunk {chunk}");
        }
    }

    #[test]
    fn slaac_addresses_come_from_the_mac() {
        let mac = "fa:16:3e:12:34:56".parse().unwrap();
        let address = eui64(net("fd00:192:0:2::/64"), mac).unwrap();
        assert_eq!(address.to_string(), "fd00:192:0:2:f816:3eff:fe12:3456");
    }
}
