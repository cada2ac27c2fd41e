//! A restart of the process: what was enforced goes on, sessions included, and closing removes everything. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod common;

use common::{ACK, SYN, TestEngine, config, ipv4, mac, port, snapshot, tcp};
use weft_ebpf::policy::PolicyError;
use weft_ebpf::{Engine, EngineError, Ingress, Verdict};
use weft_model::{DropReason, HostSnapshot, Remote, SecurityGroupId, SecurityGroupMember};

const ONE: [u8; 4] = [192, 0, 2, 11];
const TWO: [u8; 4] = [192, 0, 2, 12];

fn frame(flags: u8) -> Vec<u8> {
    ipv4((mac(2), mac(1)), ONE, TWO, 6, &tcp(4000, 22, flags))
}

#[test]
fn sessions_and_slots_survive() {
    let config = config(|_config| {});
    let one = Ingress::Port(port(1));
    let mut engine = Engine::open(config.clone()).unwrap();
    engine.apply(&snapshot()).unwrap();
    let syn = engine.test_run(one, &frame(SYN), 10).unwrap();
    assert_eq!(syn.verdict, Verdict::Deliver(port(2)));
    engine.close(false).unwrap();

    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    assert_eq!(engine.sessions(10).unwrap().len(), 1);
    let ack = engine.test_run(one, &frame(ACK), 10).unwrap();
    assert_eq!(
        ack.verdict,
        Verdict::Deliver(port(2)),
        "before the first apply"
    );
    let applied = engine.apply(&snapshot()).unwrap();
    assert_eq!(applied.unsupported, []);
    let ack = engine.test_run(one, &frame(ACK), 11).unwrap();
    assert_eq!(ack.verdict, Verdict::Deliver(port(2)));
    assert_eq!(engine.sessions(10).unwrap()[0].packets, 3);

    // The first process mounted the bpffs; the second one must not unmount it, so the test does.
    drop(engine);
    assert!(!config.bpffs.join("weft").exists(), "nothing is left");
    rustix::mount::unmount(&config.bpffs, rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir(&config.bpffs).unwrap();
}

#[test]
fn a_snapshot_that_does_not_fit_changes_nothing() {
    let mut engine = TestEngine::open_with(|config| config.ports_max = 3);
    engine.apply(&snapshot()).unwrap();
    let mut more = snapshot();
    let mut fourth = more.ports[&port(1)].clone();
    fourth.mac_address = weft_model::MacAddress(mac(4));
    fourth.fixed_ips.clear();
    fourth.interface = weft_model::PortInterface::Tap {
        name: "tap4".to_owned(),
    };
    more.ports.insert(port(4), fourth);
    assert!(matches!(
        engine.apply(&more),
        Err(EngineError::Full {
            what: "ports",
            max: 3
        })
    ));
    let run = engine
        .test_run(Ingress::Port(port(1)), &frame(SYN), 1)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(2)));
}

#[test]
fn an_instance_is_one_process_s_at_a_time() {
    let config = config(|_config| {});
    let one = Ingress::Port(port(1));
    let mut engine = Engine::open(config.clone()).unwrap();
    engine.apply(&snapshot()).unwrap();
    let refused = Engine::open(config.clone()).err().unwrap();
    assert!(matches!(refused, EngineError::Taken { .. }), "{refused}");
    assert!(
        refused.to_string().contains("instance \"test\""),
        "{refused}"
    );
    let syn = engine.test_run(one, &frame(SYN), 10).unwrap();
    assert_eq!(syn.verdict, Verdict::Deliver(port(2)), "undisturbed");
    let mut other = config.clone();
    other.instance = "other".to_owned();
    drop(TestEngine(Some(Engine::open(other).unwrap())));

    // Ended in whichever way, it is free; removed or not.
    drop(engine);
    let engine = Engine::open(config.clone()).unwrap();
    assert_eq!(engine.sessions(10).unwrap().len(), 1, "taken over");
    engine.close(true).unwrap();
    let engine = Engine::open(config.clone()).unwrap();
    assert_eq!(engine.sessions(10).unwrap().len(), 0);
    engine.close(true).unwrap();
    rustix::mount::unmount(&config.bpffs, rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir(&config.bpffs).unwrap();
}

/// TCP only from members of a group, of which the first is port 1 and the others are nobody.
fn snapshot_of_members(count: u8) -> HostSnapshot {
    let mut snapshot = snapshot();
    let group = SecurityGroupId::from(common::uuid(5, 9));
    for rule in snapshot.security_group_rules.values_mut() {
        if rule.protocol == Some(6) {
            rule.remote = Remote::Group(group);
        }
    }
    for n in 0..count {
        snapshot.security_group_members.insert(SecurityGroupMember {
            security_group_id: group,
            address: std::net::IpAddr::from([192, 0, 2, 11 + n]).into(),
        });
    }
    snapshot
}

#[test]
fn as_many_members_fit_as_configured_and_also_beside_those_of_the_process_before() {
    let config = config(|config| config.group_members_max = 3);
    let passes = |engine: &mut Engine| {
        let run = engine.test_run(Ingress::Port(port(1)), &frame(SYN), 1);
        run.unwrap().verdict == Verdict::Deliver(port(2))
    };
    let mut engine = Engine::open(config.clone()).unwrap();
    engine.apply(&snapshot_of_members(3)).unwrap();
    assert!(passes(&mut engine));
    let refused = engine.apply(&snapshot_of_members(4));
    let Err(EngineError::Policy(PolicyError::Members { count: 4, max: 3 })) = refused else {
        panic!("{refused:?}");
    };
    assert!(passes(&mut engine), "what was in force still is");
    engine.close(false).unwrap();

    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    engine.apply(&snapshot_of_members(3)).unwrap();
    assert!(passes(&mut engine));
    engine.apply(&snapshot_of_members(0)).unwrap();
    assert!(!passes(&mut engine));
    drop(engine);
    rustix::mount::unmount(&config.bpffs, rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir(&config.bpffs).unwrap();
}

#[test]
fn a_port_holds_as_many_sessions_as_its_quota() {
    let mut engine = TestEngine::open_with(|config| config.sessions_per_port_max = 2);
    engine.apply(&snapshot()).unwrap();
    let open = |engine: &mut TestEngine, source| {
        let frame = ipv4((mac(2), mac(1)), ONE, TWO, 6, &tcp(source, 22, SYN));
        engine
            .test_run(Ingress::Port(port(1)), &frame, 1)
            .unwrap()
            .verdict
    };
    assert_eq!(open(&mut engine, 1), Verdict::Deliver(port(2)));
    assert_eq!(open(&mut engine, 2), Verdict::Deliver(port(2)));
    assert_eq!(
        open(&mut engine, 3),
        Verdict::Drop(DropReason::SessionQuota)
    );
    assert_eq!(engine.expire(Some(1_000)).unwrap(), 2);
    assert_eq!(open(&mut engine, 3), Verdict::Deliver(port(2)));
}
