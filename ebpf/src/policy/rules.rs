//! A policy's table for the interpreter, in the kernel's bytes.
//!
//! Guarantees: the table is written whole before anybody can see it. Layouts: `weft_ebpf_common::policy`.

use super::{Policy, Remote, Rule};
use crate::sys::{Map, MapSpec, MapType, SysError};
use weft_ebpf_common::policy::{CHUNK_RULES, GROUP_NONE, PolicyChunk, PolicyRule};

impl Rule {
    /// The rule as the interpreter reads it.
    #[must_use]
    pub fn for_interpreter(&self) -> PolicyRule {
        let mut rule = PolicyRule {
            protocol: self.protocol.unwrap_or(0),
            protocol_mask: if self.protocol.is_some() { 0xff } else { 0 },
            group: GROUP_NONE,
            port_first: self.ports.0,
            port_last: self.ports.1,
            rule_index: self.rule_index,
            ..PolicyRule::default()
        };
        match self.remote {
            Remote::Any => {}
            Remote::Group(bit) => rule.group = bit.into(),
            Remote::Prefix { address, mask } => {
                rule.remote_mask = mask;
                rule.remote = std::array::from_fn(|word| address[word] & mask[word]);
            }
        }
        rule
    }
}

fn write_rule(rule: &PolicyRule, bytes: &mut Vec<u8>) {
    bytes.extend([rule.protocol, rule.protocol_mask]);
    for half in [rule.group, rule.port_first, rule.port_last] {
        bytes.extend(half.to_ne_bytes());
    }
    let words = [rule.rule_index]
        .into_iter()
        .chain(rule.remote)
        .chain(rule.remote_mask);
    words.for_each(|word| bytes.extend(word.to_ne_bytes()));
}

/// The table's values, one after the other; at least one.
fn chunks(policy: &Policy, domain: u32) -> Vec<u8> {
    let count = policy.rules.len().div_ceil(CHUNK_RULES).max(1);
    let mut bytes = Vec::with_capacity(count * size_of::<PolicyChunk>());
    for n in 0..count {
        let rules = policy.rules.iter().skip(n * CHUNK_RULES).take(CHUNK_RULES);
        bytes.extend(domain.to_ne_bytes());
        bytes.extend(u32::try_from(rules.len()).unwrap_or(0).to_ne_bytes());
        rules.for_each(|rule| write_rule(&rule.for_interpreter(), &mut bytes));
        bytes.resize((n + 1) * size_of::<PolicyChunk>(), 0);
    }
    bytes
}

/// Makes a table of a policy's rules.
pub(super) fn table_create(policy: &Policy, domain: u32) -> Result<Map, SysError> {
    let values = chunks(policy, domain);
    let count = u32::try_from(values.len() / size_of::<PolicyChunk>()).unwrap_or(1);
    let map = Map::create(&MapSpec {
        name: "policy_table",
        kind: MapType::Array,
        key_bytes: 4,
        value_bytes: size_of::<PolicyChunk>().try_into().unwrap_or(u32::MAX),
        entries_max: count,
        flags: Map::INNER_MAP,
        inner: None,
    })?;
    let keys: Vec<u8> = (0..count).flat_map(u32::to_ne_bytes).collect();
    map.update_batch(&keys, &values)?;
    Ok(map)
}
