//! Files that are left behind, whole and spoilt: what goes on, what does not, and that nothing in a file does any harm.

use super::*;
use crate::engine::{Compiler, EngineConfig, Limits, Seeds};
use proptest::prelude::*;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use weft_dataplane::{Ingress, State, Verdict};
use weft_model::{DropReason, HostSnapshot};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const NOW_S: u32 = 10_000;

/// An engine with what outlives it.
struct Running {
    engine: Handle<Engine>,
    keeping: Keeping,
    adopted: Option<Adopted>,
}

fn snapshot() -> Arc<HostSnapshot> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perf-lab/snapshots");
    Arc::new(HostSnapshot::from_file(&folder.join("two-ports-policy.json")).unwrap())
}

fn limits(sessions_max: u32) -> Limits {
    Limits {
        sessions_max,
        sessions_per_port_max: sessions_max,
    }
}

fn now(s: u32) -> Now {
    Now {
        s,
        ns: u64::from(s) * 1_000_000_000,
    }
}

fn try_start(path: &Path, sizes: Limits, salt: u64) -> Result<Running, KeepError> {
    start_with(path, sizes, salt, &snapshot())
}

fn start_with(
    path: &Path,
    sizes: Limits,
    salt: u64,
    snapshot: &Arc<HostSnapshot>,
) -> Result<Running, KeepError> {
    let config = EngineConfig {
        limits: sizes,
        seeds: Seeds([salt, 2, 3, 4]),
    };
    let mut keeping = Keeping::start(path, sizes.sessions_max, salt)?;
    let mut engine = Engine::new(config);
    engine.changes_remember(keeping.memory());
    engine.enforce(Compiler::new(config.seeds).prepare(snapshot));
    let adopted = keeping.applied(&mut engine, NOW_S);
    Ok(Running {
        engine: Handle::all(engine, 1).remove(0),
        keeping,
        adopted,
    })
}

fn start(path: &Path, salt: u64) -> Running {
    try_start(path, limits(100), salt).unwrap()
}

/// Of the first guest to the second with these ports, or its answer. To ports below 1024 only answers may go.
fn datagram(ports: [u16; 2], back: bool) -> Vec<u8> {
    let (one, two) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let link = Link {
        source: if back { two } else { one },
        destination: if back { one } else { two },
    };
    let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let [source_port, destination_port] = if back { [ports[1], ports[0]] } else { ports };
    let addresses = if back {
        Ip::new(two, one)
    } else {
        Ip::new(one, two)
    };
    let ports = udp::Repr {
        source_port,
        destination_port,
    };
    frame::udp(link, addresses, ports, b"data")
}

/// Of a connection.
fn ports(number: u16) -> [u16; 2] {
    [100 + number, 2_000]
}

impl Running {
    fn send(&self, ports: [u16; 2], back: bool) -> Verdict {
        let mut engine = self.engine.write();
        let snapshot = Arc::clone(engine.snapshot().unwrap());
        let guests: Vec<_> = snapshot.ports.keys().copied().collect();
        let from = Ingress::Port(guests[usize::from(back)]);
        let frame = datagram(ports, back);
        engine.process(from, &frame, now(NOW_S)).verdict
    }

    /// Opens so many.
    fn open(&self, count: u16) {
        for number in 0..count {
            let sent = self.send(ports(number), false);
            assert!(matches!(sent, Verdict::Deliver { .. }), "{sent:?}");
        }
    }

    /// As in the worker's turns, until nothing is behind.
    fn look(&mut self) {
        while self.keeping.is_behind(&self.engine.read()) {
            self.keeping.look(&self.engine, now(NOW_S), true);
        }
    }

    fn sessions(&self) -> usize {
        self.engine.read().sessions_count()
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sessions");
    (folder, path)
}

fn adopted(sessions: usize) -> Option<Adopted> {
    Some(Adopted {
        sessions,
        ..Adopted::default()
    })
}

#[test]
fn what_came_and_went_is_there_after_a_kill() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    assert_eq!(one.adopted, None, "there was no file");
    one.open(90);
    one.look();
    one.engine.write().expire(0, 10, NOW_S + 1_000);
    one.look();
    assert_eq!(one.sessions(), 80);
    let about = std::fs::metadata(&path).unwrap();
    assert_eq!(about.mode() & 0o7777, 0o600);
    // A kill: nothing more is written.
    drop(one);
    let two = start(&path, 2);
    assert_eq!(two.adopted, adopted(80));
    // Answers that no rule allows but their session; others are dropped.
    let back = two.send(ports(10), true);
    assert!(matches!(back, Verdict::Deliver { .. }), "{back:?}");
    let never = two.send([9, 2_000], true);
    assert!(matches!(never, Verdict::Drop(_)), "{never:?}");
    assert_eq!(two.sessions(), 80);
}

#[test]
fn who_never_had_a_snapshot_leaves_what_was_there() {
    let (folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(5);
    one.look();
    drop(one);
    drop(Keeping::start(&path, 100, 2).unwrap());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "nothing beside it");
    assert_eq!(start(&path, 3).adopted, adopted(5));
}

#[test]
fn without_an_order_only_what_is_due_is_written() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.keeping.look(&one.engine, now(NOW_S), false);
    one.open(3);
    one.keeping.look(&one.engine, now(NOW_S), false);
    assert!(one.keeping.is_behind(&one.engine.read()), "it is not time");
    let later = Now {
        ns: now(NOW_S).ns + EVERY_NS,
        ..now(NOW_S)
    };
    one.keeping.look(&one.engine, later, false);
    assert!(!one.keeping.is_behind(&one.engine.read()));
    drop(one);
    assert_eq!(start(&path, 2).adopted, adopted(3));
}

#[test]
fn more_than_is_remembered_is_found_by_looking_at_all() {
    let (_folder, path) = folder();
    let sizes = limits(5_000);
    let mut one = try_start(&path, sizes, 1).unwrap();
    one.open(4_000);
    // Before it sleeps.
    one.look();
    drop(one);
    let two = try_start(&path, sizes, 2).unwrap();
    assert_eq!(two.adopted, adopted(4_000));
    // While frames come.
    let mut two = two;
    two.engine.write().expire(0, 3_000, NOW_S + 1_000);
    let mut ns = now(NOW_S).ns;
    for _ in 0..400 {
        ns += EVERY_NS / 10;
        two.keeping.look(&two.engine, Now { s: NOW_S, ns }, false);
    }
    drop(two);
    let three = try_start(&path, sizes, 3).unwrap();
    assert_eq!(three.adopted, adopted(1_000));
}

#[test]
fn times_and_states_go_on() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(2);
    // The second one is answered: it may be idle for longer.
    one.send(ports(1), true);
    one.keeping.all(&one.engine.read());
    let states = |running: &Running| {
        let engine = running.engine.read();
        let mut all: Vec<_> = engine.sessions().map(|s| (s.state, s.seen_s)).collect();
        all.sort();
        all
    };
    let before = states(&one);
    assert_eq!(before[1], (State::Established, NOW_S));
    drop(one);
    let two = start(&path, 2);
    assert_eq!(states(&two), before);
    two.engine.write().expire(0, 100, NOW_S + 31);
    assert_eq!(states(&two), before[1..]);
}

#[test]
fn what_is_too_old_or_too_much_or_gone_is_left() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(10);
    one.send(ports(0), true);
    one.keeping.all(&one.engine.read());
    drop(one);
    let copy = std::fs::read(&path).unwrap();
    let again = |sizes: Limits, snapshot: &Arc<HostSnapshot>| {
        std::fs::write(&path, &copy).unwrap();
        start_with(&path, sizes, 2, snapshot)
            .unwrap()
            .adopted
            .unwrap()
    };
    let few = again(limits(4), &snapshot());
    assert_eq!((few.sessions, few.full), (4, 6));
    let mut gone = (*snapshot()).clone();
    gone.ports.pop_last();
    let gone = again(limits(100), &Arc::new(gone));
    assert_eq!((gone.sessions, gone.gone), (0, 10));
    std::fs::write(&path, &copy).unwrap();
    let mut late = Keeping::start(&path, 100, 3).unwrap();
    let config = EngineConfig {
        limits: limits(100),
        seeds: Seeds([3; 4]),
    };
    let mut engine = Engine::new(config);
    engine.enforce(Compiler::new(config.seeds).prepare(&snapshot()));
    let late = late.applied(&mut engine, NOW_S + 31).unwrap();
    assert_eq!((late.sessions, late.idle), (1, 9));
}

/// Without any rule.
fn strict() -> Arc<HostSnapshot> {
    let mut strict = (*snapshot()).clone();
    strict.security_group_rules.clear();
    Arc::new(strict)
}

#[test]
fn a_rule_that_is_gone_lets_nothing_pass() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(2);
    one.look();
    drop(one);
    let two = start_with(&path, limits(100), 2, &strict()).unwrap();
    assert_eq!(two.adopted, adopted(2));
    let reason = two.send(ports(0), true);
    assert_eq!(reason, Verdict::Drop(DropReason::SecurityGroupEgressDenied));
    assert_eq!(two.sessions(), 1);
}

#[test]
fn one_switch_has_a_file_and_what_is_none_is_left_alone() {
    let (folder, path) = folder();
    let one = start(&path, 1);
    let second = try_start(&path, limits(100), 2);
    assert!(matches!(second, Err(KeepError::InUse)));
    drop(one);
    let other = folder.path().join("other");
    std::fs::write(&other, "precious").unwrap();
    let foreign = || try_start(&other, limits(100), 2).err().unwrap();
    assert!(matches!(foreign(), KeepError::Foreign));
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    std::fs::remove_file(&other).unwrap();
    symlink(&path, &other).unwrap();
    assert!(matches!(foreign(), KeepError::Foreign));
    std::fs::remove_file(&other).unwrap();
    std::fs::create_dir(&other).unwrap();
    assert!(matches!(foreign(), KeepError::Foreign));
    let nowhere = folder.path().join("nowhere/file");
    let nowhere = try_start(&nowhere, limits(100), 2);
    assert!(matches!(nowhere, Err(KeepError::Io(_))));
    for (sessions, fits) in [(SESSIONS_KEPT_MAX, true), (SESSIONS_KEPT_MAX + 1, false)] {
        let kept = Keeping::start(&path, sessions, 3);
        assert_eq!(kept.is_ok(), fits, "{sessions}");
    }
}

#[test]
fn a_file_that_is_not_ours_to_believe_is_refused_as_a_whole() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(5);
    one.look();
    drop(one);
    let whole = std::fs::read(&path).unwrap();
    let spoil = |at: usize| {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1;
        spoilt
    };
    // Version, sessions, boot, their check, salt.
    for at in [8, 16, 24, 32, 40] {
        std::fs::write(&path, spoil(at)).unwrap();
        assert_eq!(start(&path, 2).adopted, None, "byte {at}");
    }
    for length in [56, 4_096, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(start(&path, 2).adopted, None, "{length} bytes");
    }
    std::fs::write(&path, []).unwrap();
    assert_eq!(start(&path, 2).adopted, None, "empty");
    std::fs::write(&path, &whole).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o620)).unwrap();
    assert_eq!(start(&path, 2).adopted, None, "others may write");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &whole).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(start(&path, 2).adopted, adopted(5));
    // With another salt every entry is another's.
    std::fs::write(&path, spoil(48)).unwrap();
    let other = start(&path, 2).adopted.unwrap();
    assert_eq!((other.sessions, other.wrong), (0, 5));
}

#[test]
fn a_file_that_is_cut_off_while_it_is_written_is_given_up() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(5);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    one.look();
    assert!(one.keeping.is_lost());
    drop(one);
    assert_eq!(start(&path, 2).adopted, None);
}

#[test]
fn numbers_that_are_taken_back_name_nobody() {
    let (_folder, path) = folder();
    let mut one = start(&path, 1);
    one.open(5);
    one.look();
    one.keeping.mirror.forget();
    drop(one);
    let two = start(&path, 2).adopted.unwrap();
    assert_eq!((two.sessions, two.wrong), (0, 5));
}

/// A file with these words in place of its sessions, sealed as if they were.
fn forged(path: &Path, sessions: &[layout::Session]) {
    let one = start(path, 7);
    one.open(1);
    drop(one);
    let mut bytes = std::fs::read(path).unwrap();
    for (at, words) in sessions.iter().enumerate() {
        let mut words = *words;
        layout::seal(7, at, &mut words);
        let from = layout::SESSIONS_AT + at * layout::SESSION_BYTES;
        let to = bytes[from..].iter_mut();
        let words = words.into_iter().flat_map(u64::to_le_bytes);
        to.zip(words).for_each(|(to, byte)| *to = byte);
    }
    std::fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spoilt_bytes_do_no_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..64),
        near in any::<bool>(),
    ) {
        let (_folder, path) = folder();
        let mut one = start(&path, 1);
        one.open(50);
        one.look();
        drop(one);
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, byte) in changes {
            let at = match near {
                true => layout::SESSIONS_AT + at.index(bytes.len() - layout::SESSIONS_AT),
                false => 8 + at.index(bytes.len() - 8),
            };
            bytes[at] = byte;
        }
        std::fs::write(&path, bytes).unwrap();
        let two = start(&path, 2);
        let adopted = two.adopted.unwrap_or_default();
        prop_assert_eq!(adopted.sessions, two.sessions());
        prop_assert!(adopted.sessions + adopted.wrong <= 100);
    }

    /// Whoever can seal an entry cannot have a session that could never have been: its ends are today's, answers come in where it went
    /// out, and every packet is judged by today's rules.
    #[test]
    fn forged_sessions_open_nothing(
        entries in proptest::collection::vec(
            (
                proptest::array::uniform4(0u16..6),
                proptest::array::uniform4(0u64..4),
                any::<[u8; 4]>(),
                any::<u32>(),
            ),
            1..100,
        ),
    ) {
        let (_folder, path) = folder();
        let make = |(places, hosts, kinds, seen): &([u16; 4], [u64; 4], [u8; 4], u32)| {
            let [protocol, flags, state, _] = *kinds;
            let protocol = if protocol & 1 == 0 { 17u8 } else { 6 };
            let places = places.map(u16::to_le_bytes).concat();
            let mut eight = [0; 8];
            eight.copy_from_slice(&places);
            let [a, b, c, d] = hosts.map(|host| 0x0a00_0000 + host);
            [
                0,
                u64::from(protocol) | u64::from(flags & 4) << 8 | u64::from(state % 4) << 32,
                u64::from_le_bytes([0xd0, 7, 0xd1, 7, 0xd1, 7, 0xd0, 7]),
                u64::from_le_bytes(eight),
                0x0100_0000_0002,
                0x0200_0000_0002,
                0x0100_0000_0002,
                u64::from(*seen) << 32 | u64::from(NOW_S),
                a, 0, b, 0, c, 0, d, 0,
            ]
        };
        let sessions: Vec<_> = entries.iter().map(make).collect();
        forged(&path, &sessions);
        let two = start_with(&path, limits(100), 2, &strict()).unwrap();
        let adopted = two.adopted.unwrap_or_default();
        prop_assert_eq!(adopted.sessions, two.sessions());
        let engine = two.engine.read();
        for session in (0..100).filter_map(|at| engine.carried(at)) {
            let ends = [session.ingress, session.output, session.reply_ingress, session.network];
            prop_assert!(ends.iter().all(|place| engine.ingress(*place).is_some()));
            prop_assert!(
                session.reply_ingress == session.output || session.reply_ingress == session.network
            );
            prop_assert!(session.seen_s.iter().all(|seen_s| *seen_s <= NOW_S));
        }
        drop(engine);
        for ports in [[2_000, 2_001], [2_001, 2_000]] {
            for back in [false, true] {
                let verdict = two.send(ports, back);
                prop_assert!(matches!(verdict, Verdict::Drop(_)), "{:?}", verdict);
            }
        }
    }
}
