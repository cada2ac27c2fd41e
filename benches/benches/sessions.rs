//! The session table by how full it is: a session that comes and goes, and the lookup that every packet does.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use uuid::Uuid;
use weft_dataplane::flow::session::{Opener, Path};
use weft_dataplane::flow::table::{SessionTable, TableLimits};
use weft_dataplane::{GuestVlan, Ingress, Session, SessionKey, State, Tuple};
use weft_model::limits::SESSIONS_MAX_DEFAULT;
use weft_model::{MacAddress, NetworkId, PortId, Revision};

fn port(number: u128) -> PortId {
    Uuid::from_u128(number).into()
}

/// The session of a number: another source port and address each.
fn session(number: u32) -> Session {
    let [a, b, c, d] = number.to_be_bytes();
    let source_port = u16::from_be_bytes([c, d]);
    let tuple = Tuple {
        protocol: 17,
        source: IpAddr::from(Ipv4Addr::new(10, a, b, 1)),
        destination: IpAddr::from(Ipv4Addr::new(10, 0, 0, 2)),
        source_port,
        destination_port: 53,
        vlan: GuestVlan::default(),
    };
    let (from, to) = (Ingress::Port(port(1)), Ingress::Port(port(2)));
    let key = |ingress, tuple| SessionKey { ingress, tuple };
    Session {
        forward: key(from, tuple),
        reply: key(to, tuple.reversed()),
        network_id: NetworkId::from(Uuid::from_u128(3)),
        opener: Opener {
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            icmp: None,
        },
        path: Path::bridged(to, tuple),
        owner: Some(port(1)),
        generation: 1,
        revision: Revision(1),
        reply_denied: None,
        rules: [None; 2],
        state: State::Opening,
        seen_s: 1,
    }
}

fn table(criterion: &mut Criterion) {
    for count in [100, 10_000, 100_000] {
        let mut table = SessionTable::new(TableLimits {
            sessions_max: SESSIONS_MAX_DEFAULT,
            sessions_per_port_max: SESSIONS_MAX_DEFAULT,
        });
        (0..count).for_each(|number| table.insert(session(number)));
        let new = session(count);
        criterion.bench_function(&format!("insert/sessions/{count}"), |b| {
            b.iter(|| {
                table.insert(black_box(new.clone()));
                table.delete(&new.reply)
            });
        });
        let there = session(count / 2);
        criterion.bench_function(&format!("lookup/sessions/{count}"), |b| {
            b.iter(|| table.get(black_box(&there.forward), 2).is_some());
        });
        let absent = session(count + 1);
        criterion.bench_function(&format!("miss/sessions/{count}"), |b| {
            b.iter(|| table.get(black_box(&absent.forward), 2).is_some());
        });
    }
}

criterion_group!(benches, table);
criterion_main!(benches);
