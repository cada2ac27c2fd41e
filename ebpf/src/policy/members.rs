//! Which groups an address is in, by identity domain: `policy_members`.
//!
//! A domain is a distinct list of remote groups of one family; bit n means the n-th. Policies of the same list share
//! one. Guarantees: adding or removing a member is one map write for each domain that knows its group, and touches no
//! policy. Domain numbers are not used again before all entries of the old use are gone.

use super::lower::is_single;
use super::{PolicyError, address_words};
use crate::sys::{Map, SysError, UpdateMode};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use weft_ebpf_common::policy::{DOMAIN_NONE, PolicyMemberKey};
use weft_model::{EtherType, SecurityGroupId, SecurityGroupMember};

type Address = [u32; 4];
type Bits = [u64; 4];
type DomainKey = (EtherType, Vec<SecurityGroupId>);

#[derive(Debug, Default)]
struct Domain {
    number: u32,
    /// What the kernel has.
    written: HashMap<Address, Bits>,
}

/// All domains.
#[derive(Debug)]
pub(super) struct Members {
    domains: BTreeMap<DomainKey, Domain>,
    /// Keys that an earlier process wrote.
    inherited: Vec<PolicyMemberKey>,
    next: u32,
}

/// What domains are to be, by number.
#[derive(Debug)]
pub(super) struct Wanted(BTreeMap<u32, HashMap<Address, Bits>>);

impl Wanted {
    /// Memberships in all.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }
}

fn key_bytes(domain: u32, address: &Address) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&domain.to_ne_bytes());
    for (n, word) in address.iter().enumerate() {
        bytes[4 + 4 * n..8 + 4 * n].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn bits_bytes(bits: &Bits) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (n, word) in bits.iter().enumerate() {
        bytes[8 * n..8 * n + 8].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn key_of(bytes: &[u8]) -> PolicyMemberKey {
    let word = |n: usize| {
        bytes
            .get(4 * n..4 * n + 4)
            .map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    };
    PolicyMemberKey {
        domain: word(0),
        address: [word(1), word(2), word(3), word(4)],
    }
}

impl Members {
    /// Takes note of what an earlier process wrote.
    pub(super) fn open(map: &Map) -> Result<Self, SysError> {
        let keys = map.keys(map.info().entries_max as usize)?;
        let inherited: Vec<PolicyMemberKey> = keys.iter().map(|key| key_of(key)).collect();
        let last = inherited
            .iter()
            .map(|key| key.domain)
            .max()
            .unwrap_or(DOMAIN_NONE);
        Ok(Self {
            domains: BTreeMap::new(),
            inherited,
            next: last.wrapping_add(1),
        })
    }

    /// The domain of a list of groups, new if it is not known.
    pub(super) fn domain(&mut self, ethertype: EtherType, groups: &[SecurityGroupId]) -> u32 {
        if groups.is_empty() {
            return DOMAIN_NONE;
        }
        let key = (ethertype, groups.to_vec());
        if let Some(domain) = self.domains.get(&key) {
            return domain.number;
        }
        let taken: BTreeSet<u32> = self.domains.values().map(|domain| domain.number).collect();
        let inherited = self.inherited.iter().map(|key| key.domain);
        let taken: BTreeSet<u32> = taken
            .into_iter()
            .chain(inherited)
            .chain([DOMAIN_NONE])
            .collect();
        while taken.contains(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.domains.insert(
            key,
            Domain {
                number,
                written: HashMap::new(),
            },
        );
        number
    }

    /// What some domains are to be.
    pub(super) fn wanted(
        &self,
        members: &BTreeSet<SecurityGroupMember>,
        chosen: &BTreeSet<u32>,
    ) -> Wanted {
        let domains = self.domains.iter();
        let chosen = domains.filter(|(_, domain)| chosen.contains(&domain.number));
        let wanted = chosen.map(|((ethertype, groups), domain)| {
            (domain.number, wanted(*ethertype, groups, members))
        });
        Wanted(wanted.collect())
    }

    /// Writes what is new of the chosen ones of these domains. Says how many writes it took.
    pub(super) fn write(
        &mut self,
        map: &Map,
        wanted: &Wanted,
        chosen: impl Fn(u32) -> bool,
        changed: &mut ChangedDomains,
    ) -> Result<usize, PolicyError> {
        let mut writes = 0;
        for domain in self.domains.values_mut().filter(|d| chosen(d.number)) {
            if let Some(wanted) = wanted.0.get(&domain.number) {
                let done = domain.bring_to(map, wanted)?;
                writes += done.writes;
                if done.narrowed {
                    changed.narrowed.insert(domain.number);
                } else if done.writes > 0 {
                    changed.widened.insert(domain.number);
                }
            }
        }
        Ok(writes)
    }

    /// Removes the domains that nothing uses, and what an earlier process wrote.
    pub(super) fn settle(&mut self, map: &Map, used: &BTreeSet<u32>) -> Result<(), PolicyError> {
        while let Some(key) = self.inherited.last() {
            map.delete(&key_bytes(key.domain, &key.address))?;
            self.inherited.pop();
        }
        for domain in self
            .domains
            .values_mut()
            .filter(|d| !used.contains(&d.number))
        {
            domain.bring_to(map, &HashMap::new())?;
        }
        self.domains
            .retain(|_, domain| used.contains(&domain.number));
        Ok(())
    }
}

/// Domains whose memberships have changed.
#[derive(Default)]
pub(super) struct ChangedDomains {
    /// Those that an address left.
    pub(super) narrowed: BTreeSet<u32>,
    /// The others.
    pub(super) widened: BTreeSet<u32>,
}

/// What became of a domain's entries.
#[derive(Default)]
struct Brought {
    writes: usize,
    /// An address is in fewer groups than before.
    narrowed: bool,
}

impl Domain {
    /// Makes the kernel's entries those that are wanted.
    fn bring_to(
        &mut self,
        map: &Map,
        wanted: &HashMap<Address, Bits>,
    ) -> Result<Brought, PolicyError> {
        let mut brought = Brought::default();
        let gone = self
            .written
            .keys()
            .filter(|address| !wanted.contains_key(*address));
        let gone: Vec<Address> = gone.copied().collect();
        for address in gone {
            map.delete(&key_bytes(self.number, &address))?;
            self.written.remove(&address);
            brought.writes += 1;
            brought.narrowed = true;
        }
        for (address, bits) in wanted {
            let had = self.written.get(address);
            if had != Some(bits) {
                let mut lost = had.into_iter().flatten().zip(bits);
                brought.narrowed |= lost.any(|(had, has)| had & !has != 0);
                map.update(
                    &key_bytes(self.number, address),
                    &bits_bytes(bits),
                    UpdateMode::Any,
                )?;
                self.written.insert(*address, *bits);
                brought.writes += 1;
            }
        }
        Ok(brought)
    }
}

fn wanted(
    ethertype: EtherType,
    groups: &[SecurityGroupId],
    members: &BTreeSet<SecurityGroupMember>,
) -> HashMap<Address, Bits> {
    let mut wanted: HashMap<Address, Bits> = HashMap::new();
    for (bit, group) in groups.iter().enumerate() {
        for member in of_group(members, *group) {
            let of_family = member.address.addr().is_ipv6() == (ethertype == EtherType::Ipv6);
            if of_family && is_single(member.address) {
                let bits = wanted
                    .entry(address_words(member.address.addr()))
                    .or_default();
                bits[bit / 64] |= 1 << (bit % 64);
            }
        }
    }
    wanted
}

/// A group's members: they are ordered by group first, then by address, of which 0.0.0.0/0 is the smallest.
fn of_group(
    members: &BTreeSet<SecurityGroupMember>,
    security_group_id: SecurityGroupId,
) -> impl Iterator<Item = &SecurityGroupMember> {
    let least = ipnet::IpNet::V4(ipnet::Ipv4Net::default());
    let first = SecurityGroupMember {
        security_group_id,
        address: least,
    };
    members
        .range(first..)
        .take_while(move |member| member.security_group_id == security_group_id)
}
