//! Sets of address prefixes, and where in one there is room for a subnet. Pure: the store says what is in use.
//!
//! Guarantees: a set is always in ascending order, disjoint and merged; what is given is aligned to its own size,
//! inside one stretch of the set and apart from all in use, and is the first such place; the search never needs all
//! that is in use, only the next stretch behind where it stands.

use crate::ipam::{Range, Step, address, number};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;

/// The family's bits; IPv4 addresses lie behind 96 fixed ones ([`number`]).
fn bits(cidr: IpNet) -> u32 {
    u32::from(cidr.max_prefix_len())
}

/// The range of a prefix.
#[must_use]
pub fn range(cidr: IpNet) -> Range {
    Range {
        first: number(cidr.network()),
        last: number(cidr.broadcast()),
    }
}

/// How many addresses a prefix of this length has in a family of so many bits; none for all of IPv6, which no number
/// holds.
#[must_use]
pub fn size(family_bits: u32, prefixlen: u32) -> Option<u128> {
    1_u128.checked_shl(family_bits.saturating_sub(prefixlen))
}

/// Merges prefixes of one family: ascending, disjoint, as few as can be.
#[must_use]
pub fn union(prefixes: &[IpNet]) -> Vec<IpNet> {
    let mut ranges: Vec<Range> = prefixes.iter().map(|cidr| range(*cidr)).collect();
    ranges.sort();
    let mut merged: Vec<Range> = Vec::new();
    for next in ranges {
        match merged.last_mut() {
            Some(last) if next.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(next.last);
            }
            _ => merged.push(next),
        }
    }
    merged.into_iter().flat_map(prefixes_of).collect()
}

/// What of `prefixes` (merged) is not in `taken`.
#[must_use]
pub fn difference(prefixes: &[IpNet], taken: &[IpNet]) -> Vec<IpNet> {
    let taken = union(taken);
    let mut left = Vec::new();
    for cidr in prefixes {
        let mut rest = Some(range(*cidr));
        for cut in taken.iter().map(|cidr| range(*cidr)) {
            let Some(have) = rest else { break };
            if cut.last < have.first || cut.first > have.last {
                continue;
            }
            if cut.first > have.first {
                left.push(Range {
                    first: have.first,
                    last: cut.first - 1,
                });
            }
            rest = (cut.last < have.last).then(|| Range {
                first: cut.last + 1,
                last: have.last,
            });
        }
        left.extend(rest);
    }
    left.into_iter().flat_map(prefixes_of).collect()
}

/// Whether every address of `cidr` is in the set (merged, so that neighbours may hold it together).
#[must_use]
pub fn contains(prefixes: &[IpNet], cidr: IpNet) -> bool {
    difference(&[cidr], prefixes).is_empty()
}

/// Whether two sets share an address.
#[must_use]
pub fn intersect(a: &[IpNet], b: &[IpNet]) -> bool {
    a.iter().any(|a| {
        b.iter()
            .any(|b| a.contains(&b.network()) || b.contains(&a.network()))
    })
}

/// Whether an IPv6 prefix shares addresses with the one that IPv4 addresses are mapped into (RFC 4291 2.5.5.2): as
/// numbers they are IPv4's.
#[must_use]
pub fn is_mapped(cidr: IpNet) -> bool {
    let IpNet::V6(v6) = cidr else { return false };
    let mapped = range(IpNet::V4(Ipv4Net::default()));
    let own = Range {
        first: v6.network().to_bits(),
        last: v6.broadcast().to_bits(),
    };
    own.first <= mapped.last && own.last >= mapped.first
}

/// A range as prefixes.
fn prefixes_of(range: Range) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    let mut next = Some(range.first);
    while let Some(first) = next.filter(|first| *first <= range.last) {
        let ip = address(first);
        let family_bits = if ip.is_ipv4() { 32 } else { 128 };
        // The largest block that begins here and does not reach too far.
        let mut host_bits = first.trailing_zeros().min(family_bits);
        let last = loop {
            let ones = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
            let last = first | ones;
            if last <= range.last {
                break last;
            }
            host_bits -= 1;
        };
        let prefixlen = u8::try_from(family_bits - host_bits).unwrap_or(u8::MAX);
        prefixes.extend(prefix(ip, prefixlen));
        next = last.checked_add(1);
    }
    prefixes
}

/// A prefix of an address and a length; none if the family has not so many bits.
#[must_use]
pub fn prefix(ip: IpAddr, prefixlen: u8) -> Option<IpNet> {
    match ip {
        IpAddr::V4(v4) => Some(Ipv4Net::new(v4, prefixlen).ok()?.into()),
        IpAddr::V6(v6) => Some(Ipv6Net::new(v6, prefixlen).ok()?.into()),
    }
}

/// Looks for the first free block of a length at or behind `from`. `prefixes` is a set, `used` are the ranges in use
/// that end at or behind `from`, disjoint and in ascending order, and `complete` says whether there are none behind
/// the last of them.
#[must_use]
pub fn first_free(
    prefixes: &[IpNet],
    prefixlen: u32,
    from: u128,
    used: &[Range],
    complete: bool,
) -> Step {
    let mut used = used.iter().peekable();
    for cidr in prefixes {
        let Some(size) = size(bits(*cidr), prefixlen).filter(|_| prefixlen <= bits(*cidr)) else {
            continue;
        };
        let prefix = range(*cidr);
        let mut candidate = align_up(prefix.first.max(from), size);
        while let Some(first) = candidate {
            let Some(last) = first.checked_add(size - 1).filter(|at| *at <= prefix.last) else {
                break;
            };
            while used.next_if(|range| range.last < first).is_some() {}
            match used.peek() {
                Some(range) if range.first <= last => {
                    candidate = range.last.checked_add(1).and_then(|n| align_up(n, size));
                }
                Some(_) => return Step::Free(first),
                None if complete => return Step::Free(first),
                None => return Step::Continue(first),
            }
        }
    }
    Step::Exhausted
}

/// The first multiple of a power of two at or behind a number.
fn align_up(number: u128, size: u128) -> Option<u128> {
    Some(number.checked_add(size - 1)? & !(size - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn neighbours_and_overlaps_become_one() {
        let merged = union(&nets(&[
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.0/30",
            "192.0.2.0/24",
        ]));
        assert_eq!(merged, nets(&["10.0.0.0/23", "192.0.2.0/24"]));
        assert_eq!(
            union(&nets(&["0.0.0.0/1", "128.0.0.0/1"])),
            nets(&["0.0.0.0/0"])
        );
        assert_eq!(union(&nets(&["::/1", "8000::/1"])), nets(&["::/0"]));
    }

    #[test]
    fn what_is_taken_is_missing() {
        let left = difference(&nets(&["10.0.0.0/24"]), &nets(&["10.0.0.64/26"]));
        assert_eq!(left, nets(&["10.0.0.0/26", "10.0.0.128/25"]));
        assert!(difference(&nets(&["fd00::/48"]), &nets(&["fd00::/32"])).is_empty());
        assert!(contains(
            &nets(&["10.0.0.0/24", "10.0.1.0/24"]),
            "10.0.0.0/23".parse().unwrap()
        ));
        assert!(!contains(
            &nets(&["10.0.0.0/24"]),
            "10.0.0.0/23".parse().unwrap()
        ));
    }

    /// The search as the store drives it, with chunks of `chunk` ranges.
    fn search(prefixes: &[IpNet], prefixlen: u32, used: &[Range], chunk: usize) -> Option<u128> {
        let mut from = 0;
        loop {
            let next: Vec<Range> = used
                .iter()
                .filter(|range| range.last >= from)
                .take(chunk)
                .copied()
                .collect();
            match first_free(prefixes, prefixlen, from, &next, next.len() < chunk) {
                Step::Free(found) => return Some(found),
                Step::Exhausted => return None,
                Step::Continue(at) => {
                    assert!(at > from, "the search stands still");
                    from = at;
                }
            }
        }
    }

    #[test]
    fn a_pool_is_used_up_whatever_the_chunk() {
        let prefixes = nets(&["10.0.0.0/24", "10.0.4.0/23"]);
        for chunk in 1..5 {
            let mut used: Vec<Range> = vec![range("10.0.0.80/29".parse().unwrap())];
            let mut found = Vec::new();
            while let Some(first) = search(&prefixes, 26, &used, chunk) {
                let cidr = prefix(address(first), 26).unwrap();
                found.push(cidr.to_string());
                used.push(range(cidr));
                used.sort();
            }
            assert_eq!(found.len(), 11, "chunk {chunk}");
            assert_eq!(found[..2], ["10.0.0.0/26", "10.0.0.128/26"]);
        }
    }

    #[test]
    fn the_ends_of_a_family_are_places_too() {
        let top = nets(&["ffff:ffff:ffff:ffff::/64"]);
        assert!(search(&top, 64, &[], 4).is_some());
        assert!(search(&top, 64, &[range(top[0])], 4).is_none());
        assert!(search(&top, 128, &[], 4).is_some());
        assert!(search(&nets(&["255.255.255.0/24"]), 33, &[], 4).is_none());
        assert!(search(&nets(&["::/0"]), 0, &[], 4).is_none());
    }

    proptest! {
        #[test]
        fn union_and_difference_agree_with_single_addresses(
            a in prop::collection::vec((any::<u8>(), 25_u8..=32), 0..6),
            b in prop::collection::vec((any::<u8>(), 25_u8..=32), 0..6),
        ) {
            let net = |(last, len): &(u8, u8)| {
                prefix(IpAddr::from([192, 0, 2, *last]), *len).unwrap().trunc()
            };
            let a: Vec<IpNet> = a.iter().map(net).collect();
            let b: Vec<IpNet> = b.iter().map(net).collect();
            let (merged, left) = (union(&a), difference(&union(&a), &b));
            for last in 0..=u8::MAX {
                let ip = IpAddr::from([192, 0, 2, last]);
                let within = |set: &[IpNet]| set.iter().filter(|net| net.contains(&ip)).count();
                prop_assert_eq!(within(&merged), usize::from(within(&a) > 0));
                let expected = within(&a) > 0 && within(&b) == 0;
                prop_assert_eq!(within(&left), usize::from(expected));
            }
            prop_assert_eq!(intersect(&a, &b), difference(&merged, &b) != merged);
        }
    }
}
