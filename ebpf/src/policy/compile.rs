//! From rules to loaded programs: one, or several parts where the verifier would not take one.
//!
//! Guarantees: the parts together answer as the list does (each has a consecutive range of rules, asked in order);
//! nothing is put into any map here. A policy that the verifier refuses in [`PARTS_MAX`] parts too is refused.

use super::emit::{Part, Target, emit};
use super::tree::Node;
use super::{Policy, Rule};
use crate::sys::{Insn, Map, Prog, ProgSpec, ProgType, SysError};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use weft_ebpf_common::policy::{DOMAIN_NONE, PROGRAM_PARTS, PROGRAM_PARTS_MAX};

/// Parts of one policy at most: each is a tail call, of which a packet has 33.
const PARTS_MAX: usize = 8;
/// Instructions of one program: what the verifier looks at in all (`BPF_COMPLEXITY_LIMIT_INSNS`).
const INSNS_MAX: usize = 1_000_000;

/// Why a policy has no program. The interpreter serves it.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The verifier, or the kernel, refused it in as many parts as may be.
    #[error("a policy of {rules} rules is left to the interpreter")]
    Refused {
        /// How many rules.
        rules: usize,
        /// The last refusal.
        source: SysError,
    },
    /// Too large in as many parts as may be.
    #[error("a policy of {rules} rules is left to the interpreter: its tree is too large")]
    TooLarge {
        /// How many rules.
        rules: usize,
    },
    /// All places for further parts are taken.
    #[error(
        "a policy of {rules} rules is left to the interpreter: {PROGRAM_PARTS_MAX} parts of large policies are in use"
    )]
    Parts {
        /// How many rules.
        rules: usize,
    },
    /// The generator made a mistake.
    #[error("a policy of {rules} rules is left to the interpreter: the generated program is wrong")]
    Generator {
        /// How many rules.
        rules: usize,
    },
}

/// The places in `policy_programs` for further parts, shared by the table and the background.
#[derive(Clone, Debug)]
pub(super) struct PartPlaces(Arc<Mutex<BTreeSet<u32>>>);

/// Places that are taken; given back when dropped, which must be after the programs have left them.
#[derive(Debug)]
pub(super) struct TakenPlaces {
    pub(super) places: Vec<u32>,
    all: PartPlaces,
}

impl PartPlaces {
    pub(super) fn all() -> Self {
        let places = PROGRAM_PARTS..PROGRAM_PARTS + PROGRAM_PARTS_MAX;
        Self(Arc::new(Mutex::new(places.collect())))
    }

    /// Takes the places that an earlier process has filled.
    pub(super) fn take_used(&self, programs: &Map) -> Result<TakenPlaces, SysError> {
        let mut taken = TakenPlaces {
            places: Vec::new(),
            all: self.clone(),
        };
        for place in PROGRAM_PARTS..PROGRAM_PARTS + PROGRAM_PARTS_MAX {
            if programs.lookup(&place.to_ne_bytes())?.is_some() {
                taken.places.push(place);
            }
        }
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.retain(|place| !taken.places.contains(place));
        drop(free);
        Ok(taken)
    }

    fn take(&self, count: usize) -> Option<TakenPlaces> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < count {
            return None;
        }
        let places = (0..count).filter_map(|_| free.pop_first()).collect();
        Some(TakenPlaces {
            places,
            all: self.clone(),
        })
    }
}

impl Drop for TakenPlaces {
    fn drop(&mut self) {
        self.all
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(self.places.drain(..));
    }
}

/// Loaded programs that wait to be installed.
#[derive(Debug)]
pub(super) struct Compiled {
    /// What goes into the slot.
    pub(super) head: Prog,
    /// What goes into `parts.places`, in this order.
    pub(super) rest: Vec<Prog>,
    /// Where.
    pub(super) parts: TakenPlaces,
    /// Instructions of all.
    pub(super) insns: usize,
}

/// Generates the programs of a policy in `1 + places.len()` parts.
pub(super) fn generate(
    rules: &[Rule],
    domain: u32,
    target: &Target,
    places: &[u32],
) -> Result<Vec<Vec<Insn>>, CompileError> {
    let size = rules.len().div_ceil(places.len() + 1).max(1);
    let domain = Some(domain).filter(|domain| *domain != DOMAIN_NONE);
    let mut chunks = rules.chunks(size);
    (0..=places.len())
        .map(|n| {
            let tree = Node::of(chunks.next().unwrap_or(&[]));
            let part = Part {
                first: n == 0,
                domain,
                next: places.get(n).copied(),
            };
            emit(&tree, target, &part)
                .map_err(|_unplaced| CompileError::Generator { rules: rules.len() })
        })
        .collect()
}

/// Generates and loads a policy's programs, in as few parts as the verifier takes.
pub(super) fn compile(
    policy: &Policy,
    domain: u32,
    target: &Target,
    places: &PartPlaces,
    parts_min: usize,
) -> Result<Compiled, CompileError> {
    let rules = policy.rules.len();
    let mut error = CompileError::TooLarge { rules };
    let mut parts = parts_min.max(1);
    while parts <= PARTS_MAX {
        let taken = places
            .take(parts - 1)
            .ok_or(CompileError::Parts { rules })?;
        let programs = generate(&policy.rules, domain, target, &taken.places)?;
        if programs.iter().all(|insns| insns.len() <= INSNS_MAX) {
            match load_all(&programs) {
                Ok((head, rest)) => {
                    let insns = programs.iter().map(Vec::len).sum();
                    return Ok(Compiled {
                        head,
                        rest,
                        parts: taken,
                        insns,
                    });
                }
                Err(source) => error = CompileError::Refused { rules, source },
            }
        }
        parts *= 2;
    }
    Err(error)
}

fn load_all(programs: &[Vec<Insn>]) -> Result<(Prog, Vec<Prog>), SysError> {
    let mut loaded = programs
        .iter()
        .map(|insns| load(insns))
        .collect::<Result<Vec<_>, _>>()?;
    let head = loaded.remove(0);
    Ok((head, loaded))
}

/// Loads one program so that it and the stages may tail-call each other.
pub(super) fn load(insns: &[Insn]) -> Result<Prog, SysError> {
    Prog::load(&ProgSpec {
        name: "weft_policy",
        kind: ProgType::SchedCls,
        expected_attach_type: 0,
        insns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::sets::{self, Shape};
    use std::fmt::Write;
    use weft_model::EtherType;

    /// Instructions of fixed rule sets. A change is no mistake, but it must be seen: write the table anew with
    /// `WEFT_REGENERATE=1 cargo test -p weft-ebpf instruction_counts`.
    #[test]
    fn instruction_counts_are_those_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/policy_instructions.txt");
        let mut table = String::from("# shape family rules instructions\n");
        for shape in Shape::ALL {
            for ethertype in [EtherType::Ipv4, EtherType::Ipv6] {
                for count in [1, 10, 100, 1_000, 10_000] {
                    let policy = sets::policy(shape, ethertype, count);
                    let domain = u32::from(!policy.remote_groups.is_empty());
                    let programs =
                        generate(&policy.rules, domain, &Target::default(), &[]).unwrap();
                    let insns = programs[0].len();
                    writeln!(table, "{shape:?} {ethertype:?} {count} {insns}").unwrap();
                }
            }
        }
        if std::env::var_os("WEFT_REGENERATE").is_some() {
            std::fs::write(path, &table).unwrap();
        }
        assert_eq!(table, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn places_for_parts_are_limited_and_given_back() {
        let places = PartPlaces::all();
        let most = usize::try_from(PROGRAM_PARTS_MAX).unwrap();
        let all = places.take(most).unwrap();
        assert!(places.take(1).is_none());
        drop(all);
        assert_eq!(places.take(most).unwrap().places.len(), most);
    }
}
