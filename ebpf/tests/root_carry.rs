//! An agent of another version: sessions go over into maps of another size or layout. Needs root, and clang-19 as the build does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod common;

use common::{ACK, SYN, TestEngine, config, ipv4, mac, network, port, snapshot, tcp};
use std::path::{Path, PathBuf};
use std::process::Command;
use weft_ebpf::sys::{self, Map, UpdateMode};
use weft_ebpf::{Carried, Engine, EngineConfig, Ingress, Verdict};
use weft_ebpf_common::layout;
use weft_model::{HostSnapshot, MacAddress, PortInterface};

const ONE: [u8; 4] = [192, 0, 2, 11];
const TWO: [u8; 4] = [192, 0, 2, 12];
const OUTSIDE: [u8; 4] = [203, 0, 113, 77];
const GATEWAY: [u8; 4] = [203, 0, 113, 10];
const PORT: u16 = 4_000;

fn frame(source_port: u16, flags: u8) -> Vec<u8> {
    ipv4((mac(2), mac(1)), ONE, TWO, 6, &tcp(source_port, 22, flags))
}

fn answer(destination_port: u16, flags: u8) -> Vec<u8> {
    let l4 = tcp(22, destination_port, flags);
    ipv4((mac(1), mac(2)), TWO, ONE, 6, &l4)
}

/// From guest 1 by SNAT to outside, whose answer finds the way back.
fn plays_outside(engine: &mut Engine, flags: u8) {
    let out = ipv4((mac(101), mac(1)), ONE, OUTSIDE, 6, &tcp(PORT, 80, flags));
    let run = engine.test_run(Ingress::Port(port(1)), &out, 11).unwrap();
    assert_eq!(run.verdict, Verdict::Uplink(network(3)));
    assert_eq!(run.frame[..6], mac(77), "the neighbour is known");
    assert_eq!(run.frame[26..30], GATEWAY);
    let macs = (mac(103), mac(77));
    let back = ipv4(macs, OUTSIDE, GATEWAY, 6, &tcp(80, PORT, SYN | ACK));
    let run = engine
        .test_run(Ingress::Network(network(3)), &back, 11)
        .unwrap();
    assert_eq!(run.verdict, Verdict::Deliver(port(1)));
}

/// The engine plays two connections from guest 1 to guest 2 and one to outside, and is left with all that it pinned.
fn plays(config: &EngineConfig) {
    let mut engine = Engine::open(config.clone()).unwrap();
    engine.apply(&snapshot()).unwrap();
    for source_port in [PORT, PORT + 1] {
        for (from, bytes) in [
            (1, frame(source_port, SYN)),
            (2, answer(source_port, SYN | ACK)),
            (1, frame(source_port, ACK)),
        ] {
            let run = engine
                .test_run(Ingress::Port(port(from)), &bytes, 10)
                .unwrap();
            assert_eq!(run.verdict, Verdict::Deliver(port(3 - from)));
        }
    }
    let outside = MacAddress(mac(77));
    engine
        .neighbour_put(network(3), OUTSIDE.into(), outside)
        .unwrap();
    plays_outside(&mut engine, SYN);
    assert_eq!(engine.sessions(10).unwrap().len(), 3);
    engine.close(false).unwrap();
}

/// A port more, which takes the first slot, so that all others have another.
fn renumbered() -> HostSnapshot {
    let mut snapshot = snapshot();
    let mut further = snapshot.ports[&port(1)].clone();
    further.mac_address = MacAddress(mac(40));
    further.fixed_ips.clear();
    further.interface = PortInterface::Tap {
        name: "tap0".to_owned(),
    };
    snapshot.ports.insert(port(0), further);
    snapshot
}

fn goes_on(engine: &mut Engine) {
    for (from, bytes) in [(1, frame(PORT, ACK)), (2, answer(PORT, ACK))] {
        let run = engine
            .test_run(Ingress::Port(port(from)), &bytes, 11)
            .unwrap();
        assert_eq!(run.verdict, Verdict::Deliver(port(3 - from)));
    }
    plays_outside(engine, ACK);
    let sessions = engine.sessions(10).unwrap();
    let of = |source_port| {
        let all = sessions.iter();
        let mut packets = all
            .filter(|s| s.source.1 == source_port && s.output == Ingress::Port(port(2)))
            .map(|s| (s.packets, s.reply_packets));
        packets.next()
    };
    assert_eq!((of(PORT), of(PORT + 1)), (Some((3, 2)), Some((2, 1))));
    let stray = engine.test_run(Ingress::Port(port(1)), &frame(PORT + 2, ACK), 11);
    assert!(
        matches!(stray.unwrap().verdict, Verdict::Drop(_)),
        "nobody opened it"
    );
}

/// Ends the engine with its bpffs, which the one before it had mounted.
fn ends(engine: TestEngine, bpffs: &Path) {
    drop(engine);
    assert!(!bpffs.join("weft").exists(), "nothing is left");
    rustix::mount::unmount(bpffs, rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir(bpffs).unwrap();
}

#[test]
fn sessions_go_on_in_maps_of_another_size() {
    let before = config(|_config| {});
    plays(&before);
    let mut config = before.clone();
    config.sessions_max += 1;
    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    let applied = engine.apply(&renumbered()).unwrap();
    let all = Carried {
        sessions: 3,
        ..Carried::default()
    };
    assert_eq!(applied.carried, Some(all));
    goes_on(&mut engine);
    let again = engine.apply(&renumbered()).unwrap();
    assert_eq!(again.carried, None, "once");

    // What belongs to a port that is gone does not go over.
    engine.0.take().unwrap().close(false).unwrap();
    config.sessions_max += 1;
    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    let mut fewer = snapshot();
    fewer.ports.remove(&port(2));
    let applied = engine.apply(&fewer).unwrap();
    let one = Carried {
        sessions: 1,
        left: 2,
        refused: None,
    };
    assert_eq!(applied.carried, Some(one));
    plays_outside(&mut engine, ACK);
    assert_eq!(engine.sessions(10).unwrap().len(), 1);
    ends(engine, &config.bpffs);
}

#[test]
fn no_more_sessions_go_over_than_there_is_room_for() {
    let before = config(|_config| {});
    plays(&before);
    let mut config = before.clone();
    config.sessions_max = 1;
    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    let carried = engine.apply(&snapshot()).unwrap().carried.unwrap();
    assert_eq!(
        (carried.sessions + carried.left, carried.refused),
        (3, None)
    );
    assert!(carried.left >= 1);
    ends(engine, &config.bpffs);
}

/// Declarations of the maps' structs in another layout: each begins with a field that ours do not have.
fn declarations(session: impl Fn(&str) -> String) -> String {
    let all = layout::c_declarations();
    let mut text = String::from(
        "typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;\n",
    );
    for line in all
        .lines()
        .filter(|line| !line.starts_with("_Static_assert"))
    {
        text += &session(line);
        text += "\n";
        if line.starts_with("struct ") && line.ends_with('{') {
            text += "\t__u64 older;\n";
        }
    }
    text
}

const MAPS: &str = "
#define TABLE(name, kind, key_type, value_type, count) struct { int (*type)[kind]; int (*max_entries)[count]; \\
	key_type *key; value_type *value; int (*map_flags)[kind == 1]; } name __attribute__((section(\".maps\"), used))
TABLE(sessions, 1, struct session_key, struct session, 4096);
TABLE(neighbours, 1, struct address_key, struct neighbour, 4096);
TABLE(ports, 1, __u32, struct port_record, 64);
TABLE(networks, 1, __u32, struct network_record, 64);
TABLE(uplinks, 2, __u32, struct uplink_record, 64);
";

/// Maps of another layout beside those of the engine, with all that stands in these, in their place.
fn older(config: &EngineConfig, session: impl Fn(&str) -> String) {
    let base = config.bpffs.join("weft").join(&config.instance);
    let ours = std::fs::read_dir(&base)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let directory = base.join("older");
    std::fs::create_dir(&directory).unwrap();
    let source = std::env::temp_dir().join(format!("weft-older-{}.c", std::process::id()));
    let object = source.with_extension("o");
    std::fs::write(&source, declarations(session) + MAPS).unwrap();
    let clang = std::env::var("WEFT_CLANG").unwrap_or_else(|_unset| "clang-19".to_owned());
    let mut command = Command::new(clang);
    command
        .args(["-O2", "-g", "-target", "bpf", "-c"])
        .arg(&source);
    let done = command.arg("-o").arg(&object).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let mut loader = aya::EbpfLoader::new();
    let names = ["sessions", "neighbours", "ports", "networks", "uplinks"];
    for name in names {
        loader.map_pin_path(name, directory.join(name));
    }
    let loaded = loader.load(&std::fs::read(&object).unwrap()).unwrap();
    for name in names {
        copy(&ours.join(name), &directory.join(name));
    }
    drop(loaded);
    std::fs::rename(ours.join("links"), directory.join("links")).unwrap();
    std::fs::remove_dir_all(ours).unwrap();
    std::fs::remove_file(source).unwrap();
    std::fs::remove_file(object).unwrap();
}

fn copy(from: &PathBuf, to: &PathBuf) {
    let [from, to] = [from, to].map(|path| sys::obj_get_map(path).unwrap());
    let moved = |bytes: &[u8], wanted: usize| {
        let mut moved = if bytes.len() == wanted {
            Vec::new()
        } else {
            vec![0xee; 8]
        };
        moved.extend_from_slice(bytes);
        moved.resize(wanted, 0);
        moved
    };
    let key_bytes = |map: &Map| map.info().key_bytes as usize;
    for key in from.keys(64).unwrap() {
        let value = from.lookup(&key).unwrap().unwrap();
        let key = moved(&key, key_bytes(&to));
        let value = moved(&value, to.value_bytes());
        to.update(&key, &value, UpdateMode::Any).unwrap();
    }
}

#[test]
fn sessions_go_on_in_maps_of_another_layout() {
    let config = config(|_config| {});
    plays(&config);
    older(&config, str::to_owned);
    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    let applied = engine.apply(&renumbered()).unwrap();
    let all = Carried {
        sessions: 3,
        ..Carried::default()
    };
    assert_eq!(applied.carried, Some(all));
    goes_on(&mut engine);
    ends(engine, &config.bpffs);
}

#[test]
fn a_layout_that_lacks_what_is_needed_is_left_by_name() {
    let config = config(|_config| {});
    plays(&config);
    older(&config, |line| line.replace("opener_mac", "somebody"));
    let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
    let carried = engine.apply(&snapshot()).unwrap().carried.unwrap();
    let why = "map sessions: its opener_mac is not there, or of another size";
    assert_eq!(
        (carried.sessions, carried.refused.as_deref()),
        (0, Some(why))
    );
    assert_eq!(engine.sessions(10).unwrap(), []);
    ends(engine, &config.bpffs);
}
