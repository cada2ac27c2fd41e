//! Entry stubs: the few instructions on each device that name its slot and enter the shared stages. So no packet looks
//! its device up, and a test run enters the same way.

use crate::sys::Insn;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Offset of `cb[0]` in `struct __sk_buff`.
pub(crate) const CB_OFFSET: i16 = 48;

const STORE_WORD_IMMEDIATE: u8 = 0x62; // BPF_ST | BPF_MEM | BPF_W
const LOAD_IMMEDIATE_64: u8 = 0x18; // BPF_LD | BPF_DW | BPF_IMM
const MOVE_IMMEDIATE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const PSEUDO_MAP_FD: u8 = 1 << 4;
const HELPER_TAIL_CALL: i32 = 12;

/// What a frame becomes if the stages are not there: `TC_ACT_SHOT`, or for an uplink `TCX_NEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// Nothing passes.
    Drop,
    /// The host's own stack gets it.
    Pass,
}

/// Writes `words` into `cb[0..]` and enters a stage.
pub(crate) fn stub(
    stages: BorrowedFd<'_>,
    stage: u32,
    words: [u32; 3],
    fallback: Fallback,
) -> Vec<Insn> {
    let mut insns = Vec::new();
    for (offset, word) in (CB_OFFSET..).step_by(4).zip(words) {
        insns.push(Insn {
            code: STORE_WORD_IMMEDIATE,
            registers: 1,
            offset,
            immediate: word.cast_signed(),
        });
    }
    let plain = |code, registers, immediate| Insn {
        code,
        registers,
        offset: 0,
        immediate,
    };
    insns.push(plain(
        LOAD_IMMEDIATE_64,
        2 | PSEUDO_MAP_FD,
        stages.as_raw_fd(),
    ));
    insns.push(plain(0, 0, 0));
    insns.push(plain(MOVE_IMMEDIATE, 3, stage.cast_signed()));
    insns.push(plain(CALL, 0, HELPER_TAIL_CALL));
    insns.push(plain(
        MOVE_IMMEDIATE,
        0,
        match fallback {
            Fallback::Drop => 2,
            Fallback::Pass => -1,
        },
    ));
    insns.push(plain(EXIT, 0, 0));
    insns
}
