//! Hash maps that are quick for small keys, with a secret of their own: tenants choose many of the keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map with [`Seed`]'s hash.
pub(super) type FastMap<K, V> = HashMap<K, V, Seed>;

/// The secret that keys are hashed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(pub(super) u64);

impl BuildHasher for Seed {
    type Hasher = Mix;

    #[inline]
    fn build_hasher(&self) -> Mix {
        Mix(self.0)
    }
}

/// A hash under way.
#[derive(Clone, Debug)]
pub(super) struct Mix(u64);

impl Mix {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, 0x9e37_79b9_7f4a_7c15);
    }
}

/// The two halves of a product, put together. What a word has in its upper bytes alone, as the addresses of one network, is in
/// the lower half's upper bits and in the upper half's lower ones, so that neither may be moved.
#[inline]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [low, high] = [product, product >> 64].map(|half| {
        let [a, b, c, d, e, f, g, h, ..] = half.to_le_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    });
    low ^ high
}

impl Hasher for Mix {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(rest) {
                *to = *from;
            }
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.mix(u64::try_from(value).unwrap_or(u64::MAX));
    }

    #[inline]
    fn finish(&self) -> u64 {
        // A map takes the lowest bits and the topmost seven: once more, for those of a short key's last word.
        fold(self.0, 0xd1b5_4a32_d192_ed03)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::Hash;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    const KEYS: u32 = 10_000;

    /// How many buckets of 16,384 have a key, and how many values the seven bits beside have that tell keys of a bucket apart.
    fn spread<K: Hash>(seed: u64, key: impl Fn(u32) -> K) -> (usize, usize) {
        let hashes = (0..KEYS).map(|n| Seed(seed).hash_one(key(n)));
        let hashes: Vec<u64> = hashes.collect();
        let buckets: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0x3fff).collect();
        let beside: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        (buckets.len(), beside.len())
    }

    #[test]
    fn keys_that_follow_each_other_are_spread_as_by_chance() {
        let v4 = |n| IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0000 + n));
        let hosts = |n: u32| Ipv4Addr::from_bits(0x0a00_0001 + (n << 8));
        let v6 = |n| IpAddr::V6(Ipv6Addr::from_bits((0xfd00u128 << 112) + u128::from(n)));
        let nets = |n| Ipv6Addr::from_bits((0xfd00u128 << 112) + (u128::from(n) << 64));
        let eui64 =
            |n| Ipv6Addr::from_bits((0xfe80u128 << 112) + 0xf816_3eff_fe00_0000 + u128::from(n));
        let mac = |n: u32| {
            let [_, a, b, c] = n.to_be_bytes();
            [0xfa, 0x16, 0x3e, a, b, c]
        };
        let pair = |n: u32| (n as usize, 7u16);
        for seed in [1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_0000_0000] {
            let all = [
                spread(seed, v4),
                spread(seed, hosts),
                spread(seed, v6),
                spread(seed, nets),
                spread(seed, eui64),
                spread(seed, mac),
                spread(seed, pair),
                spread(seed, u64::from),
            ];
            for (buckets, beside) in all {
                // By chance 7,485 buckets.
                assert!(buckets > 7_200 && beside > 120, "{seed:x}: {all:?}");
            }
        }
    }
}
