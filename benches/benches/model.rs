//! The snapshot as a value: difference, application and checks, by the number of ports.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::Ipv4Addr;
use weft_kit::snapshot::{SnapshotGuest, guests};
use weft_model::{HostSnapshot, MacAddress, Revision, SnapshotDelta};

fn snapshot(ports: u16) -> HostSnapshot {
    let guest = |n: u16| {
        let [a, b] = n.to_be_bytes();
        SnapshotGuest {
            tap: format!("tap{n}"),
            mac: MacAddress([0xfa, 0x16, 0x3e, 0, a, b]),
            address: Ipv4Addr::new(10, 0, a, b),
        }
    };
    let all: Vec<SnapshotGuest> = (1..=ports).map(guest).collect();
    guests(&all, usize::from(ports / 10).max(1), 10, 7).expect("fixed names")
}

fn diff(criterion: &mut Criterion) {
    for ports in [10, 100, 1_000] {
        let from = snapshot(ports);
        let mut to = from.clone();
        to.revision = Revision(2);
        to.ports
            .values_mut()
            .take(1)
            .for_each(|port| port.admin_state_up = false);
        criterion.bench_function(&format!("diff/snapshot/{ports}"), |b| {
            b.iter(|| SnapshotDelta::between(black_box(&from), black_box(&to)));
        });
        let delta = SnapshotDelta::between(&from, &to);
        criterion.bench_function(&format!("apply/snapshot/{ports}"), |b| {
            b.iter(|| from.apply(black_box(delta.clone())));
        });
        criterion.bench_function(&format!("validate/snapshot/{ports}"), |b| {
            b.iter(|| black_box(&from).validate());
        });
    }
}

criterion_group!(benches, diff);
criterion_main!(benches);
