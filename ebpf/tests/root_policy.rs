//! The classifier in the kernel: both executions against the oracle, and what happens around a change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use weft_ebpf::policy::harness::{Harness, HarnessError, Tuple, key};
use weft_ebpf::policy::sets::{self, Shape};
use weft_ebpf::policy::{
    CompileError, CompileReport, Enforced, Policy, PolicyKey, Remote, Rule, Tuning,
};
use weft_ebpf::sys::{Insn, Map, Prog, ProgSpec, ProgType, SysError};
use weft_model::{EtherType, SecurityGroupMember};

type Members = BTreeSet<SecurityGroupMember>;

const FAMILIES: [EtherType; 2] = [EtherType::Ipv4, EtherType::Ipv6];
const COMPILE_ALL: Tuning = Tuning {
    interpreted_rules_max: 0,
    parts_min: 1,
};

/// Tries until it is so, for at most a minute.
#[allow(clippy::disallowed_methods, reason = "a deadline")]
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::yield_now();
    }
}

/// Waits for the background, and installs.
fn compiled(harness: &mut Harness) -> Vec<CompileReport> {
    let mut reports = Vec::new();
    wait("the compiler ends", || {
        reports.extend(harness.table.poll().unwrap());
        harness.table.is_settled()
    });
    reports
}

fn compare(
    harness: &Harness,
    slot: u32,
    policy: &Policy,
    members: &Members,
    tuples: &[Tuple],
    what: &str,
) {
    for tuple in tuples {
        let answer = harness.ask(slot, tuple, 1).unwrap().0;
        assert_eq!(answer, policy.answer(tuple, members), "{what}: {tuple:?}");
    }
}

fn both_executions(shape: Shape, ethertype: EtherType, count: u32, tuning: Tuning) {
    let mut harness = Harness::load_tuned(tuning, false).unwrap();
    let what = format!("{shape:?} {ethertype:?} {count}");
    let policy = sets::policy(shape, ethertype, count);
    let members = if shape == Shape::Groups {
        sets::members(ethertype, 500)
    } else {
        Members::new()
    };
    let tuples = sets::tuples(&policy, &members, 2_000);
    let slot = harness.enforce(policy.clone(), &members).unwrap();
    if harness.program_id(slot).unwrap().is_none() {
        compare(
            &harness,
            slot,
            &policy,
            &members,
            &tuples[..300],
            &format!("{what} interpreted"),
        );
    }
    let reports = compiled(&mut harness);
    assert!(
        matches!(reports[..], [CompileReport { result: Ok(_), .. }]),
        "{what}: {reports:?}"
    );
    assert!(harness.program_id(slot).unwrap().is_some(), "{what}");
    compare(
        &harness,
        slot,
        &policy,
        &members,
        &tuples,
        &format!("{what} compiled"),
    );
}

#[test]
fn both_executions_answer_as_the_oracle() {
    for ethertype in FAMILIES {
        for shape in Shape::ALL {
            for count in [1, 10, 1_000] {
                both_executions(shape, ethertype, count, COMPILE_ALL);
            }
        }
    }
}

#[test]
fn both_executions_answer_as_the_oracle_for_10_000_rules() {
    for ethertype in FAMILIES {
        for shape in Shape::ALL {
            both_executions(shape, ethertype, 10_000, Tuning::default());
        }
    }
}

#[test]
fn both_executions_answer_as_the_oracle_for_as_many_rules_as_may_be() {
    let most = u32::try_from(weft_model::limits::RULES_PER_POLICY_MAX).unwrap();
    both_executions(Shape::Hostile, EtherType::Ipv6, most, Tuning::default());
    both_executions(Shape::Exact, EtherType::Ipv4, most, Tuning::default());
}

#[test]
fn a_policy_in_several_parts_answers_as_the_oracle() {
    for (shape, parts_min) in [
        (Shape::Services, 2),
        (Shape::Groups, 4),
        (Shape::Hostile, 8),
    ] {
        both_executions(
            shape,
            EtherType::Ipv4,
            1_000,
            Tuning {
                parts_min,
                ..COMPILE_ALL
            },
        );
    }
    both_executions(
        Shape::Exact,
        EtherType::Ipv6,
        3,
        Tuning {
            parts_min: 8,
            ..COMPILE_ALL
        },
    );
}

#[test]
fn a_policy_without_rules_allows_nothing() {
    for tuning in [Tuning::default(), COMPILE_ALL] {
        let mut harness = Harness::load_tuned(tuning, false).unwrap();
        let slot = harness
            .enforce(sets::of_rules(Vec::new(), EtherType::Ipv4), &Members::new())
            .unwrap();
        compiled(&mut harness);
        assert_eq!(harness.ask(slot, &Tuple::default(), 1).unwrap().0, None);
    }
}

#[test]
fn few_rules_are_left_to_the_interpreter() {
    let mut harness = Harness::load().unwrap();
    for (count, compiles) in [(16, false), (17, true)] {
        let slot = harness.enforce(
            sets::policy(Shape::Exact, EtherType::Ipv4, count),
            &Members::new(),
        );
        assert_eq!(compiled(&mut harness).len(), usize::from(compiles));
        assert_eq!(
            harness.program_id(slot.unwrap()).unwrap().is_some(),
            compiles,
            "{count}"
        );
    }
}

#[test]
fn what_is_missing_never_allows() {
    let mut harness = Harness::load().unwrap();
    let any = Rule {
        rule_index: 0,
        protocol: None,
        ports: Rule::PORTS_ANY,
        remote: Remote::Any,
    };
    let policy = sets::of_rules(vec![any], EtherType::Ipv4);
    let slot = harness.enforce(policy, &Members::new()).unwrap();
    let tuple = Tuple::default();
    assert_eq!(harness.ask(slot, &tuple, 1).unwrap().0, Some(0));
    assert_eq!(
        harness.ask(slot + 1, &tuple, 1).unwrap().0,
        None,
        "a slot without a policy"
    );
    for beyond in [32_768, u32::MAX] {
        assert!(
            matches!(harness.ask(beyond, &tuple, 1), Err(HarnessError::Dropped)),
            "no such slot"
        );
    }
    let nowhere = harness.ask_and_go_on(slot, &tuple, 1, 1);
    assert!(
        matches!(nowhere, Err(HarnessError::Dropped)),
        "an empty continuation"
    );
}

#[test]
fn a_refused_program_is_reported_and_the_interpreter_goes_on() {
    let mut harness = Harness::load_tuned(COMPILE_ALL, true).unwrap();
    let policy = sets::policy(Shape::Services, EtherType::Ipv4, 100);
    let slot = harness.enforce(policy.clone(), &Members::new()).unwrap();
    let reports = compiled(&mut harness);
    let [
        CompileReport {
            result: Err(CompileError::Refused { rules: 100, source }),
            ..
        },
    ] = &reports[..]
    else {
        panic!("{reports:?}");
    };
    assert!(
        source.to_string().contains("cannot pass map_type"),
        "the verifier's last lines: {source}"
    );
    assert_eq!(harness.program_id(slot).unwrap(), None);
    let tuples = sets::tuples(&policy, &Members::new(), 300);
    compare(&harness, slot, &policy, &Members::new(), &tuples, "refused");
}

#[test]
fn the_verifiers_last_lines_come_with_a_refusal() {
    let exit = Insn {
        code: 0x95,
        ..Insn::default()
    };
    let spec = ProgSpec {
        name: "broken",
        kind: ProgType::SchedCls,
        expected_attach_type: 0,
        insns: &[exit],
    };
    let error = Prog::load(&spec).unwrap_err();
    let SysError::Refused { insns: 1, log, .. } = &error else {
        panic!("{error}")
    };
    assert!(log.contains("R0 !read_ok"), "{log}");
}

#[test]
fn a_change_during_a_compile_discards_it() {
    let mut harness = Harness::load().unwrap();
    let old = sets::policy(Shape::Hostile, EtherType::Ipv4, 10_000);
    let new = sets::policy(Shape::Services, EtherType::Ipv4, 500);
    harness.enforce(old, &Members::new()).unwrap();
    let slot = harness.enforce(new.clone(), &Members::new()).unwrap();
    let tuples = sets::tuples(&new, &Members::new(), 300);
    compare(&harness, slot, &new, &Members::new(), &tuples, "at once");
    let reports = compiled(&mut harness);
    assert_eq!(
        reports.len(),
        1,
        "the stale one is not installed: {reports:?}"
    );
    compare(&harness, slot, &new, &Members::new(), &tuples, "compiled");
}

#[test]
fn a_new_member_is_in_force_without_a_compile() {
    for ethertype in FAMILIES {
        let mut harness = Harness::load_tuned(COMPILE_ALL, false).unwrap();
        let policy = sets::policy(Shape::Groups, ethertype, 600);
        let before = sets::members(ethertype, 50);
        let after = sets::members(ethertype, 80);
        let slot = harness.enforce(policy.clone(), &before).unwrap();
        compiled(&mut harness);
        let program = harness.program_id(slot).unwrap();
        let none = Members::new();
        for (members, fewer) in [
            (&after, false),
            (&before, true),
            (&none, true),
            (&after, false),
        ] {
            let enforced = harness
                .table
                .enforce(BTreeMap::from([(key(ethertype), policy.clone())]), members)
                .unwrap();
            let again: BTreeSet<u32> = fewer.then_some(slot).into_iter().collect();
            assert_eq!(enforced.narrowed, again, "sessions to be looked at again");
            assert!(enforced.member_writes > 0);
            assert_eq!(
                harness.program_id(slot).unwrap(),
                program,
                "the program stays"
            );
            let tuples = sets::tuples(&policy, &after, 500);
            compare(
                &harness,
                slot,
                &policy,
                members,
                &tuples,
                &format!("{} members", members.len()),
            );
        }
        let unchanged = harness
            .table
            .enforce(BTreeMap::from([(key(ethertype), policy)]), &after);
        assert_eq!(unchanged.unwrap(), Enforced::default());
    }
}

#[test]
fn members_of_one_family_are_not_found_by_the_other() {
    let rule = Rule {
        rule_index: 0,
        protocol: None,
        ports: Rule::PORTS_ANY,
        remote: Remote::Group(0),
    };
    let mut harness = Harness::load_tuned(COMPILE_ALL, false).unwrap();
    let policies = FAMILIES.map(|family| (key(family), sets::of_rules(vec![rule], family)));
    let address = "10.0.0.1/32".parse().unwrap();
    let members = Members::from([SecurityGroupMember {
        security_group_id: sets::group_id(0),
        address,
    }]);
    harness
        .table
        .enforce(BTreeMap::from(policies), &members)
        .unwrap();
    let tuple = Tuple {
        remote: [0x0a00_0001, 0, 0, 0],
        ..Tuple::default()
    };
    for execution in ["interpreted", "compiled"] {
        let ask = |family| {
            harness
                .ask(harness.table.slot(&key(family)).unwrap(), &tuple, 1)
                .unwrap()
                .0
        };
        assert_eq!(
            FAMILIES.map(ask),
            [Some(0), None],
            "{execution}: a00:1:: is not 10.0.0.1"
        );
        compiled(&mut harness);
    }
}

#[test]
fn a_slot_is_used_again_only_after_it_was_settled() {
    let mut harness = Harness::load().unwrap();
    let key_of = |n: u128| PolicyKey {
        groups: BTreeSet::from([sets::group_id(n)]),
        ..key(EtherType::Ipv4)
    };
    let policy = |n: u32| sets::policy(Shape::Exact, EtherType::Ipv4, n);
    let mut put = |n: u128, rules: u32| {
        let policies = BTreeMap::from([(key_of(n), policy(rules))]);
        harness.table.enforce(policies, &Members::new()).unwrap();
        harness.table.slot(&key_of(n)).unwrap()
    };
    let first = put(1, 3);
    let second = put(2, 4);
    assert_ne!(first, second, "ports may still name the first");
    assert_eq!(put(1, 3), first, "it was not given up");
    put(2, 4);
    harness.table.settle().unwrap();
    assert_eq!(harness.table.slot(&key_of(1)), None);
    wait("its table goes", || {
        harness.table_id(first).unwrap().is_none()
    });
    assert!(harness.table_id(second).unwrap().is_some());
}

/// The bar is 50 ms from the API on; the kernel's own wait after a swap (16 ms and more) must not be part of it. Not a
/// timed test: it only sees that the new rules hold when the call returns.
#[test]
fn a_change_of_rules_holds_when_the_call_returns() {
    let mut harness = Harness::load().unwrap();
    let mut policy = sets::policy(Shape::Services, EtherType::Ipv4, 1_000);
    for port in 0..200u16 {
        let rule = &mut policy.rules[0];
        *rule = Rule {
            protocol: Some(47),
            ports: (port, port),
            remote: Remote::Any,
            ..*rule
        };
        harness
            .table
            .enforce(
                BTreeMap::from([(key(EtherType::Ipv4), policy.clone())]),
                &Members::new(),
            )
            .unwrap();
        let slot = harness.table.slot(&key(EtherType::Ipv4)).unwrap();
        let ask = |port| Tuple {
            protocol: 47,
            port,
            remote: [1, 0, 0, 0],
        };
        assert_eq!(
            harness.ask(slot, &ask(port), 1).unwrap().0,
            Some(0),
            "the new one"
        );
        assert_eq!(
            harness.ask(slot, &ask(port.wrapping_sub(1)), 1).unwrap().0,
            None,
            "the old one"
        );
        if port % 3 == 0 {
            compiled(&mut harness);
        }
    }
}

/// The objects of each swap are remembered by their numbers, and looked for afterwards: other processes' do not count.
#[test]
fn a_thousand_swaps_leave_nothing_behind() {
    let mut harness = Harness::load_tuned(
        Tuning {
            parts_min: 2,
            ..COMPILE_ALL
        },
        false,
    )
    .unwrap();
    let (mut programs, mut tables) = (BTreeSet::new(), BTreeSet::new());
    let mut slot = 0;
    for swap in 0..1_000u16 {
        let rule = Rule {
            rule_index: 0,
            protocol: Some(6),
            ports: (swap, swap),
            remote: Remote::Any,
        };
        slot = harness
            .enforce(
                sets::of_rules(vec![rule; 3], EtherType::Ipv4),
                &Members::new(),
            )
            .unwrap();
        assert_eq!(compiled(&mut harness).len(), 1);
        programs.extend(harness.program_id(slot).unwrap());
        tables.extend(harness.table_id(slot).unwrap());
    }
    assert_eq!((programs.len(), tables.len()), (1_000, 1_000));
    let (program, table) = (
        harness.program_id(slot).unwrap(),
        harness.table_id(slot).unwrap(),
    );
    wait("old programs and tables are freed", || {
        let lives = |id: &u32| Some(*id) != program && Prog::from_id(*id).is_ok();
        let remains = |id: &u32| Some(*id) != table && Map::from_id(*id).is_ok();
        programs.retain(lives);
        tables.retain(remains);
        programs.is_empty() && tables.is_empty()
    });
    drop(harness);
    wait("the last ones go with their owner", || {
        Prog::from_id(program.unwrap()).is_err() && Map::from_id(table.unwrap()).is_err()
    });
}

/// Values that meet often.
fn value() -> impl Strategy<Value = u16> {
    prop_oneof![
        Just(0),
        Just(1),
        20u16..26,
        Just(255),
        Just(256),
        Just(65_534),
        Just(65_535)
    ]
}

fn remote(ethertype: EtherType) -> impl Strategy<Value = Remote> {
    let longest = if ethertype == EtherType::Ipv4 {
        32u32
    } else {
        128
    };
    let prefix = (address(ethertype), 0..=longest).prop_map(move |(address, length)| {
        let mask: [u32; 4] = std::array::from_fn(|word| {
            let bits = length
                .saturating_sub(32 * u32::try_from(word).unwrap())
                .min(32);
            u32::MAX.checked_shl(32 - bits).unwrap_or(0)
        });
        Remote::Prefix {
            address: std::array::from_fn(|n| address[n] & mask[n]),
            mask,
        }
    });
    prop_oneof![2 => Just(Remote::Any), 4 => prefix, 2 => (0u8..40).prop_map(Remote::Group)]
}

fn address(ethertype: EtherType) -> impl Strategy<Value = [u32; 4]> {
    let words = prop_oneof![
        Just(0u32),
        Just(1),
        Just(0x0a00_0001),
        Just(0x0a00_00ff),
        Just(u32::MAX)
    ];
    proptest::array::uniform4(words).prop_map(move |words| match ethertype {
        EtherType::Ipv4 => [words[0], 0, 0, 0],
        EtherType::Ipv6 => words,
    })
}

fn rule(ethertype: EtherType) -> impl Strategy<Value = Rule> {
    let protocol = prop_oneof![
        Just(None),
        Just(Some(6)),
        Just(Some(17)),
        Just(Some(0)),
        Just(Some(255))
    ];
    (protocol, value(), value(), remote(ethertype)).prop_map(|(protocol, x, y, remote)| Rule {
        rule_index: 0,
        protocol,
        ports: (x.min(y), x.max(y)),
        remote,
    })
}

fn question(ethertype: EtherType) -> impl Strategy<Value = Tuple> {
    let protocol = prop_oneof![Just(0), Just(6), Just(17), Just(255)];
    let remote = address(ethertype);
    (protocol, value(), remote).prop_map(|(protocol, port, remote)| Tuple {
        protocol,
        port,
        remote,
    })
}

fn members(ethertype: EtherType) -> impl Strategy<Value = Members> {
    let member = (0u128..40, address(ethertype)).prop_map(move |(group, words)| {
        let bits = words
            .iter()
            .fold(0u128, |bits, word| bits << 32 | u128::from(*word));
        let address: std::net::IpAddr = match ethertype {
            EtherType::Ipv4 => std::net::Ipv4Addr::from_bits(words[0]).into(),
            EtherType::Ipv6 => std::net::Ipv6Addr::from_bits(bits).into(),
        };
        SecurityGroupMember {
            security_group_id: sets::group_id(group),
            address: address.into(),
        }
    });
    proptest::collection::btree_set(member, 0..30)
}

type Case = (EtherType, Vec<Rule>, Members, Vec<Tuple>);

fn case() -> impl Strategy<Value = Case> {
    prop_oneof![Just(EtherType::Ipv4), Just(EtherType::Ipv6)].prop_flat_map(|ethertype| {
        let rules = proptest::collection::vec(rule(ethertype), 0..30);
        let tuples = proptest::collection::vec(question(ethertype), 1..40);
        (Just(ethertype), rules, members(ethertype), tuples)
    })
}

#[test]
fn random_small_sets_answer_as_the_oracle() {
    let harness = std::cell::RefCell::new(Harness::load_tuned(COMPILE_ALL, false).unwrap());
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |((ethertype, rules, members, tuples) in case())| {
        let mut harness = harness.borrow_mut();
        let policy = sets::of_rules(rules, ethertype);
        let slot = harness.enforce(policy.clone(), &members).unwrap();
        for execution in ["interpreted", "compiled"] {
            for tuple in &tuples {
                let answer = harness.ask(slot, tuple, 1).unwrap().0;
                prop_assert_eq!(answer, policy.answer(tuple, &members), "{}: {:?}", execution, tuple);
            }
            compiled(&mut harness);
        }
    });
}
