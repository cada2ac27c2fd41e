//! The classifier alone, for tests, benches and `cargo xtask bars`: the real maps, interpreter and compiled programs
//! between a way in and a way out (`ebpf/programs/policy_harness.bpf.c`), asked with BPF_PROG_TEST_RUN.
//!
//! Nothing is attached or pinned; all is gone when it is dropped. It needs root.

use super::compile::generate;
use super::emit::Target;
use super::{
    CompileError, Policy, PolicyError, PolicyKey, PolicyMaps, PolicyTable, Remote, Tuning,
};
use crate::sys::{Map, Prog, SysError, TestRun};
use aya::programs::SchedClassifier;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use weft_ebpf_common::policy::RULE_NONE;
use weft_model::{Direction, EtherType, SecurityGroupId, SecurityGroupMember};

/// `ebpf/programs/policy_harness.bpf.c`, compiled.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/policy_harness.bpf.o"));

/// Bytes in front of the walk in the harness's frame.
const FRAME_HEADER: usize = 14;

/// Why the harness could not be set up or asked.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The object could not be loaded.
    #[error("cannot load the classifier's harness")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object lacks a map or program.
    #[error("the classifier's harness has no {0}")]
    Missing(&'static str),
    /// The kernel refused.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The table refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The packet was dropped on the way: a continuation, part or interpreter is missing.
    #[error("the packet was dropped before an answer")]
    Dropped,
}

/// What a policy is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// The protocol.
    pub protocol: u8,
    /// The port, or ICMP's type · 256 + code.
    pub port: u16,
    /// The remote address, as in `PolicyWalk::remote`.
    pub remote: [u32; 4],
}

impl Policy {
    /// The answer, as the text of docs/pipeline.md says it: the oracle of both executions.
    #[must_use]
    pub fn answer(&self, tuple: &Tuple, members: &BTreeSet<SecurityGroupMember>) -> Option<u32> {
        let groups = groups_of(self, tuple, members);
        let matches = self.rules.iter().filter(|rule| {
            rule.protocol
                .is_none_or(|protocol| protocol == tuple.protocol)
                && (rule.ports.0..=rule.ports.1).contains(&tuple.port)
                && match rule.remote {
                    Remote::Any => true,
                    Remote::Group(bit) => groups.contains(&bit),
                    Remote::Prefix { address, mask } => {
                        (0..4).all(|n| tuple.remote[n] & mask[n] == address[n] & mask[n])
                    }
                }
        });
        matches.map(|rule| rule.rule_index).min()
    }
}

/// The groups of the policy that the tuple's remote address is in.
pub(super) fn groups_of(
    policy: &Policy,
    tuple: &Tuple,
    members: &BTreeSet<SecurityGroupMember>,
) -> BTreeSet<u8> {
    let six = policy.ethertype == EtherType::Ipv6;
    let here = members.iter().filter(|member| {
        let address = member.address.addr();
        member.address.prefix_len() == member.address.max_prefix_len()
            && address.is_ipv6() == six
            && super::address_words(address) == tuple.remote
    });
    let bits = here.filter_map(|member| {
        policy
            .remote_groups
            .iter()
            .position(|group| *group == member.security_group_id)
    });
    bits.filter_map(|bit| u8::try_from(bit).ok()).collect()
}

/// A loaded classifier.
#[derive(Debug)]
pub struct Harness {
    /// The table that is tried.
    pub table: PolicyTable,
    entry: Prog,
    many: Prog,
    questions: Map,
    /// Kept open: a program array is emptied when its last descriptor is closed.
    programs: Map,
    rules: Map,
}

fn load_error(error: impl std::error::Error + Send + Sync + 'static) -> HarnessError {
    HarnessError::Load(Box::new(error))
}

fn take_map(object: &mut aya::Ebpf, name: &'static str) -> Result<Map, HarnessError> {
    use aya::maps::Map as Any;
    let map = object.take_map(name).ok_or(HarnessError::Missing(name))?;
    let (Any::ProgramArray(data)
    | Any::ArrayOfMaps(data)
    | Any::HashMap(data)
    | Any::PerCpuArray(data)
    | Any::Array(data)) = map
    else {
        return Err(HarnessError::Missing(name));
    };
    let fd: OwnedFd = data.fd().as_fd().try_clone_to_owned().map_err(load_error)?;
    Ok(Map::from_fd(fd)?)
}

fn take_program(object: &mut aya::Ebpf, name: &'static str) -> Result<Prog, HarnessError> {
    let program = object
        .program_mut(name)
        .ok_or(HarnessError::Missing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(load_error)?;
    program.load().map_err(load_error)?;
    let fd = program
        .fd()
        .map_err(load_error)?
        .as_fd()
        .try_clone_to_owned()
        .map_err(load_error)?;
    Ok(Prog::from_fd(fd))
}

impl Harness {
    /// Loads the harness's object.
    ///
    /// # Errors
    /// The kernel refuses (root is needed).
    pub fn load() -> Result<Self, HarnessError> {
        Self::load_tuned(Tuning::default(), false)
    }

    /// As [`Harness::load`], with another tuning; `broken` lets the compiler take a wrong map for the walks, so that
    /// the verifier refuses what it makes.
    ///
    /// # Errors
    /// As [`Harness::load`].
    pub fn load_tuned(tuning: Tuning, broken: bool) -> Result<Self, HarnessError> {
        let mut object = aya::EbpfLoader::new().load(OBJECT).map_err(load_error)?;
        // The programs name the maps by descriptors that `take_map` closes: they are loaded first.
        let entry = take_program(&mut object, "harness_in")?;
        let many = take_program(&mut object, "harness_many")?;
        let continuation = take_program(&mut object, "harness_out")?;
        let mut maps = PolicyMaps {
            interpreter: take_program(&mut object, "policy_interpreter")?,
            programs: take_map(&mut object, "policy_programs")?,
            rules: take_map(&mut object, "policy_rules")?,
            members: take_map(&mut object, "policy_members")?,
            walks: take_map(&mut object, "walks")?,
            stages: take_map(&mut object, "stages")?,
        };
        maps.stages.set_fd(0, continuation.as_fd())?;
        if broken {
            maps.walks = maps.stages.try_clone()?;
        }
        let programs = maps.programs.try_clone()?;
        let rules = maps.rules.try_clone()?;
        let questions = take_map(&mut object, "questions")?;
        Ok(Self {
            table: PolicyTable::open_tuned(maps, tuning)?,
            entry,
            many,
            questions,
            programs,
            rules,
        })
    }

    /// Asks a slot `repeat` times; gives the rule index, and the mean time.
    ///
    /// # Errors
    /// [`HarnessError::Dropped`] if there was no answer.
    pub fn ask(
        &self,
        slot: u32,
        tuple: &Tuple,
        repeat: u32,
    ) -> Result<(Option<u32>, Duration), HarnessError> {
        self.ask_and_go_on(slot, tuple, repeat, 0)
    }

    /// As [`Harness::ask`], with a continuation of the caller's (only 0 is there).
    ///
    /// # Errors
    /// As [`Harness::ask`].
    pub fn ask_and_go_on(
        &self,
        slot: u32,
        tuple: &Tuple,
        repeat: u32,
        continuation: u32,
    ) -> Result<(Option<u32>, Duration), HarnessError> {
        let mut frame = vec![0u8; FRAME_HEADER];
        frame.extend(walk_bytes(slot, continuation, tuple));
        let output = self.entry.test_run(&TestRun {
            data: &frame,
            repeat,
            ..TestRun::default()
        })?;
        let answer = output.data.get(FRAME_HEADER + 8..FRAME_HEADER + 12);
        match (output.value, answer.and_then(|bytes| bytes.try_into().ok())) {
            (0, Some(bytes)) => {
                let index = u32::from_ne_bytes(bytes);
                Ok(((index != RULE_NONE).then_some(index), output.duration))
            }
            _ => Err(HarnessError::Dropped),
        }
    }

    /// Asks all tuples one after the other, `repeat` times in all; gives the mean time of one, with about 40 ns for
    /// the way in and out.
    ///
    /// # Errors
    /// The kernel refuses, or a packet was dropped.
    pub fn time(&self, slot: u32, tuples: &[Tuple], repeat: u32) -> Result<Duration, HarnessError> {
        let count = self.questions.info().entries_max;
        let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
        let questions = tuples.iter().cycle().take(count as usize);
        let values: Vec<u8> = questions
            .flat_map(|tuple| walk_bytes(slot, 0, tuple))
            .collect();
        self.questions.update_batch(&keys, &values)?;
        let frame = [0; FRAME_HEADER + 64];
        let output = self.many.test_run(&TestRun {
            data: &frame,
            repeat,
            ..TestRun::default()
        })?;
        if output.value == 0 {
            Ok(output.duration)
        } else {
            Err(HarnessError::Dropped)
        }
    }

    /// Enforces one policy alone, and gives its slot.
    ///
    /// # Errors
    /// The table refuses.
    pub fn enforce(
        &mut self,
        policy: Policy,
        members: &BTreeSet<SecurityGroupMember>,
    ) -> Result<u32, HarnessError> {
        let key = key(policy.ethertype);
        self.table
            .enforce(BTreeMap::from([(key.clone(), policy)]), members)?;
        self.table.settle()?;
        self.table.slot(&key).ok_or(HarnessError::Missing("slot"))
    }

    /// Whether a slot is served by a compiled program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn is_compiled(&self, slot: u32) -> Result<bool, HarnessError> {
        Ok(self.program_id(slot)?.is_some())
    }

    /// The kernel's number of the program in a slot, if it is compiled.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn program_id(&self, slot: u32) -> Result<Option<u32>, HarnessError> {
        Ok(self
            .programs
            .lookup(&slot.to_ne_bytes())?
            .map(|bytes| id_of(&bytes)))
    }

    /// The kernel's number of the rule table in a slot.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn table_id(&self, slot: u32) -> Result<Option<u32>, HarnessError> {
        Ok(self
            .rules
            .lookup(&slot.to_ne_bytes())?
            .map(|bytes| id_of(&bytes)))
    }
}

fn id_of(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

/// Instructions of a policy's program: what the background makes, without loading it.
///
/// # Errors
/// The generator made a mistake.
pub fn instructions(policy: &Policy) -> Result<usize, CompileError> {
    let domain = u32::from(!policy.remote_groups.is_empty());
    let programs = generate(&policy.rules, domain, &Target::default(), &[])?;
    Ok(programs.iter().map(Vec::len).sum())
}

/// A `PolicyWalk` that asks.
fn walk_bytes(slot: u32, continuation: u32, tuple: &Tuple) -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &slot.to_ne_bytes());
    put(4, &continuation.to_ne_bytes());
    put(12, &tuple.port.to_ne_bytes());
    put(14, &[tuple.protocol]);
    for (n, word) in tuple.remote.iter().enumerate() {
        put(16 + 4 * n, &word.to_ne_bytes());
    }
    bytes
}

/// The key under which [`Harness::enforce`] puts a policy.
#[must_use]
pub fn key(ethertype: EtherType) -> PolicyKey {
    let groups = BTreeSet::from([SecurityGroupId::from(uuid::Uuid::nil())]);
    PolicyKey {
        groups,
        direction: Direction::Ingress,
        ethertype,
    }
}
