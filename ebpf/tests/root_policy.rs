//! The classifier in the kernel, both executions against the oracle.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use weft_ebpf::policy::harness::{Harness, Tuple};
use weft_ebpf::policy::sets::{self, Shape};
use weft_ebpf::policy::{CompileReport, Policy};
use weft_model::{EtherType, SecurityGroupMember};

/// Waits for the background, and installs.
#[allow(clippy::disallowed_methods, reason = "a deadline")]
fn compiled(harness: &mut Harness) -> Vec<CompileReport> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut reports = Vec::new();
    while !harness.table.is_settled() {
        assert!(Instant::now() < deadline, "the compiler does not end");
        reports.extend(harness.table.poll().unwrap());
        std::thread::yield_now();
    }
    reports
}

fn compare(
    harness: &Harness,
    slot: u32,
    policy: &Policy,
    members: &BTreeSet<SecurityGroupMember>,
    tuples: &[Tuple],
    what: &str,
) {
    for tuple in tuples {
        let answer = harness.ask(slot, tuple, 1).unwrap().0;
        assert_eq!(answer, policy.answer(tuple, members), "{what}: {tuple:?}");
    }
}

#[test]
fn interpreter_and_tree_answer_as_the_oracle() {
    let mut harness = Harness::load().unwrap();
    for ethertype in [EtherType::Ipv4, EtherType::Ipv6] {
        for shape in Shape::ALL {
            for count in [1, 10, 1_000, 10_000] {
                let policy = sets::policy(shape, ethertype, count);
                let members = if shape == Shape::Groups {
                    sets::members(ethertype, 500)
                } else {
                    BTreeSet::new()
                };
                let what = format!("{shape:?} {ethertype:?} {count}");
                let tuples = sets::tuples(&policy, &members, 1_000);
                let slot = harness.enforce(policy.clone(), &members).unwrap();
                compare(
                    &harness,
                    slot,
                    &policy,
                    &members,
                    &tuples[..200],
                    &format!("{what} interpreted"),
                );
                let start = std::time::SystemTime::now();
                let reports = compiled(&mut harness);
                println!("{what} {:?} {:?}", reports, start.elapsed());
                if count > 16 {
                    assert!(
                        matches!(reports[..], [CompileReport { result: Ok(_), .. }]),
                        "{what}: {reports:?}"
                    );
                }
                assert_eq!(harness.is_compiled(slot).unwrap(), count > 16, "{what}");
                compare(
                    &harness,
                    slot,
                    &policy,
                    &members,
                    &tuples,
                    &format!("{what} compiled"),
                );
            }
        }
    }
}
