//! The classifier's layouts: what a security policy is asked, what it answers, and its tables. The same as
//! `ebpf/programs/policy.h`.
//!
//! **How a packet is classified.** The stage fills a [`PolicyWalk`] (it is the first member of the per-CPU scratch
//! value, at offset 0) and calls `policy_classify` (policy.h), which tail-calls `policy_programs[slot]`, a compiled
//! decision tree, or where there is none the interpreter at [`PROGRAM_INTERPRETER`], which walks the rules in
//! `policy_rules[slot]`. Either writes [`PolicyWalk::rule_index`] and tail-calls `stages[continuation]`. An empty
//! slot, chunk or continuation never allows anything: no rules is [`RULE_NONE`], a missing program drops the packet.
//!
//! Both are self-contained: group memberships are looked up by the policy itself, under its own identity domain, so
//! that a change of a policy is one pointer swap for any packet.

/// Policies at most: [`PolicyWalk::slot`] is below. Twice what 4,096 ports of two directions and families need,
/// so that an engine that restarts can put all of its policies beside those that it adopts.
pub const SLOTS_MAX: u32 = 32_768;
/// The first index of `policy_programs` that holds the further parts of policies too large for one program.
pub const PROGRAM_PARTS: u32 = SLOTS_MAX;
/// Further parts at most.
pub const PROGRAM_PARTS_MAX: u32 = 4_096;
/// The index of the interpreter in `policy_programs`.
pub const PROGRAM_INTERPRETER: u32 = PROGRAM_PARTS + PROGRAM_PARTS_MAX;
/// Entries of `policy_programs`.
pub const PROGRAMS_MAX: u32 = PROGRAM_INTERPRETER + 1;
/// [`PolicyWalk::rule_index`] if no rule matches.
pub const RULE_NONE: u32 = u32::MAX;
/// [`PolicyRule::group`] of a rule that names no group.
pub const GROUP_NONE: u16 = u16::MAX;
/// Rules in one value of a policy's table.
pub const CHUNK_RULES: usize = 32;
/// [`PolicyChunk::domain`] of a policy without remote groups: no lookup.
pub const DOMAIN_NONE: u32 = 0;

/// The classifier's question and answer. One cache line: every field is read for the first packet of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyWalk {
    /// In: which policy.
    pub slot: u32,
    /// In: where to go on, an index of `stages`.
    pub continuation: u32,
    /// Out: the matching rule with the smallest index, or [`RULE_NONE`].
    pub rule_index: u32,
    /// In: the destination port, host order; ICMP and ICMPv6: type · 256 + code; 0 for what has neither.
    pub port: u16,
    /// In: the protocol (IPv6: the upper-layer header's).
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
    /// In: the remote address as host-order words, the most significant first; IPv4: the first word, the others zero.
    pub remote: [u32; 4],
    /// Scratch of the policy: the groups of its domain that the remote address is in.
    pub group_bits: [u64; 4],
}

/// One rule as the interpreter reads it. A rule that names a group has an all-zero mask.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// Matches if `(protocol ^ walk.protocol) & protocol_mask == 0`.
    pub protocol: u8,
    /// 0 or 0xff.
    pub protocol_mask: u8,
    /// Bit of `group_bits`, or [`GROUP_NONE`].
    pub group: u16,
    /// First port (type · 256 + code); 0 for any.
    pub port_first: u16,
    /// Last port; 65535 for any.
    pub port_last: u16,
    /// What to answer.
    pub rule_index: u32,
    /// The remote range's address, as in [`PolicyWalk::remote`].
    pub remote: [u32; 4],
    /// Its mask.
    pub remote_mask: [u32; 4],
}

/// A value of a policy's table (an array; `policy_rules` is the array of these arrays). Rules in ascending order of
/// `rule_index`; every chunk but the last is full; the first chunk that is absent, or not full, ends the walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyChunk {
    /// Whose identities `group` means; [`DOMAIN_NONE`] if no rule names a group.
    pub domain: u32,
    /// Rules that hold, at most [`CHUNK_RULES`].
    pub count: u32,
    /// The rules.
    pub rules: [PolicyRule; CHUNK_RULES],
}

/// A key of `policy_members`; the value is the bits of the groups that the address is in (`[u64; 4]`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyMemberKey {
    /// The identity domain: one distinct list of remote groups of one family.
    pub domain: u32,
    /// The address, as in [`PolicyWalk::remote`].
    pub address: [u32; 4],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<PolicyWalk>() == 64);
    assert!(offset_of!(PolicyWalk, slot) == 0);
    assert!(offset_of!(PolicyWalk, continuation) == 4);
    assert!(offset_of!(PolicyWalk, rule_index) == 8);
    assert!(offset_of!(PolicyWalk, port) == 12);
    assert!(offset_of!(PolicyWalk, protocol) == 14);
    assert!(offset_of!(PolicyWalk, remote) == 16);
    assert!(offset_of!(PolicyWalk, group_bits) == 32);
    assert!(size_of::<PolicyRule>() == 44);
    assert!(offset_of!(PolicyRule, group) == 2);
    assert!(offset_of!(PolicyRule, rule_index) == 8);
    assert!(offset_of!(PolicyRule, remote) == 12);
    assert!(offset_of!(PolicyRule, remote_mask) == 28);
    assert!(size_of::<PolicyChunk>() == 8 + 44 * CHUNK_RULES);
    assert!(offset_of!(PolicyChunk, rules) == 8);
    assert!(size_of::<PolicyMemberKey>() == 20);
};
