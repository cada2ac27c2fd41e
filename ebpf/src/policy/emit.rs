//! From the decision tree to instructions. Pure: descriptors and the domain are numbers given by the caller.
//!
//! Guarantees: r6 is the packet's context and r7 the walk throughout, and nothing else lives across a jump: fields are
//! loaded anew for each comparison, which the processor does for nothing and which keeps the verifier's states equal,
//! so that it looks at every instruction once. The program ends in the continuation, or drops the packet.
//!
//! What it costs: the branches that go either way. Of 4,096 packets in turn, every second cut is foretold wrongly; that is
//! 3 to 4 ns a cut, in a small program as in one of a megabyte. With 512 packets, which the processor can learn, 10,000
//! rules cost 12 ns more than one. So the leaves are written without branches: see [`super::leaf`].

use super::encode::{
    Assembler, Condition, Helper, Label, Operand, Operation, Reg, UnplacedLabel, Width,
};
use super::leaf::leaf;
use super::tree::{FIELDS, Node};
use crate::sys::Insn;
use weft_ebpf_common::policy::{PolicyWalk, RULE_NONE};

const CONTEXT: Reg = Reg(6);
pub(super) const WALK: Reg = Reg(7);
const FRAME: Reg = Reg(10);
pub(super) const VALUE: Reg = Reg(2);
/// TC_ACT_SHOT
const DROP: u32 = 2;

pub(super) const RULE_INDEX: i16 = offset(core::mem::offset_of!(PolicyWalk, rule_index));
const CONTINUATION: i16 = offset(core::mem::offset_of!(PolicyWalk, continuation));
const PORT: i16 = offset(core::mem::offset_of!(PolicyWalk, port));
const PROTOCOL: i16 = offset(core::mem::offset_of!(PolicyWalk, protocol));
const REMOTE: i16 = offset(core::mem::offset_of!(PolicyWalk, remote));
pub(super) const GROUP_BITS: i16 = offset(core::mem::offset_of!(PolicyWalk, group_bits));

/// Offsets of a walk and of the frame are far below the limit.
#[allow(clippy::cast_possible_truncation, reason = "64 bytes at most")]
const fn offset(bytes: usize) -> i16 {
    assert!(bytes < 64);
    bytes as i16
}

/// Where a program finds what it needs: descriptors as the loading process has them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// `walks`.
    pub(crate) walks: i32,
    /// `stages`.
    pub(crate) stages: i32,
    /// `policy_members`.
    pub(crate) members: i32,
    /// `policy_programs`.
    pub(crate) programs: i32,
}

/// Which part of a policy a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first part clears the answer.
    pub(crate) first: bool,
    /// The domain under which the first part looks the remote address up; none if no rule of the policy has a group.
    pub(crate) domain: Option<u32>,
    /// The index in `policy_programs` of the part that is asked if this one has no answer.
    pub(crate) next: Option<u32>,
}

/// Writes the program of one part.
pub(crate) fn emit(tree: &Node, target: &Target, part: &Part) -> Result<Vec<Insn>, UnplacedLabel> {
    let mut a = Assembler::default();
    let (done, fail) = (a.label(), a.label());
    prologue(&mut a, target, part, fail);
    node(&mut a, tree, done, false);
    a.place(done);
    epilogue(&mut a, target, part, fail);
    a.finish()
}

fn prologue(a: &mut Assembler, target: &Target, part: &Part, fail: Label) {
    a.copy(CONTEXT, Reg(1));
    a.store_word(FRAME, -4, 0);
    a.copy(Reg(2), FRAME);
    a.add(Reg(2), -4);
    a.map(Reg(1), target.walks);
    a.call(Helper::MapLookup);
    a.branch_null(Reg(0), fail);
    a.copy(WALK, Reg(0));
    if part.first {
        a.store_word(WALK, RULE_INDEX, RULE_NONE);
    }
    if let (true, Some(domain)) = (part.first, part.domain) {
        group_bits(a, target, domain);
    }
}

/// Looks the remote address up in the domain, and copies its bits into the walk.
fn group_bits(a: &mut Assembler, target: &Target, domain: u32) {
    let (absent, ready) = (a.label(), a.label());
    a.store_word(FRAME, -24, domain);
    for word in 0..4 {
        a.load(Width::Word, VALUE, WALK, REMOTE + 4 * word);
        a.store(Width::Word, FRAME, -20 + 4 * word, VALUE);
    }
    a.copy(Reg(2), FRAME);
    a.add(Reg(2), -24);
    a.map(Reg(1), target.members);
    a.call(Helper::MapLookup);
    a.branch_null(Reg(0), absent);
    for word in 0..4 {
        a.load(Width::Double, VALUE, Reg(0), 8 * word);
        a.store(Width::Double, WALK, GROUP_BITS + 8 * word, VALUE);
    }
    a.jump(ready);
    a.place(absent);
    for word in 0..8 {
        a.store_word(WALK, GROUP_BITS + 4 * word, 0);
    }
    a.place(ready);
}

fn epilogue(a: &mut Assembler, target: &Target, part: &Part, fail: Label) {
    if let Some(next) = part.next {
        let answered = a.label();
        a.load(Width::Word, VALUE, WALK, RULE_INDEX);
        a.branch(Condition::NotEqual, VALUE, RULE_NONE, answered);
        a.copy(Reg(1), CONTEXT);
        a.map(Reg(2), target.programs);
        a.set(Reg(3), next);
        a.call(Helper::TailCall);
        a.jump(fail);
        a.place(answered);
    }
    a.copy(Reg(1), CONTEXT);
    a.load(Width::Word, Reg(3), WALK, CONTINUATION);
    a.map(Reg(2), target.stages);
    a.call(Helper::TailCall);
    a.place(fail);
    a.set(Reg(0), DROP);
    a.exit();
}

/// Loads a field of the walk.
pub(super) fn load_field(a: &mut Assembler, to: Reg, field: usize) {
    const PLACES: [(Width, i16); FIELDS] = [
        (Width::Byte, PROTOCOL),
        (Width::Half, PORT),
        (Width::Word, REMOTE),
        (Width::Word, REMOTE + 4),
        (Width::Word, REMOTE + 8),
        (Width::Word, REMOTE + 12),
    ];
    let (width, place) = PLACES[field];
    a.load(width, to, WALK, place);
}

/// Writes a part of the tree; it ends by going to `done`. `guard`: there may be an answer already, and only a smaller
/// one replaces it.
fn node(a: &mut Assembler, tree: &Node, done: Label, guard: bool) {
    match tree {
        Node::Cut {
            field,
            value,
            left,
            right,
        } => {
            let otherwise = a.label();
            load_field(a, VALUE, *field);
            a.branch(Condition::GreaterOrEqual, VALUE, *value, otherwise);
            node(a, left, done, guard);
            a.place(otherwise);
            node(a, right, done, guard);
        }
        Node::Both { first, second } => {
            let middle = a.label();
            node(a, first, middle, guard);
            a.place(middle);
            a.load(Width::Word, VALUE, WALK, RULE_INDEX);
            a.branch(Condition::LessOrEqual, VALUE, second.rule_index_min(), done);
            node(a, second, done, true);
        }
        Node::Leaf { region, rules } => leaf(a, region, rules, done, guard),
        Node::Groups { parts } => {
            groups(a, parts);
            a.jump(done);
        }
    }
}

/// Goes to `none` if none of these groups, which share a 32-bit word, is set.
fn test_groups(a: &mut Assembler, parts: &[(u8, Node)], none: Label) {
    let word = parts.first().map_or(0, |(bit, _)| bit / 32);
    let mask = parts
        .iter()
        .fold(0, |mask, (bit, _)| mask | 1 << (bit % 32));
    test_mask(a, word, mask, none);
}

/// Goes to `none` if no bit of the mask is set in a 32-bit word of the group bits.
fn test_mask(a: &mut Assembler, word: u8, mask: u32, none: Label) {
    a.load(Width::Word, VALUE, WALK, GROUP_BITS + 4 * i16::from(word));
    a.calculate_word(Operation::And, VALUE, Operand::Value(mask));
    a.branch(Condition::Equal, VALUE, 0, none);
}

/// The trees of the groups that are set: whole words, then bytes of bits are passed over if none is.
fn groups(a: &mut Assembler, parts: &[(u8, Node)]) {
    for word in parts.chunk_by(|x, y| x.0 / 32 == y.0 / 32) {
        let after_word = a.label();
        test_groups(a, word, after_word);
        for byte in word.chunk_by(|x, y| x.0 / 8 == y.0 / 8) {
            let after_byte = a.label();
            if byte.len() > 2 && byte.len() < word.len() {
                test_groups(a, byte, after_byte);
            }
            for part in byte.chunks(1) {
                let next = a.label();
                test_groups(a, part, next);
                for (_, tree) in part {
                    node(a, tree, next, true);
                }
                a.place(next);
            }
            a.place(after_byte);
        }
        a.place(after_word);
    }
}
