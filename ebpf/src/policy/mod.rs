//! The policy compiler: from security groups to what the kernel runs for them.
//!
//! [`lower`] turns the rules of a set of groups, for one direction and family, into a [`Policy`]: plain data, pure.
//! [`PolicyTable`] enforces policies by slot: at once through the interpreter (one pointer swap in `policy_rules`), and
//! from the moment a background compile has finished, by a decision tree of generated instructions. Both give the
//! same answer: the smallest matching rule index (docs/pipeline.md, "Rules"). Layouts: [`weft_ebpf_common::policy`].
//!
//! It does not parse packets, attach anything, or know what a port is beyond its set of groups.
//!
//! How the engine uses it:
//! 1. load the stages' object, and give the maps `policy_programs`, `policy_rules`, `policy_members`, `walks`, `stages`
//!    and the program `policy_interpreter` to [`PolicyTable::open`];
//! 2. for each snapshot: [`PolicyTable::apply`] (all rules and members are in force when it returns), then write
//!    [`PolicyTable::slot`] of each port, direction and family into the ports' values, then [`PolicyTable::settle`];
//! 3. every now and then: [`PolicyTable::poll`], which installs what has been compiled and says what was refused.

mod background;
mod compile;
mod emit;
mod encode;
pub mod harness;
mod leaf;
mod lower;
mod members;
mod rules;
pub mod sets;
mod table;
mod tree;
mod writer;

pub use compile::CompileError;
pub use lower::{LowerError, Policy, PolicyKey, Remote, Rule, address_words, lower};
pub(crate) use table::MEMBERS_ROOM;
pub use table::{
    CompileReport, Enforced, INTERPRETED_RULES_MAX, PolicyError, PolicyMaps, PolicyTable, Tuning,
};
