//! A leaf of the decision tree as instructions: a few rules, all of them compared, without a branch. Pure.
//!
//! Guarantees: the smallest rule that matches is answered; with `guard` an answer that is there already stays if it is
//! smaller. Which of a leaf's rules a packet matches cannot be foretold, and each branch that is foretold wrongly costs as
//! much as comparing three rules: so every rule becomes a mask, and the answer is put together from the masks.

use super::emit::{GROUP_BITS, RULE_INDEX, VALUE, WALK, load_field};
use super::encode::{Assembler, Label, Operand, Operation, Reg, Width};
use super::tree::{Boxed, FIELDS, Region};
use weft_ebpf_common::policy::RULE_NONE;

/// The answer so far.
const ANSWER: Reg = Reg(3);
/// What a rule and a packet differ in; then all ones where they differ, else zero.
const DIFFERENCE: Reg = Reg(4);
const LIMIT: Reg = Reg(5);
const LIMIT_LOW: Reg = Reg(0);
/// The sign of a 64-bit number.
const SIGN: Operand = Operand::Value(63);

/// Writes a leaf's rules, which are in ascending order; it ends by going to `done`.
pub(super) fn leaf(a: &mut Assembler, region: &Region, rules: &[Boxed], done: Label, guard: bool) {
    let always = |rule: &Boxed| rule.covers(region) && rule.group.is_none();
    let (asked, otherwise) = match rules.iter().position(always) {
        Some(end) => (&rules[..end], rules[end].rule_index),
        None => (rules, RULE_NONE),
    };
    if asked.is_empty() && otherwise == RULE_NONE {
        a.jump(done);
        return;
    }
    a.set(ANSWER, otherwise);
    for rule in asked.iter().rev() {
        difference(a, rule, region);
        // Where the mask is zero the rule's index, where it is all ones the answer as it was.
        let index = Operand::Value(rule.rule_index);
        a.calculate_word(Operation::ExclusiveOr, ANSWER, index);
        a.calculate_word(Operation::And, ANSWER, Operand::Register(DIFFERENCE));
        a.calculate_word(Operation::ExclusiveOr, ANSWER, index);
    }
    if guard {
        keep_smaller(a);
    }
    a.store(Width::Word, WALK, RULE_INDEX, ANSWER);
    a.jump(done);
}

/// The answer that is there already, if it is smaller.
fn keep_smaller(a: &mut Assembler) {
    a.load(Width::Word, VALUE, WALK, RULE_INDEX);
    a.calculate(Operation::Subtract, ANSWER, Operand::Register(VALUE));
    a.copy(DIFFERENCE, ANSWER);
    a.calculate(Operation::ShiftRightSigned, DIFFERENCE, SIGN);
    a.calculate(Operation::And, ANSWER, Operand::Register(DIFFERENCE));
    a.calculate(Operation::Add, ANSWER, Operand::Register(VALUE));
}

/// `DIFFERENCE` := zero if the rule matches, else all ones.
fn difference(a: &mut Assembler, rule: &Boxed, region: &Region) {
    let mut to = DIFFERENCE;
    let mut collect = |a: &mut Assembler, test: &dyn Fn(&mut Assembler, Reg)| {
        test(a, to);
        if to == VALUE {
            a.calculate(Operation::Or, DIFFERENCE, Operand::Register(VALUE));
        }
        to = VALUE;
    };
    for field in (0..FIELDS).filter(|field| !rule.covers_field(region, *field)) {
        collect(a, &|a, to| field_difference(a, rule, region, field, to));
    }
    if let Some(bit) = rule.group {
        collect(a, &|a, to| group_difference(a, bit, to));
    }
    // What was collected is below 2^33, so that its negative has the sign.
    a.negate(DIFFERENCE);
    a.calculate(Operation::ShiftRightSigned, DIFFERENCE, SIGN);
}

/// `to` := zero if the field is in the rule's range, else something below 2^32.
fn field_difference(a: &mut Assembler, rule: &Boxed, region: &Region, field: usize, to: Reg) {
    let (first, last) = (rule.first[field], rule.last[field]);
    load_field(a, to, field);
    let free = first ^ last;
    if first & free == 0 && free & free.wrapping_add(1) == 0 {
        // A value, or a prefix: the bits behind it do not count.
        a.calculate_word(Operation::ExclusiveOr, to, Operand::Value(first));
        if free != 0 {
            let bits = Operand::Value(free.count_ones());
            a.calculate_word(Operation::ShiftRight, to, bits);
        }
        return;
    }
    let (low, high) = (first > region.first[field], last < region.last[field]);
    if high {
        a.set(LIMIT, last);
        a.calculate(Operation::Subtract, LIMIT, Operand::Register(to));
    }
    if low {
        a.set(LIMIT_LOW, first);
        a.calculate(Operation::Subtract, to, Operand::Register(LIMIT_LOW));
    }
    match (low, high) {
        (true, true) => a.calculate(Operation::Or, to, Operand::Register(LIMIT)),
        (false, true) => a.copy(to, LIMIT),
        _ => {}
    }
    a.calculate(Operation::ShiftRight, to, SIGN);
}

/// `to` := zero if the remote address is in the group, else one.
fn group_difference(a: &mut Assembler, bit: u8, to: Reg) {
    let place = GROUP_BITS + 4 * i16::from(bit / 32);
    a.load(Width::Word, to, WALK, place);
    let shift = Operand::Value(u32::from(bit % 32));
    a.calculate_word(Operation::ShiftRight, to, shift);
    a.calculate_word(Operation::And, to, Operand::Value(1));
    a.calculate_word(Operation::ExclusiveOr, to, Operand::Value(1));
}
