//! Policies in the kernel: slots, their rule tables, and the swap to compiled programs.
//!
//! Guarantees: what [`PolicyTable::apply`] was given is enforced when it returns; a compiled program is installed only
//! if the policy it was made from is still the one in its slot; a slot that ports may still name is never given to
//! another policy before [`PolicyTable::settle`]. What the interpreter does for good (few rules, or a refused
//! program) costs time, never rightness.
//!
//! It keeps no clock. Two threads work for it: [`super::background`] compiles, [`super::writer`] waits for the kernel.

use super::background::{Background, Done, Job};
use super::compile::{CompileError, PartPlaces, TakenPlaces};
use super::lower::Lowering;
use super::members::{ChangedDomains, Members};
use super::rules::table_create;
use super::writer::TableWriter;
use super::{LowerError, Policy, PolicyKey};
use crate::sys::{Map, Prog, SysError};
use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use weft_ebpf_common::policy::{PROGRAM_INTERPRETER, SLOTS_MAX};
use weft_model::{Direction, EtherType, HostSnapshot, SecurityGroupMember, SecurityGroupRuleId};

/// Policies of up to so many rules are left to the interpreter: a program would cost memory and win nothing.
pub const INTERPRETED_RULES_MAX: usize = 16;

/// How often the memberships fit into their map: those of the policies that go stay beside those of the policies that
/// come until all ports have changed, and those of an earlier process beside the first of this one.
pub(crate) const MEMBERS_ROOM: u32 = 2;

/// What is compiled, and how. The default is what serves best; tests ask for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Policies of up to so many rules are left to the interpreter.
    pub interpreted_rules_max: usize,
    /// Programs that a policy becomes at least (1 to 8).
    pub parts_min: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            interpreted_rules_max: INTERPRETED_RULES_MAX,
            parts_min: 1,
        }
    }
}

/// The objects of the stages' programs that policies live in.
#[derive(Debug)]
pub struct PolicyMaps {
    /// `policy_programs`.
    pub programs: Map,
    /// `policy_rules`.
    pub rules: Map,
    /// `policy_members`.
    pub members: Map,
    /// `walks`: the per-CPU scratch value.
    pub walks: Map,
    /// `stages`: the program array of the continuations.
    pub stages: Map,
    /// `policy_interpreter`.
    pub interpreter: Prog,
}

/// Why policies could not be enforced. What was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A set of groups exceeds a limit.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// The kernel refused.
    #[error("the kernel refused a policy's table")]
    Sys(#[from] SysError),
    /// More distinct policies than slots.
    #[error("more than {0} distinct sets of security groups: give ports the same sets")]
    Slots(u32),
    /// More memberships than there is room for.
    #[error(
        "security groups have {count} memberships here, and this host has room for {max}: raise group_members_max, or \
         name fewer groups as remote groups"
    )]
    Members {
        /// How many there would be.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// No thread for the compiler or the writer.
    #[error("cannot start a thread for policies")]
    Thread(#[source] std::io::Error),
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// The slots that may allow less than before: sessions that were allowed by them must be looked at again. A member that
    /// is added takes nothing from anybody.
    pub narrowed: BTreeSet<u32>,
    /// Those that only allow more: what they refused to ports that keep no state must be looked at again.
    pub widened: BTreeSet<u32>,
    /// Memberships written or deleted.
    pub member_writes: usize,
}

/// What became of one background compile.
#[derive(Debug)]
pub struct CompileReport {
    /// Which policy.
    pub slot: u32,
    /// Instructions of its programs; or why the interpreter serves it for good.
    pub result: Result<usize, CompileError>,
}

#[derive(Debug)]
struct Entry {
    slot: u32,
    policy: Arc<Policy>,
    domain: u32,
    generation: u64,
    /// Further parts of the installed program.
    parts: Option<TakenPlaces>,
    /// A write failed half-way: the kernel may have something else.
    unsure: bool,
    /// A port of the last snapshot uses it.
    used: bool,
}

/// All policies of one engine.
#[derive(Debug)]
pub struct PolicyTable {
    maps: Arc<PolicyMaps>,
    entries: BTreeMap<PolicyKey, Entry>,
    slots_free: BTreeSet<u32>,
    /// Slots that an earlier process left; ports may still name them.
    inherited: BTreeSet<u32>,
    inherited_parts: Option<TakenPlaces>,
    /// Parts of programs that are gone; a packet may still be on its way to them.
    retired: Vec<TakenPlaces>,
    members: Members,
    generation: u64,
    tuning: Tuning,
    writer: TableWriter,
    background: Background,
}

/// A policy whose table is ready to be swapped in.
struct Prepared {
    key: PolicyKey,
    slot: u32,
    policy: Policy,
    domain: u32,
    table: Map,
}

impl PolicyTable {
    /// Takes over the maps; what an earlier process left in them stays in force until [`PolicyTable::settle`].
    ///
    /// # Errors
    /// The kernel refuses, or there is no thread to be had.
    pub fn open(maps: PolicyMaps) -> Result<Self, PolicyError> {
        Self::open_tuned(maps, Tuning::default())
    }

    /// As [`PolicyTable::open`], with another tuning.
    ///
    /// # Errors
    /// As [`PolicyTable::open`].
    pub fn open_tuned(maps: PolicyMaps, tuning: Tuning) -> Result<Self, PolicyError> {
        let maps = Arc::new(maps);
        maps.programs
            .set_fd(PROGRAM_INTERPRETER, maps.interpreter.as_fd())?;
        let (tables, _end) = maps.rules.lookup_batch(None, SLOTS_MAX)?;
        let slot_of = |key: &[u8]| key.try_into().map_or(0, u32::from_ne_bytes);
        let inherited: BTreeSet<u32> = tables.iter().map(|(key, _)| slot_of(key)).collect();
        let slots_free = (0..SLOTS_MAX)
            .filter(|slot| !inherited.contains(slot))
            .collect();
        let places = PartPlaces::all();
        let inherited_parts = places.take_used(&maps.programs)?;
        let members = Members::open(&maps.members)?;
        let background = Background::start(maps.clone(), places, tuning.parts_min)
            .map_err(PolicyError::Thread)?;
        Ok(Self {
            maps,
            entries: BTreeMap::new(),
            slots_free,
            inherited,
            inherited_parts: Some(inherited_parts),
            retired: Vec::new(),
            members,
            generation: 0,
            tuning,
            writer: TableWriter::default(),
            background,
        })
    }

    /// Enforces the security groups of all ports of the snapshot that have port security, in both directions and
    /// families. All rules and members are in force when it returns.
    ///
    /// # Errors
    /// A limit (nothing has changed then), or what the kernel refuses (a part may have; the next call mends it).
    pub fn apply(&mut self, snapshot: &HostSnapshot) -> Result<Enforced, PolicyError> {
        let lowering = Lowering::of(snapshot);
        let mut policies = BTreeMap::new();
        for port in snapshot
            .ports
            .values()
            .filter(|port| port.port_security_enabled)
        {
            let groups: BTreeSet<_> = port.security_groups.iter().copied().collect();
            for direction in [Direction::Egress, Direction::Ingress] {
                for ethertype in [EtherType::Ipv4, EtherType::Ipv6] {
                    let key = PolicyKey {
                        groups: groups.clone(),
                        direction,
                        ethertype,
                    };
                    if let Vacant(place) = policies.entry(key) {
                        let policy = lowering.policy(place.key())?;
                        place.insert(policy);
                    }
                }
            }
        }
        self.enforce(policies, &snapshot.security_group_members)
    }

    /// As [`PolicyTable::apply`], of policies that are already lowered.
    ///
    /// # Errors
    /// As [`PolicyTable::apply`].
    pub fn enforce(
        &mut self,
        policies: BTreeMap<PolicyKey, Policy>,
        members: &BTreeSet<SecurityGroupMember>,
    ) -> Result<Enforced, PolicyError> {
        let before: BTreeSet<u32> = self.entries.values().map(|entry| entry.domain).collect();
        let used: BTreeSet<PolicyKey> = policies.keys().cloned().collect();
        let prepared = self.prepare(policies)?;
        let domains = self.domains_after(&used, &prepared);
        let wanted = self.members.wanted(members, &domains);
        let max = (self.maps.members.info().entries_max / MEMBERS_ROOM) as usize;
        if wanted.count() > max {
            let count = wanted.count();
            return Err(PolicyError::Members { count, max });
        }
        let (map, mut domains) = (&self.maps.members, ChangedDomains::default());
        let new = |domain| !before.contains(&domain);
        let mut member_writes = self.members.write(map, &wanted, new, &mut domains)?;
        let mut narrowed: BTreeSet<u32> = prepared.iter().map(|new| new.slot).collect();
        let mut widened = BTreeSet::new();
        self.commit(prepared)?;
        let (map, known) = (&self.maps.members, |domain| before.contains(&domain));
        member_writes += self.members.write(map, &wanted, known, &mut domains)?;
        for (key, entry) in &mut self.entries {
            entry.used = used.contains(key);
            if domains.narrowed.contains(&entry.domain) {
                narrowed.insert(entry.slot);
            } else if domains.widened.contains(&entry.domain) {
                widened.insert(entry.slot);
            }
        }
        Ok(Enforced {
            narrowed,
            widened,
            member_writes,
        })
    }

    /// The domains that policies have once `prepared` is in force.
    fn domains_after(&self, used: &BTreeSet<PolicyKey>, prepared: &[Prepared]) -> BTreeSet<u32> {
        let changed: BTreeMap<&PolicyKey, u32> =
            prepared.iter().map(|new| (&new.key, new.domain)).collect();
        let of = |key: &PolicyKey| {
            let new = changed.get(key).copied();
            new.or_else(|| self.entries.get(key).map(|entry| entry.domain))
        };
        used.iter().filter_map(of).collect()
    }

    /// Makes the tables of what differs, without anybody seeing them.
    fn prepare(
        &mut self,
        policies: BTreeMap<PolicyKey, Policy>,
    ) -> Result<Vec<Prepared>, PolicyError> {
        let mut prepared: Vec<Prepared> = Vec::new();
        let mut fresh = self.slots_free.iter().copied();
        for (key, policy) in policies {
            let entry = self.entries.get(&key);
            if entry.is_some_and(|entry| *entry.policy == policy && !entry.unsure) {
                continue;
            }
            let slot = entry.map(|entry| entry.slot).or_else(|| fresh.next());
            let slot = slot.ok_or(PolicyError::Slots(SLOTS_MAX))?;
            let domain = self.members.domain(policy.ethertype, &policy.remote_groups);
            let table = table_create(&policy, domain)?;
            prepared.push(Prepared {
                key,
                slot,
                policy,
                domain,
                table,
            });
        }
        Ok(prepared)
    }

    /// Swaps the tables in, all with one call, and takes the programs of the old policies out.
    fn commit(&mut self, prepared: Vec<Prepared>) -> Result<(), PolicyError> {
        for new in &prepared {
            if let Some(entry) = self.entries.get_mut(&new.key) {
                entry.unsure = true;
            }
        }
        if prepared.is_empty() {
            return Ok(());
        }
        let mut tables = Vec::with_capacity(prepared.len());
        let mut entries = Vec::with_capacity(prepared.len());
        for new in prepared {
            tables.push((new.slot, new.table));
            entries.push((new.key, new.slot, new.policy, new.domain));
        }
        self.writer.swap(&self.maps, tables)?;
        for (key, slot, policy, domain) in entries {
            self.maps.programs.delete(&slot.to_ne_bytes())?;
            self.slots_free.remove(&slot);
            self.generation += 1;
            let entry = Entry {
                slot,
                policy: Arc::new(policy),
                domain,
                generation: self.generation,
                parts: None,
                unsure: false,
                used: true,
            };
            self.schedule(&entry);
            let old = self.entries.insert(key, entry);
            self.retired.extend(old.and_then(|old| old.parts));
        }
        Ok(())
    }

    fn schedule(&self, entry: &Entry) {
        if entry.policy.rules.len() <= self.tuning.interpreted_rules_max {
            self.background.forget(entry.slot);
            return;
        }
        self.background.add(Job {
            slot: entry.slot,
            generation: entry.generation,
            policy: entry.policy.clone(),
            domain: entry.domain,
        });
    }

    /// The slot of a policy that was applied: what goes into `policy_walk.slot`.
    #[must_use]
    pub fn slot(&self, key: &PolicyKey) -> Option<u32> {
        self.entries.get(key).map(|entry| entry.slot)
    }

    /// Releases the slots that no port of the last snapshot uses; call it when the ports' values name the new ones.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn settle(&mut self) -> Result<(), PolicyError> {
        self.retire()?;
        let unused = self.entries.extract_if(.., |_, entry| !entry.used);
        let unused: Vec<Entry> = unused.map(|(_, entry)| entry).collect();
        let mut slots: Vec<u32> = std::mem::take(&mut self.inherited).into_iter().collect();
        self.retired.extend(self.inherited_parts.take());
        slots.extend(unused.iter().map(|entry| entry.slot));
        for slot in &slots {
            self.background.forget(*slot);
            self.maps.programs.delete(&slot.to_ne_bytes())?;
        }
        self.retired
            .extend(unused.into_iter().filter_map(|entry| entry.parts));
        if !slots.is_empty() {
            self.writer.remove(&self.maps, slots.clone())?;
        }
        self.slots_free.extend(slots);
        let domains = self.entries.values().map(|entry| entry.domain).collect();
        self.members.settle(&self.maps.members, &domains)
    }

    /// Installs what the background has compiled, and reports each; what has become stale meanwhile is dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn poll(&mut self) -> Result<Vec<CompileReport>, PolicyError> {
        self.retire()?;
        let mut reports = Vec::new();
        for done in self.background.done() {
            reports.extend(self.install(done)?);
        }
        Ok(reports)
    }

    /// Nothing is being compiled or waits for [`PolicyTable::poll`].
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.background.is_idle()
    }

    fn install(&mut self, done: Done) -> Result<Option<CompileReport>, PolicyError> {
        let current =
            |entry: &&mut Entry| (entry.slot, entry.generation) == (done.slot, done.generation);
        let Some(entry) = self.entries.values_mut().find(current) else {
            return Ok(None);
        };
        let result = match done.result {
            Err(error) => Err(error),
            Ok(compiled) => {
                for (place, prog) in compiled.parts.places.iter().zip(&compiled.rest) {
                    self.maps.programs.set_fd(*place, prog.as_fd())?;
                }
                self.maps
                    .programs
                    .set_fd(done.slot, compiled.head.as_fd())?;
                entry.parts = Some(compiled.parts);
                Ok(compiled.insns)
            }
        };
        Ok(Some(CompileReport {
            slot: done.slot,
            result,
        }))
    }

    /// Empties the places of parts that no program leads to any more.
    fn retire(&mut self) -> Result<(), PolicyError> {
        for parts in std::mem::take(&mut self.retired) {
            for place in &parts.places {
                self.maps.programs.delete(&place.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// The policy in a slot.
    #[must_use]
    pub fn policy(&self, slot: u32) -> Option<&Policy> {
        let found = self.entries.values().find(|entry| entry.slot == slot);
        found.map(|entry| entry.policy.as_ref())
    }

    /// The UUID of a rule that a packet matched.
    #[must_use]
    pub fn rule_id(&self, slot: u32, rule_index: u32) -> Option<SecurityGroupRuleId> {
        let index = usize::try_from(rule_index).ok()?;
        self.policy(slot)?.rule_ids.get(index).copied()
    }
}
