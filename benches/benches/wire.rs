//! Parsing a frame: the pipeline's decode stage over wire's checked views.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_dataplane::stage::decode;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

fn parse(criterion: &mut Criterion) {
    let link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
    };
    let ports = udp::Repr {
        source_port: 1_024,
        destination_port: 53,
    };
    let v4 = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let v6 = Ip::new(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    for (family, addresses) in [("ipv4", v4), ("ipv6", v6)] {
        let frame = frame::udp(link, addresses, ports, &[0; 18]);
        criterion.bench_function(&format!("parse/{family}/udp"), |b| {
            b.iter(|| decode::process(black_box(&frame)));
        });
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
