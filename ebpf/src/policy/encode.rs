//! eBPF instructions with labels (RFC 9669): what the emitter writes, and how jumps become distances.
//!
//! Guarantees: every jump reaches its label whatever the distance (conditional jumps that do not fit 16 bits go over a
//! `gotol`); [`Assembler::finish`] refuses a label that was never placed. It knows nothing of policies.

use crate::sys::Insn;

/// A register, r0 to r10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg(pub(crate) u8);

/// A place in the program that jumps go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Bytes of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Byte,
    Half,
    Word,
    Double,
}

/// Conditions of a jump on the low 32 bits of a register, unsigned (class JMP32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is calculated with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add = 0x00,
    Subtract = 0x10,
    Or = 0x40,
    And = 0x50,
    ShiftRight = 0x70,
    ExclusiveOr = 0xa0,
    /// The sign moves in from the left.
    ShiftRightSigned = 0xc0,
}

/// The other half of a calculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Register(Reg),
    /// In 64 bits it is taken for a signed number.
    Value(u32),
}

/// Helper functions, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    MapLookup = 1,
    TailCall = 12,
}

/// A label was used and never placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a label of the generated program was never placed")]
pub(crate) struct UnplacedLabel;

const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU32: u8 = 0x04;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEM: u8 = 0x60;
const SOURCE_REGISTER: u8 = 0x08;
const OPERATION_NEGATE: u8 = 0x80;
const OPERATION_MOV: u8 = 0xb0;
const LOAD_DOUBLE_IMMEDIATE: u8 = 0x18;
const PSEUDO_MAP_FD: u8 = 1;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x00;

impl Width {
    fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }
}

impl Condition {
    fn bits(self) -> u8 {
        match self {
            Self::Equal => 0x10,
            Self::Greater => 0x20,
            Self::GreaterOrEqual => 0x30,
            Self::NotEqual => 0x50,
            Self::Less => 0xa0,
            Self::LessOrEqual => 0xb0,
        }
    }

    fn inverse(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::Greater => Self::LessOrEqual,
            Self::LessOrEqual => Self::Greater,
        }
    }
}

/// The bits of an unsigned immediate.
fn immediate(value: u32) -> i32 {
    i32::from_ne_bytes(value.to_ne_bytes())
}

enum Item {
    Plain(Insn),
    Jump(Label),
    Branch {
        condition: Condition,
        register: Reg,
        value: u32,
        label: Label,
        far: bool,
    },
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Branch { far: true, .. } => 2,
            _ => 1,
        }
    }
}

/// A program that is being written.
#[derive(Default)]
pub(crate) struct Assembler {
    items: Vec<Item>,
    labels: Vec<Option<usize>>,
}

impl Assembler {
    /// A label to be placed later.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label here.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.items.len());
    }

    fn plain(&mut self, code: u8, destination: Reg, source: Reg, offset: i16, value: i32) {
        let registers = destination.0 | source.0 << 4;
        self.items.push(Item::Plain(Insn {
            code,
            registers,
            offset,
            immediate: value,
        }));
    }

    /// `to = *(width *)(base + offset)`
    pub(crate) fn load(&mut self, width: Width, to: Reg, base: Reg, offset: i16) {
        self.plain(CLASS_LDX | MODE_MEM | width.bits(), to, base, offset, 0);
    }

    /// `*(width *)(base + offset) = from`
    pub(crate) fn store(&mut self, width: Width, base: Reg, offset: i16, from: Reg) {
        self.plain(CLASS_STX | MODE_MEM | width.bits(), base, from, offset, 0);
    }

    /// `*(u32 *)(base + offset) = value`
    pub(crate) fn store_word(&mut self, base: Reg, offset: i16, value: u32) {
        let code = CLASS_ST | MODE_MEM | Width::Word.bits();
        self.plain(code, base, Reg(0), offset, immediate(value));
    }

    /// `to = from`, 64 bits.
    pub(crate) fn copy(&mut self, to: Reg, from: Reg) {
        self.plain(
            CLASS_ALU64 | OPERATION_MOV | SOURCE_REGISTER,
            to,
            from,
            0,
            0,
        );
    }

    /// `to = value`, zero-extended.
    pub(crate) fn set(&mut self, to: Reg, value: u32) {
        self.plain(CLASS_ALU32 | OPERATION_MOV, to, Reg(0), 0, immediate(value));
    }

    /// `to += value`, 64 bits.
    pub(crate) fn add(&mut self, to: Reg, value: i32) {
        self.plain(CLASS_ALU64 | Operation::Add as u8, to, Reg(0), 0, value);
    }

    /// `to = to <operation> operand`, 64 bits.
    pub(crate) fn calculate(&mut self, operation: Operation, to: Reg, operand: Operand) {
        self.operation(CLASS_ALU64 | operation as u8, to, operand);
    }

    /// `to = to <operation> operand`, 32 bits; the upper half becomes zero.
    pub(crate) fn calculate_word(&mut self, operation: Operation, to: Reg, operand: Operand) {
        self.operation(CLASS_ALU32 | operation as u8, to, operand);
    }

    fn operation(&mut self, code: u8, to: Reg, operand: Operand) {
        match operand {
            Operand::Register(from) => self.plain(code | SOURCE_REGISTER, to, from, 0, 0),
            Operand::Value(value) => self.plain(code, to, Reg(0), 0, immediate(value)),
        }
    }

    /// `to = -to`, 64 bits.
    pub(crate) fn negate(&mut self, to: Reg) {
        self.plain(CLASS_ALU64 | OPERATION_NEGATE, to, Reg(0), 0, 0);
    }

    /// `to` = the map of a descriptor.
    pub(crate) fn map(&mut self, to: Reg, fd: i32) {
        self.plain(LOAD_DOUBLE_IMMEDIATE, to, Reg(PSEUDO_MAP_FD), 0, fd);
        self.plain(0, Reg(0), Reg(0), 0, 0);
    }

    /// Calls a helper with r1 to r5; the result is in r0, r1 to r5 are lost.
    pub(crate) fn call(&mut self, helper: Helper) {
        self.plain(CALL, Reg(0), Reg(0), 0, helper as i32);
    }

    /// Returns r0.
    pub(crate) fn exit(&mut self) {
        self.plain(EXIT, Reg(0), Reg(0), 0, 0);
    }

    /// `goto label`
    pub(crate) fn jump(&mut self, label: Label) {
        self.items.push(Item::Jump(label));
    }

    /// `if (u32)register <condition> value goto label`
    pub(crate) fn branch(&mut self, condition: Condition, register: Reg, value: u32, label: Label) {
        self.items.push(Item::Branch {
            condition,
            register,
            value,
            label,
            far: false,
        });
    }

    /// `if register == 0 goto label`, 64 bits: for pointers.
    pub(crate) fn branch_null(&mut self, register: Reg, label: Label) {
        // A pointer must be compared whole; the jump is short in all uses, and its distance is written by `finish`
        // through a branch over one instruction.
        let code = CLASS_JMP | Condition::NotEqual.bits();
        self.plain(code, register, Reg(0), 1, 0);
        self.jump(label);
    }

    /// The instructions.
    pub(crate) fn finish(mut self) -> Result<Vec<Insn>, UnplacedLabel> {
        let positions = self.relax()?;
        let mut insns = Vec::with_capacity(*positions.last().unwrap_or(&0));
        for item in &self.items {
            match *item {
                Item::Plain(insn) => insns.push(insn),
                Item::Jump(label) => {
                    let target = self.target(&positions, label)?;
                    insns.push(jump(distance(insns.len(), target)));
                }
                Item::Branch {
                    condition,
                    register,
                    value,
                    label,
                    far,
                } => {
                    let target = self.target(&positions, label)?;
                    if far {
                        insns.push(branch(condition.inverse(), register, value, 1));
                        insns.push(jump(distance(insns.len(), target)));
                    } else {
                        let offset = i16::try_from(distance(insns.len(), target));
                        insns.push(branch(
                            condition,
                            register,
                            value,
                            offset.unwrap_or(i16::MAX),
                        ));
                    }
                }
            }
        }
        Ok(insns)
    }

    /// Makes branches far until all others fit, and says where each item begins. Ends, because a branch never
    /// becomes near again.
    fn relax(&mut self) -> Result<Vec<usize>, UnplacedLabel> {
        loop {
            let mut positions = Vec::with_capacity(self.items.len() + 1);
            let mut at = 0;
            for item in &self.items {
                positions.push(at);
                at += item.len();
            }
            positions.push(at);
            let mut grown = Vec::new();
            for (n, item) in self.items.iter().enumerate() {
                if let Item::Branch {
                    label, far: false, ..
                } = item
                {
                    let target = self.target(&positions, *label)?;
                    if i16::try_from(distance(positions[n], target)).is_err() {
                        grown.push(n);
                    }
                }
            }
            if grown.is_empty() {
                return Ok(positions);
            }
            for n in grown {
                if let Item::Branch { far, .. } = &mut self.items[n] {
                    *far = true;
                }
            }
        }
    }

    fn target(&self, positions: &[usize], label: Label) -> Result<usize, UnplacedLabel> {
        let item = self.labels[label.0].ok_or(UnplacedLabel)?;
        Ok(positions[item])
    }
}

/// From the instruction after `at` to `target`.
fn distance(at: usize, target: usize) -> i32 {
    let signed = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    signed(target) - signed(at) - 1
}

fn jump(distance: i32) -> Insn {
    match i16::try_from(distance) {
        Ok(offset) => Insn {
            code: CLASS_JMP | JUMP,
            registers: 0,
            offset,
            immediate: 0,
        },
        Err(_far) => Insn {
            code: CLASS_JMP32 | JUMP,
            registers: 0,
            offset: 0,
            immediate: distance,
        },
    }
}

fn branch(condition: Condition, register: Reg, value: u32, offset: i16) -> Insn {
    let code = CLASS_JMP32 | condition.bits();
    Insn {
        code,
        registers: register.0,
        offset,
        immediate: immediate(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_the_standard() {
        let mut a = Assembler::default();
        a.load(Width::Half, Reg(2), Reg(7), 12);
        a.store_word(Reg(7), 8, u32::MAX);
        a.store(Width::Double, Reg(10), -8, Reg(2));
        a.copy(Reg(6), Reg(1));
        a.set(Reg(0), 2);
        a.add(Reg(2), -4);
        a.calculate_word(Operation::And, Reg(2), Operand::Value(0x8000_0000));
        a.calculate(Operation::Subtract, Reg(3), Operand::Register(Reg(2)));
        a.calculate(Operation::ShiftRightSigned, Reg(3), Operand::Value(63));
        a.negate(Reg(3));
        a.map(Reg(1), 5);
        a.call(Helper::TailCall);
        a.exit();
        let bytes: Vec<(u8, u8, i16, i32)> = a
            .finish()
            .unwrap()
            .iter()
            .map(|i| (i.code, i.registers, i.offset, i.immediate))
            .collect();
        assert_eq!(
            bytes,
            [
                (0x69, 0x72, 12, 0),
                (0x62, 0x07, 8, -1),
                (0x7b, 0x2a, -8, 0),
                (0xbf, 0x16, 0, 0),
                (0xb4, 0x00, 0, 2),
                (0x07, 0x02, 0, -4),
                (0x54, 0x02, 0, i32::MIN),
                (0x1f, 0x23, 0, 0),
                (0xc7, 0x03, 0, 63),
                (0x87, 0x03, 0, 0),
                (0x18, 0x11, 0, 5),
                (0x00, 0x00, 0, 0),
                (0x85, 0x00, 0, 12),
                (0x95, 0x00, 0, 0),
            ]
        );
    }

    #[test]
    fn near_jumps_take_one_instruction_in_both_directions() {
        let mut a = Assembler::default();
        let (back, forth) = (a.label(), a.label());
        a.place(back);
        a.branch(Condition::Less, Reg(2), 7, forth);
        a.jump(back);
        a.place(forth);
        a.exit();
        let insns = a.finish().unwrap();
        assert_eq!(
            (insns[0].code, insns[0].offset, insns[0].immediate),
            (0xa6, 1, 7)
        );
        assert_eq!((insns[1].code, insns[1].offset), (0x05, -2));
    }

    #[test]
    fn a_branch_at_the_limit_is_near_and_one_further_goes_over_gotol() {
        for (between, far) in [
            (usize::from(i16::MAX.unsigned_abs()), false),
            (32_768, true),
        ] {
            let mut a = Assembler::default();
            let label = a.label();
            a.branch(Condition::Equal, Reg(2), 1, label);
            for _ in 0..between {
                a.set(Reg(0), 0);
            }
            a.place(label);
            a.exit();
            let insns = a.finish().unwrap();
            if far {
                assert_eq!(
                    (insns[0].code, insns[0].offset),
                    (0x56, 1),
                    "jne over the gotol"
                );
                assert_eq!((insns[1].code, insns[1].immediate), (0x06, 32_768));
            } else {
                assert_eq!((insns[0].code, insns[0].offset), (0x16, i16::MAX));
            }
            assert_eq!(insns.len(), between + 2 + usize::from(far));
        }
    }

    #[test]
    fn a_label_that_was_never_placed_is_refused() {
        let mut a = Assembler::default();
        let label = a.label();
        a.jump(label);
        assert_eq!(a.finish().unwrap_err(), UnplacedLabel);
    }
}
