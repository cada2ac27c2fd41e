//! A worker between two guests, each a driver of its own: whole frames over every kind of ring, and guests that misbehave.

use super::Handed;
use super::scene::{Guest, Kind, PLAIN, SIZE, datagram, scene, scene_of, snapshot};
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weft_dataplane::Ingress;
use weft_model::{Direction, DropReason};
use weft_wire::frame::{self, Ip, Link};
#[test]
fn whole_frames_pass_over_every_kind_of_ring() {
    let mut kinds = Vec::new();
    for number in 0..32u32 {
        let bit = |at: u32| number >> at & 1 == 1;
        let mergeable = bit(1);
        // Packed rings came with version 1.
        let version_1 = bit(4) || bit(0);
        kinds.push(Kind {
            packed: bit(0),
            mergeable,
            indirect: bit(2),
            apart: bit(3),
            version_1,
            buffer: if mergeable { 700 } else { 16_000 },
            features: 0,
        });
    }
    for (number, kind) in kinds.iter().enumerate() {
        let other = kinds[(number * 7 + 3) % kinds.len()];
        let mut scene = scene([*kind, other]);
        for (n, payload) in (0u16..).zip([0, 1, 22, 86, 87, 500, 645, 1400, 8_000]) {
            let frame = datagram(1_000 + n, payload);
            scene.guests[0].send(&frame);
            assert_eq!(scene.turn(), 1, "{kind:?} {other:?}");
            let (have, buffers) = scene.guests[1].received().unwrap_or_default();
            assert_eq!(have, frame, "{kind:?} {other:?} {payload}");
            let needed = frame.len() + 12;
            let each = usize::try_from(other.buffer).unwrap();
            assert_eq!(usize::from(buffers), needed.div_ceil(each), "{other:?}");
            assert!(
                scene.guests[0].send.collect().is_some(),
                "the buffer is given back"
            );
            scene.guests[1].receive_offer(32);
        }
        let totals = scene.counters[1].totals();
        assert_eq!((totals.tx_packets, scene.sessions()), (9, 9));
    }
}

#[test]
fn a_batch_keeps_its_order_through_the_quick_and_the_slow_way() {
    let mut scene = scene([PLAIN; 2]);
    // Every third one is an echo request: judged as a whole.
    let echo = |sequence| {
        let link = Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
        };
        let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let echo = frame::Echo {
            reply: false,
            identifier: 7,
            sequence,
        };
        frame::echo(link, addresses, echo, b"ping")
    };
    let frames: Vec<Vec<u8>> = (0u16..15)
        .map(|n| if n % 3 == 0 { echo(n) } else { datagram(n, 30) })
        .collect();
    frames.iter().for_each(|frame| scene.guests[0].send(frame));
    assert_eq!(scene.turn(), 15);
    let came: Vec<Vec<u8>> = std::iter::from_fn(|| scene.guests[1].received())
        .map(|(frame, _)| frame)
        .collect();
    assert_eq!(came, frames);
}

#[test]
fn what_is_not_delivered_is_counted_by_its_reason() {
    let mut scene = scene([PLAIN; 2]);
    let mut spoofed = datagram(1, 10);
    spoofed[6] = 6;
    let mut denied = datagram(1, 10);
    denied[37] = 80;
    denied[36] = 0;
    for frame in [spoofed, denied, vec![0; 13]] {
        scene.guests[0].send(&frame);
    }
    // 32 buffers take 32 frames and no more; then one frame that is longer than all of them.
    for number in 0..12 {
        scene.guests[0].send(&datagram(number, 10));
    }
    scene.turn();
    for number in 12..34 {
        scene.guests[0].send(&datagram(number, 10));
        scene.turn();
        while scene.guests[0].send.collect().is_some() {}
    }
    assert_eq!(scene.drops(0, DropReason::SpoofedMac), 1);
    assert_eq!(scene.drops(0, DropReason::SecurityGroupIngressDenied), 1);
    assert_eq!(scene.drops(0, DropReason::Malformed), 1);
    assert_eq!(scene.drops(0, DropReason::GuestQueueFull), 2);
    let totals = scene.counters.each_ref().map(|counters| counters.totals());
    assert_eq!((totals[0].rx_packets, totals[1].tx_packets), (37, 32));
    scene.guests[1].queues.reset();
    scene.guests[0].send(&datagram(1, 10));
    scene.turn();
    scene.turn();
    assert_eq!(scene.drops(0, DropReason::DestinationPortDown), 1);
}

#[test]
fn an_arp_request_is_answered_to_its_sender() {
    let mut scene = scene([PLAIN; 2]);
    let mac = [2, 0, 0, 0, 0, 1];
    let ask = frame::arp_request(mac, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    scene.guests[0].send(&ask);
    scene.turn();
    let (reply, _) = scene.guests[0].received().unwrap();
    assert_eq!(
        (&reply[..6], &reply[22..28]),
        (&mac[..], &[2, 0, 0, 0, 0, 2][..])
    );
}

#[test]
fn a_guest_is_told_when_it_asks_and_only_once_a_batch() {
    let mut scene = scene([PLAIN; 2]);
    let count = |guest: &Guest| {
        let mut word = [0; 8];
        let read = rustix::io::read(&guest.call, &mut word);
        read.map_or(0, |_| u64::from_ne_bytes(word))
    };
    let _started = scene.guests.each_ref().map(count);
    scene.guests[0].send.interrupts_ask(false, None);
    for number in 0..5 {
        scene.guests[0].send(&datagram(number, 10));
    }
    scene.turn();
    assert_eq!(scene.guests.each_ref().map(count), [0, 1]);
    scene.guests[1].receive.interrupts_ask(false, None);
    scene.guests[0].send(&datagram(9, 10));
    scene.turn();
    assert_eq!(scene.guests.each_ref().map(count), [0, 0]);
}

#[test]
fn a_hostile_guest_loses_its_port_and_nobody_else_notices() {
    let mut scene = scene([PLAIN; 2]);
    scene.guests[0].send(&datagram(1, 10));
    // The buffer lies where the guest has no memory.
    scene.guests[0]
        .memory
        .u64_put(0x1_0000 + 63 * 16, 1 << 40, Relaxed);
    for at in 0..usize::from(SIZE) {
        scene.guests[0]
            .memory
            .u64_put(0x1_0000 + at * 16, 1 << 40, Relaxed);
    }
    scene.turn();
    let reason = scene.guests[0].queues.shut_reason().unwrap();
    assert!(reason.contains("0x10000000000"), "{reason}");
    scene.guests[0].send(&datagram(2, 10));
    assert_eq!(scene.turn(), 0, "it is not polled any more");
    assert!(scene.guests[1].queues.shut_reason().is_none());
    // One that receives can be hostile too.
    let mut other = self::scene([PLAIN; 2]);
    for at in 0..usize::from(SIZE) {
        other.guests[1]
            .memory
            .u64_put(at * 16, u64::MAX - 5, Relaxed);
    }
    other.guests[0].send(&datagram(1, 10));
    other.turn();
    assert!(other.guests[1].queues.shut_reason().is_some());
    assert_eq!(other.drops(0, DropReason::GuestQueueFull), 1);
    assert!(other.guests[0].queues.shut_reason().is_none());
    let place = Ingress::Port(other.ports[1]);
    assert!(other.worker.engine.read().place(place).is_some());
}

#[test]
fn a_guest_that_truncates_its_memory_loses_its_port_and_nobody_else_notices() {
    let mut scene = scene([PLAIN; 2]);
    scene.guests[0].send(&datagram(1, 10));
    assert_eq!(scene.turn(), 1);
    rustix::fs::ftruncate(&scene.guests[0].file, 0).unwrap();
    scene.turn();
    let reason = scene.guests[0].queues.shut_reason().unwrap();
    assert!(reason.contains("truncated"), "{reason}");
    assert!(scene.guests[1].queues.shut_reason().is_none());
    assert!(
        scene.guests[1].received().is_some(),
        "its memory is as it was"
    );
}

#[test]
fn a_sleeping_worker_is_woken_by_a_kick() {
    let mut scene = scene([PLAIN; 2]);
    scene.turn();
    scene.guests[0].send(&datagram(1, 10));
    // Something is there already: it must not sleep over it.
    scene.worker.sleep(Duration::from_secs(5));
    assert_eq!(scene.turn(), 1);
    let kick = scene.guests[0]
        .queues
        .lock(1)
        .unwrap()
        .kick
        .clone()
        .unwrap();
    scene.guests[0].send(&datagram(2, 10));
    rustix::io::write(&*kick, &1u64.to_ne_bytes()).unwrap();
    scene.worker.sleep(Duration::from_secs(5));
    assert_eq!(scene.turn(), 1);
    assert!(!scene.guests[0].send.kicks_wanted(), "awake, it polls");
}

#[test]
fn what_rules_decide_is_handed_over_to_be_written_down_once_for_a_session() {
    let mut snapshot = snapshot("two-ports-policy.json");
    let log = weft_model::LogId::from(uuid::Uuid::from_u128(7));
    let all = weft_model::Log {
        event: weft_model::LogEvent::All,
        security_group_id: None,
    };
    snapshot.logs.insert(log, all);
    for port in snapshot.ports.values_mut() {
        port.logs = vec![log];
    }
    let mut scene = scene_of([PLAIN; 2], snapshot);
    let decided = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&decided);
    scene.worker.hand_over = Some(Arc::new(move |_, handed, _| {
        if let Handed::Decision(decision) = handed {
            said.lock().unwrap().push(decision);
        }
        true
    }));
    for _ in 0..2 {
        scene.guests[0].send(&datagram(1_000, 50));
    }
    assert_eq!(scene.turn(), 2);
    assert_eq!(scene.counters[1].totals().tx_packets, 2);
    let decided = decided.lock().unwrap();
    let seen: Vec<_> = (decided.iter())
        .map(|one| (one.port_id, one.direction, one.allowed))
        .collect();
    let [from, to] = scene.ports;
    let expected = [
        (from, Direction::Egress, true),
        (to, Direction::Ingress, true),
    ];
    assert_eq!(seen, expected, "the second packet is of the session");
}
