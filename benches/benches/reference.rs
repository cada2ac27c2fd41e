//! The reference engine, stage by stage: each case is a frame that ends at that stage. It is the oracle, not the fast
//! path; a bench keeps it fast enough for tens of thousands of differential cases.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use weft_dataplane::{Ingress, Reference, ReferenceConfig};
use weft_kit::snapshot::{SnapshotGuest, guests};
use weft_model::{MacAddress, PortId};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const MACS: [[u8; 6]; 2] = [[0xfa, 0x16, 0x3e, 0, 0, 1], [0xfa, 0x16, 0x3e, 0, 0, 2]];
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
const SERVICE_PORT: u16 = 7;

fn engine(rules: usize) -> (Reference, Ingress) {
    let guest = |n: usize| SnapshotGuest {
        tap: format!("tap{n}"),
        mac: MacAddress(MACS[n]),
        address: ADDRESSES[n],
    };
    let snapshot = guests(&[guest(0), guest(1)], 1, rules, SERVICE_PORT).expect("fixed names");
    let from = |mac: [u8; 6]| {
        let port = snapshot.ports.iter().find(|(_, p)| p.mac_address.0 == mac);
        port.map(|(id, _)| *id).expect("it was put in")
    };
    let port: PortId = from(MACS[0]);
    let mut engine = Reference::new(ReferenceConfig::default());
    engine.apply(Arc::new(snapshot));
    (engine, Ingress::Port(port))
}

fn datagram(source: [u8; 6], destination_port: u16) -> Vec<u8> {
    let link = Link {
        source,
        destination: MACS[1],
    };
    let ports = udp::Repr {
        source_port: 1_024,
        destination_port,
    };
    frame::udp(link, Ip::new(ADDRESSES[0], ADDRESSES[1]), ports, &[0; 18])
}

fn stages(criterion: &mut Criterion) {
    let (fresh, ingress) = engine(10);
    let cases = [
        ("port_security", datagram([2; 6], SERVICE_PORT)),
        (
            "arp_nd",
            frame::arp_request(MACS[0], ADDRESSES[0], ADDRESSES[1]),
        ),
        ("security_group_ingress", datagram(MACS[0], 9)),
        ("deliver", datagram(MACS[0], SERVICE_PORT)),
    ];
    for (stage, frame) in cases {
        criterion.bench_function(&format!("process/reference/{stage}"), |b| {
            let run = |mut engine: Reference| engine.process(ingress, black_box(&frame), 1);
            b.iter_batched(|| fresh.clone(), run, BatchSize::SmallInput);
        });
    }
    let mut established = fresh;
    let frame = datagram(MACS[0], SERVICE_PORT);
    established.process(ingress, &frame, 1);
    criterion.bench_function("process/reference/session", |b| {
        b.iter(|| established.process(ingress, black_box(&frame), 1));
    });
}

fn classify(criterion: &mut Criterion) {
    for rules in [10, 100, 1_000, 10_000] {
        let (mut engine, ingress) = engine(rules);
        let frame = datagram(MACS[0], 9);
        criterion.bench_function(&format!("classify/reference/{rules}"), |b| {
            b.iter(|| engine.process(ingress, black_box(&frame), 1));
        });
    }
}

criterion_group!(benches, stages, classify);
criterion_main!(benches);
